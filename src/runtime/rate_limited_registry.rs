//! A hub's registry with its quota and its metrics. Everything except tests asks a hub through it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::quota::RateLimiter;
use crate::{
    domain::{
        health::{Dependency, Failure},
        id::{HubName, TwinKey},
        quota::Purpose,
        registry::TwinReference,
    },
    ports::{
        Call, Continuation, Got, Page, QueryError, StoreError, StoreErrorKind, TWIN_UNANSWERED, TwinRegistry,
    },
    telemetry::{
        HealthState, Metrics, RegistryCall, RegistryOutcome,
        event::{RegistryAsked, RegistryChanged},
    },
};

/// Number of failures in a row after which a hub counts as unreachable. A single answer that is not a twin says nothing about the hub.
const FAILURES_UNREACHABLE: u32 = 3;

/// The registry of one hub. Each call first waits for its turn.
pub struct RateLimitedRegistry {
    registry: Arc<dyn TwinRegistry>,
    rate_limiter: RateLimiter,
    metrics: Metrics,
    reach: Mutex<Reach>,
    health: Option<HealthState>,
}

/// State of the hub: whether it answers.
#[derive(Debug, Default)]
struct Reach {
    failures: u32,
}

impl std::fmt::Debug for RateLimitedRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RateLimitedRegistry").field("hub", &self.hub()).finish_non_exhaustive()
    }
}

impl RateLimitedRegistry {
    /// Wraps `registry`, whose calls then wait for `rate_limiter`.
    pub fn new(registry: Arc<dyn TwinRegistry>, rate_limiter: RateLimiter, metrics: Metrics) -> Self {
        metrics.registry(registry.hub());
        Self { registry, rate_limiter, metrics, reach: Mutex::default(), health: None }
    }

    /// The same registry, which also reports to `health` whether the hub answers.
    #[must_use]
    pub fn shown_on(self, health: &HealthState) -> Self {
        Self { health: Some(health.clone()), ..self }
    }

    /// The hub.
    pub fn hub(&self) -> &HubName {
        self.registry.hub()
    }

    /// The rate limiter of this hub.
    pub fn rate_limiter(&self) -> &RateLimiter {
        &self.rate_limiter
    }

    /// Reports to the health state after how long a caller without an answer asks again.
    pub fn asks_again(&self, after: Duration) {
        if let Some(health) = &self.health {
            health.tries_again(&Dependency::Registry(self.hub().to_string()), after);
        }
    }

    /// Calls [`TwinRegistry::get`] in turn. Waits for as long as the quota needs. May be dropped.
    pub async fn get(&self, key: &TwinKey, purpose: Purpose) -> Got {
        if let Some(message) = self.registry.unaskable(key) {
            // This is not a call, and says nothing about the hub.
            return Got::Unknown(StoreError {
                kind: StoreErrorKind::Unavailable,
                code: TWIN_UNANSWERED,
                retry_after: None,
                message,
            });
        }
        self.rate_limiter.get(purpose).await;
        let asked = Instant::now();
        let got = self.registry.get(key).await;
        let took = asked.elapsed();
        let (outcome, trouble) = match &got {
            Got::Present(_) => (RegistryOutcome::Present, None),
            Got::Absent(_) => (RegistryOutcome::Absent, None),
            Got::Unknown(trouble) => (outcome_of(trouble), Some(trouble)),
        };
        self.feed_back(Call::Get, outcome, trouble);
        let message = trouble.map(|trouble| trouble.message.as_str());
        self.record(RegistryCall::Get, purpose, outcome, took, Said::new(trouble, message));
        got
    }

    /// Calls [`TwinRegistry::query`] in turn. Waits for as long as the quota needs. May be dropped.
    ///
    /// # Errors
    /// As for [`TwinRegistry::query`].
    pub async fn query(
        &self,
        query: &str,
        from: Option<&Continuation>,
        most_rows: u32,
        purpose: Purpose,
    ) -> Result<Page, QueryError> {
        self.page(purpose, self.registry.query(query, from, most_rows)).await
    }

    /// Calls [`TwinRegistry::references`] in turn. Waits for as long as the quota needs. May be dropped.
    ///
    /// # Errors
    /// As for [`TwinRegistry::references`].
    pub async fn references(
        &self,
        query: &str,
        from: Option<&Continuation>,
        most_rows: u32,
        purpose: Purpose,
    ) -> Result<Page<TwinReference>, QueryError> {
        self.page(purpose, self.registry.references(query, from, most_rows)).await
    }

    async fn page<R>(
        &self,
        purpose: Purpose,
        ask: impl Future<Output = Result<Page<R>, QueryError>> + Send,
    ) -> Result<Page<R>, QueryError> {
        self.rate_limiter.query(purpose).await;
        let asked = Instant::now();
        let page = ask.await;
        let took = asked.elapsed();
        let (outcome, trouble, message) = outcome_of_query(&page);
        self.feed_back(Call::Query, outcome, trouble);
        self.record(RegistryCall::Query, purpose, outcome, took, Said::new(trouble, message.as_deref()));
        page
    }

    /// Calls [`TwinRegistry::device_count`]. It counts towards another quota of the hub, that of its identities, and is rare. So it does
    /// not wait.
    ///
    /// # Errors
    /// As for [`TwinRegistry::device_count`].
    pub async fn device_count(&self, purpose: Purpose) -> Result<u64, QueryError> {
        let asked = Instant::now();
        let count = self.registry.device_count().await;
        let took = asked.elapsed();
        let (outcome, trouble, message) = outcome_of_query(&count);
        self.record(RegistryCall::Count, purpose, outcome, took, Said::new(trouble, message.as_deref()));
        count
    }

    /// Tells the rate limiter whether the hub throttled or answered.
    fn feed_back(&self, call: Call, outcome: RegistryOutcome, trouble: Option<&StoreError>) {
        match outcome {
            RegistryOutcome::Throttled => {
                self.rate_limiter.throttled(call, trouble.and_then(|trouble| trouble.retry_after));
            }
            RegistryOutcome::Present
            | RegistryOutcome::Absent
            | RegistryOutcome::Ok
            | RegistryOutcome::Refused
            | RegistryOutcome::Expired => self.rate_limiter.answered(call),
            RegistryOutcome::Unavailable => {}
        }
    }

    fn record(
        &self,
        call: RegistryCall,
        purpose: Purpose,
        outcome: RegistryOutcome,
        took: Duration,
        Said { code, message }: Said<'_>,
    ) {
        let hub = self.hub();
        RegistryAsked { hub, call, purpose: purpose.into(), outcome, took, message }.emit(&self.metrics);
        let mut reach = self.reach.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            // Throttling shows that the hub is reachable, and nothing else.
            RegistryOutcome::Throttled => {}
            RegistryOutcome::Unavailable => {
                reach.failures = reach.failures.saturating_add(1);
                if reach.failures == FAILURES_UNREACHABLE {
                    let reason = message.unwrap_or_default();
                    RegistryChanged::Unreachable { hub, code, reason }.emit();
                }
                if reach.failures >= FAILURES_UNREACHABLE
                    && let Some(health) = &self.health
                {
                    let reason = message.unwrap_or_default();
                    health.is_down(Dependency::Registry(hub.to_string()), Failure::Silent, reason);
                }
            }
            RegistryOutcome::Present
            | RegistryOutcome::Absent
            | RegistryOutcome::Ok
            | RegistryOutcome::Refused
            | RegistryOutcome::Expired => {
                if reach.failures >= FAILURES_UNREACHABLE {
                    RegistryChanged::Reachable { hub }.emit();
                }
                reach.failures = 0;
                if let Some(health) = &self.health {
                    health.is_up(Dependency::Registry(hub.to_string()));
                }
            }
        }
    }
}

/// Code and text of an answer that is not a result.
struct Said<'a> {
    code: &'static str,
    message: Option<&'a str>,
}

impl<'a> Said<'a> {
    fn new(trouble: Option<&StoreError>, message: Option<&'a str>) -> Self {
        // Only failures are reported under a code.
        Self { code: trouble.map_or("IOTHUB_UNAVAILABLE", |trouble| trouble.code), message }
    }
}

const fn outcome_of(trouble: &StoreError) -> RegistryOutcome {
    match trouble.kind {
        StoreErrorKind::Throttled => RegistryOutcome::Throttled,
        // Only documents have a release, so `Newer` cannot occur here.
        StoreErrorKind::Unavailable | StoreErrorKind::Newer | StoreErrorKind::Contradictory => {
            RegistryOutcome::Unavailable
        }
    }
}

fn outcome_of_query<T>(
    result: &Result<T, QueryError>,
) -> (RegistryOutcome, Option<&StoreError>, Option<String>) {
    let Err(error) = result else {
        return (RegistryOutcome::Ok, None, None);
    };
    let message = Some(error.to_string());
    match error {
        QueryError::StoreError(trouble) => (outcome_of(trouble), Some(trouble), message),
        QueryError::Expired => (RegistryOutcome::Expired, None, message),
        QueryError::Refused(_) => (RegistryOutcome::Refused, None, message),
    }
}

#[cfg(test)]
mod tests;
