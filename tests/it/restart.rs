//! Clean stops, kills, and the starts after them.

use std::time::{Duration, Instant};

use devkit::{daemon::Signal, fleet::Pace, iothub::Operation};
use serde_json::json;

use crate::{
    counts,
    world::{World, create, device, plan, report, until},
};

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_commits_what_was_done_and_the_next_run_goes_on_from_there() {
    let world = World::new().await;
    let daemon = world.start().await;
    world.fleet(plan(30, 800, 21)).await;
    let before = world.appended();
    daemon.stop().await.expect("exit code 0");

    // Events that arrive while the daemon is stopped.
    world.stack.hub().set_delivery_faults(Default::default());
    world.apply(create("latecomer"));
    for step in 0..25 {
        world.apply(report("latecomer", json!({"step": step})));
    }
    let missed = world.appended() - before;
    assert_eq!(missed, 26);
    let mut daemon = world.start().await;
    world.equal().await;
    until(&mut daemon, "the missed events are counted", |sample| {
        sample.count("twinsync_events_total", "") >= missed
    })
    .await;
    let handled = daemon.sample().await.expect("metrics").count("twinsync_events_total", "");
    // The first run may have stopped before it received repeats of its last events.
    assert!(handled <= missed + 40, "it must resume at its checkpoint: {handled}");
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_daemon_loses_nothing() {
    let world =
        World::with(Default::default(), &format!("[checkpoint]\ninterval = \"200ms\"\n{}", counts::COUNTS))
            .await;
    world.replays(22);
    world.stack.fleet().start(plan(50, 4_000, 22), Pace::Rate(1_500.0)).expect("the fleet starts");
    world.apply(create("steady"));
    // Three kills at random points. Enough events wait that a start of any length leaves some.
    for round in 1..=3 {
        for step in 0..200 {
            world.apply(report("steady", json!({"round": round, "step": step})));
        }
        let mut daemon = world.start().await;
        until(&mut daemon, "more than 100 events are counted", |sample| {
            sample.count("twinsync_events_total", "") > 100
        })
        .await;
        let status = daemon.end(Signal::Kill).await.expect("killed");
        assert!(!status.success());
    }
    let daemon = world.start().await;
    loop {
        let progress = world.stack.fleet().phase_end().await;
        world.equal().await;
        counts::are_the_hubs(&world, &daemon).await;
        if world.stack.fleet().start_next_phase().is_err() {
            assert!(progress.error.is_none(), "{progress:?}");
            break;
        }
    }
    daemon.stop().await.expect("exit code 0");
}

/// The daemon must be able to stop during an outage of the store. Events that were not written are received again.
#[tokio::test(flavor = "multi_thread")]
async fn stopping_during_an_outage_ends_at_the_deadline_and_loses_nothing() {
    let world = World::with(Default::default(), "[shutdown]\ndrain_timeout = \"1s\"\n").await;
    let mut daemon = world.start().await;
    world.apply(create("first"));
    world.equal().await;
    world.cosmos_is_away(true);
    world.apply(create("second"));
    world.apply(Operation::Delete { id: device("first") });
    until(&mut daemon, "events are in flight", |sample| sample.count("twinsync_in_flight_events", "") > 0)
        .await;
    let started = Instant::now();
    daemon.stop().await.expect("exit code 0");
    assert!(started.elapsed() < Duration::from_secs(15), "took {:?}", started.elapsed());

    world.cosmos_is_away(false);
    let daemon = world.start().await;
    let compared = world.equal().await;
    assert_eq!((compared.twins, compared.tombstones), (1, 1), "{compared}");
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_at_once() {
    let world = World::new().await;
    let mut daemon = world.start().await;
    world.apply(create("first"));
    world.equal().await;
    world.cosmos_is_away(true);
    world.apply(create("second"));
    until(&mut daemon, "an event is in flight", |sample| sample.count("twinsync_in_flight_events", "") > 0)
        .await;
    daemon.signal().await.expect("the first signal");
    while !daemon.log().contains("stopping") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let started = Instant::now();
    let status = daemon.end(Signal::Terminate).await.expect("the second signal");
    assert!(!status.success());
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "it must not wait for the drain: {:?}",
        started.elapsed()
    );
}
