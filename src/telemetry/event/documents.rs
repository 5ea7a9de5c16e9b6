//! What happens to documents.

use std::time::Duration;

use crate::{
    domain::id::TwinKey,
    ports::{StoreError, TWIN_UNANSWERED},
    telemetry::{
        label::{Purpose, ReadOutcome, WriteKind, WriteOutcome},
        metrics::Metrics,
    },
};

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
                twin = %self.twin, kind, outcome, reason = self.message, "document not written, trying again"
            ),
            WriteOutcome::Rejected => tracing::warn!(
                twin = %self.twin, kind, events = self.events, reason = self.message, code = "DOCUMENT_REJECTED",
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
                twin = %self.twin, reason = self.message, code = "DOCUMENT_DAMAGED",
                "a stored document cannot be read: it is replaced and flagged as suspect"
            ),
            ReadOutcome::Foreign => tracing::debug!(
                twin = %self.twin, reason = self.message, "the document is another twin's"
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

/// A query met documents that nobody can read.
#[derive(Debug, Clone, Copy)]
pub struct DocumentsPassedOver<'a> {
    /// How many.
    pub documents: usize,
    /// The first of them, and what is wrong with it; no payload.
    pub first: &'a str,
}

impl DocumentsPassedOver<'_> {
    /// WARN: what the query shows may lack rows.
    pub fn emit(&self) {
        tracing::warn!(
            documents = self.documents,
            reason = self.first,
            code = "DOCUMENT_DAMAGED",
            "a query has passed over stored documents that cannot be read"
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
                tracing::debug!(twin = %self.twin, reason = trouble.message, "modules not found out, trying again");
            }
        }
    }
}

/// The store gives no answer about one twin, while it answers others.
#[derive(Debug, Clone, Copy)]
pub enum TwinUnanswered<'a> {
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

/// Cosmos DB refuses to hold that a twin is flagged.
#[derive(Debug, Clone, Copy)]
pub struct FlagRejected<'a> {
    /// The twin.
    pub twin: &'a TwinKey,
    /// What it said.
    pub reason: &'a str,
}

impl FlagRejected<'_> {
    /// ERROR.
    pub fn emit(&self, metrics: &Metrics) {
        metrics.flag_rejected();
        tracing::error!(
            twin = %self.twin, reason = self.reason, code = "FLAG_REJECTED",
            "Cosmos DB refuses the document that would say that this twin is flagged: it may be wrong without a flag"
        );
    }
}
