//! Splits text into tokens.

use serde_json::Value;

use super::{QueryError, error::error, literal};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A keyword, a function or a part of a path.
    Word(String),
    /// A part of a path that cannot be a keyword: `[[name]]`, without its brackets.
    Name(String),
    Literal(Value),
    /// `( ) [ ] , . *` and the operators.
    Sign(&'static str),
}

/// The longest come first, so that `<=` is not parsed as `<`.
const SIGNS: [&str; 14] = ["!=", "<>", "<=", ">=", "=", "<", ">", "(", ")", "[", "]", ",", ".", "*"];

/// Returns the tokens with their positions, in characters from 0.
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, QueryError> {
    let characters: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = characters.get(at).copied() {
        if first.is_whitespace() {
            at += 1;
            continue;
        }
        // A part of a path may begin with a digit.
        let follows_dot = matches!(tokens.last(), Some((_, Token::Sign("."))));
        let (token, length) = token(characters.get(at..).unwrap_or_default(), at, follows_dot)?;
        tokens.push((at, token));
        at += length;
    }
    Ok(tokens)
}

/// Returns the first token of the rest, and its length in characters.
fn token(rest: &[char], at: usize, follows_dot: bool) -> Result<(Token, usize), QueryError> {
    let literal = |(value, length)| (Token::Literal(value), length);
    match rest {
        ['\'' | '"', ..] => literal::text(rest, at).map(literal),
        ['[', '[', ..] => name(rest, at),
        _ if literal::is_number(rest) && !follows_dot => literal::number(rest, at).map(literal),
        [first, ..] if is_word(*first) => Ok(word(rest)),
        _ => sign(rest).ok_or_else(|| unknown(rest, at)),
    }
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '$')
}

fn word(rest: &[char]) -> (Token, usize) {
    let word: Vec<char> = rest.iter().copied().take_while(|next| is_word(*next)).collect();
    (Token::Word(word.iter().collect()), word.len())
}

/// Parses a name that ends at the first `]]`.
fn name(rest: &[char], at: usize) -> Result<(Token, usize), QueryError> {
    let inner = rest.get(2..).unwrap_or_default();
    let length = inner.windows(2).position(|pair| pair == [']', ']']);
    let length = length.ok_or_else(|| error(at, "the name has no closing ]]"))?;
    Ok((Token::Name(inner.iter().take(length).collect()), length + 4))
}

fn sign(rest: &[char]) -> Option<(Token, usize)> {
    SIGNS.into_iter().find_map(|sign| {
        let length = sign.len();
        let matches = rest.get(..length).is_some_and(|start| start.iter().copied().eq(sign.chars()));
        matches.then_some((Token::Sign(sign), length))
    })
}

fn unknown(rest: &[char], at: usize) -> QueryError {
    let character = rest.first().copied().unwrap_or_default();
    error(
        at,
        format!("{character:?} is not part of the language: a name that contains it is written as [[name]]"),
    )
}
