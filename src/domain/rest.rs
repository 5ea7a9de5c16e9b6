//! Twins in the form of the IoT hub's service REST API (`GET /twins/{id}`), with the fields that a copy knows.
//!
//! Fields of a document that do not belong to the twin are left out: `id`, `hubName`, `sync`, `ttl` and Cosmos DB's own
//! fields. Fields that only the hub knows, such as `connectionState`, are missing.

use serde_json::{Map, Value};

use super::document::Document;

/// The twin of a document; `None` if it was deleted.
pub fn twin(document: &Document) -> Option<Value> {
    let twin = document.twin()?;
    let mut body = twin.root.clone();
    body.insert("deviceId".to_owned(), Value::from(&*document.key.device));
    if let Some(module) = &document.key.module {
        body.insert("moduleId".to_owned(), Value::from(&**module));
    }
    body.insert("version".to_owned(), Value::from(twin.version.0));
    body.insert("tags".to_owned(), Value::Object(twin.tags.clone()));
    let properties = [("desired", &twin.desired), ("reported", &twin.reported)];
    let properties: Map<_, _> = properties
        .into_iter()
        .map(|(name, section)| (name.to_owned(), Value::Object(section.clone())))
        .collect();
    body.insert("properties".to_owned(), Value::Object(properties));
    Some(Value::Object(body))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize as _;
    use serde_json::json;

    use super::*;

    fn document(more: Value) -> Document {
        let mut item = json!({
            "id": "pump%2F1|m", "hubName": "h", "deviceId": "pump/1", "moduleId": "m",
            "etag": "AAAAAAAAAAc=", "status": "enabled", "version": 7,
            "tags": {"site": "north"},
            "properties": {
                "desired": {"interval": 5, "$metadata": {"$lastUpdated": "2031-01-01T00:00:00Z"}, "$version": 3},
                "reported": {"$version": 1},
            },
            "sync": {"state": "live", "last": "2031-01-01T00:00:00.0000000Z", "appliedAt": "2031-01-01T00:00:01.0000000Z", "op": "updateTwin"},
        });
        let fields = item.as_object_mut().expect("an object");
        fields.extend(more.as_object().cloned().expect("an object"));
        Document::deserialize(item).expect("a document")
    }

    #[test]
    fn a_document_shows_its_twin_and_nothing_else() {
        assert_eq!(
            twin(&document(json!({}))),
            Some(json!({
                "deviceId": "pump/1", "moduleId": "m", "etag": "AAAAAAAAAAc=", "status": "enabled", "version": 7,
                "tags": {"site": "north"},
                "properties": {
                    "desired": {"interval": 5, "$metadata": {"$lastUpdated": "2031-01-01T00:00:00Z"}, "$version": 3},
                    "reported": {"$version": 1},
                },
            }))
        );
    }

    #[test]
    fn a_tombstone_shows_none() {
        let mut deleted = document(json!({}));
        deleted.state = crate::domain::document::State::Deleted;
        assert_eq!(twin(&deleted), None);
    }
}
