//! Faults of the registry: all work waits, and no document is changed by mistake.

use std::time::Duration;

use devkit::{
    fleet::Pace,
    iothub::{
        DeliveryFaults,
        api::{Fault, FaultKind, Faults, Operations},
    },
};
use serde_json::json;

use super::bench::{Bench, FAST};
use crate::world::{create, plan, report};

const NO_AUDIT: &str = "[audit]\ninterval = \"off\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_throttles_fails_hangs_and_breaks_off_delays_everything_and_spoils_nothing() {
    let bench = Bench::new(FAST, NO_AUDIT).await;
    let mut daemon = bench.start().await;
    let throttle = FaultKind::Answer { status: 429, retry_after_seconds: Some(1) };
    let faults = [
        Fault::new(throttle).with_probability(0.05),
        Fault::answer(500).with_probability(0.1),
        Fault::answer(503).with_probability(0.1),
        Fault::new(FaultKind::Hang).with_probability(0.03),
        Fault::new(FaultKind::Drop).with_probability(0.05),
        Fault::new(FaultKind::Truncate).with_probability(0.05),
        Fault::new(FaultKind::Delay { ms: 20 }).with_probability(0.2),
    ];
    bench.world.stack.registry().set_faults(Faults { seed: 9, ..Faults::of(faults) }).expect("valid");
    bench.world.stack.hub().set_delivery_faults(DeliveryFaults {
        seed: 9,
        coalesce: 0.1,
        lose: 0.05,
        ..DeliveryFaults::default()
    });
    bench.fleet(plan(40, 1_200, 9), Pace::Backlog, &mut daemon).await;
    bench.without_flag().await;
    let (code, audit) = bench.audit(&["--repair"]).await;
    bench.world.stack.registry().set_faults(Faults::default()).expect("valid");
    if code != 0 {
        assert!(
            audit["unknown"].as_u64() > Some(0),
            "the report must count the twins that the audit could not compare: {audit:#}"
        );
        let (code, audit) = bench.audit(&["--repair"]).await;
        assert_eq!(code, 0, "{audit:#}");
    }
    let end = bench.world.equal().await;
    println!("registry with faults: {end}");
    daemon.stop().await.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_never_answers_deletes_nothing() {
    let bench = Bench::new(FAST, NO_AUDIT).await;
    let daemon = bench.start().await;
    for number in 0..12 {
        bench.world.apply(create(&format!("pump-{number}")));
        bench.world.apply(report(&format!("pump-{number}"), json!({"rate": number})));
    }
    bench.world.equal().await;
    daemon.stop().await.unwrap_or_else(|error| panic!("{error}"));
    for number in 0..6 {
        bench.alter(&format!("pump-{number}"), |document| document["tags"]["hand"] = json!(true)).await;
    }
    let before = bench.report().await;
    let writes = bench.writes();
    for trouble in [
        FaultKind::Answer { status: 500, retry_after_seconds: None },
        FaultKind::Hang,
        FaultKind::Drop,
        FaultKind::Truncate,
    ] {
        let silent = Faults::of([Fault::new(trouble).on(Operations::Reads)]);
        bench.world.stack.registry().set_faults(silent).expect("valid");
        let (code, audit) = bench.audit(&["--repair"]).await;
        assert_eq!((code, audit["unknown"].as_u64()), (1, Some(6)), "{trouble:?}: {audit:#}");
        assert_eq!(bench.writes(), writes, "{trouble:?}");
    }
    let after = bench.report().await;
    assert_eq!((after.tombstones, after.different, after.missing), (before.tombstones, before.different, 0));
    // The registry answers again after two seconds. The audit waits for it.
    let a_while = Faults::of([Fault::answer(503).lasting(Duration::from_secs(2))]);
    bench.world.stack.registry().set_faults(a_while).expect("valid");
    let (code, audit) = bench.audit(&["--repair"]).await;
    assert_eq!(code, 0, "{audit:#}");
    bench.world.equal().await;
}
