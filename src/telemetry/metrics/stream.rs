//! Counters of one stream.

use metrics::Counter;

use crate::telemetry::label::Decision;

/// Counters of one stream, one per decision.
#[derive(Clone)]
pub struct StreamMetrics {
    pub(super) decisions: Vec<Counter>,
    pub(super) lost: Counter,
}

impl StreamMetrics {
    /// Counts one event.
    pub fn decided(&self, decision: Decision) {
        self.decided_many(decision, 1);
    }

    /// Counts events that can never be received.
    pub fn lost(&self, events: u64) {
        self.lost.increment(events);
    }

    /// Counts several events with the same decision.
    pub fn decided_many(&self, decision: Decision, events: u64) {
        self.decisions[decision.index()].increment(events);
    }
}

impl std::fmt::Debug for StreamMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamMetrics").finish_non_exhaustive()
    }
}
