//! Events as files: how they become messages, what each fixture of this repository means, and the replay of a
//! folder of captures.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Map, Value, json};
use twinsync::domain::{
    decide::{Decision, decide},
    decode::{Decoded, decode},
    document::Document,
    event::{Change, TwinEvent},
    id::{Position, SequenceNumber},
    merge,
    message::{Message, Properties, Property},
    ticks::Ticks,
    twin::Sections,
};

use crate::store::{NOW, RULES};

const LIMIT: usize = 1 << 20;
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/events");

/// The recordings of a folder that have a body, by file name.
fn recordings(folder: &Path) -> BTreeMap<String, Value> {
    let files = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    files
        .map(|file| file.expect("a folder entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| {
            let text = fs::read_to_string(&path).expect("readable");
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            (name, serde_json::from_str::<Value>(&text).expect("JSON"))
        })
        .filter(|(_, recording)| recording.get("body").is_some())
        .collect()
}

fn properties(recording: &Value, section: &str) -> Properties {
    let Some(section) = recording.get(section).and_then(Value::as_object) else {
        return Properties::default();
    };
    section.iter().map(|(name, value)| (name.clone(), property(value))).collect()
}

fn property(value: &Value) -> Property<'_> {
    match value {
        Value::String(text) => Property::Text(text.into()),
        Value::Number(number) => number
            .as_i64()
            .map_or_else(|| Property::Number(number.as_f64().expect("a number")), Property::Integer),
        Value::Bool(truth) => Property::Boolean(*truth),
        Value::Object(object) if object.contains_key("$binary") => {
            let bytes = object["$binary"].as_array().expect("bytes");
            Property::Binary(
                bytes
                    .iter()
                    .map(|byte| u8::try_from(byte.as_u64().expect("a byte")).expect("a byte"))
                    .collect(),
            )
        }
        Value::Null | Value::Array(_) | Value::Object(_) => Property::Other(value.to_string().into()),
    }
}

fn message(recording: &Value) -> Message {
    Message {
        position: Position { sequence_number: SequenceNumber(1), offset: "1".into() },
        enqueued: Ticks::from_unix_milliseconds(1_930_803_704_911),
        body: match &recording["body"] {
            Value::Null => Default::default(),
            body => serde_json::to_vec(body).expect("serialises").into(),
        },
        application_properties: properties(recording, "applicationProperties"),
        annotations: properties(recording, "annotations"),
    }
}

fn sections(event: &TwinEvent) -> Option<(&'static str, Option<i64>, Sections)> {
    match &event.change {
        Change::Created { version, twin } => Some(("created", Some(version.0), twin.clone())),
        Change::Updated { version, patch } => Some(("updated", Some(version.0), patch.sections())),
        Change::Replaced { version, twin } => Some(("replaced", Some(version.0), twin.clone())),
        Change::Deleted
        | Change::Snapshot { .. }
        | Change::Gone
        | Change::Unapplied
        | Change::ParentReborn => None,
    }
}

/// Applies the event to an absent document and checks that the stored document equals the body.
fn apply(name: &str, event: &TwinEvent, body: &Value) {
    let mut stored = None;
    let decision = decide(&mut stored, event, NOW, &RULES);
    assert!(matches!(decision, Decision::Applied | Decision::Partial), "{name}: {decision:?}");
    let document: Document = stored.expect("stored");
    let text = serde_json::to_string(&document).expect("serialises");
    assert_eq!(serde_json::from_str::<Document>(&text).expect("reads back"), document, "{name}");
    let Some(twin) = document.twin() else {
        return;
    };
    let said = |path: &str| {
        let section = body.pointer(path).and_then(Value::as_object).cloned();
        merge::whole(&section.unwrap_or_default())
    };
    assert_eq!(twin.tags, said("/tags"), "{name}");
    assert_eq!(twin.desired, said("/properties/desired"), "{name}");
    assert_eq!(twin.reported, said("/properties/reported"), "{name}");
    if let Some(etag) = body.get("etag") {
        assert_eq!(twin.root.get("etag"), Some(etag), "{name}");
    }
}

#[test]
fn every_fixture_means_what_it_says_it_means() {
    let recordings = recordings(Path::new(FIXTURES));
    assert!(recordings.len() > 30);
    for (name, recording) in recordings {
        let expected = &recording["expected"];
        let kind = expected["kind"].as_str().expect("a kind");
        match decode(&message(&recording), LIMIT) {
            Decoded::Ignored(reason) => assert_eq!(reason.name(), kind, "{name}"),
            Decoded::Undeliverable(reason) => assert_eq!(reason.code(), kind, "{name}"),
            Decoded::Event(event) => {
                assert_eq!(event.key.hub.as_str(), "harbour-hub", "{name}");
                assert_eq!(event.key.device, "boiler-north-17", "{name}");
                assert_eq!(event.key.module.as_deref(), expected["module"].as_str(), "{name}");
                let at = expected["at"].as_str().unwrap_or("2031-03-09T06:21:44.7310925Z");
                assert_eq!(event.at.to_string(), at, "{name}");
                let Some((is, version, sections)) = sections(&event) else {
                    assert_eq!((kind, &event.change), ("deleted", &Change::Deleted), "{name}");
                    continue;
                };
                assert_eq!((is, version), (kind, expected["version"].as_i64()), "{name}");
                if let Some(tags) = expected.get("tags") {
                    assert_eq!(sections.tags.as_ref(), tags.as_object(), "{name}");
                }
                if let Some(carried) = expected["reported"].as_bool() {
                    assert_eq!(sections.reported.is_some(), carried, "{name}");
                }
                apply(&name, &event, &recording["body"]);
            }
        }
    }
}

/// Replays captures from outside this repository, if `TWINSYNC_CAPTURED_EVENTS` names a folder of them.
#[test]
fn captured_events_apply_or_are_ignored() {
    let Some(folder) = std::env::var_os("TWINSYNC_CAPTURED_EVENTS") else {
        return;
    };
    let recordings = recordings(Path::new(&folder));
    assert!(!recordings.is_empty(), "no captured events in {}", Path::new(&folder).display());
    let mut applied = 0;
    for (name, mut recording) in recordings {
        stand_in(&mut recording);
        let source = recording["annotations"]["iothub-message-source"].clone();
        match (source.as_str().expect("a source"), decode(&message(&recording), LIMIT)) {
            (
                "twinChangeEvents" | "deviceLifecycleEvents" | "moduleLifecycleEvents",
                Decoded::Event(event),
            ) => {
                assert_eq!(
                    event.key.module.as_deref(),
                    recording["applicationProperties"]["moduleId"].as_str()
                );
                assert_eq!(recording["applicationProperties"]["deviceId"], event.key.device, "{name}");
                if let Some((_, version, _)) = sections(&event) {
                    assert_eq!(version, recording["body"]["version"].as_i64(), "{name}");
                }
                apply(&name, &event, &recording["body"]);
                applied += 1;
            }
            (source, Decoded::Ignored(_)) => {
                assert!(
                    !source.contains("twinChange") && !source.contains("Lifecycle"),
                    "{name}: a twin event was ignored"
                );
            }
            (source, decoded) => panic!("{name}: {source} became {decoded:?}"),
        }
    }
    assert!(applied > 0, "no twin event among the captures");
}

/// Of some captures only the body was published. They are replayed as twin changes with invented properties.
fn stand_in(recording: &mut Value) {
    if !recording["applicationProperties"].as_object().is_none_or(Map::is_empty) {
        return;
    }
    recording["applicationProperties"] = json!({
        "hubName": "stand-in", "deviceId": "stand-in", "opType": "updateTwin",
        "iothub-message-schema": "twinChangeNotification", "operationTimestamp": "2031-01-01T00:00:00.0000000Z",
    });
    recording["annotations"] = json!({"iothub-message-source": "twinChangeEvents"});
}
