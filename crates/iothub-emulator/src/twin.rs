//! A twin, and the three kinds of writes: merge, replace, report.
//!
//! Invariants: `$metadata` has an entry for each key of the properties at every level, and none for a removed key. `version` = ETag counter
//! + reported `$version`, because only tags and desired properties change the ETag.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::{
    Error, Timestamp, TwinId,
    identity_state::IdentityState,
    limits::{self, Nulls, SectionName},
    patch::ServicePatch,
};

/// When something was written, and in which version of the section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    at: Timestamp,
    /// Only desired properties have it.
    version: Option<u64>,
}

impl Stamp {
    fn render(self, last_updated: &str) -> Map<String, Value> {
        let mut entry = Map::new();
        entry.insert("$lastUpdated".to_owned(), Value::String(last_updated.to_owned()));
        if let Some(version) = self.version {
            entry.insert("$lastUpdatedVersion".to_owned(), Value::from(version));
        }
        entry
    }
}

/// The `$metadata` of a property and of the levels below it.
#[derive(Clone, Debug)]
struct Metadata {
    stamp: Stamp,
    children: BTreeMap<String, Metadata>,
}

impl Metadata {
    fn leaf(stamp: Stamp) -> Self {
        Self { stamp, children: BTreeMap::new() }
    }

    fn render(&self) -> Value {
        let mut entry = self.stamp.render(&self.stamp.at.trimmed());
        entry.extend(self.children.iter().map(|(key, child)| (key.clone(), child.render())));
        Value::Object(entry)
    }
}

/// The values of a section, and their size in bytes as IoT Hub measures it.
#[derive(Clone, Debug, Default)]
struct Values {
    map: Map<String, Value>,
    bytes: usize,
}

impl Values {
    /// Checks values without nulls that replace a section.
    fn whole(name: SectionName, map: &Map<String, Value>) -> Result<Self, Error> {
        limits::check_values(name, map, Nulls::Refuse)?;
        let bytes = limits::bytes(map);
        limits::check_size(name, bytes)?;
        Ok(Self { map: map.clone(), bytes })
    }

    /// Checks whether `patch` may be merged. Returns the size after the merge.
    fn check(&self, name: SectionName, patch: &Map<String, Value>) -> Result<usize, Error> {
        limits::check_values(name, patch, Nulls::Remove)?;
        let bytes = limits::bytes_after(self.bytes, &self.map, patch);
        limits::check_size(name, bytes)?;
        Ok(bytes)
    }
}

/// Desired or reported properties.
#[derive(Clone, Debug)]
struct Section {
    values: Values,
    metadata: Metadata,
    version: u64,
}

impl Section {
    fn render(&self) -> Value {
        self.render_with(self.values.map.clone(), self.metadata.render())
    }

    /// A section of an update notification: the patch as it was sent, and the metadata of the keys that it wrote.
    fn render_patch(&self, patch: Map<String, Value>) -> Value {
        let stamp = self.metadata.stamp;
        let metadata = written_metadata(&patch, stamp, &stamp.at.trimmed());
        self.render_with(patch, metadata)
    }

    fn render_with(&self, mut section: Map<String, Value>, metadata: Value) -> Value {
        section.insert("$metadata".to_owned(), metadata);
        section.insert("$version".to_owned(), Value::from(self.version));
        Value::Object(section)
    }

    /// Merges a patch that was checked. `bytes` is the size after the merge.
    fn merge(&mut self, patch: &Map<String, Value>, bytes: usize, stamp: Stamp) {
        merge(&mut self.values.map, Some(&mut self.metadata), patch, stamp);
        self.values.bytes = bytes;
        self.version += 1;
    }
}

/// The twin of a device or module.
#[derive(Clone, Debug)]
pub(super) struct Twin {
    etag: u64,
    tags: Values,
    desired: Section,
    reported: Section,
    pub(super) identity_state: IdentityState,
}

impl Twin {
    /// Creates the twin of a new identity, with the tags and desired properties of its registration.
    ///
    /// `written` is the time that an unwritten section shows.
    pub(super) fn new(
        initial: Option<&ServicePatch>,
        written: Timestamp,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let unwritten = Stamp { at: written, version: None };
        let empty = Section { values: Values::default(), metadata: Metadata::leaf(unwritten), version: 1 };
        let mut twin = Self {
            etag: 1,
            tags: Values::default(),
            desired: empty.clone(),
            reported: empty,
            identity_state: IdentityState::new(now),
        };
        if let Some(tags) = initial.and_then(|initial| initial.tags.as_ref()) {
            twin.tags = Values::whole(SectionName::Tags, tags)?;
        }
        if let Some(desired) = initial.and_then(|initial| initial.desired.as_ref()) {
            twin.desired = replaced(desired, 1, now)?;
        }
        Ok(twin)
    }

    /// The version of the twin: the sum over all sections.
    pub(super) fn version(&self) -> u64 {
        self.etag + self.reported.version
    }

    /// The ETag, which only changes with tags and desired properties.
    pub(super) fn etag(&self) -> String {
        STANDARD.encode(self.etag.to_be_bytes())
    }

    /// Merges tags and desired properties in one write. Returns the body of the notification.
    pub(super) fn patch(&mut self, patch: ServicePatch, now: Timestamp) -> Result<Value, Error> {
        // Both are checked before either is merged, so that a refusal leaves the twin unchanged.
        let tags = patch
            .tags
            .map(|tags| self.tags.check(SectionName::Tags, &tags).map(|bytes| (tags, bytes)))
            .transpose()?;
        let desired = patch
            .desired
            .map(|desired| {
                self.desired.values.check(SectionName::Desired, &desired).map(|bytes| (desired, bytes))
            })
            .transpose()?;
        self.etag += 1;
        let mut body = Map::new();
        body.insert("version".to_owned(), Value::from(self.version()));
        if let Some((tags, bytes)) = tags {
            merge(&mut self.tags.map, None, &tags, Stamp { at: now, version: None });
            self.tags.bytes = bytes;
            body.insert("tags".to_owned(), Value::Object(tags));
        }
        if let Some((desired, bytes)) = desired {
            self.desired.merge(&desired, bytes, Stamp { at: now, version: Some(self.desired.version + 1) });
            body.insert("properties".to_owned(), object("desired", self.desired.render_patch(desired)));
        }
        Ok(Value::Object(body))
    }

    /// Replaces tags and desired properties completely. An absent section becomes empty.
    pub(super) fn replace(&mut self, twin: &ServicePatch, now: Timestamp) -> Result<(), Error> {
        let empty = Map::new();
        let tags = Values::whole(SectionName::Tags, twin.tags.as_ref().unwrap_or(&empty))?;
        let desired = replaced(twin.desired.as_ref().unwrap_or(&empty), self.desired.version + 1, now)?;
        self.tags = tags;
        self.desired = desired;
        self.etag += 1;
        Ok(())
    }

    /// Merges reported properties, as the device does. Returns the body of the notification.
    pub(super) fn report(&mut self, patch: Map<String, Value>, now: Timestamp) -> Result<Value, Error> {
        let bytes = self.reported.values.check(SectionName::Reported, &patch)?;
        self.reported.merge(&patch, bytes, Stamp { at: now, version: None });
        self.identity_state.active(now);
        let mut body = Map::new();
        body.insert("version".to_owned(), Value::from(self.version()));
        body.insert("properties".to_owned(), object("reported", self.reported.render_patch(patch)));
        Ok(Value::Object(body))
    }

    /// The ids, ETag and version: the only fields of a partial body.
    pub(super) fn render_head(&self, id: &TwinId) -> Map<String, Value> {
        let mut head = Map::new();
        head.insert("deviceId".to_owned(), Value::from(id.device_id()));
        if let Some(module_id) = id.module_id() {
            head.insert("moduleId".to_owned(), Value::from(module_id));
        }
        head.insert("etag".to_owned(), Value::String(self.etag()));
        head.insert("version".to_owned(), Value::from(self.version()));
        head
    }

    /// The twin as the service's REST API shows it: complete, with the root fields that no event contains.
    pub(super) fn render_for_service(&self, id: &TwinId) -> Value {
        let mut twin = self.render(id, true);
        if let Value::Object(twin) = &mut twin {
            self.identity_state.render(twin);
            if id.module_id().is_none() {
                twin.insert("capabilities".to_owned(), json!({ "iotEdge": false }));
            }
        }
        twin
    }

    /// The complete twin as a `replaceTwin` notification shows it: with tags, even if they are empty. The documentation says that such a
    /// notification contains all tags and properties. None was ever captured, so it is not known whether IoT Hub omits tags that became
    /// empty. Without them, a consumer could not distinguish this from a write that left the tags unchanged.
    pub(super) fn render_replaced(&self, id: &TwinId, reported: bool) -> Value {
        let mut twin = self.render(id, reported);
        if let Value::Object(twin) = &mut twin {
            twin.entry("tags").or_insert_with(|| Value::Object(Map::new()));
        }
        twin
    }

    /// The complete twin. Empty tags are omitted, as in captured create notifications.
    pub(super) fn render(&self, id: &TwinId, reported: bool) -> Value {
        let mut twin = self.render_head(id);
        if !self.tags.map.is_empty() {
            twin.insert("tags".to_owned(), Value::Object(self.tags.map.clone()));
        }
        let mut properties = Map::new();
        properties.insert("desired".to_owned(), self.desired.render());
        if reported {
            properties.insert("reported".to_owned(), self.reported.render());
        }
        twin.insert("properties".to_owned(), Value::Object(properties));
        Value::Object(twin)
    }
}

/// JSON merge patch (RFC 7396), which updates the metadata as well. The time of every level on the path changes, even if the patch only
/// removes keys.
fn merge(
    values: &mut Map<String, Value>,
    mut metadata: Option<&mut Metadata>,
    patch: &Map<String, Value>,
    stamp: Stamp,
) {
    if let Some(metadata) = metadata.as_deref_mut() {
        metadata.stamp = stamp;
    }
    for (key, change) in patch {
        match change {
            Value::Null => {
                values.remove(key);
                if let Some(metadata) = metadata.as_deref_mut() {
                    metadata.children.remove(key);
                }
            }
            Value::Object(change) => {
                let value = values.entry(key.clone()).or_insert(Value::Null);
                let was_object = value.is_object();
                if !was_object {
                    *value = Value::Object(Map::new());
                }
                let entry = metadata.as_deref_mut().map(|metadata| {
                    let entry = metadata.children.entry(key.clone()).or_insert_with(|| Metadata::leaf(stamp));
                    if !was_object {
                        entry.children.clear();
                    }
                    entry
                });
                if let Value::Object(value) = value {
                    merge(value, entry, change, stamp);
                }
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                values.insert(key.clone(), change.clone());
                if let Some(metadata) = metadata.as_deref_mut() {
                    metadata.children.insert(key.clone(), Metadata::leaf(stamp));
                }
            }
        }
    }
}

/// The metadata of the keys that a patch writes. Removed keys have none.
fn written_metadata(patch: &Map<String, Value>, stamp: Stamp, last_updated: &str) -> Value {
    let mut entry = stamp.render(last_updated);
    for (key, change) in patch {
        match change {
            Value::Null => {}
            Value::Object(change) => {
                entry.insert(key.clone(), written_metadata(change, stamp, last_updated));
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                entry.insert(key.clone(), Value::Object(stamp.render(last_updated)));
            }
        }
    }
    Value::Object(entry)
}

fn replaced(values: &Map<String, Value>, version: u64, now: Timestamp) -> Result<Section, Error> {
    let stamp = Stamp { at: now, version: Some(version) };
    let values = Values::whole(SectionName::Desired, values)?;
    let mut metadata = Metadata::leaf(stamp);
    merge(&mut Map::new(), Some(&mut metadata), &values.map, stamp);
    Ok(Section { values, metadata, version })
}

fn object(key: &str, value: Value) -> Value {
    let mut object = Map::new();
    object.insert(key.to_owned(), value);
    Value::Object(object)
}
