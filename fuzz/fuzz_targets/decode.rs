//! A message with any properties and any body: decoding never panics and accepts no body that is too large. Its result can be decided on,
//! stored and read back.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use smol_str::SmolStr;
use std::time::Duration;
use twinsync::domain::{
    decide::{Rules, decide},
    decode::{Decoded, concerns, decode, subject},
    document::{Document, Item},
    id::{DocumentIdScheme, Position, SequenceNumber},
    message::{Message, Properties, Property},
    ticks::Ticks,
};

const MOST: usize = 4096;
const RULES: Rules = Rules {
    id_scheme: DocumentIdScheme::Device,
    tombstone_ttl_seconds: 86_400,
    clock_tolerance: Duration::from_secs(5),
    forgets_after: None,
};

fuzz_target!(|data: &[u8]| {
    let [choice, data @ ..] = data else { return };
    let (properties, body) = data.split_at(data.len().min(usize::from(choice >> 4) * 4));
    let texts: Vec<_> = properties.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let text = |at: usize, otherwise: &'static str| texts.get(at).filter(|text| !text.is_empty()).map_or(otherwise, |text| text);
    let (source, operation) = [
        ("twinChangeEvents", "updateTwin"),
        ("twinChangeEvents", "replaceTwin"),
        ("deviceLifecycleEvents", "createDeviceIdentity"),
        ("deviceLifecycleEvents", "deleteDeviceIdentity"),
        ("deviceLifecycleEvents", "createModuleIdentity"),
        ("moduleLifecycleEvents", "deleteModuleIdentity"),
    ][usize::from(choice & 0x0f) % 6];
    let (mut application_properties, mut annotations) = (Properties::default(), Properties::default());
    annotations.insert("iothub-message-source", Property::Text(source.into()));
    for (name, value) in [
        ("opType", operation),
        ("hubName", text(0, "hub")),
        ("deviceId", text(1, "pump")),
        ("operationTimestamp", text(2, "2031-01-01T00:00:00.1234567Z")),
    ] {
        application_properties.insert(name, Property::Text(value.into()));
    }
    let message = Message {
        position: Position { sequence_number: SequenceNumber(7), offset: SmolStr::from("7") },
        enqueued: Some(Ticks::new(19_250_568_000_000_000)),
        body: Bytes::copy_from_slice(body),
        application_properties,
        annotations,
    };
    let _ = (concerns(&message), subject(&message), message.weight());
    let Decoded::Event(event) = decode(&message, MOST) else { return };
    assert!(body.len() <= MOST || operation.starts_with("delete"), "a body that is too large was taken");
    let mut document = None;
    decide(&mut document, &event, Ticks::new(19_250_568_000_000_000), &RULES);
    let again = document.clone();
    decide(&mut document, &event, Ticks::new(19_250_568_000_000_001), &RULES);
    let (Some(document), Some(first)) = (document, again) else { return };
    assert_eq!(document.twin(), first.twin(), "an event that comes twice changes nothing");
    let json = serde_json::to_value(&document).expect("a document is JSON");
    match Item::of(json, &document.key) {
        Item::Document(read) => assert!(read.is_same_write(&document), "{read:?}\n{document:?}"),
        other => panic!("a document reads as {other:?}"),
    }
    let _: Document = document;
});
