//! Conditions. For a twin, a condition is true, false or undefined.

use serde_json::Value;

use super::{path::Path, value};

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

/// The types that a value can be tested for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Defined,
    Null,
    Bool,
    Number,
    String,
    Object,
    Array,
    /// Neither an object nor an array.
    Primitive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TextTest {
    StartsWith,
    EndsWith,
    Contains,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    /// The value at the path is the result, if it is a boolean.
    Holds(Path),
    Compare(Operand, Comparison, Operand),
    In(Operand, Vec<Value>),
    Is(Kind, Path),
    Text(TextTest, Operand, Operand),
    ArrayContains(Path, Value),
}

impl Condition {
    /// Evaluates the condition. `None` means undefined.
    pub(super) fn holds(&self, twin: &Value) -> Option<bool> {
        match self {
            Self::All(conditions) => combine(conditions, twin, false),
            Self::Any(conditions) => combine(conditions, twin, true),
            Self::Not(condition) => condition.holds(twin).map(|holds| !holds),
            Self::Holds(path) => path.of(twin)?.as_bool(),
            Self::Compare(left, comparison, right) => comparison.holds(left.of(twin)?, right.of(twin)?),
            Self::In(operand, values) => Some(contains(values, operand.of(twin)?)),
            Self::Is(kind, path) => Some(path.of(twin).is_some_and(|found| kind.is_of(found))),
            Self::Text(test, whole, part) => {
                Some(test.holds(whole.of(twin)?.as_str()?, part.of(twin)?.as_str()?))
            }
            Self::ArrayContains(path, wanted) => {
                let found = path.of(twin)?.as_array();
                Some(found.is_some_and(|elements| contains(elements, wanted)))
            }
        }
    }
}

/// The result is `decisive` if any condition is. Otherwise it is undefined if any condition is undefined.
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

fn contains(values: &[Value], wanted: &Value) -> bool {
    values.iter().any(|found| value::equal(found, wanted))
}

impl Operand {
    fn of<'a>(&'a self, twin: &'a Value) -> Option<&'a Value> {
        match self {
            Self::Path(path) => path.of(twin),
            Self::Literal(value) => Some(value),
        }
    }
}

impl Comparison {
    fn holds(self, left: &Value, right: &Value) -> Option<bool> {
        match self {
            Self::Equal => Some(value::equal(left, right)),
            Self::NotEqual => Some(!value::equal(left, right)),
            Self::Less => value::ordered(left, right).map(|found| found.is_lt()),
            Self::AtMost => value::ordered(left, right).map(|found| found.is_le()),
            Self::Greater => value::ordered(left, right).map(|found| found.is_gt()),
            Self::AtLeast => value::ordered(left, right).map(|found| found.is_ge()),
        }
    }
}

impl Kind {
    fn is_of(self, value: &Value) -> bool {
        match self {
            Self::Defined => true,
            Self::Null => value.is_null(),
            Self::Bool => value.is_boolean(),
            Self::Number => value.is_number(),
            Self::String => value.is_string(),
            Self::Object => value.is_object(),
            Self::Array => value.is_array(),
            Self::Primitive => !value.is_object() && !value.is_array(),
        }
    }
}

impl TextTest {
    fn holds(self, whole: &str, part: &str) -> bool {
        match self {
            Self::StartsWith => whole.starts_with(part),
            Self::EndsWith => whole.ends_with(part),
            Self::Contains => whole.contains(part),
        }
    }
}
