//! Queries that show the past, failovers, and devices that existed before the routes.

use std::time::{Duration, Instant};

use iothub_emulator::{Error, FailoverError, Loss, Operation, TwinId, USUAL_HISTORY, api::Faults};
use serde_json::{Value, json};

use super::client::{TIMEOUT, World};

const ALL: &str = "SELECT * FROM devices";
/// How old the states are that queries show here.
const STALE: Duration = Duration::from_millis(400);

async fn stale_world() -> World {
    let world = World::start().await;
    world.create("kept", json!({"tags": {"n": 1}}));
    world.create("gone", json!({}));
    world.create("written", json!({}));
    let module = TwinId::module("gone", "m").unwrap();
    world.hub.apply(&Operation::Create { id: module, twin: None }).unwrap();
    world
}

async fn version(world: &World, device: &str) -> Option<u64> {
    let response = world.query(&format!("SELECT * FROM devices WHERE deviceId = '{device}'")).send().await;
    let twins: Vec<Value> = response.unwrap().json().await.unwrap();
    twins.first().and_then(|twin| twin["version"].as_u64())
}

#[tokio::test]
async fn a_stale_query_shows_what_was_and_a_read_by_id_what_is() {
    let world = stale_world().await;
    tokio::time::sleep(STALE + Duration::from_millis(50)).await;
    assert_eq!(world.hub.history(), 0, "off until something needs it");
    let faults = Faults { stale_by_ms: STALE.as_millis() as u64, ..Faults::default() };
    world.server.set_faults(faults).unwrap();
    assert_eq!(world.hub.history(), USUAL_HISTORY, "switched on by the fault that needs it");
    world.create("new", json!({}));
    world.delete("gone");
    world.report("written", json!({"a": 1}));
    world.report("written", json!({"a": 2}));
    assert_eq!(world.pages(ALL, 100).await, [["gone", "kept", "written"]]);
    assert_eq!(world.pages("SELECT * FROM devices.modules", 100).await, [["m"]]);
    assert_eq!(version(&world, "written").await, Some(2));
    let count = world.query("SELECT COUNT() AS n FROM devices").send().await.unwrap();
    assert_eq!(count.json::<Value>().await.unwrap(), json!([{"n": 3}]));
    let read: Value = world.get("/twins/written").await.json().await.unwrap();
    assert_eq!(read["version"], 4);
    assert_eq!(world.get("/twins/gone").await.status(), 404);
    assert_eq!(world.get("/twins/new").await.status(), 200);
    // The query follows as time passes, and is up to date as soon as the fault is removed.
    let started = Instant::now();
    while world.pages(ALL, 100).await != [["kept", "new", "written"]] {
        assert!(started.elapsed() < TIMEOUT);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(version(&world, "written").await, Some(4));
    world.report("written", json!({"a": 3}));
    world.server.set_faults(Faults::default()).unwrap();
    assert_eq!(version(&world, "written").await, Some(5));
    world.server.stop().await;
}

#[tokio::test]
async fn a_failover_takes_the_last_operations_back_without_a_word_and_the_hub_goes_on() {
    let world = stale_world().await;
    world.hub.keep_history(10);
    let before = world.hub.page(None, 10).twins;
    world.create("new", json!({}));
    world.delete("gone");
    world.report("written", json!({"a": 1}));
    world.report("written", json!({"a": 2}));
    let events = world.log.0.lock().unwrap().len();
    assert_eq!(world.hub.failover(Loss::Operations(4)).unwrap(), 4, "three devices and a module");
    assert_eq!(world.hub.page(None, 10).twins, before);
    assert_eq!(world.get("/twins/new").await.status(), 404);
    let read: Value = world.get("/twins/written").await.json().await.unwrap();
    assert_eq!((&read["version"], &read["properties"]["reported"]["a"]), (&json!(2), &Value::Null));
    assert_eq!(world.log.0.lock().unwrap().len(), events, "nobody is told");
    // The hub continues from the earlier state, with later times.
    world.report("written", json!({"b": 1}));
    world.create("new", json!({}));
    let read: Value = world.get("/twins/written").await.json().await.unwrap();
    assert_eq!((&read["version"], &read["properties"]["reported"]["a"]), (&json!(3), &Value::Null));
    let log = world.log.0.lock().unwrap().clone();
    let times: Vec<_> = log.iter().map(|(_, event)| event.operation_time).collect();
    assert!(times.is_sorted(), "the hub's clock does not go back");
    assert_eq!(log.last().unwrap().1.body["version"], 2);
    world.server.stop().await;
}

#[tokio::test]
async fn a_hub_without_history_does_not_go_back_and_says_what_to_do() {
    let world = stale_world().await;
    world.report("written", json!({"a": 1}));
    let before = world.hub.page(None, 10).twins;
    let error = world.hub.failover(Loss::Operations(1)).unwrap_err();
    assert!(matches!(error, FailoverError::NoHistory), "{error}");
    let words = error.to_string();
    for way in ["option `history`", "Service::keep_history"] {
        assert!(words.contains(way), "{words}");
    }
    assert_eq!(world.hub.page(None, 10).twins, before, "nothing has changed");
    // After the history is switched on, the operations from then on can be lost, but no earlier ones.
    world.hub.keep_history(10);
    world.report("written", json!({"a": 2}));
    assert_eq!(world.hub.failover(Loss::Operations(2)).unwrap(), 1);
    assert_eq!(world.hub.page(None, 10).twins, before);
    world.hub.keep_history(0);
    assert!(matches!(world.hub.failover(Loss::Ms(1)), Err(FailoverError::NoHistory)), "off again");
    world.server.stop().await;
}

#[tokio::test]
async fn stale_queries_leave_a_history_that_is_on_as_it_is() {
    let world = World::with_history(7).await;
    assert_eq!(world.hub.history(), 7, "an option of the hub");
    let stale = Faults { stale_by_ms: 1, ..Faults::default() };
    world.server.set_faults(stale).unwrap();
    assert_eq!(world.hub.history(), 7);
    // A history that a fault switched on stays on after the fault: a failover may still need it.
    world.hub.keep_history(0);
    world.server.set_faults(Faults { stale_by_ms: 1, ..Faults::default() }).unwrap();
    world.server.set_faults(Faults::default()).unwrap();
    assert_eq!(world.hub.history(), USUAL_HISTORY);
    world.server.stop().await;
}

#[tokio::test]
async fn a_failover_by_time_loses_what_is_younger_and_no_more_than_is_remembered() {
    let world = World::start().await;
    world.hub.keep_history(USUAL_HISTORY);
    world.create("old", json!({}));
    tokio::time::sleep(Duration::from_millis(300)).await;
    world.create("young", json!({}));
    assert_eq!(world.hub.failover(Loss::Ms(200)).unwrap(), 1);
    assert_eq!(world.get("/twins/young").await.status(), 404);
    assert_eq!(world.get("/twins/old").await.status(), 200);
    world.hub.keep_history(2);
    for n in 0..5 {
        world.report("old", json!({ "n": n }));
    }
    assert_eq!(world.hub.failover(Loss::Operations(100)).unwrap(), 1);
    let read: Value = world.get("/twins/old").await.json().await.unwrap();
    assert_eq!(read["properties"]["reported"]["n"], 2);
    assert_eq!(world.hub.failover(Loss::Operations(1)).unwrap(), 0, "the past is used up");
    world.server.stop().await;
}

/// Devices that existed before the routes.
fn creations(count: usize) -> Vec<Operation> {
    let id = |number| TwinId::device(format!("old-{number:06}")).unwrap();
    (0..count)
        .map(|number| Operation::Create { id: id(number), twin: Some(json!({"tags": {"n": number}})) })
        .collect()
}

#[tokio::test]
async fn what_was_applied_without_routes_has_always_been_there_and_nobody_was_told() {
    let world = World::with_history(USUAL_HISTORY).await;
    world.hub.apply_unrouted(&creations(500)).unwrap();
    assert!(world.log.0.lock().unwrap().is_empty());
    let faults = Faults { stale_by_ms: 3_600_000, ..Faults::default() };
    world.server.set_faults(faults).unwrap();
    assert_eq!(world.pages(ALL, 300).await.iter().map(Vec::len).collect::<Vec<_>>(), [300, 200]);
    assert_eq!(world.hub.failover(Loss::Ms(3_600_000)).unwrap(), 0);
    // Later changes of these devices are notified as usual.
    world.report("old-000000", json!({"a": 1}));
    assert_eq!(world.log.0.lock().unwrap()[0].1.body["version"], 3);
    let again = world.hub.apply_unrouted(&creations(1));
    assert!(matches!(again, Err(Error::AlreadyExists(_))), "{again:?}");
    world.server.stop().await;
}

#[tokio::test]
async fn a_hundred_thousand_twins_are_read_in_seconds() {
    let world = World::start().await;
    world.hub.apply_unrouted(&creations(100_000)).unwrap();
    let started = Instant::now();
    let twins: usize = world.pages(ALL, 1_000).await.iter().map(Vec::len).sum();
    assert_eq!(twins, 100_000);
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    world.server.stop().await;
}
