//! A token that was obtained.

use std::time::Duration;

use super::{Finding, words};

/// A fresh token with less time left is renewed again at once: azure_identity keeps no token with less than five
/// minutes left.
const SHORTEST: Duration = Duration::from_secs(5 * 60);

/// Evaluates a token with this much time left, by this machine's clock; `None` if it has ended.
pub fn token(left: Option<Duration>) -> Finding {
    const REMEDY: &str = "correct this machine's clock (e.g. `timedatectl set-ntp true`), and check the lifetime of tokens in the directory";
    match left {
        None => Finding::fail(
            "CLOCK_SKEW",
            "the token that was just issued has already expired by this machine's clock",
            REMEDY,
        ),
        Some(left) if left < SHORTEST => Finding::warn(
            "CLOCK_SKEW",
            format!(
                "the token that was just issued expires in {} by this machine's clock",
                words::duration(left)
            ),
            REMEDY,
        ),
        Some(left) => Finding::ok(format!("a token that expires in {}", words::duration(left))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::checks::Verdict;

    #[test]
    fn a_fresh_token_that_is_old_shows_the_clock() {
        let verdict = |seconds| token(Some(Duration::from_secs(seconds))).verdict();
        assert_eq!(token(None).verdict(), Verdict::Fail);
        assert_eq!((verdict(299), verdict(300)), (Verdict::Warn, Verdict::Ok));
        assert!(token(Some(Duration::from_secs(3600))).text().contains("1 h"));
    }
}
