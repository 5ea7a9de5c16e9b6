//! When to query values that are needed only while somebody looks at the status: rarely, one query at a time, and never
//! shown as newer than they are.
//!
//! | | |
//! |---|---|
//! | nobody looks | no query is sent |
//! | somebody looks | a query is sent at once if the last answer is older than the interval, and again after each interval |
//! | a query takes longer than the limit | "no answer" is shown, and no other query is sent until it has ended |
//! | a query failed | the reason is shown in place of the last answer |
//! | an answer is older than twice the interval plus the limit | it is no longer shown |

use std::time::Duration;

/// After a request for the status, somebody counts as looking for this long.
const ATTENDED: Duration = Duration::from_secs(30);

/// One value that is queried. Times are since any fixed start.
#[derive(Debug)]
pub struct Refresh<T> {
    interval: Duration,
    limit: Duration,
    attended: Option<Duration>,
    /// Since when a query is under way.
    open: Option<Duration>,
    last: Option<(Duration, Result<T, String>)>,
}

/// What is known of the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known<T> {
    /// Nothing yet: the query is under way.
    Asking,
    /// The answer, and its age.
    Answer(T, Duration),
    /// Nothing, for this reason, and the age of the failure.
    Nothing(String, Duration),
}

impl<T: Clone> Refresh<T> {
    /// Refreshed at most once per `interval`; without an answer after `limit`, "no answer" is shown.
    pub const fn new(interval: Duration, limit: Duration) -> Self {
        Self { interval, limit, attended: None, open: None, last: None }
    }

    /// Somebody looks at the status.
    pub fn requested(&mut self, now: Duration) {
        self.attended = Some(now);
    }

    /// Whether to send a query at `now`.
    pub fn is_due(&self, now: Duration) -> bool {
        let attended = self.attended.is_some_and(|at| now.saturating_sub(at) <= ATTENDED);
        let long_ago = |at: &(Duration, _)| now.saturating_sub(at.0) >= self.interval;
        attended && self.open.is_none() && self.last.as_ref().is_none_or(long_ago)
    }

    /// A query was sent.
    pub fn asked(&mut self, now: Duration) {
        self.open = Some(now);
    }

    /// The query was answered or failed.
    pub fn answered(&mut self, now: Duration, answer: Result<T, String>) {
        self.open = None;
        self.last = Some((now, answer));
    }

    /// The value to show.
    pub fn known(&self, now: Duration) -> Known<T> {
        if let Some(since) = self.open {
            let open = now.saturating_sub(since);
            if open > self.limit {
                return Known::Nothing(format!("no answer for {} s", open.as_secs()), open);
            }
        }
        let Some((at, answer)) = &self.last else { return Known::Asking };
        let ago = now.saturating_sub(*at);
        match answer {
            _ if ago > self.interval * 2 + self.limit => Known::Asking,
            Ok(answer) => Known::Answer(answer.clone(), ago),
            Err(reason) => Known::Nothing(reason.clone(), ago),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn refresh() -> Refresh<u32> {
        Refresh::new(s(60), s(15))
    }

    #[test]
    fn nothing_is_asked_where_nobody_looks_and_seldom_where_somebody_does() {
        let mut refresh = refresh();
        assert!(!refresh.is_due(s(1000)));
        refresh.requested(s(1000));
        assert!(refresh.is_due(s(1000)) && refresh.is_due(s(1030)) && !refresh.is_due(s(1031)));
        refresh.asked(s(1000));
        assert!(!refresh.is_due(s(1001)), "a request is under way");
        assert_eq!(refresh.known(s(1001)), Known::Asking);
        refresh.answered(s(1002), Ok(7));
        assert_eq!(refresh.known(s(1004)), Known::Answer(7, s(2)));
        refresh.requested(s(1061));
        assert!(!refresh.is_due(s(1061)) && refresh.is_due(s(1062)));
        refresh.requested(s(1100));
        refresh.asked(s(1100));
        refresh.answered(s(1100), Err("refused".into()));
        assert_eq!(
            refresh.known(s(1103)),
            Known::Nothing("refused".into(), s(3)),
            "the old answer must not be shown"
        );
        assert!(!refresh.is_due(s(1103)), "a failure must not shorten the interval");
    }

    #[test]
    fn what_hangs_is_not_asked_twice_and_nothing_old_is_shown_as_new() {
        let mut refresh = refresh();
        refresh.requested(s(0));
        refresh.answered(s(0), Ok(7));
        refresh.asked(s(60));
        refresh.requested(s(75));
        assert_eq!(refresh.known(s(75)), Known::Answer(7, s(75)));
        assert_eq!(refresh.known(s(76)), Known::Nothing("no answer for 16 s".into(), s(16)));
        refresh.requested(s(1000));
        assert!(!refresh.is_due(s(1000)));
        refresh.answered(s(1001), Ok(8));
        assert_eq!(refresh.known(s(1001 + 135)), Known::Answer(8, s(135)));
        assert_eq!(
            refresh.known(s(1001 + 136)),
            Known::Asking,
            "the answer is too old, because the status was not read"
        );
    }
}
