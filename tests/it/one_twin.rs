//! Trouble with the document of a single twin: the others go on, and it ends equal, or flagged.

use devkit::{
    cosmos::{Fault, Faults},
    daemon::Daemon,
};
use serde_json::json;

use crate::{
    registry::bench::{Bench, FAST},
    world::{World, create, report, until},
};

/// Devices beside the one in trouble, in whatever partition they are.
const OTHERS: usize = 10;
/// Changes of the one in trouble.
const CHANGES: u64 = 100;

/// The store answers nothing about this device, until it is told otherwise.
fn silent_about(world: &World, device: Option<&str>) {
    let answers = device.map(|device| Fault::about(503, device)).into_iter().collect();
    world.stack.cosmos().set_faults(Faults { answers, ..Faults::default() }).expect("valid");
}

fn others(world: &World, operation: impl Fn(&str) -> devkit::iothub::Operation) {
    for number in 0..OTHERS {
        world.apply(operation(&format!("other-{number}")));
    }
}

/// All are equal; then the store says no more about `bad`, and much happens to it.
async fn in_trouble(world: &World) {
    world.apply(create("bad"));
    others(world, create);
    world.equal().await;
    silent_about(world, Some("bad"));
    for step in 0..CHANGES {
        world.apply(report("bad", json!({"step": step})));
    }
}

async fn applied(daemon: &mut Daemon) -> u64 {
    let sample = daemon.sample().await.expect("metrics");
    sample.count("twinsync_events_total", "decision=\"applied\"")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_twin_in_trouble_fills_no_more_than_its_own_room_and_others_go_on() {
    let limits = "[eventhubs]\nprefetch = 10\n[router]\nmax_in_flight_events_per_twin = 20\ngive_up_twin_after = \"off\"\n";
    let world = World::with(Default::default(), limits).await;
    let mut daemon = world.start().await;
    in_trouble(&world).await;
    until(&mut daemon, "its room is full", |sample| sample.count("twinsync_twins_full", "") == 1).await;
    let before = applied(&mut daemon).await;
    for round in 0..10 {
        others(&world, |device| report(device, json!({"round": round})));
    }
    // Those of the other partition.
    until(&mut daemon, "others go on", |sample| {
        sample.count("twinsync_events_total", "decision=\"applied\"") >= before + 10
    })
    .await;
    until(&mut daemon, "it shows", |sample| {
        sample.count("twinsync_twins_in_trouble", "") == 1 && sample.count("twinsync_twins_full", "") == 1
    })
    .await;
    let held = daemon.sample().await.expect("metrics").count("twinsync_in_flight_events", "");
    assert!(held < CHANGES - 10, "{held}");
    silent_about(&world, None);
    world.equal().await;
    assert!(world.files("dead-letters").is_empty());
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_twin_in_trouble_for_too_long_holds_nobody_up_and_ends_equal_or_flagged() {
    const SOON: &str = "[router]\nmax_in_flight_events_per_twin = 20\ngive_up_twin_after = \"1s\"\n";
    for with_registry in [false, true] {
        let bench =
            if with_registry { Bench::new(FAST, SOON).await } else { Bench::without_registry(SOON).await };
        let world = &bench.world;
        let mut daemon = world.start().await;
        in_trouble(world).await;
        let before = applied(&mut daemon).await;
        others(world, |device| report(device, json!({"round": 1})));
        until(&mut daemon, "set aside", |sample| {
            sample.count("twinsync_dead_letters_total", "reason=\"store_silent\"") == CHANGES
        })
        .await;
        // Also those behind it in its own partition.
        until(&mut daemon, "others go on", |sample| {
            sample.count("twinsync_events_total", "decision=\"applied\"") >= before + OTHERS as u64
                && sample.count("twinsync_twins_full", "") == 0
        })
        .await;
        let (status, text) = daemon.get("/readyz").await.expect("answers");
        assert!(!text.contains("document store"), "{status}: {text}");
        assert!(world.log().contains("its events become dead letters"));
        silent_about(world, None);
        if with_registry {
            world.equal().await;
        } else {
            let report = world.flagged(1).await;
            assert_eq!(report.different, 1, "{report}");
        }
        until(&mut daemon, "completed", |sample| sample.count("twinsync_in_flight_events", "") == 0).await;
        daemon.stop().await.expect("exit code 0");
    }
}
