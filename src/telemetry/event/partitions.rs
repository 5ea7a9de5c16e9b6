//! What is found out about the partitions of an Event Hub while it is consumed.

use crate::telemetry::Metrics;

/// From so many failures in a row on, the look for partitions is in trouble: a single one is nothing.
const FAILURES_TOLD: u32 = 2;

/// The Event Hub has got a partition more.
#[derive(Debug, Clone, Copy)]
pub struct PartitionAdded<'a> {
    /// The Event Hub.
    pub stream: &'a str,
    /// The partition.
    pub partition: &'a str,
}

impl PartitionAdded<'_> {
    /// INFO.
    pub fn emit(&self) {
        tracing::info!(
            partition = format!("{}/{}", self.stream, self.partition),
            "the Event Hub has a new partition: it is read from its beginning; for a while the events of a device lie in two partitions"
        );
    }
}

/// A partition is not in the Event Hub's own list any more.
#[derive(Debug, Clone, Copy)]
pub struct PartitionMissing<'a> {
    /// The Event Hub.
    pub stream: &'a str,
    /// The partition.
    pub partition: &'a str,
}

impl PartitionMissing<'_> {
    /// WARN: Event Hubs takes no partition away, so the hub may be another one.
    pub fn emit(&self) {
        tracing::warn!(
            partition = format!("{}/{}", self.stream, self.partition),
            "the Event Hub does not name this partition any more: it is kept; restart if the Event Hub was re-created with fewer partitions"
        );
    }
}

/// It could not be found out which partitions there are.
#[derive(Debug, Clone, Copy)]
pub struct PartitionLookFailed<'a> {
    /// The Event Hub.
    pub stream: &'a str,
    /// What went wrong, in one line.
    pub error: &'a str,
    /// How many looks have failed since the last that did not.
    pub in_a_row: u32,
}

impl PartitionLookFailed<'_> {
    /// DEBUG the first time, then WARN: partitions that are added meanwhile are not read.
    pub fn emit(&self, metrics: &Metrics) {
        metrics.partition_look_failed(self.stream);
        let Self { stream: hub, error, in_a_row } = *self;
        if in_a_row < FAILURES_TOLD {
            tracing::debug!(hub, error, "not found out which partitions there are");
        } else {
            tracing::warn!(
                hub,
                error,
                in_a_row,
                "not found out which partitions there are: partitions that are added meanwhile wait unread until a look succeeds"
            );
        }
    }
}
