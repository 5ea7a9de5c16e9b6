//! Answers of Cosmos DB, or of a proxy in front of it, that are not about a document, and ids with special
//! characters.

use std::time::Duration;

use devkit::{
    cosmos::{Fault, Faults},
    iothub::{Operation, TwinId},
    stack::Options,
};
use serde_json::json;

use crate::{
    registry::bench::{Bench, FAST},
    world::{World, create, device, report, until},
};

fn set(world: &World, answers: Vec<Fault>) {
    world.stack.cosmos().set_faults(Faults { answers, ..Faults::default() }).expect("valid");
}

/// Number of document requests to Cosmos DB.
fn requests(world: &World) -> u64 {
    let counters = world.stack.cosmos().counters();
    ["read", "create", "replace"].iter().filter_map(|name| Some(counters.get(*name)?.requests)).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_the_store_refuses_becomes_a_dead_letter_and_holds_up_nobody() {
    let world = World::with(Options::default(), "").await;
    let mut daemon = world.start().await;
    set(&world, vec![Fault::about(400, "pump")]);
    world.apply(create("pump"));
    world.apply(create("valve"));
    until(&mut daemon, "the metric shows one dead letter, and no event is in flight", |sample| {
        sample.count("twinsync_dead_letters_total", "reason=\"rejected_by_store\"") == 1
            && sample.count("twinsync_flags_rejected_total", "") == 1
            && sample.count("twinsync_in_flight_events", "") == 0
    })
    .await;
    let sample = daemon.sample().await.expect("metrics");
    assert!(sample.count("twinsync_reads_total", "outcome=\"refused\"") > 0);
    let report = world.equal_or_flagged("valve").await;
    assert_eq!((report.twins, report.missing), (2, 1), "{report}");
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_about_the_container_or_from_a_gateway_makes_no_dead_letter() {
    // A container that was deleted, one that was created again, and a proxy that answers every request
    // itself.
    let container =
        |status, substatus| Fault { substatus: Some(substatus), gateway: false, ..Fault::of_gateway(status) };
    for (fault, remedy) in [
        (Fault::of_gateway(404), "not from Cosmos DB"),
        (Fault::of_gateway(400), "not from Cosmos DB"),
        (container(404, 1003), "does not exist any more"),
        (container(400, 1001), "another partition key"),
        (container(403, 1014), "20 GB"),
        (container(403, 5300), "Built-in Data Contributor"),
    ] {
        let world = World::with(Options::default(), "").await;
        let mut daemon = world.start().await;
        world.apply(create("pump"));
        world.equal().await;
        set(&world, vec![fault.clone()]);
        let before = requests(&world);
        for id in ["a", "b", "c", "d"] {
            world.apply(create(id));
        }
        world.apply(report("pump", json!({"step": 1})));
        until(&mut daemon, "the metric shows that the store is down", |sample| {
            sample.count("twinsync_store_up", "") == 0
        })
        .await;
        let (status, reasons) = daemon.get("/readyz").await.expect("answers");
        assert!(status == 503 && reasons.contains(remedy), "{fault:?}: {reasons}");
        tokio::time::sleep(Duration::from_secs(1)).await; // a fixed time, because the test is that no storm of requests follows
        let asked = requests(&world) - before;
        assert!(asked < 200, "{fault:?}: {asked} requests");
        set(&world, vec![]);
        world.equal().await;
        let sample = daemon.sample().await.expect("metrics");
        assert_eq!(sample.count("twinsync_dead_letters_total", ""), 0, "{fault:?}");
        daemon.stop().await.expect("exit code 0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_with_special_characters_have_documents_like_any_other() {
    let bench = Bench::new(FAST, "").await;
    let daemon = bench.start().await;
    let ids = [".", "..", "...", "%2E", "a%2Fb", "a#b", "a?b", "(a)*,=@$'+:!"];
    for id in ids {
        bench.world.apply(create(id));
        bench.world.apply(report(id, json!({"step": 1})));
        bench.world.apply(Operation::Create { id: TwinId::module(id, "..").expect("valid"), twin: None });
    }
    bench.world.equal().await;
    for id in ids {
        bench.world.apply(report(id, json!({"step": 2})));
    }
    let report = bench.world.equal().await;
    assert_eq!(report.twins, 16, "{report}");
    // Deletions of these ids are applied as well.
    for id in [".", "a#b"] {
        bench.world.apply(Operation::Delete { id: device(id) });
    }
    bench.world.equal().await;
    daemon.stop().await.expect("exit code 0");
}
