//! How long trouble with the outside world is endured before a person has to be called.
//!
//! | nature | what is done |
//! |---|---|
//! | passing: no answer, busy, throttled, a name that is not resolved | waited out, without a limit: a restart would not help |
//! | refused: no right to it, or it does not exist | endured for the grace, since rights take minutes to take effect; then given up |
//! | final: no time mends it | given up at once |

use std::time::Duration;

/// What kind of trouble it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nature {
    /// It passes by itself.
    Passing,
    /// A person has to mend it, or has just done so.
    Refused,
    /// Only another configuration mends it.
    Final,
}

/// What to do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Try again; for this much longer, where there is a limit.
    Wait(Option<Duration>),
    /// Stop, and call a person.
    GiveUp,
}

/// How long one thing has been refused.
#[derive(Debug, Clone)]
pub struct GracePeriod {
    grace: Duration,
    refused_since: Option<Duration>,
}

impl GracePeriod {
    /// Endures refusals for `grace`; with none, the first one is one too many.
    pub const fn new(grace: Duration) -> Self {
        Self { grace, refused_since: None }
    }

    /// It failed at `now`, a time since any fixed start. Trouble that passes does not stop the clock: what is refused
    /// before and after an outage has been refused all along.
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

    /// It works: what was before is forgotten.
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
