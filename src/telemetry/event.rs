//! Operational facts. Each emits its log line and its metric together.
//!
//! Construct one and call `emit`. "Dropped" would mean lost for ever and does not occur: a retry is not a drop.

mod partitions;
mod reconcile;

use std::{path::Path, time::Duration};

pub use self::partitions::{PartitionAdded, PartitionLookFailed, PartitionMissing};
pub use self::reconcile::{
    AuditFinished, BackfillFinished, BackfillStarted, DocumentRejected, NoteNotKept, QueryDelayed,
    RepairDelayed, RepairGivenUp, RepairScan, RowsUnreadable, StillDifferent, TwinDelayed, TwinSettled,
    TwinUnknown, TwinWentBack, WalkFailed,
};

use super::{
    board::Board,
    label::{Decision, Purpose, ReadOutcome, RegistryCall, RegistryOutcome, WriteKind, WriteOutcome},
    metrics::{Metrics, StreamMetrics},
};
use crate::{
    domain::{
        health::{Dependency, Failure},
        id::{PartitionId, SequenceNumber, TwinKey},
        mounts::Ephemeral,
        progress::Lost,
    },
    ports::Trouble,
};

/// An event was decided about.
#[derive(Debug, Clone, Copy)]
pub struct EventDecided<'a> {
    /// Its partition.
    pub partition: &'a PartitionId,
    /// Its number there.
    pub sequence_number: SequenceNumber,
    /// The twin it is about.
    pub twin: &'a TwinKey,
    /// What was decided.
    pub decision: Decision,
}

impl EventDecided<'_> {
    /// TRACE; DEBUG where the order was in doubt.
    pub fn emit(&self, metrics: &StreamMetrics) {
        metrics.decided(self.decision);
        let decision = self.decision.label();
        match self.decision {
            Decision::Regression | Decision::Suspect | Decision::Gap | Decision::Partial => tracing::debug!(
                partition = %self.partition, sequence_number = %self.sequence_number, twin = %self.twin, decision,
                "event in doubt: the document is flagged"
            ),
            Decision::Applied
            | Decision::Duplicate
            | Decision::Stale
            | Decision::Ignored
            | Decision::DeadLettered => tracing::trace!(
                partition = %self.partition, sequence_number = %self.sequence_number, twin = %self.twin, decision,
                "event decided"
            ),
        }
    }
}

/// An event does not concern the replica.
#[derive(Debug, Clone, Copy)]
pub struct EventIgnored<'a> {
    /// Its partition.
    pub partition: &'a PartitionId,
    /// Its number there.
    pub sequence_number: SequenceNumber,
    /// Why not.
    pub reason: &'static str,
}

impl EventIgnored<'_> {
    /// TRACE: other sources on the hub are normal.
    pub fn emit(&self, metrics: &Metrics, stream: &StreamMetrics) {
        metrics.event_ignored(self.reason);
        stream.decided(Decision::Ignored);
        tracing::trace!(
            partition = %self.partition, sequence_number = %self.sequence_number, reason = self.reason,
            "event ignored"
        );
    }
}

/// An event can never be applied and is durably kept aside.
#[derive(Debug, Clone, Copy)]
pub struct EventDeadLettered<'a> {
    /// Its partition.
    pub partition: &'a PartitionId,
    /// Its number there.
    pub sequence_number: SequenceNumber,
    /// Stable reason code.
    pub reason: &'static str,
    /// One sentence; no payload.
    pub detail: &'a str,
}

impl EventDeadLettered<'_> {
    /// WARN.
    pub fn emit(&self, metrics: &Metrics, stream: &StreamMetrics) {
        metrics.event_dead_lettered(self.reason);
        stream.decided(Decision::DeadLettered);
        tracing::warn!(
            partition = %self.partition, sequence_number = %self.sequence_number, reason = self.reason,
            detail = self.detail, "event dead-lettered: it can never be applied; the partition goes on"
        );
    }
}

/// A dead letter could not be stored, or has not been stored for a while; its partition's progress waits.
#[derive(Debug, Clone, Copy)]
pub struct DeadLetterDelayed<'a> {
    /// Its partition.
    pub partition: &'a PartitionId,
    /// Its number there.
    pub sequence_number: SequenceNumber,
    /// How it failed.
    pub failure: Failure,
    /// What went wrong, in one line.
    pub error: &'a str,
    /// Time until the next try; `None`: the present one is still waited for.
    pub retry_in: Option<Duration>,
}

impl DeadLetterDelayed<'_> {
    /// DEBUG: the state of the store is told once, by [`DependencyChanged`].
    pub fn emit(&self, metrics: &Metrics) {
        metrics.dead_letter_failed(self.failure);
        tracing::debug!(
            partition = %self.partition, sequence_number = %self.sequence_number, error = self.error,
            retry_in = ?self.retry_in, "cannot store a dead letter: the partition's checkpoint waits for it"
        );
    }
}

/// Something that the daemon needs, beside the document store and the partitions, came or went.
#[derive(Debug, Clone, Copy)]
pub enum DependencyChanged<'a> {
    /// It does what it is asked for again.
    Answers {
        /// What.
        dependency: &'a Dependency,
        /// How long it did not.
        after: Duration,
    },
    /// It fails, again and again.
    Fails {
        /// What.
        dependency: &'a Dependency,
        /// How.
        failure: Failure,
        /// What went wrong, in one line.
        reason: &'a str,
    },
}

impl DependencyChanged<'_> {
    /// Posts on the board that something answers, or how and why it does not, and tells what is news of that.
    pub fn post(board: &Board, dependency: &Dependency, failed: Option<(Failure, &str)>) {
        match failed {
            Some((failure, reason)) if board.is_down(dependency.clone(), failure, reason) => {
                DependencyChanged::Fails { dependency, failure, reason }.emit();
            }
            Some(_) => {}
            None => {
                if let Some(after) = board.is_up(dependency.clone()) {
                    DependencyChanged::Answers { dependency, after }.emit();
                }
            }
        }
    }

    /// INFO and WARN.
    pub fn emit(&self) {
        match self {
            Self::Answers { dependency, after } => tracing::info!(
                what = %dependency, seconds = after.as_secs(), "what did not answer answers again"
            ),
            Self::Fails { dependency, failure, reason } => {
                let what_is_done = match dependency {
                    Dependency::Credential => {
                        "asked again until there is a token; what has one goes on with it"
                    }
                    Dependency::DeadLetters => {
                        "letters are tried again until they are stored; the checkpoints of their partitions wait"
                    }
                    Dependency::Checkpoints => {
                        "checkpoints are tried again until they are written; events go on, and more of them would be \
                         received again after a restart"
                    }
                    Dependency::Leases => {
                        "tried again until it answers; partitions are kept while their leases last, and then stopped"
                    }
                    Dependency::EventHub(_) => {
                        "asked again until it answers; what arrives is worked off, and the lag is not known"
                    }
                    Dependency::Registry(_) => {
                        "asked again until it answers; replication goes on, repair, backfill and audit of its twins wait"
                    }
                };
                match failure {
                    Failure::Silent => {
                        tracing::warn!(what = %dependency, reason, what_is_done, "something that is needed does not answer");
                    }
                    Failure::Throttled => {
                        tracing::warn!(what = %dependency, reason, what_is_done, "something that is needed asks for less");
                    }
                }
            }
        }
    }
}

/// An attempt to write a document came to an end.
#[derive(Debug, Clone, Copy)]
pub struct WriteFinished<'a> {
    /// What for.
    pub purpose: Purpose,
    /// The twin.
    pub twin: &'a TwinKey,
    /// How it was to be written.
    pub kind: WriteKind,
    /// What became of it.
    pub outcome: WriteOutcome,
    /// How many events it carried.
    pub events: usize,
    /// What it cost.
    pub request_units: f64,
    /// What the store said, for outcomes other than written.
    pub message: Option<&'a str>,
}

impl WriteFinished<'_> {
    /// TRACE when written, WARN when rejected, else DEBUG: what passes is tried again.
    pub fn emit(&self, metrics: &Metrics) {
        metrics.write_finished(self.kind, self.outcome);
        metrics.request_units_spent(self.purpose, self.request_units);
        let (kind, outcome) = (self.kind.label(), self.outcome.label());
        match self.outcome {
            WriteOutcome::Written => {
                metrics.events_written(self.events);
                tracing::trace!(twin = %self.twin, kind, events = self.events, "document written");
            }
            WriteOutcome::Conflict | WriteOutcome::Throttled | WriteOutcome::Unavailable => tracing::debug!(
                twin = %self.twin, kind, outcome, message = self.message, "document not written, trying again"
            ),
            WriteOutcome::Rejected => tracing::warn!(
                twin = %self.twin, kind, events = self.events, message = self.message,
                "document rejected for good by the store"
            ),
        }
    }
}

/// An attempt to read a document came to an end.
#[derive(Debug, Clone, Copy)]
pub struct ReadFinished<'a> {
    /// What for.
    pub purpose: Purpose,
    /// The twin.
    pub twin: &'a TwinKey,
    /// What became of it.
    pub outcome: ReadOutcome,
    /// What it cost.
    pub request_units: f64,
    /// What the store said, where it did not answer.
    pub message: Option<&'a str>,
}

impl ReadFinished<'_> {
    /// TRACE, or DEBUG without an answer.
    pub fn emit(&self, metrics: &Metrics) {
        metrics.read_finished(self.outcome);
        metrics.request_units_spent(self.purpose, self.request_units);
        match self.outcome {
            ReadOutcome::Present | ReadOutcome::Absent => {
                tracing::trace!(twin = %self.twin, outcome = self.outcome.label(), "document read");
            }
            ReadOutcome::Damaged => tracing::warn!(
                twin = %self.twin, message = self.message,
                "a stored document cannot be read: it is replaced and flagged as suspect"
            ),
            ReadOutcome::Foreign => tracing::debug!(
                twin = %self.twin, message = self.message, "the document is another twin's"
            ),
            ReadOutcome::Refused => tracing::debug!(
                twin = %self.twin, message = self.message, "no document can have this id"
            ),
            ReadOutcome::Throttled | ReadOutcome::Unavailable | ReadOutcome::Newer => tracing::debug!(
                twin = %self.twin, outcome = self.outcome.label(), message = self.message,
                "document not read, trying again"
            ),
        }
    }
}

/// The connection to a partition was given up and is built anew.
#[derive(Debug, Clone, Copy)]
pub struct PartitionRebuilt<'a> {
    /// The partition.
    pub partition: &'a PartitionId,
    /// Stable reason code.
    pub reason: &'static str,
    /// Stable code, where there is one.
    pub code: Option<&'static str>,
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
            partition = %self.partition, reason = self.reason, code = self.code, error = self.error,
            retry_in = ?self.retry_in, "connection to the partition lost: connecting again at the last event received"
        );
    }
}

/// What the daemon keeps in a directory will not outlive its container.
#[derive(Debug, Clone, Copy)]
pub struct StorageEphemeral<'a> {
    /// The section of the configuration that names it.
    pub section: &'static str,
    /// The directory.
    pub path: &'a Path,
    /// What it lies on.
    pub kind: Ephemeral,
}

impl StorageEphemeral<'_> {
    /// WARN.
    pub fn emit(&self) {
        let Self { section, path, kind } = self;
        tracing::warn!(
            code = "STORAGE_EPHEMERAL", what = %section, directory = %path.display(), lies_on = kind.describe(),
            "what is kept here will be lost: mount a volume on the directory, or set {section}.store = \"blob\""
        );
    }
}

/// A start waits for something.
#[derive(Clone, Copy)]
pub enum StartDelayed<'a> {
    /// It cannot be used yet.
    Waiting {
        /// What.
        what: &'a dyn std::fmt::Display,
        /// Its name in metrics.
        label: &'static str,
        /// Stable code; empty where there is none.
        code: &'static str,
        /// What went wrong and what to do, in one line.
        reason: &'a str,
        /// Time until the next try.
        retry_in: Duration,
        /// Time until the start fails with this error, where it does.
        gives_up_in: Option<Duration>,
    },
    /// It can be used.
    Over {
        /// What.
        what: &'a dyn std::fmt::Display,
        /// How long that took.
        after: Duration,
    },
}

impl StartDelayed<'_> {
    /// WARN where it passes, ERROR where a person has to mend it; INFO when it is over.
    pub fn emit(&self, metrics: &Metrics) {
        match *self {
            Self::Waiting { what, label, code, reason, retry_in, gives_up_in } => {
                metrics.start_delayed(label);
                match gives_up_in {
                    None => tracing::warn!(
                        %what, code, reason, ?retry_in, "the start waits for something that passes, and goes on when it has"
                    ),
                    Some(left) => tracing::error!(
                        %what, code, reason, ?retry_in, gives_up_in_seconds = left.as_secs(),
                        "the start is refused something: trying again, since new rights take minutes to take effect, and then ending with this error"
                    ),
                }
            }
            Self::Over { what, after } => {
                tracing::info!(%what, seconds = after.as_secs(), "the start goes on")
            }
        }
    }
}

/// A partition cannot be read, or it is not known from where on.
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
    /// Time until the daemon ends with this error, where it does.
    pub gives_up_in: Option<Duration>,
}

impl PartitionDelayed<'_> {
    /// WARN where it passes, ERROR where a person has to mend it.
    pub fn emit(&self) {
        let Self { partition, code, error, retry_in, gives_up_in } = self;
        match gives_up_in {
            None => tracing::warn!(
                %partition, code, error, ?retry_in, "the partition cannot be read at present, trying again until it can"
            ),
            Some(left) => tracing::error!(
                %partition, code, error, ?retry_in, gives_up_in_seconds = left.as_secs(),
                "the partition must not be read, or is not there: trying again, and ending with this error if that does not change"
            ),
        }
    }
}

/// A partition delivers events.
#[derive(Debug, Clone, Copy)]
pub struct PartitionReceiving<'a> {
    /// The partition.
    pub partition: &'a PartitionId,
    /// Where it began, for people.
    pub position: &'a str,
}

impl PartitionReceiving<'_> {
    /// INFO.
    pub fn emit(&self) {
        tracing::info!(partition = %self.partition, position = self.position, "receiving from the partition");
    }
}

/// Progress of a partition was written.
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
            partition = %self.partition, sequence_number = %self.sequence_number, "checkpoint written"
        );
    }
}

/// Progress of a partition could not be written.
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
    /// DEBUG: the state of the store is told once, by [`DependencyChanged`].
    pub fn emit(&self, metrics: &Metrics) {
        metrics.checkpoint_failed(&self.partition.stream, self.failure);
        tracing::debug!(
            partition = %self.partition, code = self.code, error = self.error, again = "with the next commit",
            "cannot write the checkpoint, trying again: after a restart more events would be received again"
        );
    }
}

/// A query for the modules of a device came back.
#[derive(Debug, Clone, Copy)]
pub struct ModulesQueried<'a> {
    /// What for.
    pub purpose: Purpose,
    /// The device.
    pub twin: &'a TwinKey,
    /// Its modules, or what the store said instead.
    pub modules: Result<usize, &'a Trouble>,
    /// What it cost.
    pub request_units: f64,
}

impl ModulesQueried<'_> {
    /// DEBUG.
    pub fn emit(&self, metrics: &Metrics) {
        metrics.request_units_spent(self.purpose, self.request_units);
        match self.modules {
            Ok(modules) => {
                metrics.modules_queried(ReadOutcome::Present);
                tracing::debug!(twin = %self.twin, modules, "the modules of the device follow it");
            }
            Err(trouble) => {
                metrics.modules_queried(trouble.kind.into());
                tracing::debug!(twin = %self.twin, message = trouble.message, "modules not found out, trying again");
            }
        }
    }
}

/// A message is no valid AMQP: there is neither a body nor a position that could be kept.
#[derive(Debug, Clone, Copy)]
pub struct MessageUndecodable<'a> {
    /// The partition.
    pub partition: &'a PartitionId,
    /// The last message before it.
    pub after: Option<SequenceNumber>,
    /// What the AMQP layer said.
    pub error: &'a str,
}

impl MessageUndecodable<'_> {
    /// ERROR: somebody has to find out who sends such messages.
    pub fn emit(&self, metrics: &Metrics) {
        metrics.message_undecodable(&self.partition.stream);
        tracing::error!(
            partition = %self.partition, after = self.after.map(|number| number.0), error = self.error,
            "a message that is no valid AMQP was skipped"
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
            partition = %self.partition, problem = self.problem, code = "CHECKPOINT_INVALID",
            "beginning at the oldest retained event, as checkpoint.on_invalid says"
        );
    }
}

/// A dead letter does not tell which twin it is about, so no document can say that it is in doubt.
#[derive(Debug, Clone, Copy)]
pub struct LetterWithoutTwin<'a> {
    /// Its partition.
    pub partition: &'a PartitionId,
    /// Its number there.
    pub sequence_number: SequenceNumber,
    /// Its reason code.
    pub reason: &'static str,
    /// Whether an audit will find what it changed.
    pub audit: bool,
}

impl LetterWithoutTwin<'_> {
    /// WARN.
    pub fn emit(&self, metrics: &Metrics) {
        metrics.letter_without_twin();
        let what_is_done = match self.audit {
            true => "an audit of the IoT hubs is asked for",
            false => {
                "nobody can be asked without [iothub]; look at the letter with `twinsync deadletters show`"
            }
        };
        tracing::warn!(
            partition = %self.partition, sequence_number = %self.sequence_number, reason = self.reason,
            what_is_done, "a dead letter does not tell which twin it is about: a document may be behind"
        );
    }
}

/// Cosmos DB refuses to hold that a twin is in doubt.
#[derive(Debug, Clone, Copy)]
pub struct DoubtRefused<'a> {
    /// The twin.
    pub twin: &'a TwinKey,
    /// What it said.
    pub reason: &'a str,
}

impl DoubtRefused<'_> {
    /// ERROR.
    pub fn emit(&self, metrics: &Metrics) {
        metrics.doubt_refused();
        tracing::error!(
            twin = %self.twin, reason = self.reason, code = "DOUBT_REFUSED",
            "Cosmos DB refuses the document that would say that this twin is in doubt: it may be wrong without a flag"
        );
    }
}

/// Events of a partition can never be received.
#[derive(Debug, Clone, Copy)]
pub struct EventsLost<'a> {
    /// The partition.
    pub partition: &'a PartitionId,
    /// Which.
    pub lost: Lost,
    /// Whether consuming goes on behind them.
    pub goes_on: bool,
    /// Whether the hub will be asked about what was missed.
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
            partition = %self.partition, from = %self.lost.from, to = %self.lost.to, events = self.lost.count(),
            code = "EVENTS_LOST", what_is_done,
            "events were never received: retention has passed them, or the Event Hub was re-created"
        );
    }
}

/// The store came or went.
#[derive(Debug, Clone, Copy)]
pub enum StoreChanged<'a> {
    /// It answers.
    Reachable,
    /// It does not.
    Unreachable {
        /// What went wrong, in one line.
        reason: &'a str,
    },
}

impl StoreChanged<'_> {
    /// INFO and WARN.
    pub fn emit(&self) {
        match self {
            Self::Reachable => tracing::info!("the document store answers"),
            Self::Unreachable { reason } => tracing::warn!(
                reason,
                "the document store does not answer: writes are tried again until it does, nothing is lost"
            ),
        }
    }
}

/// The store gives no answer about one twin, while it answers others.
#[derive(Debug, Clone, Copy)]
pub enum TwinTroubled<'a> {
    /// It has been so for a while.
    Alone {
        /// The twin.
        twin: &'a TwinKey,
        /// For how long.
        since: Duration,
        /// What went wrong, in one line.
        reason: &'a str,
    },
    /// Its document can only be read by a newer release.
    Newer {
        /// The twin.
        twin: &'a TwinKey,
        /// What the document says.
        reason: &'a str,
    },
    /// It has been so for too long: events that wait for it become dead letters.
    GivenUp {
        /// The twin.
        twin: &'a TwinKey,
        /// For how long.
        since: Duration,
        /// How many.
        events: usize,
    },
    /// It is over.
    Over {
        /// The twin.
        twin: &'a TwinKey,
        /// How long it was.
        after: Duration,
    },
}

impl TwinTroubled<'_> {
    /// WARN and INFO.
    pub fn emit(&self) {
        match self {
            Self::Alone { twin, since, reason } => tracing::warn!(
                %twin, seconds = since.as_secs(), reason,
                "the document store answers others, but not about this twin: its events wait, and are tried again"
            ),
            Self::Newer { twin, reason } => tracing::warn!(
                %twin, reason, code = "DOCUMENT_NEWER",
                "this document waits for a newer release: the twin's events are tried again until this replica is updated, or another one has the partition"
            ),
            Self::GivenUp { twin, since, events } => tracing::warn!(
                %twin, seconds = since.as_secs(), events,
                "still no answer about this twin: its events become dead letters, and it will be flagged when it can be"
            ),
            Self::Over { twin, after } => tracing::info!(
                %twin, seconds = after.as_secs(), "the document store answers about this twin again"
            ),
        }
    }
}

/// The registry of a hub was asked.
#[derive(Debug, Clone, Copy)]
pub struct RegistryAsked<'a> {
    /// The hub.
    pub hub: &'a str,
    /// For what.
    pub call: RegistryCall,
    /// Why.
    pub purpose: Purpose,
    /// What became of it.
    pub outcome: RegistryOutcome,
    /// How long that took.
    pub took: Duration,
    /// What went wrong, in one line.
    pub message: Option<&'a str>,
}

impl RegistryAsked<'_> {
    /// DEBUG.
    pub fn emit(&self, metrics: &Metrics) {
        metrics.registry_asked(self.call, self.outcome, self.purpose, self.took);
        let (call, purpose, outcome) = (self.call.label(), self.purpose.label(), self.outcome.label());
        tracing::debug!(hub = self.hub, call, purpose, outcome, message = self.message, "the hub was asked");
    }
}

/// The registry of a hub came or went.
#[derive(Debug, Clone, Copy)]
pub enum RegistryChanged<'a> {
    /// It answers again.
    Reachable {
        /// The hub.
        hub: &'a str,
    },
    /// It does not answer, or refuses us.
    Unreachable {
        /// The hub.
        hub: &'a str,
        /// What went wrong and what to do, in one line.
        reason: &'a str,
    },
}

impl RegistryChanged<'_> {
    /// INFO and WARN.
    pub fn emit(&self) {
        match self {
            Self::Reachable { hub } => tracing::info!(hub, "the IoT hub answers again"),
            Self::Unreachable { hub, reason } => tracing::warn!(
                hub,
                reason,
                "the IoT hub does not answer: replication goes on, repair, backfill and audit of its twins wait until it does"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What `emit` logs at INFO and above.
    fn logged(emit: impl FnOnce()) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, emit);
        String::from_utf8(captured.0.lock().unwrap().clone()).unwrap()
    }

    fn partition() -> PartitionId {
        PartitionId { stream: "twins".into(), partition: "0".into() }
    }

    #[test]
    fn a_dead_letter_is_logged_and_counted_at_once() {
        let metrics = Metrics::new().unwrap();
        let stream = metrics.stream("twins");
        let log = logged(|| {
            EventDeadLettered {
                partition: &partition(),
                sequence_number: SequenceNumber(7),
                reason: "body_not_json",
                detail: "expected value",
            }
            .emit(&metrics, &stream);
        });
        assert!(log.contains("WARN") && log.contains("twins/0") && log.contains("body_not_json"), "{log}");
        let text = metrics.render();
        assert!(text.contains("twinsync_dead_letters_total{reason=\"body_not_json\"} 1"), "{text}");
        assert!(
            text.contains("twinsync_events_total{stream=\"twins\",decision=\"dead_lettered\"} 1"),
            "{text}"
        );
    }

    #[test]
    fn normal_work_is_quiet_at_info() {
        let metrics = Metrics::new().unwrap();
        let stream = metrics.stream("twins");
        let twin = TwinKey::device("hub", "device");
        let (partition, sequence_number) = (partition(), SequenceNumber(1));
        let log = logged(|| {
            for decision in Decision::ALL {
                EventDecided { partition: &partition, sequence_number, twin: &twin, decision: *decision }
                    .emit(&stream);
            }
            EventIgnored { partition: &partition, sequence_number, reason: "telemetry" }
                .emit(&metrics, &stream);
            ReadFinished {
                purpose: Purpose::Live,
                twin: &twin,
                outcome: ReadOutcome::Absent,
                request_units: 1.0,
                message: None,
            }
            .emit(&metrics);
            WriteFinished {
                purpose: Purpose::Live,
                twin: &twin,
                kind: WriteKind::Create,
                outcome: WriteOutcome::Written,
                events: 2,
                request_units: 6.5,
                message: None,
            }
            .emit(&metrics);
            CheckpointWritten { partition: &partition, sequence_number }.emit();
        });
        assert_eq!(log, "");
        assert_eq!(metrics.request_units(Purpose::Live), 7.5);
        let text = metrics.render();
        assert!(text.contains("twinsync_writes_total{kind=\"create\",outcome=\"written\"} 1"), "{text}");
        assert!(text.contains("twinsync_events_per_write_sum 2"), "{text}");
    }
}
