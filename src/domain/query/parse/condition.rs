//! Parses the part after WHERE. Precedence from lowest to highest: OR, AND, NOT, comparisons.

use serde_json::{Number, Value};

use super::super::{
    condition::{Comparison, Condition, Operand, TextTest, TypeTest},
    error::{QueryError, QueryErrorKind},
    token::{Token, shortened},
    value::Exact,
};
use super::{NESTING_MAX, Parser, advice::no_such_function};

const ARRAY_CONTAINS: &str = "ARRAY_CONTAINS";

/// Other names of functions. The documentation has them, but the hub does not accept them for twins
/// (MicrosoftDocs/azure-docs#110329).
const ALIASES: [(&str, TextTest); 2] =
    [("STARTS_WITH", TextTest::StartsWith), ("ENDS_WITH", TextTest::EndsWith)];

/// The functions of conditions.
pub(super) fn functions() -> impl Iterator<Item = &'static str> {
    let types = TypeTest::ALL.iter().map(|test| test.name());
    types.chain(TextTest::ALL.iter().map(|test| test.name())).chain([ARRAY_CONTAINS])
}

pub(super) fn is_function(name: &str) -> bool {
    functions().chain(ALIASES.map(|(alias, _)| alias)).any(|function| function.eq_ignore_ascii_case(name))
}

fn text_test(name: &str) -> Option<TextTest> {
    let alias = || ALIASES.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(name)).map(|(_, test)| *test);
    TextTest::named(name).or_else(alias)
}

impl Parser {
    pub(super) fn condition(&mut self) -> Result<Condition, QueryError> {
        self.joined("OR", Condition::Or, |parser| parser.joined("AND", Condition::And, Self::negation))
    }

    fn joined(
        &mut self,
        word: &str,
        join: fn(Vec<Condition>) -> Condition,
        part: impl Fn(&mut Self) -> Result<Condition, QueryError>,
    ) -> Result<Condition, QueryError> {
        let first = part(self)?;
        if !self.is_word(word) {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.take_word(word)? {
            parts.push(part(self)?);
        }
        Ok(join(parts))
    }

    fn negation(&mut self) -> Result<Condition, QueryError> {
        let position = self.tokens.position();
        if self.take_word("NOT")? {
            let inner = self.nested(position, Self::negation)?;
            return Ok(Condition::Not(Box::new(inner)));
        }
        self.primary()
    }

    /// Parses one level deeper.
    fn nested<T>(
        &mut self,
        position: usize,
        inner: impl FnOnce(&mut Self) -> Result<T, QueryError>,
    ) -> Result<T, QueryError> {
        if self.depth == NESTING_MAX {
            let message = format!(
                "parentheses, NOT and lists are nested more than {NESTING_MAX} levels deep: write the condition flatter"
            );
            return Err(QueryError::new(position, QueryErrorKind::TooDeep, message));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    fn primary(&mut self) -> Result<Condition, QueryError> {
        let position = self.tokens.position();
        if self.take_sign("(")? {
            let inner = self.nested(position, Self::condition)?;
            self.expect_sign(")", "close the parenthesis with `)`, or go on with AND or OR")?;
            if self.comparison().is_some() || self.is_word("IN") || self.is_word("NIN") {
                let message =
                    "a condition in parentheses is not compared: leave the parentheses around a path out";
                return Err(QueryError::syntax(self.tokens.position(), message));
            }
            return Ok(inner);
        }
        if let Token::Word(word) = self.tokens.current() {
            let word = word.clone();
            if let Some(function) = self.function(&word)? {
                return self.compared_with_boolean(function);
            }
        }
        let left = self.operand()?;
        self.compared(position, left)
    }

    /// Parses the operator and the right side of a comparison.
    fn compared(&mut self, position: usize, left: Operand) -> Result<Condition, QueryError> {
        if let Some(comparison) = self.comparison() {
            self.tokens.advance()?;
            if matches!(self.tokens.current(), Token::Sign("=")) {
                return Err(QueryError::syntax(self.tokens.position(), "equality is written with one `=`"));
            }
            return Ok(Condition::Compare(left, comparison, self.operand()?));
        }
        if self.take_word("IN")? {
            return Ok(Condition::In(left, self.constants()?));
        }
        if self.take_word("NIN")? {
            return Ok(Condition::NotIn(left, self.constants()?));
        }
        if self.is_word("NOT") {
            let message =
                "NOT cannot stand here: write NIN [...] for \"none of\", or NOT before the whole comparison";
            return Err(QueryError::syntax(self.tokens.position(), message));
        }
        self.refuse_after_path()?;
        match left {
            Operand::Path(path) => Ok(Condition::Holds(path)),
            Operand::Literal(Value::Bool(value)) => Ok(Condition::Constant(value)),
            Operand::Literal(_) => {
                let message = "a value by itself is no condition: compare it, such as tags.site = 'north'";
                Err(QueryError::syntax(position, message))
            }
        }
    }

    fn comparison(&self) -> Option<Comparison> {
        let Token::Sign(found) = self.tokens.current() else { return None };
        Comparison::ALL.iter().find(|(sign, _)| sign == found).map(|(_, comparison)| *comparison)
    }

    fn operand(&mut self) -> Result<Operand, QueryError> {
        if let Some(value) = self.constant()? {
            return Ok(Operand::Literal(value));
        }
        match self.tokens.current() {
            Token::Word(word) if is_function(word) => Err(no_such_function(self.tokens.position(), word)),
            Token::Word(_) | Token::DoubleOpen => Ok(Operand::Path(self.path()?)),
            _ => Err(self.unexpected("write a path or a value here, such as tags.site or 'north'")),
        }
    }

    /// The constant at this position, if there is one.
    fn constant(&mut self) -> Result<Option<Value>, QueryError> {
        let position = self.tokens.position();
        let value = match self.tokens.current() {
            Token::Text(text) => Value::String(text.clone()),
            Token::Number(text) => number(position, "", text)?,
            Token::Sign("-") => {
                self.tokens.advance()?;
                match self.tokens.current() {
                    Token::Number(text) if self.tokens.touches(position, 1) => number(position, "-", text)?,
                    _ => {
                        return Err(QueryError::syntax(
                            position,
                            "`-` stands only before the digits of a number",
                        ));
                    }
                }
            }
            Token::Sign("[") | Token::DoubleOpen => return Ok(Some(Value::Array(self.constants()?))),
            Token::Word(word) => match word.to_ascii_lowercase().as_str() {
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                "null" => Value::Null,
                "undefined" => {
                    let message =
                        "nothing compares with undefined: ask IS_DEFINED(path) or NOT IS_DEFINED(path)";
                    return Err(QueryError::unsupported(position, message));
                }
                _ => return Ok(None),
            },
            Token::End | Token::Sign(_) => return Ok(None),
        };
        self.tokens.advance()?;
        Ok(Some(value))
    }

    /// Constants in brackets.
    fn constants(&mut self) -> Result<Vec<Value>, QueryError> {
        let position = self.tokens.position();
        self.tokens.split();
        self.expect_sign("[", "write the list in brackets, such as ['a', 'b']")?;
        let mut items = Vec::new();
        if self.take_sign("]")? {
            return Ok(items);
        }
        loop {
            let item = self.nested(position, Self::constant)?;
            items.push(
                item.ok_or_else(|| self.unexpected("a list holds values only, such as 'a', 1 or true"))?,
            );
            if !self.take_sign(",")? {
                break;
            }
        }
        self.expect_sign("]", "write `,` and another value, or close the list with `]`")?;
        Ok(items)
    }

    /// Parses the function with this name, starting at its name; `None` if there is no such function.
    fn function(&mut self, name: &str) -> Result<Option<Condition>, QueryError> {
        if let Some(test) = TypeTest::named(name) {
            self.open(test.name())?;
            let path = self.path()?;
            self.expect_sign(")", &format!("{} takes one path: close it with `)`", test.name()))?;
            return Ok(Some(Condition::Type(test, path)));
        }
        if let Some(test) = text_test(name) {
            self.open(test.name())?;
            let left = self.operand()?;
            self.refuse_after_path()?;
            self.expect_sign(",", &format!("{} takes a path and a text, with `,` between", test.name()))?;
            let right = self.operand()?;
            self.expect_sign(")", &format!("{} takes two texts: close it with `)`", test.name()))?;
            return Ok(Some(Condition::Text(test, left, right)));
        }
        if ARRAY_CONTAINS.eq_ignore_ascii_case(name) {
            self.open(ARRAY_CONTAINS)?;
            let path = self.path()?;
            self.expect_sign(",", "ARRAY_CONTAINS takes a path and a value, with `,` between")?;
            let Some(value) = self.constant()? else {
                return Err(self.unexpected("ARRAY_CONTAINS looks for a value, such as 'a', 1 or true"));
            };
            self.expect_sign(")", "ARRAY_CONTAINS takes a path and a value: close it with `)`")?;
            return Ok(Some(Condition::ArrayContains(path, value)));
        }
        Ok(None)
    }

    fn open(&mut self, function: &str) -> Result<(), QueryError> {
        self.tokens.advance()?;
        self.expect_sign("(", &format!("after {function}, write `(`"))
    }

    /// A function may be compared with a boolean: the result is the function or its negation.
    fn compared_with_boolean(&mut self, function: Condition) -> Result<Condition, QueryError> {
        let equal = match self.comparison() {
            None => return Ok(function),
            Some(Comparison::Equal) => true,
            Some(Comparison::NotEqual) => false,
            Some(_) => {
                return Err(self.unexpected("a function is compared by = or != with true or false only"));
            }
        };
        self.tokens.advance()?;
        let position = self.tokens.position();
        let value = if self.take_word("TRUE")? {
            true
        } else if self.take_word("FALSE")? {
            false
        } else {
            return Err(self.unexpected("a function is compared with true or false only"));
        };
        if value == equal {
            return Ok(function);
        }
        // Its printed form has a NOT, which counts as a level.
        self.nested(position, |_| Ok(Condition::Not(Box::new(function))))
    }
}

/// The number in `text`, with its sign.
fn number(position: usize, sign: &str, text: &str) -> Result<Value, QueryError> {
    let lower = text.to_ascii_lowercase();
    if let Some(digits) = lower.strip_prefix("0x") {
        // Source: `hexadecimal_literal` in the documentation of the query language.
        return match u64::from_str_radix(digits, 16) {
            Ok(number) if digits.chars().all(|c| c.is_ascii_hexdigit()) => {
                let number = if sign.is_empty() { i128::from(number) } else { -i128::from(number) };
                Ok(Exact::Integer(number).number().map_or(Value::Null, Value::Number))
            }
            _ => Err(QueryError::syntax(
                position,
                format!("`{}` is not a number: after 0x, write up to 16 hexadecimal digits", shortened(text)),
            )),
        };
    }
    match serde_json::from_str::<Number>(&format!("{sign}{text}")) {
        // Minus zero equals zero, in every comparison and in print.
        Ok(number) if Exact::of(&number) == Exact::Integer(0) => Ok(Value::from(0)),
        Ok(number) => Ok(Value::Number(number)),
        Err(_) => {
            let message = format!(
                "`{}` is not a number as JSON writes them: digits, then `.` and digits, \
                 then `e` and an exponent, up to 1.79e308; a text needs quotes",
                shortened(text)
            );
            Err(QueryError::syntax(position, message))
        }
    }
}
