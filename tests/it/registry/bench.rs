//! A world with a registry, commands beside the daemon, and direct changes of documents.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use azure_core::credentials::Secret;
use azure_data_cosmos::{
    AccountReference, ContainerClient, CosmosClient, RoutingStrategy, options::BinaryEncodingOptions,
};
use devkit::{
    daemon::{Daemon, Setup},
    fleet::{Pace, Plan, State},
    iothub::Operation,
    stack::Options,
    verify::{Report, verify},
};
use serde_json::Value;

use crate::world::{LIMIT, PROGRAM, World, until};

/// A hub with quotas above the speed of this machine.
pub(crate) const FAST: &str = "tier = \"s3\"\nunits = 10\nshare = 1\n";

/// Exit code and output of a command.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) errors: String,
}

impl Ended {
    /// The only line of `--json`.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.out, self.errors))
    }
}

/// A world with a registry.
pub(crate) struct Bench {
    pub(crate) world: World,
}

impl Bench {
    /// With `iothub` as the rest of the section `[iothub]`, and `more` TOML after it.
    pub(crate) async fn new(iothub: &str, more: &str) -> Self {
        Self::over(Options::default(), iothub, more).await
    }

    /// Without a registry.
    pub(crate) async fn without_registry(more: &str) -> Self {
        Self { world: World::with(Options::default(), more).await }
    }

    /// With other options of the local Azure.
    pub(crate) async fn over(options: Options, iothub: &str, more: &str) -> Self {
        let mut bench = Self { world: World::with(options, "").await };
        bench.world.setup = bench.setup(bench.world.directory.path(), iothub, more);
        bench
    }

    /// A daemon's configuration in its own directory. It authenticates with a shared access policy.
    pub(crate) fn setup(&self, directory: &Path, iothub: &str, more: &str) -> Setup {
        let endpoints = self.world.stack.endpoints();
        let access = format!("connection_strings = \"{}\"", endpoints.iothub_connection_string);
        self.setup_as(directory, &access, iothub, more)
    }

    /// The same with its identity.
    pub(crate) fn setup_with_identity(&self, directory: &Path, iothub: &str, more: &str) -> Setup {
        let access = format!("hosts = \"{}\"", self.world.stack.endpoints().iothub_host_name);
        self.setup_as(directory, &access, iothub, more)
    }

    fn setup_as(&self, directory: &Path, access: &str, iothub: &str, more: &str) -> Setup {
        let endpoints = self.world.stack.endpoints();
        let toml = format!(
            "[iothub]\n{access}\nendpoint = \"{}\"\nrequest_timeout = \"2s\"\n{iothub}\n{more}\n",
            endpoints.iothub
        );
        Setup::new(PROGRAM.as_ref(), directory, endpoints, &toml).expect("configuration is written")
    }

    pub(crate) async fn start(&self) -> Daemon {
        self.world.start().await
    }

    /// Starts a command.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> tokio::process::Child {
        self.spawn_with(&[], arguments)
    }

    /// The same with environment variables.
    pub(crate) fn spawn_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> tokio::process::Child {
        let mut command = tokio::process::Command::new(PROGRAM);
        command.args(arguments);
        for file in ["twinsync.toml", "more.toml"] {
            command.arg("--config").arg(self.world.directory.path().join(file));
        }
        command.envs(variables.iter().copied());
        command.env("COSMOS_DISABLE_IMDS", "1").stdin(Stdio::null()).kill_on_drop(true);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with(&[], arguments).await
    }

    /// The same with environment variables.
    pub(crate) async fn run_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Ended {
        let child = self.spawn_with(variables, arguments);
        let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await;
        let output = output.unwrap_or_else(|_| panic!("{arguments:?} does not end")).expect("it ran");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Ended {
            code: output.status.code().expect("it exited"),
            out: text(output.stdout),
            errors: text(output.stderr),
        }
    }

    /// Runs `audit --json` with these arguments. Returns exit code and report.
    pub(crate) async fn audit(&self, arguments: &[&str]) -> (i32, Value) {
        let all: Vec<_> = ["audit", "--json", "--tolerance", "0s"].iter().chain(arguments).copied().collect();
        let ended = self.run(&all).await;
        (ended.code, ended.json())
    }

    /// Applies operations without events, as for twins from before the streams.
    pub(crate) fn were_there(&self, operations: &[Operation]) {
        self.world.stack.hub().apply_unrouted(operations).expect("valid operations");
    }

    /// The current differences.
    pub(crate) async fn report(&self) -> Report {
        Box::pin(verify(self.world.stack.endpoints())).await.expect("both can be read")
    }

    /// Runs the whole fleet without pauses between the phases, until the daemon has completed all events.
    pub(crate) async fn fleet(&self, plan: Plan, pace: Pace, daemon: &mut Daemon) {
        let fleet = self.world.stack.fleet();
        fleet.start(plan, pace).expect("the fleet starts");
        loop {
            let progress = fleet.phase_end().await;
            match progress.state {
                State::Done => break,
                State::Waiting => fleet.start_next_phase().expect("goes on"),
                other => panic!("the fleet is {other:?}: {:?}", progress.error),
            }
        }
        self.world.stack.hub().flush().expect("delivered");
        self.caught_up(daemon).await;
    }

    /// Waits until every event in the broker is completed.
    pub(crate) async fn caught_up(&self, daemon: &mut Daemon) {
        until(daemon, "every event is completed", |sample| {
            sample.count("twinsync_events_total", "") >= self.world.appended()
                && sample.count("twinsync_in_flight_events", "") == 0
        })
        .await;
    }

    /// Waits until no document is flagged. Documents may differ.
    pub(crate) async fn without_flag(&self) -> Report {
        let started = Instant::now();
        loop {
            let report = self.report().await;
            if report.flagged == 0 {
                return report;
            }
            assert!(started.elapsed() < LIMIT, "{report}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The container, for direct changes of documents.
    pub(crate) async fn container(&self) -> ContainerClient {
        let endpoints = self.world.stack.endpoints();
        let account = AccountReference::with_authentication_key(
            endpoints.cosmos.parse().expect("a URL"),
            Secret::new(endpoints.cosmos_key.clone()),
        );
        let client = CosmosClient::builder()
            .with_binary_encoding_options(BinaryEncodingOptions::new().with_enabled(false))
            .build(account, RoutingStrategy::PreferredRegions(vec!["Local".into()]))
            .await
            .expect("connects");
        let database = client.database_client(endpoints.database.clone());
        database.container_client(endpoints.container.clone(), None).await.expect("a container")
    }

    /// Changes the document of a device.
    pub(crate) async fn alter(&self, device: &str, change: impl FnOnce(&mut Value)) {
        let container = self.container().await;
        let response = container.read_item(device.to_owned(), device, None).await.expect("it is there");
        let mut document: Value = response.into_model().expect("JSON");
        change(&mut document);
        let device = device.to_owned();
        container.upsert_item(device.clone(), &device, &document, None).await.expect("written");
    }

    /// Deletes the document of a device.
    pub(crate) async fn remove(&self, device: &str) {
        let container = self.container().await;
        container.delete_item(device.to_owned(), device, None).await.expect("removed");
    }

    /// Number of point reads of the registry.
    pub(crate) fn gets(&self) -> u64 {
        self.world.stack.registry().counters().get("readTwin").map_or(0, |count| count.requests)
    }

    /// Number of query pages of the registry.
    pub(crate) fn queries(&self) -> u64 {
        self.world.stack.registry().counters().get("query").map_or(0, |count| count.requests)
    }

    /// Number of documents written.
    pub(crate) fn writes(&self) -> u64 {
        let counters = self.world.stack.cosmos().counters();
        let requests = |name| counters.get(name).map_or(0, |count| count.requests);
        requests("create") + requests("replace")
    }
}
