//! Faults of Cosmos DB and of Event Hubs: the daemon retries, no event is lost, none becomes a dead letter.

use std::time::Duration;

use devkit::{
    cosmos::{Fault, Faults, Operations},
    daemon::Daemon,
    fleet::{Pace, Plan},
};
use serde_json::json;

use crate::{
    counts,
    figures::Figures,
    world::{World, create, plan, report, until},
};

#[tokio::test(flavor = "multi_thread")]
async fn throttling_errors_and_lost_replies_change_nothing() {
    let world = World::with(Default::default(), counts::COUNTS).await;
    let mut daemon = world.start().await;
    let chance = |fault: Fault, probability| Fault { next: None, probability, ..fault };
    let answers = vec![
        chance(Fault::next(429, 1), 0.05),
        chance(Fault::next(449, 1), 0.02),
        chance(Fault::next(503, 1), 0.03),
        chance(Fault::next(408, 1).after(), 0.05),
        chance(Fault::next(500, 1).after(), 0.05),
        chance(Fault::next(503, 1).on(Operations::Reads), 0.01),
    ];
    let faults = Faults { seed: 31, answers, ..Faults::default() };
    world.stack.cosmos().set_faults(faults).expect("valid");
    // The comparison reads through the same faulty store, so it runs after the faults have ended.
    world.replays(31);
    let troubles = |sample: &devkit::metrics::Sample| {
        let writes = |outcome: &str| sample.count("twinsync_writes_total", &format!("outcome=\"{outcome}\""));
        writes("throttled") + writes("unavailable") + writes("conflict")
    };
    let fleet = world.stack.fleet();
    fleet.start(plan(40, 1_500, 31), Pace::Backlog).expect("the fleet starts");
    loop {
        fleet.phase_end().await;
        let faults = world.stack.cosmos().faults();
        // All events are handled while the faults last.
        let appended = world.appended();
        until(&mut daemon, "all events are counted", |sample| {
            sample.count("twinsync_events_total", "") >= appended
        })
        .await;
        world.stack.cosmos().set_faults(Faults::default()).expect("valid");
        world.equal().await;
        counts::are_the_hubs(&world, &daemon).await;
        world.stack.cosmos().set_faults(faults).expect("valid");
        if fleet.start_next_phase().is_err() {
            break;
        }
    }
    let struck = troubles(&daemon.sample().await.expect("metrics"));
    assert!(struck >= 5, "too few faults struck: {struck}");
    assert!(world.files("dead-letters").is_empty(), "a fault of the store made a dead letter");
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_store_shows_in_readiness_and_passes() {
    let world = World::new().await;
    let mut daemon = world.start().await;
    world.apply(create("pump"));
    world.equal().await;
    world.cosmos_is_away(true);
    for step in 0..20 {
        world.apply(report("pump", json!({"step": step})));
    }
    loop {
        let (status, text) = daemon.get("/readyz").await.expect("answers");
        if status == 503 {
            assert!(text.contains("store"), "{text}");
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (status, _) = daemon.get("/livez").await.expect("answers");
    assert_eq!(status, 200, "liveness must not fail: a restart would not help");
    world.cosmos_is_away(false);
    world.equal().await;
    daemon.ready().await.expect("ready again");
    daemon.stop().await.expect("exit code 0");
}

/// One fault of the broker under load: events flow, the fault strikes, clients are rebuilt, and all documents
/// are equal again. At least `least` clients must be rebuilt.
async fn strikes(
    world: &World,
    daemon: &mut Daemon,
    seed: u64,
    fault: &str,
    least: u64,
    strike: impl AsyncFnOnce(),
) {
    let count =
        async |daemon: &mut Daemon, name: &str| daemon.sample().await.expect("metrics").count(name, "");
    let rebuilds = count(daemon, "twinsync_partition_rebuilds_total").await;
    let handled = count(daemon, "twinsync_events_total").await;
    let load = Plan { phases: 1, prefix: format!("load-{seed}-"), ..plan(20, 600, seed) };
    world.stack.fleet().start(load, Pace::Rate(800.0)).expect("the fleet starts");
    until(daemon, "50 more events are counted", |sample| {
        sample.count("twinsync_events_total", "") > handled + 50
    })
    .await;
    let mut figures = Figures::of(fault);
    strike().await;
    until(daemon, "the metric shows the rebuilds", |sample| {
        sample.count("twinsync_partition_rebuilds_total", "") >= rebuilds + least
    })
    .await;
    figures.injected(format!(
        "{} rebuilds",
        count(daemon, "twinsync_partition_rebuilds_total").await - rebuilds
    ));
    figures.over();
    world.stack.fleet().phase_end().await;
    figures.equal(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_drop_and_links_that_close_are_rebuilt_where_they_stood() {
    let world = World::new().await;
    let mut daemon = world.start().await;
    world.replays(32);
    let faults = world.stack.broker().faults();
    let twins = world.stack.endpoints().twin_changes_hub.clone();
    // A link can only be closed after it was attached.
    let close = async |condition: Option<&str>| {
        for partition in 0..2 {
            while faults.close_receivers(&twins, partition, condition).expect("exists") == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    };
    strikes(&world, &mut daemon, 40, "all connections drop", 4, async || faults.drop_connections()).await;
    strikes(&world, &mut daemon, 41, "links closed without an error", 2, async || close(None).await).await;
    let forced = Some("amqp:link:detach-forced");
    strikes(&world, &mut daemon, 42, "links closed, detach-forced", 2, async || close(forced).await).await;
    let stolen = Some("amqp:link:stolen");
    strikes(&world, &mut daemon, 43, "links closed, stolen", 2, async || close(stolen).await).await;
    let refused = async || {
        faults.refuse_tokens(3);
        faults.drop_connections();
    };
    strikes(&world, &mut daemon, 44, "tokens refused at the reconnect", 7, refused).await;
    let no_cbs = async || {
        faults.close_token_links(2);
        faults.drop_connections();
    };
    strikes(&world, &mut daemon, 45, "$cbs link closed during the attach", 6, no_cbs).await;
    let away = async || {
        faults.refuse_connections(Duration::from_millis(700));
        faults.drop_connections();
    };
    strikes(&world, &mut daemon, 46, "connections dropped, and refused for 0.7 s", 4, away).await;
    assert!(world.files("dead-letters").is_empty());
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttling_store_is_used_up_to_its_limit_and_loses_nothing() {
    let options = devkit::stack::Options { throughput: Some(2_000), ..Default::default() };
    let world = World::with(options, "").await;
    let mut daemon = world.start().await;
    world.fleet(plan(60, 1_000, 33)).await;
    let sample = daemon.sample().await.expect("metrics");
    assert!(sample.count("twinsync_writes_total", "outcome=\"throttled\"") > 0, "no request was throttled");
    assert!(world.files("dead-letters").is_empty());
    daemon.stop().await.expect("exit code 0");
}

/// A half-open connection: it is open, nothing arrives, and no error is reported.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_silent_although_events_wait_gets_a_new_connection() {
    let world = World::with(Default::default(), "[eventhubs]\nstall_timeout = \"1s\"\n").await;
    let mut daemon = world.start().await;
    world.apply(create("pump"));
    world.equal().await;
    let faults = world.stack.broker().faults();
    let twins = world.stack.endpoints().twin_changes_hub.clone();
    for partition in 0..2 {
        faults.stall(&twins, partition).expect("exists");
    }
    world.apply(report("pump", json!({"while": "silent"})));
    until(&mut daemon, "the metric shows the stalled partition", |sample| {
        sample.count("twinsync_partition_rebuilds_total", "reason=\"stalled\"") >= 1
    })
    .await;
    for partition in 0..2 {
        faults.release(&twins, partition).expect("exists");
    }
    world.equal().await;
    let rebuilds = daemon.sample().await.expect("metrics").count("twinsync_partition_rebuilds_total", "");
    // Three partitions are idle. A partition without waiting events must not be rebuilt.
    let idle = daemon.sample().await.expect("metrics");
    assert_eq!(idle.count("twinsync_partition_rebuilds_total", "reason=\"stalled\""), rebuilds);
    assert_eq!(idle.count("twinsync_partition_rebuilds_total", "stream=\"lifecycle\""), 0);
    daemon.stop().await.expect("exit code 0");
}
