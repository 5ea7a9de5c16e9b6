//! The endpoints and the log during and after outages. Each dependency refuses, hangs, is slow, or throttles.
//! `docs/outages.md` has a table of the same outages with the remedies.

mod checkpoints;
mod cosmos;
mod dead_letters;
mod eventhubs;
mod iothub;
mod timed;

use std::time::{Duration, Instant};

use devkit::{daemon::Daemon, metrics::Sample};
use serde_json::{Value, json};

pub(crate) use self::checkpoints::proxied as proxied_blobs;
use crate::world::{LIMIT, World, create, report};

/// Interval of polls.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The setting `http.blocked_after`: an older incomplete event blocks its partition.
const BLOCKED_AFTER: &str = "[http]\nblocked_after = \"3s\"\n";

/// The same for dependencies whose failures take seconds, because their SDK retries.
const BLOCKED_LATER: &str = "[http]\nblocked_after = \"8s\"\n";

/// A daemon during a fault.
struct Ward<'a> {
    world: &'a World,
    daemon: Daemon,
    /// Length of the log when the fault began, in bytes.
    logged: usize,
    /// Metrics when the fault began.
    before: Sample,
    /// Number of calls of `well`.
    rounds: u32,
}

/// An answer of `/readyz`.
#[derive(Debug)]
struct Said {
    status: u16,
    reasons: Vec<String>,
    warnings: Vec<String>,
}

impl Said {
    /// Whether the status is `status`, with a warning (for 200) or a reason that contains `text`.
    fn is(&self, status: u16, text: &str) -> bool {
        let words = if status == 200 { &self.warnings } else { &self.reasons };
        self.status == status && words.iter().any(|found| found.contains(text))
    }
}

impl<'a> Ward<'a> {
    /// Starts a daemon and waits for the document of a device.
    async fn start(world: &'a World) -> Self {
        let daemon = world.start().await;
        let mut ward = Self { world, daemon, logged: 0, before: Sample::default(), rounds: 0 };
        world.apply(create("pump"));
        ward.well().await;
        ward
    }

    /// Waits until everything works and events flow. Later measurements compare with this moment.
    async fn well(&mut self) {
        self.rounds += 1;
        self.world.apply(report("pump", json!({"round": self.rounds})));
        self.world.same().await;
        self.until("all metrics are healthy again", |now, _| {
            now.sum("twinsync_ready", "") == 1.0
                && now.sum("twinsync_partition_up", "") == 4.0
                && now.sum("twinsync_eventhub_up", "") == 2.0
                && now.sum("twinsync_store_up", "") == 1.0
                && now.sum("twinsync_checkpoint_store_up", "") == 1.0
                && now.sum("twinsync_oldest_incomplete_event_age_seconds", "") == 0.0
                && now.sum("twinsync_checkpoint_age_seconds", "") == 0.0
        })
        .await;
        let started = Instant::now();
        loop {
            let said = self.said().await;
            if said.status == 200 && said.warnings.is_empty() {
                break;
            }
            assert!(started.elapsed() < LIMIT, "{said:?}");
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        self.logged = self.world.log().len();
        self.before = self.daemon.sample().await.expect("metrics");
    }

    async fn said(&self) -> Said {
        let (status, text) = self.daemon.get("/readyz").await.expect("answers");
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        let words = |name: &str| {
            let words = answer[name].as_array().into_iter().flatten();
            words.map(|word| word.as_str().expect("text").to_owned()).collect()
        };
        Said { status, reasons: words("reasons"), warnings: words("warnings") }
    }

    /// Waits until `/readyz` answers like this. Liveness never fails, because a restart would not help.
    async fn says(&self, status: u16, text: &str) {
        let started = Instant::now();
        loop {
            let said = self.said().await;
            if said.is(status, text) {
                break;
            }
            assert!(
                started.elapsed() < LIMIT,
                "timed out waiting for status {status} with {text:?}; got {said:?}\n{}",
                self.daemon.log()
            );
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        alive(&self.daemon).await;
    }

    /// Asserts that `/readyz` answers 200 for this time.
    async fn stays_ready(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            let said = self.said().await;
            assert_eq!(said.status, 200, "{said:?}\n{}", self.daemon.log());
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Waits for a condition on the current metrics and the metrics from before the fault.
    async fn until(&mut self, what: &str, condition: impl Fn(&Sample, &Sample) -> bool) {
        let started = Instant::now();
        loop {
            let now = self.daemon.sample().await.unwrap_or_else(|error| panic!("{error}"));
            if condition(&now, &self.before) {
                return;
            }
            if started.elapsed() >= LIMIT {
                let (_, metrics) = self.daemon.get("/metrics").await.expect("answers");
                let lines: Vec<_> = metrics
                    .lines()
                    .filter(|line| !line.contains("_bucket") && !line.starts_with('#'))
                    .collect();
                panic!("timed out waiting until {what}\n{}\n{}", lines.join("\n"), self.daemon.log());
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Lines of warnings and errors since the fault began.
    fn lines(&self) -> Vec<String> {
        let log = self.world.log();
        let lines = log[self.logged..].lines();
        lines.filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")).map(str::to_owned).collect()
    }

    /// Asserts that at most `most` lines were logged since the fault began, among them one with each of `words`.
    fn assert_logged(&self, most: usize, words: &[&str]) {
        let lines = self.lines();
        let all = lines.join("\n");
        assert!(lines.len() <= most, "{} lines, more than {most}:\n{all}", lines.len());
        for word in words {
            assert!(lines.iter().any(|line| line.contains(word)), "no {word:?} in:\n{all}");
        }
    }

    async fn stop(self) {
        self.daemon.stop().await.expect("exit code 0");
    }
}

/// Waits until `/readyz` answers with this status and a reason that contains `reason`. Returns all reasons.
pub(crate) async fn readiness(daemon: &Daemon, status: u16, reason: &str) -> Vec<String> {
    let started = Instant::now();
    loop {
        let (found, text) = daemon.get("/readyz").await.expect("answers");
        let answer: Value = serde_json::from_str(&text).expect("JSON");
        let reasons = answer["reasons"].as_array().expect("reasons").iter();
        let reasons: Vec<_> = reasons.map(|reason| reason.as_str().expect("text").to_owned()).collect();
        if found == status && (reason.is_empty() || reasons.iter().any(|found| found.contains(reason))) {
            return reasons;
        }
        assert!(
            started.elapsed() < LIMIT,
            "timed out waiting for status {status} with {reason:?}; got {text}"
        );
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

pub(crate) async fn alive(daemon: &Daemon) {
    let (status, text) = daemon.get("/livez").await.expect("answers");
    assert_eq!(status, 200, "liveness must not fail: a restart would not help: {text}");
}

/// Increase of a counter.
fn rise(now: &Sample, before: &Sample, metric: &str, label: &str) -> f64 {
    now.sum(metric, label) - before.sum(metric, label)
}

/// The mean of the values that a histogram recorded since the fault began, if there are at least `least`.
fn mean(now: &Sample, before: &Sample, histogram: &str, least: f64) -> Option<f64> {
    let count = rise(now, before, &format!("{histogram}_count"), "");
    (count >= least).then(|| rise(now, before, &format!("{histogram}_sum"), "") / count)
}
