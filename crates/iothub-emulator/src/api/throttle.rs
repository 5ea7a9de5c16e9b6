//! The request limits of a hub's tier, as token buckets.
//!
//! The numbers are those of Microsoft's page "IoT Hub quotas and throttling". A bucket holds what one period allows:
//! the twin reads of a second, the queries of a minute. So a client that was idle may use that number at once.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::kind::Kind;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A pricing tier of IoT Hub that supports twins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tier {
    /// Free, with the limits of S1.
    F1,
    /// Standard 1.
    S1,
    /// Standard 2.
    S2,
    /// Standard 3.
    S3,
}

/// The tier and units of a hub, which determine its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Quota {
    /// The tier.
    pub tier: Tier,
    /// Number of units, 1 by default.
    #[serde(default = "one")]
    pub units: u32,
}

fn one() -> u32 {
    1
}

/// The tier does not offer this number of units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hub has between 1 and {most} units of its tier, not {units}")]
pub struct QuotaError {
    units: u32,
    most: u32,
}

impl Quota {
    /// Checks the number of units.
    ///
    /// # Errors
    /// The number is 0, or larger than the tier allows.
    pub fn validate(self) -> Result<(), QuotaError> {
        let most = match self.tier {
            Tier::F1 => 1,
            Tier::S1 | Tier::S2 => 200,
            Tier::S3 => 10,
        };
        if (1..=most).contains(&self.units) { Ok(()) } else { Err(QuotaError { units: self.units, most }) }
    }

    /// Number of requests of this kind that are allowed per period.
    fn allowance(self, kind: Kind) -> (u32, Duration) {
        let Self { tier, units } = self;
        match (kind, tier) {
            (Kind::ReadTwin, Tier::F1 | Tier::S1) => (100, SECOND),
            (Kind::ReadTwin, Tier::S2) => ((10 * units).max(100), SECOND),
            (Kind::ReadTwin, Tier::S3) => (500 * units, SECOND),
            (Kind::WriteTwin, Tier::F1 | Tier::S1) => (50, SECOND),
            (Kind::WriteTwin, Tier::S2) => ((5 * units).max(50), SECOND),
            (Kind::WriteTwin, Tier::S3) => (250 * units, SECOND),
            (Kind::Query, Tier::F1 | Tier::S1 | Tier::S2) => (20 * units, MINUTE),
            (Kind::Query, Tier::S3) => (1_000 * units, MINUTE),
            (Kind::Statistics | Kind::Other, Tier::F1 | Tier::S1 | Tier::S2) => (100 * units, MINUTE),
            (Kind::Statistics | Kind::Other, Tier::S3) => (5_000 * units, MINUTE),
        }
    }
}

/// The token bucket of one kind of requests.
#[derive(Debug)]
struct Bucket {
    capacity: f64,
    per_second: f64,
    tokens: f64,
    filled_at: Instant,
}

impl Bucket {
    fn new((allowance, period): (u32, Duration), now: Instant) -> Self {
        let capacity = f64::from(allowance);
        Self { capacity, per_second: capacity / period.as_secs_f64(), tokens: capacity, filled_at: now }
    }

    /// Takes a token. If there is none, returns the time until there is one.
    fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let passed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.capacity);
        self.filled_at = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.tokens) / self.per_second))
    }
}

/// The token buckets of a hub. Without a quota, nothing is limited.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    quota: Option<Quota>,
    buckets: Vec<(Kind, Bucket)>,
}

impl Throttle {
    /// Starts with full buckets.
    pub(super) fn new(quota: Option<Quota>) -> Self {
        Self { quota, buckets: Vec::new() }
    }

    pub(super) fn quota(&self) -> Option<Quota> {
        self.quota
    }

    /// Admits a request, or returns how long it has to wait.
    pub(super) fn take(&mut self, kind: Kind, now: Instant) -> Result<(), Duration> {
        let Some(quota) = self.quota else {
            return Ok(());
        };
        if let Some((_, bucket)) = self.buckets.iter_mut().find(|(of, _)| *of == kind) {
            return bucket.take(now);
        }
        let mut bucket = Bucket::new(quota.allowance(kind), now);
        let taken = bucket.take(now);
        self.buckets.push((kind, bucket));
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(throttle: &mut Throttle, kind: Kind, now: Instant, attempts: u32) -> u32 {
        (0..attempts).map(|_| u32::from(throttle.take(kind, now).is_ok())).sum()
    }

    #[test]
    fn a_tier_allows_what_its_table_says_and_goes_on_after_the_wait_it_names() {
        let start = Instant::now();
        let quota = |tier, units| Throttle::new(Some(Quota { tier, units }));
        for (tier, units, kind, allowed) in [
            (Tier::S1, 1, Kind::ReadTwin, 100),
            (Tier::S1, 200, Kind::ReadTwin, 100),
            (Tier::S2, 20, Kind::ReadTwin, 200),
            (Tier::S3, 2, Kind::ReadTwin, 1_000),
            (Tier::S1, 3, Kind::Query, 60),
            (Tier::S3, 1, Kind::Query, 1_000),
            (Tier::S1, 1, Kind::WriteTwin, 50),
        ] {
            let mut throttle = quota(tier, units);
            assert_eq!(passed(&mut throttle, kind, start, 2_000), allowed, "{tier:?} {units} {kind:?}");
            let wait = throttle.take(kind, start).unwrap_err();
            let later = start + wait + Duration::from_micros(100);
            assert_eq!(passed(&mut throttle, kind, later, 10), 1, "{tier:?} {units} {kind:?}");
        }
    }

    #[test]
    fn kinds_do_not_share_tokens_and_without_a_quota_nothing_is_limited() {
        let now = Instant::now();
        let mut throttle = Throttle::new(Some(Quota { tier: Tier::S1, units: 1 }));
        assert_eq!(passed(&mut throttle, Kind::Query, now, 30), 20);
        assert_eq!(passed(&mut throttle, Kind::ReadTwin, now, 30), 30);
        assert_eq!(passed(&mut Throttle::default(), Kind::Query, now, 5_000), 5_000);
    }

    #[test]
    fn units_that_cannot_be_bought_are_refused() {
        for (tier, units, is_good) in
            [(Tier::S1, 0, false), (Tier::S1, 200, true), (Tier::S3, 11, false), (Tier::F1, 2, false)]
        {
            assert_eq!(Quota { tier, units }.validate().is_ok(), is_good, "{tier:?} {units}");
        }
    }
}
