//! A local Azure, the files of one daemon, and the comparison of documents with twins.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use devkit::{
    daemon::{Daemon, Setup},
    fleet::{Pace, Plan, State},
    iothub::{DeliveryFaults, Operation, TwinId},
    stack::{Options, Stack},
    verify::{Report, verify},
};
use serde_json::Value;
use tempfile::TempDir;

/// Time limit of every wait.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);
/// Interval of polls.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The binary under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_twinsync");

/// The environment of a daemon.
pub(crate) struct World {
    pub(crate) stack: Stack,
    pub(crate) directory: TempDir,
    pub(crate) setup: Setup,
}

impl World {
    /// With default options.
    pub(crate) async fn new() -> Self {
        Self::with(Options::default(), "").await
    }

    /// With other options of the local Azure, and more TOML for the daemon.
    pub(crate) async fn with(options: Options, more: &str) -> Self {
        let stack =
            Box::pin(Stack::start(Options { partitions: 2, ..options })).await.expect("devkit starts");
        let directory = tempfile::tempdir().expect("a directory");
        let setup = Setup::new(Path::new(PROGRAM), directory.path(), stack.endpoints(), more);
        Self { setup: setup.expect("configuration is written"), stack, directory }
    }

    /// Sets other TOML for the daemon's next start.
    pub(crate) fn configure(&mut self, more: &str) {
        let setup = Setup::new(Path::new(PROGRAM), self.directory.path(), self.stack.endpoints(), more);
        self.setup = setup.expect("configuration is written");
    }

    pub(crate) async fn start(&self) -> Daemon {
        self.setup.start().await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Sets whether Cosmos DB answers every request with 503.
    pub(crate) fn cosmos_is_away(&self, away: bool) {
        let faults = devkit::cosmos::Faults { outage: away, ..Default::default() };
        self.stack.cosmos().set_faults(faults).expect("valid");
    }

    /// The hub performs an operation.
    pub(crate) fn apply(&self, operation: Operation) {
        self.stack.hub().apply(&operation).unwrap_or_else(|error| panic!("{operation:?}: {error:?}"));
    }

    /// Runs a fleet with duplicates and ordered replays. Between the phases the daemon catches up.
    pub(crate) async fn fleet(&self, plan: Plan) {
        self.replays(plan.seed);
        let fleet = self.stack.fleet();
        fleet.start(plan, Pace::Backlog).expect("the fleet starts");
        loop {
            let progress = fleet.phase_end().await;
            self.equal().await;
            match progress.state {
                State::Done => return,
                State::Waiting => fleet.start_next_phase().expect("goes on"),
                other => panic!("the fleet is {other:?}: {:?}", progress.error),
            }
        }
    }

    /// From here on every stream has duplicates and ordered replays.
    pub(crate) fn replays(&self, seed: u64) {
        let faults = DeliveryFaults { seed, duplicate: 0.05, replay: 0.05, ..DeliveryFaults::default() };
        self.stack.hub().set_delivery_faults(faults);
    }

    /// Waits until no document differs from its twin and none is flagged.
    pub(crate) async fn equal(&self) -> Report {
        let started = Instant::now();
        loop {
            let report = Box::pin(verify(self.stack.endpoints())).await.expect("both can be read");
            if report.is_equal() && report.flagged == 0 {
                return report;
            }
            assert!(started.elapsed() < LIMIT, "{report}");
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Waits until no document differs from its twin. Documents may be flagged, as after dead letters.
    pub(crate) async fn same(&self) -> Report {
        self.report_where(Report::is_equal).await
    }

    /// Waits until this number of documents is flagged.
    pub(crate) async fn flagged(&self, count: u64) -> Report {
        self.report_where(|report| report.flagged == count).await
    }

    /// Waits until the document of this device equals its twin. Others may differ.
    pub(crate) async fn equal_or_flagged(&self, device: &str) -> Report {
        self.report_where(|report| report.differences.iter().all(|found| found.device_id != device)).await
    }

    async fn report_where(&self, condition: impl Fn(&Report) -> bool) -> Report {
        let started = Instant::now();
        loop {
            let report = Box::pin(verify(self.stack.endpoints())).await.expect("both can be read");
            if condition(&report) {
                return report;
            }
            assert!(started.elapsed() < LIMIT, "{report}\n{}", self.log());
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Number of events that were appended to both streams.
    pub(crate) fn appended(&self) -> u64 {
        self.stack.appended().expect("hubs exist")
    }

    /// The log of all daemons so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Files below `directory/name`, sorted.
    pub(crate) fn files(&self, name: &str) -> Vec<std::path::PathBuf> {
        fn collect(directory: &Path, files: &mut Vec<std::path::PathBuf>) {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() { collect(&path, files) } else { files.push(path) }
            }
        }
        let mut files = Vec::new();
        collect(&self.directory.path().join(name), &mut files);
        files.sort();
        files
    }
}

/// Waits for a condition on the daemon's metrics.
pub(crate) async fn until(
    daemon: &mut Daemon,
    what: &str,
    condition: impl Fn(&devkit::metrics::Sample) -> bool,
) {
    let started = Instant::now();
    loop {
        let sample = daemon.sample().await.unwrap_or_else(|error| panic!("{error}"));
        if condition(&sample) {
            return;
        }
        assert!(started.elapsed() < LIMIT, "timed out waiting until {what}\n{}", daemon.log());
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

pub(crate) fn plan(devices: usize, events: u64, seed: u64) -> Plan {
    Plan { devices, events, seed, ..Plan::default() }
}

pub(crate) fn device(id: &str) -> TwinId {
    TwinId::device(id).expect("a valid id")
}

pub(crate) fn create(id: &str) -> Operation {
    Operation::Create { id: device(id), twin: None }
}

pub(crate) fn report(id: &str, patch: Value) -> Operation {
    Operation::Report { id: device(id), patch }
}
