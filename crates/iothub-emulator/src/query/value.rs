//! Comparing JSON values: for conditions, for sorting, and for grouping.

use std::cmp::Ordering;

use serde_json::{Map, Number, Value};

/// Whether type and value are equal. Numbers are compared by value, so 1 equals 1.0. Arrays and objects are equal if
/// all their parts are.
pub(super) fn equal(left: &Value, right: &Value) -> bool {
    sorted(left, right).is_eq()
}

/// Compares two values. Undefined for values of different types, and for null, arrays and objects, which have no
/// order.
pub(super) fn ordered(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Bool(_), Value::Bool(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::String(_), Value::String(_)) => Some(sorted(left, right)),
        _ => None,
    }
}

/// Compares two values for sorting, where all values have an order: first by type (null, booleans, numbers, strings,
/// arrays, objects), then by value. Arrays and objects are ordered by their first difference. Objects are compared as
/// lists of names and values, sorted by name.
pub(super) fn sorted(left: &Value, right: &Value) -> Ordering {
    match (left, right) {
        (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
        (Value::Number(left), Value::Number(right)) => numbers(left, right),
        (Value::String(left), Value::String(right)) => left.cmp(right),
        (Value::Array(left), Value::Array(right)) => arrays(left, right),
        (Value::Object(left), Value::Object(right)) => objects(left, right),
        _ => rank(left).cmp(&rank(right)),
    }
}

/// Compares as [`sorted`] does. Undefined values come first.
pub(super) fn sorted_or_undefined(left: Option<&Value>, right: Option<&Value>) -> Ordering {
    match (left, right) {
        (Some(left), Some(right)) => sorted(left, right),
        _ => left.is_some().cmp(&right.is_some()),
    }
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) => 4,
        Value::Object(_) => 5,
    }
}

fn arrays(left: &[Value], right: &[Value]) -> Ordering {
    let pairs = left.iter().zip(right);
    first_difference(pairs.map(|(left, right)| sorted(left, right)))
        .then_with(|| left.len().cmp(&right.len()))
}

fn objects(left: &Map<String, Value>, right: &Map<String, Value>) -> Ordering {
    let (left, right) = (members(left), members(right));
    let pairs = left.iter().zip(&right);
    let differences = pairs
        .map(|((name, value), (other_name, other))| name.cmp(other_name).then_with(|| sorted(value, other)));
    first_difference(differences).then_with(|| left.len().cmp(&right.len()))
}

/// The first comparison that is not equal decides.
pub(super) fn first_difference(mut comparisons: impl Iterator<Item = Ordering>) -> Ordering {
    comparisons.find(|found| found.is_ne()).unwrap_or(Ordering::Equal)
}

fn members(object: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut members: Vec<_> = object.iter().collect();
    members.sort_by_key(|(name, _)| *name);
    members
}

fn numbers(left: &Number, right: &Number) -> Ordering {
    match (integer(left), integer(right)) {
        (Some(left), Some(right)) => left.cmp(&right),
        (Some(left), None) => integer_and_float(left, float(right)),
        (None, Some(right)) => integer_and_float(right, float(left)).reverse(),
        (None, None) => floats(float(left), float(right)),
    }
}

/// The number, if it is written as an integer that fits 64 bits.
pub(super) fn integer(number: &Number) -> Option<i128> {
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
}

/// The nearest double.
pub(super) fn float(number: &Number) -> f64 {
    // `as_f64` always returns a value here.
    number.as_f64().unwrap_or_default()
}

/// Compares exactly, even if the integer has no double of the same value: first the integral parts, then the
/// fraction.
fn integer_and_float(integer: i128, float: f64) -> Ordering {
    // A double outside the range saturates to the largest or smallest i128. No JSON integer has these values.
    let whole = float.trunc() as i128;
    integer.cmp(&whole).then_with(|| floats(0.0, float.fract()))
}

/// JSON has no NaN, so two doubles always compare.
fn floats(left: f64, right: f64) -> Ordering {
    left.partial_cmp(&right).unwrap_or(Ordering::Equal)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_has_its_place_in_a_sorted_answer() {
        let rising = [
            None,
            Some("null"),
            Some("false"),
            Some("true"),
            Some("-1e300"),
            Some("-9223372036854775808"),
            Some("-1.5"),
            Some("-1"),
            Some("-0.5"),
            Some("0"),
            Some("0.5"),
            Some("1"),
            Some("9007199254740992.0"),
            Some("9007199254740993"),
            Some("9007199254740994.0"),
            Some("18446744073709551614"),
            Some("18446744073709551615"),
            Some("18446744073709551616"),
            Some("1e300"),
            Some(r#""""#),
            Some(r#""B""#),
            Some(r#""a""#),
            Some(r#""aa""#),
            Some("\"\u{e9}\""),
            // By code point. By UTF-16 units, the order would be the opposite.
            Some("\"\u{ff5e}\""),
            Some("\"\u{1f600}\""),
            Some("[]"),
            Some("[null]"),
            Some("[1]"),
            Some("[1,2]"),
            Some("[2]"),
            Some("{}"),
            Some(r#"{"a":1}"#),
            Some(r#"{"a":1,"b":0}"#),
            Some(r#"{"a":2}"#),
            Some(r#"{"b":0}"#),
        ]
        .map(|text| text.map(|text| serde_json::from_str::<Value>(text).unwrap()));
        for (index, left) in rising.iter().enumerate() {
            for (other, right) in rising.iter().enumerate() {
                let found = sorted_or_undefined(left.as_ref(), right.as_ref());
                assert_eq!(found, index.cmp(&other), "{left:?} {right:?}");
            }
        }
    }

    #[test]
    fn values_are_equal_by_what_they_say() {
        for (left, right) in [
            (json!(1), json!(1.0)),
            (json!(0), json!(-0.0)),
            (json!(u64::MAX), json!(u64::MAX)),
            (json!(9_007_199_254_740_992_u64), json!(9_007_199_254_740_992.0)),
            (json!([1, {"a": 2, "b": [null]}]), json!([1.0, {"b": [null], "a": 2.0}])),
        ] {
            assert!(equal(&left, &right) && equal(&right, &left), "{left} {right}");
        }
        assert!(!equal(&json!(9_007_199_254_740_993_u64), &json!(9_007_199_254_740_992.0)));
        assert!(!equal(&json!({"a": 1}), &json!({"a": 1, "b": 1})));
    }
}
