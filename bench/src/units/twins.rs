//! Documents as the daemon stores them, made of the hub's twins.

use anyhow::{Context, Result, ensure};
use devkit::iothub::{Hub, Operation, Options, Timestamp, TwinId};
use serde_json::{Map, Value, json};
use twinsync::domain::{
    decide::{Rules, decide},
    document::{self, Document},
    event::{Change, TwinEvent},
    id::{DocumentIdScheme, HubName, TwinKey},
    registry::RegistryTwin,
    ticks::Ticks,
};

/// Number of properties in a group.
const GROUP: usize = 8;
/// 2026-01-01 in milliseconds, and the time between changes.
const START_MILLISECONDS: i64 = 1_767_225_600_000;
const STEP: std::time::Duration = std::time::Duration::from_millis(1_234);

/// An IoT hub with twins of a certain size.
pub(super) struct Fleet {
    hub: Hub,
    name: HubName,
    at: Ticks,
    changes: usize,
}

impl Fleet {
    /// A fleet without twins.
    ///
    /// # Errors
    /// Does not happen: the times are constants.
    pub(super) fn new() -> Result<Self> {
        let hub = Hub::new(Options::default(), Timestamp::from_ticks(START_MILLISECONDS * 10_000));
        let name = HubName::new(hub.name());
        let at = Ticks::from_unix_milliseconds(START_MILLISECONDS).context("a time")?;
        Ok(Self { hub, name, at, changes: 0 })
    }

    /// Registers a device and writes its twin until its document has this size.
    ///
    /// # Errors
    /// The hub refuses a write, or the document cannot be that small.
    pub(super) fn register(&mut self, number: usize, bytes: usize) -> Result<TwinKey> {
        let device = format!("device-{number:06}");
        let key = TwinKey::device(self.name.clone(), device.clone());
        let id = TwinId::device(device)?;
        let tags = json!({"site": "north", "building": number % 10});
        self.apply(&Operation::Create { id, twin: Some(json!({"tags": tags})) })?;
        self.report(&key, 5)?;
        // Desired properties in groups, as in real twins. A tag fills the remaining bytes.
        let mut settings = 0;
        loop {
            let missing = bytes.saturating_sub(self.size(&key)?);
            let setting = |number: usize| {
                let group = format!("group{:02}", number / GROUP);
                json!({group: {format!("setting-{number:04}"): format!("{number:032x}")}})
            };
            // With its metadata, a setting takes up to 260 bytes.
            if missing < 400 {
                let text = "x".repeat(missing.saturating_sub(r#","note":"""#.len()).max(1));
                self.patch(&key, json!({"tags": {"note": text}}))?;
                break;
            }
            self.patch(&key, json!({"properties": {"desired": setting(settings)}}))?;
            settings += 1;
        }
        let size = self.size(&key)?;
        ensure!(size.abs_diff(bytes) <= 16, "the document has {size} bytes instead of {bytes}");
        Ok(key)
    }

    /// Reports this many new values as the device.
    ///
    /// # Errors
    /// The hub refuses them.
    pub(super) fn report(&mut self, key: &TwinKey, values: usize) -> Result<()> {
        self.changes += 1;
        let value = |number: usize| (format!("value{number}"), json!(100_000 + 7 * self.changes + number));
        let patch: Map<String, Value> = (0..values).map(value).collect();
        self.apply(&Operation::Report {
            id: TwinId::device(key.device.clone())?,
            patch: Value::Object(patch),
        })
    }

    /// The document of a twin, in the state after a change from the stream.
    ///
    /// # Errors
    /// There is no such twin.
    pub(super) fn document(&self, key: &TwinKey) -> Result<Document> {
        let twin = self.hub.twin(&TwinId::device(key.device.clone())?).context("there is no such twin")?;
        let read = RegistryTwin::read(key, twin, self.at).ok().context("the hub shows no twin")?;
        let change = Change::Created { version: read.version, twin: read.twin };
        let rules = Rules {
            id_scheme: DocumentIdScheme::Device,
            tombstone_ttl_seconds: 691_200,
            clock_tolerance: std::time::Duration::ZERO,
            forgets_after: None,
        };
        let mut document = None;
        decide(&mut document, &TwinEvent { key: key.clone(), at: self.at, change }, self.at, &rules);
        let mut document = document.context("the event is not applied")?;
        document.operation = document::Operation::Update;
        // A document that changes have written has these differences from the registry's answer.
        if let document::State::Live { born, twin } = &mut document.state {
            *born = Ticks::from_unix_milliseconds(START_MILLISECONDS);
            twin.root.retain(|name, _| name == "status");
        }
        Ok(document)
    }

    fn size(&self, key: &TwinKey) -> Result<usize> {
        Ok(serde_json::to_vec(&self.document(key)?)?.len())
    }

    fn patch(&mut self, key: &TwinKey, patch: Value) -> Result<()> {
        self.apply(&Operation::Patch { id: TwinId::device(key.device.clone())?, patch })
    }

    fn apply(&mut self, operation: &Operation) -> Result<()> {
        self.hub.advance_to(self.hub.now().after(STEP));
        self.at = self.at.after(STEP);
        self.hub.apply(operation)?;
        Ok(())
    }
}
