//! The cap on request units, shared by everything that spends them. It also gives the streams priority when the store throttles.
//!
//! While the streams are throttled, background work waits, but only for a limited time. So it does not starve under a store that is always
//! at its limit.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::domain::{quota::each_of, retry::Budget};

/// How long background work waits after the streams were throttled.
const HOLD_BACK: Duration = Duration::from_secs(2);
/// Maximum time that one request of background work is held back.
const PATIENCE: Duration = Duration::from_secs(15);

/// The shared cap on request units, if there is one. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RequestUnitBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Request units per second of all replicas together.
    cap: Option<f64>,
    budget: Option<Mutex<Budget>>,
    started: Instant,
    /// When the streams were last throttled.
    pressed: Mutex<Option<Instant>>,
}

impl RequestUnitBudget {
    /// Creates a budget with this cap on request units per second. `None`: no cap.
    pub fn new(request_units_per_second: Option<f64>) -> Self {
        Self(Arc::new(Shared {
            cap: request_units_per_second,
            budget: request_units_per_second.map(|cap| Mutex::new(Budget::new(cap))),
            started: Instant::now(),
            pressed: Mutex::new(None),
        }))
    }

    /// Sets the number of replicas that share the cap from now on.
    pub fn share_among(&self, replicas: usize) {
        if let Some(cap) = self.0.cap {
            self.with(|budget, now| budget.set_rate(each_of(replicas, cap), now));
        }
    }

    /// How long to wait before the next operation.
    pub fn wait(&self) -> Duration {
        self.with(|budget, now| budget.wait(now)).unwrap_or_default()
    }

    /// Subtracts the charge of an operation, in request units.
    pub fn spend(&self, request_units: f64) {
        self.with(|budget, now| budget.spend(request_units, now));
    }

    /// Records that the store throttles the streams.
    pub fn streams_are_throttled(&self) {
        *lock(&self.0.pressed) = Some(Instant::now());
    }

    /// Waits until background work may spend request units.
    pub async fn allowed(&self) {
        let patient_until = Instant::now() + PATIENCE;
        loop {
            let now = Instant::now();
            let pressed = *lock(&self.0.pressed);
            let held_back =
                pressed.map_or(Duration::ZERO, |at| (at + HOLD_BACK).saturating_duration_since(now));
            let wait = self.wait().max(held_back.min(patient_until.saturating_duration_since(now)));
            if wait.is_zero() {
                return;
            }
            tokio::time::sleep(wait).await;
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Budget, Duration) -> T) -> Option<T> {
        let budget = self.0.budget.as_ref()?;
        Some(act(&mut lock(budget), self.0.started.elapsed()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn without_a_cap_nothing_waits_and_debt_is_everybodys() {
        let started = Instant::now();
        let free = RequestUnitBudget::new(None);
        free.spend(1e9);
        free.allowed().await;
        assert_eq!(started.elapsed(), Duration::ZERO);
        let capped = RequestUnitBudget::new(Some(100.0));
        capped.clone().spend(300.0);
        capped.allowed().await;
        assert!(started.elapsed() >= Duration::from_secs(2), "took {:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn background_work_holds_back_while_the_streams_are_throttled_but_not_for_ever() {
        let budget = RequestUnitBudget::new(None);
        budget.streams_are_throttled();
        assert_eq!(budget.wait(), Duration::ZERO, "the streams have their own throttling");
        let started = Instant::now();
        budget.allowed().await;
        assert_eq!(started.elapsed(), HOLD_BACK);
        let pressing = budget.clone();
        let throttled = tokio::spawn(async move {
            loop {
                pressing.streams_are_throttled();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        let started = Instant::now();
        tokio::task::yield_now().await;
        budget.allowed().await;
        assert!(
            started.elapsed() >= PATIENCE && started.elapsed() < PATIENCE * 2,
            "took {:?}",
            started.elapsed()
        );
        throttled.abort();
    }
}
