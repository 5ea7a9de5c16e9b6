//! What lies under the id of a twin in the container.

use serde::Deserialize;
use serde_json::Value;

use super::{Document, ETag, stored::FORMAT};
use crate::domain::id::TwinKey;

/// What an item is that lies where a twin's document belongs.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// The twin's document.
    Document(Box<Document>),
    /// A document of another twin; says of which. It is somebody's, so it is never written over.
    Foreign(String),
    /// The twin's document as a newer release has written it, in this format. It is right, so it is never written over.
    Newer(i64),
    /// No document, or one that cannot be read; says why. Something has spoilt it.
    Damaged(String),
}

impl Item {
    /// Judges what was read for `key`.
    pub fn of(item: Value, key: &TwinKey) -> Self {
        let text = |name: &str| item.get(name).and_then(Value::as_str).map(str::to_owned);
        if let (Some(hub), Some(device)) = (text("hubName"), text("deviceId")) {
            let found = TwinKey { hub: hub.into(), device, module: text("moduleId") };
            if found != *key {
                return Self::Foreign(found.to_string());
            }
        }
        match item.pointer("/sync/format").and_then(Value::as_i64) {
            Some(format) if format > FORMAT => return Self::Newer(format),
            Some(_) | None => {}
        }
        match Document::deserialize(item) {
            Ok(document) if document.key == *key => Self::Document(Box::new(document)),
            Ok(_) => Self::Damaged("its ids are no twin's".to_owned()),
            Err(error) => Self::Damaged(error.to_string()),
        }
    }
}

/// A twin's document that lies under another id than the twin's.
///
/// Where several hubs share a container, the hub is part of the id, and it was once written there as it happened to be
/// spelt. A document keeps its id for life, so such documents are found by what they say of themselves.
#[derive(Debug, Clone, PartialEq)]
pub struct Misplaced {
    /// Where it lies.
    pub id: String,
    /// Its version.
    pub etag: ETag,
    /// The document; or the format that a newer release has written it in.
    pub document: Result<Box<Document>, i64>,
}

impl Misplaced {
    /// The document of `key` among `items` of its device's partition, whatever their ids. Of several, everybody takes the same:
    /// that whose id comes first. What cannot be read is nobody's.
    pub fn among(items: Vec<Value>, key: &TwinKey) -> Option<Self> {
        let read = |item: Value| {
            let text = |name: &str| item.get(name).and_then(Value::as_str).map(str::to_owned);
            let (id, etag) = (text("id")?, ETag(text("_etag")?));
            let document = match Item::of(item, key) {
                Item::Document(document) => Ok(document),
                Item::Newer(format) => Err(format),
                Item::Foreign(_) | Item::Damaged(_) => return None,
            };
            Some(Self { id, etag, document })
        };
        items.into_iter().filter_map(read).min_by(|one, other| one.id.cmp(&other.id))
    }
}
