//! Operational facts. Each emits its log line and its metric together.
//!
//! Construct one and call `emit`. Facts with one log line each are entries of a table, see `facts.rs`. Those whose level or words depend on
//! their values are written out.
//!
//! "Dropped" would mean lost forever, and does not occur: a retry is not a drop.

#[macro_use]
mod facts;

mod counts;
mod dependencies;
mod documents;
mod partitions;
mod reconcile;
mod serving;
mod twins;

use std::time::Duration;

pub use self::{
    counts::CountsChanged,
    dependencies::{
        DependencyChanged, Fault, RegistryAsked, RegistryChanged, SpansLeft, SpansRefused, StartDelayed,
        StorageEphemeral, StoreChanged,
    },
    documents::{
        DocumentsPassedOver, FlagRejected, ModulesQueried, ReadFinished, TwinUnanswered, WriteFinished,
    },
    partitions::{
        CheckpointDelayed, CheckpointGivenUp, CheckpointWritten, EventsLost, MessageUndecodable,
        PartitionAdded, PartitionDelayed, PartitionDiscoveryFailed, PartitionMissing, PartitionRebuilt,
        PartitionReceives,
    },
    reconcile::{
        AuditFinished, BackfillFinished, BackfillStarted, DocumentRejected, NoteNotKept, QueryDelayed,
        ReferencesRefused, RepairDelayed, RepairGivenUp, RepairScan, RowsUnreadable, ScanFailed,
        StillDifferent, TwinCorrected, TwinDelayed, TwinUnknown, TwinWentBack,
    },
    serving::{CallerServed, CertificateChanged, HandshakeFailed, KeysRenewed, RequestDenied},
    twins::TwinReadRefused,
};

use super::{
    label::Decision,
    metrics::{Metrics, StreamMetrics},
};
use crate::domain::{
    id::{PartitionId, SequenceNumber, TwinKey},
    invariant::Invariant,
};

facts! {
    /// An invariant does not hold: a defect of twinsync.
    InvariantBroken<'a> {
        /// The invariant.
        invariant: Invariant,
        /// Where it was broken, and what was found instead. Without payload.
        detail: &'a str,
    }
    counts(metrics: &Metrics) { metrics.invariant_broken(invariant); }
    /// Logs at ERROR, because it should be reported.
    tracing::error!(
        invariant = invariant.id(), detail, consequence = invariant.consequence(), code = "INVARIANT_BROKEN",
        "an invariant does not hold: this is a bug of twinsync, please report it"
    );

    /// An event does not concern twinsync.
    EventIgnored<'a> {
        /// Its partition.
        partition: &'a PartitionId,
        /// Its number there.
        sequence_number: SequenceNumber,
        /// The reason.
        reason: &'static str,
    }
    counts(metrics: &Metrics, stream: &StreamMetrics) {
        metrics.event_ignored(reason);
        stream.decided(Decision::Ignored);
    }
    /// TRACE: other sources on the hub are normal.
    tracing::trace!(in partition, %sequence_number, reason, "event ignored");

    /// An event can never be applied, and is durable as a dead letter.
    EventDeadLettered<'a> {
        /// Its partition.
        partition: &'a PartitionId,
        /// Its number there.
        sequence_number: SequenceNumber,
        /// Stable reason code.
        reason: &'static str,
        /// One sentence; no payload.
        detail: &'a str,
    }
    counts(metrics: &Metrics, stream: &StreamMetrics) {
        metrics.event_dead_lettered(reason);
        stream.decided(Decision::DeadLettered);
    }
    /// WARN.
    tracing::warn!(
        in partition, %sequence_number, reason, detail, code = "EVENT_DEAD_LETTERED",
        "event dead-lettered: it can never be applied; the partition continues"
    );

    /// A dead letter could not be stored, or has not been stored for a while. The progress of its partition waits.
    DeadLetterDelayed<'a> {
        /// Its partition.
        partition: &'a PartitionId,
        /// Its number there.
        sequence_number: SequenceNumber,
        /// How and why.
        fault: Fault<'a>,
        /// Time until the next try. `None`: the current try is still running.
        retry_in: Option<Duration>,
    }
    counts(metrics: &Metrics) { metrics.dead_letter_failed(fault.failure); }
    /// Logs at DEBUG: the state of the store is reported once, by [`DependencyChanged`].
    tracing::debug!(
        in partition, %sequence_number, code = fault.code, error = fault.reason, ?retry_in,
        "cannot store a dead letter: the partition's checkpoint waits for it"
    );
}

/// An event was decided.
#[derive(Debug, Clone, Copy)]
pub struct EventDecided<'a> {
    /// Its partition.
    pub partition: &'a PartitionId,
    /// Its number there.
    pub sequence_number: SequenceNumber,
    /// The twin it is about.
    pub twin: &'a TwinKey,
    /// The decision.
    pub decision: Decision,
}

impl EventDecided<'_> {
    /// Logs at TRACE, or at DEBUG if its order is unknown.
    pub fn emit(&self, metrics: &StreamMetrics) {
        metrics.decided(self.decision);
        let decision = self.decision.label();
        match self.decision {
            Decision::Regression | Decision::Suspect | Decision::Gap | Decision::Partial => tracing::debug!(
                stream = %self.partition.stream, partition = %self.partition.partition, sequence_number = %self.sequence_number, twin = %self.twin, decision,
                "event not applied: the document is flagged"
            ),
            Decision::Applied
            | Decision::Duplicate
            | Decision::Stale
            | Decision::Ignored
            | Decision::DeadLettered => tracing::trace!(
                stream = %self.partition.stream, partition = %self.partition.partition, sequence_number = %self.sequence_number, twin = %self.twin, decision,
                "event decided"
            ),
        }
    }
}

/// The twin of a dead letter is unknown, so no document can be flagged.
#[derive(Debug, Clone, Copy)]
pub struct DeadLetterWithoutTwin<'a> {
    /// Its partition.
    pub partition: &'a PartitionId,
    /// Its number there.
    pub sequence_number: SequenceNumber,
    /// Its reason code.
    pub reason: &'static str,
    /// Whether an audit will find the missing change.
    pub audit: bool,
}

impl DeadLetterWithoutTwin<'_> {
    /// WARN.
    pub fn emit(&self, metrics: &Metrics) {
        metrics.dead_letter_without_twin();
        let what_is_done = match self.audit {
            true => "an audit of the IoT hubs is asked for",
            false => {
                "no hub can be asked without [iothub]; look at the dead letter with `twinsync deadletters show`"
            }
        };
        tracing::warn!(
            stream = %self.partition.stream, partition = %self.partition.partition, sequence_number = %self.sequence_number, reason = self.reason,
            what_is_done, code = "DEAD_LETTER_WITHOUT_TWIN",
            "the twin of a dead letter is not known: a document may be behind"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;
    use crate::telemetry::label::{Purpose, ReadOutcome, WriteKind, WriteOutcome};

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

    /// The lines that `emit` logs at INFO and above.
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
        assert!(
            log.contains("WARN") && log.contains("stream=twins partition=0") && log.contains("body_not_json"),
            "{log}"
        );
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
