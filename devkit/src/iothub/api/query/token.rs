//! Text → tokens.

use serde_json::{Number, Value};

use super::QueryError;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A keyword, a function or a part of a path.
    Word(String),
    Literal(Value),
    /// `( ) [ ] , . *` and the operators.
    Sign(&'static str),
}

/// Longest first, so that `<=` is not read as `<`.
const SIGNS: [&str; 15] = ["!=", "<>", "<=", ">=", "=", "<", ">", "(", ")", "[", "]", ",", ".", "*", "-"];

/// The tokens with their places, counted in characters from 0.
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, QueryError> {
    let characters: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = characters.get(at).copied() {
        let rest = characters.get(at..).unwrap_or_default();
        let (token, length) = match first {
            _ if first.is_whitespace() => {
                at += 1;
                continue;
            }
            '\'' | '"' => string(rest, at)?,
            _ if is_number(rest) => number(rest, at)?,
            _ if is_word(first) => {
                let word: String = rest.iter().take_while(|next| is_word(**next)).collect();
                let length = word.chars().count();
                (Token::Word(word), length)
            }
            _ => sign(rest).ok_or_else(|| error(at, format!("{first:?} is not part of the language")))?,
        };
        tokens.push((at, token));
        at += length;
    }
    Ok(tokens)
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '$')
}

fn is_number(rest: &[char]) -> bool {
    match rest {
        ['-', next, ..] => next.is_ascii_digit(),
        [first, ..] => first.is_ascii_digit(),
        [] => false,
    }
}

fn number(rest: &[char], at: usize) -> Result<(Token, usize), QueryError> {
    let mut text = String::new();
    for next in rest {
        let follows_exponent = text.ends_with(['e', 'E']);
        let belongs = next.is_ascii_alphanumeric()
            || *next == '.'
            || matches!(next, '-' | '+') && (text.is_empty() || follows_exponent);
        if !belongs {
            break;
        }
        text.push(*next);
    }
    let number: Number =
        serde_json::from_str(&text).map_err(|_| error(at, format!("{text:?} is not a number")))?;
    let length = text.len();
    Ok((Token::Literal(Value::Number(number)), length))
}

fn string(rest: &[char], at: usize) -> Result<(Token, usize), QueryError> {
    let Some((quote, rest)) = rest.split_first() else {
        return Err(error(at, "a text begins with a quote"));
    };
    let mut text = String::new();
    let mut index = 0;
    loop {
        match rest.get(index..).unwrap_or_default() {
            [] => return Err(error(at, "the text has no closing quote")),
            [end, ..] if end == quote => {
                return Ok((Token::Literal(Value::String(text)), index + 2));
            }
            ['\\', 'u', digits @ ..] => {
                let digits: String = digits.iter().take(4).collect();
                let code = u32::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 4);
                let character = code.and_then(char::from_u32);
                text.push(character.ok_or_else(|| error(at + index + 1, "\\u is followed by four digits"))?);
                index += 6;
            }
            ['\\', escaped @ ('\'' | '"' | '\\'), ..] => {
                text.push(*escaped);
                index += 2;
            }
            ['\\', ..] => return Err(error(at + index + 1, "no such escape in a text")),
            [next, ..] => {
                text.push(*next);
                index += 1;
            }
        }
    }
}

fn sign(rest: &[char]) -> Option<(Token, usize)> {
    SIGNS.into_iter().find_map(|sign| {
        let length = sign.len();
        let matches = rest.get(..length).is_some_and(|start| start.iter().copied().eq(sign.chars()));
        matches.then_some((Token::Sign(sign), length))
    })
}

pub(super) fn error(at: usize, reason: impl Into<String>) -> QueryError {
    QueryError { at, reason: reason.into() }
}
