//! Conditions and what they say of a twin: true, false, or undefined.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::path::Path;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    Path(Path),
    Literal(Value),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextTest {
    StartsWith,
    EndsWith,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    Compare(Operand, Comparison, Operand),
    In(Operand, Vec<Value>),
    IsDefined(Path),
    Text(Path, TextTest, String),
}

impl Condition {
    /// Nothing means undefined.
    pub(super) fn holds(&self, twin: &Value) -> Option<bool> {
        match self {
            Self::All(conditions) => combine(conditions, twin, false),
            Self::Any(conditions) => combine(conditions, twin, true),
            Self::Not(condition) => condition.holds(twin).map(|holds| !holds),
            Self::Compare(left, comparison, right) => {
                compare(left.value(twin)?, *comparison, right.value(twin)?)
            }
            Self::In(operand, values) => {
                let found = operand.value(twin)?;
                Some(values.iter().any(|value| compare(found, Comparison::Equal, value) == Some(true)))
            }
            Self::IsDefined(path) => Some(path.of(twin).is_some()),
            Self::Text(path, test, text) => {
                let found = path.of(twin)?.as_str()?;
                Some(match test {
                    TextTest::StartsWith => found.starts_with(text),
                    TextTest::EndsWith => found.ends_with(text),
                })
            }
        }
    }
}

impl Operand {
    fn value<'a>(&'a self, twin: &'a Value) -> Option<&'a Value> {
        match self {
            Self::Path(path) => path.of(twin),
            Self::Literal(value) => Some(value),
        }
    }
}

/// One that says `decisive` decides; without it, one that is undefined makes the whole undefined.
fn combine(conditions: &[Condition], twin: &Value, decisive: bool) -> Option<bool> {
    let mut whole = Some(!decisive);
    for condition in conditions {
        match condition.holds(twin) {
            Some(holds) if holds == decisive => return Some(decisive),
            Some(_) => {}
            None => whole = None,
        }
    }
    whole
}

fn compare(left: &Value, comparison: Comparison, right: &Value) -> Option<bool> {
    let ordering = match (left, right) {
        (Value::Number(left), Value::Number(right)) => numbers(left, right)?,
        (Value::String(left), Value::String(right)) => left.cmp(right),
        (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
        (Value::Null, Value::Null) => Ordering::Equal,
        _ => return None,
    };
    Some(match comparison {
        Comparison::Equal => ordering.is_eq(),
        Comparison::NotEqual => ordering.is_ne(),
        Comparison::Less => ordering.is_lt(),
        Comparison::AtMost => ordering.is_le(),
        Comparison::Greater => ordering.is_gt(),
        Comparison::AtLeast => ordering.is_ge(),
    })
}

fn numbers(left: &Number, right: &Number) -> Option<Ordering> {
    match (left.as_i64(), right.as_i64()) {
        (Some(left), Some(right)) => Some(left.cmp(&right)),
        _ => left.as_f64()?.partial_cmp(&right.as_f64()?),
    }
}
