//! Brings in the twins that existed before the streams.
//!
//! A query lists candidates. Each twin is read from the hub itself, and is written only over the document that was read before. So a
//! backfill never sets back a document that the streams bring in meanwhile, and a document that is already there costs one read. For the
//! same reason a backfill can be resumed: a note saves the scan, but correctness does not depend on it. If many twins in a row had no
//! document, as in an empty container, the next ones are created without the read. The next page is requested while the twins of the
//! current page are processed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    candidates::{CandidatePages, Ended, Kind},
    reconciler::{Mode, Task, TwinReconciler, Unless, Verdict},
};
use crate::{
    domain::{
        drift::{Drift, Strictness},
        id::{HubName, TwinKey},
        quota::Purpose,
        registry::TwinReference,
        retry::Backoff,
        ticks::Ticks,
    },
    ports::{Continuation, NoteError, NoteStore},
    runtime::{jitter::jitter, rate_limited_registry::RateLimitedRegistry},
    telemetry::{
        Metrics,
        event::{BackfillFinished, BackfillStarted, NoteNotKept, TwinDelayed, TwinUnknown},
    },
};

/// First and longest wait after a failure of one twin.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// Number of tries of one twin after which it is checked whether the failure concerns this twin alone.
const PATIENCE: u32 = 8;

/// After this many twins in a row without a document, the next one is expected to have none either. A wrong guess costs a call to the hub.
const MISSING_IN_A_ROW: u32 = 16;

/// Progress of the backfill of one hub, kept over restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub struct Note {
    /// When it began.
    pub started_at: Ticks,
    /// When it finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Ticks>,
    /// The kind of twins that it is processing.
    pub kind: Kind,
    /// Where the next page begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continuation: Option<String>,
    /// The query of this continuation. If it is missing, as in notes from before it was kept: the query for whole twins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Number of twins that were processed, by outcome.
    pub counts: Counts,
    /// How many times it was begun or resumed: once, unless it was interrupted.
    #[serde(default)]
    pub runs: u32,
}

/// Number of twins by outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Candidates that the query listed.
    #[serde(alias = "nominated")]
    pub listed: u64,
    /// Documents that were created.
    pub created: u64,
    /// Documents that differed, and were corrected.
    pub corrected: u64,
    /// Nothing to do: the document was there and right, or the twin no longer exists.
    pub present: u64,
    /// Documents of twins that were deleted after the query saw them. They are tombstones now.
    pub gone: u64,
    /// Twins that the store will never take.
    pub rejected: u64,
    /// Twins for which the store or the hub gave no answer although both answered about others, and rows that are not twins. An audit will
    /// check them again.
    #[serde(default)]
    pub unknown: u64,
}

/// The same counts, which can be read while it runs.
#[derive(Debug, Default)]
pub struct Progress {
    /// Number of registered devices, as the hub estimates. 0: unknown.
    pub devices: AtomicU64,
    /// Whether all devices are processed, so that their modules are next.
    pub modules: AtomicBool,
    counts: [AtomicU64; 7],
    /// Number of twins in a row, up to now, that had no document.
    missing: AtomicU32,
}

impl Counts {
    /// Number of twins by outcome, with the names of the outcomes.
    pub fn outcomes(&self) -> [(&'static str, u64); 6] {
        let Self { listed: _, created, corrected, present, gone, rejected, unknown } = *self;
        [
            ("created", created),
            ("corrected", corrected),
            ("present", present),
            ("gone", gone),
            ("rejected", rejected),
            ("unknown", unknown),
        ]
    }

    fn show(&self, hub: &str, metrics: &Metrics) {
        for (outcome, twins) in self.outcomes() {
            metrics.set_backfill_twins(hub, outcome, twins);
        }
    }
}

impl Progress {
    fn add(&self, place: usize) {
        self.counts[place].fetch_add(1, Ordering::Relaxed); // an independent counter
    }

    fn resume(&self, counts: Counts) {
        let Counts { listed, created, corrected, present, gone, rejected, unknown } = counts;
        for (place, count) in
            [listed, created, corrected, present, gone, rejected, unknown].into_iter().enumerate()
        {
            self.counts[place].store(count, Ordering::Relaxed);
        }
    }

    /// The counts so far.
    pub fn counts(&self) -> Counts {
        let [listed, created, corrected, present, gone, rejected, unknown] =
            self.counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        Counts { listed, created, corrected, present, gone, rejected, unknown }
    }
}

/// Why a backfill is not finished.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The scan ended early.
    #[error(transparent)]
    Ended(#[from] Ended),
    /// The note cannot be read. Nothing would be lost, but a person should know.
    #[error(transparent)]
    Note(#[from] NoteError),
}

/// The name of a hub's note.
pub fn note_name(hub: &HubName) -> String {
    format!("backfill/{}", hub)
}

/// Reads the note of a hub. A note that cannot be parsed counts as none: the scan begins again.
///
/// # Errors
/// The notes cannot be read.
pub async fn note(notes: &dyn NoteStore, hub: &HubName) -> Result<Option<Note>, NoteError> {
    let note = notes.load(&note_name(hub)).await?;
    Ok(note.and_then(|note| serde_json::from_slice(&note).ok()))
}

impl Note {
    /// The note of a backfill that has done nothing yet.
    fn at_the_beginning(reconciler: &TwinReconciler) -> Self {
        Self {
            started_at: reconciler.now(),
            finished_at: None,
            kind: Kind::Devices,
            continuation: None,
            query: None,
            counts: Counts::default(),
            runs: 0,
        }
    }
}

/// Writes a note that a backfill of this hub is planned. The backfill may begin much later, or in another process. By then the container
/// holds the documents that the streams have brought, and only the note shows that twins are missing.
///
/// # Errors
/// The notes cannot be read or written.
pub async fn plan(
    reconciler: &TwinReconciler,
    notes: &dyn NoteStore,
    hub: &HubName,
) -> Result<(), NoteError> {
    match note(notes, hub).await? {
        Some(begun) if begun.finished_at.is_none() => Ok(()),
        Some(_) | None => save(notes, hub, &Note::at_the_beginning(reconciler)).await,
    }
}

/// Brings in the twins of one hub: resumes an unfinished backfill, or begins one.
///
/// An audit follows if some twins had no answer, since nothing else shows a twin without a document. An audit also follows if the backfill
/// was interrupted.
///
/// SUBTLE: an interrupted backfill may have left a write that the store performs later. If such a write creates a module after its device
/// was deleted and after its modules were looked for, no query of the hub and no event covers that module.
///
/// # Errors
/// `stop` was cancelled, the hub refuses a query, or the notes cannot be read.
pub async fn run(
    reconciler: &Arc<TwinReconciler>,
    registry: &Arc<RateLimitedRegistry>,
    notes: &dyn NoteStore,
    concurrency: usize,
    progress: &Arc<Progress>,
    stop: &CancellationToken,
) -> Result<Counts, Error> {
    let hub = registry.hub();
    let begun = note(notes, hub).await?.filter(|begun| begun.finished_at.is_none());
    let resumed = begun.is_some();
    let mut note = begun.unwrap_or_else(|| Note::at_the_beginning(reconciler));
    note.runs = note.runs.saturating_add(1);
    keep(notes, hub, &note).await;
    progress.resume(note.counts);
    if let Ok(devices) = registry.device_count(Purpose::Backfill).await {
        progress.devices.store(devices, Ordering::Relaxed);
    }
    BackfillStarted { hub, resumed, devices: progress.devices.load(Ordering::Relaxed) }.emit();
    let first = note.kind;
    for kind in Kind::ALL.into_iter().filter(|kind| *kind >= first) {
        progress.modules.store(kind != Kind::Devices, Ordering::Relaxed);
        let mut pages = CandidatePages::references(Arc::clone(registry), kind, None, Purpose::Backfill);
        if let Some(from) = note.continuation.take() {
            let query = note.query.take().unwrap_or_else(|| kind.query().to_owned());
            pages = pages.resumed(query, Continuation(from));
        }
        let mut next = pages.next(stop).await;
        while let Some(page) = next? {
            let behind = pages.position().map(|position| position.0.clone());
            let query = behind.as_ref().map(|_| pages.query().to_owned());
            for _ in 0..page.odd {
                progress.add(0);
                progress.add(6);
            }
            let twins = deal_with(reconciler, page.rows, concurrency.max(1), progress, stop);
            let (all, then) = tokio::join!(twins, Box::pin(pages.next(stop)));
            if !all {
                return Err(Ended::Stopped.into());
            }
            note.kind = kind;
            (note.continuation, note.query) = (behind, query);
            note.counts = progress.counts();
            note.counts.show(hub, &reconciler.budgeted_store().metrics);
            keep(notes, hub, &note).await;
            next = then;
        }
    }
    let audit_follows = (progress.counts().unknown > 0 || note.runs > 1)
        && reconciler.audits().ask_before_it_is_forgotten(notes).await;
    note.finished_at = Some(reconciler.now());
    (note.continuation, note.query) = (None, None);
    note.counts = progress.counts();
    keep(notes, hub, &note).await;
    let Counts { listed: twins, created, corrected, rejected, unknown, .. } = note.counts;
    BackfillFinished { hub, twins, created, corrected, rejected, unknown, audit_follows }.emit();
    Ok(note.counts)
}

/// Writes the note, if possible. Without it, a restart costs one more read of each document.
async fn keep(notes: &dyn NoteStore, hub: &HubName, note: &Note) {
    if let Err(error) = save(notes, hub, note).await {
        NoteNotKept { error: &error.to_string() }.emit();
    }
}

async fn save(notes: &dyn NoteStore, hub: &HubName, note: &Note) -> Result<(), NoteError> {
    let note = serde_json::to_vec(note).map_err(|error| NoteError {
        operation: "write",
        name: note_name(hub),
        place: "memory".into(),
        source: error.into(),
    })?;
    notes.save(&note_name(hub), &note).await
}

/// Processes the twins of a page, many at the same time, each in its own task, so that all processors are used. Returns `false` if it was
/// stopped before all were done. The tasks end when this is dropped.
async fn deal_with(
    reconciler: &Arc<TwinReconciler>,
    twins: Vec<TwinReference>,
    concurrency: usize,
    progress: &Arc<Progress>,
    stop: &CancellationToken,
) -> bool {
    let mut tasks = JoinSet::new();
    let mut twins = twins.into_iter();
    loop {
        for reference in twins.by_ref().take(concurrency - tasks.len()) {
            let (reconciler, progress, stop) = (Arc::clone(reconciler), Arc::clone(progress), stop.clone());
            tasks.spawn(async move { Box::pin(twin(&reconciler, reference, &progress, &stop)).await });
        }
        match tasks.join_next().await {
            None => return true,
            Some(Ok(true)) => {}
            Some(Ok(false)) => return false,
            Some(Err(error)) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Only a runtime that shuts down cancels the task.
                Err(_) => return false,
            },
        }
    }
}

/// Processes one twin, however long it takes. Returns `false` if it was stopped before.
async fn twin(
    reconciler: &TwinReconciler,
    TwinReference { key, version }: TwinReference,
    progress: &Progress,
    stop: &CancellationToken,
) -> bool {
    let task = Task {
        purpose: Purpose::Backfill,
        strictness: Strictness::Content,
        mode: Mode::Correct,
        unless: Unless::Holds(version),
    };
    let expected = match progress.missing.load(Ordering::Relaxed) >= MISSING_IN_A_ROW {
        true => Expected::Missing,
        false => Expected::Anything,
    };
    let verdict = match reconcile_with_retries(reconciler, &key, &task, expected, stop).await {
        RetryOutcome::Reconciled(verdict) => verdict,
        RetryOutcome::Exhausted(_) => {
            progress.add(0);
            progress.add(6);
            return true;
        }
        RetryOutcome::Stopped => return false,
    };
    match verdict {
        Verdict::Corrected(Drift::Missing) => progress.missing.fetch_add(1, Ordering::Relaxed),
        _ => progress.missing.swap(0, Ordering::Relaxed),
    };
    progress.add(0);
    progress.add(match verdict {
        Verdict::Corrected(Drift::Missing) => 1,
        Verdict::Corrected(Drift::Different(_) | Drift::Flagged | Drift::Incomplete) => 2,
        Verdict::Spared | Verdict::Equal | Verdict::Absent | Verdict::Differs(_) | Verdict::ForeignHub => 3,
        Verdict::Corrected(Drift::Extra) => 4,
        Verdict::Rejected(..) => 5,
    });
    true
}

/// Result of reconciling a twin with retries.
pub enum RetryOutcome {
    /// It was reconciled.
    Reconciled(Verdict),
    /// The store or the hub gave no answer about this twin, although both answered about others. Holds the reason.
    Exhausted(String),
    /// Stopped before the twin was reconciled.
    Stopped,
}

/// Whether a document of the twin is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// No document is expected.
    Missing,
    /// Nothing is known.
    Anything,
}

/// Reconciles a twin, and retries temporary failures. An outage is waited out for as long as it lasts. One twin without an answer delays
/// the others only for a while.
///
/// SUBTLE: an outage may end between the failure of the twin and the check whether others are answered. So a twin is given up only if it
/// fails again after others were answered.
pub async fn reconcile_with_retries(
    reconciler: &TwinReconciler,
    key: &TwinKey,
    task: &Task,
    expected: Expected,
    stop: &CancellationToken,
) -> RetryOutcome {
    let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
    let mut others_were_answered = false;
    loop {
        let turn = async {
            let reconciled = match expected {
                Expected::Missing => Box::pin(reconciler.bring_in(key, task)).await,
                Expected::Anything => Box::pin(reconciler.reconcile(key, task)).await,
            };
            match reconciled {
                Ok(verdict) => Ok(verdict),
                Err(trouble) => {
                    let alone =
                        backoff.attempts() >= PATIENCE && reconciler.answers(&key.hub, task.purpose).await;
                    Err((trouble, alone))
                }
            }
        };
        let turn = tokio::select! {
            biased;
            () = stop.cancelled() => return RetryOutcome::Stopped,
            turn = turn => turn,
        };
        let trouble = match turn {
            Ok(verdict) => return RetryOutcome::Reconciled(verdict),
            Err((trouble, true)) if others_were_answered => {
                TwinUnknown { twin: key, message: &trouble.message }.emit();
                return RetryOutcome::Exhausted(trouble.message);
            }
            Err((trouble, alone)) => {
                others_were_answered = alone;
                trouble
            }
        };
        let retry_in = backoff.next(jitter(), trouble.retry_after);
        TwinDelayed { twin: key, message: &trouble.message, retry_in }.emit();
        if let Some(registry) = reconciler.registry(&key.hub) {
            registry.asks_again(retry_in);
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return RetryOutcome::Stopped,
            () = tokio::time::sleep(retry_in) => {}
        }
    }
}

#[cfg(test)]
mod tests;
