//! Durations and sizes as people write them: `1h30m`, `64MiB`.
//!
//! The unit is mandatory: without it, one person reads a number as seconds and another as milliseconds.

use std::time::Duration;

/// Units of time, in milliseconds.
const TIME_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Units of size, in bytes.
const SIZE_UNITS: [(&str, u64); 7] = [
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// Parses a duration: one or more whole numbers, each with a unit of `ms`, `s`, `m`, `h`, `d`.
///
/// # Errors
/// One sentence that says what is wrong and what to write instead.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    total(text, &TIME_UNITS, "a duration", "\"5s\", \"250ms\" or \"1h30m\"").map(Duration::from_millis)
}

/// Parses a size in bytes: one or more whole numbers, each with a unit such as `B`, `KiB`, `MiB`, `GiB`.
///
/// # Errors
/// One sentence that says what is wrong and what to write instead.
pub fn parse_size(text: &str) -> Result<usize, String> {
    let bytes = total(text, &SIZE_UNITS, "a size", "\"64MiB\" or \"512KiB\"")?;
    usize::try_from(bytes).map_err(|_| format!("{text:?} is more than this machine can address"))
}

/// Adds up the `number unit` pairs of `text`.
fn total(text: &str, units: &[(&str, u64)], what: &str, examples: &str) -> Result<u64, String> {
    let known = || units.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(format!("is empty: write {what} such as {examples}"));
    }
    let mut sum = 0_u64;
    while !rest.is_empty() {
        let digits = leading(rest, |character| character.is_ascii_digit());
        if digits.is_empty() {
            return Err(format!(
                "{text:?} is not {what}: write whole numbers with a unit, such as {examples}"
            ));
        }
        rest = rest[digits.len()..].trim_start();
        let unit = leading(rest, |character| !character.is_ascii_digit() && !character.is_whitespace());
        rest = rest[unit.len()..].trim_start();
        if unit.is_empty() {
            return Err(format!("{text:?} has no unit ({}): write {examples}", known()));
        }
        let Some((_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("{text:?} has the unknown unit {unit:?}: use one of {}", known()));
        };
        sum = digits
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(*factor))
            .and_then(|amount| sum.checked_add(amount))
            .ok_or_else(|| format!("{text:?} is too large"))?;
    }
    Ok(sum)
}

/// The longest prefix of `text` whose characters all satisfy `belongs`.
fn leading(text: &str, belongs: impl Fn(char) -> bool) -> &str {
    let end = text.find(|character| !belongs(character)).unwrap_or(text.len());
    &text[..end]
}

/// Whether the text is an id of the form 8-4-4-4-12, like the ids in Microsoft Entra ID.
pub fn is_guid(text: &str) -> bool {
    let is_hex = |group: &str| group.bytes().all(|byte| byte.is_ascii_hexdigit());
    text.split('-').map(|group| is_hex(group).then_some(group.len())).eq([8, 4, 4, 4, 12].map(Some))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_sums_of_units() {
        for (text, milliseconds) in [
            ("0s", 0),
            ("250ms", 250),
            ("5s", 5_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            (" 2 s ", 2_000),
            ("8d", 691_200_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn sizes_know_binary_and_decimal_units() {
        for (text, bytes) in [("0B", 0), ("512KiB", 524_288), ("64MiB", 67_108_864), ("1MB", 1_000_000)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn every_refusal_says_what_to_write() {
        for (text, hint) in [
            ("", "such as"),
            ("5", "has no unit"),
            ("5 10s", "has no unit"),
            ("five", "whole numbers with a unit"),
            ("-5s", "whole numbers with a unit"),
            ("1.5s", "unknown unit"),
            ("5sec", "use one of ms, s, m, h, d"),
            ("999999999999999999999s", "too large"),
            ("18446744073709551615d", "too large"),
            ("5ß", "unknown unit"),
        ] {
            let refusal = parse_duration(text).expect_err(text);
            assert!(refusal.contains(hint), "{text}: {refusal}");
        }
        assert!(parse_size("64mb").expect_err("case matters").contains("MiB"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,20}") {
            let _ = parse_duration(&text);
            let _ = parse_size(&text);
        }
    }
}
