//! Facts about repair, backfill and audit.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    domain::{drift::Drift, id::TwinKey, ticks::Ticks},
    ports::{StoreError, TWIN_UNANSWERED},
    telemetry::{label::Purpose, metrics::Metrics},
};

facts! {
    /// A document differed from the hub's twin, and was corrected.
    TwinCorrected<'a> {
        /// The twin.
        twin: &'a TwinKey,
        /// The purpose.
        purpose: Purpose,
        /// How it differed.
        drift: Drift,
    }
    counts(metrics: &Metrics) { metrics.twin_corrected(purpose, drift.class()); }
    /// DEBUG.
    tracing::debug!(
        %twin, purpose = purpose.label(), class = drift.class(),
        "document corrected: it equals the hub's twin"
    );

    /// The store will never take the hub's twin.
    DocumentRejected<'a> {
        /// The twin.
        twin: &'a TwinKey,
        /// The store's message.
        reason: &'a str,
    }
    counts(metrics: &Metrics) { metrics.twin_rejected(); }
    /// Logs at ERROR: the copy cannot be corrected.
    tracing::error!(
        %twin, reason, code = "DOCUMENT_REJECTED",
        "the store refuses the twin as the hub has it: its document stays as it is"
    );

    /// A flagged document could not be repaired yet.
    RepairDelayed<'a> {
        /// The twin.
        twin: &'a TwinKey,
        /// Why, in one line.
        message: &'a str,
        /// Time until the next try.
        retry_in: Duration,
    }
    /// Logs at DEBUG: the state of the registry or the store is reported once, elsewhere.
    tracing::debug!(%twin, reason = message, ?retry_in, "repair waits");

    /// The hub or the store gives no usable answer about this twin, although it answers about others.
    RepairGivenUp<'a> {
        /// The twin.
        twin: &'a TwinKey,
        /// Why, in one line.
        message: &'a str,
    }
    counts(metrics: &Metrics) { metrics.repair_given_up(); }
    /// WARN.
    tracing::warn!(
        %twin, reason = message, code = TWIN_UNANSWERED,
        "no answer about this twin that can be used: its document stays flagged, and is tried again with the next scan"
    );

    /// A query gave no page.
    QueryDelayed<'a> {
        /// The hub.
        hub: &'a str,
        /// Why, in one line.
        message: &'a str,
        /// Time until the next try.
        retry_in: Duration,
    }
    /// DEBUG.
    tracing::debug!(%hub, reason = message, ?retry_in, "query waits");

    /// A hub does not answer a query for references to twins.
    ReferencesRefused<'a> {
        /// The hub.
        hub: &'a str,
        /// Its message, on one line.
        reason: &'a str,
    }
    /// INFO: the result is the same.
    tracing::info!(
        %hub, reason,
        "the IoT hub does not name twins without their content: whole twins are requested, which uses more of its daily quota of messages"
    );

    /// A query returned rows that are not twins.
    RowsUnreadable<'a> {
        /// The hub.
        hub: &'a str,
        /// How many.
        rows: usize,
    }
    /// Logs at WARN: their twins are unknown, so their documents are not compared.
    tracing::warn!(
        %hub, rows, code = "ROWS_UNREADABLE",
        "a query returned rows that are not twins: they are skipped"
    );

    /// A twin of a backfill or resync will be tried again.
    TwinDelayed<'a> {
        /// The twin.
        twin: &'a TwinKey,
        /// Why, in one line.
        message: &'a str,
        /// Time until the next try.
        retry_in: Duration,
    }
    /// DEBUG.
    tracing::debug!(%twin, reason = message, ?retry_in, "twin waits");

    /// There is no answer about one twin, although store and hub answer about others.
    TwinUnknown<'a> {
        /// The twin.
        twin: &'a TwinKey,
        /// The last reason, in one line.
        message: &'a str,
    }
    /// WARN: its document stays as it is.
    tracing::warn!(
        %twin, reason = message, code = TWIN_UNANSWERED,
        "no answer about this twin: it is skipped"
    );

    /// A document was repaired, and differs again at once.
    StillDifferent<'a> {
        /// The twin.
        twin: &'a TwinKey,
    }
    counts(metrics: &Metrics) { metrics.twin_still_different(); }
    /// Logs at ERROR: another repair would not help.
    tracing::error!(
        %twin, code = "STILL_DIFFERENT",
        "repaired but still different: look for another writer of the container, and report a bug if there is none"
    );

    /// A backfill or an audit failed.
    ScanFailed<'a> {
        /// `backfill` or `audit`.
        what: &'static str,
        /// The hub.
        hub: &'a str,
        /// Why, in one line.
        error: &'a str,
        /// Time until the next try.
        retry_in: Duration,
    }
    /// Logs at ERROR: it will not recover on its own.
    tracing::error!(
        %hub, error, ?retry_in, code = "SCAN_FAILED",
        "{} did not finish: it begins again later", what
    );

    /// The note with the progress or the result of a long scan could not be written.
    NoteNotKept<'a> {
        /// Why, in one line.
        error: &'a str,
    }
    /// WARN.
    tracing::warn!(
        error, code = "NOTE_NOT_KEPT", again = "with the next one",
        "a note of a backfill or an audit could not be read or written: at worst, work is done again"
    );
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
                tracing::debug!(twin = %self.twin, "the IoT hub has an earlier state than this document");
                return;
            }
            Some(true) => "an audit of the IoT hubs is asked for",
            Some(false) => "this process asks for no audit",
        };
        tracing::warn!(
            twin = %self.twin, what_is_done, code = "TWIN_WENT_BACK",
            "the IoT hub has an earlier state than this document, as after a failover: the document was corrected, others \
             that have not changed since may be ahead of the hub"
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
                "flagged documents cannot be queried, trying again"
            ),
        }
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
        let what = if self.resumed { "backfill continues" } else { "backfill begins" };
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
                "backfill is done, except for twins without an answer: an audit asks about them again"
            );
        }
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
            tracing::info!(%hub, twins, found, repaired, "audit done: the documents equal the hub's twins");
        } else if left == 0 && unknown == 0 {
            tracing::info!(
                %hub,
                twins,
                found,
                repaired,
                recent,
                "audit done: the documents equal the hub's twins, except for twins that changed too recently to be compared"
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
