//! The part of Cosmos SQL that the pushdown writes: parsed from its text and evaluated, independently of the code that
//! wrote it.
//!
//! Cosmos DB's documentation, its SDK's in-memory evaluation and its actual behaviour sometimes disagree; a dialect
//! chooses one of them. The SQL must be right in every dialect.

use std::cmp::Ordering;

use serde_json::Value;

/// One interpretation of Cosmos DB.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dialect {
    /// If true, `=` between different types is false and `!=` is true; otherwise both are undefined.
    pub(super) types_compare: bool,
    /// If true, texts sort by UTF-16 units; otherwise by code points.
    pub(super) by_units: bool,
    /// If true, `IN` is never undefined.
    pub(super) in_is_defined: bool,
    /// If true, a function with wrong types is false; otherwise it is undefined.
    pub(super) functions_are_defined: bool,
}

/// The value of an expression; `None` if undefined.
type Result = Option<Value>;

struct Reader<'a> {
    rest: &'a str,
    parameters: &'a [(String, Value)],
    document: &'a Value,
    dialect: Dialect,
    /// The number of open parentheses, and its maximum so far.
    depth: (usize, usize),
}

/// Whether the document is selected.
pub(super) fn selects(
    condition: &str,
    parameters: &[(String, Value)],
    document: &Value,
    dialect: Dialect,
) -> bool {
    let mut reader = Reader { rest: condition, parameters, document, dialect, depth: (0, 0) };
    let result = reader.or();
    assert_eq!(reader.rest, "", "of {condition}");
    assert!(reader.depth.1 <= 24, "too deep for the SDK's parser: {condition}");
    result == Some(Value::Bool(true))
}

impl Reader<'_> {
    fn take(&mut self, token: &str) -> bool {
        let rest = self.rest.trim_start();
        let Some(after) = rest.strip_prefix(token) else { return false };
        self.rest = after;
        true
    }

    fn expect(&mut self, token: &str) {
        assert!(self.take(token), "expected {token} at {}", self.rest);
    }

    fn word(&mut self) -> &str {
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn or(&mut self) -> Result {
        let mut value = self.and();
        while self.take("OR ") {
            let other = self.and();
            value = kleene(value, other, true);
        }
        value
    }

    fn and(&mut self) -> Result {
        let mut value = self.not();
        while self.take("AND ") {
            let other = self.not();
            value = kleene(value, other, false);
        }
        value
    }

    fn not(&mut self) -> Result {
        if self.take("NOT ") {
            return match self.not() {
                Some(Value::Bool(value)) => Some(Value::Bool(!value)),
                _ => None,
            };
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result {
        let left = self.operand();
        if self.take("IN ") {
            self.expect("(");
            let mut results = Vec::new();
            loop {
                let right = self.operand();
                results.push(self.equal(left.as_ref(), right.as_ref()));
                if !self.take(",") {
                    break;
                }
            }
            self.expect(")");
            let any = match results.contains(&Some(true)) {
                true => Some(true),
                false if results.contains(&None) => None,
                false => Some(false),
            };
            return any.or(self.dialect.in_is_defined.then_some(false)).map(Value::Bool);
        }
        for sign in ["<=", ">=", "!=", "=", "<", ">"] {
            if self.take(&format!("{sign} ")) {
                let right = self.operand();
                return self.compare(left.as_ref(), sign, right.as_ref()).map(Value::Bool);
            }
        }
        left
    }

    fn operand(&mut self) -> Result {
        if self.take("(") {
            self.depth.0 += 1;
            self.depth.1 = self.depth.1.max(self.depth.0);
            let value = self.or();
            self.expect(")");
            self.depth.0 -= 1;
            return value;
        }
        if self.take("@") {
            let name = format!("@{}", self.word());
            let (_, value) = self.parameters.iter().find(|(known, _)| *known == name).expect("is given");
            return Some(value.clone());
        }
        match self.word().to_owned().as_str() {
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            "c" => self.column(),
            function => self.function(function),
        }
    }

    fn column(&mut self) -> Result {
        self.expect(".");
        let mut value = self.document.get(self.word().to_owned());
        while self.take("['") {
            let (name, rest) = self.rest.split_once("']").expect("closes");
            assert!(!name.contains(['\'', '"', '\\']), "must not need an escape: {name}");
            value = value.and_then(|value| value.as_object()?.get(name));
            self.rest = rest;
        }
        value.cloned()
    }

    fn function(&mut self, name: &str) -> Result {
        self.expect("(");
        let mut arguments = vec![self.operand()];
        while self.take(",") {
            arguments.push(self.operand());
        }
        self.expect(")");
        let first = arguments[0].as_ref();
        let of_wrong_types = self.dialect.functions_are_defined.then_some(Value::Bool(false));
        let is = |test: fn(&Value) -> bool| Some(Value::Bool(first.is_some_and(test)));
        match name {
            "IS_DEFINED" => is(|_| true),
            "IS_NULL" => is(Value::is_null),
            "IS_BOOL" => is(Value::is_boolean),
            "IS_NUMBER" => is(Value::is_number),
            "IS_STRING" => is(Value::is_string),
            "IS_ARRAY" => is(Value::is_array),
            "IS_OBJECT" => is(Value::is_object),
            "STARTSWITH" | "ENDSWITH" | "CONTAINS" => {
                let (Value::String(text), Value::String(part)) = (first?, arguments[1].as_ref()?) else {
                    return of_wrong_types;
                };
                Some(Value::Bool(match name {
                    "STARTSWITH" => text.starts_with(part),
                    "ENDSWITH" => text.ends_with(part),
                    _ => text.contains(part),
                }))
            }
            "ARRAY_CONTAINS" => {
                let Value::Array(items) = first? else { return of_wrong_types };
                let wanted = arguments[1].as_ref();
                Some(Value::Bool(items.iter().any(|item| self.equal(Some(item), wanted) == Some(true))))
            }
            other => panic!("no function {other}"),
        }
    }

    fn equal(&self, left: Option<&Value>, right: Option<&Value>) -> Option<bool> {
        match (left?, right?) {
            // All numbers in Cosmos DB are doubles.
            (Value::Number(left), Value::Number(right)) => Some(left.as_f64() == right.as_f64()),
            (left, right) if std::mem::discriminant(left) == std::mem::discriminant(right) => {
                Some(left == right)
            }
            _ => self.dialect.types_compare.then_some(false),
        }
    }

    fn compare(&self, left: Option<&Value>, sign: &str, right: Option<&Value>) -> Option<bool> {
        match sign {
            "=" => return self.equal(left, right),
            "!=" => return self.equal(left, right).map(|equal| !equal),
            _ => {}
        }
        let order = match (left?, right?) {
            (Value::Number(left), Value::Number(right)) => left.as_f64()?.partial_cmp(&right.as_f64()?)?,
            (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
            (Value::String(left), Value::String(right)) if self.dialect.by_units => {
                left.encode_utf16().cmp(right.encode_utf16())
            }
            (Value::String(left), Value::String(right)) => left.cmp(right),
            _ => return None,
        };
        Some(match sign {
            "<" => order == Ordering::Less,
            "<=" => order != Ordering::Greater,
            ">" => order == Ordering::Greater,
            _ => order != Ordering::Less,
        })
    }
}

/// AND if `decisive` is false, OR if it is true, of booleans and other values.
fn kleene(left: Result, right: Result, decisive: bool) -> Result {
    let boolean = |value: Result| value.as_ref().and_then(Value::as_bool);
    match (boolean(left), boolean(right)) {
        (Some(value), _) | (_, Some(value)) if value == decisive => Some(Value::Bool(decisive)),
        (_, Some(value)) if value == decisive => Some(Value::Bool(decisive)),
        (Some(_), Some(_)) => Some(Value::Bool(!decisive)),
        _ => None,
    }
}
