//! How long errors of external services are tolerated before the process ends and an operator must act.
//!
//! | nature | reaction |
//! |---|---|
//! | passing: no answer, busy, throttled, a name that is not resolved | retried without a limit: a restart would not help |
//! | refused: no permission, or it does not exist | retried during the grace period, because permissions take minutes to take effect; then given up |
//! | final: waiting never helps | given up at once |

use std::time::Duration;

/// The nature of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nature {
    /// It ends without any action.
    Passing,
    /// An operator must fix it, or has just done so.
    Refused,
    /// Only a change of the configuration fixes it.
    Final,
}

/// The reaction to a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Retry; for at most this much longer if there is a limit.
    Wait(Option<Duration>),
    /// Stop; an operator must act.
    GiveUp,
}

/// How long one operation has been refused.
#[derive(Debug, Clone)]
pub struct GracePeriod {
    grace: Duration,
    refused_since: Option<Duration>,
}

impl GracePeriod {
    /// Tolerates refusals for `grace`. If `grace` is zero, the first refusal is final.
    pub const fn new(grace: Duration) -> Self {
        Self { grace, refused_since: None }
    }

    /// The operation failed at `now`, a time since any fixed start. A passing error does not reset the time: what is
    /// refused before and after an outage counts as refused during the outage.
    pub fn failed(&mut self, now: Duration, nature: Nature) -> Verdict {
        match nature {
            Nature::Passing => Verdict::Wait(None),
            Nature::Final => Verdict::GiveUp,
            Nature::Refused => {
                let since = *self.refused_since.get_or_insert(now);
                match self.grace.checked_sub(now.saturating_sub(since)) {
                    Some(left) if !left.is_zero() => Verdict::Wait(Some(left)),
                    Some(_) | None => Verdict::GiveUp,
                }
            }
        }
    }

    /// The operation succeeded: earlier refusals are forgotten.
    pub fn succeeded(&mut self) {
        self.refused_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn wait(left: u64) -> Verdict {
        Verdict::Wait(Some(seconds(left)))
    }

    #[test]
    fn what_passes_is_waited_out_for_ever() {
        let mut grace = GracePeriod::new(seconds(10));
        for now in [0, 11, 1_000_000] {
            assert_eq!(grace.failed(seconds(now), Nature::Passing), Verdict::Wait(None));
        }
    }

    #[test]
    fn what_is_refused_is_endured_for_the_grace_since_the_first_refusal() {
        let mut grace = GracePeriod::new(seconds(10));
        assert_eq!(grace.failed(seconds(100), Nature::Passing), Verdict::Wait(None));
        assert_eq!(grace.failed(seconds(105), Nature::Refused), wait(10));
        assert_eq!(grace.failed(seconds(107), Nature::Passing), Verdict::Wait(None));
        assert_eq!(grace.failed(seconds(114), Nature::Refused), wait(1));
        assert_eq!(grace.failed(seconds(115), Nature::Refused), Verdict::GiveUp);
    }

    #[test]
    fn success_begins_a_new_grace() {
        let mut grace = GracePeriod::new(seconds(10));
        assert_eq!(grace.failed(seconds(1), Nature::Refused), wait(10));
        grace.succeeded();
        assert_eq!(grace.failed(seconds(12), Nature::Refused), wait(10));
    }

    #[test]
    fn without_a_grace_the_first_refusal_ends_it_and_a_final_one_always_does() {
        assert_eq!(GracePeriod::new(Duration::ZERO).failed(seconds(5), Nature::Refused), Verdict::GiveUp);
        assert_eq!(GracePeriod::new(seconds(600)).failed(seconds(5), Nature::Final), Verdict::GiveUp);
    }

    #[test]
    fn a_clock_that_goes_back_is_no_reason_to_panic() {
        let mut grace = GracePeriod::new(seconds(10));
        assert_eq!(grace.failed(seconds(5), Nature::Refused), wait(10));
        assert_eq!(grace.failed(seconds(4), Nature::Refused), wait(10));
    }
}
