//! The broker goes away as a process does, and the network as a cable does.

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

/// How long the broker is away.
const AWAY: Duration = Duration::from_secs(3);

/// A load of one phase, so that nobody waits for anybody while the fault lasts.
fn load(seed: u64, events: u64) -> Plan {
    Plan { devices: 40, events, seed, phases: 1, ..Plan::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_restarts_is_met_again_where_it_was_left() {
    let world = World::new().await;
    let mut daemon = world.start().await;
    world.replays(61);
    world.stack.fleet().start(load(61, 3_000), Pace::Rate(400.0)).expect("the fleet starts");
    let broker = world.stack.broker();
    let appended = world.appended();
    let mut figures = Figures::of("broker restarts under load, logs kept");
    until(&mut daemon, "it works", |sample| sample.count("twinsync_events_total", "") > 300).await;
    broker.go_down().await;
    let down = std::time::Instant::now();
    tokio::net::TcpStream::connect(broker.address()).await.expect_err("connections are refused");
    while broker.faults().counters().open_connections > 0 {
        assert!(down.elapsed() < AWAY, "all die at once");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(AWAY).await; // an outage has a length
    assert!(world.appended() > appended, "events came in meanwhile");
    broker.come_back().await.expect("on the same port");
    figures.injected(format!("1 ({AWAY:?} away)"));
    figures.over();
    until(&mut daemon, "all partitions were rebuilt", |sample| {
        sample.count("twinsync_partition_rebuilds_total", "") >= 4
    })
    .await;
    world.stack.fleet().phase_end().await;
    figures.equal(&world).await;
    assert!(world.files("dead-letters").is_empty());
    daemon.stop().await.expect("exit code 0");
}

/// All that is left of the old events is their numbers.
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
    until(&mut daemon, "all handled", |sample| sample.count("twinsync_events_total", "") == handled).await;
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
    assert_eq!(sample.count("twinsync_events_total", ""), world.appended(), "each of them once");
    assert!(world.files("dead-letters").is_empty());
    daemon.stop().await.expect("exit code 0");
}

/// Nothing is closed, nothing is reset: the sockets are there, and not a byte comes or goes.
#[tokio::test(flavor = "multi_thread")]
async fn half_open_connections_are_noticed_and_replaced() {
    let mut world = World::new().await;
    let proxy = Proxy::start(world.stack.broker().address()).await.expect("a port");
    // Management calls are stuck as well, and are given up after the time that opening may take.
    let settings = format!(
        "[eventhubs]\nendpoint = \"amqp://{}\"\nstall_timeout = \"1s\"\nopen_timeout = \"1s\"\n",
        proxy.address()
    );
    world.configure(&settings);
    let mut daemon = world.start().await;
    world.replays(62);
    world.stack.fleet().start(load(62, 2_000), Pace::Rate(400.0)).expect("the fleet starts");
    until(&mut daemon, "it works", |sample| sample.count("twinsync_events_total", "") > 300).await;
    let mut figures = Figures::of("half-open: all connections frozen both ways");
    let frozen = proxy.abandon_connections();
    let open = world.stack.broker().faults().counters().open_connections;
    figures.injected(format!("{frozen} connections"));
    figures.over(); // it never ends for these: the time until they are replaced is part of the recovery
    until(&mut daemon, "noticed", |sample| {
        sample.count("twinsync_partition_rebuilds_total", "reason=\"stalled\"") >= 1
    })
    .await;
    assert!(proxy.connections() > frozen, "there are new connections");
    assert!(world.stack.broker().faults().counters().open_connections > open, "beside the old ones");
    world.stack.fleet().phase_end().await;
    figures.equal(&world).await;
    assert!(world.files("dead-letters").is_empty());
    daemon.stop().await.expect("exit code 0");
}
