//! One function or handle per operational fact: it emits log and metric together, so that they cannot
//! disagree. "Dropped" would mean lost for ever, and nothing is; a retry is not a drop.
//!
//! What happens per event uses handles that are looked up once per partition.

use std::{
    array,
    time::{Duration, Instant},
};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::name;
use crate::{
    domain::{
        decide::Decision,
        decode::Ignored,
        id::PartitionId,
        message::{Message, Property},
        ticks::Ticks,
    },
    ports::{DeadLetterError, Read, SourceError, Trouble, Write},
};

/// Handles of one partition.
pub struct PartitionFacts {
    received: Counter,
    repeated: Counter,
    decisions: [Counter; Decision::ALL.len()],
    ignored: [Counter; Ignored::ALL.len()],
    freshness: Histogram,
    hub_to_event_hub: Histogram,
    event_hub_to_received: Histogram,
    received_to_durable: Histogram,
    lag: Gauge,
    checkpoint_age: Gauge,
}

impl PartitionFacts {
    /// Looks the handles up.
    pub fn new(id: &PartitionId) -> Self {
        let stream = || id.stream.clone();
        let partition = || id.partition.clone();
        Self {
            received: counter!(name::RECEIVED, "stream" => stream()),
            repeated: counter!(name::REPEATED, "stream" => stream()),
            decisions: array::from_fn(
                |index| counter!(name::EVENTS, "stream" => stream(), "decision" => Decision::ALL[index].name()),
            ),
            ignored: array::from_fn(
                |index| counter!(name::IGNORED, "stream" => stream(), "reason" => Ignored::ALL[index].name()),
            ),
            freshness: histogram!(name::FRESHNESS),
            hub_to_event_hub: histogram!(name::HUB_TO_EVENT_HUB),
            event_hub_to_received: histogram!(name::EVENT_HUB_TO_RECEIVED),
            received_to_durable: histogram!(name::RECEIVED_TO_DURABLE),
            lag: gauge!(name::LAG, "stream" => stream(), "partition" => partition()),
            checkpoint_age: gauge!(name::CHECKPOINT_AGE, "stream" => stream(), "partition" => partition()),
        }
    }

    /// A message came in.
    pub fn received(&self, _message: &Message) {
        self.received.increment(1);
    }

    /// It had come in before.
    pub fn repeated(&self) {
        self.repeated.increment(1);
    }

    /// It is not ours.
    pub fn ignored(&self, reason: Ignored) {
        if let Some(index) = Ignored::ALL.iter().position(|other| *other == reason) {
            self.ignored[index].increment(1);
        }
    }

    /// It was decided on, and is durable. `at` is the hub's time of the operation, `present` the time of day.
    pub fn decided(
        &self,
        decision: Decision,
        at: Ticks,
        message: &Message,
        received: Instant,
        present: Ticks,
    ) {
        if let Some(index) = Decision::ALL.iter().position(|other| *other == decision) {
            self.decisions[index].increment(1);
        }
        if matches!(decision, Decision::Duplicate | Decision::Stale) {
            return; // an old event replayed says nothing about freshness
        }
        let to_durable = received.elapsed().as_secs_f64();
        self.received_to_durable.record(to_durable);
        self.freshness.record(present.seconds_since(at).max(0.0));
        if let Some(enqueued) = message.enqueued {
            self.hub_to_event_hub.record(enqueued.seconds_since(at).max(0.0));
            self.event_hub_to_received
                .record((present.seconds_since(enqueued) - to_durable).max(0.0));
        }
    }

    /// Events that are not durable yet.
    pub fn lag(&self, events: u64) {
        self.lag.set(events as f64);
    }

    /// Time since everything durable was in the checkpoint.
    pub fn checkpoint_age(&self, age: Duration) {
        self.checkpoint_age.set(age.as_secs_f64());
    }
}

/// The two kinds of write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteKind {
    /// A document that must not exist.
    Create,
    /// A document that must still have its ETag.
    Replace,
}

impl WriteKind {
    const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Replace => "replace",
        }
    }
}

/// A conditional write came back.
pub fn write(kind: WriteKind, outcome: &Write, request_units: f64) {
    let outcome = match outcome {
        Write::Written(_) => "written",
        Write::Conflict => "conflict",
        Write::Rejected(_) => "rejected",
        Write::Unknown(_) => "unknown",
    };
    counter!(name::WRITES, "kind" => kind.name(), "outcome" => outcome).increment(1);
    charge(kind.name(), request_units);
}

/// A point read came back.
pub fn read(outcome: &Read, request_units: f64) {
    let outcome = match outcome {
        Read::Present(..) => "present",
        Read::Absent => "absent",
        Read::Damaged(..) => "damaged",
        Read::Unknown(_) => "unknown",
    };
    counter!(name::READS, "outcome" => outcome).increment(1);
    charge("read", request_units);
}

/// A query for modules came back.
pub fn query(answered: bool, request_units: f64) {
    counter!(name::QUERIES, "outcome" => if answered { "answered" } else { "unknown" }).increment(1);
    charge("query", request_units);
}

fn charge(operation: &'static str, request_units: f64) {
    let milliunits = (request_units * 1000.0).round().max(0.0) as u64;
    counter!(name::REQUEST_UNITS, "purpose" => "live", "operation" => operation).increment(milliunits);
}

/// A document is none of ours; it will be replaced and flagged.
pub fn damaged_document(reason: &str) {
    counter!(name::DAMAGED).increment(1);
    tracing::warn!(
        reason,
        "a stored document cannot be read; it is replaced and flagged as suspect"
    );
}

/// A batch of one twin is durable.
pub fn batch(events: usize, _writes: usize) {
    histogram!(name::EVENTS_PER_BATCH).record(events as f64);
}

/// The store gave no answer; the twin's lane waits.
pub fn store_trouble(trouble: &Trouble, throttled: bool, delay: Duration) {
    let reason = if throttled { "throttled" } else { "unavailable" };
    counter!(name::STORE_TROUBLE, "reason" => reason).increment(1);
    if throttled {
        tracing::debug!(retry_in = ?delay, "the store throttles");
    } else {
        tracing::warn!(reason = trouble.message, retry_in = ?delay, "the store gave no answer; the event is retried");
    }
}

/// The adaptive limit.
pub fn concurrency(limit: usize) {
    gauge!(name::CONCURRENCY).set(limit as f64);
}

/// What is between intake and completion.
pub fn in_flight(events: usize, bytes: usize) {
    gauge!(name::IN_FLIGHT_EVENTS).set(events as f64);
    gauge!(name::IN_FLIGHT_BYTES).set(bytes as f64);
}

/// A dead letter is durable.
pub fn dead_lettered(partition: &PartitionId, message: &Message, reason: &'static str, detail: &str) {
    counter!(name::DEAD_LETTERS, "reason" => reason).increment(1);
    let operation = message
        .application_properties
        .get("opType")
        .and_then(Property::as_text);
    tracing::warn!(
        %partition,
        sequence_number = message.position.sequence_number.0,
        operation = operation.as_deref(),
        reason,
        detail,
        "an event can never be applied and was stored as a dead letter"
    );
}

/// A dead letter could not be stored; the partition's checkpoint waits for it.
pub fn dead_letter_failed(error: &DeadLetterError, delay: Duration) {
    counter!(name::DEAD_LETTER_FAILURES).increment(1);
    let source = std::error::Error::source(error).map(ToString::to_string);
    tracing::error!(%error, source, retry_in = ?delay, "the checkpoint is held until the dead letter is stored");
}

/// A message could not be decoded by the AMQP layer: it has no body that could be kept.
pub fn undecodable(partition: &PartitionId, reason: &str) {
    counter!(name::UNDECODABLE, "stream" => partition.stream.clone()).increment(1);
    tracing::error!(%partition, reason, "a message that is not valid AMQP was skipped");
}

/// A partition's client is rebuilt.
pub fn rebuild(partition: &PartitionId, name: &'static str, reason: &str, delay: Duration) {
    counter!(name::REBUILDS, "stream" => partition.stream.clone(), "reason" => name).increment(1);
    tracing::warn!(%partition, reason, retry_in = ?delay, "the partition's connection is rebuilt; nothing is lost");
}

/// The end of a partition could not be read, so its lag is not known.
pub fn lag_unknown(partition: &PartitionId, error: &SourceError) {
    tracing::debug!(%partition, %error, "lag could not be measured");
}

/// A checkpoint could not be written; a restart would replay more.
pub fn checkpoint_failed(partition: &PartitionId, reason: &str) {
    counter!(name::CHECKPOINT_FAILURES, "stream" => partition.stream.clone()).increment(1);
    tracing::warn!(%partition, reason, "the checkpoint was not written and is tried again; a restart would replay more");
}

/// A checkpoint that does not fit was given up, as configured.
pub fn checkpoint_given_up(partition: &PartitionId, problem: &str) {
    tracing::warn!(%partition, problem, "TS-C001: beginning at the oldest retained event, as checkpoint.on_invalid says");
}
