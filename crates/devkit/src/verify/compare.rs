//! Compares field by field: the first difference between a twin and its document.

use serde_json::{Map, Number, Value};

/// Longer values are shortened in a report.
const SHOWN_CHARACTERS: usize = 60;

/// The first difference.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) path: String,
    pub(super) expected: String,
    pub(super) found: String,
}

/// Compares state, version, tags, desired and reported properties, including `$version` and `$metadata`.
pub(super) fn document(twin: &Value, document: &Value) -> Option<Found> {
    let live = Value::from("live");
    let empty = Value::Object(Map::new());
    // The hub omits empty tags. A document may have them or not.
    let tags = |value: &Value| value.get("tags").cloned().unwrap_or_else(|| empty.clone());
    different(Some(&live), document.pointer("/sync/state"), "/sync/state")
        .or_else(|| different(twin.get("version"), document.get("version"), "/version"))
        .or_else(|| different(Some(&tags(twin)), Some(&tags(document)), "/tags"))
        .or_else(|| different(twin.get("properties"), document.get("properties"), "/properties"))
}

fn different(expected: Option<&Value>, found: Option<&Value>, path: &str) -> Option<Found> {
    match (expected, found) {
        (None, None) => None,
        (Some(Value::Number(one)), Some(Value::Number(other))) if equal_numbers(one, other) => None,
        (Some(Value::Object(one)), Some(Value::Object(other))) => one
            .keys()
            .chain(other.keys().filter(|key| !one.contains_key(*key)))
            .find_map(|key| different(one.get(key), other.get(key), &format!("{path}/{key}"))),
        (Some(Value::Array(one)), Some(Value::Array(other))) if one.len() == other.len() => {
            one.iter().zip(other).enumerate().find_map(|(index, (one, other))| {
                different(Some(one), Some(other), &format!("{path}/{index}"))
            })
        }
        (Some(one), Some(other)) if one == other => None,
        (expected, found) => {
            Some(Found { path: path.to_owned(), expected: show(expected), found: show(found) })
        }
    }
}

/// Compares numbers by value, so 1 equals 1.0. Integers are compared as integers, so that no digit is lost.
fn equal_numbers(one: &Number, other: &Number) -> bool {
    match (one.as_i64(), other.as_i64()) {
        (Some(one), Some(other)) => one == other,
        _ => one == other || one.as_f64().zip(other.as_f64()).is_some_and(|(one, other)| one == other),
    }
}

fn show(value: Option<&Value>) -> String {
    let Some(value) = value else {
        return "nothing".to_owned();
    };
    let text = value.to_string();
    if text.chars().count() <= SHOWN_CHARACTERS {
        return text;
    }
    let mut short: String = text.chars().take(SHOWN_CHARACTERS).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_equal_by_value_and_integers_exactly() {
        let equal = |one: Value, other: Value| different(Some(&one), Some(&other), "").is_none();
        assert!(equal(json!(1), json!(1.0)));
        assert!(equal(json!(-0.0), json!(0)));
        assert!(equal(json!([1, {"a": 2.0}]), json!([1.0, {"a": 2}])));
        assert!(!equal(json!((1_i64 << 53) + 1), json!(1_i64 << 53)));
        assert!(!equal(json!(1), json!("1")));
        assert!(!equal(json!(null), json!(false)));
    }

    #[test]
    fn a_difference_is_found_at_its_path_whichever_side_lacks_the_key() {
        let one = json!({"a": {"b": [1, 2], "c": 1}});
        for (other, path) in [
            (json!({"a": {"b": [1, 3], "c": 1}}), "/a/b/1"),
            (json!({"a": {"b": [1], "c": 1}}), "/a/b"),
            (json!({"a": {"b": [1, 2]}}), "/a/c"),
            (json!({"a": {"b": [1, 2], "c": 1, "d": null}}), "/a/d"),
            (json!({"a": []}), "/a"),
        ] {
            assert_eq!(different(Some(&one), Some(&other), "").unwrap().path, path);
            assert_eq!(different(Some(&other), Some(&one), "").unwrap().path, path);
        }
    }

    #[test]
    fn long_values_are_shown_shortened() {
        let found = different(Some(&json!("é".repeat(500))), None, "/x").unwrap();
        assert_eq!(found.expected.chars().count(), SHOWN_CHARACTERS + 1);
        assert_eq!(found.found, "nothing");
    }
}
