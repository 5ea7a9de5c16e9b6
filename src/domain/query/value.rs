//! How values compare: equality, order, and the order of types.
//!
//! Numbers compare by their value, not by their representation: `1` equals `1.0`, and an integer above 2^53 differs
//! from the nearest double. Texts compare by code points.

use std::{cmp::Ordering, collections::BTreeMap};

use serde_json::{Number, Value};

/// Whether two values are equal. Values of different types are not.
pub(super) fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => compare_numbers(left, right) == Ordering::Equal,
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| equal(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(name, value)| right.get(name).is_some_and(|other| equal(value, other)))
        }
        (left, right) => left == right,
    }
}

/// The order of two values of one type that has an order; `None` for null, arrays, objects, and different types.
///
/// Source: Cosmos DB's table of comparisons (learn: nosql/query/equality-comparison-operators). IoT Hub's documentation
/// says only that primitive values can be compared.
pub(super) fn compare(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        (Value::Number(left), Value::Number(right)) => Some(compare_numbers(left, right)),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        _ => None,
    }
}

/// A total order of all values that a path can have:
/// undefined < null < boolean < number < text < array < object.
///
/// Source: the order of types in which Cosmos DB sorts (learn: nosql/query/order-by). Arrays compare item by item,
/// objects by their properties in the order of names.
pub(super) fn total(left: Option<&Value>, right: Option<&Value>) -> Ordering {
    let (Some(left), Some(right)) = (left, right) else {
        return left.is_some().cmp(&right.is_some());
    };
    match (left, right) {
        (Value::Array(left), Value::Array(right)) => {
            let items = left.iter().zip(right).map(|(left, right)| total(Some(left), Some(right)));
            first_difference(items).then(left.len().cmp(&right.len()))
        }
        (Value::Object(left), Value::Object(right)) => {
            // The map may keep the insertion order.
            let (left, right): (BTreeMap<_, _>, BTreeMap<_, _>) =
                (left.iter().collect(), right.iter().collect());
            let entries = left.iter().zip(&right).map(|((name, value), (other_name, other))| {
                name.cmp(other_name).then_with(|| total(Some(value), Some(other)))
            });
            first_difference(entries).then(left.len().cmp(&right.len()))
        }
        (left, right) => rank(left).cmp(&rank(right)).then(compare(left, right).unwrap_or(Ordering::Equal)),
    }
}

fn first_difference(mut orders: impl Iterator<Item = Ordering>) -> Ordering {
    orders.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
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

/// The value at a path, or none, in the total order.
#[derive(Debug, Clone)]
pub(super) struct Key(pub(super) Option<Value>);

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        total(self.0.as_ref(), other.0.as_ref())
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key {}

/// A number, exactly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Exact {
    /// An integer, even if it was stored as a double.
    Integer(i128),
    /// Any other double.
    Double(f64),
}

/// Doubles from here on have no fraction; all of them up to 2^127 are integers that fit into `i128`.
const INTEGERS_END: f64 = 1.7e38;

impl Exact {
    /// The exact value of the number. JSON has no infinity and no NaN, and neither does `Number`.
    pub(super) fn of(number: &Number) -> Self {
        if let Some(integer) = number.as_i128() {
            return Self::Integer(integer);
        }
        let double = number.as_f64().unwrap_or(0.0);
        if double.fract() == 0.0 && double.abs() < INTEGERS_END {
            // It is in range and has no fraction, so nothing is lost.
            return Self::Integer(double as i128);
        }
        Self::Double(double)
    }

    /// The number as JSON can represent it, if it is finite. An integer that is too large for a JSON integer becomes a
    /// double.
    pub(super) fn number(self) -> Option<Number> {
        match self {
            Self::Integer(integer) => Number::from_i128(integer)
                .filter(|number| number.is_i64() || number.is_u64())
                .or_else(|| Number::from_f64(integer as f64)),
            Self::Double(double) => Number::from_f64(double),
        }
    }
}

fn compare_numbers(left: &Number, right: &Number) -> Ordering {
    match (Exact::of(left), Exact::of(right)) {
        (Exact::Integer(left), Exact::Integer(right)) => left.cmp(&right),
        (Exact::Double(left), Exact::Double(right)) => left.total_cmp(&right),
        (Exact::Integer(left), Exact::Double(right)) => compare_mixed(left, right),
        (Exact::Double(left), Exact::Integer(right)) => compare_mixed(right, left).reverse(),
    }
}

/// A double that is not an `i128` integer is strictly between two of them, or outside of their range.
fn compare_mixed(integer: i128, double: f64) -> Ordering {
    if double.abs() >= INTEGERS_END {
        return if double > 0.0 { Ordering::Less } else { Ordering::Greater };
    }
    if integer <= double.floor() as i128 { Ordering::Less } else { Ordering::Greater }
}

#[cfg(test)]
mod tests;
