//! Tokens → query, by recursive descent. Depth is bounded, since a query comes from outside.

use serde_json::Value;

use super::{
    Collection, Column, Query, QueryError, Selection,
    condition::{Comparison, Condition, Operand, TextTest},
    path::Path,
    token::{Token, error, tokens},
};

/// How deep conditions may be nested.
const DEEPEST: usize = 64;

pub(super) fn parse(text: &str) -> Result<Query, QueryError> {
    let mut parser = Parser { tokens: tokens(text)?, at: 0, end: text.chars().count() };
    parser.expect_word("SELECT")?;
    let selection = parser.selection()?;
    parser.expect_word("FROM")?;
    let collection = parser.collection()?;
    let condition = if parser.accept_word("WHERE") { Some(parser.either(0)?) } else { None };
    match parser.peek() {
        None => Ok(Query { selection, collection, condition }),
        Some(_) => Err(parser.problem("nothing is expected after the condition")),
    }
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    at: usize,
    end: usize,
}

impl Parser {
    fn selection(&mut self) -> Result<Selection, QueryError> {
        if self.accept("*") {
            return Ok(Selection::Twins);
        }
        if !self.is_call() {
            return self.columns();
        }
        self.expect_word("COUNT")?;
        self.expect("(")?;
        self.expect(")")?;
        self.expect_word("AS")?;
        Ok(Selection::Count(self.word()?))
    }

    fn columns(&mut self) -> Result<Selection, QueryError> {
        let mut columns: Vec<Column> = Vec::new();
        loop {
            let at = self.place();
            let path = self.path()?;
            let name = if self.accept_word("AS") { self.word()? } else { path.name().to_owned() };
            if columns.iter().any(|column| column.name == name) {
                return Err(error(at, format!("a second column would be named {name:?}")));
            }
            columns.push(Column { name, path });
            if !self.accept(",") {
                return Ok(Selection::Columns(columns));
            }
        }
    }

    fn collection(&mut self) -> Result<Collection, QueryError> {
        if !self.accept_word("devices") {
            return Err(self.problem("only devices and devices.modules can be queried here"));
        }
        if !self.accept(".") {
            return Ok(Collection::Devices);
        }
        if !self.accept_word("modules") {
            return Err(self.problem("of devices, only modules can be queried here"));
        }
        Ok(Collection::Modules)
    }

    fn either(&mut self, depth: usize) -> Result<Condition, QueryError> {
        let mut conditions = vec![self.both(depth)?];
        while self.accept_word("OR") {
            conditions.push(self.both(depth)?);
        }
        Ok(Condition::Any(conditions))
    }

    fn both(&mut self, depth: usize) -> Result<Condition, QueryError> {
        let mut conditions = vec![self.negation(depth)?];
        while self.accept_word("AND") {
            conditions.push(self.negation(depth)?);
        }
        Ok(Condition::All(conditions))
    }

    fn negation(&mut self, depth: usize) -> Result<Condition, QueryError> {
        if depth > DEEPEST {
            return Err(self.problem("conditions are nested too deeply"));
        }
        if self.accept_word("NOT") {
            return Ok(Condition::Not(Box::new(self.negation(depth + 1)?)));
        }
        if self.accept("(") {
            let condition = self.either(depth + 1)?;
            self.expect(")")?;
            return Ok(condition);
        }
        self.test()
    }

    fn test(&mut self) -> Result<Condition, QueryError> {
        if self.is_call() {
            return self.function();
        }
        let left = self.operand()?;
        for (keyword, negated) in [("IN", false), ("NIN", true)] {
            if self.accept_word(keyword) {
                let found = Condition::In(left, self.list()?);
                return Ok(if negated { Condition::Not(Box::new(found)) } else { found });
            }
        }
        let comparison = self.comparison()?;
        Ok(Condition::Compare(left, comparison, self.operand()?))
    }

    fn function(&mut self) -> Result<Condition, QueryError> {
        let test = if self.accept_word("IS_DEFINED") {
            None
        } else if self.accept_word("STARTSWITH") {
            Some(TextTest::StartsWith)
        } else if self.accept_word("ENDSWITH") {
            Some(TextTest::EndsWith)
        } else {
            return Err(self.problem("only IS_DEFINED, STARTSWITH and ENDSWITH are known here"));
        };
        self.expect("(")?;
        let path = self.path()?;
        let condition = match test {
            None => Condition::IsDefined(path),
            Some(test) => {
                self.expect(",")?;
                let Value::String(text) = self.literal()? else {
                    return Err(self.problem("the second argument is a text"));
                };
                Condition::Text(path, test, text)
            }
        };
        self.expect(")")?;
        Ok(condition)
    }

    fn comparison(&mut self) -> Result<Comparison, QueryError> {
        let signs = [
            ("=", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<>", Comparison::NotEqual),
            ("<=", Comparison::AtMost),
            (">=", Comparison::AtLeast),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        for (sign, comparison) in signs {
            if self.accept(sign) {
                return Ok(comparison);
            }
        }
        Err(self.problem("a comparison or IN is expected here"))
    }

    fn list(&mut self) -> Result<Vec<Value>, QueryError> {
        self.expect("[")?;
        let mut values = vec![self.literal()?];
        while self.accept(",") {
            values.push(self.literal()?);
        }
        self.expect("]")?;
        Ok(values)
    }

    fn operand(&mut self) -> Result<Operand, QueryError> {
        let is_path = match self.peek() {
            Some(Token::Word(word)) => constant(word).is_none(),
            Some(Token::Literal(_) | Token::Sign(_)) | None => false,
        };
        if is_path { self.path().map(Operand::Path) } else { self.literal().map(Operand::Literal) }
    }

    fn path(&mut self) -> Result<Path, QueryError> {
        let mut root = self.word()?;
        if root.eq_ignore_ascii_case("devices") && self.accept(".") {
            root = self.word()?;
        }
        let mut below = Vec::new();
        while self.accept(".") {
            below.push(self.word()?);
        }
        Ok(Path::new(root, below))
    }

    fn literal(&mut self) -> Result<Value, QueryError> {
        let value = match self.peek() {
            Some(Token::Literal(value)) => Some(value.clone()),
            Some(Token::Word(word)) => constant(word),
            Some(Token::Sign(_)) | None => None,
        };
        let value =
            value.ok_or_else(|| self.problem("a text, a number, true, false or null is expected here"))?;
        self.at += 1;
        Ok(value)
    }

    fn word(&mut self) -> Result<String, QueryError> {
        let Some(Token::Word(word)) = self.peek().cloned() else {
            return Err(self.problem("a name is expected here"));
        };
        self.at += 1;
        Ok(word)
    }

    fn expect_word(&mut self, keyword: &str) -> Result<(), QueryError> {
        if self.accept_word(keyword) {
            Ok(())
        } else {
            Err(self.problem(format!("{keyword} is expected here")))
        }
    }

    fn expect(&mut self, sign: &str) -> Result<(), QueryError> {
        if self.accept(sign) { Ok(()) } else { Err(self.problem(format!("{sign:?} is expected here"))) }
    }

    fn accept_word(&mut self, keyword: &str) -> bool {
        let accepted = matches!(self.peek(), Some(Token::Word(word)) if word.eq_ignore_ascii_case(keyword));
        self.at += usize::from(accepted);
        accepted
    }

    fn accept(&mut self, sign: &str) -> bool {
        let accepted = matches!(self.peek(), Some(Token::Sign(found)) if *found == sign);
        self.at += usize::from(accepted);
        accepted
    }

    /// Whether a name and an opening parenthesis follow.
    fn is_call(&self) -> bool {
        matches!(self.tokens.get(self.at + 1), Some((_, Token::Sign("("))))
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(_, token)| token)
    }

    fn problem(&self, reason: impl Into<String>) -> QueryError {
        error(self.place(), reason)
    }

    /// Where the next token is in the text.
    fn place(&self) -> usize {
        self.tokens.get(self.at).map_or(self.end, |(at, _)| *at)
    }
}

fn constant(word: &str) -> Option<Value> {
    match word.to_ascii_lowercase().as_str() {
        "true" => Some(Value::Bool(true)),
        "false" => Some(Value::Bool(false)),
        "null" => Some(Value::Null),
        _ => None,
    }
}
