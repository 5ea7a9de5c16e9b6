//! The rules for the contents of a twin's section, as Microsoft documents them for device twins ("Understand
//! and use device twins": format and size; "IoT Hub quotas and throttling").

use serde_json::{Map, Value};

use super::Error;

/// Maximum nesting of objects and arrays below a section. The section itself does not count.
const DEEPEST: usize = 10;
const LONGEST_KEY_BYTES: usize = 1024;
const LONGEST_STRING_BYTES: usize = 4096;
const SMALLEST_INTEGER: i64 = -(1 << 52);
const LARGEST_INTEGER: i64 = (1 << 52) - 1;

/// A part of the twin that has its own size limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SectionName {
    Tags,
    Desired,
    Reported,
}

impl SectionName {
    fn limit_bytes(self) -> usize {
        match self {
            Self::Tags => 8 * 1024,
            Self::Desired | Self::Reported => 32 * 1024,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Tags => "tags",
            Self::Desired => "properties.desired",
            Self::Reported => "properties.reported",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Tags => "/tags",
            Self::Desired => "/properties/desired",
            Self::Reported => "/properties/reported",
        }
    }
}

/// Whether a null means "remove this key".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nulls {
    Remove,
    Refuse,
}

/// Checks what a writer sent for a section, before anything is merged.
pub(super) fn check_values(
    section: SectionName,
    values: &Map<String, Value>,
    nulls: Nulls,
) -> Result<(), Error> {
    let mut path = section.path().to_owned();
    check_object(values, nulls, 1, &mut path)
}

/// Checks the size that a section has or would have.
pub(super) fn check_size(section: SectionName, bytes: usize) -> Result<(), Error> {
    let limit = section.limit_bytes();
    if bytes > limit {
        return Err(Error::TooLarge { section: section.name(), bytes, limit });
    }
    Ok(())
}

/// The size of a section's values in bytes, as IoT Hub measures it.
pub(super) fn bytes(values: &Map<String, Value>) -> usize {
    values.iter().map(|(key, value)| text_bytes(key) + value_bytes(value)).sum()
}

/// The size in bytes that `values`, of size `bytes`, would have after merging `patch`. It is computed without
/// merging, so that a refused write needs no copy to restore.
pub(super) fn bytes_after(bytes: usize, values: &Map<String, Value>, patch: &Map<String, Value>) -> usize {
    let (added, removed) = growth(Some(values), patch);
    (bytes + added).saturating_sub(removed)
}

/// The number of bytes that a merge adds and removes.
fn growth(values: Option<&Map<String, Value>>, patch: &Map<String, Value>) -> (usize, usize) {
    let (mut added, mut removed) = (0, 0);
    for (key, change) in patch {
        let old = values.and_then(|values| values.get(key));
        match (old, change) {
            (None, Value::Null) => {}
            (Some(old), Value::Null) => removed += text_bytes(key) + value_bytes(old),
            (Some(Value::Object(old)), Value::Object(change)) => {
                let (more, less) = growth(Some(old), change);
                added += more;
                removed += less;
            }
            (old, change) => {
                match old {
                    Some(old) => removed += value_bytes(old),
                    None => added += text_bytes(key),
                }
                added += match change {
                    Value::Object(change) => growth(None, change).0,
                    Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                        value_bytes(change)
                    }
                };
            }
        }
    }
    (added, removed)
}

fn check_object(
    values: &Map<String, Value>,
    nulls: Nulls,
    depth: usize,
    path: &mut String,
) -> Result<(), Error> {
    for (key, value) in values {
        let length = path.len();
        path.push('/');
        path.push_str(key);
        check_key(key).and_then(|()| check_value(value, nulls, depth, path)).map_err(
            |problem| match problem {
                Problem::Here(reason) => Error::InvalidTwin { path: path.clone(), reason },
                Problem::Below(error) => error,
            },
        )?;
        path.truncate(length);
    }
    Ok(())
}

enum Problem {
    Here(String),
    Below(Error),
}

fn check_key(key: &str) -> Result<(), Problem> {
    let reason = if key.is_empty() {
        "a key must not be empty".to_owned()
    } else if key.len() > LONGEST_KEY_BYTES {
        format!("a key must not be longer than {LONGEST_KEY_BYTES} bytes")
    } else if let Some(character) =
        key.chars().find(|character| character.is_control() || matches!(character, '.' | '$' | ' '))
    {
        format!("a key must not contain {character:?}")
    } else {
        return Ok(());
    };
    Err(Problem::Here(reason))
}

fn check_value(value: &Value, nulls: Nulls, depth: usize, path: &mut String) -> Result<(), Problem> {
    match value {
        Value::Null if nulls == Nulls::Refuse => Err(Problem::Here("null is not a value".to_owned())),
        Value::Null | Value::Bool(_) => Ok(()),
        Value::Number(number) => check_number(number).map_err(Problem::Here),
        Value::String(text) if text.len() > LONGEST_STRING_BYTES => {
            Err(Problem::Here(format!("a string must not be longer than {LONGEST_STRING_BYTES} bytes")))
        }
        Value::String(_) => Ok(()),
        Value::Array(_) | Value::Object(_) if depth > DEEPEST => {
            Err(Problem::Here(format!("nesting must not be deeper than {DEEPEST} levels")))
        }
        // An array is one value. Nothing inside it can be removed, so a null in it has no meaning.
        Value::Array(items) => {
            for item in items {
                check_value(item, Nulls::Refuse, depth + 1, path)?;
            }
            Ok(())
        }
        Value::Object(values) => check_object(values, nulls, depth + 1, path).map_err(Problem::Below),
    }
}

fn check_number(number: &serde_json::Number) -> Result<(), String> {
    let fits = match (number.as_i64(), number.is_f64()) {
        (_, true) => true,
        (Some(integer), false) => (SMALLEST_INTEGER..=LARGEST_INTEGER).contains(&integer),
        (None, false) => false,
    };
    if fits {
        Ok(())
    } else {
        Err(format!("an integer must lie within {SMALLEST_INTEGER} and {LARGEST_INTEGER}"))
    }
}

/// The size as IoT Hub measures it: text as UTF-8 without control characters, numbers 8 bytes, booleans 4,
/// null 0.
fn value_bytes(value: &Value) -> usize {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 4,
        Value::Number(_) => 8,
        Value::String(text) => text_bytes(text),
        Value::Array(items) => items.iter().map(value_bytes).sum(),
        Value::Object(values) => bytes(values),
    }
}

fn text_bytes(text: &str) -> usize {
    text.chars().filter(|character| !character.is_control()).map(char::len_utf8).sum()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn values(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    /// A section with `levels` - 2 objects below it.
    fn nested(levels: usize) -> Value {
        (1..levels).fold(json!(1), |inner, _| json!({ "n": inner }))
    }

    #[test]
    fn each_rule_for_values_names_the_place_it_is_broken() {
        let long_string = "x".repeat(LONGEST_STRING_BYTES + 1);
        for (value, place) in [
            (json!({"a": {"b.c": 1}}), "/a/b.c"),
            (json!({"$x": 1}), "/$x"),
            (json!({"a b": 1}), "/a b"),
            (json!({"a\u{85}": 1}), "/a\u{85}"),
            (json!({"": 1}), "/"),
            (json!({"a": LARGEST_INTEGER + 1}), "/a"),
            (json!({"a": SMALLEST_INTEGER - 1}), "/a"),
            (json!({"a": u64::MAX}), "/a"),
            (json!({"a": long_string}), "/a"),
            (json!({"a": [1, null]}), "/a"),
            (json!({"a": [{"b": null}]}), "/a/b"),
        ] {
            let error = check_values(SectionName::Tags, &values(value), Nulls::Remove).unwrap_err();
            assert!(
                matches!(&error, Error::InvalidTwin { path, .. } if *path == format!("/tags{place}")),
                "{error}, expected at {place}"
            );
        }
        assert!(check_values(SectionName::Tags, &values(json!({"a": {"b": null}})), Nulls::Refuse).is_err());
    }

    #[test]
    fn values_at_the_limits_are_accepted() {
        let accepted = json!({
            "größe": LARGEST_INTEGER, "min": SMALLEST_INTEGER, "double": 1.0e300, "gone": null,
            "list": [1, "x", {"y": []}], "text": "x".repeat(LONGEST_STRING_BYTES), "k".repeat(LONGEST_KEY_BYTES): true,
        });
        check_values(SectionName::Desired, &values(accepted), Nulls::Remove).unwrap();
    }

    #[test]
    fn nesting_ends_at_ten_levels() {
        assert!(check_values(SectionName::Tags, &values(nested(DEEPEST + 2)), Nulls::Remove).is_ok());
        assert!(check_values(SectionName::Tags, &values(nested(DEEPEST + 3)), Nulls::Remove).is_err());
        let array = (0..200).fold(json!(1), |inner, _| json!([inner]));
        assert!(check_values(SectionName::Tags, &values(json!({ "a": array })), Nulls::Remove).is_err());
    }

    #[test]
    fn tags_end_at_8_and_properties_at_32_kilobytes_without_metadata() {
        let filled = |bytes: usize| {
            let mut map = Map::new();
            for index in 0..bytes / 1024 {
                map.insert(format!("{index:04}"), Value::String("x".repeat(1020)));
            }
            map
        };
        check_size(SectionName::Tags, bytes(&filled(8 * 1024))).unwrap();
        check_size(SectionName::Reported, bytes(&filled(32 * 1024))).unwrap();
        let mut over = filled(8 * 1024);
        over.insert("b".to_owned(), Value::Bool(true));
        let error = check_size(SectionName::Tags, bytes(&over)).unwrap_err();
        assert_eq!(error, Error::TooLarge { section: "tags", bytes: 8 * 1024 + 5, limit: 8 * 1024 });
    }

    #[test]
    fn the_size_after_a_merge_is_told_without_merging() {
        let before = values(json!({"a": {"b": "xy", "c": [1, 2]}, "d": 1, "é": "e"}));
        for (patch, after) in [
            (json!({"a": {"b": null}}), json!({"a": {"c": [1, 2]}, "d": 1, "é": "e"})),
            (json!({"a": "text"}), json!({"a": "text", "d": 1, "é": "e"})),
            (
                json!({"d": {"n": 1, "z": null}}),
                json!({"a": {"b": "xy", "c": [1, 2]}, "d": {"n": 1}, "é": "e"}),
            ),
            (json!({"a": null, "none": null, "é": [true]}), json!({"d": 1, "é": [true]})),
            (
                json!({"f": {"g": {"h": "i", "j": null}}}),
                json!({"a": {"b": "xy", "c": [1, 2]}, "d": 1, "é": "e", "f": {"g": {"h": "i"}}}),
            ),
        ] {
            assert_eq!(
                bytes_after(bytes(&before), &before, &values(patch.clone())),
                bytes(&values(after)),
                "{patch}"
            );
        }
    }
}
