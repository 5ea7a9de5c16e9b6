//! Which recently changed twins an audit asks about, and when a request for an audit is fulfilled.
//!
//! A document that changed within the tolerance is not compared with a query's answer, because the answer may be older
//! than the change. A twin that changes all the time would never be compared that way. So each scan asks the hub about
//! a limited number of such twins, and the next scan continues where this one stopped. Twins have fixed places, so that
//! the order is the same in every scan.
//!
//! A request says that something was lost. The loss may be too recent for queries to show it. So one audit begins at
//! once, and another one after the tolerance sees what the first one could not.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use super::{id::TwinKey, ticks::Ticks};

/// The place of a twin in the order of scans; less than 2^53, so that every JSON reader can represent it.
pub fn place(key: &TwinKey) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish() >> 11
}

/// Chooses a limited number of the offered items: the next ones in the order of their places.
#[derive(Debug)]
pub struct Rotation<T> {
    from: u64,
    most: usize,
    /// The chosen items, by distance from the place where the last scan stopped.
    chosen: BTreeMap<u64, T>,
    passed_over: u64,
}

impl<T> Rotation<T> {
    /// Chooses at most `most` items, starting at the place `from`.
    pub const fn new(from: u64, most: usize) -> Self {
        Self { from, most, chosen: BTreeMap::new(), passed_over: 0 }
    }

    /// Offers one item. Holds no more items than are chosen.
    pub fn offer(&mut self, place: u64, item: T) {
        // Places before the start come after the last place.
        self.chosen.insert(place.wrapping_sub(self.from), item);
        if self.chosen.len() > self.most {
            self.chosen.pop_last();
            self.passed_over += 1;
        }
    }

    /// How many items were offered and not chosen.
    pub const fn passed_over(&self) -> u64 {
        self.passed_over
    }

    /// The chosen items, and the place where the next scan begins.
    pub fn end(self) -> (Vec<T>, u64) {
        let last = self.chosen.last_key_value().map(|(distance, _)| distance.wrapping_add(self.from));
        let next = last.map_or(self.from, |last| last + 1);
        (self.chosen.into_values().collect(), next)
    }
}

/// How far requests are fulfilled, as of the last completed audit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Met {
    /// When that audit began.
    pub began: Option<Ticks>,
    /// The newest request that it knew of.
    pub answered: Option<Ticks>,
    /// The newest request that needs no more audits.
    pub closed: Option<Ticks>,
}

impl Met {
    /// The state after an audit that begins at `now`, knows of `request`, and follows this one.
    #[must_use]
    pub fn by_audit(self, request: Option<Ticks>, now: Ticks, tolerance: Duration) -> Self {
        let closes =
            request.is_some() && request == self.answered && self.follow_up(now, tolerance).is_zero();
        let closed = if closes || tolerance.is_zero() { request } else { self.closed };
        Self { began: Some(now), answered: request, closed }
    }

    /// How long after `now` an audit has to begin because of `request`; `None` if the request needs no more audits.
    ///
    /// Requests are compared only with requests, because the clocks of replicas differ.
    pub fn wait_for(&self, request: Option<Ticks>, now: Ticks, tolerance: Duration) -> Option<Duration> {
        let request = request?;
        if self.answered != Some(request) {
            return Some(Duration::ZERO);
        }
        (self.closed != Some(request)).then(|| self.follow_up(now, tolerance))
    }

    /// Time until the tolerance has passed since the audit began. If the clock went back, the wait is still no longer
    /// than the tolerance.
    fn follow_up(&self, now: Ticks, tolerance: Duration) -> Duration {
        let passed = self.began.map_or(0.0, |began| now.seconds_since(began));
        tolerance.saturating_sub(Duration::try_from_secs_f64(passed).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn at(seconds: u64) -> Ticks {
        Ticks::new(1_000_000_000).after(S * u32::try_from(seconds).expect("small"))
    }

    proptest::proptest! {
        /// Every twin that exists during all scans is asked about, within as many scans as asking about all of them takes.
        /// Other twins may be created and deleted between scans.
        #[test]
        fn everyone_is_met_in_some_scan(
            stay in proptest::collection::btree_set(0_u64..1 << 53, 1..60),
            guests in proptest::collection::vec(proptest::collection::vec(0_u64..1 << 53, 0..10), 80),
            most in 1_usize..12,
            mut from in 0_u64..1 << 53
        ) {
            let mut met = BTreeSet::new();
            // At most ten twins come at a time. So if more than ten are asked about, each scan includes at least one
            // more of the twins that stay.
            let scans = if most > 10 { stay.len() } else { stay.len().div_ceil(most) };
            for scan in 0..scans {
                let mut rotation = Rotation::new(from, most);
                let guests = if most > 10 { &guests[scan % guests.len()][..] } else { &[] };
                let all: BTreeSet<_> = stay.iter().chain(guests).copied().collect();
                for place in &all {
                    rotation.offer(*place, *place);
                }
                proptest::prop_assert_eq!(rotation.passed_over() as usize, all.len().saturating_sub(most));
                let (chosen, next) = rotation.end();
                proptest::prop_assert_eq!(chosen.len(), all.len().min(most));
                met.extend(chosen);
                from = next;
            }
            proptest::prop_assert!(met.is_superset(&stay), "{:?} of {:?}", met, stay);
        }
    }

    #[test]
    fn a_scan_goes_on_where_the_last_one_stopped_and_begins_again_behind_the_end() {
        let mut scans = Vec::new();
        let mut from = 0;
        for _ in 0..3 {
            let mut rotation = Rotation::new(from, 2);
            for place in [50, 10, 40, 20, 30] {
                rotation.offer(place, place);
            }
            let (chosen, next) = rotation.end();
            scans.push(chosen);
            from = next;
        }
        assert_eq!(scans, [[10, 20], [30, 40], [50, 10]]);
        let none = Rotation::<u64>::new(7, 2);
        assert_eq!(none.end(), (vec![], 7));
        let mut nothing_allowed = Rotation::new(7, 0);
        nothing_allowed.offer(1, 1);
        assert_eq!((nothing_allowed.passed_over(), nothing_allowed.end()), (1, (vec![], 7)));
    }

    #[test]
    fn places_are_fixed_and_small() {
        let places = ["a", "b", "c"].map(|id| place(&TwinKey::device("h", id)));
        assert!(places.iter().all(|place| *place < 1 << 53) && places[0] != places[1]);
        assert_eq!(places[0], place(&TwinKey::device("h", "a")));
    }

    #[test]
    fn a_request_is_met_by_an_audit_at_once_and_one_more_after_the_tolerance() {
        let (tolerance, request) = (1800 * S, Some(at(100)));
        let none = Met::default();
        assert_eq!(none.wait_for(None, at(100), tolerance), None);
        assert_eq!(none.wait_for(request, at(100), tolerance), Some(Duration::ZERO));
        let first = none.by_audit(request, at(105), tolerance);
        assert_eq!(first.wait_for(request, at(200), tolerance), Some(1705 * S));
        assert_eq!(first.wait_for(request, at(9000), tolerance), Some(Duration::ZERO), "after a restart");
        let again = first.by_audit(request, at(600), tolerance);
        assert_eq!(
            again.wait_for(request, at(600), tolerance),
            Some(1800 * S),
            "an audit within the tolerance is too early"
        );
        let second = first.by_audit(request, at(1905), tolerance);
        assert_eq!(second.wait_for(request, at(2000), tolerance), None);
        assert_eq!(
            second.wait_for(Some(at(2000)), at(2000), tolerance),
            Some(Duration::ZERO),
            "the second audit meets the request"
        );
        let at_once = none.by_audit(request, at(105), Duration::ZERO);
        assert_eq!(
            at_once.wait_for(request, at(105), Duration::ZERO),
            None,
            "without tolerance one audit is enough"
        );
    }

    #[test]
    fn a_request_of_another_clock_is_met_by_two_audits_as_well() {
        for request in [Some(at(9_999_999)), Some(at(0))] {
            let (tolerance, mut met, mut now) = (1800 * S, Met::default(), at(5000));
            let mut audits = 0;
            while let Some(wait) = met.wait_for(request, now, tolerance) {
                assert!(wait <= tolerance && audits < 5);
                now = now.after(wait);
                met = met.by_audit(request, now, tolerance);
                audits += 1;
            }
            assert_eq!(audits, 2);
        }
        // The clock went back by one day after the first audit.
        let first = Met::default().by_audit(Some(at(1)), at(90_000), 1800 * S);
        assert_eq!(first.wait_for(Some(at(1)), at(3600), 1800 * S), Some(1800 * S));
    }
}
