//! Answers of an IoT hub's service API: each is read as this twin or refused, and never as another twin.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use std::time::Duration;
use twinsync::domain::{
    decide::{Rules, decide},
    event::{Change, TwinEvent},
    id::{DocumentIdScheme, TwinKey},
    registry::{RegistryTwin, Row},
    ticks::Ticks,
};

const RULES: Rules = Rules {
    id_scheme: DocumentIdScheme::Device,
    tombstone_ttl_seconds: 86_400,
    clock_tolerance: Duration::from_secs(5),
    forgets_after: None,
};

fuzz_target!(|data: &[u8]| {
    let Ok(value) = serde_json::from_slice::<Value>(data) else { return };
    let at = Ticks::new(19_250_568_000_000_000);
    if let Ok(row) = Row::read(&"hub".into(), value.clone()) {
        assert!(!row.key.device.is_empty());
        let _ = row.last_updated();
    }
    let key = TwinKey::device("hub", "pump");
    let Ok(twin) = RegistryTwin::read(&key, value, at) else { return };
    assert_eq!(twin.key, key);
    let event = TwinEvent { key, at, change: Change::Snapshot { version: twin.version, twin: twin.twin } };
    let mut document = None;
    decide(&mut document, &event, at, &RULES);
    let document = document.expect("a snapshot makes a document");
    assert!(!document.is_flagged(), "an answer leaves no flag");
});
