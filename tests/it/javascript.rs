//! Azure's JavaScript clients: events that they publish arrive in Cosmos DB through the daemon, and the JavaScript
//! client reads the document there.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use devkit::javascript::{OfficialClients, Output};
use serde_json::{Value, json};

use crate::world::World;

const LIMIT: Duration = Duration::from_secs(60);

async fn cosmos(clients: &OfficialClients, world: &World, command: &str, options: &[&str]) -> Output {
    let endpoints = world.stack.endpoints();
    let mut arguments = vec![
        command,
        "--endpoint",
        &endpoints.cosmos,
        "--key",
        &endpoints.cosmos_key,
        "--database",
        &endpoints.database,
        "--container",
        &endpoints.container,
    ];
    arguments.extend_from_slice(options);
    clients.run("cosmos.mjs", &arguments, &[], LIMIT).await.expect("the client runs")
}

async fn publish(clients: &OfficialClients, world: &World, hub: &str, events: &[Value]) {
    let address = world.stack.broker().address();
    let connection = format!(
        "Endpoint=sb://{address};SharedAccessKeyName=devkit;SharedAccessKey=ZGV2a2l0;UseDevelopmentEmulator=true"
    );
    let arguments = ["publish", "--connection", &connection, "--hub", hub, "--partition-key", "js-pump"];
    let output = clients.run("eventhubs.mjs", &arguments, events, LIMIT).await.expect("the client runs");
    assert!(output.success, "{output:?}");
}

/// The `resource` of each document that a query of the JavaScript client returns.
async fn documents(clients: &OfficialClients, world: &World) -> Vec<Value> {
    let query = "SELECT * FROM c WHERE c.deviceId = 'js-pump'";
    let output = cosmos(clients, world, "query", &["--query", query, "--partition-key", "js-pump"]).await;
    assert!(output.success, "{output:?}");
    output.lines.into_iter().filter_map(|line| line.get("resource").cloned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_published_from_javascript_is_read_from_javascript() {
    let clients = OfficialClients::provision(Path::new(env!("CARGO_TARGET_TMPDIR"))).await;
    let clients = clients.unwrap_or_else(|error| panic!("{error}"));
    let world = World::new().await;
    let daemon = world.start().await;
    let endpoints = world.stack.endpoints();
    let event = |source: &str, schema: &str, operation: &str, second: u32, body: Value| {
        json!({
            "body": body,
            "properties": {
                "hubName": "js-hub", "deviceId": "js-pump", "opType": operation, "iothub-message-schema": schema,
                "operationTimestamp": format!("2031-05-04T10:00:{second:02}.1234567Z"),
            },
            "annotations": {"iothub-message-source": source, "iothub-connection-device-id": "js-pump"},
            "contentType": "application/json", "contentEncoding": "utf-8",
        })
    };
    let section = |version: u32| json!({"$version": version, "$metadata": {}});
    let created = event(
        "deviceLifecycleEvents",
        "deviceLifecycleNotification",
        "createDeviceIdentity",
        1,
        json!({
            "deviceId": "js-pump", "etag": "AAAAAAAAAAE=", "version": 2, "tags": {"site": "north"},
            "properties": {"desired": section(1), "reported": section(1)},
        }),
    );
    let updated = event(
        "twinChangeEvents",
        "twinChangeNotification",
        "updateTwin",
        2,
        json!({"version": 3, "properties": {"reported": {"rate": 0.1, "gone": null, "$version": 2}}}),
    );
    publish(&clients, &world, &endpoints.lifecycle_hub, &[created]).await;
    publish(&clients, &world, &endpoints.twin_changes_hub, &[updated.clone(), updated]).await;
    let started = Instant::now();
    let document = loop {
        let found = documents(&clients, &world).await;
        if let [document] = found.as_slice()
            && document["version"] == 3
            && document["sync"]["state"] == "live"
        {
            break document.clone();
        }
        assert!(started.elapsed() < LIMIT, "{found:?}\n{}", daemon.log());
    };
    assert_eq!(document["id"], "js-pump");
    assert_eq!(document["hubName"], "js-hub");
    assert_eq!(document["tags"], json!({"site": "north"}));
    assert_eq!(document["properties"]["reported"], json!({"rate": 0.1, "$version": 2, "$metadata": {}}));
    assert_eq!(document["sync"].get("flags"), None);
    daemon.stop().await.expect("exit code 0");
}

/// The Cosmos DB emulation of devkit with the JavaScript client.
#[tokio::test(flavor = "multi_thread")]
async fn the_cosmos_host_answers_the_javascript_client_as_cosmos_does() {
    let clients = OfficialClients::provision(Path::new(env!("CARGO_TARGET_TMPDIR"))).await;
    let clients = clients.unwrap_or_else(|error| panic!("{error}"));
    let world = World::new().await;
    let created = cosmos(&clients, &world, "create", &["--partition-key-path", "/deviceId"]).await;
    assert!(created.success, "createIfNotExists on an existing container: {created:?}");
    let endpoints = world.stack.endpoints();
    let arguments = [
        "upsert",
        "--endpoint",
        &endpoints.cosmos,
        "--key",
        &endpoints.cosmos_key,
        "--database",
        &endpoints.database,
        "--container",
        &endpoints.container,
    ];
    let document = json!({"id": "a", "deviceId": "d", "value": 1});
    let upserted = clients.run("cosmos.mjs", &arguments, &[document], LIMIT).await.expect("the client runs");
    assert!(upserted.success, "{upserted:?}");
    let which = ["--id", "a", "--partition-key", "d"];
    let read = cosmos(&clients, &world, "read", &which).await;
    assert!(read.success && format!("{:?}", read.lines).contains("\"value\": Number(1)"), "{read:?}");
    let stale = cosmos(&clients, &world, "replace-stale", &which).await;
    let last = stale.lines.last().expect("an error");
    assert_eq!(last["error"]["code"], 412, "a second replace with the same ETag was not refused: {stale:?}");
}
