//! A twin and the three ways to write to it: merge, replace, report.
//!
//! Invariants: `$metadata` mirrors the properties (an entry for each key at every level, none for a key that is
//! gone), and `version` = etag counter + reported `$version`, since the etag moves with tags and desired only.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::{
    Error, Timestamp, TwinId,
    limits::{self, Nulls, SectionName},
    patch::ServicePatch,
};

/// When, and at which section version, something was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    at: Timestamp,
    /// Of desired properties only.
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

/// The `$metadata` of a property and of what lies below it.
#[derive(Clone, Debug)]
struct Metadata {
    stamp: Stamp,
    children: BTreeMap<String, Metadata>,
}

impl Metadata {
    fn leaf(stamp: Stamp) -> Self {
        Self {
            stamp,
            children: BTreeMap::new(),
        }
    }

    fn render(&self) -> Value {
        let mut entry = self.stamp.render(&self.stamp.at.trimmed());
        entry.extend(
            self.children
                .iter()
                .map(|(key, child)| (key.clone(), child.render())),
        );
        Value::Object(entry)
    }
}

/// Desired or reported properties.
#[derive(Clone, Debug)]
struct Section {
    values: Map<String, Value>,
    metadata: Metadata,
    version: u64,
}

impl Section {
    fn render(&self) -> Value {
        let mut section = self.values.clone();
        section.insert("$metadata".to_owned(), self.metadata.render());
        section.insert("$version".to_owned(), Value::from(self.version));
        Value::Object(section)
    }

    /// What a notification shows of a merge: the patch as it was sent, and the metadata of the keys it wrote.
    fn render_patch(&self, patch: &Map<String, Value>) -> Value {
        let stamp = self.metadata.stamp;
        let mut section = patch.clone();
        section.insert(
            "$metadata".to_owned(),
            written_metadata(patch, stamp, &stamp.at.trimmed()),
        );
        section.insert("$version".to_owned(), Value::from(self.version));
        Value::Object(section)
    }

    fn merged(&self, name: SectionName, patch: &Map<String, Value>, stamp: Stamp) -> Result<Section, Error> {
        limits::check_values(name, patch, Nulls::Remove)?;
        let mut next = self.clone();
        merge(&mut next.values, Some(&mut next.metadata), patch, stamp);
        limits::check_size(name, &next.values)?;
        next.version += 1;
        Ok(next)
    }
}

/// One twin, device or module.
#[derive(Clone, Debug)]
pub(super) struct Twin {
    etag: u64,
    tags: Map<String, Value>,
    desired: Section,
    reported: Section,
}

impl Twin {
    /// The twin of a new identity, with the tags and desired properties it may be registered with.
    ///
    /// `written` is what an unwritten section shows as its time.
    pub(super) fn new(
        initial: Option<&ServicePatch>,
        written: Timestamp,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let unwritten = Stamp {
            at: written,
            version: None,
        };
        let empty = Section {
            values: Map::new(),
            metadata: Metadata::leaf(unwritten),
            version: 1,
        };
        let mut twin = Self {
            etag: 1,
            tags: Map::new(),
            desired: empty.clone(),
            reported: empty,
        };
        if let Some(tags) = initial.and_then(|initial| initial.tags.as_ref()) {
            twin.tags = whole(SectionName::Tags, tags)?;
        }
        if let Some(desired) = initial.and_then(|initial| initial.desired.as_ref()) {
            twin.desired = replaced(desired, 1, now)?;
        }
        Ok(twin)
    }

    /// The version over all sections.
    pub(super) fn version(&self) -> u64 {
        self.etag + self.reported.version
    }

    /// Merges tags and desired properties, in one write; returns the notification's body.
    pub(super) fn patch(&mut self, patch: &ServicePatch, now: Timestamp) -> Result<Value, Error> {
        let tags = match &patch.tags {
            None => None,
            Some(change) => {
                limits::check_values(SectionName::Tags, change, Nulls::Remove)?;
                let mut tags = self.tags.clone();
                merge(
                    &mut tags,
                    None,
                    change,
                    Stamp {
                        at: now,
                        version: None,
                    },
                );
                limits::check_size(SectionName::Tags, &tags)?;
                Some(tags)
            }
        };
        let stamp = Stamp {
            at: now,
            version: Some(self.desired.version + 1),
        };
        let desired = match &patch.desired {
            None => None,
            Some(change) => Some(self.desired.merged(SectionName::Desired, change, stamp)?),
        };
        // Nothing has changed up to here: a refusal leaves the twin as it was.
        self.tags = tags.unwrap_or_else(|| std::mem::take(&mut self.tags));
        if let Some(desired) = desired {
            self.desired = desired;
        }
        self.etag += 1;

        let mut body = Map::new();
        body.insert("version".to_owned(), Value::from(self.version()));
        if let Some(tags) = &patch.tags {
            body.insert("tags".to_owned(), Value::Object(tags.clone()));
        }
        if let Some(change) = &patch.desired {
            body.insert(
                "properties".to_owned(),
                json!({ "desired": self.desired.render_patch(change) }),
            );
        }
        Ok(Value::Object(body))
    }

    /// Replaces tags and desired properties as a whole; a section that is absent becomes empty.
    pub(super) fn replace(&mut self, twin: &ServicePatch, now: Timestamp) -> Result<(), Error> {
        let empty = Map::new();
        let tags = whole(SectionName::Tags, twin.tags.as_ref().unwrap_or(&empty))?;
        let desired = replaced(
            twin.desired.as_ref().unwrap_or(&empty),
            self.desired.version + 1,
            now,
        )?;
        self.tags = tags;
        self.desired = desired;
        self.etag += 1;
        Ok(())
    }

    /// Merges reported properties, as the device does; returns the notification's body.
    pub(super) fn report(&mut self, patch: &Map<String, Value>, now: Timestamp) -> Result<Value, Error> {
        self.reported = self.reported.merged(
            SectionName::Reported,
            patch,
            Stamp {
                at: now,
                version: None,
            },
        )?;
        Ok(json!({
            "version": self.version(),
            "properties": { "reported": self.reported.render_patch(patch) },
        }))
    }

    /// The ids, etag and version: all that a partial body holds.
    pub(super) fn render_head(&self, id: &TwinId) -> Map<String, Value> {
        let mut head = Map::new();
        head.insert("deviceId".to_owned(), Value::from(id.device_id()));
        if let Some(module_id) = id.module_id() {
            head.insert("moduleId".to_owned(), Value::from(module_id));
        }
        head.insert(
            "etag".to_owned(),
            Value::String(STANDARD.encode(self.etag.to_be_bytes())),
        );
        head.insert("version".to_owned(), Value::from(self.version()));
        head
    }

    /// The whole twin. Empty tags are left out, as in captured create notifications.
    pub(super) fn render(&self, id: &TwinId, reported: bool) -> Value {
        let mut twin = self.render_head(id);
        if !self.tags.is_empty() {
            twin.insert("tags".to_owned(), Value::Object(self.tags.clone()));
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

/// JSON merge patch (RFC 7396), with the metadata kept in step. The time of every level on the way moves, also
/// when the patch only removes keys.
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
                    let entry = metadata
                        .children
                        .entry(key.clone())
                        .or_insert_with(|| Metadata::leaf(stamp));
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

/// The metadata of the keys that a patch writes; removed keys have none.
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

fn whole(name: SectionName, values: &Map<String, Value>) -> Result<Map<String, Value>, Error> {
    limits::check_values(name, values, Nulls::Refuse)?;
    limits::check_size(name, values)?;
    Ok(values.clone())
}

fn replaced(values: &Map<String, Value>, version: u64, now: Timestamp) -> Result<Section, Error> {
    let stamp = Stamp {
        at: now,
        version: Some(version),
    };
    let mut section = Section {
        values: Map::new(),
        metadata: Metadata::leaf(stamp),
        version,
    };
    let values = whole(SectionName::Desired, values)?;
    merge(&mut section.values, Some(&mut section.metadata), &values, stamp);
    Ok(section)
}
