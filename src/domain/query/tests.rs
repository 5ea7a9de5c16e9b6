use serde_json::{Value, json};

use super::{Collection, ItemType, Query, QueryErrorKind, Root, testing::query};

fn hub() -> Vec<Value> {
    vec![
        json!({
            "deviceId": "edge-1", "etag": "AAAAAAAAAAE=", "status": "enabled", "version": 4, "capabilities": {"iotEdge": true},
            "tags": {"location": {"region": "US", "plant": "Redmond43"}, "group": {"name": "a"}},
            "properties": {
                "desired": {"telemetryConfig": {"configId": "c1", "sendFrequencyInSecs": 300}, "$version": 4},
                "reported": {"connectivity": {"type": "cellular"}, "telemetryConfig": {"configId": "c1", "sendFrequencyInSecs": 300, "status": "Success"}, "$version": 7},
            },
        }),
        json!({
            "deviceId": "pump-2", "etag": "AAAAAAAAAAI=", "status": "disabled", "version": 2, "capabilities": {"iotEdge": false},
            "tags": {"location": {"region": "DE"}, "labels": ["old", "loud"], "my.name": 1},
            "properties": {
                "desired": {"telemetryConfig": {"configId": "c2", "sendFrequencyInSecs": 30}, "$metadata": {"$lastUpdated": "2031-01-02"}, "$version": 2},
                "reported": {"connectivity": "wifi", "telemetryConfig": {"configId": "c1", "status": "Pending"}, "$version": 1},
            },
        }),
        json!({
            "deviceId": "pump-3", "etag": "AAAAAAAAAAM=", "status": "enabled", "version": 9,
            "tags": {}, "properties": {"desired": {"$version": 1}, "reported": {"telemetryConfig": {"status": "Success"}, "$version": 1}},
        }),
    ]
}

fn selected(condition: &str) -> Vec<String> {
    let query = query(&format!("SELECT * FROM devices WHERE {condition}"));
    let hub = hub();
    let found = hub.iter().filter(|twin| query.matches(twin));
    found.map(|twin| twin["deviceId"].as_str().expect("has an id").to_owned()).collect()
}

/// The kinds of queries in public code, by frequency.
#[test]
fn what_is_used_is_served() {
    const EDGE: &[&str] = &["edge-1"];
    const PUMP: &[&str] = &["pump-2"];
    for (kind, condition, ids) in [
        ("capabilities.iotEdge", "capabilities.iotEdge = true", EDGE),
        ("capabilities.iotEdge", "devices.capabilities.iotEdge=true", EDGE),
        ("capabilities.iotEdge", "capabilities.iotEdge != true", PUMP),
        ("tags", "tags.location.region = 'US'", EDGE),
        ("tags", "tags.location.region = \"DE\" and status = 'disabled'", PUMP),
        ("root state fields", "Status = 'enabled' AND NOT deviceId = 'pump-3'", EDGE),
        ("root state fields", "etag = 'AAAAAAAAAAI='", PUMP),
        (
            "properties.desired",
            "properties.desired.telemetryConfig.configId = properties.reported.telemetryConfig.configId",
            EDGE,
        ),
        ("is_defined", "is_defined(tags.labels)", PUMP),
        ("is_defined", "NOT is_defined(tags.location)", &["pump-3"]),
        ("properties.reported", "properties.reported.telemetryConfig.status = 'Pending'", PUMP),
        ("IN", "deviceId IN ['edge-1', 'device2']", EDGE),
        ("IN", "properties.reported.connectivity IN ['wired', 'wifi']", PUMP),
        ("!=", "tags.location.region != 'US'", PUMP),
        ("ranges", "properties.reported.telemetryConfig.sendFrequencyInSecs >= 60", EDGE),
        ("ranges", "version > 3 AND version < 5", EDGE),
        ("STARTSWITH", "STARTSWITH(deviceId, 'edge')", EDGE),
        ("$metadata", "properties.desired.$metadata.$lastUpdated > '2031-01-01'", PUMP),
        ("escaped names", "tags.[[group]].name = 'a'", EDGE),
        ("escaped names", "tags.[[my.name]] = 1", PUMP),
        ("array_contains", "array_contains(tags.labels, 'loud')", PUMP),
        ("NIN", "deviceId NIN ['edge-1', 'pump-3']", PUMP),
    ] {
        assert_eq!(selected(condition), ids, "{kind}: {condition}");
    }
}

#[test]
fn modules_are_a_collection_and_jobs_are_none() {
    let modules =
        query("SELECT * FROM devices.modules WHERE moduleId in ['$edgeAgent'] and deviceId IN ['d']");
    assert_eq!((modules.collection(), modules.item_type()), (Collection::Modules, ItemType::Twin));
    assert!(modules.matches(&json!({"deviceId": "d", "moduleId": "$edgeAgent"})));
    let error =
        Query::parse("SELECT * FROM devices.jobs WHERE devices.jobs.deviceId = 'd'").expect_err("is refused");
    assert_eq!(error.kind, QueryErrorKind::Jobs);
}

#[test]
fn counts_and_groups_are_served() {
    for (text, rows) in [
        ("SELECT COUNT() as totalNumberOfDevices FROM devices", json!([{"totalNumberOfDevices": 3}])),
        ("SELECT COUNT() AS n FROM devices WHERE capabilities.iotEdge = true", json!([{"n": 1}])),
        (
            "SELECT properties.reported.telemetryConfig.status AS status, COUNT() AS numberOfDevices FROM devices GROUP BY properties.reported.telemetryConfig.status",
            json!([{"status": "Pending", "numberOfDevices": 1}, {"status": "Success", "numberOfDevices": 2}]),
        ),
        (
            "SELECT AVG(version) AS mean, MIN(version) AS least, MAX(deviceId) AS last, SUM(version) AS sum FROM devices",
            json!([{"mean": 5, "least": 2, "last": "pump-3", "sum": 15}]),
        ),
    ] {
        let query = query(text);
        let mut aggregation = query.aggregation(10);
        for twin in hub().iter().filter(|twin| query.matches(twin)) {
            aggregation.add(twin).expect("has room");
        }
        assert_eq!(Value::from(aggregation.rows()), rows, "{text}");
    }
}

#[test]
fn what_only_the_hub_knows_can_be_parsed_and_evaluated_but_not_asked_of_the_store() {
    let query = query(
        "SELECT DeviceId, LastActivityTime FROM devices WHERE status = 'enabled' AND connectionState = 'Disconnected'",
    );
    let error = query.pushdown(Root::place).expect_err("only the hub knows");
    assert_eq!((error.kind, error.position), (QueryErrorKind::HubOnly, 17));
    let twin = json!({"deviceId": "d", "status": "enabled", "connectionState": "Disconnected", "lastActivityTime": "2031"});
    assert!(query.matches(&twin));
    assert_eq!(query.row(&twin), json!({"deviceId": "d", "lastActivityTime": "2031"}));
}

#[test]
fn queries_print_as_they_are_read() {
    for text in [
        "SELECT * FROM devices",
        "SELECT TOP 3 deviceId, tags.a AS b FROM devices.modules WHERE tags.a = 'x' ORDER BY tags.a, version DESC",
        "SELECT COUNT() AS n, AVG(tags.a) FROM devices GROUP BY tags.b, tags.[[group]]",
    ] {
        assert_eq!(query(text).to_string(), text);
    }
}

/// The errors on the page for users are the actual errors.
#[test]
fn the_errors_on_the_page_are_the_errors_that_are_given() {
    for (text, error) in [
        (
            "SELECT * FROM devices.jobs",
            "at character 14: jobs cannot be served from a copy of twins: ask the hub itself for devices.jobs",
        ),
        (
            "SELECT * FROM devices WHERE connectionState = 'Connected'",
            "at character 28: connectionState is not in any event, so only the hub knows it: ask the hub itself, or leave it out",
        ),
        (
            "SELECT * FROM devices WHERE myProp = 1",
            "at character 28: a twin has no field `myProp`: begin with tags, properties.desired, properties.reported or a field of the twin itself",
        ),
        (
            "SELECT * FROM devices WHERE tags.my-name = 1",
            "at character 35: a name with `-` is written in [[ ]], such as tags.[[my-name]]; arithmetic is not served",
        ),
        (
            "SELECT * FROM devices WHERE tags.a IN ('x')",
            "at character 38: `(` cannot stand here: write the list in brackets, such as ['a', 'b']",
        ),
        (
            "SELECT * FROM devices WHERE LOWER(deviceId) = 'x'",
            "at character 28: the function LOWER is for routes and not for twins: compare the path itself",
        ),
        (
            "SELECT COUNT(*) FROM devices",
            "at character 13: COUNT counts rows and takes nothing: write COUNT(), with IS_DEFINED(path) in WHERE to count values",
        ),
        (
            "SELECT tags.a, COUNT() AS n FROM devices",
            "at character 7: tags.a is neither an aggregate nor grouped by: write it into GROUP BY, or leave it out",
        ),
    ] {
        let found = Query::parse(text).and_then(|query| query.pushdown(Root::place).map(|_| ()));
        assert_eq!(found.expect_err(text).to_string(), error);
    }
}
