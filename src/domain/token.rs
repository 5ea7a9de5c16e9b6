//! What shows services who we are, until when it is good, and when that is worth a word.

use std::time::Duration;

use super::{wait::Wait, words::about};

/// Clients ask for a new token some minutes before the end of the old one. A failure that is this near to it is no longer early.
const NEAR: Duration = Duration::from_secs(15 * 60);
/// A signature is renewed by a person, who needs some days.
const SIGNATURE_NEAR: Duration = Duration::from_secs(7 * 86_400);

/// Something with an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// What it is, e.g. `the token for Event Hubs`.
    pub what: String,
    /// Whether a person renews it.
    pub by_hand: bool,
    /// How long it is good for; zero: it has ended. `None`: there was none yet.
    pub left: Option<Duration>,
    /// Why there was no new one when it was asked for last, unless that went well.
    pub failed: Option<String>,
}

/// What is worth a word about it. It is a worry and no obstacle: what fails without it says so itself.
pub fn worry(token: &Token) -> Option<Wait> {
    let Token { what, by_hand, left, failed } = token;
    let near = if *by_hand { SIGNATURE_NEAR } else { NEAR };
    let text = match (left, by_hand, failed) {
        (Some(left), true, _) if left.is_zero() => format!("{what} has expired: make a new one"),
        (Some(left), true, _) if *left < near => {
            format!("{what} expires in {}: make a new one", about(*left))
        }
        (Some(left), false, Some(_)) if left.is_zero() => format!("{what} has expired and is not renewed"),
        (Some(left), false, Some(_)) if *left < near => {
            format!("{what} expires in {} and is not renewed", about(*left))
        }
        (None, false, Some(_)) => format!("{what} is not given"),
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
            (false, Some(60), None, None), // it is renewed in time
            (false, Some(0), None, None),  // nobody needs it at present
            (false, Some(3600), Some("503"), None),
            (false, Some(299), Some("503"), told("it expires in 5 min and is not renewed (503)")),
            (false, Some(0), Some("503"), told("it has expired and is not renewed (503)")),
            (false, None, Some("503"), told("it is not given (503)")),
            (false, None, None, None),
            (true, Some(8 * 86_400), None, None),
            (true, Some(3 * 86_400), None, told("it expires in 3 days: make a new one ()")),
            (true, Some(0), None, told("it has expired: make a new one ()")),
        ] {
            assert_eq!(said(by_hand, left, failed), expected, "{by_hand} {left:?} {failed:?}");
        }
    }
}
