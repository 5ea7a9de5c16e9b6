//! Compares merging with an independent implementation of RFC 7396: of sections as trees, and of the body of a change, which is merged
//! while it is parsed.
#![no_main]

use std::time::Duration;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value, json};
use smol_str::SmolStr;
use twinsync::domain::{decide::{Rules, decide}, decode::{Decoded, decode}, document::State, event::{Change, TwinEvent}, id::{DocumentIdScheme, Position, SequenceNumber, TwinKey}, merge, message::{Message, Properties, Property}, ticks::Ticks, twin::{Sections, TwinVersion}};

const RULES: Rules = Rules {
    id_scheme: DocumentIdScheme::Device,
    tombstone_ttl_seconds: 86_400,
    clock_tolerance: Duration::from_secs(5),
    forgets_after: None,
};

/// The algorithm of RFC 7396, section 2, step by step.
fn merge_patch(target: Option<Value>, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut target = match target {
        Some(Value::Object(target)) => target,
        _ => Map::new(),
    };
    for (name, value) in patch {
        match value {
            Value::Null => drop(target.remove(name)),
            value => {
                let merged = merge_patch(target.get(name).cloned(), value);
                target.insert(name.clone(), merged);
            }
        }
    }
    Value::Object(target)
}

/// `$metadata` belongs to the service and is merged in another way.
fn content(section: &Map<String, Value>) -> Map<String, Value> {
    let kept = section.iter().filter(|(name, _)| *name != "$metadata");
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn change_of(body: &Value) -> Option<TwinEvent> {
    let (mut application_properties, mut annotations) = (Properties::default(), Properties::default());
    annotations.insert("iothub-message-source", Property::Text("twinChangeEvents".into()));
    for (name, value) in [
        ("opType", "updateTwin"),
        ("hubName", "hub"),
        ("deviceId", "pump"),
        ("operationTimestamp", "2031-01-01T00:00:01Z"),
    ] {
        application_properties.insert(name, Property::Text(value.into()));
    }
    let message = Message {
        position: Position { sequence_number: SequenceNumber(0), offset: SmolStr::default() },
        enqueued: None,
        body: Bytes::from(body.to_string()),
        application_properties,
        annotations,
    };
    match decode(&message, 1 << 20) {
        Decoded::Event(event) => Some(event),
        Decoded::Ignored(_) | Decoded::Undeliverable(_) => None,
    }
}

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let object = |part: Option<&[u8]>| match serde_json::from_slice(part.unwrap_or_default()) {
        Ok(Value::Object(object)) => Some(object),
        _ => None,
    };
    let (Some(stored), Some(change)) = (object(parts.next()), object(parts.next())) else { return };
    let stored = merge::whole(&stored);
    let expected = merge_patch(Some(stored.clone().into()), &change.clone().into());
    let expected = expected.as_object().expect("an object merged into an object");
    let mut merged = stored.clone();
    merge::patch(&mut merged, &change);
    assert_eq!(content(&merged), content(expected));

    let Some(event) = change_of(&json!({"version": 3, "tags": change, "properties": {"reported": change}})) else {
        return;
    };
    let sections = Sections { tags: Some(stored.clone()), reported: Some(stored), ..Sections::default() };
    let born = Ticks::parse("2031-01-01T00:00:00Z").expect("a time");
    let creation = Change::Created { version: TwinVersion(2), twin: sections };
    let mut document = None;
    for event in [TwinEvent { key: TwinKey::device("hub", "pump"), at: born, change: creation }, event] {
        decide(&mut document, &event, born, &RULES);
    }
    let Some(State::Live { twin, .. }) = document.map(|document| document.state) else {
        panic!("a created twin lives")
    };
    assert_eq!(content(&twin.tags), content(expected), "tags");
    assert_eq!(twin.reported, merged, "reported");
});
