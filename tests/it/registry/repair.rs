//! The registry repairs what the streams cannot.

use devkit::{
    daemon::Signal,
    fleet::Pace,
    iothub::{DeliveryFaults, Operation, Skew, Source},
};
use serde_json::json;

use super::bench::{Bench, FAST};
use crate::world::{create, device, plan, report};

/// Without audits, because these tests are about repair.
const NO_AUDIT: &str = "[audit]\ninterval = \"off\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn lost_and_coalesced_changes_are_repaired_and_unnoticed_losses_are_audited() {
    let bench = Bench::new(FAST, NO_AUDIT).await;
    let mut daemon = bench.start().await;
    bench.world.stack.hub().set_delivery_faults(DeliveryFaults {
        seed: 11,
        duplicate: 0.02,
        replay: 0.02,
        coalesce: 0.2,
        lose: 0.05,
        ..DeliveryFaults::default()
    });
    bench.fleet(plan(80, 3_000, 11), Pace::Rate(2_000.0), &mut daemon).await;
    let counts = bench.world.stack.hub().delivery_counts();
    assert!(counts.lost > 50 && counts.coalesced > 100, "{counts:?}");
    let repaired = bench.without_flag().await;
    let gets = bench.gets();
    // The last event of a twin is lost. Only the hub knows its state then.
    bench.world.stack.hub().set_delivery_faults(DeliveryFaults { lose: 1.0, ..DeliveryFaults::default() });
    for number in 0..4 {
        bench.world.apply(create(&format!("unheard-{number}")));
    }
    bench.world.stack.hub().set_delivery_faults(DeliveryFaults::default());
    for number in 0..9 {
        bench.world.apply(create(&format!("heard-{number}")));
    }
    bench.caught_up(&mut daemon).await;
    bench.world.stack.hub().set_delivery_faults(DeliveryFaults { lose: 1.0, ..DeliveryFaults::default() });
    for number in 0..5 {
        bench.world.apply(report(&format!("heard-{number}"), json!({"last": "word"})));
    }
    for number in 6..9 {
        bench.world.apply(Operation::Delete { id: device(&format!("heard-{number}")) });
    }
    bench.world.stack.hub().set_delivery_faults(DeliveryFaults::default());
    let (code, audit) = bench.audit(&["--repair"]).await;
    assert_eq!(code, 0, "{audit:#}");
    for (class, least) in [("missing", 4), ("extra", 3), ("different", 5)] {
        assert!(audit["found"][class].as_u64() >= Some(least), "{class}: {audit:#}");
    }
    let end = bench.world.equal().await;
    println!(
        "lost {} and coalesced {} of 3,000 events: {} different after repair alone ({gets} point reads); \
         the audit found {} and left {end}",
        counts.lost,
        counts.coalesced,
        repaired.different + repaired.missing + repaired.extra,
        audit["found"]
    );
    // All documents are equal, so a second audit finds and writes nothing.
    let writes = bench.writes();
    let (code, audit) = bench.audit(&["--repair"]).await;
    assert_eq!((code, audit["findings"].as_array().map(Vec::len)), (0, Some(0)), "{audit:#}");
    assert_eq!(bench.writes(), writes);
    daemon.stop().await.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_that_come_back_faster_than_the_streams_agree_are_repaired_by_the_hub() {
    for (late, seed) in [(Source::DeviceLifecycle, 3), (Source::TwinChange, 4)] {
        let bench = Bench::new(FAST, NO_AUDIT).await;
        let mut daemon = bench.start().await;
        bench.world.replays(seed);
        let skewed = DeliveryFaults {
            skew: Some(Skew { late, notifications: Some(40), ms: 1_500 }),
            ..bench.world.stack.hub().delivery_faults()
        };
        bench.world.stack.hub().set_delivery_faults(skewed);
        for round in 0..12 {
            for number in 0..10 {
                let id = format!("pump-{number}");
                if round > 0 && (round + number) % 3 == 0 {
                    bench.world.apply(Operation::Delete { id: device(&id) });
                    bench.world.apply(create(&id));
                } else if round == 0 {
                    bench.world.apply(create(&id));
                }
                bench.world.apply(report(&id, json!({"round": round})));
                bench.world.apply(report(&id, json!({format!("key-{round}"): number, "gone": null})));
            }
        }
        for number in 0..5 {
            bench.world.apply(Operation::Delete { id: device(&format!("pump-{number}")) });
        }
        bench.world.stack.hub().release_late().expect("delivered");
        bench.caught_up(&mut daemon).await;
        let end = bench.world.equal().await;
        println!("re-created under skew, {late:?} late: {} point reads, {end}", bench.gets());
        daemon.stop().await.unwrap_or_else(|error| panic!("{error}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_are_found_in_the_documents_after_a_restart() {
    let bench = Bench::new(FAST, NO_AUDIT).await;
    // The hub does not answer, so nothing is repaired before the restart.
    let silent = devkit::iothub::api::Faults::of([devkit::iothub::api::Fault::answer(503)]);
    bench.world.stack.registry().set_faults(silent).expect("valid");
    let mut daemon = bench.start().await;
    bench.were_there(&[create("old-1"), create("old-2")]);
    for id in ["old-1", "old-2"] {
        bench.world.apply(report(id, json!({"seen": true})));
    }
    bench.caught_up(&mut daemon).await;
    assert_eq!(bench.report().await.different, 2, "there must be two partial documents");
    daemon.end(Signal::Kill).await.expect("killed");
    bench.world.stack.registry().set_faults(devkit::iothub::api::Faults::default()).expect("valid");
    let daemon = bench.start().await;
    bench.world.equal().await;
    daemon.stop().await.unwrap_or_else(|error| panic!("{error}"));
}
