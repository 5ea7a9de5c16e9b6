//! Parses conditions.

use serde_json::Value;

use super::super::{
    Dialect, QueryError,
    condition::{Comparison, Condition, Kind, Operand, TextTest},
};
use super::Cursor;

/// Maximum nesting of conditions.
const DEEPEST: usize = 64;

pub(super) fn condition(cursor: &mut Cursor) -> Result<Condition, QueryError> {
    either(cursor, 0)
}

fn either(cursor: &mut Cursor, depth: usize) -> Result<Condition, QueryError> {
    let mut conditions = vec![both(cursor, depth)?];
    while cursor.accept_word("OR") {
        conditions.push(both(cursor, depth)?);
    }
    Ok(Condition::Any(conditions))
}

fn both(cursor: &mut Cursor, depth: usize) -> Result<Condition, QueryError> {
    let mut conditions = vec![negation(cursor, depth)?];
    while cursor.accept_word("AND") {
        conditions.push(negation(cursor, depth)?);
    }
    Ok(Condition::All(conditions))
}

fn negation(cursor: &mut Cursor, depth: usize) -> Result<Condition, QueryError> {
    if depth > DEEPEST {
        return Err(cursor.problem("conditions are nested too deeply"));
    }
    if cursor.accept_word("NOT") {
        return Ok(Condition::Not(Box::new(negation(cursor, depth + 1)?)));
    }
    if cursor.accept("(") {
        let condition = either(cursor, depth + 1)?;
        cursor.expect(")")?;
        return Ok(condition);
    }
    match cursor.function() {
        Some(name) => function(cursor, &name),
        None => test(cursor),
    }
}

fn test(cursor: &mut Cursor) -> Result<Condition, QueryError> {
    let left = operand(cursor)?;
    for (keyword, is_negated) in [("IN", false), ("NIN", true)] {
        if cursor.accept_word(keyword) {
            let found = Condition::In(left, list(cursor)?);
            return Ok(if is_negated { Condition::Not(Box::new(found)) } else { found });
        }
    }
    match (comparison(cursor), left) {
        (Some(comparison), left) => Ok(Condition::Compare(left, comparison, operand(cursor)?)),
        (None, Operand::Path(path)) => Ok(Condition::Holds(path)),
        (None, Operand::Literal(_)) => Err(cursor.problem("a comparison or IN is expected here")),
    }
}

fn comparison(cursor: &mut Cursor) -> Option<Comparison> {
    let signs = [
        ("=", Comparison::Equal),
        ("!=", Comparison::NotEqual),
        ("<>", Comparison::NotEqual),
        ("<=", Comparison::AtMost),
        (">=", Comparison::AtLeast),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
    ];
    signs.into_iter().find_map(|(sign, comparison)| cursor.accept(sign).then_some(comparison))
}

fn operand(cursor: &mut Cursor) -> Result<Operand, QueryError> {
    if let Some(value) = cursor.peek_literal() {
        cursor.advance();
        return Ok(Operand::Literal(value));
    }
    cursor.path().map(Operand::Path)
}

fn list(cursor: &mut Cursor) -> Result<Vec<Value>, QueryError> {
    cursor.expect("[")?;
    let mut values = vec![cursor.literal()?];
    while cursor.accept(",") {
        values.push(cursor.literal()?);
    }
    cursor.expect("]")?;
    Ok(values)
}

/// Parses a call of this function, whose name is the next token.
fn function(cursor: &mut Cursor, name: &str) -> Result<Condition, QueryError> {
    if let Some(kind) = kind(name) {
        enter(cursor);
        let path = cursor.path()?;
        cursor.expect(")")?;
        return Ok(Condition::Is(kind, path));
    }
    if let Some(test) = text_test(cursor, name)? {
        enter(cursor);
        let whole = operand(cursor)?;
        cursor.expect(",")?;
        let part = operand(cursor)?;
        cursor.expect(")")?;
        return Ok(Condition::Text(test, whole, part));
    }
    if name != "ARRAY_CONTAINS" {
        return Err(cursor.problem(format!("there is no function {name}")));
    }
    enter(cursor);
    let path = cursor.path()?;
    cursor.expect(",")?;
    let value = cursor.literal()?;
    cursor.expect(")")?;
    Ok(Condition::ArrayContains(path, value))
}

/// Advances past the name of the function and the opening parenthesis.
fn enter(cursor: &mut Cursor) {
    cursor.advance();
    cursor.advance();
}

fn kind(name: &str) -> Option<Kind> {
    Some(match name {
        "IS_DEFINED" => Kind::Defined,
        "IS_NULL" => Kind::Null,
        "IS_BOOL" => Kind::Bool,
        "IS_NUMBER" => Kind::Number,
        "IS_STRING" => Kind::String,
        "IS_OBJECT" => Kind::Object,
        "IS_ARRAY" => Kind::Array,
        "IS_PRIMITIVE" => Kind::Primitive,
        _ => return None,
    })
}

fn text_test(cursor: &Cursor, name: &str) -> Result<Option<TextTest>, QueryError> {
    let (test, is_at_hub) = match name {
        "STARTSWITH" => (TextTest::StartsWith, true),
        "ENDSWITH" => (TextTest::EndsWith, true),
        "STARTS_WITH" => (TextTest::StartsWith, false),
        "CONTAINS" => (TextTest::Contains, false),
        _ => return Ok(None),
    };
    if cursor.dialect() == Dialect::Hub && !is_at_hub {
        return Err(cursor.problem(format!("IoT Hub has no {name} for twins")));
    }
    Ok(Some(test))
}
