//! Reads and writes of twins by id: the answers, their authorization, and their time.

use std::time::{Duration, SystemTime};

use iothub_emulator::{ConnectionState, IdentityChange, Operation, Status, TwinId};
use reqwest::Method;
use serde_json::{Value, json};

use super::client::{HOST, KEY, World, signature, signed};

#[tokio::test]
async fn a_twin_is_answered_whole_with_its_etag_and_the_hubs_time() {
    let world = World::start().await;
    let id = "odd#1%23?x='a'@b+c";
    world.create(id, json!({"tags": {"a": 1}}));
    world.report(id, json!({"t": 21.5}));
    let path = "/twins/odd%231%2523%3Fx%3D%27a%27%40b+c";
    let earliest = world.hub.now();
    let response = world.get(path).await;
    let latest = world.hub.now();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["etag"], "\"AAAAAAAAAAE=\"");
    let date = response.headers()["date"].to_str().unwrap().to_owned();
    let twin: Value = response.json().await.unwrap();
    let mut dates = Vec::new();
    let mut at = earliest;
    while at < latest {
        dates.push(at.http_date());
        at = at.after(Duration::from_millis(100));
    }
    dates.push(latest.http_date());
    assert!(dates.contains(&date), "{date} is not the hub's time: {dates:?}");
    for (field, value) in [
        ("deviceId", json!(id)),
        ("etag", json!("AAAAAAAAAAE=")),
        ("version", json!(3)),
        ("status", json!("enabled")),
        ("statusUpdateTime", json!("0001-01-01T00:00:00Z")),
        ("connectionState", json!("Connected")),
        ("cloudToDeviceMessageCount", json!(0)),
        ("authenticationType", json!("sas")),
        ("x509Thumbprint", json!({"primaryThumbprint": null, "secondaryThumbprint": null})),
        ("modelId", json!("")),
        ("capabilities", json!({"iotEdge": false})),
        ("tags", json!({"a": 1})),
    ] {
        assert_eq!(twin[field], value, "{field}");
    }
    assert!(twin["deviceEtag"].is_string() && twin["lastActivityTime"].is_string());
    assert_eq!(twin["properties"]["reported"]["t"], 21.5);
    assert_eq!(twin["properties"]["reported"]["$version"], 2);
    assert!(twin["properties"]["desired"]["$metadata"].is_object());
    world.server.stop().await;
}

#[tokio::test]
async fn a_module_has_its_own_twin_and_an_unknown_id_is_told_in_the_services_words() {
    let world = World::start().await;
    world.create("d", json!({}));
    let id = TwinId::module("d", "$edgeHub").unwrap();
    world.hub.apply(&Operation::Create { id, twin: None }).unwrap();
    let module: Value = world.get("/twins/d/modules/%24edgeHub").await.json().await.unwrap();
    assert_eq!((&module["deviceId"], &module["moduleId"]), (&json!("d"), &json!("$edgeHub")));
    assert!(module.get("capabilities").is_none());
    for (path, code) in [("/twins/D", "DeviceNotFound"), ("/twins/d/modules/m", "ModuleNotFound")] {
        let response = world.get(path).await;
        assert_eq!(response.status(), 404);
        assert!(response.headers().contains_key("date"));
        let body: Value = response.json().await.unwrap();
        let message = body["Message"].as_str().unwrap();
        assert!(message.starts_with(&format!("ErrorCode:{code};")), "{message}");
        assert!(body["ExceptionMessage"].is_string());
    }
    let invalid = world.get("/twins/a%20b").await;
    assert_eq!(invalid.status(), 400);
    world.server.stop().await;
}

#[tokio::test]
async fn only_signatures_and_tokens_that_are_good_now_open_the_hub() {
    let world = World::with(Some("the token")).await;
    world.create("d", json!({}));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    for (authorization, status) in [
        (signature(), 200),
        ("Bearer the token".to_owned(), 200),
        ("Bearer another".to_owned(), 401),
        (signed(HOST, now - 1, KEY), 401),
        (signed(HOST, now + 60, "b3RoZXI="), 401),
        (signed("other.azure-devices.net", now + 60, KEY), 401),
    ] {
        let request = world.request(Method::GET, "/twins/d").header("authorization", &authorization);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{authorization}");
        if status == 401 {
            let body: Value = response.json().await.unwrap();
            assert!(body["Message"].as_str().unwrap().starts_with("ErrorCode:IotHubUnauthorizedAccess"));
        }
    }
    assert_eq!(world.request(Method::GET, "/twins/d").send().await.unwrap().status(), 401);
    assert_eq!(world.server.counters()["readTwin"].answers["401"], 5);
    world.server.stop().await;
}

#[tokio::test]
async fn without_an_api_version_that_is_known_nothing_is_performed() {
    let world = World::start().await;
    world.create("d", json!({}));
    let client = reqwest::Client::new();
    for (version, status) in [("", 400), ("?api-version=2015-01-01", 400), ("?api-version=2024-03-31", 200)] {
        let url = format!("http://{}/twins/d{version}", world.server.address());
        let response = client.get(url).header("authorization", signature()).send().await.unwrap();
        assert_eq!(response.status(), status, "{version}");
    }
    world.server.stop().await;
}

#[tokio::test]
async fn status_and_connection_change_without_an_event_and_without_a_version() {
    let world = World::start().await;
    world.create("d", json!({}));
    let before: Value = world.get("/twins/d").await.json().await.unwrap();
    let change = IdentityChange {
        status: Some(Status::Disabled),
        status_reason: Some("stolen".to_owned()),
        connection_state: Some(ConnectionState::Connected),
    };
    world.hub.change_identity(&TwinId::device("d").unwrap(), &change).unwrap();
    let after: Value = world.get("/twins/d").await.json().await.unwrap();
    assert_eq!((&after["status"], &after["statusReason"]), (&json!("disabled"), &json!("stolen")));
    assert_eq!((&after["version"], &after["etag"]), (&before["version"], &before["etag"]));
    assert_eq!(
        (&before["connectionState"], &after["connectionState"]),
        (&json!("Disconnected"), &json!("Connected"))
    );
    assert_ne!(after["deviceEtag"], before["deviceEtag"]);
    assert_eq!(world.log.0.lock().unwrap().len(), 1, "only the creation");
    world.server.stop().await;
}

#[tokio::test]
async fn writes_are_guarded_by_the_etag_and_emit_what_a_write_emits() {
    let world = World::start().await;
    world.create("d", json!({"tags": {"a": 1}}));
    let write = |method, etag: &'static str, body: Value| {
        let request = world.request(method, "/twins/d").header("authorization", signature());
        request.header("if-match", etag).json(&body).send()
    };
    let patched = write(Method::PATCH, "\"AAAAAAAAAAE=\"", json!({"tags": {"b": 2}})).await.unwrap();
    assert_eq!(
        (patched.status().as_u16(), patched.headers()["etag"].to_str().unwrap()),
        (200, "\"AAAAAAAAAAI=\"")
    );
    let stale = write(Method::PATCH, "\"AAAAAAAAAAE=\"", json!({"tags": {"c": 3}})).await.unwrap();
    assert_eq!(stale.status(), 412);
    let replaced = write(Method::PUT, "*", json!({"tags": {"d": 4}})).await.unwrap();
    assert_eq!(replaced.json::<Value>().await.unwrap()["tags"], json!({"d": 4}));
    let refused = write(Method::PATCH, "*", json!({"tags": {"a.b": 1}})).await.unwrap();
    assert_eq!(refused.status(), 400);
    let kinds: Vec<_> =
        world.log.0.lock().unwrap().iter().map(|(_, event)| event.change.operation_type()).collect();
    assert_eq!(kinds, ["createDeviceIdentity", "updateTwin", "replaceTwin"]);
    world.server.stop().await;
}
