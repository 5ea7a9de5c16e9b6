//! An operation that a replica waits for: what it is, how long it has waited, and when the next attempt is.

use std::{collections::BTreeSet, time::Duration};

use super::{
    ticks::Ticks,
    words::{about, clock},
};

/// The number of planned attempts that are kept; more would not change which one is next.
const MOST_TRIES: usize = 64;

/// The maximum length of a reason in a sentence, in characters.
const LONGEST_REASON: usize = 120;

/// When a failed operation is tried again, by all tasks that try it. Times are since any fixed start.
#[derive(Debug, Default)]
pub struct NextTries(BTreeSet<Duration>);

impl NextTries {
    /// A task tries again at `at`.
    pub fn plan(&mut self, at: Duration, now: Duration) {
        self.0 = self.0.split_off(&now);
        self.0.insert(at);
        if self.0.len() > MOST_TRIES {
            self.0.pop_last();
        }
    }

    /// Time until the next attempt; `None` if none is planned, or one is under way.
    pub fn next(&self, now: Duration) -> Option<Duration> {
        self.0.range(now..).next().map(|at| at.saturating_sub(now))
    }

    /// The operation succeeded: no attempts are planned.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// Something that does not proceed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wait {
    /// What is wrong, worded so that "since 14:02" can follow.
    pub what: String,
    /// How long it has lasted, if known.
    pub lasts: Option<Duration>,
    /// Time until the next attempt, if one is planned.
    pub next_try: Option<Duration>,
    /// The error message, if there is one.
    pub reason: Option<String>,
}

impl Wait {
    /// One sentence, without capital and full stop, e.g. `twins/1 waits for the dead-letter store since 14:02 UTC, next try in
    /// 12 s: disk full`.
    pub fn told(&self, now: Ticks) -> String {
        let mut text = self.what.clone();
        if let Some(lasts) = self.lasts {
            text += &format!(" since {}", clock(now.before(lasts), now));
        }
        if let Some(next_try) = self.next_try {
            text += &match next_try < Duration::from_secs(1) {
                true => ", next try in a moment".to_owned(),
                false => format!(", next try in {}", about(next_try)),
            };
        }
        if let Some(reason) = &self.reason {
            text += &format!(": {}", brief(reason));
        }
        text
    }
}

/// The beginning of a reason, and the code at its end. The full reason is shown beside the sentence.
fn brief(reason: &str) -> String {
    let Some((end, _)) = reason.char_indices().nth(LONGEST_REASON) else { return reason.to_owned() };
    let is_code = |text: &&str| {
        text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
    };
    let code = reason.strip_suffix(')').and_then(|text| text.rsplit_once('(')).map(|(_, code)| code);
    let code = code.filter(is_code).map(|code| format!(" ({code})")).unwrap_or_default();
    format!("{}…{code}", reason[..end].trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn told(waits: &[Wait]) -> Vec<String> {
        let now = Ticks::parse("2026-11-28T14:03:30Z").expect("a time");
        waits.iter().map(|wait| wait.told(now)).collect()
    }

    #[test]
    fn the_nearest_planned_try_counts_and_one_that_is_under_way_is_none() {
        let mut tries = NextTries::default();
        assert_eq!(tries.next(s(0)), None);
        tries.plan(s(30), s(1));
        tries.plan(s(12), s(1));
        assert_eq!(tries.next(s(2)), Some(s(10)));
        assert_eq!(tries.next(s(13)), Some(s(17)), "the first attempt is under way");
        assert_eq!(tries.next(s(31)), None);
        for number in 0..1000 {
            tries.plan(s(2000 - number), s(40));
        }
        assert_eq!(tries.0.len(), MOST_TRIES);
        assert_eq!(tries.next(s(40)), Some(s(2000 - 999 - 40)), "attempts far in the future are dropped");
        tries.clear();
        assert_eq!(tries.next(s(40)), None);
    }

    #[test]
    fn a_long_reason_is_cut_and_keeps_its_code() {
        let wait = |reason: String, milliseconds| Wait {
            what: "it has not answered".into(),
            next_try: Some(Duration::from_millis(milliseconds)),
            reason: Some(reason),
            ..Wait::default()
        };
        let long = format!("{} (BLOB_UNAVAILABLE)", "é".repeat(200));
        assert_eq!(
            told(&[
                wait(long, 999),
                wait(format!("{}(see there)", "x".repeat(200)), 1000),
                wait("503".into(), 1)
            ]),
            [
                format!("it has not answered, next try in a moment: {}… (BLOB_UNAVAILABLE)", "é".repeat(120)),
                format!("it has not answered, next try in 1.0 s: {}…", "x".repeat(120)),
                "it has not answered, next try in a moment: 503".to_owned(),
            ]
        );
    }
}
