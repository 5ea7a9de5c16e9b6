//! Combines two consecutive updates of one twin into one event.

use serde_json::{Map, Value};

/// Returns a body with the effect of `earlier` followed by `later`. `None` if one merge patch cannot express it:
/// an object that replaces another value has to be set completely, but a merge patch would merge it into the
/// value that the consumer still has.
pub(super) fn compose(earlier: &Value, later: &Value) -> Option<Value> {
    let (earlier, later) = (earlier.as_object()?, later.as_object()?);
    let mut body = later.clone();
    if let Some(tags) = join(earlier.get("tags"), later.get("tags"), compose_values)? {
        body.insert("tags".to_owned(), tags);
    }
    let mut properties = Map::new();
    for section in ["desired", "reported"] {
        let of = |body: &Map<String, Value>| body.get("properties").and_then(|all| all.get(section)).cloned();
        if let Some(joined) = join(of(earlier).as_ref(), of(later).as_ref(), compose_section)? {
            properties.insert(section.to_owned(), joined);
        }
    }
    if !properties.is_empty() {
        body.insert("properties".to_owned(), Value::Object(properties));
    }
    Some(Value::Object(body))
}

type Compose = fn(&Map<String, Value>, &Map<String, Value>) -> Option<Map<String, Value>>;

#[expect(clippy::option_option, reason = "outer: cannot be expressed; inner: neither event has the section")]
fn join(earlier: Option<&Value>, later: Option<&Value>, compose: Compose) -> Option<Option<Value>> {
    match (earlier, later) {
        (None, None) => Some(None),
        (Some(one), None) | (None, Some(one)) => Some(Some(one.clone())),
        (Some(earlier), Some(later)) => {
            let joined = compose(earlier.as_object()?, later.as_object()?)?;
            Some(Some(Value::Object(joined)))
        }
    }
}

fn compose_section(earlier: &Map<String, Value>, later: &Map<String, Value>) -> Option<Map<String, Value>> {
    let without_service_keys = |section: &Map<String, Value>| {
        section
            .iter()
            .filter(|(key, _)| !key.starts_with('$'))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect::<Map<_, _>>()
    };
    let mut section = compose_values(&without_service_keys(earlier), &without_service_keys(later))?;
    let empty = Map::new();
    let metadata = |section: &Map<String, Value>| {
        section.get("$metadata").and_then(Value::as_object).cloned().unwrap_or_else(|| empty.clone())
    };
    let metadata = compose_metadata(&metadata(earlier), &metadata(later), &section);
    section.insert("$metadata".to_owned(), Value::Object(metadata));
    if let Some(version) = later.get("$version") {
        section.insert("$version".to_owned(), version.clone());
    }
    Some(section)
}

fn compose_values(earlier: &Map<String, Value>, later: &Map<String, Value>) -> Option<Map<String, Value>> {
    let mut composed = earlier.clone();
    for (key, change) in later {
        let joined = match (composed.get(key), change) {
            (Some(Value::Object(earlier)), Value::Object(change)) => {
                Value::Object(compose_values(earlier, change)?)
            }
            (Some(_), Value::Object(_)) => return None,
            (_, change) => change.clone(),
        };
        composed.insert(key.clone(), joined);
    }
    Some(composed)
}

/// The later entry wins at each level. Keys that the combined patch does not write have no entry.
fn compose_metadata(
    earlier: &Map<String, Value>,
    later: &Map<String, Value>,
    values: &Map<String, Value>,
) -> Map<String, Value> {
    let newest = if later.is_empty() { earlier } else { later };
    let mut composed: Map<String, Value> = newest
        .iter()
        .filter(|(key, _)| key.starts_with('$'))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    for (key, value) in values.iter().filter(|(_, value)| !value.is_null()) {
        let empty = Map::new();
        let entry = |metadata: &Map<String, Value>| metadata.get(key).and_then(Value::as_object).cloned();
        let below = value.as_object().unwrap_or(&empty);
        let joined = match (entry(earlier), entry(later)) {
            (None, None) => continue,
            (Some(one), None) | (None, Some(one)) => compose_metadata(&one, &one, below),
            (Some(earlier), Some(later)) => compose_metadata(&earlier, &later, below),
        };
        composed.insert(key.clone(), Value::Object(joined));
    }
    composed
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sections_of_both_updates_are_joined_and_the_later_version_stands() {
        let earlier = json!({"version": 3, "tags": {"a": 1, "b": {"x": 1}}});
        let later = json!({"version": 4, "tags": {"b": {"x": null, "y": 2}}, "properties": {"desired": {
            "d": 1, "$metadata": {"$lastUpdated": "2", "d": {"$lastUpdated": "2"}}, "$version": 2}}});
        assert_eq!(
            compose(&earlier, &later).unwrap(),
            json!({"version": 4, "tags": {"a": 1, "b": {"x": null, "y": 2}}, "properties": {"desired": {
                "d": 1, "$metadata": {"$lastUpdated": "2", "d": {"$lastUpdated": "2"}}, "$version": 2}}})
        );
    }

    #[test]
    fn metadata_follows_the_later_write_and_forgets_removed_keys() {
        let section = |values: Value| json!({"version": 1, "properties": {"reported": values}});
        let earlier = section(
            json!({"a": {"b": 1, "c": 1}, "k": 1, "$version": 2, "$metadata": {"$lastUpdated": "1",
            "a": {"$lastUpdated": "1", "b": {"$lastUpdated": "1"}, "c": {"$lastUpdated": "1"}}, "k": {"$lastUpdated": "1"}}}),
        );
        let later = section(json!({"a": {"b": null}, "$version": 3, "$metadata": {"$lastUpdated": "2",
            "a": {"$lastUpdated": "2"}}}));
        assert_eq!(
            compose(&earlier, &later).unwrap()["properties"]["reported"],
            json!({"a": {"b": null, "c": 1}, "k": 1, "$version": 3, "$metadata": {"$lastUpdated": "2",
                "a": {"$lastUpdated": "2", "c": {"$lastUpdated": "1"}}, "k": {"$lastUpdated": "1"}}})
        );
    }

    #[test]
    fn an_object_in_the_place_of_a_value_cannot_be_composed() {
        for first in [json!(null), json!(1), json!([1])] {
            let body = |value: &Value| json!({"version": 1, "tags": {"a": value}});
            assert_eq!(compose(&body(&first), &body(&json!({"b": 1}))), None, "{first}");
        }
    }
}
