//! The condition for Cosmos DB, so that not every document has to be read.
//!
//! The condition in Cosmos SQL selects every twin that the query selects, and maybe more; the evaluation here makes the
//! final decision. The condition is *exact* if it selects no other twin.
//!
//! **How NOT stays correct.** The negation of "maybe more" would be "maybe fewer". So NOT is never applied to an
//! inexact condition. Instead, each condition is translated twice: into a bound for "it is true" and a bound for "it is
//! false". NOT exchanges the two. AND and OR of valid bounds are valid bounds, in both cases.
//!
//! **Why some parts are two-valued.** According to Cosmos DB's documentation, comparisons between different types are
//! undefined, including `!=` (learn: cosmos-db/nosql/query/equality-comparison-operators). In the query language, `!=`
//! between different types is true. So a part that must be false is written after a test of the type. Then it means the
//! same whether Cosmos DB treats such a comparison as undefined or as false.
//!
//! **What is not pushed down**, and makes the condition inexact: comparisons of two paths; numbers from 2^53 on, where
//! doubles are not exact; the order of texts from U+D800 on, where UTF-16 and code points sort differently; arrays; and
//! names with quotes, backslashes or control characters, which Cosmos DB and its SDK's own parser read differently.
//!
//! Values are sent as parameters. Of the query's text, only property names become SQL, in single quotes and only with
//! characters that need no escape. The SDK's parser treats text in double quotes as an identifier, even inside
//! brackets.

use serde_json::Value;

use super::{
    Query,
    condition::{Comparison, Condition, Operand, TextTest, TypeTest},
    error::{QueryError, QueryErrorKind},
    path::{Path, Root},
};
use sql::{Bound, Piece, all, always, any, never, term};

mod sql;

/// Where the value of a root field is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the root of the stored document, under this name, which is a plain identifier; values below it are stored as
    /// in the twin.
    Field(&'static str),
    /// In the evaluated twin, but not in the document as such: a condition on it excludes no document.
    Elsewhere,
    /// Nowhere: only the hub knows it.
    HubOnly,
}

impl Root {
    /// The place in this daemon's documents: fields that change with events are in the root, under their own name.
    pub const fn place(self) -> Place {
        if self.is_known_to_the_hub_only() { Place::HubOnly } else { Place::Field(self.name()) }
    }
}

impl Root {
    /// The place for callers that use only fields that events keep up to date.
    pub const fn place_kept_by_events(self) -> Place {
        if self.is_of_the_identity() { Place::HubOnly } else { self.place() }
    }

    /// The place if documents also contain the identity, as of the last audit. ETags change with each write, and a
    /// document drops them with the next event.
    pub const fn place_as_of_last_audit(self) -> Place {
        match self {
            Self::Etag | Self::DeviceEtag => Place::HubOnly,
            _ => self.place(),
        }
    }
}

/// The condition for Cosmos DB.
#[derive(Debug, Clone, PartialEq)]
pub struct Pushdown {
    /// A condition over documents named `c`. To join it with others by AND, put it in parentheses.
    pub condition: String,
    /// The values of its parameters `@q0`, `@q1`, …, with their names.
    pub parameters: Vec<(String, Value)>,
    /// Whether it selects exactly what the query selects.
    pub exact: bool,
}

impl Query {
    /// Translates the condition. `place` gives the places of root fields; [`Root::place`] is right for this daemon's
    /// documents. The caller excludes all other items of the container (tombstones, other hubs, twins of the other
    /// kind).
    ///
    /// # Errors
    ///
    /// The query uses, anywhere in its text, a field that only the hub knows. The error names it.
    pub fn pushdown(&self, place: impl Fn(Root) -> Place) -> Result<Pushdown, QueryError> {
        let mut unknown = None;
        self.for_each_path(&mut |path| {
            if unknown.is_none() && place(path.root) == Place::HubOnly {
                unknown = Some(path);
            }
        });
        if let Some(path) = unknown {
            let message = format!(
                "{} is not in any event, so only the hub knows it: ask the hub itself, or leave it out",
                path.root.name()
            );
            return Err(QueryError::new(path.position, QueryErrorKind::HubOnly, message));
        }
        let bound = match &self.condition {
            Some(condition) => Translation { place: &place }.of(condition, true),
            None => always(true),
        };
        Ok(bound.render())
    }
}

struct Translation<'a> {
    place: &'a dyn Fn(Root) -> Place,
}

impl Translation<'_> {
    /// The bound for "the condition is `wanted`".
    fn of(&self, condition: &Condition, wanted: bool) -> Bound {
        match condition {
            Condition::And(parts) => self.joined(parts, wanted, wanted),
            Condition::Or(parts) => self.joined(parts, wanted, !wanted),
            Condition::Not(inner) => self.of(inner, !wanted),
            Condition::Constant(value) => constant(*value == wanted),
            Condition::Holds(path) => self.equal(path, &Value::Bool(wanted), true),
            Condition::Compare(left, comparison, right) => match (left, right) {
                (Operand::Path(path), Operand::Literal(value)) => {
                    self.compare(path, *comparison, value, wanted)
                }
                (Operand::Literal(value), Operand::Path(path)) => {
                    self.compare(path, comparison.mirrored(), value, wanted)
                }
                (Operand::Path(left), Operand::Path(right)) => {
                    all([self.guard(TypeTest::Defined, left), self.guard(TypeTest::Defined, right)])
                }
                (Operand::Literal(_), Operand::Literal(_)) => without_twin(condition, wanted),
            },
            Condition::In(Operand::Path(path), list) => self.one_of(path, list, wanted),
            Condition::NotIn(Operand::Path(path), list) => self.one_of(path, list, !wanted),
            Condition::In(Operand::Literal(_), _) | Condition::NotIn(Operand::Literal(_), _) => {
                without_twin(condition, wanted)
            }
            Condition::Type(test, path) => self.has_type(*test, path, wanted),
            Condition::Text(test, left, right) => self.texts(*test, left, right, condition, wanted),
            Condition::ArrayContains(path, value) => self.array_contains(path, value, wanted),
        }
    }

    fn joined(&self, parts: &[Condition], wanted: bool, by_all: bool) -> Bound {
        let parts = parts.iter().map(|part| self.of(part, wanted));
        if by_all { all(parts) } else { any(parts) }
    }

    /// The path in Cosmos SQL; `None` if it is not stored or cannot be written safely.
    fn column(&self, path: &Path) -> Option<String> {
        let Place::Field(field) = (self.place)(path.root) else { return None };
        path.below.iter().try_fold(format!("c.{field}"), |column, name| {
            let is_safe = |c: char| !c.is_control() && !matches!(c, '\'' | '"' | '\\');
            name.chars().all(is_safe).then(|| format!("{column}['{name}']"))
        })
    }

    /// A test of the type alone, as a bound of a condition that implies it.
    fn guard(&self, test: TypeTest, path: &Path) -> Bound {
        self.has_type(test, path, true).inexact()
    }

    fn has_type(&self, test: TypeTest, path: &Path, wanted: bool) -> Bound {
        let Some(column) = self.column(path) else { return always(false) };
        let not = if wanted { "" } else { "NOT " };
        let ask = |test: TypeTest| term([Piece::Text(format!("{not}{}({column})", test.name()))]);
        match test {
            // The SDK's in-memory evaluation does not support IS_PRIMITIVE.
            TypeTest::Primitive => {
                let types = [TypeTest::Null, TypeTest::Bool, TypeTest::Number, TypeTest::String].map(ask);
                if wanted { any(types) } else { all(types) }
            }
            test => ask(test),
        }
    }

    fn compare(&self, path: &Path, comparison: Comparison, value: &Value, wanted: bool) -> Bound {
        match comparison {
            Comparison::Equal => self.equal(path, value, wanted),
            Comparison::NotEqual => self.equal(path, value, !wanted),
            // It is false where the opposite is true: both are undefined for the same values.
            order if !wanted => self.ordered(path, order.opposite(), value),
            order => self.ordered(path, order, value),
        }
    }

    fn equal(&self, path: &Path, value: &Value, wanted: bool) -> Bound {
        self.one_of(path, std::slice::from_ref(value), wanted)
    }

    fn ordered(&self, path: &Path, comparison: Comparison, value: &Value) -> Bound {
        match value {
            Value::Null | Value::Array(_) | Value::Object(_) => never(),
            Value::Number(_) if !is_safe(value) => self.guard(TypeTest::Number, path),
            Value::String(text) if text.chars().any(|c| c > '\u{d7ff}') => self.guard(TypeTest::String, path),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                let Some(column) = self.column(path) else { return always(false) };
                term([Piece::Text(format!("{column} {} ", comparison.sign())), Piece::Value(value.clone())])
            }
        }
    }

    fn one_of(&self, path: &Path, list: &[Value], wanted: bool) -> Bound {
        let Some(column) = self.column(path) else { return always(false) };
        let of_type =
            |test: TypeTest| list.iter().filter(move |value| is_safe(value) && type_of(value) == test);
        let unsafe_types: Vec<_> = [TypeTest::Number, TypeTest::Array, TypeTest::Object]
            .into_iter()
            .filter(|test| {
                list.iter().any(|value| !value.is_null() && !is_safe(value) && type_of(value) == *test)
            })
            .collect();
        let has_null = list.iter().any(Value::is_null);
        if wanted {
            let safe: Vec<_> = list.iter().filter(|value| is_safe(value)).cloned().collect();
            let listed = if safe.is_empty() { never() } else { term(one_of_values(&column, safe)) };
            let null = if has_null { self.has_type(TypeTest::Null, path, true) } else { never() };
            return any([listed, null]
                .into_iter()
                .chain(unsafe_types.into_iter().map(|test| self.guard(test, path))));
        }
        let excluded = [TypeTest::Bool, TypeTest::Number, TypeTest::String].into_iter().filter_map(|test| {
            let values: Vec<_> = of_type(test).cloned().collect();
            (!values.is_empty()).then(|| excluded(test, &column, one_of_values(&column, values)))
        });
        let not_null = has_null.then(|| self.has_type(TypeTest::Null, path, false));
        let bound =
            all([self.has_type(TypeTest::Defined, path, true)].into_iter().chain(not_null).chain(excluded));
        if unsafe_types.is_empty() { bound } else { bound.inexact() }
    }

    fn texts(
        &self,
        test: TextTest,
        left: &Operand,
        right: &Operand,
        condition: &Condition,
        wanted: bool,
    ) -> Bound {
        let is_text =
            |operand: &Operand| matches!(operand, Operand::Path(_) | Operand::Literal(Value::String(_)));
        if !is_text(left) || !is_text(right) {
            return never();
        }
        match (left, right) {
            (Operand::Path(path), Operand::Literal(value)) => {
                let Some(column) = self.column(path) else { return always(false) };
                let not = if wanted { "" } else { "NOT " };
                let asked = term([
                    Piece::Text(format!("{not}{}({column}, ", test.name())),
                    Piece::Value(value.clone()),
                    Piece::Text(")".to_owned()),
                ]);
                if wanted { asked } else { all([self.has_type(TypeTest::String, path, true), asked]) }
            }
            (Operand::Literal(_), Operand::Path(path)) => self.guard(TypeTest::String, path),
            (Operand::Path(left), Operand::Path(right)) => {
                all([self.guard(TypeTest::String, left), self.guard(TypeTest::String, right)])
            }
            (Operand::Literal(_), Operand::Literal(_)) => without_twin(condition, wanted),
        }
    }

    fn array_contains(&self, path: &Path, value: &Value, wanted: bool) -> Bound {
        if !is_safe(value) {
            return self.guard(if wanted { TypeTest::Array } else { TypeTest::Defined }, path);
        }
        let Some(column) = self.column(path) else { return always(false) };
        let asked = vec![
            Piece::Text(format!("ARRAY_CONTAINS({column}, ")),
            Piece::Value(value.clone()),
            Piece::Text(")".to_owned()),
        ];
        if wanted {
            return term(asked);
        }
        all([self.has_type(TypeTest::Defined, path, true), excluded(TypeTest::Array, &column, asked)])
    }
}

fn constant(holds: bool) -> Bound {
    if holds { always(true) } else { never() }
}

/// A condition without any path: the result is the same for every twin.
fn without_twin(condition: &Condition, wanted: bool) -> Bound {
    constant(condition.evaluate(&Value::Null) == Some(wanted))
}

/// `column = value`, or `column IN (values)`.
fn one_of_values(column: &str, values: Vec<Value>) -> Vec<Piece> {
    if let [value] = values.as_slice() {
        return vec![Piece::Text(format!("{column} = ")), Piece::Value(value.clone())];
    }
    let mut pieces = vec![Piece::Text(format!("{column} IN ("))];
    for (index, value) in values.into_iter().enumerate() {
        if index > 0 {
            pieces.push(Piece::Text(", ".to_owned()));
        }
        pieces.push(Piece::Value(value));
    }
    pieces.push(Piece::Text(")".to_owned()));
    pieces
}

/// The negation: `asked` is evaluated only if the type is right, so it is never undefined.
fn excluded(test: TypeTest, column: &str, asked: Vec<Piece>) -> Bound {
    let before = Piece::Text(format!("NOT ({}({column}) AND ", test.name()));
    term([before].into_iter().chain(asked).chain([Piece::Text(")".to_owned())]))
}

fn type_of(value: &Value) -> TypeTest {
    match value {
        Value::Null => TypeTest::Null,
        Value::Bool(_) => TypeTest::Bool,
        Value::Number(_) => TypeTest::Number,
        Value::String(_) => TypeTest::String,
        Value::Array(_) => TypeTest::Array,
        Value::Object(_) => TypeTest::Object,
    }
}

/// Whether the value means the same to Cosmos DB and to the evaluation here: booleans, texts, and numbers below 2^53.
/// From 2^53 on, Cosmos DB compares integers as doubles, so different ones may be equal.
fn is_safe(value: &Value) -> bool {
    const GAPS: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Bool(_) | Value::String(_) => true,
        Value::Number(number) => number.as_f64().is_some_and(|double| double.abs() < GAPS),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests;
