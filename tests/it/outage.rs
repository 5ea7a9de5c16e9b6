//! What the endpoints and the log say while something is out of order, and after it has passed: for each dependency, one
//! that refuses, hangs, is slow, or throttles. `docs/outages.md` has the table, and what a person does about each.

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

/// How often something is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// For how long an event may be incomplete here before its partition counts as blocked: `http.blocked_after`.
const BLOCKED_AFTER: &str = "[http]\nblocked_after = \"3s\"\n";

/// The same where a failure takes seconds: the SDK tries several times.
const BLOCKED_LATER: &str = "[http]\nblocked_after = \"8s\"\n";

/// A daemon under observation.
struct Ward<'a> {
    world: &'a World,
    daemon: Daemon,
    /// Bytes of its log that were there when the fault began.
    logged: usize,
    /// Its metrics at that time.
    before: Sample,
    /// How often it was well.
    rounds: u32,
}

/// What `/readyz` says.
#[derive(Debug)]
struct Said {
    status: u16,
    reasons: Vec<String>,
    warnings: Vec<String>,
}

impl Said {
    /// Whether it is this status, for a reason, or with a warning, that contains `text`.
    fn is(&self, status: u16, text: &str) -> bool {
        let words = if status == 200 { &self.warnings } else { &self.reasons };
        self.status == status && words.iter().any(|found| found.contains(text))
    }
}

impl<'a> Ward<'a> {
    /// Starts a daemon and waits until there is a twin that is equal.
    async fn start(world: &'a World) -> Self {
        let daemon = world.start().await;
        let mut ward = Self { world, daemon, logged: 0, before: Sample::default(), rounds: 0 };
        world.apply(create("pump"));
        ward.well().await;
        ward
    }

    /// Everything is in order, and events flow: what follows is compared with this moment.
    async fn well(&mut self) {
        self.rounds += 1;
        self.world.apply(report("pump", json!({"round": self.rounds})));
        self.world.same().await;
        self.until("everything is in order", |now, _| {
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
            tokio::time::sleep(LOOK).await;
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

    /// Waits until `/readyz` says this; a restart never helps.
    async fn says(&self, status: u16, text: &str) {
        let started = Instant::now();
        loop {
            let said = self.said().await;
            if said.is(status, text) {
                break;
            }
            assert!(started.elapsed() < LIMIT, "never {status} {text:?}: {said:?}\n{}", self.daemon.log());
            tokio::time::sleep(LOOK).await;
        }
        alive(&self.daemon).await;
    }

    /// `/readyz` says 200 for so long.
    async fn stays_ready(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            let said = self.said().await;
            assert_eq!(said.status, 200, "{said:?}\n{}", self.daemon.log());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits for a condition on the metrics of now and of before the fault.
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
                panic!("never: {what}\n{}\n{}", lines.join("\n"), self.daemon.log());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Lines of warnings and errors since the fault began.
    fn lines(&self) -> Vec<String> {
        let log = self.world.log();
        let lines = log[self.logged..].lines();
        lines.filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")).map(str::to_owned).collect()
    }

    /// At most so many lines were logged since the fault began, and among them one for each of `words`.
    fn told(&self, most: usize, words: &[&str]) {
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

/// Waits until `/readyz` answers with this status and a reason that contains `reason`; returns all reasons.
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
        assert!(started.elapsed() < LIMIT, "never {status} with {reason:?}: {text}");
        tokio::time::sleep(LOOK).await;
    }
}

pub(crate) async fn alive(daemon: &Daemon) {
    let (status, text) = daemon.get("/livez").await.expect("answers");
    assert_eq!(status, 200, "a restart would not help: {text}");
}

/// Rise of a counter.
fn rise(now: &Sample, before: &Sample, metric: &str, label: &str) -> f64 {
    now.sum(metric, label) - before.sum(metric, label)
}

/// The mean of what a histogram recorded since the fault began, if it recorded `least` values.
fn mean(now: &Sample, before: &Sample, histogram: &str, least: f64) -> Option<f64> {
    let count = rise(now, before, &format!("{histogram}_count"), "");
    (count >= least).then(|| rise(now, before, &format!("{histogram}_sum"), "") / count)
}
