//! Facts about repair, backfill and audit.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    domain::{drift::Drift, id::TwinKey, ticks::Ticks},
    ports::{StoreError, TWIN_UNANSWERED},
    telemetry::{label::Purpose, metrics::Metrics},
};

/// A document says what the hub says, after it had said something else.
#[derive(Debug, Clone, Copy)]
pub struct TwinCorrected<'a> {
    /// The twin.
    pub twin: &'a TwinKey,
    /// What for the hub was asked.
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

/// A repair has found an earlier state of the twin than its document had seen.
#[derive(Debug, Clone, Copy)]
pub struct TwinWentBack<'a> {
    /// The twin.
    pub twin: &'a TwinKey,
    /// Whether an audit has been asked for; `None`: it was, a moment ago, for another twin.
    pub audit: Option<bool>,
}

impl TwinWentBack<'_> {
    /// WARN, but for those that follow at once: a failover takes many twins back.
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

/// The store will never take what the hub says.
#[derive(Debug, Clone, Copy)]
pub struct DocumentRejected<'a> {
    /// The twin.
    pub twin: &'a TwinKey,
    /// What the store said.
    pub reason: &'a str,
}

impl DocumentRejected<'_> {
    /// ERROR: the copy cannot be made right.
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
    /// DEBUG: the registry's or the store's state is told once, elsewhere.
    pub fn emit(&self) {
        tracing::debug!(twin = %self.twin, reason = self.message, retry_in = ?self.retry_in, "repair waits");
    }
}

/// The hub, or the store, answers about others, but gives no answer about this twin that can be used.
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

/// A scan over the flagged documents came to its end.
#[derive(Debug, Clone, Copy)]
pub struct RepairScan<'a> {
    /// How many it met, or what stopped it.
    pub found: Result<usize, &'a StoreError>,
}

impl RepairScan<'_> {
    /// INFO where there is something to repair, WARN where the scan stopped.
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
    /// What it said, in one line.
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

/// A query showed rows that are no twins.
#[derive(Debug, Clone, Copy)]
pub struct RowsUnreadable<'a> {
    /// The hub.
    pub hub: &'a str,
    /// How many.
    pub rows: usize,
}

impl RowsUnreadable<'_> {
    /// WARN: whose they are is not known, so their documents are not looked at.
    pub fn emit(&self) {
        tracing::warn!(
            hub = %self.hub,
            rows = self.rows,
            code = "ROWS_UNREADABLE",
            "a query showed rows that are no twins: they are passed over"
        );
    }
}

/// A twin of a backfill or resync has to be tried again.
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

/// A backfill begins or goes on.
#[derive(Debug, Clone, Copy)]
pub struct BackfillStarted<'a> {
    /// The hub.
    pub hub: &'a str,
    /// Whether it goes on where an earlier one stopped.
    pub resumed: bool,
    /// Devices that the hub estimates; 0: not known.
    pub devices: u64,
}

impl BackfillStarted<'_> {
    /// INFO.
    pub fn emit(&self) {
        let what = if self.resumed { "backfill goes on" } else { "backfill begins" };
        tracing::info!(hub = %self.hub, devices = self.devices, "{what}");
    }
}

/// A backfill is done.
#[derive(Debug, Clone, Copy)]
pub struct BackfillFinished<'a> {
    /// The hub.
    pub hub: &'a str,
    /// Twins that the query listed.
    pub twins: u64,
    /// Documents that were made.
    pub created: u64,
    /// Documents that said something else.
    pub corrected: u64,
    /// Twins that the store will never take.
    pub rejected: u64,
    /// Twins about which nobody answered.
    pub unknown: u64,
    /// Whether an audit was asked for: because of them, or because the backfill was interrupted.
    pub audit_follows: bool,
}

impl BackfillFinished<'_> {
    /// INFO; WARN where not everything is known.
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

/// Nobody answers about one twin, although both answer otherwise.
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

/// An audit is done.
#[derive(Debug, Clone, Copy)]
pub struct AuditFinished<'a> {
    /// The hub.
    pub hub: &'a str,
    /// When it was done.
    pub at: Ticks,
    /// Twins that were compared.
    pub twins: u64,
    /// Differences by class.
    pub found: &'a BTreeMap<&'static str, u64>,
    /// The repaired ones of them.
    pub repaired: &'a BTreeMap<&'static str, u64>,
    /// Differences that are left.
    pub left: u64,
    /// Twins about which nobody answered.
    pub unknown: u64,
    /// Twins that seem to differ, and changed too recently to be compared.
    pub recent: u64,
}

impl AuditFinished<'_> {
    /// INFO; WARN where differences are left or something is not known.
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
    /// ERROR: another repair will not mend it.
    pub fn emit(&self, metrics: &Metrics) {
        metrics.twin_still_different();
        tracing::error!(
            twin = %self.twin, code = "STILL_DIFFERENT",
            "repaired but still different: look for another writer of the container, and report a bug if there is none"
        );
    }
}

/// A backfill or an audit did not come to its end.
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
    /// ERROR: it does not pass by itself.
    pub fn emit(&self) {
        tracing::error!(
            hub = %self.hub, error = self.error, retry_in = ?self.retry_in, code = "SCAN_FAILED",
            "{} did not come to its end: it begins again later", self.what
        );
    }
}

/// A long scan could not note how far it is, or what it found.
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
