//! Facts about documents.

use std::time::Duration;

use crate::{
    domain::id::TwinKey,
    ports::{StoreError, TWIN_UNANSWERED},
    telemetry::{
        label::{Purpose, ReadOutcome, WriteKind, WriteOutcome},
        metrics::Metrics,
    },
};

facts! {
    /// A query found unreadable documents.
    DocumentsPassedOver<'a> {
        /// How many.
        documents: usize,
        /// The first of them, and what is wrong with it; no payload.
        first: &'a str,
    }
    /// Logs at WARN: the result may lack rows.
    tracing::warn!(
        documents, reason = first, code = "DOCUMENT_DAMAGED",
        "a query skipped stored documents that cannot be read"
    );

    /// Cosmos DB refuses to store that a twin is flagged.
    FlagRejected<'a> {
        /// The twin.
        twin: &'a TwinKey,
        /// The store's message.
        reason: &'a str,
    }
    counts(metrics: &Metrics) { metrics.flag_rejected(); }
    /// ERROR.
    tracing::error!(
        %twin, reason, code = "FLAG_REJECTED",
        "Cosmos DB refuses the flagged document of this twin: it may be wrong without a flag"
    );
}

/// An attempt to write a document finished.
#[derive(Debug, Clone, Copy)]
pub struct WriteFinished<'a> {
    /// The purpose.
    pub purpose: Purpose,
    /// The twin.
    pub twin: &'a TwinKey,
    /// The kind of write.
    pub kind: WriteKind,
    /// The outcome.
    pub outcome: WriteOutcome,
    /// Number of events in the write.
    pub events: usize,
    /// Its cost in request units.
    pub request_units: f64,
    /// The store's message, for outcomes other than written.
    pub message: Option<&'a str>,
}

impl WriteFinished<'_> {
    /// Logs at TRACE if written, at WARN if rejected, and otherwise at DEBUG: temporary failures are retried.
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
                twin = %self.twin, kind, outcome, reason = self.message, "document not written, trying again"
            ),
            WriteOutcome::Rejected => tracing::warn!(
                twin = %self.twin, kind, events = self.events, reason = self.message, code = "DOCUMENT_REJECTED",
                "document permanently rejected by the store"
            ),
        }
    }
}

/// An attempt to read a document finished.
#[derive(Debug, Clone, Copy)]
pub struct ReadFinished<'a> {
    /// The purpose.
    pub purpose: Purpose,
    /// The twin.
    pub twin: &'a TwinKey,
    /// The outcome.
    pub outcome: ReadOutcome,
    /// Its cost in request units.
    pub request_units: f64,
    /// The store's message, if there was no answer.
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
                twin = %self.twin, reason = self.message, code = "DOCUMENT_DAMAGED",
                "a stored document cannot be read: it is replaced and flagged as suspect"
            ),
            ReadOutcome::Foreign => tracing::debug!(
                twin = %self.twin, reason = self.message, "the document belongs to another twin"
            ),
            ReadOutcome::Refused => tracing::debug!(
                twin = %self.twin, reason = self.message, "no document can have this id"
            ),
            ReadOutcome::Throttled | ReadOutcome::Unavailable | ReadOutcome::Newer => tracing::debug!(
                twin = %self.twin, outcome = self.outcome.label(), reason = self.message,
                "document not read, trying again"
            ),
        }
    }
}

/// A query for the modules of a device finished.
#[derive(Debug, Clone, Copy)]
pub struct ModulesQueried<'a> {
    /// The purpose.
    pub purpose: Purpose,
    /// The device.
    pub twin: &'a TwinKey,
    /// Number of modules, or the error of the store.
    pub modules: Result<usize, &'a StoreError>,
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
                tracing::debug!(twin = %self.twin, reason = trouble.message, "modules not queried, trying again");
            }
        }
    }
}

/// The store gives no answer about one twin, although it answers about others.
#[derive(Debug, Clone, Copy)]
pub enum TwinUnanswered<'a> {
    /// This has lasted for a while.
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
        /// The reason in the document.
        reason: &'a str,
    },
    /// This has lasted for too long: the events that wait for the twin become dead letters.
    GivenUp {
        /// The twin.
        twin: &'a TwinKey,
        /// For how long.
        since: Duration,
        /// Number of these events.
        events: usize,
    },
    /// The store answers about the twin again.
    Over {
        /// The twin.
        twin: &'a TwinKey,
        /// How long it did not.
        after: Duration,
    },
}

impl TwinUnanswered<'_> {
    /// WARN and INFO.
    pub fn emit(&self) {
        match self {
            Self::Alone { twin, since, reason } => tracing::warn!(
                %twin, seconds = since.as_secs(), reason, code = TWIN_UNANSWERED,
                "the document store answers others, but not about this twin: its events wait, and are tried again"
            ),
            Self::Newer { twin, reason } => tracing::warn!(
                %twin, reason, code = "DOCUMENT_NEWER",
                "this document waits for a newer release: the twin's events are tried again until this replica is updated, or another one has the partition"
            ),
            Self::GivenUp { twin, since, events } => tracing::warn!(
                %twin, seconds = since.as_secs(), events, code = TWIN_UNANSWERED,
                "still no answer about this twin: its events become dead letters, and it will be flagged when it can be"
            ),
            Self::Over { twin, after } => tracing::info!(
                %twin, seconds = after.as_secs(), "the document store answers about this twin again"
            ),
        }
    }
}
