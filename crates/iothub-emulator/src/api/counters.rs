//! Counters of the API: requests and their answers.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

/// Counts of the requests of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OperationCount {
    /// Number of requests, with any answer.
    pub requests: u64,
    /// Number of requests by answer: the status, or `hang`, `drop` or `truncate` if the answer was missing or
    /// incomplete.
    pub answers: BTreeMap<String, u64>,
}

/// Requests by operation: `readTwin`, `writeTwin`, `query`, `statistics` and `other` (unknown path or
/// method).
pub type Counters = BTreeMap<String, OperationCount>;

#[derive(Debug, Default)]
pub(super) struct Counting(Mutex<Counters>);

impl Counting {
    pub(super) fn record(&self, operation: &str, answer: &str) {
        let mut counters = self.lock();
        let count = counters.entry(operation.to_owned()).or_default();
        count.requests += 1;
        *count.answers.entry(answer.to_owned()).or_default() += 1;
    }

    pub(super) fn snapshot(&self) -> Counters {
        self.lock().clone()
    }

    pub(super) fn reset(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Counters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
