//! What the registry was asked, and what it answered.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

/// Requests of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OperationCount {
    /// Requests, whatever the answer.
    pub requests: u64,
    /// Requests by answer: the status, or `hang`, `drop` or `truncate` where there was none or half of one.
    pub answers: BTreeMap<String, u64>,
}

/// Requests by operation: `readTwin`, `writeTwin`, `query`, `statistics` and `other` (no such path).
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
