//! Errors that concern the document of a single twin: other twins go on, and the document ends equal or
//! flagged.

use devkit::{
    cosmos::{Fault, Faults},
    daemon::Daemon,
};
use serde_json::json;

use crate::{
    registry::bench::{Bench, FAST},
    world::{World, create, report, until},
};

/// Number of devices beside the one with errors, in any partition.
const OTHERS: usize = 10;
/// Number of changes of the device with errors.
const CHANGES: u64 = 100;

/// The store answers 503 to every request about this device, or to none for `None`.
fn silent_about(world: &World, device: Option<&str>) {
    let answers = device.map(|device| Fault::about(503, device)).into_iter().collect();
    world.stack.cosmos().set_faults(Faults { answers, ..Faults::default() }).expect("valid");
}

fn others(world: &World, operation: impl Fn(&str) -> devkit::iothub::Operation) {
    for number in 0..OTHERS {
        world.apply(operation(&format!("other-{number}")));
    }
}

/// All documents are equal. Then the store stops answering about `bad`, which gets many changes.
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
async fn a_failing_twin_uses_only_its_own_limit_and_others_go_on() {
    let limits = "[eventhubs]\nprefetch = 10\n[router]\nmax_in_flight_events_per_twin = 20\ngive_up_twin_after = \"off\"\n";
    let world = World::with(Default::default(), limits).await;
    let mut daemon = world.start().await;
    in_trouble(&world).await;
    until(&mut daemon, "the metric shows that the twin has reached its limit", |sample| {
        sample.count("twinsync_twins_full", "") == 1
    })
    .await;
    let before = applied(&mut daemon).await;
    for round in 0..10 {
        others(&world, |device| report(device, json!({"round": round})));
    }
    // The devices of the other partition.
    until(&mut daemon, "the changes of other twins are applied", |sample| {
        sample.count("twinsync_events_total", "decision=\"applied\"") >= before + 10
    })
    .await;
    until(&mut daemon, "the metrics show the failing twin", |sample| {
        sample.count("twinsync_twins_in_trouble", "") == 1 && sample.count("twinsync_twins_full", "") == 1
    })
    .await;
    let held = daemon.sample().await.expect("metrics").count("twinsync_in_flight_events", "");
    assert!(held < CHANGES - 10, "{held} events are held");
    silent_about(&world, None);
    world.equal().await;
    assert!(world.files("dead-letters").is_empty());
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_twin_that_fails_for_long_blocks_no_other_and_ends_equal_or_flagged() {
    const SOON: &str = "[router]\nmax_in_flight_events_per_twin = 20\ngive_up_twin_after = \"1s\"\n";
    for with_registry in [false, true] {
        let bench =
            if with_registry { Bench::new(FAST, SOON).await } else { Bench::without_registry(SOON).await };
        let world = &bench.world;
        let mut daemon = world.start().await;
        in_trouble(world).await;
        let before = applied(&mut daemon).await;
        others(world, |device| report(device, json!({"round": 1})));
        until(&mut daemon, "the metric shows the dead letters of the failing twin", |sample| {
            sample.count("twinsync_dead_letters_total", "reason=\"store_silent\"") == CHANGES
        })
        .await;
        // Devices in the same partition go on as well.
        until(&mut daemon, "the changes of other twins are applied", |sample| {
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
        until(&mut daemon, "no event is in flight", |sample| {
            sample.count("twinsync_in_flight_events", "") == 0
        })
        .await;
        daemon.stop().await.expect("exit code 0");
    }
}
