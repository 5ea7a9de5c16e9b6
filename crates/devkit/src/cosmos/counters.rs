//! What the account was asked, and what it charged.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use super::faults::Operation;

/// Requests of one kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OperationCount {
    /// Requests, whatever the answer.
    pub requests: u64,
    /// Request units charged, over all answers.
    pub request_units: f64,
    /// Queries that had to load every document they might find, since the index does not have what they look at.
    #[serde(default)]
    pub scans: u64,
    /// Requests by the status that the client was told.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests that asked for Session consistency by themselves.
    pub session: u64,
    /// Requests that were sent to the second write region.
    pub elsewhere: u64,
}

/// What a request shows beside its operation.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marks {
    pub(super) session: bool,
    pub(super) elsewhere: bool,
    pub(super) scan: bool,
}

/// Requests by operation: `read`, `create`, `replace`, `upsert`, `delete`, `patch`, `query`, `batch`, `feed`
/// (change feed and plain listing) and `metadata` (account, databases, containers, partition key ranges, query plans).
pub type Counters = BTreeMap<String, OperationCount>;

#[derive(Debug, Default)]
pub(super) struct Counting(Mutex<Counters>);

impl Counting {
    pub(super) fn record(&self, operation: Operation, marks: Marks, status: u16, request_units: f64) {
        let mut counters = self.lock();
        let count = match counters.get_mut(operation.name()) {
            Some(count) => count,
            None => counters.entry(operation.name().to_owned()).or_default(),
        };
        count.requests += 1;
        count.session += u64::from(marks.session);
        count.elsewhere += u64::from(marks.elsewhere);
        count.scans += u64::from(marks.scan);
        count.request_units += request_units;
        *count.statuses.entry(status).or_default() += 1;
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
