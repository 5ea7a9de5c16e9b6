//! Brings in the twins that were there before us.
//!
//! A query lists candidates; every twin is read from the hub itself, and written only over what was read before: so a
//! document that streams bring in meanwhile is never set back, and what is there already costs one read. That is also
//! what makes a backfill resumable: a note saves the scan, but nothing depends on it. Where many twins in a row had no
//! document, as in an empty container, the next ones are created without the read. The next page is asked for while the twins of one
//! are dealt with.

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

/// First and longest wait after trouble with one twin.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// Tries of one twin after which it is asked whether the trouble is its own.
const PATIENCE: u32 = 8;

/// After so many twins in a row without a document, the next one is expected to have none either. A wrong guess costs a call to the hub.
const MISSING_IN_A_ROW: u32 = 16;

/// How far the backfill of one hub has come; what is kept over restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub struct Note {
    /// When it was begun.
    pub started_at: Ticks,
    /// When it was finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Ticks>,
    /// Which twins it is at.
    pub kind: Kind,
    /// Where the next page begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continuation: Option<String>,
    /// The query that this continues; one for whole twins where nothing is said, as before it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Twins that it has dealt with.
    pub counts: Counts,
    /// How often it was begun or gone on with: once, unless it was interrupted.
    #[serde(default)]
    pub runs: u32,
}

/// What became of the twins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Candidates that the query listed.
    #[serde(alias = "nominated")]
    pub listed: u64,
    /// Documents made.
    pub created: u64,
    /// Documents that said something else.
    pub corrected: u64,
    /// Nothing to do: the document was there and right, or the twin is gone since.
    pub present: u64,
    /// Documents of twins that are gone since the query saw them: tombstones now.
    pub gone: u64,
    /// Twins that the store will never take.
    pub rejected: u64,
    /// Twins about which store or hub gave no answer, although they answered otherwise, and rows that are no twins: an
    /// audit will meet them again.
    #[serde(default)]
    pub unknown: u64,
}

/// The same, to be looked at while it goes on.
#[derive(Debug, Default)]
pub struct Progress {
    /// Devices that are registered, as the hub estimates; 0: not known.
    pub devices: AtomicU64,
    /// Whether the devices are done, and their modules are next.
    pub modules: AtomicBool,
    counts: [AtomicU64; 7],
    /// Twins in a row, up to now, that had no document.
    missing: AtomicU32,
}

impl Counts {
    /// Twins by outcome.
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
        self.counts[place].fetch_add(1, Ordering::Relaxed); // a count on its own
    }

    fn resume(&self, counts: Counts) {
        let Counts { listed, created, corrected, present, gone, rejected, unknown } = counts;
        for (place, count) in
            [listed, created, corrected, present, gone, rejected, unknown].into_iter().enumerate()
        {
            self.counts[place].store(count, Ordering::Relaxed);
        }
    }

    /// What became of the twins so far.
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
    /// The note cannot be read: nothing would be lost, but a person should know.
    #[error(transparent)]
    Note(#[from] NoteError),
}

/// The name of a hub's note.
pub fn note_name(hub: &HubName) -> String {
    format!("backfill/{}", hub)
}

/// The note of a hub. One that cannot be understood counts as none: the scan begins again.
///
/// # Errors
/// The notes cannot be read.
pub async fn note(notes: &dyn NoteStore, hub: &HubName) -> Result<Option<Note>, NoteError> {
    let note = notes.load(&note_name(hub)).await?;
    Ok(note.and_then(|note| serde_json::from_slice(&note).ok()))
}

impl Note {
    /// Nothing is done yet.
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

/// Notes that a backfill of this hub is to be done. Whoever does it may begin much later, or be another process, and by then the
/// container holds what the streams have brought: nothing but the note tells that twins are missing.
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

/// Fills in the twins of one hub: goes on where an unfinished backfill stopped, else begins.
///
/// An audit follows where twins had no answer, for nothing tells of a twin that has no document; and where the backfill was
/// interrupted.
///
/// SUBTLE: whoever was interrupted may have had a write under way, which the store performs when it will. A module that is created
/// like that after its device was deleted, and after its modules were looked for, is met by no query of the hub and by no event.
///
/// # Errors
/// `stop`; a query that the hub refuses; notes that cannot be read.
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

/// Keeps the note where that is possible: without it, a restart costs a read of each document once more.
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

/// Deals with the twins of a page, so many at once, each in a task of its own, so that all processors take part; `false`: stopped before
/// all were done. What is under way ends when this is dropped.
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
                // Nobody but a runtime that ends cancels it.
                Err(_) => return false,
            },
        }
    }
}

/// Deals with one twin, however long it takes; `false`: stopped before it was done.
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

/// What became of a twin that was waited for.
pub enum RetryOutcome {
    /// It was reconciled.
    Reconciled(Verdict),
    /// Nobody answered about it, although both answered otherwise; the reason.
    Exhausted(String),
    /// Stopped before it was done.
    Stopped,
}

/// What is expected of a twin's document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// That there is none.
    Missing,
    /// Nothing.
    Anything,
}

/// Reconciles a twin, waiting out whatever passes. An outage is waited out for as long as it lasts; one twin without an answer
/// holds up the others only for a while.
///
/// SUBTLE: an outage may end between the twin's failure and the question whether others are answered. So a twin is given up only
/// where it fails again after others were answered.
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
