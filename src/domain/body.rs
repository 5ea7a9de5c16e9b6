//! The JSON body of an event or an answer that contains a twin or a part of one.

use serde_json::{Map, Value};

use super::{
    twin::{Sections, TwinVersion, is_reserved, is_volatile},
    undeliverable::{MAX_DEPTH, Undeliverable},
};

/// The text of a body, if it may be parsed.
pub(super) fn text_of(body: &[u8], max_body_bytes: usize) -> Result<&str, Undeliverable> {
    if body.len() > max_body_bytes {
        return Err(Undeliverable::TooLarge);
    }
    let text = std::str::from_utf8(body).map_err(|_| Undeliverable::NotUtf8)?;
    if depth(text) > MAX_DEPTH {
        return Err(Undeliverable::TooDeep);
    }
    Ok(text.trim_start_matches('\u{feff}'))
}

pub(super) fn parse(body: &[u8], max_body_bytes: usize) -> Result<Map<String, Value>, Undeliverable> {
    tree(text_of(body, max_body_bytes)?.as_bytes())
}

/// The JSON object of a text whose depth has been checked.
pub(super) fn tree(text: &[u8]) -> Result<Map<String, Value>, Undeliverable> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    // The parser's own limit is one level less than that of Cosmos DB; the check above has bounded the recursion.
    deserializer.disable_recursion_limit();
    let value = <Value as serde::Deserialize>::deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|_| Undeliverable::NotJson)?;
    match value {
        Value::Object(map) => Ok(map),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(Undeliverable::NotObject)
        }
    }
}

/// The deepest nesting of brackets outside strings: an upper bound for the recursion of a parser.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// A version; some answers write it as text.
pub(super) fn version(value: &Value) -> Option<TwinVersion> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok()).map(TwinVersion)
}

/// The sections of a body, and the fields of its root that belong to the twin.
///
/// # Errors
/// A section is not an object.
pub(super) fn sections(mut body: Map<String, Value>) -> Result<Sections, Undeliverable> {
    let tags = section(body.remove("tags"))?;
    let mut properties = section(body.remove("properties"))?.unwrap_or_default();
    let desired = section(properties.remove("desired"))?;
    let reported = section(properties.remove("reported"))?;
    body.retain(|name, _| !is_reserved(name) && !is_volatile(name));
    Ok(Sections { root: body, tags, desired, reported })
}

/// IoT Hub refuses a null section, so a null section in a body says nothing about the section.
fn section(value: Option<Value>) -> Result<Option<Map<String, Value>>, Undeliverable> {
    match value {
        Some(Value::Object(section)) => Ok(Some(section)),
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            Err(Undeliverable::SectionNotObject)
        }
    }
}
