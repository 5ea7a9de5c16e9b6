//! A broker that restarts, and network connections that stop without an error.

use std::time::Duration;

use devkit::{
    fleet::{Pace, Plan},
    proxy::Proxy,
};
use serde_json::json;

use crate::{
    figures::Figures,
    world::{World, create, report, until},
};

/// How long the broker is down.
const AWAY: Duration = Duration::from_secs(3);

/// A load of one phase, so that the fleet does not wait for the daemon during the fault.
fn load(seed: u64, events: u64) -> Plan {
    Plan { devices: 40, events, seed, phases: 1, ..Plan::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_resume_after_a_restart_of_the_broker() {
    let world = World::new().await;
    let mut daemon = world.start().await;
    world.replays(61);
    world.stack.fleet().start(load(61, 3_000), Pace::Rate(400.0)).expect("the fleet starts");
    let broker = world.stack.broker();
    let appended = world.appended();
    let mut figures = Figures::of("broker restarts under load, logs kept");
    until(&mut daemon, "more than 300 events are counted", |sample| {
        sample.count("twinsync_events_total", "") > 300
    })
    .await;
    broker.go_down().await;
    let down = std::time::Instant::now();
    tokio::net::TcpStream::connect(broker.address()).await.expect_err("connections are refused");
    while broker.faults().counters().open_connections > 0 {
        assert!(down.elapsed() < AWAY, "not all connections broke at once");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(AWAY).await; // the outage has a fixed length
    assert!(world.appended() > appended, "no events arrived during the outage");
    broker.come_back().await.expect("on the same port");
    figures.injected(format!("1 ({AWAY:?} away)"));
    figures.over();
    until(&mut daemon, "four rebuilds are counted", |sample| {
        sample.count("twinsync_partition_rebuilds_total", "") >= 4
    })
    .await;
    world.stack.fleet().phase_end().await;
    figures.equal(&world).await;
    assert!(world.files("dead-letters").is_empty());
    daemon.stop().await.expect("exit code 0");
}

/// The old events have expired; the sequence numbers continue.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_comes_back_without_its_old_events_is_no_reason_to_stop() {
    let world = World::new().await;
    let mut daemon = world.start().await;
    let steps = 50;
    world.apply(create("pump"));
    for step in 0..steps {
        world.apply(report("pump", json!({"step": step})));
    }
    world.equal().await;
    let handled = world.appended();
    until(&mut daemon, "all events are counted", |sample| {
        sample.count("twinsync_events_total", "") == handled
    })
    .await;
    let (broker, endpoints) = (world.stack.broker(), world.stack.endpoints());
    let mut figures = Figures::of("broker restarts, numbers kept, old events gone");
    broker.go_down().await;
    for hub in [&endpoints.lifecycle_hub, &endpoints.twin_changes_hub] {
        for partition in broker.partitions(hub).expect("exists") {
            let next = partition.last_sequence_number + 1;
            broker.faults().expire_before(hub, partition.id, next).expect("exists");
        }
    }
    for step in 0..steps {
        world.apply(report("pump", json!({"while": "away", "step": step})));
    }
    broker.come_back().await.expect("on the same port");
    figures.over();
    figures.equal(&world).await;
    let sample = daemon.sample().await.expect("metrics");
    assert_eq!(
        sample.count("twinsync_events_total", ""),
        world.appended(),
        "each event must be handled once"
    );
    assert!(world.files("dead-letters").is_empty());
    daemon.stop().await.expect("exit code 0");
}

/// No connection is closed or reset, but no bytes arrive.
#[tokio::test(flavor = "multi_thread")]
async fn half_open_connections_are_noticed_and_replaced() {
    let mut world = World::new().await;
    let proxy = Proxy::start(world.stack.broker().address()).await.expect("a port");
    // Management calls hang as well. They are given up after `open_timeout`.
    let settings = format!(
        "[eventhubs]\nendpoint = \"amqp://{}\"\nstall_timeout = \"1s\"\nopen_timeout = \"1s\"\n",
        proxy.address()
    );
    world.configure(&settings);
    let mut daemon = world.start().await;
    world.replays(62);
    world.stack.fleet().start(load(62, 2_000), Pace::Rate(400.0)).expect("the fleet starts");
    until(&mut daemon, "more than 300 events are counted", |sample| {
        sample.count("twinsync_events_total", "") > 300
    })
    .await;
    let mut figures = Figures::of("half-open: all connections frozen both ways");
    let frozen = proxy.abandon_connections();
    let open = world.stack.broker().faults().counters().open_connections;
    figures.injected(format!("{frozen} connections"));
    figures.over(); // the old connections never recover, so the recovery time includes their replacement
    until(&mut daemon, "the metric shows the stalled connection", |sample| {
        sample.count("twinsync_partition_rebuilds_total", "reason=\"stalled\"") >= 1
    })
    .await;
    assert!(proxy.connections() > frozen, "there are no new connections");
    assert!(
        world.stack.broker().faults().counters().open_connections > open,
        "the old connections must still be open"
    );
    world.stack.fleet().phase_end().await;
    figures.equal(&world).await;
    assert!(world.files("dead-letters").is_empty());
    daemon.stop().await.expect("exit code 0");
}
