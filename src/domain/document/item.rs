//! The item that is stored under a twin's id in the container.

use serde::Deserialize;
use serde_json::Value;

use super::{Document, ETag, stored::FORMAT};
use crate::domain::id::TwinKey;

/// The kind of item that is stored where a twin's document belongs.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// The twin's document.
    Document(Box<Document>),
    /// A document of another twin, named by the text. It is never overwritten, because it is valid data of that twin.
    Foreign(String),
    /// The twin's document as a newer release has written it, with this format number. It is never overwritten, because
    /// it is valid.
    Newer(i64),
    /// Not a document, or a document that cannot be read; the text says why. It has been damaged.
    Damaged(String),
}

impl Item {
    /// Classifies the item that was read for `key`.
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
            Ok(_) => Self::Damaged("its ids are not those of a twin".to_owned()),
            Err(error) => Self::Damaged(error.to_string()),
        }
    }
}

/// A twin's document that is stored under another id than the twin's.
///
/// If several hubs share a container, the hub's name is part of the id. Older versions used the name in whatever upper
/// or lower case it had. A document never changes its id, so such documents are found by the key inside them.
#[derive(Debug, Clone, PartialEq)]
pub struct Misplaced {
    /// The id under which it is stored.
    pub id: String,
    /// The version of the stored document.
    pub etag: ETag,
    /// The document, or the format number with which a newer release has written it.
    pub document: Result<Box<Document>, i64>,
}

impl Misplaced {
    /// The document of `key` among `items` of its device's partition, whatever their ids are. If there are several, the
    /// one with the first id is used, so that all callers choose the same. Items that cannot be read are ignored.
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
