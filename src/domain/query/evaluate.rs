//! Evaluates whether a condition is true for a twin.
//!
//! The logic has three values. `None` is undefined, e.g. the result of a comparison with a missing path.
//!
//! | `AND` | true | false | undefined | | `OR` | true | false | undefined | | `NOT` | |
//! |---|---|---|---|---|---|---|---|---|---|---|---|
//! | true | true | false | undefined | | true | true | true | true | | true | false |
//! | false | false | false | false | | false | true | false | undefined | | false | true |
//! | undefined | undefined | false | undefined | | undefined | true | undefined | undefined | | undefined | undefined |

use std::cmp::Ordering;

use serde_json::Value;

use super::{
    condition::{Comparison, Condition, Operand, TextTest, TypeTest},
    path::Path,
    value,
};

impl Condition {
    /// Whether it is true for `twin`, which has the form of the service's REST API; `None` if undefined.
    ///
    /// Source of the tables of AND, OR and NOT: learn: cosmos-db/nosql/query/logical-operators. IoT Hub documents only
    /// that a result other than `true` does not select the twin.
    pub fn evaluate(&self, twin: &Value) -> Option<bool> {
        match self {
            Self::And(parts) => joined(parts, twin, false),
            Self::Or(parts) => joined(parts, twin, true),
            Self::Not(inner) => inner.evaluate(twin).map(|is_true| !is_true),
            Self::Constant(value) => Some(*value),
            Self::Holds(path) => path.find(twin)?.as_bool(),
            Self::Compare(left, comparison, right) => {
                compare(left.value(twin)?, *comparison, right.value(twin)?)
            }
            Self::In(operand, list) => operand.value(twin).map(|found| contains(list, found)),
            Self::NotIn(operand, list) => operand.value(twin).map(|found| !contains(list, found)),
            Self::Type(test, path) => Some(has_type(*test, path, twin)),
            Self::Text(test, left, right) => match (left.value(twin)?, right.value(twin)?) {
                (Value::String(left), Value::String(right)) => Some(match test {
                    TextTest::StartsWith => left.starts_with(right),
                    TextTest::EndsWith => left.ends_with(right),
                    TextTest::Contains => left.contains(right),
                }),
                _ => None,
            },
            Self::ArrayContains(path, wanted) => path.find(twin).map(|found| match found {
                Value::Array(items) => contains(items, wanted),
                _ => false,
            }),
        }
    }
}

impl Operand {
    fn value<'a>(&'a self, twin: &'a Value) -> Option<&'a Value> {
        match self {
            Self::Path(path) => path.find(twin),
            Self::Literal(value) => Some(value),
        }
    }
}

/// AND if `decisive` is false, OR if it is true: one part with the decisive value decides, whatever the others are.
fn joined(parts: &[Condition], twin: &Value, decisive: bool) -> Option<bool> {
    let mut result = Some(!decisive);
    for part in parts {
        match part.evaluate(twin) {
            Some(value) if value == decisive => return Some(decisive),
            Some(_) => {}
            None => result = None,
        }
    }
    result
}

fn compare(left: &Value, comparison: Comparison, right: &Value) -> Option<bool> {
    let order = || value::compare(left, right);
    match comparison {
        Comparison::Equal => Some(value::equal(left, right)),
        Comparison::NotEqual => Some(!value::equal(left, right)),
        Comparison::Less => order().map(Ordering::is_lt),
        Comparison::LessOrEqual => order().map(Ordering::is_le),
        Comparison::Greater => order().map(Ordering::is_gt),
        Comparison::GreaterOrEqual => order().map(Ordering::is_ge),
    }
}

fn contains(items: &[Value], wanted: &Value) -> bool {
    items.iter().any(|item| value::equal(item, wanted))
}

fn has_type(test: TypeTest, path: &Path, twin: &Value) -> bool {
    path.find(twin).is_some_and(|found| match test {
        TypeTest::Defined => true,
        TypeTest::Null => found.is_null(),
        TypeTest::Bool => found.is_boolean(),
        TypeTest::Number => found.is_number(),
        TypeTest::String => found.is_string(),
        TypeTest::Object => found.is_object(),
        TypeTest::Array => found.is_array(),
        TypeTest::Primitive => !found.is_object() && !found.is_array(),
    })
}

#[cfg(test)]
mod tests;
