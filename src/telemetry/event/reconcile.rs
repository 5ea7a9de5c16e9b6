//! Facts about repair, backfill and audit.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    domain::{drift::Drift, id::TwinKey, ticks::Ticks},
    ports::{StoreError, TWIN_UNANSWERED},
    telemetry::{label::Purpose, metrics::Metrics},
};

/// A document differed from the hub's twin, and was corrected.
#[derive(Debug, Clone, Copy)]
pub struct TwinCorrected<'a> {
    /// The twin.
    pub twin: &'a TwinKey,
    /// The purpose.
    pub purpose: Purpose,
    /// How it differed.
    pub drift: Drift,
}

impl TwinCorrected<'_> {
    /// DEBUG.
    pub fn emit(&self, metrics: &Metrics) {
        metrics.twin_corrected(self.purpose, self.drift.class());
        tracing::debug!(
            twin = %self.twin, purpose = self.purpose.label(), class = self.drift.class(),
            "document corrected: it says what the hub says"
        );
    }
}

/// A repair found the twin in an earlier state than its document.
#[derive(Debug, Clone, Copy)]
pub struct TwinWentBack<'a> {
    /// The twin.
    pub twin: &'a TwinKey,
    /// Whether an audit was requested. `None`: it was already requested a moment ago, for another twin.
    pub audit: Option<bool>,
}

impl TwinWentBack<'_> {
    /// Logs at WARN, except for those that follow at once: a failover takes many twins back.
    pub fn emit(&self, metrics: &Metrics) {
        metrics.twin_went_back();
        let what_is_done = match self.audit {
            None => {
                tracing::debug!(twin = %self.twin, "the IoT hub has gone back behind what this document had seen");
                return;
            }
            Some(true) => "an audit of the IoT hubs is asked for",
            Some(false) => "this process asks for no audit",
        };
        tracing::warn!(
            twin = %self.twin, what_is_done, code = "TWIN_WENT_BACK",
            "the IoT hub has gone back behind what this document had seen, as after a failover: the document was put right, others \
             that have not changed since may be ahead of the hub"
        );
    }
}

/// The store will never take the hub's twin.
#[derive(Debug, Clone, Copy)]
pub struct DocumentRejected<'a> {
    /// The twin.
    pub twin: &'a TwinKey,
    /// The store's message.
    pub reason: &'a str,
}

impl DocumentRejected<'_> {
    /// Logs at ERROR: the copy cannot be corrected.
    pub fn emit(&self, metrics: &Metrics) {
        metrics.twin_rejected();
        tracing::error!(
            twin = %self.twin, reason = self.reason, code = "DOCUMENT_REJECTED",
            "the store refuses the twin as the hub has it: its document stays as it is"
        );
    }
}

/// A flagged document could not be repaired yet.
#[derive(Debug, Clone, Copy)]
pub struct RepairDelayed<'a> {
    /// The twin.
    pub twin: &'a TwinKey,
    /// Why, in one line.
    pub message: &'a str,
    /// Time until the next try.
    pub retry_in: Duration,
}

impl RepairDelayed<'_> {
    /// Logs at DEBUG: the state of the registry or the store is reported once, elsewhere.
    pub fn emit(&self) {
        tracing::debug!(twin = %self.twin, reason = self.message, retry_in = ?self.retry_in, "repair waits");
    }
}

/// The hub or the store gives no usable answer about this twin, although it answers about others.
#[derive(Debug, Clone, Copy)]
pub struct RepairGivenUp<'a> {
    /// The twin.
    pub twin: &'a TwinKey,
    /// Why, in one line.
    pub message: &'a str,
}

impl RepairGivenUp<'_> {
    /// WARN.
    pub fn emit(&self, metrics: &Metrics) {
        metrics.repair_given_up();
        tracing::warn!(
            twin = %self.twin, reason = self.message, code = TWIN_UNANSWERED,
            "no answer about this twin that can be used: its document stays flagged, and is tried again with the next look for flagged ones"
        );
    }
}

/// A scan over the flagged documents finished.
#[derive(Debug, Clone, Copy)]
pub struct RepairScan<'a> {
    /// Number of flagged documents, or the error that stopped the scan.
    pub found: Result<usize, &'a StoreError>,
}

impl RepairScan<'_> {
    /// Logs at INFO if there are documents to repair, and at WARN if the scan stopped.
    pub fn emit(&self) {
        match self.found {
            Ok(0) => tracing::debug!("no document is flagged"),
            Ok(found) => tracing::info!(found, "flagged documents are repaired in the background"),
            Err(trouble) => tracing::warn!(
                reason = trouble.message,
                code = trouble.code,
                again = "after a while",
                "flagged documents cannot be looked for, trying again"
            ),
        }
    }
}

/// A query gave no page.
#[derive(Debug, Clone, Copy)]
pub struct QueryDelayed<'a> {
    /// The hub.
    pub hub: &'a str,
    /// Why, in one line.
    pub message: &'a str,
    /// Time until the next try.
    pub retry_in: Duration,
}

impl QueryDelayed<'_> {
    /// DEBUG.
    pub fn emit(&self) {
        tracing::debug!(hub = %self.hub, reason = self.message, retry_in = ?self.retry_in, "query waits");
    }
}

/// A hub does not answer a query for references to twins.
#[derive(Debug, Clone, Copy)]
pub struct ReferencesRefused<'a> {
    /// The hub.
    pub hub: &'a str,
    /// Its message, on one line.
    pub reason: &'a str,
}

impl ReferencesRefused<'_> {
    /// INFO: the result is the same.
    pub fn emit(&self) {
        tracing::info!(
            hub = %self.hub,
            reason = self.reason,
            "the IoT hub does not name twins without their content: whole twins are asked for, which counts more of its messages of the day"
        );
    }
}

/// A query returned rows that are not twins.
#[derive(Debug, Clone, Copy)]
pub struct RowsUnreadable<'a> {
    /// The hub.
    pub hub: &'a str,
    /// How many.
    pub rows: usize,
}

impl RowsUnreadable<'_> {
    /// Logs at WARN: their twins are unknown, so their documents are not compared.
    pub fn emit(&self) {
        tracing::warn!(
            hub = %self.hub,
            rows = self.rows,
            code = "ROWS_UNREADABLE",
            "a query showed rows that are no twins: they are passed over"
        );
    }
}

/// A twin of a backfill or resync will be tried again.
#[derive(Debug, Clone, Copy)]
pub struct TwinDelayed<'a> {
    /// The twin.
    pub twin: &'a TwinKey,
    /// Why, in one line.
    pub message: &'a str,
    /// Time until the next try.
    pub retry_in: Duration,
}

impl TwinDelayed<'_> {
    /// DEBUG.
    pub fn emit(&self) {
        tracing::debug!(twin = %self.twin, reason = self.message, retry_in = ?self.retry_in, "twin waits");
    }
}

/// A backfill begins or is resumed.
#[derive(Debug, Clone, Copy)]
pub struct BackfillStarted<'a> {
    /// The hub.
    pub hub: &'a str,
    /// Whether it resumes an earlier one.
    pub resumed: bool,
    /// Number of devices, as the hub estimates. 0: unknown.
    pub devices: u64,
}

impl BackfillStarted<'_> {
    /// INFO.
    pub fn emit(&self) {
        let what = if self.resumed { "backfill goes on" } else { "backfill begins" };
        tracing::info!(hub = %self.hub, devices = self.devices, "{what}");
    }
}

/// A backfill finished.
#[derive(Debug, Clone, Copy)]
pub struct BackfillFinished<'a> {
    /// The hub.
    pub hub: &'a str,
    /// Twins that the query listed.
    pub twins: u64,
    /// Documents that were created.
    pub created: u64,
    /// Documents that differed, and were corrected.
    pub corrected: u64,
    /// Twins that the store will never take.
    pub rejected: u64,
    /// Twins without an answer.
    pub unknown: u64,
    /// Whether an audit was requested: because of twins without an answer, or because the backfill was interrupted.
    pub audit_follows: bool,
}

impl BackfillFinished<'_> {
    /// Logs at INFO, or at WARN if some twins had no answer.
    pub fn emit(&self) {
        let Self { hub, twins, created, corrected, rejected, unknown, audit_follows } = *self;
        if unknown == 0 {
            tracing::info!(%hub, twins, created, corrected, rejected, audit_follows, "backfill is done");
        } else {
            tracing::warn!(
                %hub,
                twins,
                created,
                corrected,
                rejected,
                unknown,
                audit_follows,
                code = "BACKFILL_INCOMPLETE",
                "backfill is done, but for twins without an answer: an audit asks about them again"
            );
        }
    }
}

/// There is no answer about one twin, although store and hub answer about others.
#[derive(Debug, Clone, Copy)]
pub struct TwinUnknown<'a> {
    /// The twin.
    pub twin: &'a TwinKey,
    /// The last reason, in one line.
    pub message: &'a str,
}

impl TwinUnknown<'_> {
    /// WARN: its document stays as it is.
    pub fn emit(&self) {
        tracing::warn!(
            twin = %self.twin, reason = self.message, code = TWIN_UNANSWERED,
            "no answer about this twin: it is passed over"
        );
    }
}

/// An audit finished.
#[derive(Debug, Clone, Copy)]
pub struct AuditFinished<'a> {
    /// The hub.
    pub hub: &'a str,
    /// When it finished.
    pub at: Ticks,
    /// Twins that were compared.
    pub twins: u64,
    /// Differences by class.
    pub found: &'a BTreeMap<&'static str, u64>,
    /// Repaired differences by class.
    pub repaired: &'a BTreeMap<&'static str, u64>,
    /// Number of differences that remain.
    pub left: u64,
    /// Number of twins without an answer.
    pub unknown: u64,
    /// Twins that seem to differ, and changed too recently to be compared.
    pub recent: u64,
}

impl AuditFinished<'_> {
    /// Logs at INFO, or at WARN if differences remain or some twins had no answer.
    pub fn emit(&self, metrics: &Metrics) {
        let Self { hub, twins, left, unknown, recent, .. } = *self;
        metrics.audit_finished(hub, self.at, left, self.found);
        for (reason, twins) in [("recent", recent), ("unknown", unknown)] {
            metrics.set_audit_undecided(hub, reason, twins);
        }
        let (found, repaired) = (self.found.values().sum::<u64>(), self.repaired.values().sum::<u64>());
        if left == 0 && unknown == 0 && recent == 0 {
            tracing::info!(%hub, twins, found, repaired, "audit done: the documents say what the hub says");
        } else if left == 0 && unknown == 0 {
            tracing::info!(
                %hub,
                twins,
                found,
                repaired,
                recent,
                "audit done: the documents say what the hub says, but for twins that changed too recently to be compared"
            );
        } else {
            tracing::warn!(
                %hub,
                twins,
                found,
                repaired,
                left,
                unknown,
                recent,
                code = "AUDIT_DIFFERENCES",
                "audit done: differences are left, or not everything is known"
            );
        }
    }
}

/// A document was repaired, and differs again at once.
#[derive(Debug, Clone, Copy)]
pub struct StillDifferent<'a> {
    /// The twin.
    pub twin: &'a TwinKey,
}

impl StillDifferent<'_> {
    /// Logs at ERROR: another repair would not help.
    pub fn emit(&self, metrics: &Metrics) {
        metrics.twin_still_different();
        tracing::error!(
            twin = %self.twin, code = "STILL_DIFFERENT",
            "repaired but still different: look for another writer of the container, and report a bug if there is none"
        );
    }
}

/// A backfill or an audit failed.
#[derive(Debug, Clone, Copy)]
pub struct ScanFailed<'a> {
    /// `backfill` or `audit`.
    pub what: &'static str,
    /// The hub.
    pub hub: &'a str,
    /// Why, in one line.
    pub error: &'a str,
    /// Time until the next try.
    pub retry_in: Duration,
}

impl ScanFailed<'_> {
    /// Logs at ERROR: it will not recover on its own.
    pub fn emit(&self) {
        tracing::error!(
            hub = %self.hub, error = self.error, retry_in = ?self.retry_in, code = "SCAN_FAILED",
            "{} did not come to its end: it begins again later", self.what
        );
    }
}

/// The note with the progress or the result of a long scan could not be written.
#[derive(Debug, Clone, Copy)]
pub struct NoteNotKept<'a> {
    /// Why, in one line.
    pub error: &'a str,
}

impl NoteNotKept<'_> {
    /// WARN.
    pub fn emit(&self) {
        tracing::warn!(
            error = self.error,
            code = "NOTE_NOT_KEPT",
            again = "with the next one",
            "a note of a backfill or an audit could not be read or written: at worst, work is done again"
        );
    }
}
