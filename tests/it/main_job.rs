//! Devices are created, changed and deleted; the documents follow.

use devkit::{
    iothub::{DeleteBody, HubNames, Operation, TwinId},
    stack::Options,
};
use serde_json::json;

use crate::world::{World, create, device, plan, report, until};

#[tokio::test(flavor = "multi_thread")]
async fn every_document_equals_its_twin_after_duplicates_and_replays() {
    let world = World::new().await;
    let mut daemon = world.start().await;
    world.fleet(plan(60, 3_000, 11)).await;
    let appended = world.appended();
    until(&mut daemon, "all events are counted", |sample| {
        sample.count("twinsync_events_total", "") == appended
    })
    .await;
    let report = world.equal().await;
    assert!(report.twins > 50 && report.tombstones > 0, "{report}");
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_with_minimal_bodies_are_enough() {
    let mut options = Options::default();
    options.iothub.delete_body = DeleteBody::Empty;
    options.iothub.replace_includes_reported = false;
    options.iothub.notify_deleted_modules = false;
    let world = World::with(options, "").await;
    let daemon = world.start().await;
    world.fleet(plan(40, 1_500, 12)).await;
    daemon.stop().await.expect("exit code 0");
}

/// With both routes on one Event Hub, the order of a device's events is known even if it is re-created at
/// once.
#[tokio::test(flavor = "multi_thread")]
async fn one_hub_keeps_up_with_devices_that_are_recreated_at_once() {
    let hubs = HubNames { lifecycle: "all".to_owned(), twin_changes: "all".to_owned() };
    let world = World::with(Options { hubs, ..Options::default() }, "").await;
    let daemon = world.start().await;
    world.replays(13);
    let module = TwinId::module("pump", "m").expect("a valid id");
    for round in 0..40 {
        world.apply(create("pump"));
        world.apply(Operation::Create { id: module.clone(), twin: Some(json!({"tags": {"round": round}})) });
        for step in 0..round % 5 {
            world.apply(report("pump", json!({"round": round, "nested": {"step": step, "gone": null}})));
            world.apply(Operation::Report { id: module.clone(), patch: json!({"step": step}) });
        }
        if round % 3 == 0 {
            let twin = json!({"tags": {"site": "north"}, "properties": {"desired": {"rate": round}}});
            world.apply(Operation::Replace { id: device("pump"), twin });
        }
        if round < 39 {
            world.apply(Operation::Delete { id: device("pump") });
        }
    }
    let compared = world.equal().await;
    assert_eq!(compared.twins, 2, "{compared}");
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn modules_have_documents_of_their_own_and_go_with_their_device() {
    let world = World::new().await;
    let daemon = world.start().await;
    let modules = ["a", "b"].map(|name| TwinId::module("edge", name).expect("a valid id"));
    world.apply(create("edge"));
    for module in &modules {
        world.apply(Operation::Create { id: module.clone(), twin: None });
        world.apply(Operation::Report { id: module.clone(), patch: json!({"of": module.module_id()}) });
    }
    world.apply(Operation::Delete { id: modules[0].clone() });
    let compared = world.equal().await;
    assert_eq!(
        (compared.twins, compared.tombstones),
        (2, 1),
        "the deletion of a module must not delete the device: {compared}"
    );
    world.apply(Operation::Delete { id: device("edge") });
    let compared = world.equal().await;
    assert_eq!((compared.twins, compared.tombstones), (0, 3), "{compared}");
    daemon.stop().await.expect("exit code 0");
}
