//! Lines on standard output, for people or for scripts.

use std::{
    fmt::{Display, Write as _},
    io::{self, Write as _},
};

use serde::Serialize;

use crate::cli::Error;

/// Prints one line.
///
/// # Errors
/// Standard output is closed.
pub(in crate::cli) fn line(text: impl Display) -> Result<(), Error> {
    writeln!(io::stdout(), "{text}").map_err(|error| Error::Failed(format!("cannot print: {error}")))
}

/// Prints one JSON object on one line.
///
/// # Errors
/// Standard output is closed.
pub(in crate::cli) fn json(value: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string(value);
    line(text.map_err(|error| Error::Failed(format!("cannot print: {error}")))?)
}

/// Text from outside, with the characters that could control a terminal escaped. Line breaks and tabs stay if `keep_lines` is set.
pub(in crate::cli) fn printable(text: &str, keep_lines: bool) -> String {
    /// Marks that reorder text, so that it would display as different text.
    const REORDERING: [std::ops::RangeInclusive<char>; 2] =
        ['\u{202a}'..='\u{202e}', '\u{2066}'..='\u{2069}'];
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        let steers = character.is_control() || REORDERING.into_iter().any(|marks| marks.contains(&character));
        if steers && !(keep_lines && matches!(character, '\n' | '\t')) {
            // Writing to a String cannot fail.
            let _ = write!(clean, "{}", character.escape_unicode());
        } else {
            clean.push(character);
        }
    }
    clean
}

/// `1 dead letter`, `2 dead letters`.
pub(in crate::cli) fn letters(count: u64) -> String {
    format!("{count} dead letter{}", if count == 1 { "" } else { "s" })
}

/// Pads the columns of a table to the widest cell, two spaces apart.
pub(in crate::cli) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\u{9b}c\n", false), "a\\u{1b}[2Jb\\u{9b}c\\u{a}");
        assert_eq!(printable("a\n\tb\r\u{202e}", true), "a\n\tb\\u{d}\\u{202e}");
        assert_eq!(printable("Ä 漢", false), "Ä 漢");
    }

    #[test]
    fn columns_line_up() {
        let rows = [["a", "bb", ""], ["ccc", "", "d"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows), "a    bb\nccc      d\n");
    }
}
