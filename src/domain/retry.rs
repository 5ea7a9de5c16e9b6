//! How long to wait, and how many operations to run at once: policy as data, without clock or randomness.

use std::time::Duration;

/// Exponential backoff with full jitter.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    attempt: u32,
}

impl Backoff {
    /// Waits at most `first`, then twice that, and so on, but never more than `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, attempt: 0 }
    }

    /// The same backoff, after `attempts` waits.
    pub const fn resumed(first: Duration, longest: Duration, attempts: u32) -> Self {
        Self { first, longest, attempt: attempts }
    }

    /// The next delay. `jitter` is uniform in 0..1; the delay is never shorter than the service's `hint`.
    pub fn next(&mut self, jitter: f64, hint: Option<Duration>) -> Duration {
        let ceiling = self.first.saturating_mul(2_u32.saturating_pow(self.attempt)).min(self.longest);
        self.attempt = self.attempt.saturating_add(1).min(31);
        let delay = ceiling.mul_f64(jitter.clamp(0.0, 1.0));
        // Waiters with the same hint must not return at the same time.
        hint.map_or(delay, |hint| hint.min(self.longest.max(hint)) + delay.min(self.first))
    }

    /// Number of waits since the last reset.
    pub fn attempts(&self) -> u32 {
        self.attempt
    }

    /// Starts again after a success.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}

/// Concurrency that adapts to throttling: additive increase, multiplicative decrease.
#[derive(Debug, Clone)]
pub struct Concurrency {
    limit: f64,
    most: f64,
    /// When the limit was last decreased; a burst of throttled answers counts as one signal.
    decreased: Duration,
}

impl Concurrency {
    /// Starts at `most`, the configured ceiling (at least 1).
    pub fn new(most: usize) -> Self {
        let most = most.max(1) as f64;
        Self { limit: most, most, decreased: Duration::ZERO }
    }

    /// How many operations may be in flight.
    pub fn limit(&self) -> usize {
        self.limit as usize
    }

    /// One operation succeeded.
    pub fn success(&mut self) {
        self.limit = (self.limit + 1.0 / self.limit).min(self.most);
    }

    /// One operation was throttled at `now` (time since any fixed start).
    pub fn throttled(&mut self, now: Duration) {
        const ONE_SIGNAL: Duration = Duration::from_millis(500);
        if now.saturating_sub(self.decreased) >= ONE_SIGNAL || self.decreased.is_zero() {
            self.limit = (self.limit * 0.7).max(1.0);
            self.decreased = now.max(Duration::from_nanos(1));
        }
    }
}

/// A limit on request units per second. The charge is known only after the operation, so the budget can be in debt.
/// Then the next operation waits until the debt is paid.
#[derive(Debug, Clone)]
pub struct Budget {
    per_second: f64,
    level: f64,
    updated: Duration,
}

impl Budget {
    /// Allows `per_second` request units per second, and saves at most those of one second.
    pub fn new(per_second: f64) -> Self {
        Self { per_second, level: per_second, updated: Duration::ZERO }
    }

    /// Allows `per_second` request units per second from `now` on. Debts stay.
    pub fn set_rate(&mut self, per_second: f64, now: Duration) {
        self.refill(now);
        self.per_second = per_second;
        self.level = self.level.min(per_second);
    }

    /// Deducts the request units that were charged at `now`.
    pub fn spend(&mut self, request_units: f64, now: Duration) {
        self.refill(now);
        self.level -= request_units;
    }

    /// How long to wait at `now` before the next operation.
    pub fn wait(&mut self, now: Duration) -> Duration {
        self.refill(now);
        if self.level >= 0.0 {
            Duration::ZERO
        } else {
            Duration::from_secs_f64(-self.level / self.per_second)
        }
    }

    fn refill(&mut self, now: Duration) {
        let earned = now.saturating_sub(self.updated).as_secs_f64() * self.per_second;
        self.level = (self.level + earned).min(self.per_second);
        self.updated = self.updated.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn delays_double_up_to_the_longest_and_start_over() {
        let mut backoff = Backoff::new(ms(100), ms(1000));
        let full: Vec<_> = (0..6).map(|_| backoff.next(1.0, None)).collect();
        assert_eq!(full, [ms(100), ms(200), ms(400), ms(800), ms(1000), ms(1000)]);
        assert_eq!(backoff.next(0.0, None), Duration::ZERO, "full jitter may be zero");
        backoff.reset();
        assert_eq!(backoff.next(0.5, None), ms(50));
    }

    #[test]
    fn the_service_is_never_asked_before_its_hint() {
        let mut backoff = Backoff::new(ms(10), ms(50));
        assert!(backoff.next(0.0, Some(ms(700))) >= ms(700));
        assert_eq!(backoff.attempts(), 1);
        assert_eq!(backoff.next(1.0, Some(ms(700))), ms(710));
        assert_eq!(backoff.attempts(), 2);
        assert!(backoff.next(1.0, Some(ms(700))) <= ms(710), "the jitter after a hint must be small");
    }

    #[test]
    fn a_burst_of_throttling_is_one_signal_and_recovery_is_slow() {
        let mut concurrency = Concurrency::new(100);
        for _ in 0..50 {
            concurrency.throttled(ms(1000));
        }
        assert_eq!(concurrency.limit(), 70);
        concurrency.throttled(ms(1600));
        assert_eq!(concurrency.limit(), 49);
        for _ in 0..49 {
            concurrency.success();
        }
        assert!((49..=50).contains(&concurrency.limit()));
        for _ in 0..100_000 {
            concurrency.success();
        }
        assert_eq!(concurrency.limit(), 100);
        for second in 2..60 {
            concurrency.throttled(ms(second * 1000));
        }
        assert_eq!(concurrency.limit(), 1, "the limit must not be below one");
    }

    #[test]
    fn another_rate_counts_from_its_time_on_and_debts_stay() {
        let mut budget = Budget::new(100.0);
        budget.spend(200.0, ms(0));
        assert_eq!(budget.wait(ms(0)), ms(1000));
        budget.set_rate(50.0, ms(500));
        assert_eq!(
            budget.wait(ms(500)),
            ms(1000),
            "half of the debt is paid, the other half takes twice as long"
        );
        budget.set_rate(10.0, ms(60_000));
        budget.spend(11.0, ms(60_000));
        assert_eq!(budget.wait(ms(60_000)), ms(100), "savings must fit the new rate");
    }

    #[test]
    fn debt_is_waited_for_and_savings_are_bounded() {
        let mut budget = Budget::new(100.0);
        assert_eq!(budget.wait(ms(10_000)), Duration::ZERO);
        budget.spend(150.0, ms(10_000));
        assert_eq!(budget.wait(ms(10_000)), ms(500));
        assert_eq!(budget.wait(ms(10_500)), Duration::ZERO);
        budget.spend(100.0, ms(60_000));
        assert_eq!(budget.wait(ms(60_000)), Duration::ZERO);
    }
}
