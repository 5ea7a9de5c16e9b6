use serde_json::json;

use super::{super::testing::path, Root};

#[test]
fn a_path_leads_through_objects_only() {
    let twin = json!({
        "deviceId": "d", "version": 3,
        "tags": {"a": {"b": null, "B": 1}, "list": [{"a": 1}], "0": "zero", "a.b": 2},
        "properties": {"desired": {"$version": 2, "$metadata": {"$lastUpdated": "2031"}}},
    });
    for (text, found) in [
        ("DEVICEID", Some(json!("d"))),
        ("deviceId.x", None),
        ("moduleId", None),
        ("tags.a.b", Some(json!(null))),
        ("tags.a.b.c", None),
        ("tags.a.B", Some(json!(1))),
        ("tags.A", None),
        ("tags.[[a.b]]", Some(json!(2))),
        ("tags.[[0]]", Some(json!("zero"))),
        ("tags.list", Some(json!([{"a": 1}]))),
        ("tags.list.a", None),
        ("tags.list.[[0]]", None),
        ("properties.desired.$version", Some(json!(2))),
        ("Properties.desired.$metadata.$lastUpdated", Some(json!("2031"))),
        ("properties.Desired.$version", None),
        ("properties.reported", None),
    ] {
        assert_eq!(path(text).find(&twin), found.as_ref(), "{text}");
    }
    for nothing in [json!(null), json!([]), json!("tags")] {
        assert_eq!(path("tags").find(&nothing), None);
    }
}

#[test]
fn a_path_prints_with_its_root_in_its_own_case_and_escapes_where_needed() {
    for (text, printed) in [
        ("DEVICES.TAGS.Site", "tags.Site"),
        ("tags.group", "tags.[[group]]"),
        ("tags.[[plain]]", "tags.plain"),
        ("tags.[[2nd floor]]", "tags.[[2nd floor]]"),
        ("properties.reported.$version", "properties.reported.$version"),
        ("tags.größe", "tags.[[größe]]"),
        ("X509thumbprint.primaryThumbprint", "x509Thumbprint.primaryThumbprint"),
    ] {
        assert_eq!(path(text).to_string(), printed);
    }
}

#[test]
fn a_column_is_named_by_the_last_name() {
    assert_eq!(path("DeviceID").column(), "deviceId");
    assert_eq!(path("properties.reported.Level").column(), "Level");
}

#[test]
fn paths_are_equal_wherever_they_stand() {
    assert_eq!(path("tags.a"), path("   devices.tags.a"));
    assert!(path("tags.a") < path("tags.b"));
}

#[test]
fn only_five_fields_are_known_to_the_hub_alone() {
    let secret: Vec<_> =
        Root::ALL.iter().filter(|root| root.is_known_to_the_hub_only()).map(|root| root.name()).collect();
    let expected = [
        "connectionState",
        "connectionStateUpdatedTime",
        "lastActivityTime",
        "cloudToDeviceMessageCount",
        "configurations",
    ];
    assert_eq!(secret, expected);
    assert_eq!(Root::named("Sync"), None);
}
