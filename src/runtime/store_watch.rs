//! Checks periodically whether the document store can be read. This is for a process that only reads: without requests, nothing else would
//! show an outage.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{health::StoreState, id::TwinKey, quota::Purpose},
    ports::{Charged, Read, StoreError, StoreErrorKind, TwinStore},
    runtime::request_unit_budget::RequestUnitBudget,
    telemetry::{HealthState, Metrics, event::StoreChanged},
};

/// Time between two checks. Each one costs one request unit.
const INTERVAL: Duration = Duration::from_secs(10);
/// Time limit of one check.
const LIMIT: Duration = Duration::from_secs(10);
/// This many failures in a row count as an outage: in a service of that size, single failures are normal.
const PATIENCE: u32 = 2;

/// Reads the document of `key`, which need not exist, until `stop`. Posts in the health state whether the store answers.
pub async fn run(
    store: Arc<dyn TwinStore>,
    key: TwinKey,
    budget: RequestUnitBudget,
    health: HealthState,
    metrics: Metrics,
    stop: CancellationToken,
) {
    let mut timer = interval(INTERVAL);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut in_a_row = 0;
    loop {
        let watched = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            watched = async {
                timer.tick().await;
                timeout(LIMIT, store.read(&key)).await
            } => watched,
        };
        let failed = match watched {
            Ok(Charged { outcome, request_units }) => {
                // The check does not wait for the cap: an exhausted cap is not an outage.
                budget.spend(request_units);
                metrics.request_units_spent(Purpose::Request.into(), request_units);
                trouble(outcome)
            }
            Err(_) => Some(("COSMOS_UNAVAILABLE", format!("no answer within {} s", LIMIT.as_secs()))),
        };
        in_a_row = if failed.is_some() { in_a_row + 1 } else { 0 };
        match failed {
            Some((code, reason)) if in_a_row >= PATIENCE => {
                if health.set_store(StoreState::Unreachable { reason: reason.clone() }) {
                    StoreChanged::Unreadable { code, reason: &reason }.emit();
                }
            }
            Some(_) => {}
            None => {
                if health.set_store(StoreState::Reachable) {
                    StoreChanged::Reachable.emit();
                }
            }
        }
    }
}

/// Why a read gave no result. A store that throttles is reachable.
fn trouble(read: Read) -> Option<(&'static str, String)> {
    match read {
        Read::Unknown(StoreError { kind: StoreErrorKind::Unavailable, code, message, .. }) => {
            Some((code, message))
        }
        Read::Unknown(_)
        | Read::Present(..)
        | Read::Absent
        | Read::Damaged(..)
        | Read::Foreign(_)
        | Read::Refused(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::memory_store::MemoryStore;

    #[tokio::test(start_paused = true)]
    async fn two_failures_in_a_row_are_an_outage_and_one_answer_ends_it() {
        let (store, health, stop) =
            (Arc::new(MemoryStore::default()), HealthState::new(), CancellationToken::new());
        let (metrics, budget) = (Metrics::new().unwrap(), RequestUnitBudget::new(Some(1.0)));
        let key = TwinKey::device("h", "d");
        let watched = Arc::clone(&store) as Arc<dyn TwinStore>;
        let task =
            tokio::spawn(run(watched, key, budget.clone(), health.clone(), metrics.clone(), stop.clone()));
        let after = async |looks: u32| {
            tokio::time::sleep(INTERVAL * looks).await;
            health.facts().store
        };
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(health.facts().store, StoreState::Reachable);
        *store.away.lock().unwrap() = true;
        assert_eq!(after(1).await, StoreState::Reachable, "a single failure is no outage");
        assert!(matches!(after(1).await, StoreState::Unreachable { .. }));
        *store.away.lock().unwrap() = false;
        // Other work uses the whole cap. The watch does not wait for it.
        budget.spend(1e6);
        assert_eq!(after(1).await, StoreState::Reachable);
        assert!(metrics.request_units(Purpose::Request.into()) >= 4.0);
        stop.cancel();
        timeout(INTERVAL, task).await.expect("ends").unwrap();
    }
}
