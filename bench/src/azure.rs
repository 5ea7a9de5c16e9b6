//! The local Azure in its own process, so that its CPU time and memory are not counted as the daemon's.

use std::{
    collections::BTreeMap,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use devkit::{
    fleet::{Progress, Rounds, State},
    iothub::api::Quota,
    stack::Endpoints,
    verify::{self, Report},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};

use crate::process;

/// Physical partitions of the container: the maximum that devkit accepts.
const COSMOS_PARTITIONS: &str = "100";
/// Time limit for the start of devkit.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Time limit for the start if packages have to be installed first.
const INSTALL_LIMIT: Duration = Duration::from_secs(300);
/// Time limit for emitting a load.
const LOAD_LIMIT: Duration = Duration::from_secs(600);
/// How often the load's progress is checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Options of devkit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Options {
    /// Number of partitions of each Event Hub.
    pub(crate) partitions: u16,
    /// Whether to start blob storage, for checkpoints and leases. Needs Node.js.
    pub(crate) azurite: bool,
}

/// A running devkit. Dropping it kills the process.
pub(crate) struct Azure {
    process: Child,
    http: reqwest::Client,
    pub(crate) endpoints: Endpoints,
}

/// The newest sequence number of each partition, by Event Hub. −1 if there is none.
pub(crate) type Ends = BTreeMap<String, Vec<i64>>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Counters {
    eventhubs: BTreeMap<String, Hub>,
    cosmos: devkit::cosmos::Counters,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hub {
    last_sequence_numbers: Vec<i64>,
}

impl Azure {
    /// Starts the `devkit` binary.
    ///
    /// # Errors
    /// It cannot be started, or does not print its endpoints.
    pub(crate) async fn start(program: &Path, partitions: u16) -> Result<Self> {
        Self::with(program, Options { partitions, azurite: false }).await
    }

    /// Starts it with these options.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub(crate) async fn with(program: &Path, options: Options) -> Result<Self> {
        Self::spawn(program, options, COSMOS_PARTITIONS).await
    }

    /// Starts it with this number of physical partitions of the container, for workloads that read all of them.
    ///
    /// # Errors
    /// As for [`Self::start`].
    pub(crate) async fn in_few_partitions(program: &Path, partitions: u16, physical: u32) -> Result<Self> {
        Self::spawn(program, Options { partitions, azurite: false }, &physical.to_string()).await
    }

    async fn spawn(program: &Path, options: Options, physical: &str) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg("up").arg("--partitions").arg(options.partitions.to_string());
        // With few partitions, the emulator's bookkeeping grows with the documents, and the wide workload would measure
        // that.
        command.args(["--cosmos-partitions", physical]);
        if options.azurite {
            command.arg("--azurite");
        }
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let out = process.stdout.take().context("devkit's output is not captured")?;
        let mut lines = BufReader::new(out).lines();
        let limit = if options.azurite { INSTALL_LIMIT } else { START_LIMIT };
        let line = tokio::time::timeout(limit, lines.next_line()).await;
        let line = line.context("devkit does not start")??.context("devkit ended at once")?;
        let endpoints =
            serde_json::from_str(&line).context("devkit printed something else than its endpoints")?;
        Ok(Self { process, http: reqwest::Client::new(), endpoints })
    }

    /// Emits an even load as fast as the hub accepts it, and waits for its end. Returns the number of events.
    ///
    /// # Errors
    /// The load is invalid, or the hub refuses it.
    pub(crate) async fn load(&self, rounds: &Rounds) -> Result<u64> {
        self.begin(rounds, None).await?;
        self.loaded().await
    }

    /// Starts to emit an even load, at this number of events per second.
    ///
    /// # Errors
    /// The load is invalid.
    pub(crate) async fn begin(&self, rounds: &Rounds, rate: Option<f64>) -> Result<()> {
        let mut body = serde_json::to_value(rounds)?;
        body["rate"] = json!(rate);
        self.send(self.http.post(self.url("/rounds")), &body).await
    }

    /// Waits until the load is emitted. Returns the number of events.
    ///
    /// # Errors
    /// The hub refuses it, or it takes too long.
    pub(crate) async fn loaded(&self) -> Result<u64> {
        let started = Instant::now();
        loop {
            let progress: Progress = self.get("/fleet").await?;
            match progress.state {
                State::Done => return Ok(progress.counts.events),
                State::Running if started.elapsed() < LOAD_LIMIT => tokio::time::sleep(CHECK_INTERVAL).await,
                state => bail!("the load is {state:?}: {}", progress.error.unwrap_or_default()),
            }
        }
    }

    /// The first `most` devices, in the order of their ids.
    ///
    /// # Errors
    /// devkit does not answer.
    pub(crate) async fn devices(&self, most: usize) -> Result<Vec<String>> {
        let page: Value = self.get(&format!("/twins?limit={most}")).await?;
        let twins = page["twins"].as_array().context("a page without twins")?;
        let device = |twin: &Value| twin["deviceId"].as_str().map(str::to_owned);
        twins.iter().map(|twin| device(twin).context("a twin without an id")).collect()
    }

    /// Sets the hub's request limits. `None` removes them.
    ///
    /// # Errors
    /// The quota does not exist.
    pub(crate) async fn limit_hub(&self, quota: Option<Quota>) -> Result<()> {
        let url = format!("{}/quota/iothub", self.endpoints.control);
        let answer = self.http.put(url).json(&quota).send().await?;
        ensure!(answer.status().is_success(), "the quota was refused: {}", answer.text().await?);
        Ok(())
    }

    /// Reports properties as a device.
    ///
    /// # Errors
    /// The hub refuses them.
    pub(crate) async fn report(&self, device: &str, patch: &Value) -> Result<()> {
        let mut url: reqwest::Url = self.endpoints.control.parse().context("devkit has no URL")?;
        let path = ["twins", device, "reported"];
        url.path_segments_mut().ok().context("devkit's URL takes no path")?.extend(path);
        self.send(self.http.patch(url), patch).await
    }

    /// Delays each answer of Cosmos DB to a request for documents, from now on.
    ///
    /// # Errors
    /// devkit does not answer.
    pub(crate) async fn delay_cosmos(&self, milliseconds: u64) -> Result<()> {
        let faults = serde_json::json!({ "latencyMs": milliseconds });
        self.send(self.http.put(self.url("/faults/cosmos")), &faults).await
    }

    /// The newest sequence numbers of all partitions.
    ///
    /// # Errors
    /// devkit does not answer.
    pub(crate) async fn ends(&self) -> Result<Ends> {
        let counters: Counters = self.get("/counters").await?;
        Ok(counters.eventhubs.into_iter().map(|(name, hub)| (name, hub.last_sequence_numbers)).collect())
    }

    /// The counters of Cosmos DB.
    ///
    /// # Errors
    /// devkit does not answer.
    pub(crate) async fn cosmos(&self) -> Result<devkit::cosmos::Counters> {
        let counters: Counters = self.get("/counters").await?;
        Ok(counters.cosmos)
    }

    /// Compares every document with its twin. Any difference is an error: a wrong result has no figures.
    ///
    /// # Errors
    /// A document differs, is missing or flagged, or they cannot be read.
    pub(crate) async fn verify(&self) -> Result<Report> {
        let report = Box::pin(verify::verify(&self.endpoints)).await?;
        ensure!(report.is_equal(), "documents and twins differ: {report}");
        Ok(report)
    }

    /// CPU time that devkit has used. Child processes are not included; blob storage would be one, but it is not
    /// started.
    ///
    /// # Errors
    /// It has ended.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        process::cpu(self.process.id().context("devkit has ended")?)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.endpoints.control)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let answer = self.http.get(self.url(path)).send().await?.error_for_status()?;
        Ok(answer.json().await?)
    }

    async fn send(&self, request: reqwest::RequestBuilder, body: &Value) -> Result<()> {
        let answer = request.json(body).send().await?;
        let status = answer.status();
        ensure!(status.is_success(), "devkit answers {status}: {}", answer.text().await.unwrap_or_default());
        Ok(())
    }
}

/// Number of events between two states of the partitions.
pub(crate) fn events_between(before: &Ends, after: &Ends) -> u64 {
    let ends = after.iter().flat_map(|(hub, ends)| {
        let before = before.get(hub);
        ends.iter().enumerate().map(move |(partition, end)| {
            end - before.and_then(|before| before.get(partition)).copied().unwrap_or(-1)
        })
    });
    ends.map(|events| u64::try_from(events).unwrap_or(0)).sum()
}

/// The position before the first event of every partition.
pub(crate) fn beginning(ends: &Ends) -> Ends {
    ends.iter().map(|(hub, ends)| (hub.clone(), vec![-1; ends.len()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_over_all_partitions_of_all_hubs() {
        let before = Ends::from([("a".to_owned(), vec![-1, 9]), ("b".to_owned(), vec![4])]);
        let after =
            Ends::from([("a".to_owned(), vec![1, 9]), ("b".to_owned(), vec![5]), ("c".to_owned(), vec![0])]);
        assert_eq!(events_between(&before, &after), 2 + 1 + 1);
        assert_eq!(events_between(&beginning(&after), &after), 2 + 10 + 6 + 1);
    }
}
