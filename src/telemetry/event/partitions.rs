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

facts! {
    /// The Event Hub has a new partition.
    PartitionAdded<'a> {
        /// The Event Hub.
        stream: &'a str,
        /// The partition.
        partition: &'a str,
    }
    /// INFO.
    tracing::info!(
        %stream, %partition,
        "the Event Hub has a new partition: it is read from its beginning; for a while the events of a device lie in two partitions"
    );

    /// A partition is not in the Event Hub's own list any more.
    PartitionMissing<'a> {
        /// The Event Hub.
        stream: &'a str,
        /// The partition.
        partition: &'a str,
    }
    /// Logs at WARN: Event Hubs never removes a partition, so this may be another Event Hub.
    tracing::warn!(
        %stream, %partition, code = "PARTITION_MISSING",
        "the Event Hub does not list this partition any more: it is kept; restart if the Event Hub was re-created with fewer partitions"
    );

    /// The connection to a partition was given up and is being rebuilt.
    PartitionRebuilt<'a> {
        /// The partition.
        partition: &'a PartitionId,
        /// Stable reason code.
        reason: &'static str,
        /// Stable code.
        code: &'static str,
        /// What went wrong, in one line.
        error: &'a str,
        /// Time until the next try.
        retry_in: Duration,
    }
    counts(metrics: &Metrics) { metrics.partition_rebuilt(&partition.stream, reason); }
    /// WARN: brokers close links now and then, so a single one is normal.
    tracing::warn!(
        in partition, reason, code, error, ?retry_in,
        "connection to the partition lost: connecting again at the last event received"
    );

    /// Events are received from a partition again.
    PartitionReceives<'a> {
        /// The partition.
        partition: &'a PartitionId,
        /// How long none were received.
        after: Duration,
    }
    /// INFO.
    tracing::info!(
        in partition, seconds = after.as_secs(), outage = OVER,
        "events of the partition are received again"
    );

    /// The checkpoint of a partition was written.
    CheckpointWritten<'a> {
        /// The partition.
        partition: &'a PartitionId,
        /// The last completed event.
        sequence_number: SequenceNumber,
    }
    /// DEBUG.
    tracing::debug!(in partition, %sequence_number, "checkpoint written");

    /// The checkpoint of a partition could not be written.
    CheckpointDelayed<'a> {
        /// The partition.
        partition: &'a PartitionId,
        /// Stable code.
        code: &'static str,
        /// How it failed.
        failure: Failure,
        /// What went wrong, in one line.
        error: &'a str,
    }
    counts(metrics: &Metrics) { metrics.checkpoint_failed(&partition.stream, failure); }
    /// Logs at DEBUG: the state of the store is reported once, by [`DependencyChanged`](super::DependencyChanged).
    tracing::debug!(
        in partition, code, error, again = "with the next commit",
        "cannot write the checkpoint, trying again: after a restart more events would be received again"
    );

    /// A checkpoint that does not fit its partition was given up, as configured.
    CheckpointGivenUp<'a> {
        /// The partition.
        partition: &'a PartitionId,
        /// Why it does not fit.
        problem: &'a str,
    }
    /// WARN.
    tracing::warn!(
        in partition, problem, code = "CHECKPOINT_INVALID",
        "beginning at the oldest retained event, as checkpoint.on_invalid says"
    );

    /// A message is not valid AMQP: it has neither a body nor a position that could be kept.
    MessageUndecodable<'a> {
        /// The partition.
        partition: &'a PartitionId,
        /// The last message before it.
        after: Option<SequenceNumber>,
        /// The error of the AMQP layer.
        error: &'a str,
    }
    counts(metrics: &Metrics) { metrics.message_undecodable(&partition.stream); }
    /// Logs at ERROR: a person has to find the sender of such messages.
    tracing::error!(
        in partition, after = after.map(|number| number.0), error, code = "MESSAGE_UNDECODABLE",
        "a message that is not valid AMQP was skipped"
    );
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
            tracing::debug!(%stream, error, "cannot list the partitions");
        } else {
            tracing::warn!(
                %stream, code, error, in_a_row, again = "with the next discovery",
                "cannot list the partitions: new partitions are not read until a discovery succeeds"
            );
        }
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
                "access to the partition is refused, or it does not exist: trying again, and ending with this error if that does not change"
            ),
        }
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
                "continuing after them, as checkpoint.on_invalid says; what they changed is missing"
            }
            (true, true) => {
                "continuing after them, as checkpoint.on_invalid says; an audit will find what is missing"
            }
        };
        tracing::error!(
            stream = %self.partition.stream, partition = %self.partition.partition, from = %self.lost.from, to = %self.lost.to, events = self.lost.count(),
            code = "EVENTS_LOST", what_is_done,
            "events were never received: retention has passed them, or the Event Hub was re-created"
        );
    }
}
