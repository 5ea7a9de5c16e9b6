//! Facts about the partitions of an Event Hub while it is consumed.

use std::time::Duration;

use crate::{
    domain::{
        health::Failure,
        id::{PartitionId, SequenceNumber},
        progress::Lost,
    },
    telemetry::{Metrics, StreamMetrics, limit::OVER},
};

/// Number of failures in a row from which partition discovery counts as failing. A single failure is normal.
const FAILURES_TOLD: u32 = 2;

/// The Event Hub has a new partition.
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
            stream = %self.stream, partition = %self.partition,
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
    /// Logs at WARN: Event Hubs never removes a partition, so this may be another Event Hub.
    pub fn emit(&self) {
        tracing::warn!(
            stream = %self.stream, partition = %self.partition, code = "PARTITION_MISSING",
            "the Event Hub does not name this partition any more: it is kept; restart if the Event Hub was re-created with fewer partitions"
        );
    }
}

/// Partition discovery failed.
#[derive(Debug, Clone, Copy)]
pub struct PartitionDiscoveryFailed<'a> {
    /// The Event Hub.
    pub stream: &'a str,
    /// Stable code.
    pub code: &'static str,
    /// What went wrong, in one line.
    pub error: &'a str,
    /// Number of failures since the last success.
    pub in_a_row: u32,
}

impl PartitionDiscoveryFailed<'_> {
    /// DEBUG the first time, then WARN: partitions that are added meanwhile are not read.
    pub fn emit(&self, metrics: &Metrics) {
        metrics.partition_discovery_failed(self.stream);
        let Self { stream, code, error, in_a_row } = *self;
        if in_a_row < FAILURES_TOLD {
            tracing::debug!(%stream, error, "not found out which partitions there are");
        } else {
            tracing::warn!(
                %stream, code, error, in_a_row, again = "with the next discovery",
                "not found out which partitions there are: partitions that are added meanwhile wait unread until a look succeeds"
            );
        }
    }
}

/// The connection to a partition was given up and is being rebuilt.
#[derive(Debug, Clone, Copy)]
pub struct PartitionRebuilt<'a> {
    /// The partition.
    pub partition: &'a PartitionId,
    /// Stable reason code.
    pub reason: &'static str,
    /// Stable code.
    pub code: &'static str,
    /// What went wrong, in one line.
    pub error: &'a str,
    /// Time until the next try.
    pub retry_in: Duration,
}

impl PartitionRebuilt<'_> {
    /// WARN: brokers close links now and then, so a single one is normal.
    pub fn emit(&self, metrics: &Metrics) {
        metrics.partition_rebuilt(&self.partition.stream, self.reason);
        tracing::warn!(
            stream = %self.partition.stream, partition = %self.partition.partition, reason = self.reason, code = self.code, error = self.error,
            retry_in = ?self.retry_in, "connection to the partition lost: connecting again at the last event received"
        );
    }
}

/// A partition cannot be read, or its start position cannot be determined.
#[derive(Debug, Clone, Copy)]
pub struct PartitionDelayed<'a> {
    /// The partition.
    pub partition: &'a PartitionId,
    /// Stable code.
    pub code: &'static str,
    /// What went wrong and what to do, in one line.
    pub error: &'a str,
    /// Time until the next try.
    pub retry_in: Duration,
    /// Time until the daemon ends with this error, if it does.
    pub gives_up_in: Option<Duration>,
}

impl PartitionDelayed<'_> {
    /// Logs at WARN if waiting may help, and at ERROR if a person has to fix it.
    pub fn emit(&self) {
        let Self { partition, code, error, retry_in, gives_up_in } = self;
        match gives_up_in {
            None => tracing::warn!(
                stream = %partition.stream, partition = %partition.partition, code, error, ?retry_in, "the partition cannot be read at present, trying again until it can"
            ),
            Some(left) => tracing::error!(
                stream = %partition.stream, partition = %partition.partition, code, error, ?retry_in, gives_up_in_seconds = left.as_secs(),
                "the partition must not be read, or is not there: trying again, and ending with this error if that does not change"
            ),
        }
    }
}

/// Events are received from a partition again.
#[derive(Debug, Clone, Copy)]
pub struct PartitionReceives<'a> {
    /// The partition.
    pub partition: &'a PartitionId,
    /// How long none were received.
    pub after: Duration,
}

impl PartitionReceives<'_> {
    /// INFO.
    pub fn emit(&self) {
        tracing::info!(
            stream = %self.partition.stream, partition = %self.partition.partition, seconds = self.after.as_secs(),
            outage = OVER, "the partition is received from again"
        );
    }
}

/// The checkpoint of a partition was written.
#[derive(Debug, Clone, Copy)]
pub struct CheckpointWritten<'a> {
    /// The partition.
    pub partition: &'a PartitionId,
    /// The last completed event.
    pub sequence_number: SequenceNumber,
}

impl CheckpointWritten<'_> {
    /// DEBUG.
    pub fn emit(&self) {
        tracing::debug!(
            stream = %self.partition.stream, partition = %self.partition.partition, sequence_number = %self.sequence_number, "checkpoint written"
        );
    }
}

/// The checkpoint of a partition could not be written.
#[derive(Debug, Clone, Copy)]
pub struct CheckpointDelayed<'a> {
    /// The partition.
    pub partition: &'a PartitionId,
    /// Stable code.
    pub code: &'static str,
    /// How it failed.
    pub failure: Failure,
    /// What went wrong, in one line.
    pub error: &'a str,
}

impl CheckpointDelayed<'_> {
    /// Logs at DEBUG: the state of the store is reported once, by [`DependencyChanged`](super::DependencyChanged).
    pub fn emit(&self, metrics: &Metrics) {
        metrics.checkpoint_failed(&self.partition.stream, self.failure);
        tracing::debug!(
            stream = %self.partition.stream, partition = %self.partition.partition, code = self.code, error = self.error, again = "with the next commit",
            "cannot write the checkpoint, trying again: after a restart more events would be received again"
        );
    }
}

/// A checkpoint that does not fit its partition was given up, as configured.
#[derive(Debug, Clone, Copy)]
pub struct CheckpointGivenUp<'a> {
    /// The partition.
    pub partition: &'a PartitionId,
    /// Why it does not fit.
    pub problem: &'a str,
}

impl CheckpointGivenUp<'_> {
    /// WARN.
    pub fn emit(&self) {
        tracing::warn!(
            stream = %self.partition.stream, partition = %self.partition.partition, problem = self.problem, code = "CHECKPOINT_INVALID",
            "beginning at the oldest retained event, as checkpoint.on_invalid says"
        );
    }
}

/// Events of a partition can never be received.
#[derive(Debug, Clone, Copy)]
pub struct EventsLost<'a> {
    /// The partition.
    pub partition: &'a PartitionId,
    /// The lost events.
    pub lost: Lost,
    /// Whether consuming continues behind them.
    pub goes_on: bool,
    /// Whether an audit will ask the hub about the lost changes.
    pub audit: bool,
}

impl EventsLost<'_> {
    /// ERROR.
    pub fn emit(&self, metrics: &StreamMetrics) {
        metrics.lost(self.lost.count());
        let what_is_done = match (self.goes_on, self.audit) {
            (false, _) => "stopping before them, as checkpoint.on_invalid says",
            (true, false) => {
                "going on behind them, as checkpoint.on_invalid says; what they changed is missing"
            }
            (true, true) => {
                "going on behind them, as checkpoint.on_invalid says; an audit will find what is missing"
            }
        };
        tracing::error!(
            stream = %self.partition.stream, partition = %self.partition.partition, from = %self.lost.from, to = %self.lost.to, events = self.lost.count(),
            code = "EVENTS_LOST", what_is_done,
            "events were never received: retention has passed them, or the Event Hub was re-created"
        );
    }
}

/// A message is not valid AMQP: it has neither a body nor a position that could be kept.
#[derive(Debug, Clone, Copy)]
pub struct MessageUndecodable<'a> {
    /// The partition.
    pub partition: &'a PartitionId,
    /// The last message before it.
    pub after: Option<SequenceNumber>,
    /// The error of the AMQP layer.
    pub error: &'a str,
}

impl MessageUndecodable<'_> {
    /// Logs at ERROR: a person has to find the sender of such messages.
    pub fn emit(&self, metrics: &Metrics) {
        metrics.message_undecodable(&self.partition.stream);
        tracing::error!(
            stream = %self.partition.stream, partition = %self.partition.partition, after = self.after.map(|number| number.0), error = self.error, code = "MESSAGE_UNDECODABLE",
            "a message that is no valid AMQP was skipped"
        );
    }
}
