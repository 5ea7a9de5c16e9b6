//! Distinguishes an outage of the store from a problem with one document.
//!
//! A problem with one twin must not slow down the others and must not be taken for an outage. An outage must not be
//! taken for a problem of the twins that it affects. The difference is whether the store answers about other twins:
//!
//! | what happened | what it means |
//! |---|---|
//! | a twin fails, and the store has answered others since the failures began | a problem of this twin |
//! | [`SEVERAL`] twins begin to fail, without any answer in between | an outage |
//! | fewer twins fail, and there are no other requests | a probe decides: a write that cannot be applied |
//! | any twin fails during an outage | the outage |
//! | any answer | the outage is over |
//! | an answer about a twin that cannot be used | a problem of this twin, and an answer |
//!
//! Throttling is neither: it is an answer, and it means that all requests have to slow down.

use std::{collections::HashMap, hash::Hash, time::Duration};

/// If this many twins begin to fail without any answer in between, it is an outage.
pub const SEVERAL: usize = 3;
/// If the store is silent for this long while a twin fails, it is probed. Also the shortest time between two probes.
pub const PROBE_AFTER: Duration = Duration::from_secs(2);
/// If more twins than this fail, it is not a problem of single twins: a part of the store may be out.
pub const FEW: usize = 10;
/// A twin's own problem is reported after this time.
const TOLD_AFTER: Duration = Duration::from_secs(30);

/// What caused a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The store: all twins are affected.
    Store,
    /// One twin, as far as we know.
    Twin,
}

/// What is known about the store, and about the twins for which it gives no usable answer.
#[derive(Debug)]
pub struct Outage<K> {
    failing: HashMap<K, Failing>,
    /// Number of twins that began to fail since the last answer of the store.
    unanswered: usize,
    answered: Option<Duration>,
    probed: Option<Duration>,
    state: State,
    /// An outage of at least [`PROBE_AFTER`] has ended, and [`Outage::take_ended`] was not called since.
    ended: bool,
}

#[derive(Debug)]
struct Failing {
    since: Duration,
    told: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Unknown,
    Up { since: Duration },
    Down,
}

impl<K> Default for Outage<K> {
    fn default() -> Self {
        Self {
            failing: HashMap::new(),
            unanswered: 0,
            answered: None,
            probed: None,
            state: State::Unknown,
            ended: false,
        }
    }
}

impl<K: Hash + Eq + Clone> Outage<K> {
    /// The store has answered any request at `now`, which is the time since any fixed start.
    pub fn answered(&mut self, now: Duration) {
        self.unanswered = 0;
        let silent = self.answered.is_none_or(|last| now.saturating_sub(last) >= PROBE_AFTER);
        self.ended |= silent && self.state == State::Down;
        self.answered = Some(now);
        if !matches!(self.state, State::Up { .. }) {
            self.state = State::Up { since: now };
        }
    }

    /// The operation of a twin succeeded. Returns how long the twin had failed, if that had been reported.
    pub fn succeeded(&mut self, key: &K, now: Duration) -> Option<Duration> {
        self.answered(now);
        let failing = self.failing.remove(key)?;
        failing.told.then(|| now.saturating_sub(failing.since))
    }

    /// There was no answer about a twin. Returns the cause.
    pub fn failed(&mut self, key: &K, now: Duration) -> Cause {
        if !self.failing.contains_key(key) {
            self.failing.insert(key.clone(), Failing { since: now, told: false });
            self.unanswered += 1;
        }
        if self.unanswered >= SEVERAL {
            self.state = State::Down;
        }
        match self.state {
            State::Down => Cause::Store,
            State::Unknown | State::Up { .. } => Cause::Twin,
        }
    }

    /// The store answered about a twin, but the answer cannot be used. Returns whether this is new and should be
    /// reported.
    pub fn unusable(&mut self, key: &K, now: Duration) -> bool {
        self.answered(now);
        let failing = self.failing.entry(key.clone()).or_insert(Failing { since: now, told: false });
        !std::mem::replace(&mut failing.told, true)
    }

    /// If a probe is needed at `now`: a failing twin whose hub to use for it. The probe counts as sent.
    pub fn probe(&mut self, now: Duration) -> Option<&K> {
        let long_ago =
            |then: Option<Duration>| then.is_none_or(|then| now.saturating_sub(then) >= PROBE_AFTER);
        if !long_ago(self.answered) || !long_ago(self.probed) {
            return None;
        }
        let key = self.failing.keys().next()?;
        self.probed = Some(now);
        Some(key)
    }

    /// Whether an outage has ended since the last call in which nothing was answered for [`PROBE_AFTER`]. If so,
    /// operations that wait for their next attempt can try at once. If only a part of the store is out, other requests
    /// are answered all the time, and waiting is right.
    pub fn take_ended(&mut self) -> bool {
        std::mem::take(&mut self.ended)
    }

    /// A probe got no answer.
    pub fn probe_failed(&mut self) {
        self.state = State::Down;
    }

    /// How long the store has answered other requests but not those about this twin. Zero if this is unknown: during an
    /// outage, without a recent answer, or if so many twins fail that the cause cannot be the twins.
    pub fn alone_for(&self, key: &K, now: Duration) -> Duration {
        let (State::Up { since: up }, Some(failing)) = (self.state, self.failing.get(key)) else {
            return Duration::ZERO;
        };
        let since = up.max(failing.since);
        let of_late = self.answered.is_some_and(|at| at > since && now.saturating_sub(at) < 10 * PROBE_AFTER);
        if !of_late || self.failing.len() > FEW {
            return Duration::ZERO;
        }
        now.saturating_sub(since)
    }

    /// How long a twin has failed alone, if that should be reported and has not been.
    pub fn worth_telling(&mut self, key: &K, now: Duration) -> Option<Duration> {
        let alone = self.alone_for(key, now);
        let failing = self.failing.get_mut(key)?;
        let tell = alone >= TOLD_AFTER && !failing.told;
        failing.told |= tell;
        tell.then_some(alone)
    }

    /// The twins for which the last request got no usable answer.
    pub fn failing(&self) -> impl Iterator<Item = &K> {
        self.failing.keys()
    }

    /// The number of these twins.
    pub fn in_trouble(&self) -> usize {
        self.failing.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn several_twins_that_fail_without_an_answer_in_between_are_an_outage() {
        // Each letter is a twin that fails; a dot is an answer about another twin. The expected value is the cause of
        // the last failure.
        for (story, cause) in [
            ("a", Cause::Twin),
            ("aaaaaaaa", Cause::Twin),
            ("ab", Cause::Twin),
            ("abab", Cause::Twin),
            ("abc", Cause::Store),
            ("a.b.c.d.e", Cause::Twin),
            ("ab.cd.ab", Cause::Twin),
            ("ab.abcde", Cause::Store),
            ("abca", Cause::Store),
            ("abc.a", Cause::Twin),
            ("abc.abc", Cause::Twin), // a probe decides
        ] {
            let mut outage = Outage::default();
            let mut last = None;
            for (second, event) in story.chars().enumerate() {
                match event {
                    '.' => outage.answered(s(second as u64)),
                    twin => last = Some(outage.failed(&twin, s(second as u64))),
                }
            }
            assert_eq!(last, Some(cause), "{story}");
        }
    }

    #[test]
    fn unusable_answers_concern_their_twins_and_are_no_outage() {
        let mut outage = Outage::default();
        for (second, twin) in ('a'..'h').enumerate() {
            assert!(outage.unusable(&twin, s(second as u64)), "{twin}: the first answer is reported");
            assert!(!outage.unusable(&twin, s(second as u64)), "{twin}: the second answer is not reported");
        }
        assert_eq!(outage.in_trouble(), 7);
        let failing: String = outage.failing().collect();
        assert_eq!(failing.len(), 7);
        assert!(('a'..'h').all(|twin| failing.contains(twin)), "{failing}");
        assert_eq!(outage.failed(&'x', s(10)), Cause::Twin, "the store has answered about other twins");
        assert_eq!(outage.worth_telling(&'a', s(60)), None, "it was reported already");
        outage.unusable(&'b', s(70));
        assert_eq!(outage.alone_for(&'a', s(70)), s(70), "its time without an answer must count");
        assert_eq!(outage.succeeded(&'a', s(71)), Some(s(71)), "its end must be reported");
    }

    #[test]
    fn the_end_of_an_outage_is_news_once_and_only_where_nobody_was_answered_for_a_while() {
        let mut outage = Outage::default();
        outage.answered(s(1));
        assert!(!outage.take_ended(), "there was no outage");
        for (key, at) in [('a', 2), ('b', 2), ('c', 2)] {
            outage.failed(&key, s(at));
        }
        outage.answered(s(2));
        assert!(!outage.take_ended(), "a short failure of a part of the store");
        for (key, at) in [('d', 3), ('e', 3), ('f', 3)] {
            outage.failed(&key, s(at));
        }
        assert!(!outage.take_ended(), "the outage has not ended");
        outage.succeeded(&'d', s(9));
        outage.succeeded(&'e', s(9));
        assert!(outage.take_ended());
        assert!(!outage.take_ended(), "the end must be reported once");
    }

    #[test]
    fn a_probe_decides_where_nobody_else_asks() {
        let mut outage = Outage::default();
        assert_eq!(outage.probe(s(1)), None, "no twin fails");
        outage.answered(s(1));
        assert_eq!(outage.failed(&'a', s(2)), Cause::Twin);
        assert_eq!(outage.probe(s(2)), None, "the last answer is too recent");
        assert_eq!(outage.probe(s(3)), Some(&'a'));
        assert_eq!(outage.probe(s(4)), None, "a probe is under way");
        outage.probe_failed();
        assert_eq!(outage.failed(&'a', s(5)), Cause::Store);
        assert_eq!(outage.probe(s(5)), Some(&'a'), "probes must be repeated until the store answers");
        outage.answered(s(6));
        assert_eq!(outage.failed(&'a', s(6)), Cause::Twin);
        assert_eq!(outage.in_trouble(), 1);
        outage.succeeded(&'a', s(7));
        assert_eq!((outage.in_trouble(), outage.probe(s(60))), (0, None));
    }

    #[test]
    fn a_twin_is_alone_only_while_the_store_answers_others() {
        let mut outage = Outage::default();
        outage.answered(s(0));
        outage.failed(&'a', s(10));
        assert_eq!(outage.alone_for(&'a', s(20)), s(0), "no other twin was answered since");
        outage.answered(s(40));
        assert_eq!(outage.alone_for(&'a', s(41)), s(31));
        assert_eq!(outage.alone_for(&'a', s(40) + 10 * PROBE_AFTER), s(0), "the last answer is too old");
        assert_eq!(outage.alone_for(&'b', s(41)), s(0), "this twin does not fail");
        assert_eq!(outage.worth_telling(&'a', s(41)), Some(s(31)));
        assert_eq!(outage.worth_telling(&'a', s(42)), None, "it must be reported once");
        outage.probe_failed();
        outage.answered(s(50));
        outage.answered(s(51));
        assert_eq!(outage.alone_for(&'a', s(55)), s(5), "an outage restarts the time");
        for other in 0..FEW {
            assert_eq!(outage.alone_for(&'a', s(55)), s(5), "few twins fail");
            outage.failed(&char::from(b'A' + other as u8), s(55));
            outage.answered(s(55));
        }
        assert_eq!(outage.alone_for(&'a', s(56)), s(0), "too many twins fail");
        assert_eq!(
            outage.succeeded(&'a', s(57)),
            Some(s(47)),
            "the duration, because the failure was reported"
        );
        assert_eq!(outage.succeeded(&'A', s(57)), None);
    }
}
