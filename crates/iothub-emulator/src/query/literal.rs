//! Number and string literals of a query, parsed from their first character. Each is returned with its length
//! in characters.

use serde_json::{Number, Value};

use super::{QueryError, error::error};

pub(super) fn is_number(rest: &[char]) -> bool {
    match rest {
        ['-', next, ..] => next.is_ascii_digit(),
        [first, ..] => first.is_ascii_digit(),
        [] => false,
    }
}

/// Takes all characters that could belong to a number, so that `1x` is an error instead of a number followed
/// by a name.
pub(super) fn number(rest: &[char], at: usize) -> Result<(Value, usize), QueryError> {
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
    Ok((Value::Number(number), text.len()))
}

/// A string in single or double quotes, with the escapes of JSON and `\'`.
pub(super) fn text(rest: &[char], at: usize) -> Result<(Value, usize), QueryError> {
    let Some((quote, rest)) = rest.split_first() else {
        return Err(error(at, "a string begins with a quote"));
    };
    let mut text = String::new();
    let mut index = 0;
    loop {
        let rest = rest.get(index..).unwrap_or_default();
        let (character, length) = match rest {
            [] => return Err(error(at, "the string has no closing quote")),
            [end, ..] if end == quote => return Ok((Value::String(text), index + 2)),
            ['\\', ..] => escaped(rest).ok_or_else(|| error(at + index + 1, "unknown escape in a string"))?,
            [next, ..] => (*next, 1),
        };
        text.push(character);
        index += length;
    }
}

fn escaped(rest: &[char]) -> Option<(char, usize)> {
    let character = match rest.get(1)? {
        'u' => return unicode(rest),
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        same @ ('\'' | '"' | '\\' | '/') => *same,
        _ => return None,
    };
    Some((character, 2))
}

/// `\u0041`, or two of them for a character that needs two UTF-16 units.
fn unicode(rest: &[char]) -> Option<(char, usize)> {
    let first = unit(rest)?;
    if let Some(character) = char::from_u32(u32::from(first)) {
        return Some((character, 6));
    }
    let second = unit(rest.get(6..)?)?;
    let character = char::decode_utf16([first, second]).next()?.ok()?;
    Some((character, 12))
}

fn unit(rest: &[char]) -> Option<u16> {
    let ['\\', 'u', digits @ ..] = rest else { return None };
    let code = digits.get(..4)?.iter().try_fold(0, |code, digit| Some(code * 16 + digit.to_digit(16)?))?;
    u16::try_from(code).ok()
}
