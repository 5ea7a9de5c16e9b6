//! Tables of queries: which twins they select, what they answer, and which are refused.

use serde_json::{Value, json};

use super::*;

mod answers;
mod conditions;
mod refusals;

fn parse(text: &str) -> Query {
    Query::parse(text, Dialect::Extended).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn kinds_of_queries_are_distinguished() {
    let of = |text| {
        let query = parse(text);
        (query.collection(), query.is_raw(), query.selects_all(), query.is_row_by_row())
    };
    for (text, expected) in [
        ("select * from devices", (Collection::Devices, false, true, true)),
        (" SELECT *\nFROM devices.modules ", (Collection::Modules, false, true, true)),
        ("SELECT * FROM Devices WHERE version > 1", (Collection::Devices, false, false, true)),
        ("SELECT TOP 5 * FROM devices", (Collection::Devices, false, true, false)),
        ("SELECT * FROM devices ORDER BY version", (Collection::Devices, false, true, false)),
        ("SELECT deviceId FROM DEVICES . Modules", (Collection::Modules, true, true, true)),
        ("SELECT COUNT() AS n FROM devices", (Collection::Devices, true, true, false)),
        ("SELECT version FROM devices GROUP BY version", (Collection::Devices, true, true, false)),
    ] {
        assert_eq!(of(text), expected, "{text}");
    }
}

#[test]
fn rows_of_single_twins() {
    let twin = json!({
        "deviceId": "a", "version": 7, "x509Thumbprint": {"primaryThumbprint": null},
        "tags": {"site": "north", "odd": null, "a b": 1, "3d": true, "group": 2, "from": 3, "": 5},
        "properties": {"desired": {"site": {"x": 1}, "$version": 2}},
    });
    for (items, row) in [
        ("*", twin.clone()),
        ("deviceId, version", json!({"deviceId": "a", "version": 7})),
        ("DEVICEID, devices.Version", json!({"deviceId": "a", "version": 7})),
        ("Devices.deviceid", json!({"deviceId": "a"})),
        ("deviceid AS Id, X509THUMBPRINT", json!({"Id": "a", "x509Thumbprint": {"primaryThumbprint": null}})),
        ("tags.site, properties.desired.site as wanted", json!({"site": "north", "wanted": {"x": 1}})),
        ("tags.odd, tags.nobody, etag", json!({"odd": null})),
        ("tags.[[a b]], [[TAGS]].[[3d]] AS [[3 d]]", json!({"a b": 1, "3 d": true})),
        ("tags.3d, tags.group, tags.from", json!({"3d": true, "group": 2, "from": 3})),
        ("properties.desired.$version, devices.[[deviceId]] AS from", json!({"$version": 2, "from": "a"})),
        ("tags.[[]]", json!({"": 5})),
        ("[[devices]].deviceId, devices", json!({})),
        ("tags.Site, Tags.Odd", json!({})),
        ("count, Sum, tags.site AS count2", json!({"count2": "north"})),
    ] {
        let text = format!("SELECT {items} FROM devices");
        let query = Query::parse(&text, Dialect::Hub).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(query.row(&twin), Some(row), "{text}");
    }
    assert_eq!(parse("SELECT COUNT() FROM devices").row(&twin), None);
}
