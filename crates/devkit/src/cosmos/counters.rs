//! Counts of requests, and the request units that were charged.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use super::faults::Operation;

/// Counts of the requests of one kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OperationCount {
    /// Number of requests, with any answer.
    pub requests: u64,
    /// Request units charged, in total.
    pub request_units: f64,
    /// Queries that had to load all documents of their scope, because the index does not contain the paths in their
    /// filter.
    #[serde(default)]
    pub scans: u64,
    /// Number of requests by the status that the client received.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests that asked for Session consistency themselves.
    pub session: u64,
    /// Requests that were sent to the second write region.
    pub elsewhere: u64,
}

/// Properties of a request that are counted in addition to its operation.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marks {
    pub(super) session: bool,
    pub(super) elsewhere: bool,
    pub(super) scan: bool,
}

/// Requests by operation: `read`, `create`, `replace`, `upsert`, `delete`, `patch`, `query`, `batch`, `feed` (change
/// feed and plain listing) and `metadata` (account, databases, containers, partition key ranges, query plans).
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
