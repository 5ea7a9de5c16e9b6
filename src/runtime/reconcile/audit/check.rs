//! The check of one twin in an audit: its document and, if that seems to differ, the hub.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{
    super::reconciler::{Mode, Task, TwinReconciler, Unless, Verdict},
    FindingOutcome, Options, Progress,
};
use crate::{
    domain::{
        document::Document,
        drift::{Drift, Part, drift},
        id::TwinKey,
        quota::Purpose,
        registry::Row,
        retry::Backoff,
        ticks::Ticks,
    },
    ports::{Read, Scanned, StoreError, StoreErrorKind, TWIN_UNANSWERED},
    runtime::jitter::jitter,
};

/// How many times one twin is tried before the audit continues without it.
pub(super) const ATTEMPTS: u32 = 5;
/// First and longest wait between these tries.
pub(super) const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(20));

/// Result of the check of one twin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Checked {
    /// Row and document are equal, or there was no row and none was needed.
    Equal,
    /// They differ, and one of them changed within the tolerance. The hub was not asked.
    Recent(Drift),
    /// They differ, and the document equals the hub's answer: the query lagged.
    Cleared,
    /// The document is not the one that is read for its twin, so it is never updated. Holds the id of the other one.
    Orphan(String),
    /// The hub has confirmed the difference.
    Confirmed(Drift, FindingOutcome, Option<String>),
    /// The document lacked identity fields, and has them now.
    Completed,
    /// The document lacks identity fields, and nothing may be written.
    Incomplete,
    /// There was no answer. Holds the apparent difference, and the reason.
    Unknown(Option<Drift>, String),
}

/// Checks twins. Changes documents only in the mode that allows it.
pub(super) struct Check<'a> {
    pub(super) reconciler: &'a TwinReconciler,
    pub(super) options: &'a Options,
    pub(super) progress: &'a Progress,
    pub(super) stop: &'a CancellationToken,
}

enum Stored {
    Document(Option<Arc<Document>>),
    Damaged,
}

impl Check<'_> {
    /// Compares a row with its document, and asks the hub if they differ.
    pub(super) async fn row(&self, row: Row) -> (TwinKey, Checked) {
        self.progress.add();
        let document = match self.stored(&row.key).await {
            Ok(Stored::Damaged) => {
                let checked = self.confirm(&row.key, Drift::Different(Part::Damaged)).await;
                return (row.key, checked);
            }
            Ok(Stored::Document(document)) => document,
            Err(trouble) => return (row.key, Checked::Unknown(None, trouble.message)),
        };
        let twin = Some((row.version, &row.twin));
        let candidate = self.reconciler.drift(document.as_deref(), twin, self.options.strictness);
        // Two contents of one version: not just an older version of one of them.
        let contradict = matches!(candidate, Some(Drift::Different(part)) if part != Part::Version)
            && document
                .as_deref()
                .and_then(Document::twin)
                .is_some_and(|stored| stored.version == row.version);
        let changed = || document.as_ref().map(|document| document.applied_at).max(row.last_updated());
        let checked = match candidate {
            None => Checked::Equal,
            // There is nothing to confirm, since the document says nothing wrong. One that changed lately is checked by a later audit.
            Some(Drift::Incomplete) if self.options.mode == Mode::Compare || self.is_recent(changed()) => {
                Checked::Incomplete
            }
            Some(Drift::Incomplete) => match self.confirm(&row.key, Drift::Incomplete).await {
                Checked::Unknown(..) => Checked::Incomplete,
                checked => checked,
            },
            Some(drift) if !contradict && self.is_recent(changed()) => Checked::Recent(drift),
            Some(drift) => self.confirm(&row.key, drift).await,
        };
        (row.key, checked)
    }

    pub(super) async fn document(&self, scanned: Scanned) -> (TwinKey, Checked) {
        self.progress.add();
        let checked = match self.is_recent(Some(scanned.applied_at)) {
            true => Checked::Recent(Drift::Extra),
            false => self.confirm(&scanned.key, Drift::Extra).await,
        };
        (scanned.key, checked)
    }

    /// Checks whether a document under another id than today's is the one that is read for its twin.
    pub(super) async fn stranger(&self, scanned: Scanned) -> (TwinKey, Checked) {
        let Scanned { id, key, .. } = scanned;
        let read = self.attempt(|| async {
            match self.reconciler.budgeted_store().read(&key, Purpose::Audit).await {
                Read::Unknown(trouble) => Err(trouble),
                read => Ok(read),
            }
        });
        let checked = match read.await {
            Ok(Read::Present(document, _)) if document.id == id => Checked::Equal,
            Ok(Read::Present(document, _)) => Checked::Orphan(format!(
                "nothing updates `{id}`, because the twin's document is `{}`; delete the one that nothing updates",
                document.id
            )),
            Ok(_) => Checked::Orphan(format!("nothing updates or finds `{id}` with this document.id")),
            Err(trouble) => Checked::Unknown(None, trouble.message),
        };
        (key, checked)
    }

    /// Asks the hub about a twin that changed within the tolerance.
    pub(super) async fn recent(&self, key: TwinKey, candidate: Drift) -> (TwinKey, Checked) {
        let checked = self.confirm(&key, candidate).await;
        (key, checked)
    }

    /// Asks the hub, and repairs the document if the mode says so.
    async fn confirm(&self, key: &TwinKey, candidate: Drift) -> Checked {
        let task = self.task(self.options.mode);
        match self.attempt(|| self.reconciler.reconcile(key, &task)).await {
            Ok(Verdict::Spared | Verdict::Equal | Verdict::Absent | Verdict::ForeignHub) => Checked::Cleared,
            Ok(Verdict::Corrected(Drift::Incomplete)) => Checked::Completed,
            // The reconciler reports a write that the store refuses.
            Ok(Verdict::Differs(Drift::Incomplete) | Verdict::Rejected(Drift::Incomplete, _)) => {
                Checked::Incomplete
            }
            Ok(Verdict::Corrected(drift)) => Checked::Confirmed(drift, FindingOutcome::Repaired, None),
            Ok(Verdict::Differs(drift)) => Checked::Confirmed(drift, FindingOutcome::Found, None),
            Ok(Verdict::Rejected(drift, reason)) => {
                Checked::Confirmed(drift, FindingOutcome::Rejected, Some(reason))
            }
            Err(trouble) => Checked::Unknown(Some(candidate), trouble.message),
        }
    }

    /// Whether a repaired twin differs again although the hub's twin has not changed. `None` if there was no answer.
    ///
    /// A version that differs is a change whose event is on its way. So is a twin that the hub has deleted since.
    pub(super) async fn differs_still(&self, key: TwinKey) -> (TwinKey, Option<bool>) {
        let both = self.attempt(|| self.reconciler.both(&key, Purpose::Audit)).await;
        let differs = both.ok().map(|(document, twin)| match (document.as_deref(), &twin) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(document), Some(twin)) => {
                document.twin().is_some_and(|stored| stored.version == twin.version)
                    && drift(Some(document), Some((twin.version, &twin.twin)), self.options.strictness)
                        .is_some_and(|drift| matches!(drift, Drift::Different(_)))
            }
        });
        (key, differs)
    }

    const fn task(&self, mode: Mode) -> Task {
        Task { purpose: Purpose::Audit, strictness: self.options.strictness, mode, unless: Unless::Never }
    }

    /// Whether this time is within the tolerance. A time in the future, from a wrong clock, would otherwise count as recent forever.
    fn is_recent(&self, changed: Option<Ticks>) -> bool {
        let (now, tolerance) = (self.reconciler.now(), self.options.tolerance);
        !tolerance.is_zero()
            && changed
                .is_some_and(|changed| changed > now.before(tolerance) && changed < now.after(tolerance))
    }

    async fn stored(&self, key: &TwinKey) -> Result<Stored, StoreError> {
        self.attempt(|| async move {
            match self.reconciler.budgeted_store().read(key, Purpose::Audit).await {
                Read::Present(document, _) => Ok(Stored::Document(Some(document))),
                // No document belongs to this twin. The result of the reconciler shows why.
                Read::Absent | Read::Foreign(_) | Read::Refused(_) => Ok(Stored::Document(None)),
                Read::Damaged(..) => Ok(Stored::Damaged),
                Read::Unknown(trouble) => Err(trouble),
            }
        })
        .await
    }

    /// Tries a few times: an audit must end, and the next one will come.
    async fn attempt<T, F>(&self, act: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        loop {
            let turn = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(StoreError {
                    kind: StoreErrorKind::Unavailable,
                    code: TWIN_UNANSWERED,
                    retry_after: None,
                    message: "stopped".into(),
                }),
                turn = Box::pin(act()) => turn,
            };
            match turn {
                Err(trouble) if backoff.attempts() + 1 < ATTEMPTS => {
                    let wait = backoff.next(jitter(), trouble.retry_after);
                    if !self.pause(wait).await {
                        return Err(trouble);
                    }
                }
                result => return result,
            }
        }
    }

    /// Waits. Returns `false` if it was stopped.
    pub(super) async fn pause(&self, wait: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            () = tokio::time::sleep(wait) => true,
        }
    }
}
