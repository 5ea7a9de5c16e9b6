//! Words, texts, numbers and signs of a query, with the position of each.
//!
//! Tokens are read one at a time, when the parser asks for them: only the parser knows whether `[[` begins an escaped
//! name or a list inside a list.

use super::error::QueryError;

/// One token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A name or a keyword, as written.
    Word(String),
    /// A text, without its quotes.
    Text(String),
    /// A token that begins with a digit, as written: not parsed yet.
    Number(String),
    /// `[[`: the start of an escaped name, or of a list inside a list.
    DoubleOpen,
    /// Any other sign.
    Sign(&'static str),
    /// The end of the query.
    End,
}

impl Token {
    /// How a message quotes it.
    pub(super) fn quoted(&self) -> String {
        match self {
            Self::Word(word) => format!("`{}`", shortened(word)),
            Self::Text(_) => "a text in quotes".to_owned(),
            Self::Number(number) => format!("`{}`", shortened(number)),
            Self::DoubleOpen => "`[[`".to_owned(),
            Self::Sign(sign) => format!("`{sign}`"),
            Self::End => "the end of the query".to_owned(),
        }
    }
}

/// The tokens of a query: the current one, and the characters after it.
#[derive(Debug)]
pub(super) struct Tokens {
    characters: Vec<char>,
    /// The first character after the current token.
    next: usize,
    /// The start of the current token.
    start: usize,
    current: Token,
}

/// Signs; a longer sign comes before its prefixes.
const SIGNS: [&str; 18] =
    ["!=", "<>", "<=", ">=", "=", "<", ">", "(", ")", "[", "]", ",", ".", "*", "-", "+", "/", "%"];

impl Tokens {
    /// Reads the first token of `text`.
    pub(super) fn new(text: &str) -> Result<Self, QueryError> {
        let characters = text.chars().collect();
        let mut tokens = Self { characters, next: 0, start: 0, current: Token::End };
        tokens.advance()?;
        Ok(tokens)
    }

    /// The current token.
    pub(super) fn current(&self) -> &Token {
        &self.current
    }

    /// The position of the current token.
    pub(super) fn position(&self) -> usize {
        self.start
    }

    /// Whether the current token follows the previous one directly; the previous one began at `before` and is `length`
    /// characters long.
    pub(super) fn touches(&self, before: usize, length: usize) -> bool {
        before + length == self.start
    }

    /// Reads the next token.
    pub(super) fn advance(&mut self) -> Result<(), QueryError> {
        while self.at(self.next).is_some_and(char::is_whitespace) {
            self.next += 1;
        }
        self.start = self.next;
        self.current = match self.at(self.start) {
            None => Token::End,
            Some(first) if begins_name(first) => Token::Word(self.take_while(continues_name)),
            Some(first) if first.is_ascii_digit() => Token::Number(self.number()),
            Some(quote @ ('\'' | '"')) => Token::Text(self.text(quote)?),
            Some('[') if self.at(self.start + 1) == Some('[') => {
                self.next += 2;
                Token::DoubleOpen
            }
            Some(other) => Token::Sign(self.sign(other)?),
        };
        Ok(())
    }

    /// Splits `[[` into two signs; the first one becomes the current token.
    pub(super) fn split(&mut self) {
        if self.current == Token::DoubleOpen {
            self.next = self.start + 1;
            self.current = Token::Sign("[");
        }
    }

    /// The name between the current token `[[` and the `]]` that ends it. Reads the token after it.
    ///
    /// If there are more than two closing brackets in a row, the last two end the name.
    pub(super) fn escaped(&mut self) -> Result<String, QueryError> {
        let begin = self.next;
        let ends = |at: usize| self.at(at) == Some(']') && self.at(at + 1) == Some(']');
        let end = (begin..self.characters.len()).find(|at| ends(*at) && self.at(at + 2) != Some(']'));
        let Some(end) = end else {
            return Err(QueryError::syntax(self.start, "an escaped name has no end: close it with `]]`"));
        };
        if end == begin {
            return Err(QueryError::syntax(
                self.start,
                "an escaped name is empty: write the name between `[[` and `]]`",
            ));
        }
        let name = self.characters.get(begin..end).unwrap_or_default().iter().collect();
        self.next = end + 2;
        self.advance()?;
        Ok(name)
    }

    fn at(&self, index: usize) -> Option<char> {
        self.characters.get(index).copied()
    }

    fn take_while(&mut self, belongs: impl Fn(char) -> bool) -> String {
        let rest = self.characters.get(self.next..).unwrap_or_default();
        let word: String = rest.iter().take_while(|c| belongs(**c)).collect();
        self.next += word.chars().count();
        word
    }

    /// All characters that can be in a number, and letters that cannot: a message then quotes all of them.
    fn number(&mut self) -> String {
        let mut number = String::new();
        while let Some(c) = self.at(self.next) {
            let is_hexadecimal = number.starts_with("0x") || number.starts_with("0X");
            let signs_exponent = matches!(c, '+' | '-') && number.ends_with(['e', 'E']) && !is_hexadecimal;
            if !(c == '.' || continues_name(c) || signs_exponent) {
                break;
            }
            number.push(c);
            self.next += 1;
        }
        number
    }

    fn text(&mut self, quote: char) -> Result<String, QueryError> {
        let mut text = String::new();
        self.next += 1;
        loop {
            let at = self.next;
            self.next += 1;
            match self.at(at) {
                None => {
                    let message = format!("a text has no end: close it with {quote}");
                    return Err(QueryError::syntax(self.start, message));
                }
                Some('\\') => text.push(self.escape(at)?),
                Some(c) if c == quote => return Ok(text),
                Some(c) => text.push(c),
            }
        }
    }

    /// The character of the escape whose backslash is at `begin`; continues after it.
    fn escape(&mut self, begin: usize) -> Result<char, QueryError> {
        let letter = self.at(self.next);
        self.next += 1;
        Ok(match letter {
            Some(same @ ('\'' | '"' | '\\' | '/')) => same,
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => self.unicode(begin)?,
            Some(_) | None => {
                let message = "a backslash begins one of \\' \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX: \
                    write \\\\ for the backslash itself";
                return Err(QueryError::syntax(begin, message));
            }
        })
    }

    fn unicode(&mut self, begin: usize) -> Result<char, QueryError> {
        let first = self.unit(begin)?;
        let is_pair = (0xD800..0xDC00).contains(&first)
            && self.at(self.next) == Some('\\')
            && self.at(self.next + 1) == Some('u');
        let units = if is_pair {
            self.next += 2;
            vec![first, self.unit(begin)?]
        } else {
            vec![first]
        };
        let mut decoded = char::decode_utf16(units);
        match (decoded.next(), decoded.next()) {
            (Some(Ok(c)), None) => Ok(c),
            _ => Err(QueryError::syntax(
                begin,
                "\\u names half of a surrogate pair: write both halves, the high one first",
            )),
        }
    }

    fn unit(&mut self, begin: usize) -> Result<u16, QueryError> {
        let digits: String = (0..4).filter_map(|offset| self.at(self.next + offset)).collect();
        self.next += 4;
        if digits.chars().count() == 4
            && digits.chars().all(|c| c.is_ascii_hexdigit())
            && let Ok(unit) = u16::from_str_radix(&digits, 16)
        {
            return Ok(unit);
        }
        Err(QueryError::syntax(begin, "\\u needs four hexadecimal digits after it"))
    }

    fn sign(&mut self, first: char) -> Result<&'static str, QueryError> {
        let stands_here =
            |sign: &&&str| sign.chars().enumerate().all(|(i, c)| self.at(self.start + i) == Some(c));
        if let Some(sign) = SIGNS.iter().find(stands_here) {
            self.next += sign.len();
            return Ok(sign);
        }
        let advice = match first {
            ';' => "leave the `;` out".to_owned(),
            '@' => "there are no parameters: write the value itself".to_owned(),
            '!' => "write `!=` for not equal, or NOT before a condition".to_owned(),
            '&' => "write AND".to_owned(),
            '|' => "write OR".to_owned(),
            '`' => "write a name in [[ ]] and a text in quotes".to_owned(),
            c => format!(
                "write a name that has it in [[ ]], and a text in quotes; `{}` has no other place",
                c.escape_default()
            ),
        };
        let message = format!("`{}` means nothing here: {advice}", first.escape_default());
        Err(QueryError::syntax(self.start, message))
    }
}

/// A name as quoted in a message: shortened if it is very long.
pub(super) fn shortened(name: &str) -> String {
    const LENGTH_MAX: usize = 60;
    let mut rest = name.chars();
    let begin: String = rest.by_ref().take(LENGTH_MAX).collect();
    if rest.next().is_none() { begin } else { format!("{begin}…") }
}

/// Whether a name can begin with this character.
pub(super) fn begins_name(c: char) -> bool {
    c.is_alphabetic() || c == '_' || c == '$'
}

/// Whether a name can contain this character after its first one.
pub(super) fn continues_name(c: char) -> bool {
    begins_name(c) || c.is_ascii_digit()
}

#[cfg(test)]
mod tests;
