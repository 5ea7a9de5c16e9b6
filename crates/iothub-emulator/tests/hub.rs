//! The IoT Hub model keeps IoT Hub's rules in any sequence of operations.
//!
//! The expectation comes from a second, simple model: sections as plain JSON under RFC 7396, counters by the
//! documented rules, and a replica that receives only the notifications.

#![expect(clippy::unwrap_used, reason = "a test fails by panic, in its helpers too")]

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use iothub_emulator::{Change, DeleteBody, Error, Hub, Notification, Operation, Options, Timestamp, TwinId};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const START: Timestamp = Timestamp::from_ticks(17_800_000_000_000_000);

fn hub() -> Hub {
    Hub::new(Options::default(), START)
}

fn device(id: &str) -> TwinId {
    TwinId::device(id).unwrap()
}

fn create(hub: &mut Hub, id: &TwinId) -> Vec<Notification> {
    hub.apply(&Operation::Create { id: id.clone(), twin: None }).unwrap()
}

fn etag_counter(twin: &Value) -> u64 {
    let bytes = STANDARD.decode(twin["etag"].as_str().unwrap()).unwrap();
    u64::from_be_bytes(bytes.try_into().unwrap())
}

#[test]
fn a_new_twin_starts_at_version_2_with_both_sections_at_1_and_etag_1() {
    let mut hub = hub();
    let id = device("d");
    let [event] = &create(&mut hub, &id)[..] else { panic!("one event") };
    assert_eq!(event.change, Change::Created);
    assert_eq!(event.body, hub.twin(&id).unwrap());
    let at = event.operation_time.trimmed();
    assert_eq!(
        event.body,
        json!({"deviceId": "d", "etag": "AAAAAAAAAAE=", "version": 2, "properties": {
            "desired": {"$metadata": {"$lastUpdated": at}, "$version": 1},
            "reported": {"$metadata": {"$lastUpdated": at}, "$version": 1}}})
    );
}

#[test]
fn a_module_needs_its_device_and_shows_sections_never_written() {
    let mut hub = hub();
    let module = TwinId::module("d", "$edgeAgent").unwrap();
    let refused = hub.apply(&Operation::Create { id: module.clone(), twin: None });
    assert_eq!(refused.unwrap_err(), Error::NotFound(device("d")));
    create(&mut hub, &device("d"));
    let [event] = &create(&mut hub, &module)[..] else { panic!("one event") };
    assert_eq!(event.body["moduleId"], "$edgeAgent");
    assert_eq!(event.body["properties"]["desired"]["$metadata"]["$lastUpdated"], "0001-01-01T00:00:00Z");
    assert!(event.application_properties().contains(&("opType", "createDeviceIdentity".to_owned())));
    assert!(event.application_properties().contains(&("moduleId", "$edgeAgent".to_owned())));
    assert!(event.text_annotations().contains(&("iothub-connection-module-id", "$edgeAgent".to_owned())));
}

#[test]
fn an_update_shows_the_patch_as_sent_with_the_metadata_of_what_it_wrote() {
    let mut hub = hub();
    let id = device("d");
    create(&mut hub, &id);
    let patch = json!({"tags": {"site": "A", "absent": null}, "properties": {"desired": {"a": {"b": 1, "c": null}, "d": [1]}}});
    let [event] = &hub.apply(&Operation::Patch { id: id.clone(), patch }).unwrap()[..] else {
        panic!("one event")
    };
    let at = event.operation_time.trimmed();
    let stamp = json!({"$lastUpdated": at, "$lastUpdatedVersion": 2});
    assert_eq!(
        event.body,
        json!({"version": 3, "tags": {"site": "A", "absent": null}, "properties": {"desired": {
            "a": {"b": 1, "c": null}, "d": [1], "$version": 2,
            "$metadata": {"$lastUpdated": at, "$lastUpdatedVersion": 2, "d": stamp,
                "a": {"$lastUpdated": at, "$lastUpdatedVersion": 2, "b": stamp}}}}})
    );
    let twin = hub.twin(&id).unwrap();
    assert_eq!(twin["tags"], json!({"site": "A"}));
    assert_eq!(twin["properties"]["desired"]["a"], json!({"b": 1}));
}

#[test]
fn a_replacement_empties_what_it_does_not_name_and_leaves_reported_properties() {
    let mut hub = hub();
    let id = device("d");
    create(&mut hub, &id);
    let patch = json!({"tags": {"x": 1}, "properties": {"desired": {"a": 1, "b": 2}}});
    hub.apply(&Operation::Patch { id: id.clone(), patch }).unwrap();
    hub.apply(&Operation::Report { id: id.clone(), patch: json!({"r": 1}) }).unwrap();
    let twin = json!({"properties": {"desired": {"b": 3}}});
    let [event] = &hub.apply(&Operation::Replace { id: id.clone(), twin }).unwrap()[..] else {
        panic!("one event")
    };
    let after = hub.twin(&id).unwrap();
    assert_eq!(event.change, Change::Replaced);
    assert_eq!(event.body["tags"], json!({}), "the event tells of emptied tags");
    let mut updated = event.body.clone();
    updated.as_object_mut().unwrap().remove("tags");
    assert_eq!(updated, after);
    assert_eq!(after.get("tags"), None);
    assert_eq!((&after["version"], etag_counter(&after)), (&json!(5), 3));
    assert_eq!(after["properties"]["desired"]["$version"], 3);
    assert_eq!(after["properties"]["desired"].get("a"), None);
    assert_eq!(after["properties"]["reported"]["r"], 1);

    let twin = json!({"tags": {"gone": null}});
    assert!(matches!(hub.apply(&Operation::Replace { id, twin }), Err(Error::InvalidTwin { .. })));
}

#[test]
fn deleting_a_device_deletes_its_modules_and_a_new_one_starts_over() {
    for (delete_body, keys) in [(DeleteBody::Empty, 0), (DeleteBody::Partial, 3), (DeleteBody::Full, 4)] {
        let mut hub = Hub::new(Options { delete_body, ..Options::default() }, START);
        let id = device("d");
        create(&mut hub, &id);
        create(&mut hub, &TwinId::module("d", "m").unwrap());
        create(&mut hub, &device("d2"));
        hub.apply(&Operation::Report { id: id.clone(), patch: json!({"r": 1}) }).unwrap();
        let events = hub.apply(&Operation::Delete { id: id.clone() }).unwrap();
        let deleted: Vec<_> = events.iter().map(|event| (event.change, event.id.module_id())).collect();
        assert_eq!(deleted, [(Change::Deleted, Some("m")), (Change::Deleted, None)]);
        assert_eq!(events[1].body.as_object().unwrap().len(), keys);
        assert_eq!(hub.len(), 1);
        let [event] = &create(&mut hub, &id)[..] else { panic!("one event") };
        assert_eq!(event.body["version"], 2);
        assert_eq!(event.body["properties"]["reported"].get("r"), None);
    }
}

#[test]
fn a_refused_write_changes_nothing() {
    let mut hub = hub();
    let id = device("d");
    create(&mut hub, &id);
    let before = hub.twin(&id).unwrap();
    let too_large = "x".repeat(4000);
    for patch in [
        json!({"tags": {"ok": 1}, "properties": {"desired": {"bad key": 1}}}),
        json!({"tags": {"a": too_large, "b": too_large, "c": too_large}}),
        json!({"tags": null}),
        json!({}),
        json!({"tag": {}}),
        json!([]),
    ] {
        assert!(hub.apply(&Operation::Patch { id: id.clone(), patch: patch.clone() }).is_err(), "{patch}");
    }
    assert!(hub.apply(&Operation::Report { id: id.clone(), patch: json!({"a": [null]}) }).is_err());
    assert!(hub.apply(&Operation::Create { id: id.clone(), twin: None }).is_err());
    assert_eq!(hub.twin(&id).unwrap(), before);
}

#[test]
fn user_ids_carry_bytes_that_are_not_text_now_and_then() {
    let mut hub = hub();
    create(&mut hub, &device("d"));
    let user_ids: Vec<Vec<u8>> = (0..10)
        .flat_map(|n| hub.apply(&Operation::Report { id: device("d"), patch: json!({"n": n}) }).unwrap())
        .map(|event| event.user_id())
        .collect();
    let invalid = user_ids.iter().filter(|bytes| std::str::from_utf8(bytes).is_err()).count();
    assert_eq!((user_ids.len(), invalid), (10, 2));
    assert!(user_ids.iter().all(|bytes| bytes.starts_with(b"devkit-hub")));
}

// The simple model.

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        return target.clone_from(patch);
    };
    if !target.is_object() {
        *target = json!({});
    }
    let target = target.as_object_mut().unwrap();
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

fn prune(metadata: &mut Map<String, Value>, values: &Map<String, Value>) {
    metadata.retain(|key, _| key.starts_with('$') || values.contains_key(key));
    let none = Map::new();
    for (key, entry) in metadata.iter_mut().filter(|(key, _)| !key.starts_with('$')) {
        prune(entry.as_object_mut().unwrap(), values[key].as_object().unwrap_or(&none));
    }
}

/// A replica of one hub that receives only its notifications.
#[derive(Default)]
struct Replica(BTreeMap<TwinId, Value>);

impl Replica {
    fn apply(&mut self, event: &Notification) {
        let body = &event.body;
        match event.change {
            Change::Created => {
                self.0.insert(event.id.clone(), body.clone());
            }
            Change::Deleted => {
                self.0.remove(&event.id);
            }
            Change::Replaced => {
                self.0.insert(event.id.clone(), body.clone());
            }
            Change::Updated => {
                let twin = self.0.get_mut(&event.id).unwrap();
                twin["version"] = body["version"].clone();
                if let Some(tags) = body.get("tags") {
                    merge(twin.as_object_mut().unwrap().entry("tags").or_insert(json!({})), tags);
                }
                for section in ["desired", "reported"] {
                    let Some(patch) = body["properties"].get(section) else {
                        continue;
                    };
                    let target = &mut twin["properties"][section];
                    merge(target, patch);
                    let values = target.as_object().unwrap().clone();
                    prune(target["$metadata"].as_object_mut().unwrap(), &values);
                }
            }
        }
    }
}

fn assert_metadata_mirrors(values: &Map<String, Value>, metadata: &Map<String, Value>, desired: bool) {
    assert!(metadata["$lastUpdated"].is_string());
    for (key, value) in values.iter().filter(|(key, _)| !key.starts_with('$')) {
        let entry = metadata[key].as_object().unwrap();
        assert_eq!(entry.contains_key("$lastUpdatedVersion"), desired, "{key}");
        let none = Map::new();
        assert_metadata_mirrors(value.as_object().unwrap_or(&none), entry, desired);
    }
    for key in metadata.keys().filter(|key| !key.starts_with('$')) {
        assert!(values.contains_key(key), "orphan {key}");
    }
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        3 => Just(Value::Null),
        2 => any::<bool>().prop_map(Value::from),
        3 => (-(1_i64 << 52)..(1_i64 << 52)).prop_map(Value::from),
        1 => any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Value::from),
        2 => "[a-zé☃]{0,5}".prop_map(Value::from),
        1 => prop::collection::vec((0..9_i64).prop_map(Value::from), 0..3).prop_map(Value::from),
    ]
}

/// Few keys, so that patches often have keys in common.
fn object() -> impl Strategy<Value = Value> {
    let value = leaf().prop_recursive(3, 12, 4, |inner| {
        prop::collection::btree_map("[a-d]", inner, 0..4)
            .prop_map(|map| Value::Object(map.into_iter().collect()))
    });
    prop::collection::btree_map("[a-d]", value, 0..4).prop_map(|map| Value::Object(map.into_iter().collect()))
}

fn service_patch() -> impl Strategy<Value = Value> {
    prop_oneof![
        object().prop_map(|tags| json!({ "tags": tags })),
        object().prop_map(|desired| json!({ "properties": { "desired": desired } })),
        (object(), object())
            .prop_map(|(tags, desired)| json!({ "tags": tags, "properties": { "desired": desired } })),
    ]
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect(),
        ),
        other => other,
    }
}

fn operation() -> impl Strategy<Value = Operation> {
    let id = prop_oneof![
        Just(device("d")),
        Just(device("D")),
        Just(TwinId::module("d", "m").unwrap()),
        Just(TwinId::module("d", "$n").unwrap()),
    ];
    (
        id,
        prop_oneof![
            3 => prop::option::of(service_patch().prop_map(without_nulls)).prop_map(|twin| (0, twin)),
            5 => service_patch().prop_map(|patch| (1, Some(patch))),
            5 => object().prop_map(|patch| (2, Some(patch))),
            2 => service_patch().prop_map(|twin| (3, Some(without_nulls(twin)))),
            1 => Just((4, None)),
        ],
    )
        .prop_map(|(id, (kind, value))| match (kind, value) {
            (0, twin) => Operation::Create { id, twin },
            (1, Some(patch)) => Operation::Patch { id, patch },
            (2, Some(patch)) => Operation::Report { id, patch },
            (3, Some(twin)) => Operation::Replace { id, twin },
            _ => Operation::Delete { id },
        })
}

fn section(twin: &Value, name: &str) -> Value {
    let mut section = twin["properties"][name].clone();
    let section_map = section.as_object_mut().unwrap();
    section_map.remove("$metadata");
    section_map.remove("$version");
    section
}

fn tags(twin: &Value) -> Value {
    twin.get("tags").cloned().unwrap_or(json!({}))
}

/// Checks how far a write advances (version, ETag, desired `$version`, reported `$version`), and the contents
/// of the sections afterwards.
fn assert_write(before: &Value, operation: &Operation, after: &Value) {
    let counters = |twin: &Value| {
        let of = |name: &str| twin["properties"][name]["$version"].as_u64().unwrap();
        [twin["version"].as_u64().unwrap(), etag_counter(twin), of("desired"), of("reported")]
    };
    let sections = |twin: &Value| [tags(twin), section(twin, "desired"), section(twin, "reported")];
    let mut expected = sections(before);
    let moved: [u64; 4] = match operation {
        Operation::Patch { patch, .. } => {
            merge(&mut expected[0], patch.get("tags").unwrap_or(&json!({})));
            merge(&mut expected[1], patch["properties"].get("desired").unwrap_or(&json!({})));
            [1, 1, u64::from(patch.get("properties").is_some()), 0]
        }
        Operation::Replace { twin, .. } => {
            expected[0] = twin.get("tags").cloned().unwrap_or(json!({}));
            expected[1] = twin["properties"].get("desired").cloned().unwrap_or(json!({}));
            [1, 1, 1, 0]
        }
        Operation::Report { patch, .. } => {
            merge(&mut expected[2], patch);
            [1, 0, 0, 1]
        }
        Operation::Create { .. } | Operation::Delete { .. } => panic!("not a write"),
    };
    let (old, new) = (counters(before), counters(after));
    let step: Vec<u64> = old.iter().zip(new).map(|(old, new)| new - old).collect();
    assert_eq!(step, moved, "{operation:?}");
    assert_eq!(sections(after), expected, "{operation:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_sequence_of_operations_keeps_the_rules(operations in prop::collection::vec(operation(), 1..60)) {
        let mut hub = hub();
        let mut replica = Replica::default();
        let mut last = START;
        for operation in &operations {
            let (Operation::Create { id, .. } | Operation::Patch { id, .. } | Operation::Replace { id, .. }
                | Operation::Report { id, .. } | Operation::Delete { id }) = operation;
            let before = hub.twin(id);
            let Ok(events) = hub.apply(operation) else {
                prop_assert_eq!(hub.twin(id), before);
                continue;
            };
            let after = hub.twin(id);
            match (operation, &before, &after) {
                (Operation::Create { .. }, None, Some(twin)) => prop_assert_eq!(&twin["version"], &json!(2)),
                (Operation::Delete { .. }, Some(_), None) => {}
                (_, Some(before), Some(after)) => assert_write(before, operation, after),
                _ => prop_assert!(false, "{:?} from {:?} to {:?}", operation, before, after),
            }
            for event in &events {
                prop_assert!(event.operation_time > last, "time stands still");
                replica.apply(event);
            }
            last = events.last().unwrap().operation_time;
            for (_, twin) in hub.twins_after(None, 100) {
                let version = twin["version"].as_u64().unwrap();
                prop_assert_eq!(version, etag_counter(&twin) + twin["properties"]["reported"]["$version"].as_u64().unwrap());
                for (name, desired) in [("desired", true), ("reported", false)] {
                    let section = twin["properties"][name].as_object().unwrap();
                    assert_metadata_mirrors(section, section["$metadata"].as_object().unwrap(), desired);
                }
            }
        }
        // Applied in order, the notifications alone give the hub's twins. Only the ETag is missing in updates.
        let without_etag = |mut twin: Value| {
            let map = twin.as_object_mut().unwrap();
            map.remove("etag");
            if map.get("tags") == Some(&json!({})) {
                map.remove("tags");
            }
            twin
        };
        let twins: BTreeMap<_, _> = hub.twins_after(None, 100).into_iter().map(|(id, twin)| (id, without_etag(twin))).collect();
        let replicated: BTreeMap<_, _> = replica.0.into_iter().map(|(id, twin)| (id, without_etag(twin))).collect();
        prop_assert_eq!(replicated, twins);
    }

    #[test]
    fn a_merge_repeated_leaves_the_values_as_they_are(first in object(), patch in object()) {
        let mut hub = hub();
        let id = device("d");
        create(&mut hub, &id);
        hub.apply(&Operation::Report { id: id.clone(), patch: first }).unwrap();
        hub.apply(&Operation::Report { id: id.clone(), patch: patch.clone() }).unwrap();
        let once = section(&hub.twin(&id).unwrap(), "reported");
        hub.apply(&Operation::Report { id: id.clone(), patch }).unwrap();
        prop_assert_eq!(section(&hub.twin(&id).unwrap(), "reported"), once);
    }
}
