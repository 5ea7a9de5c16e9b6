//! Limits, numbers, and malformed input; the shapes of real events are in `tests/fixtures/events`.

use std::cell::Cell;

use proptest::{collection, prelude::*, test_runner::TestRunner};
use serde_json::json;

use super::*;
use crate::domain::{
    decide::{Rules, decide},
    document::Document,
    id::{DocumentIdScheme, Position, SequenceNumber},
    message::Properties,
    twin::Sections,
    undeliverable::MAX_DEPTH,
};

const LIMIT: usize = 1 << 16;

fn text(value: &str) -> Property<'_> {
    Property::Text(value.into())
}

fn message(operation: &str, body: impl Into<Vec<u8>>) -> Message {
    let properties = [
        ("hubName", "hub"),
        ("deviceId", "pump"),
        ("opType", operation),
        ("operationTimestamp", "2031-05-04T10:00:00.1234567Z"),
    ];
    Message {
        position: Position { sequence_number: SequenceNumber(1), offset: "1".into() },
        enqueued: None,
        body: body.into().into(),
        application_properties: properties.map(|(name, value)| (name, text(value))).into(),
        annotations: Properties::from([("iothub-message-source", text("twinChangeEvents"))]),
    }
}

#[track_caller]
fn refused(message: &Message, reason: Undeliverable) {
    assert_eq!(decode(message, LIMIT), Decoded::Undeliverable(reason));
}

#[track_caller]
fn patch_of(message: &Message) -> Sections {
    match decode(message, LIMIT) {
        Decoded::Event(TwinEvent { change: Change::Updated { patch, .. }, .. }) => patch.sections(),
        other => panic!("no update: {other:?}"),
    }
}

#[track_caller]
fn event_of(message: &Message) -> TwinEvent {
    match decode(message, LIMIT) {
        Decoded::Event(event) => event,
        other => panic!("no event: {other:?}"),
    }
}

/// A body whose brackets nest `levels` deep.
fn nested(levels: usize, open: &str, close: &str) -> String {
    let inner = levels - 2;
    format!(r#"{{"version": 3, "tags": {{"a": {}1{}}}}}"#, open.repeat(inner), close.repeat(inner))
}

#[test]
fn bodies_as_deep_as_cosmos_takes_pass_and_one_level_more_is_refused() {
    for (open, close) in [("[", "]"), (r#"{"k":"#, "}")] {
        patch_of(&message("updateTwin", nested(MAX_DEPTH, open, close)));
        refused(&message("updateTwin", nested(MAX_DEPTH + 1, open, close)), Undeliverable::TooDeep);
    }
    refused(&message("updateTwin", "[".repeat(60_000)), Undeliverable::TooDeep);
}

#[test]
fn brackets_inside_strings_are_no_depth() {
    let brackets = r#"\"[{\\"#.repeat(200);
    let body = format!(r#"{{"version": 3, "tags": {{"a": "{brackets}"}}}}"#);
    assert_eq!(patch_of(&message("updateTwin", body)).tags.expect("tags")["a"], r#""[{\"#.repeat(200));
}

#[test]
fn closing_brackets_end_a_level_outside_of_strings_only() {
    let inner = nested(MAX_DEPTH, "[", "]");
    let closed = inner.replacen(r#"{"a":"#, &format!(r#"{{"z": "{}", "a":"#, "]".repeat(9)), 1);
    patch_of(&message("updateTwin", closed.clone()));
    let deeper = closed.replacen(r#""a": "#, r#""a": ["#, 1).replacen('1', "1]", 1);
    refused(&message("updateTwin", deeper), Undeliverable::TooDeep);
    let side_by_side = format!(r#"{{"version": 3, "tags": {{"a": [{}[]]}}}}"#, "[],".repeat(2 * MAX_DEPTH));
    patch_of(&message("updateTwin", side_by_side));
}

#[test]
fn the_size_limit_holds_to_the_byte() {
    let body = br#"{"version":3,"tags":{}}"#;
    assert!(matches!(decode(&message("updateTwin", body), body.len()), Decoded::Event(_)));
    assert_eq!(
        decode(&message("updateTwin", body), body.len() - 1),
        Decoded::Undeliverable(Undeliverable::TooLarge)
    );
}

#[test]
fn what_is_no_json_object_in_utf8_is_refused_with_its_reason() {
    for (body, reason) in [
        (&b"{\"version\":3,\"tags\":{\"a\":\"\xff\"}}"[..], Undeliverable::NotUtf8),
        (b"", Undeliverable::NotJson),
        (b"{\"version\":3", Undeliverable::NotJson),
        (b"{\"version\":3} trailing", Undeliverable::NotJson),
        (b"{\"version\":3,\"tags\":{\"a\":NaN}}", Undeliverable::NotJson),
        (b"null", Undeliverable::NotObject),
        (b"[]", Undeliverable::NotObject),
        (b"\"text\"", Undeliverable::NotObject),
        (b"{\"version\":3,\"properties\":[]}", Undeliverable::SectionNotObject),
        (b"{\"version\":3,\"properties\":{\"desired\":1}}", Undeliverable::SectionNotObject),
        (b"{\"version\":3.5}", Undeliverable::NoVersion),
        (b"{\"version\":99999999999999999999}", Undeliverable::NoVersion),
        (b"{\"version\":null}", Undeliverable::NoVersion),
    ] {
        refused(&message("updateTwin", body), reason);
        refused(&message("replaceTwin", body), reason);
    }
}

#[test]
fn a_delete_is_told_without_its_body() {
    for body in [&b"\xff\xfe"[..], b"", b"[1]", b"{\"tags\":7}", &[b'['; 1_000], &[b' '; LIMIT + 1]] {
        let mut message = message("deleteDeviceIdentity", body);
        message.annotations.insert("iothub-message-source", text("deviceLifecycleEvents"));
        assert_eq!(event_of(&message).change, Change::Deleted);
    }
}

#[test]
fn a_byte_order_mark_is_skipped() {
    patch_of(&message("updateTwin", "\u{feff}{\"version\": 3}"));
}

#[test]
fn of_duplicate_keys_the_last_wins() {
    let body = r#"{"version": 3, "tags": {"a": 1, "a": {"b": 1, "b": 2}}, "version": 4}"#;
    let event = event_of(&message("updateTwin", body));
    let Change::Updated { version, patch } = event.change else {
        panic!("no update");
    };
    assert_eq!(version, TwinVersion(4));
    assert_eq!(Value::Object(patch.sections().tags.expect("tags")), json!({"a": {"b": 2}}));
}

#[test]
fn null_sections_say_nothing() {
    let patch = patch_of(&message(
        "updateTwin",
        r#"{"version": 3, "tags": null, "properties": {"desired": null, "reported": {}}}"#,
    ));
    assert_eq!((patch.tags, patch.desired), (None, None));
    assert!(patch.reported.is_some());
    let patch = patch_of(&message("updateTwin", r#"{"version": 3, "properties": null}"#));
    assert_eq!(patch, Sections::default());
}

#[test]
fn only_the_hubs_own_root_fields_stand_beside_the_sections() {
    let patch = patch_of(&message(
        "updateTwin",
        r#"{"version": 3, "deviceId": "x", "id": 1, "_etag": 2, "ttl": 3, "sync": {}, "etag": "e", "status": "enabled"}"#,
    ));
    assert_eq!(Value::Object(patch.root), json!({"etag": "e", "status": "enabled"}));
}

#[test]
fn ids_are_taken_from_properties_then_annotations_then_the_body() {
    let mut message =
        message("updateTwin", r#"{"version": 3, "deviceId": "body", "moduleId": "body-module"}"#);
    message.annotations.insert("iothub-connection-device-id", text("annotation"));
    message.annotations.insert("iothub-connection-module-id", text("annotation-module"));
    let key = event_of(&message).key;
    assert_eq!((key.device.as_str(), key.module.as_deref()), ("pump", Some("annotation-module")));
    message.application_properties.insert("deviceId", text(""));
    assert_eq!(event_of(&message).key.device, "annotation");
    message.annotations.clear();
    message.application_properties.insert("iothub-message-schema", text("twinChangeNotification"));
    let key = event_of(&message).key;
    assert_eq!((key.device.as_str(), key.module.as_deref()), ("body", Some("body-module")));
    message.application_properties.remove("hubName");
    assert_eq!(subject(&message), (Some("body".into()), Some("body-module".into())), "without a hub as well");
    refused(&message, Undeliverable::NoHub);
}

#[test]
fn an_empty_source_counts_as_none() {
    let mut message = message("updateTwin", r#"{"version": 3}"#);
    message.annotations.insert("iothub-message-source", text(""));
    assert_eq!(decode(&message, LIMIT), Decoded::Ignored(Ignored::NoSource));
    message.application_properties.insert("iothub-message-schema", text("twinChangeNotification"));
    patch_of(&message);
}

#[test]
fn times_come_from_the_operation_then_the_hub_then_event_hubs() {
    let mut message = message("updateTwin", r#"{"version": 3}"#);
    let enqueued = Ticks::from_unix_milliseconds(3_000).expect("in range");
    message.enqueued = Some(enqueued);
    message.annotations.insert("iothub-enqueuedtime", Property::Integer(2_000));
    assert_eq!(event_of(&message).at.to_string(), "2031-05-04T10:00:00.1234567Z");
    let bytes = Property::Binary(b"2031-05-04T10:00:00.1234567+00:00".into());
    for operation in [bytes, text("2031-05-04T12:00:00.12345678+02:00")] {
        message.application_properties.insert("operationTimestamp", operation);
        assert_eq!(event_of(&message).at.to_string(), "2031-05-04T10:00:00.1234567Z");
    }
    message.application_properties.insert("operationTimestamp", text("Tue May 04 10:00:00 2031"));
    assert_eq!(event_of(&message).at.get(), 20_000_000);
    for odd in [text("soon"), Property::Integer(i64::MAX), Property::Boolean(true)] {
        message.annotations.insert("iothub-enqueuedtime", odd);
        assert_eq!(event_of(&message).at, enqueued);
    }
    message.enqueued = None;
    refused(&message, Undeliverable::NoTime);
}

/// Passes the text of one JSON value through decoding into a stored document and back.
fn through_everything(value: &str) -> Value {
    let rules = Rules {
        id_scheme: DocumentIdScheme::Device,
        tombstone_ttl_seconds: 60,
        clock_tolerance: std::time::Duration::ZERO,
        forgets_after: None,
    };
    let body = format!(r#"{{"version": 3, "properties": {{"reported": {{"deep": {{"value": {value}}}}}}}}}"#);
    let mut stored = None;
    decide(&mut stored, &event_of(&message("updateTwin", body)), Ticks::new(1), &rules);
    let written = serde_json::to_string(&stored.expect("stored")).expect("serialises");
    let read: Document = serde_json::from_str(&written).expect("reads back");
    assert_eq!(serde_json::to_string(&read).expect("serialises"), written);
    read.twin().expect("content").reported["deep"]["value"].clone()
}

#[test]
fn integers_survive_exactly() {
    for number in
        [0, 1, -1, 4_503_599_627_370_495, -4_503_599_627_370_496, 1 << 53, -(1 << 53), i64::MAX, i64::MIN]
    {
        assert_eq!(through_everything(&number.to_string()), Value::from(number));
    }
    assert_eq!(through_everything("18446744073709551615"), Value::from(u64::MAX));
}

#[test]
fn exponents_that_no_double_holds_are_refused_and_tiny_ones_are_zero() {
    refused(&message("updateTwin", r#"{"version": 3, "tags": {"a": 1e400}}"#), Undeliverable::NotJson);
    refused(
        &message("updateTwin", r#"{"version": 3, "tags": {"a": -1e99999999999999999999}}"#),
        Undeliverable::NotJson,
    );
    assert_eq!(through_everything("1e-400").as_f64(), Some(0.0));
    assert_eq!(through_everything("1E+2").as_f64(), Some(100.0));
}

fn property() -> impl Strategy<Value = Property<'static>> {
    let known = prop::sample::select(vec![
        "twinChangeEvents",
        "deviceLifecycleEvents",
        "updateTwin",
        "replaceTwin",
        "createDeviceIdentity",
        "deleteModuleIdentity",
        "2031-05-04T10:00:00Z",
        "0000-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "pump",
        "",
        "12",
    ]);
    prop_oneof![
        4 => known.prop_map(text),
        1 => ".{0,12}".prop_map(|text| Property::Text(text.into())),
        1 => any::<i64>().prop_map(Property::Integer),
        1 => any::<f64>().prop_map(Property::Number),
        1 => any::<bool>().prop_map(Property::Boolean),
        1 => any::<i64>().prop_filter_map("calendar", |ms| Ticks::from_unix_milliseconds(ms / 100_000)).prop_map(Property::Time),
        1 => collection::vec(any::<u8>(), 0..8).prop_map(|bytes| Property::Binary(bytes.into())),
        1 => ".{0,4}".prop_map(|text| Property::Other(text.into())),
    ]
}

/// Messages that real hubs send.
fn good() -> impl Strategy<Value = Message> {
    let twin = r#"{"version": 3, "etag": "e", "tags": {"a": null, "b": {"c": 1}},
        "properties": {"desired": {"d": [1], "$version": 2}, "reported": {"e": {"f": null}, "$version": 1}}}"#;
    let of = |source: &str, operation, body: &str| {
        let mut message = message(operation, body);
        message.annotations.insert("iothub-message-source", text(source));
        message
    };
    prop::sample::select(vec![
        of("twinChangeEvents", "updateTwin", twin),
        of("twinChangeEvents", "replaceTwin", twin),
        of("deviceLifecycleEvents", "createDeviceIdentity", twin),
        of("deviceLifecycleEvents", "deleteDeviceIdentity", "{}"),
    ])
}

/// One or two properties that a message has or could have, with their new values; `None`: the property is removed.
fn mutations() -> impl Strategy<Value = Vec<(bool, String, Option<Property<'static>>)>> {
    let name = prop::sample::select(vec![
        (true, "iothub-message-source"),
        (true, "iothub-enqueuedtime"),
        (true, "iothub-connection-device-id"),
        (true, "iothub-connection-module-id"),
        (true, "user-id"),
        (false, "iothub-message-schema"),
        (false, "opType"),
        (false, "hubName"),
        (false, "deviceId"),
        (false, "moduleId"),
        (false, "operationTimestamp"),
    ]);
    let mutation = (name, prop::option::weighted(0.9, property()));
    let mutation = mutation.prop_map(|((annotation, name), value)| (annotation, name.to_owned(), value));
    collection::vec(mutation, 1..=2)
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let token = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "\\",
        "1",
        "-",
        "e9",
        ".",
        "null",
        "\"version\":3",
        "\"tags\":",
        "\u{feff}",
    ]);
    prop_oneof![
        collection::vec(any::<u8>(), 0..64),
        collection::vec(token, 0..40).prop_map(|tokens| tokens.concat().into_bytes()),
        Just(br#"{"version":3,"tags":{"a":null},"properties":{"reported":{"b":{"c":null}}}}"#.to_vec()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_body_of_a_good_message_is_an_event_or_has_a_reason(body in body()) {
        let decoded = decode(&message("updateTwin", body), LIMIT);
        prop_assert!(!matches!(decoded, Decoded::Ignored(_)));
    }

    #[test]
    fn doubles_survive_exactly(bits in any::<u64>()) {
        let number = f64::from_bits(bits);
        if number.is_finite() {
            let text = format!("{number:e}");
            let survived = through_everything(&text).as_f64().expect("a number");
            prop_assert_eq!(survived.to_bits(), number.to_bits(), "{}", text);
        }
    }
}

/// The number of mutated messages; and how many of them, at least, must be decoded and stored.
const MUTATED: (u32, u32) = (2_000, 800);

#[test]
fn whatever_a_property_of_a_good_message_holds_nothing_panics_and_what_is_decoded_can_be_stored() {
    let rules = Rules {
        id_scheme: DocumentIdScheme::HubDevice,
        tombstone_ttl_seconds: 60,
        clock_tolerance: std::time::Duration::ZERO,
        forgets_after: None,
    };
    let reached = Cell::new(0);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(MUTATED.0));
    let result = runner.run(&(good(), mutations()), |(mut message, mutations)| {
        for (annotation, name, value) in mutations {
            let properties =
                if annotation { &mut message.annotations } else { &mut message.application_properties };
            match value {
                Some(value) => properties.insert(name, value),
                None => properties.remove(&name),
            };
        }
        let Decoded::Event(event) = decode(&message, LIMIT) else { return Ok(()) };
        prop_assert_eq!(concerns(&message), Some((event.key.clone(), Some(event.at))));
        let mut stored = None;
        decide(&mut stored, &event, event.at, &rules);
        let document = stored.expect("stored");
        let written = serde_json::to_string(&document).expect("serialises");
        prop_assert_eq!(serde_json::from_str::<Document>(&written).expect("reads back"), document);
        reached.set(reached.get() + 1);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    assert!(reached.get() >= MUTATED.1, "only {} of {} were decoded", reached.get(), MUTATED.0);
}

#[test]
fn an_operation_on_a_module_that_does_not_name_it_never_acts_on_its_device() {
    for operation in ["createModuleIdentity", "deleteModuleIdentity"] {
        let mut message = message(operation, "{}");
        message.annotations.insert("iothub-message-source", text("deviceLifecycleEvents"));
        refused(&message, Undeliverable::NoModule);
        assert_eq!(concerns(&message), None);
        message.application_properties.insert("moduleId", text("m"));
        let (key, _) = concerns(&message).expect("named");
        assert_eq!(key, TwinKey::module("hub", "pump", "m"));
    }
    let mut by_source = message("deleteDeviceIdentity", "{}");
    by_source.annotations.insert("iothub-message-source", text("moduleLifecycleEvents"));
    refused(&by_source, Undeliverable::NoModule);
}

#[test]
fn ids_are_as_long_as_iot_hub_gives_them_and_no_longer() {
    for (length, fits) in [(128, true), (129, false), (5_000, false)] {
        for name in ["deviceId", "moduleId"] {
            let mut message = message("updateTwin", r#"{"version": 3}"#);
            message.application_properties.insert(name, text(&"\u{e9}".repeat(length)));
            match fits {
                true => drop(event_of(&message)),
                false => refused(&message, Undeliverable::IdTooLong),
            }
        }
    }
}

#[test]
fn what_cannot_be_applied_still_tells_whom_it_is_about() {
    let at = Ticks::parse("2031-05-04T10:00:00.1234567Z");
    let pump = TwinKey::device("hub", "pump");
    for body in ["{", "[]", "{}", r#"{"version": 3, "tags": 1}"#, &nested(MAX_DEPTH + 1, "[", "]")] {
        let message = message("updateTwin", body);
        assert!(matches!(decode(&message, LIMIT), Decoded::Undeliverable(_)), "{body}");
        assert_eq!(concerns(&message), Some((pump.clone(), at)));
    }
    let mut large = message("updateTwin", vec![b' '; LIMIT + 1]);
    refused(&large, Undeliverable::TooLarge);
    large.application_properties.remove("operationTimestamp");
    assert_eq!(concerns(&large), Some((pump, None)));
    large.application_properties.remove("hubName");
    assert_eq!(concerns(&large), None);
}

#[test]
fn what_changes_without_any_event_is_not_kept_of_a_creation_either() {
    let body = r#"{"version": 2, "status": "enabled", "connectionState": "Connected", "cloudToDeviceMessageCount": 3,
        "lastActivityTime": "2031-05-04T10:00:00Z", "connectionStateUpdatedTime": "2031-05-04T10:00:00Z"}"#;
    let mut message = message("createDeviceIdentity", body);
    message.annotations.insert("iothub-message-source", text("deviceLifecycleEvents"));
    let Change::Created { twin, .. } = event_of(&message).change else { panic!("not a creation") };
    assert_eq!(Value::Object(twin.root), json!({"status": "enabled"}));
}
