//! What the endpoints say while something is out of order, and after it has passed.

use std::time::{Duration, Instant};

use devkit::daemon::Daemon;
use serde_json::{Value, json};

use crate::{
    poison::twin_change,
    world::{LIMIT, World, create, report, until},
};

/// A partition counts as blocked soon.
const IMPATIENT: &str = "[http]\nblocked_after = \"1s\"\n";

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
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) async fn alive(daemon: &Daemon) {
    let (status, text) = daemon.get("/livez").await.expect("answers");
    assert_eq!(status, 200, "a restart would not help: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_for_dead_letters_that_cannot_be_written_turns_readiness_red_and_lets_the_age_rise() {
    let world = World::with(Default::default(), IMPATIENT).await;
    let mut daemon = world.start().await;
    world.apply(create("pump"));
    world.equal().await;
    // A file where the directory was: whoever may write anywhere cannot write there.
    let (letters, aside) =
        (world.directory.path().join("dead-letters"), world.directory.path().join("aside"));
    std::fs::rename(&letters, &aside).expect("moved");
    std::fs::write(&letters, b"").expect("written");
    let hub = world.stack.endpoints().twin_changes_hub.clone();
    world.stack.broker().append(&hub, "pump", twin_change("pump", b"[1]")).expect("appended");
    readiness(&daemon, 503, "the dead-letter store has not answered").await;
    readiness(&daemon, 503, "is blocked: its event").await;
    alive(&daemon).await;
    world.apply(report("pump", json!({"step": 1})));
    world.same().await; // the partition goes on behind it
    until(&mut daemon, "what is out of order shows in figures", |sample| {
        sample.sum("twinsync_dead_letter_store_up", "") == 0.0
            && sample.sum("twinsync_ready", "") == 0.0
            && sample.sum("twinsync_oldest_incomplete_event_age_seconds", "") > 1.0
            && sample.sum("twinsync_checkpoint_age_seconds", "") > 1.0
    })
    .await;
    std::fs::remove_file(&letters).expect("removed");
    std::fs::rename(&aside, &letters).expect("moved back");
    readiness(&daemon, 200, "").await;
    until(&mut daemon, "all is well again", |sample| {
        sample.sum("twinsync_dead_letter_store_up", "") == 1.0
            && sample.sum("twinsync_ready", "") == 1.0
            && sample.sum("twinsync_oldest_incomplete_event_age_seconds", "") == 0.0
            && sample.sum("twinsync_checkpoint_age_seconds", "") == 0.0
    })
    .await;
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_cosmos_db_lets_the_age_rise_and_names_the_blocked_partition() {
    let world = World::with(Default::default(), IMPATIENT).await;
    let mut daemon = world.start().await;
    world.apply(create("pump"));
    world.equal().await;
    world.cosmos_is_away(true);
    for number in 0..8 {
        world.apply(create(&format!("pump-{number}")));
    }
    readiness(&daemon, 503, "the document store does not answer").await;
    readiness(&daemon, 503, "is blocked: its event").await;
    alive(&daemon).await;
    until(&mut daemon, "the outage shows in figures", |sample| {
        sample.sum("twinsync_store_up", "") == 0.0
            && sample.sum("twinsync_oldest_incomplete_event_age_seconds", "") > 1.0
            && sample.sum("twinsync_checkpoint_age_seconds", "") > 1.0
    })
    .await;
    world.cosmos_is_away(false);
    world.equal().await;
    readiness(&daemon, 200, "").await;
    until(&mut daemon, "all is well again", |sample| {
        sample.sum("twinsync_store_up", "") == 1.0
            && sample.sum("twinsync_oldest_incomplete_event_age_seconds", "") == 0.0
    })
    .await;
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_cannot_be_read_are_down_and_the_lag_is_known_to_be_old() {
    let world = World::new().await;
    let mut daemon = world.start().await;
    world.apply(create("pump"));
    world.equal().await;
    until(&mut daemon, "all partitions are up", |sample| {
        sample.sum("twinsync_partition_up", "") == 4.0
            && sample.sum("twinsync_lag_measured_timestamp_seconds", "") > 0.0
    })
    .await;
    world.stack.broker().faults().refuse_connections(Duration::from_secs(3));
    world.stack.broker().faults().drop_connections();
    readiness(&daemon, 503, "waits:").await;
    alive(&daemon).await;
    until(&mut daemon, "it shows in figures", |sample| sample.sum("twinsync_partition_up", "") < 4.0).await;
    readiness(&daemon, 200, "").await;
    world.apply(report("pump", json!({"step": 1})));
    world.equal().await;
    until(&mut daemon, "all partitions are up again", |sample| {
        sample.sum("twinsync_partition_up", "") == 4.0
    })
    .await;
    daemon.stop().await.expect("exit code 0");
}
