//! The parser's position, and the parts of the language that every clause has: words, paths, literals.

use serde_json::Value;

use super::super::{
    Dialect, QueryError,
    error::error,
    path::Path,
    token::{Token, tokens},
};

/// Words that a path cannot begin with. After a dot, or as `[[name]]`, they are ordinary names.
const RESERVED: [&str; 18] = [
    "SELECT", "TOP", "FROM", "WHERE", "GROUP", "ORDER", "BY", "AS", "ASC", "DESC", "AND", "OR", "NOT", "IN",
    "NIN", "TRUE", "FALSE", "NULL",
];

pub(super) struct Cursor {
    tokens: Vec<(usize, Token)>,
    next: usize,
    end: usize,
    dialect: Dialect,
}

impl Cursor {
    pub(super) fn new(text: &str, dialect: Dialect) -> Result<Self, QueryError> {
        Ok(Self { tokens: tokens(text)?, next: 0, end: text.chars().count(), dialect })
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    pub(super) fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(_, token)| token)
    }

    pub(super) fn advance(&mut self) {
        self.next += 1;
    }

    /// The position of the next token in the text.
    pub(super) fn place(&self) -> usize {
        self.tokens.get(self.next).map_or(self.end, |(at, _)| *at)
    }

    pub(super) fn problem(&self, reason: impl Into<String>) -> QueryError {
        error(self.place(), reason)
    }

    /// The word before an opening parenthesis, in capitals. The cursor stays before it.
    pub(super) fn function(&self) -> Option<String> {
        match self.tokens.get(self.next..) {
            Some([(_, Token::Word(name)), (_, Token::Sign("(")), ..]) => Some(name.to_ascii_uppercase()),
            _ => None,
        }
    }

    pub(super) fn accept(&mut self, sign: &str) -> bool {
        let accepted = matches!(self.peek(), Some(Token::Sign(found)) if *found == sign);
        self.next += usize::from(accepted);
        accepted
    }

    pub(super) fn accept_word(&mut self, keyword: &str) -> bool {
        let accepted = matches!(self.peek(), Some(Token::Word(word)) if word.eq_ignore_ascii_case(keyword));
        self.next += usize::from(accepted);
        accepted
    }

    pub(super) fn expect(&mut self, sign: &str) -> Result<(), QueryError> {
        if self.accept(sign) { Ok(()) } else { Err(self.problem(format!("{sign:?} is expected here"))) }
    }

    pub(super) fn expect_word(&mut self, keyword: &str) -> Result<(), QueryError> {
        if self.accept_word(keyword) {
            Ok(())
        } else {
            Err(self.problem(format!("{keyword} is expected here")))
        }
    }

    pub(super) fn expect_end(&self) -> Result<(), QueryError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.problem("unexpected text: the query is complete before it")),
        }
    }

    /// Parses a part of a path, or an alias.
    pub(super) fn name(&mut self) -> Result<String, QueryError> {
        let Some(Token::Word(name) | Token::Name(name)) = self.peek().cloned() else {
            return Err(self.problem("a name is expected here"));
        };
        self.advance();
        Ok(name)
    }

    pub(super) fn path(&mut self) -> Result<Path, QueryError> {
        if let Some(Token::Word(word)) = self.peek()
            && RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(word))
        {
            return Err(self.problem(format!("a path is expected here, but {word} is a keyword")));
        }
        let is_prefix = self.is_prefix();
        let mut names = vec![self.name()?];
        while self.accept(".") {
            names.push(self.name()?);
        }
        let mut names = names.into_iter().skip(usize::from(is_prefix));
        let root = names.next().unwrap_or_default();
        Ok(Path::new(root, names.collect()))
    }

    /// Whether `devices.` is next.
    fn is_prefix(&self) -> bool {
        matches!(
            self.tokens.get(self.next..),
            Some([(_, Token::Word(word)), (_, Token::Sign(".")), ..]) if word.eq_ignore_ascii_case("devices")
        )
    }

    /// The next token, if it is a literal. The cursor stays before it.
    pub(super) fn peek_literal(&self) -> Option<Value> {
        match self.peek()? {
            Token::Literal(value) => Some(value.clone()),
            Token::Word(word) => constant(word),
            Token::Name(_) | Token::Sign(_) => None,
        }
    }

    pub(super) fn literal(&mut self) -> Result<Value, QueryError> {
        let value = self
            .peek_literal()
            .ok_or_else(|| self.problem("a string, a number, true, false or null is expected here"))?;
        self.advance();
        Ok(value)
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
