//! Counters by reason. Only the few reasons that occur are kept.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock},
};

use metrics::{Counter, Recorder};
use metrics_exporter_prometheus::PrometheusRecorder;

use super::{METADATA, key};

/// Counters by reason. Reasons are `'static`, so outside input cannot create new ones.
pub(super) struct ByReason {
    name: &'static str,
    counters: RwLock<BTreeMap<&'static str, Counter>>,
}

impl ByReason {
    /// Creates all at zero: an alert on an increase must not miss the first one.
    pub(super) fn new(
        recorder: &PrometheusRecorder,
        name: &'static str,
        reasons: impl IntoIterator<Item = &'static str>,
    ) -> Self {
        let counter =
            |reason| (reason, recorder.register_counter(&key(name, &[("reason", reason)]), &METADATA));
        Self { name, counters: RwLock::new(reasons.into_iter().map(counter).collect()) }
    }

    /// Counts one occurrence.
    pub(super) fn count(&self, recorder: &PrometheusRecorder, reason: &'static str) {
        let counters = self.counters.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(counter) = counters.get(reason) {
            counter.increment(1);
            return;
        }
        drop(counters);
        let key = key(self.name, &[("reason", reason)]);
        let counter = recorder.register_counter(&key, &METADATA);
        counter.increment(1);
        let mut counters = self.counters.write().unwrap_or_else(PoisonError::into_inner);
        counters.insert(reason, counter);
    }
}
