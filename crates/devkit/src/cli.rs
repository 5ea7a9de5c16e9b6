//! The subcommands.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{Args, Parser, ValueEnum};
use devkit::{
    fleet::{Plan, Progress, State},
    iothub::{
        HubNames,
        api::{Quota, Tier},
    },
    stack::{self, AnotherIotHub, Endpoints, Stack},
    verify::{Report, verify},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::{signal::unix, time::Instant};

/// How often the progress of a run and the documents are checked.
const POLL: Duration = Duration::from_millis(200);

/// A local Azure for twinsync: Event Hubs, Cosmos DB and an IoT hub with a fleet of devices.
#[derive(Debug, Parser)]
#[command(name = "devkit", version)]
pub(crate) enum Command {
    /// Starts everything, prints the endpoints as one JSON line, and serves until SIGINT or SIGTERM.
    Up(Up),
    /// Runs a fleet in a running devkit and prints its progress at the end.
    Fleet(Fleet),
    /// Compares every document in Cosmos DB with its hub's twin, of all hubs: exit code 0 if equal, 1 if not.
    Verify(Verify),
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Address to listen on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    address: IpAddr,
    /// Port of the Event Hubs broker; 0 chooses a free one.
    #[arg(long, default_value_t = 0)]
    eventhubs_port: u16,
    /// Port of Cosmos DB; 0 chooses a free one.
    #[arg(long, default_value_t = 0)]
    cosmos_port: u16,
    /// Port of IoT Hub's service API; 0 chooses a free one.
    #[arg(long, default_value_t = 0)]
    iothub_port: u16,
    /// Port of the control interface; 0 chooses a free one.
    #[arg(long, default_value_t = 0)]
    control_port: u16,
    /// Partitions of each Event Hub.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    partitions: u16,
    /// Event Hub for lifecycle events.
    #[arg(long, default_value = "lifecycle")]
    lifecycle_hub: String,
    /// Event Hub for twin changes; may be the same as for lifecycle events.
    #[arg(long, default_value = "twin-changes")]
    twin_changes_hub: String,
    /// A consumer group besides $Default; may be repeated.
    #[arg(long = "consumer-group")]
    consumer_groups: Vec<String>,
    /// Name of the IoT hub.
    #[arg(long, default_value = "devkit-hub")]
    iothub_name: String,
    /// Name of another IoT hub, with a service API on a free port and routes to the same Event Hubs; may be repeated.
    #[arg(long = "another-iothub", value_name = "NAME")]
    more_iothubs: Vec<String>,
    /// Tier whose limits the IoT hub's service API applies: F1, S1, S2 or S3. Without it, there are no limits.
    #[arg(long, value_parser = tier)]
    iothub_tier: Option<Tier>,
    /// Units of the tier.
    #[arg(long, default_value_t = 1, requires = "iothub_tier")]
    iothub_units: u32,
    /// Number of changes that each IoT hub remembers, for failovers and for queries that show an earlier state. 0 remembers nothing. Such
    /// queries switch the history on automatically.
    #[arg(long, value_name = "CHANGES", default_value_t = 0)]
    history: usize,
    /// Provisioned request units per second, at least 400. Without it, nothing is throttled.
    #[arg(long)]
    throughput: Option<u64>,
    /// Physical partitions of the Cosmos DB container, at most 100, because the SDK sends a query to at most 100. With many documents, more
    /// partitions reduce this process's CPU time per request.
    #[arg(long, value_name = "PARTITIONS", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=100))]
    cosmos_partitions: u32,
    /// The only token that the broker and the IoT hub accept. Without it, they accept any token.
    #[arg(long)]
    token: Option<String>,
    /// Starts blob storage as well: Azurite, from npm. Needs Node.js.
    #[arg(long)]
    azurite: bool,
    /// Port of Azurite; 0 chooses a free one.
    #[arg(long, default_value_t = 0, requires = "azurite")]
    azurite_port: u16,
}

#[derive(Debug, Args)]
pub(crate) struct Fleet {
    /// Control port of a running devkit, such as http://127.0.0.1:8090.
    #[arg(long)]
    control: String,
    /// Name of the IoT hub, if the devkit has several. Default: the first one.
    #[arg(long)]
    hub: Option<String>,
    /// Devices to register.
    #[arg(long, default_value_t = 100)]
    devices: usize,
    /// Total number of events to emit.
    #[arg(long, default_value_t = 5_000)]
    events: u64,
    /// Seed of the run. The same seed gives the same operations.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Events per second. Without it, as fast as possible.
    #[arg(long)]
    rate: Option<f64>,
    /// Share of devices with modules.
    #[arg(long, default_value_t = 0.1)]
    modules: f64,
    /// Number of phases. A deleted id is re-created in a later phase.
    #[arg(long, default_value_t = 3)]
    phases: usize,
    /// Share of deletions after which the id is re-created immediately. Only the registry can distinguish these incarnations.
    #[arg(long, default_value_t = 0.0)]
    recreate_at_once: f64,
    /// Prefix of each device id, so that several fleets can share a hub.
    #[arg(long, default_value = "")]
    prefix: String,
    /// What to wait for between two phases.
    #[arg(long, value_enum, default_value_t = Barrier::Verify)]
    barrier: Barrier,
    /// Time limit for this wait, in seconds.
    #[arg(long, default_value_t = 300)]
    barrier_timeout: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Barrier {
    /// Wait until the documents in Cosmos DB equal the twins.
    Verify,
    /// Do not wait. Then it may be impossible to decide to which incarnation of a device an event belongs.
    None,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Control port of a running devkit, such as http://127.0.0.1:8090.
    #[arg(long)]
    control: String,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Seconds to wait until documents and twins are equal; 0 compares once.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    wait: u64,
}

impl Command {
    /// Runs the command. `print` receives its results.
    pub(crate) async fn run(self, print: fn(&str)) -> anyhow::Result<ExitCode> {
        match self {
            Self::Up(up) => up.run(print).await,
            Self::Fleet(fleet) => fleet.run(print).await,
            Self::Verify(verify) => verify.run(print).await,
        }
    }
}

fn tier(name: &str) -> Result<Tier, serde_json::Error> {
    serde_json::from_value(Value::from(name))
}

impl Up {
    async fn run(self, print: fn(&str)) -> anyhow::Result<ExitCode> {
        // The handlers are installed before the endpoints are printed: a program that reads the endpoints may send a signal at once.
        let mut terminate = unix::signal(unix::SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        let mut interrupt = unix::signal(unix::SignalKind::interrupt()).context("cannot wait for SIGINT")?;
        let at = |port| SocketAddr::new(self.address, port);
        let quota = self.iothub_tier.map(|tier| Quota { tier, units: self.iothub_units });
        let another = |name| {
            let hub = AnotherIotHub::named(name);
            let iothub = devkit::iothub::Options { history: self.history, ..hub.iothub };
            AnotherIotHub { iothub, service: at(0), quota, ..hub }
        };
        let defaults = stack::Options::default();
        let stack = Stack::start(stack::Options {
            eventhubs: at(self.eventhubs_port),
            cosmos: at(self.cosmos_port),
            control: at(self.control_port),
            partitions: self.partitions,
            hubs: HubNames { lifecycle: self.lifecycle_hub, twin_changes: self.twin_changes_hub },
            consumer_groups: self.consumer_groups,
            iothub: devkit::iothub::Options {
                name: self.iothub_name,
                history: self.history,
                ..defaults.iothub
            },
            iothub_service: at(self.iothub_port),
            iothub_quota: quota,
            more_iothubs: self.more_iothubs.into_iter().map(another).collect(),
            throughput: self.throughput,
            cosmos_partitions: self.cosmos_partitions,
            token: self.token,
            azurite: self.azurite,
            blobs: at(self.azurite_port),
            ..defaults
        })
        .await?;
        print(&serde_json::to_string(stack.endpoints())?);
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = stack.shutdown_requested() => {}
        }
        tokio::select! {
            biased;
            _ = terminate.recv() => bail!("stopped by a second signal"),
            _ = interrupt.recv() => bail!("stopped by a second signal"),
            () = stack.stop() => Ok(ExitCode::SUCCESS),
        }
    }
}

impl Fleet {
    async fn run(self, print: fn(&str)) -> anyhow::Result<ExitCode> {
        let control = Control::new(&self.control);
        let plan = Plan {
            devices: self.devices,
            events: self.events,
            seed: self.seed,
            modules: self.modules,
            phases: self.phases,
            recreate_at_once: self.recreate_at_once,
            prefix: self.prefix,
        };
        let mut body = serde_json::to_value(plan)?;
        body["rate"] = json!(self.rate);
        let endpoints: Endpoints = control.get("/endpoints").await?;
        let control = control.about(self.hub);
        control.post("/fleet", &body).await?;
        loop {
            let progress: Progress = control.get("/fleet").await?;
            match progress.state {
                State::Running => tokio::time::sleep(POLL).await,
                State::Waiting => {
                    if let Barrier::Verify = self.barrier {
                        caught_up(&endpoints, Duration::from_secs(self.barrier_timeout)).await?;
                    }
                    control.post("/fleet/next", &Value::Null).await?;
                }
                State::Done => {
                    print(&serde_json::to_string(&progress)?);
                    return Ok(ExitCode::SUCCESS);
                }
                State::Idle | State::Stopped | State::Failed => {
                    bail!("the fleet ended early: {}", progress.error.as_deref().unwrap_or("it was stopped"));
                }
            }
        }
    }
}

/// Waits until every document equals its twin.
async fn caught_up(endpoints: &Endpoints, limit: Duration) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let check_started = Instant::now();
        let report: Report = verify(endpoints).await?;
        if report.is_equal() {
            return Ok(());
        }
        if started.elapsed() > limit {
            bail!("the documents did not equal the twins within {} s: {report}", limit.as_secs());
        }
        // Comparing a large hub takes CPU time that twinsync needs to catch up.
        tokio::time::sleep(POLL.max(check_started.elapsed())).await;
    }
}

impl Verify {
    async fn run(self, print: fn(&str)) -> anyhow::Result<ExitCode> {
        let endpoints: Endpoints = Control::new(&self.control).get("/endpoints").await?;
        let until = Instant::now() + Duration::from_secs(self.wait);
        let report = loop {
            let report = verify(&endpoints).await?;
            if report.is_equal() || Instant::now() >= until {
                break report;
            }
            tokio::time::sleep(POLL).await;
        };
        print(&if self.json { serde_json::to_string(&report)? } else { report.to_string() });
        Ok(if report.is_equal() { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

/// A client of the control port.
struct Control {
    url: String,
    client: reqwest::Client,
    /// The IoT hub that requests refer to. `None`: the first one.
    hub: Option<String>,
}

impl Control {
    fn new(url: &str) -> Self {
        Self { url: url.trim_end_matches('/').to_owned(), client: reqwest::Client::new(), hub: None }
    }

    fn about(self, hub: Option<String>) -> Self {
        Self { hub, ..self }
    }

    fn url_of(&self, path: &str) -> String {
        let hub = self.hub.iter().map(|hub| ("hub", hub));
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(hub).finish();
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{}{path}{mark}{query}", self.url)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let url = self.url_of(path);
        let answer = Self::answer(self.client.get(&url), &url).await?;
        serde_json::from_value(answer).with_context(|| format!("{url} gave an answer that is not a devkit's"))
    }

    async fn post(&self, path: &str, body: &Value) -> anyhow::Result<()> {
        let url = self.url_of(path);
        Self::answer(self.client.post(&url).json(body), &url).await?;
        Ok(())
    }

    /// Returns the JSON answer. If it is an error, fails with its message.
    async fn answer(request: reqwest::RequestBuilder, url: &str) -> anyhow::Result<Value> {
        let response = request.send().await.with_context(|| format!("cannot reach the devkit at {url}"))?;
        let status = response.status();
        let answer: Value =
            response.json().await.with_context(|| format!("{url} gave an answer that is not a devkit's"))?;
        if status.is_success() {
            return Ok(answer);
        }
        let message = answer.pointer("/error/message").and_then(Value::as_str).unwrap_or("no reason given");
        bail!("{url} refused with {status}: {message}");
    }
}
