//! Queries: pages, conditions, counts.

use iothub_emulator::{Operation, TwinId, api::Faults};
use serde_json::{Value, json};

use super::client::World;

const ALL: &str = "SELECT * FROM devices";

async fn ten_devices() -> World {
    let world = World::start().await;
    for n in 0..10 {
        world.create(
            &format!("d{n}"),
            json!({"tags": {"n": n, "site": if n < 3 { "north" } else { "south" }}}),
        );
    }
    for module in ["a", "b"] {
        let id = TwinId::module("d4", module).unwrap();
        world.hub.apply(&Operation::Create { id, twin: None }).unwrap();
    }
    world
}

#[tokio::test]
async fn pages_scan_by_id_and_end_without_a_continuation() {
    let world = ten_devices().await;
    let pages = world.pages(ALL, 4).await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
    let ids: Vec<String> = pages.concat();
    assert_eq!(ids, (0..10).map(|n| format!("d{n}")).collect::<Vec<_>>());
    assert_eq!(world.pages(ALL, 5).await.len(), 2, "a full last page is the last");
    assert_eq!(world.pages("SELECT * FROM devices.modules", 1).await, [["a"], ["b"]]);
    world.server.set_faults(Faults { largest_page: Some(3), ..Faults::default() }).unwrap();
    assert_eq!(world.pages(ALL, 1_000).await[0].len(), 3, "the service may use a smaller page");
    world.server.stop().await;
}

#[tokio::test]
async fn devices_that_go_between_two_pages_are_missing_and_nothing_else_is() {
    let world = ten_devices().await;
    let (first, next) = world.page(ALL, 4, None).await;
    assert_eq!(first.last().unwrap(), "d3");
    for gone in ["d1", "d3", "d4", "d9"] {
        world.delete(gone);
    }
    world.create("d00", json!({}));
    world.create("d55", json!({}));
    let (rest, end) = world.page(ALL, 100, next.as_deref()).await;
    assert_eq!((rest, end), (["d5", "d55", "d6", "d7", "d8"].map(str::to_owned).to_vec(), None));
    world.server.stop().await;
}

#[tokio::test]
async fn conditions_choose_across_pages() {
    let world = ten_devices().await;
    let query = "SELECT * FROM devices WHERE tags.site = 'south' AND NOT tags.n IN [5, 6]";
    let pages = world.pages(query, 2).await;
    assert_eq!(pages, [vec!["d3", "d4"], vec!["d7", "d8"], vec!["d9"]]);
    let pages = world.pages("SELECT * FROM devices WHERE deviceId IN ['d2', 'nobody', 'd7']", 100).await;
    assert_eq!(pages, [["d2", "d7"]]);
    let nobody = world.pages("SELECT * FROM devices WHERE tags.site = 'west'", 100).await;
    assert_eq!(nobody, [Vec::<String>::new()]);
    let count = world.query("SELECT COUNT() AS numberOfDevices FROM devices WHERE tags.n >= 4").send().await;
    assert_eq!(count.unwrap().json::<Value>().await.unwrap(), json!([{"numberOfDevices": 6}]));
    let columns =
        world.query("SELECT deviceId, tags.n AS number FROM devices WHERE tags.n >= 8").send().await.unwrap();
    assert_eq!(columns.headers()["x-ms-item-type"], "Raw");
    assert_eq!(
        columns.json::<Value>().await.unwrap(),
        json!([{"deviceId": "d8", "number": 8}, {"deviceId": "d9", "number": 9}])
    );
    let mut groups = Vec::new();
    let by_site = "SELECT tags.site, COUNT() AS devices FROM devices GROUP BY tags.site";
    let mut from = None;
    loop {
        let mut request = world.query(by_site).header("x-ms-max-item-count", "1");
        if let Some(from) = from {
            request = request.header("x-ms-continuation", from);
        }
        let page = request.send().await.unwrap();
        from = page.headers().get("x-ms-continuation").cloned();
        groups.extend(page.json::<Vec<Value>>().await.unwrap());
        if from.is_none() {
            break;
        }
    }
    assert_eq!(groups, [json!({"site": "north", "devices": 3}), json!({"site": "south", "devices": 7})]);
    let statistics: Value = world.get("/statistics/devices").await.json().await.unwrap();
    assert_eq!(
        statistics,
        json!({"totalDeviceCount": 10, "enabledDeviceCount": 10, "disabledDeviceCount": 0})
    );
    world.server.stop().await;
}

#[tokio::test]
async fn what_is_not_understood_is_refused_with_a_reason() {
    let world = ten_devices().await;
    let (_, token) = world.page(ALL, 1, None).await;
    let token = token.unwrap();
    for (query, name, value) in [
        ("SELECT deviceId, deviceId FROM devices", "x-none", ""),
        ("SELECT * FROM devices WHERE", "x-none", ""),
        (ALL, "x-ms-max-item-count", "0"),
        (ALL, "x-ms-max-item-count", "1001"),
        (ALL, "x-ms-max-item-count", "many"),
        (ALL, "x-ms-continuation", "nonsense"),
        ("SELECT * FROM devices.modules", "x-ms-continuation", token.as_str()),
    ] {
        let response = world.query(query).header(name, value).send().await.unwrap();
        assert_eq!(response.status(), 400, "{query} {name}: {value}");
        let body: Value = response.json().await.unwrap();
        assert!(body["Message"].as_str().unwrap().starts_with("ErrorCode:ArgumentInvalid;"), "{body}");
    }
    world.server.stop().await;
}
