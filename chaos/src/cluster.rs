//! Three replicas, the local Azure around them, and the state of each replica.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use devkit::{
    daemon::{Daemon, Setup},
    iothub::{Operation, Service, TwinId, USUAL_HISTORY},
    metrics::Sample,
    proxy::Proxy,
    stack::{AnotherIotHub, Endpoints, Options, Stack},
    verify,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use twinsync::telemetry::name;

use crate::{
    clock::{self, Off},
    disk::Disk,
};

/// Number of replicas of the daemon.
pub(crate) const REPLICAS: usize = 3;
/// Partitions of each of the two Event Hubs.
const PARTITIONS: u16 = 6;
/// The hub that fails over. It has few twins, and no other part of the run changes them.
const SECOND_HUB: &str = "failover-hub";
/// Number of devices whose changes show that events are processed: enough that hardly any partition has none.
const PROBES: usize = 32;
/// Devices of the hub that fails over.
pub(crate) const SECOND_DEVICES: usize = 20;
/// Time limit for an answer of a replica. After that, it counts as not answering.
const ANSWER: Duration = Duration::from_millis(700);
/// How often a state is polled.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Short time limits, so that a run of minutes shows what takes longer with the defaults.
const SHORT: &str = "[lease]\nduration = \"5s\"\nrenew_interval = \"1s\"\n\
    [checkpoint]\nstore = \"blob\"\ninterval = \"500ms\"\n\
    [cosmos]\nrequest_timeout = \"2s\"\n\
    [http]\nblocked_after = \"4s\"\n\
    [dead_letters]\nstore = \"file\"\n\
    [audit]\ntolerance = \"0s\"\n\
    [counting]\ninterval = \"1s\"\n\
    [[counts]]\nname = \"by_version\"\ngroup_by = \"properties.reported.$version\"\n\
    [[counts]]\nname = \"modules\"\nfrom = \"devices.modules\"\n";

/// One replica: its process, its own connections to the services, and its own disk.
pub(crate) struct Replica {
    pub(crate) setup: Setup,
    pub(crate) daemon: Option<Daemon>,
    pub(crate) broker: Proxy,
    pub(crate) storage: Proxy,
    pub(crate) disk: Option<Disk>,
    // The last field, because the disk that is mounted in it has to be dropped first.
    directory: TempDir,
}

/// Everything that a run breaks.
pub(crate) struct Cluster {
    pub(crate) stack: Stack,
    pub(crate) replicas: Vec<Replica>,
    /// The reason if no disk can be mounted.
    pub(crate) no_disk: Option<String>,
    round: u64,
}

impl Replica {
    async fn new(program: &Path, stack: &Stack, no_disk: &mut Option<String>) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let endpoints = stack.endpoints();
        let azurite = stack.azurite().context("Azurite does not run")?.address();
        let broker = Proxy::start(stack.broker().address()).await?;
        let storage = Proxy::start(azurite).await?;
        let url = endpoints.checkpoint_container_url.as_deref().context("there is no blob storage")?;
        let url = url.replace(&azurite.to_string(), &storage.address().to_string());
        let disk = match Disk::mount(&directory.path().join("dead-letters")) {
            Ok(disk) => Some(disk),
            Err(error) => {
                *no_disk = Some(format!("{error:#}"));
                None
            }
        };
        let more = format!(
            "[eventhubs]\nendpoint = \"amqp://{}\"\nstall_timeout = \"4s\"\nopen_timeout = \"4s\"\n\
             [blob]\ncontainer_url = \"{url}\"\n{}{SHORT}",
            broker.address(),
            registry(endpoints),
        );
        let setup = Setup::new(program, directory.path(), endpoints, &more)?.in_a_group_of_its_own();
        Ok(Self { setup, daemon: None, broker, storage, disk, directory })
    }

    /// Whether `/readyz` answers 200 in time.
    pub(crate) async fn is_ready(&self) -> bool {
        self.complaint().await.is_none()
    }

    /// The answer of `/readyz`, if it is not 200.
    async fn complaint(&self) -> Option<String> {
        let Some(daemon) = &self.daemon else { return Some("it does not run".into()) };
        match tokio::time::timeout(ANSWER, daemon.get("/readyz")).await {
            Ok(Ok((200, _))) => None,
            Ok(Ok((_, text))) => {
                let said: Value = serde_json::from_str(&text).unwrap_or_default();
                let reasons = said["reasons"].as_array().into_iter().flatten().filter_map(Value::as_str);
                Some(reasons.collect::<Vec<_>>().join("; "))
            }
            Ok(Err(_)) | Err(_) => Some("it does not answer".into()),
        }
    }

    /// Its metrics, if it answers in time.
    pub(crate) async fn sample(&mut self) -> Option<Sample> {
        let daemon = self.daemon.as_mut()?;
        tokio::time::timeout(ANSWER, daemon.sample()).await.ok()?.ok()
    }

    /// Starts its process, without waiting for it.
    pub(crate) fn spawn(&mut self) -> Result<()> {
        self.daemon = Some(self.setup.spawn()?);
        Ok(())
    }

    /// Stops its process in an orderly way.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop().await?;
        }
        Ok(())
    }

    /// Stops its process, and starts it again with a clock that is off.
    pub(crate) async fn restart_with_clock(&mut self, off: Off) -> Result<()> {
        let library = clock::library().map_err(anyhow::Error::msg)?;
        self.stop().await?;
        self.daemon = Some(clock::with_clock(&self.setup, library, off).spawn()?);
        Ok(())
    }

    /// Sends a signal to its process.
    pub(crate) async fn signal(&self, signal: &str) -> Result<()> {
        let status = Command::new("kill").arg(format!("-{signal}")).arg(self.process()?).status().await?;
        ensure!(status.success(), "the signal {signal} cannot be sent");
        Ok(())
    }

    /// Sets the limit of open files of its process. Returns the previous limit.
    pub(crate) async fn limit_files(&self, limit: &str) -> Result<String> {
        let process = format!("--pid={}", self.process()?);
        let before = ["--nofile", "--output=SOFT", "--noheadings"];
        let before = Command::new("prlimit").arg(&process).args(before).output().await;
        let before = before.context("there is no `prlimit`")?;
        let set = Command::new("prlimit").arg(&process).arg(format!("--nofile={limit}:")).status().await?;
        ensure!(set.success(), "the limit of open files cannot be set");
        Ok(String::from_utf8_lossy(&before.stdout).trim().to_owned())
    }

    fn process(&self) -> Result<String> {
        let id = self.daemon.as_ref().and_then(Daemon::id);
        Ok(id.context("the replica has ended")?.to_string())
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }
}

/// The configuration of the hubs that the replica may query.
fn registry(endpoints: &Endpoints) -> String {
    let hubs = endpoints.iothubs();
    let join = |parts: Vec<String>| parts.join(", ");
    format!(
        "[iothub]\nconnection_strings = \"{}\"\nendpoint = \"{}\"\ntier = \"s3\"\nunits = 10\nshare = \"1\"\nrequest_timeout = \"2s\"\n",
        join(hubs.iter().map(|hub| hub.connection_string.clone()).collect()),
        join(hubs.iter().map(|hub| format!("{}={}", hub.name, hub.service)).collect()),
    )
}

impl Cluster {
    /// Starts everything, and waits until the replicas own all partitions.
    ///
    /// # Errors
    /// A part cannot be started.
    pub(crate) async fn start(program: &Path) -> Result<Self> {
        let options = Options {
            partitions: PARTITIONS,
            azurite: true,
            cosmos_proxy: true,
            more_iothubs: vec![AnotherIotHub::named(SECOND_HUB)],
            ..Options::default()
        };
        let stack = Box::pin(Stack::start(options)).await.context("devkit does not start")?;
        let (mut replicas, mut no_disk) = (Vec::new(), None);
        for _ in 0..REPLICAS {
            replicas.push(Replica::new(program, &stack, &mut no_disk).await?);
        }
        let mut cluster = Self { stack, replicas, no_disk, round: 0 };
        for number in 0..PROBES {
            apply(cluster.stack.hub(), Operation::Create { id: device("probe", number)?, twin: None })?;
        }
        let second = cluster.second_hub()?;
        second.keep_history(USUAL_HISTORY);
        for number in 0..SECOND_DEVICES {
            apply(second, Operation::Create { id: device("pump", number)?, twin: None })?;
        }
        for replica in &mut cluster.replicas {
            replica.spawn()?;
        }
        cluster.recover(Duration::from_secs(90)).await.context("the replicas do not start")?;
        Ok(cluster)
    }

    /// The hub that fails over.
    pub(crate) fn second_hub(&self) -> Result<&Service> {
        let hubs = self.stack.iothubs();
        Ok(hubs.get(1).context("there is no second hub")?.service())
    }

    /// Number of deliveries of events so far that repeated an earlier delivery.
    pub(crate) fn repeated(&self) -> Result<i64> {
        let delivered = self.stack.broker().faults().counters().delivered;
        Ok(i64::try_from(delivered)? - i64::try_from(self.stack.appended()?)?)
    }

    /// Waits until all replicas are ready and own all partitions, and until changes that are made from now on are in their documents.
    /// Returns how long it took, and what was missing last.
    ///
    /// # Errors
    /// It took longer than `limit`. The error says what was missing.
    pub(crate) async fn recover(&mut self, limit: Duration) -> Result<(Duration, String)> {
        let began = Instant::now();
        self.round += 1;
        for number in 0..PROBES {
            let patch = json!({ "round": self.round });
            apply(self.stack.hub(), Operation::Report { id: device("probe", number)?, patch })?;
        }
        let mut last = String::new();
        loop {
            let Some(missing) = self.missing().await? else { return Ok((began.elapsed(), last)) };
            if began.elapsed() > limit {
                bail!("not in order after {} s: {missing}\n{}", limit.as_secs(), self.logs());
            }
            last = missing;
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// What is not in order yet.
    async fn missing(&mut self) -> Result<Option<String>> {
        let mut owned = 0;
        for (number, replica) in self.replicas.iter_mut().enumerate() {
            if let Some(complaint) = replica.complaint().await {
                return Ok(Some(format!("replica {number} is not ready: {complaint}")));
            }
            let sample = replica.sample().await;
            owned += sample.map_or(0, |sample| sample.count(name::PARTITIONS_OWNED, ""));
        }
        if owned != u64::from(PARTITIONS) * 2 {
            return Ok(Some(format!("{owned} of {} partitions are owned", PARTITIONS * 2)));
        }
        let documents = Box::pin(verify::documents(self.stack.endpoints())).await?;
        for number in 0..PROBES {
            let id = device("probe", number)?;
            let newest = self.stack.hub().twin(&id).unwrap_or_default();
            if version_in(&documents, &self.stack.endpoints().iothub_name, id.device_id()) < version(&newest)
            {
                return Ok(Some(format!("the document of {} is old", id.device_id())));
            }
        }
        let second = self.second_hub()?;
        for number in 0..SECOND_DEVICES {
            let id = device("pump", number)?;
            let twin = second.twin(&id).unwrap_or_default();
            if version_in(&documents, SECOND_HUB, id.device_id()) != version(&twin) {
                return Ok(Some(format!("the document of {} is not the twin's", id.device_id())));
            }
        }
        Ok(None)
    }

    /// The declared counts of the replicas that are wrong, according to devkit's evaluation over the twins of all hubs.
    ///
    /// # Errors
    /// A replica does not answer.
    pub(crate) async fn wrong_counts(&self) -> Result<Vec<String>> {
        let hubs = self.stack.iothubs().iter();
        let twins: Vec<_> = hubs.flat_map(|hub| hub.service().page(None, usize::MAX - 1).twins).collect();
        let mut wrong = Vec::new();
        for replica in &self.replicas {
            let daemon = replica.daemon.as_ref().context("a replica does not run")?;
            let (_, body) = daemon.get("/api/counts").await?;
            wrong.extend(verify::wrong_counts(&serde_json::from_str(&body)?, &twins));
        }
        Ok(wrong)
    }

    /// Copies the replicas' logs to `directory`.
    ///
    /// # Errors
    /// They cannot be copied.
    pub(crate) fn keep_logs(&self, directory: &Path) -> Result<()> {
        std::fs::create_dir_all(directory).context("the directory for logs cannot be created")?;
        for (number, replica) in self.replicas.iter().enumerate() {
            std::fs::copy(replica.log(), directory.join(format!("replica-{number}.log")))
                .context("a log cannot be copied")?;
        }
        Ok(())
    }

    /// The last lines of all logs.
    pub(crate) fn logs(&self) -> String {
        let end = |(number, replica): (usize, &Replica)| {
            let text = std::fs::read_to_string(replica.log()).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            let last = &lines[lines.len().saturating_sub(12)..];
            format!("replica {number}:\n{}", last.join("\n"))
        };
        self.replicas.iter().enumerate().map(end).collect::<Vec<_>>().join("\n")
    }
}

/// The id of one of the devices with this name.
pub(crate) fn device(name: &str, number: usize) -> Result<TwinId> {
    Ok(TwinId::device(format!("{name}-{number}"))?)
}

/// Performs an operation on a hub.
pub(crate) fn apply(hub: &Service, operation: Operation) -> Result<()> {
    hub.apply(&operation).map(drop).with_context(|| format!("the hub refuses {operation:?}"))
}

fn version(twin: &Value) -> Option<i64> {
    twin["version"].as_i64()
}

fn version_in(documents: &[Value], hub: &str, device: &str) -> Option<i64> {
    let is_its = |document: &&Value| {
        document["deviceId"] == device && document["hubName"] == hub && document["moduleId"].is_null()
    };
    documents.iter().find(is_its).and_then(version)
}
