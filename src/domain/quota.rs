//! What an IoT hub allows per second, and a fair share of it: numbers and arithmetic, without a clock.
//!
//! Reading twins and querying them is throttled per hub, for all its callers together (Microsoft's page "IoT Hub quotas
//! and throttling"). A caller that uses the whole quota blocks the applications for which the hub exists.

use std::time::Duration;

/// The tier of an IoT hub; Basic tiers have no twins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// Free.
    Free,
    /// Standard S1.
    S1,
    /// Standard S2.
    S2,
    /// Standard S3.
    S3,
}

impl Tier {
    /// Point reads of twins that a hub of `units` allows per second.
    pub fn gets_per_second(self, units: u32) -> f64 {
        let units = f64::from(units.max(1));
        match self {
            Self::Free | Self::S1 => 100.0,
            Self::S2 => (10.0 * units).max(100.0),
            Self::S3 => 500.0 * units,
        }
    }

    /// Pages of queries that a hub of `units` allows per second.
    pub fn queries_per_second(self, units: u32) -> f64 {
        let units = f64::from(units.max(1));
        match self {
            Self::Free | Self::S1 | Self::S2 => 20.0 * units / 60.0,
            Self::S3 => 1000.0 * units / 60.0,
        }
    }
}

/// The purpose of a request to the registry, in the order of importance: a reserve is kept for the more important ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// A flagged document has to be repaired.
    Repair,
    /// A person or program asks about one twin and waits for the answer.
    Request,
    /// Twins that existed before the streams were read.
    Backfill,
    /// The search for unknown differences.
    Audit,
}

impl Purpose {
    /// The fraction of a bucket that is reserved for the more important purposes.
    const fn reserve(self) -> f64 {
        match self {
            Self::Repair => 0.0,
            Self::Request => 0.1,
            Self::Backfill => 0.2,
            Self::Audit => 0.4,
        }
    }
}

/// The share of each replica in a budget that belongs to all live replicas. A single replica has all of it; together
/// they never have more than the whole budget.
pub fn each_of(replicas: usize, whole: f64) -> f64 {
    whole / replicas.max(1) as f64
}

/// A token bucket. It holds the tokens of one second, and at least one token.
#[derive(Debug, Clone)]
pub struct Bucket {
    per_second: f64,
    capacity: f64,
    level: f64,
    updated: Duration,
    /// The hub has asked for a pause until this time.
    closed_until: Duration,
}

impl Bucket {
    /// A full bucket with `per_second` tokens per second; a rate that is not positive counts as very small.
    pub fn new(per_second: f64) -> Self {
        let (per_second, capacity) = sizes(per_second);
        Self { per_second, capacity, level: capacity, updated: Duration::ZERO, closed_until: Duration::ZERO }
    }

    /// Tokens per second.
    pub const fn per_second(&self) -> f64 {
        self.per_second
    }

    /// Changes the rate to `per_second` tokens per second from `now` on. Tokens earned so far are kept, up to the new
    /// capacity.
    pub fn set_rate(&mut self, per_second: f64, now: Duration) {
        self.earn(now);
        (self.per_second, self.capacity) = sizes(per_second);
        self.level = self.level.min(self.capacity);
    }

    /// Takes a token at `now` (time since any fixed start).
    ///
    /// # Errors
    /// There is no token: how long to wait before asking again.
    pub fn take(&mut self, purpose: Purpose, now: Duration) -> Result<(), Duration> {
        if now < self.closed_until {
            return Err(self.closed_until.saturating_sub(now));
        }
        self.earn(now);
        // A small bucket is too small for a reserve: then it is first come, first served.
        let needed = 1.0 + (self.capacity - 1.0) * purpose.reserve();
        if self.level >= needed {
            self.level -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64(((needed - self.level) / self.per_second).max(1e-3)))
    }

    fn earn(&mut self, now: Duration) {
        let earned = now.saturating_sub(self.updated).as_secs_f64() * self.per_second;
        self.level = (self.level + earned).min(self.capacity);
        self.updated = self.updated.max(now);
    }

    /// The hub throttles: for `pause`, no token is given and none is earned.
    pub fn close(&mut self, pause: Duration, now: Duration) {
        self.closed_until = self.closed_until.max(now + pause);
        self.level = 0.0;
        self.updated = self.updated.max(self.closed_until);
    }
}

/// Tokens per second and capacity; a rate that is not positive counts as very small.
fn sizes(per_second: f64) -> (f64, f64) {
    let per_second = if per_second > 0.0 { per_second } else { 1e-3 };
    (per_second, per_second.max(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// Tokens that a caller without pauses gets within `seconds`.
    fn taken(bucket: &mut Bucket, purpose: Purpose, seconds: u64) -> u32 {
        let (mut now, mut taken) = (Duration::ZERO, 0);
        while now < Duration::from_secs(seconds) {
            match bucket.take(purpose, now) {
                Ok(()) => taken += 1,
                Err(wait) => now += wait,
            }
        }
        taken
    }

    #[test]
    fn tiers_allow_what_the_service_publishes() {
        assert_eq!(Tier::S1.gets_per_second(200), 100.0, "the limit must not depend on the units");
        assert_eq!((Tier::S2.gets_per_second(1), Tier::S2.gets_per_second(20)), (100.0, 200.0));
        assert_eq!(Tier::S3.gets_per_second(10), 5000.0);
        assert_eq!(Tier::S1.queries_per_second(3), 1.0);
        assert_eq!(Tier::S3.queries_per_second(6), 100.0);
    }

    #[test]
    fn a_bucket_gives_its_rate_and_one_seconds_worth_in_advance() {
        for (rate, expected) in [(50.0, 550), (0.5, 6)] {
            let got = taken(&mut Bucket::new(rate), Purpose::Repair, 10);
            assert!(got.abs_diff(expected) <= 1, "{got} at {rate}/s");
        }
    }

    #[test]
    fn a_rate_that_is_not_positive_is_a_very_small_one() {
        let rates = [2.5, 0.0, -1.0].map(|rate| Bucket::new(rate).per_second());
        assert_eq!(rates, [2.5, 1e-3, 1e-3]);
    }

    #[test]
    fn each_purpose_leaves_its_reserve_of_the_capacity() {
        let purposes = [Purpose::Repair, Purpose::Request, Purpose::Backfill, Purpose::Audit];
        let at_once = purposes.map(|purpose| {
            let mut bucket = Bucket::new(101.0);
            (0..200).filter(|_| bucket.take(purpose, Duration::ZERO).is_ok()).count()
        });
        assert_eq!(at_once, [101, 91, 81, 61]);
    }

    #[test]
    fn the_more_important_find_a_reserve() {
        let mut bucket = Bucket::new(100.0);
        let now = ms(1);
        while bucket.take(Purpose::Audit, now).is_ok() {}
        assert!(bucket.take(Purpose::Backfill, now).is_ok());
        while bucket.take(Purpose::Backfill, now).is_ok() {}
        assert!(bucket.take(Purpose::Audit, now).is_err());
        assert!(bucket.take(Purpose::Request, now).is_ok());
        while bucket.take(Purpose::Request, now).is_ok() {}
        assert!(bucket.take(Purpose::Backfill, now).is_err());
        assert!(bucket.take(Purpose::Repair, now).is_ok(), "lookups must leave tokens for repairs");
    }

    #[test]
    fn the_wait_ends_when_there_is_a_token() {
        let mut bucket = Bucket::new(4.0);
        while bucket.take(Purpose::Repair, ms(0)).is_ok() {}
        assert_eq!(bucket.take(Purpose::Repair, ms(100)), Err(ms(150)), "0.4 of a token at 4 per second");
        assert!(bucket.take(Purpose::Repair, ms(249)).is_err());
        assert_eq!(bucket.take(Purpose::Repair, ms(250)), Ok(()));
    }

    #[test]
    fn a_slow_bucket_starves_nobody() {
        assert!(taken(&mut Bucket::new(0.2), Purpose::Audit, 60) >= 12);
    }

    #[test]
    fn whoever_is_alone_has_all_of_a_budget() {
        for (replicas, each) in [(0, 0.5), (1, 0.5), (2, 0.25), (5, 0.1)] {
            assert_eq!(each_of(replicas, 0.5), each);
        }
    }

    proptest::proptest! {
        /// Replicas come and go, and each takes as many tokens as it can. Together they get at most what a single
        /// replica would get, plus what each may have saved.
        #[test]
        fn all_replicas_together_keep_to_the_budget(
            alive in proptest::collection::vec(1_usize..7, 1..8), whole in 1.0..200.0_f64
        ) {
            let second = Duration::from_secs(1);
            let mut buckets: Vec<Bucket> = Vec::new();
            let (mut taken, mut newcomers, mut now) = (0, 0.0, Duration::ZERO);
            for replicas in &alive {
                // A new replica starts with a full bucket.
                newcomers += replicas.saturating_sub(buckets.len()) as f64 * each_of(*replicas, whole).max(1.0);
                buckets.truncate(*replicas);
                buckets.resize_with(*replicas, || Bucket::new(each_of(*replicas, whole)));
                for bucket in &mut buckets {
                    bucket.set_rate(each_of(*replicas, whole), now);
                }
                let until = now + second;
                for bucket in &mut buckets {
                    let mut turn = now;
                    while turn < until {
                        match bucket.take(Purpose::Repair, turn) {
                            Ok(()) => taken += 1,
                            Err(wait) => turn += wait,
                        }
                    }
                }
                now = until;
            }
            let most = whole * alive.len() as f64 + newcomers + 1.0;
            proptest::prop_assert!(f64::from(taken) <= most, "{taken} of {most}");
        }
    }

    #[test]
    fn another_rate_keeps_what_was_earned_and_fits_its_room() {
        let mut bucket = Bucket::new(100.0);
        while bucket.take(Purpose::Repair, ms(0)).is_ok() {}
        bucket.set_rate(10.0, ms(50)); // five tokens are saved
        assert_eq!(taken(&mut bucket.clone(), Purpose::Repair, 0), 0);
        let at_once = (0..).take_while(|_| bucket.take(Purpose::Repair, ms(50)).is_ok()).count();
        assert_eq!(at_once, 5);
        let mut full = Bucket::new(100.0);
        full.set_rate(10.0, ms(1));
        assert_eq!((0..).take_while(|_| full.take(Purpose::Repair, ms(1)).is_ok()).count(), 10);
        full.set_rate(100.0, ms(1));
        assert!(full.take(Purpose::Repair, ms(1)).is_err(), "the change must not add tokens");
        assert!(full.take(Purpose::Repair, ms(12)).is_ok(), "the new rate must apply from then on");
    }

    #[test]
    fn after_throttling_nothing_is_taken_and_nothing_was_saved() {
        let mut bucket = Bucket::new(10.0);
        bucket.close(ms(3000), ms(1000));
        assert_eq!(bucket.take(Purpose::Repair, ms(1500)), Err(ms(2500)));
        assert!(bucket.take(Purpose::Repair, ms(4000)).is_err(), "no burst after a pause");
        assert!(bucket.take(Purpose::Repair, ms(4100)).is_ok());
    }
}
