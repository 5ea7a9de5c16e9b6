//! The values that devices and back ends write: small documents with few keys, so that writes often change
//! the same keys.

use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Map, Value, json};

/// Strings that reveal confusion of bytes, characters and escapes.
const TEXTS: [&str; 8] =
    ["auto", "Zürich", "日本語", "𝄞 clef", "quote \" and \\ slash", "line\nbreak", "", "مرحبا"];
/// Numbers at the limits: the largest and smallest integers of a twin, and doubles that must be kept exactly.
const INTEGERS: [i64; 6] = [(1 << 52) - 1, -(1 << 52), 0, -1, 1_700_000_000_000, 4_294_967_296];
const DOUBLES: [f64; 8] =
    [0.1, 0.300_000_000_000_000_04, 1e-300, 1.797_693_134_862_315_7e308, -2.5, 1e21, 5e-324, 1.0];
/// Keys that have a special meaning at the root of a Cosmos DB document.
const STORE_KEYS: [&str; 6] = ["id", "_etag", "ttl", "_ts", "deviceId", "version"];

/// A merge patch of one to three changes.
pub(super) fn patch(random: &mut StdRng) -> Value {
    let mut patch = Map::new();
    for _ in 0..random.random_range(1..=3) {
        change(random, &mut patch);
    }
    Value::Object(patch)
}

/// A complete section, without nulls.
pub(super) fn section(random: &mut StdRng) -> Value {
    without_nulls(patch(random))
}

fn change(random: &mut StdRng, patch: &mut Map<String, Value>) {
    let (key, value) = match random.random_range(0..100) {
        0..24 => ("temperature", json!(f64::from(random.random_range(-400..1_000)) / 10.0)),
        24..36 => ("battery", json!(random.random_range(0..=100))),
        36..44 => ("online", json!(random.random_bool(0.5))),
        44..50 => ("text", json!(TEXTS.choose(random))),
        50..54 => ("größe", json!(TEXTS.choose(random))),
        54..58 => ("counter", json!(INTEGERS.choose(random))),
        58..62 => ("reading", json!(DOUBLES.choose(random))),
        62..70 => ("firmware", firmware(random)),
        70..76 => ("mode", mode(random)),
        76..82 => ("samples", samples(random)),
        82..88 => ("network", network(random)),
        88..91 => (*STORE_KEYS.choose(random).unwrap_or(&"id"), json!(random.random_range(0..10))),
        91..94 => ("deep", deep(random)),
        94..96 => ("thermostat", json!({"__t": "c", "target": random.random_range(15..25)})),
        96..98 => (["battery", "text", "firmware"].choose(random).copied().unwrap_or("text"), Value::Null),
        _ => (
            ["mode", "network", "deep", "samples", "never"].choose(random).copied().unwrap_or("never"),
            Value::Null,
        ),
    };
    patch.insert(key.to_owned(), value);
}

fn firmware(random: &mut StdRng) -> Value {
    match random.random_range(0..4) {
        0 => json!({"version": format!("1.{}.0", random.random_range(0..20))}),
        1 => json!({"state": {"phase": "download", "percent": random.random_range(0..=100)}}),
        2 => json!({"state": null}),
        _ => json!({"version": "2.0.0", "state": {"phase": "done", "percent": null}}),
    }
}

/// A scalar, and an object that replaces it.
fn mode(random: &mut StdRng) -> Value {
    match random.random_range(0..3) {
        0 => json!("auto"),
        1 => json!({"name": "manual", "level": random.random_range(1..5)}),
        _ => json!(random.random_range(0..3)),
    }
}

/// Arrays are replaced as a whole: by longer, shorter, empty and nested ones.
fn samples(random: &mut StdRng) -> Value {
    match random.random_range(0..4) {
        0 => json!([]),
        1 => json!([{"at": 1, "value": 2.5}, [], [true, "x"]]),
        _ => (0..random.random_range(1..5)).map(|_| json!(random.random_range(0..1_000))).collect(),
    }
}

/// Nulls inside objects, including objects that the patch creates.
fn network(random: &mut StdRng) -> Value {
    match random.random_range(0..4) {
        0 => json!({"wifi": {"ssid": TEXTS.choose(random), "rssi": -random.random_range(30..90)}}),
        1 => json!({"wifi": {"ssid": null}}),
        2 => json!({"wifi": null, "wired": {"speed": 1000, "duplex": null}}),
        _ => json!({"wired": null}),
    }
}

fn deep(random: &mut StdRng) -> Value {
    let leaf = json!({"leaf": random.random_range(0..10), "gone": null});
    (0..random.random_range(1..8)).fold(leaf, |inner, _| json!({ "n": inner }))
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key, without_nulls(value)))
                .collect(),
        ),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            other
        }
    }
}
