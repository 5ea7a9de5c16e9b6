//! Connects to the dependencies at the start. Temporary failures are waited out. A failure that a person has to fix ends the start with its
//! code.
//!
//! `/readyz` and `twinsync_start_delays_total` show what the start waits for. A restart would not help, so the process stays live.
//! `docs/errors` has a page for every code.

use std::time::Duration;

use tokio::time::Instant;

use super::Error;
use crate::{
    domain::{
        grace_period::{GracePeriod, Verdict},
        health::{Dependency, Failure, StoreState},
        retry::Backoff,
    },
    runtime::jitter::jitter,
    telemetry::{HealthState, Metrics, event::StartDelayed},
};

/// First and longest wait between two tries. Short, so that the start follows soon after the end of an outage.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// A dependency that the daemon needs to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Needed {
    /// Cosmos DB.
    Store,
    /// Any other dependency.
    Dependency(Dependency),
}

impl Needed {
    /// Its name in metrics.
    const fn label(&self) -> &'static str {
        match self {
            Self::Store => "cosmos",
            Self::Dependency(Dependency::Credential) => "credential",
            Self::Dependency(Dependency::EventHub(_)) => "eventhubs",
            Self::Dependency(Dependency::Checkpoints | Dependency::Leases) => "checkpoints",
            Self::Dependency(Dependency::DeadLetters) => "dead_letters",
            Self::Dependency(Dependency::Registry(_)) => "registry",
            // The start does not wait for traces.
            Self::Dependency(Dependency::Traces) => "traces",
            Self::Dependency(Dependency::EntraKeys) => "entra_keys",
            Self::Dependency(Dependency::Lag) => "lag",
            Self::Dependency(Dependency::ChangeFeed) => "change_feed",
        }
    }
}

impl std::fmt::Display for Needed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Store => f.write_str("the document store"),
            Self::Dependency(dependency) => dependency.fmt(f),
        }
    }
}

/// How a start waits for its dependencies.
pub(super) struct Connector<'a> {
    /// How long refusals are retried.
    pub(super) grace: Duration,
    /// Where the wait is shown.
    pub(super) health: &'a HealthState,
    /// Counts the failed tries.
    pub(super) metrics: &'a Metrics,
}

impl Connector<'_> {
    /// Repeats `attempt` until it succeeds, as long as that may help. May be dropped at any time.
    ///
    /// # Errors
    /// A person has to fix something.
    pub(super) async fn until<T, F>(&self, what: Needed, mut attempt: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        let (mut grace, began) = (GracePeriod::new(self.grace), Instant::now());
        loop {
            let error = match Box::pin(attempt()).await {
                Ok(reached) => {
                    self.reached(&what, backoff.attempts(), began.elapsed());
                    return Ok(reached);
                }
                Err(error) => error,
            };
            let Verdict::Wait(gives_up_in) = grace.failed(began.elapsed(), error.nature()) else {
                return Err(error);
            };
            let (retry_in, reason) = (backoff.next(jitter(), None), error.to_string());
            let code = error.code();
            StartDelayed::Waiting {
                what: &what,
                label: what.label(),
                code,
                reason: &reason,
                retry_in,
                gives_up_in,
            }
            .emit(self.metrics);
            match &what {
                Needed::Store => {
                    self.health.set_store(StoreState::Unreachable { reason });
                    self.health.tries_store_again(retry_in);
                }
                Needed::Dependency(dependency) => {
                    self.health.is_down(dependency.clone(), Failure::Silent, &reason);
                    self.health.tries_again(dependency, retry_in);
                }
            }
            tokio::time::sleep(retry_in).await;
        }
    }

    fn reached(&self, what: &Needed, failures: u32, after: Duration) {
        match what {
            Needed::Store => {
                self.health.set_store(StoreState::Reachable);
            }
            Needed::Dependency(dependency) => {
                self.health.is_up(dependency.clone());
            }
        }
        if failures > 0 {
            StartDelayed::Over { what, after }.emit(self.metrics);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::adapters::{cosmos::ConnectError, dead_letters};

    fn unreachable() -> Error {
        ConnectError::Unreachable { endpoint: "https://a/".into(), reason: "503".into() }.into()
    }

    fn refused() -> Error {
        ConnectError::Refused { endpoint: "https://a/".into(), reason: "403".into() }.into()
    }

    /// Runs tries with these failures, one after the other. Returns the result and the number of tries.
    async fn try_with(
        grace: Duration,
        failures: Vec<fn() -> Error>,
    ) -> (Result<(), Error>, u32, HealthState, Metrics) {
        let (health, metrics) = (HealthState::new(), Metrics::new().expect("buckets"));
        let connector = Connector { grace, health: &health, metrics: &metrics };
        let (tries, failures) = (AtomicU32::new(0), &failures);
        let result = connector.until(Needed::Store, || {
            let number = tries.fetch_add(1, Ordering::Relaxed) as usize;
            async move { failures.get(number).map_or(Ok(()), |failure| Err(failure())) }
        });
        let result = tokio::time::timeout(Duration::from_secs(60), result).await.expect("in time");
        let tries = tries.load(Ordering::Relaxed);
        (result, tries, health, metrics)
    }

    #[tokio::test]
    async fn what_passes_is_tried_again_until_it_works_and_counted() {
        let (result, tries, health, metrics) = try_with(Duration::ZERO, vec![unreachable; 2]).await;
        result.expect("reached");
        assert_eq!(tries, 3);
        assert_eq!(health.facts().store, StoreState::Reachable);
        let counted = "twinsync_start_delays_total{dependency=\"cosmos\"} 2";
        assert!(metrics.render().contains(counted), "{}", metrics.render());
    }

    #[tokio::test]
    async fn what_is_refused_ends_it_when_the_grace_is_over_and_not_before() {
        let (result, tries, health, _) =
            try_with(Duration::ZERO, vec![unreachable, refused, unreachable]).await;
        assert_eq!(result.expect_err("a failure after the grace period").code(), "COSMOS_REFUSED");
        assert_eq!(tries, 2);
        assert!(matches!(health.facts().store, StoreState::Unreachable { .. }));
        let (result, tries, ..) = try_with(Duration::from_secs(600), vec![refused; 3]).await;
        result.expect("the role took effect");
        assert_eq!(tries, 4);
    }

    #[tokio::test]
    async fn what_no_time_mends_ends_it_at_once() {
        let reason = || std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let (health, metrics) = (HealthState::new(), Metrics::new().expect("buckets"));
        let connector = Connector { grace: Duration::from_secs(600), health: &health, metrics: &metrics };
        let result: Result<(), _> = connector
            .until(Needed::Dependency(Dependency::DeadLetters), || async {
                Err(dead_letters::Error::Directory { path: "/x".into(), reason: reason() }.into())
            })
            .await;
        assert_eq!(result.expect_err("a failure at once").code(), "DEAD_LETTER_DIRECTORY_UNUSABLE");
    }
}
