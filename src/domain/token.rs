//! How we authenticate to services: until when a token or signature is valid, and when to report it.

use std::time::Duration;

use super::{wait::Wait, words::about};

/// Clients ask for a new token some minutes before the end of the old one. If the old one ends within this time, a
/// failed renewal is reported.
const NEAR: Duration = Duration::from_secs(15 * 60);
/// A signature is renewed by an operator, who needs some days.
const SIGNATURE_NEAR: Duration = Duration::from_secs(7 * 86_400);

/// A token or signature with an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its description, e.g. `the token for Event Hubs`.
    pub what: String,
    /// Whether an operator renews it.
    pub by_hand: bool,
    /// How long it is still valid; zero if it has ended; `None` if there was none yet.
    pub left: Option<Duration>,
    /// Why the last attempt to get a new one failed, if it failed.
    pub failed: Option<String>,
}

/// What to report about it. It is a worry and not an obstacle, because operations that fail without it report that
/// themselves.
pub fn worry(token: &Token) -> Option<Wait> {
    let Token { what, by_hand, left, failed } = token;
    let near = if *by_hand { SIGNATURE_NEAR } else { NEAR };
    let text = match (left, by_hand, failed) {
        (Some(left), true, _) if left.is_zero() => format!("{what} has expired: create a new one"),
        (Some(left), true, _) if *left < near => {
            format!("{what} expires in {}: create a new one", about(*left))
        }
        (Some(left), false, Some(_)) if left.is_zero() => format!("{what} has expired and is not renewed"),
        (Some(left), false, Some(_)) if *left < near => {
            format!("{what} expires in {} and is not renewed", about(*left))
        }
        (None, false, Some(_)) => format!("{what} could not be obtained"),
        _ => return None,
    };
    Some(Wait { what: text, reason: failed.clone(), ..Wait::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(by_hand: bool, left: Option<u64>, failed: Option<&str>) -> Option<String> {
        let token = Token {
            what: "it".into(),
            by_hand,
            left: left.map(Duration::from_secs),
            failed: failed.map(str::to_owned),
        };
        let worry = worry(&token)?;
        Some(format!("{} ({})", worry.what, worry.reason.unwrap_or_default()))
    }

    #[test]
    fn an_end_that_is_near_is_told_where_nobody_renews_it() {
        let told = |text: &str| Some(text.to_owned());
        for (by_hand, left, failed, expected) in [
            (false, Some(3600), None, None),
            (false, Some(60), None, None), // it will be renewed in time
            (false, Some(0), None, None),  // it is not needed at present
            (false, Some(3600), Some("503"), None),
            (false, Some(299), Some("503"), told("it expires in 5 min and is not renewed (503)")),
            (false, Some(0), Some("503"), told("it has expired and is not renewed (503)")),
            (false, None, Some("503"), told("it could not be obtained (503)")),
            (false, None, None, None),
            (false, Some(900), Some("503"), None),
            (false, Some(899), Some("503"), told("it expires in 15 min and is not renewed (503)")),
            (true, Some(8 * 86_400), None, None),
            (true, Some(7 * 86_400), None, None),
            (true, Some(3 * 86_400), None, told("it expires in 3 days: create a new one ()")),
            (true, Some(0), None, told("it has expired: create a new one ()")),
        ] {
            assert_eq!(said(by_hand, left, failed), expected, "{by_hand} {left:?} {failed:?}");
        }
    }
}
