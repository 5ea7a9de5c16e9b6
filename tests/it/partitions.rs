//! Event Hubs that get more partitions while they are in use: the partitions are discovered, shared, and read from their
//! beginning.

use devkit::{
    daemon::Daemon,
    fleet::{Pace, Plan},
    stack::Options,
    verify::verify,
};
use serde_json::json;

use crate::{
    registry::bench::{Bench, FAST},
    world::{World, create, plan, report, until},
};

/// The shortest interval that the configuration allows.
const SOON: &str = "[eventhubs]\npartition_discovery_interval = \"1s\"\n";

/// Both Event Hubs begin with two partitions and get two more.
const BEFORE: u64 = 4;
const AFTER: u64 = 8;

/// Adds two partitions to each Event Hub.
fn add_partitions(world: &World) {
    let endpoints = world.stack.endpoints();
    for hub in [&endpoints.lifecycle_hub, &endpoints.twin_changes_hub] {
        assert_eq!(world.stack.broker().add_partitions(hub, 2).expect("exists"), 4);
    }
}

/// Number of events in the new partitions.
fn in_new_partitions(world: &World, hub: &str) -> u64 {
    let partitions = world.stack.broker().partitions(hub).expect("exists");
    partitions[2..]
        .iter()
        .map(|partition| u64::try_from(partition.last_sequence_number + 1).expect("≥ 0"))
        .sum()
}

async fn owns(daemon: &mut Daemon, partitions: u64) {
    let what = format!("the replica owns {partitions} partitions");
    until(daemon, &what, |sample| sample.count("twinsync_partitions_owned", "") == partitions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_added_are_read_from_their_beginning() {
    let world = World::with(Options::default(), SOON).await;
    let mut daemon = world.start().await;
    owns(&mut daemon, BEFORE).await;
    world.fleet(plan(30, 600, 71)).await;
    add_partitions(&world);
    // Events arrive in the new partitions before they are discovered.
    world.fleet(Plan { prefix: "new-".into(), ..plan(30, 600, 72) }).await;
    assert!(in_new_partitions(&world, &world.stack.endpoints().twin_changes_hub) > 0);
    owns(&mut daemon, AFTER).await;
    let sample = daemon.sample().await.expect("metrics");
    assert_eq!(sample.count("twinsync_partitions", "stream="), AFTER);
    let appended = world.appended();
    until(&mut daemon, "all events are counted", |sample| {
        sample.count("twinsync_events_total", "") == appended
    })
    .await;
    daemon.stop().await.expect("exit code 0");
    // The new partitions have checkpoints: after a restart their events are not received again.
    let mut daemon = world.start().await;
    owns(&mut daemon, AFTER).await;
    world.apply(create("fresh"));
    world.equal().await;
    let sample = daemon.sample().await.expect("metrics");
    assert!(sample.count("twinsync_events_total", "") < 10, "it must resume at its checkpoint");
    daemon.stop().await.expect("exit code 0");
}

/// While events of one device are in two partitions, their order is unknown. The daemon asks the hub about these
/// devices.
async fn added_under_load(options: Options, replicas: usize) {
    let bench = Bench::over(options, FAST, SOON).await;
    let world = &bench.world;
    let directories: Vec<_> = (1..replicas).map(|_| tempfile::tempdir().expect("a directory")).collect();
    let mut daemons = vec![world.start().await];
    for directory in &directories {
        let setup = bench.setup(directory.path(), FAST, SOON);
        daemons.push(setup.start().await.unwrap_or_else(|error| panic!("{error}")));
    }
    let share = |partitions: u64| partitions / replicas as u64;
    for daemon in &mut daemons {
        owns(daemon, share(BEFORE)).await;
    }
    world.replays(73);
    let load = Plan { devices: 60, events: 2_400, seed: 73, phases: 1, ..Plan::default() };
    world.stack.fleet().start(load, Pace::Rate(400.0)).expect("the fleet starts");
    until(&mut daemons[0], "more than 200 events are counted", |sample| {
        sample.count("twinsync_events_total", "") > 200
    })
    .await;
    add_partitions(world);
    for daemon in &mut daemons {
        owns(daemon, share(AFTER)).await;
    }
    let progress = world.stack.fleet().phase_end().await;
    assert!(progress.error.is_none(), "{progress:?}");
    assert!(in_new_partitions(world, &world.stack.endpoints().twin_changes_hub) > 0);
    world.stack.hub().flush().expect("delivered");
    world.equal().await;
    for daemon in daemons {
        daemon.stop().await.expect("exit code 0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_added_under_load_lose_nothing() {
    added_under_load(Options::default(), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_share_partitions_that_are_added_under_load() {
    added_under_load(Options { azurite: true, ..Options::default() }, 2).await;
}

/// After the change a device's partition key maps to another partition, so its new events overtake those in the old
/// partition.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_overtaken_across_partitions_is_flagged_and_never_silently_wrong() {
    const DEVICES: u64 = 16;
    let world = World::with(Options::default(), SOON).await;
    let mut daemon = world.start().await;
    let names: Vec<_> = (0..DEVICES).map(|number| format!("pump-{number}")).collect();
    names.iter().for_each(|name| world.apply(create(name)));
    world.equal().await;
    let (broker, hub) = (world.stack.broker(), &world.stack.endpoints().twin_changes_hub);
    for partition in 0..2 {
        broker.faults().stall(hub, partition).expect("exists");
    }
    names.iter().for_each(|name| world.apply(report(name, json!({"waits": true}))));
    add_partitions(&world);
    owns(&mut daemon, AFTER).await;
    names.iter().for_each(|name| world.apply(report(name, json!({"overtakes": true}))));
    let overtaken = in_new_partitions(&world, hub);
    assert!(overtaken > 0 && overtaken < DEVICES, "{overtaken} devices moved");
    world.flagged(overtaken).await;
    for partition in 0..2 {
        broker.faults().release(hub, partition).expect("exists");
    }
    let appended = world.appended();
    until(&mut daemon, "all events are counted", |sample| {
        sample.count("twinsync_events_total", "") == appended
    })
    .await;
    let compared = Box::pin(verify(world.stack.endpoints())).await.expect("both can be read");
    assert_eq!((compared.different, compared.missing, compared.extra), (overtaken, 0, 0), "{compared}");
    assert_eq!(compared.flagged, overtaken, "{compared}");
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_partition_discovery_is_logged_and_repeated() {
    let world = World::with(Options::default(), SOON).await;
    let mut daemon = world.start().await;
    owns(&mut daemon, BEFORE).await;
    world.stack.broker().go_down().await;
    add_partitions(&world);
    until(&mut daemon, "four failed partition discoveries are counted", |sample| {
        sample.count("twinsync_partition_discovery_failures_total", "") >= 4
    })
    .await;
    assert!(world.log().contains("cannot list the partitions"), "{}", world.log());
    world.stack.broker().come_back().await.expect("the port is free");
    owns(&mut daemon, AFTER).await;
    daemon.stop().await.expect("exit code 0");
}

const LATEST: &str = "[eventhubs]\nstart = \"latest\"\npartition_discovery_interval = \"1s\"\n";

/// Also during the first start.
#[tokio::test(flavor = "multi_thread")]
async fn what_came_into_a_new_partition_before_it_was_found_is_not_passed_over_with_latest() {
    let world = World::with(Options::default(), LATEST).await;
    let mut daemon = world.start().await;
    owns(&mut daemon, BEFORE).await;
    add_partitions(&world);
    let names: Vec<_> = (0..16).map(|number| format!("pump-{number}")).collect();
    for name in &names {
        world.apply(create(name));
        world.apply(report(name, json!({"before": "the look"})));
    }
    assert!(in_new_partitions(&world, &world.stack.endpoints().lifecycle_hub) > 0);
    owns(&mut daemon, AFTER).await;
    world.equal().await;
    daemon.stop().await.expect("exit code 0");
}

/// `latest` applies to the first start only. In a partition that was unknown then, no event is skipped.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_were_added_while_it_was_away_begin_at_their_oldest_event_also_with_latest() {
    let world = World::with(Options::default(), LATEST).await;
    let daemon = world.start().await;
    let names: Vec<_> = (0..16).map(|number| format!("pump-{number}")).collect();
    names.iter().for_each(|name| world.apply(create(name)));
    world.equal().await;
    daemon.stop().await.expect("exit code 0");
    add_partitions(&world);
    names.iter().for_each(|name| world.apply(report(name, json!({"while": "away"}))));
    assert!(in_new_partitions(&world, &world.stack.endpoints().twin_changes_hub) > 0);
    let daemon = world.start().await;
    world.equal().await;
    daemon.stop().await.expect("exit code 0");
}
