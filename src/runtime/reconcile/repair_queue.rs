//! Flagged documents, and the task that repairs them in the background.
//!
//! The flags are stored in the documents, so nothing here has to survive a restart. A flag that a restart forgets, or for which there was
//! no room, is found again by a scan over the flagged documents. A flag waits a moment before the hub is asked, because most flags clear
//! without a repair: the create event of a partial document usually arrives soon, on the other stream.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::StreamExt;
use tokio::{sync::Notify, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::reconciler::{Mode, Task, TwinReconciler, Unless, Verdict};
use crate::{
    domain::{
        drift::Strictness,
        id::{HubName, TwinKey},
        quota::Purpose,
        retry::Backoff,
    },
    ports::{StoreError, StoreErrorKind, Which},
    runtime::{jitter::jitter, watch},
    telemetry::event::{RepairDelayed, RepairGivenUp, RepairScan},
};

/// How long a flag may wait to be cleared by an event.
const GRACE: Duration = Duration::from_secs(2);
/// First and longest wait after a failure of one twin.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Number of tries of one twin after which it is checked whether the failure concerns this twin alone.
const PATIENCE: u32 = 8;
/// Maximum number of twins in the queue, about 200 bytes each. The scan finds the others.
const MOST: usize = 50_000;
/// New twins are queued only while fewer than this many wait: a fleet that is being registered must not delay flagged twins. An audit
/// covers the others.
const MOST_WITH_NEW: usize = 500;
/// A scan continues when at most this many twins are left.
const FEW: usize = MOST / 2;

const REPAIR: Task = Task {
    purpose: Purpose::Repair,
    strictness: Strictness::Content,
    mode: Mode::Correct,
    unless: Unless::Unflagged,
};

/// The task for a new twin: no event contains its identity fields.
const COMPLETION: Task = Task { unless: Unless::Complete, ..REPAIR };

/// The queue of flagged twins that are known. Cheap to clone.
#[derive(Clone)]
pub struct RepairQueue(Option<Arc<Shared>>);

struct Shared {
    state: Mutex<State>,
    changed: Notify,
    hubs: HashSet<HubName>,
    /// Whether new twins are queued.
    completes: bool,
    grace: Duration,
}

#[derive(Default)]
struct State {
    twins: HashMap<TwinKey, Repair>,
    due: BTreeMap<(Instant, u64), TwinKey>,
    next: u64,
    /// There was no room for a twin: scan when there is room again.
    overflowed: bool,
    /// Number of twins in the queue that only lack their identity fields.
    completing: usize,
}

#[derive(Default)]
struct Repair {
    /// The document is not flagged. It only lacks its identity fields.
    completes: bool,
    attempts: u32,
    running: bool,
    /// Whether it was flagged again while it was being repaired.
    again: bool,
}

impl RepairQueue {
    /// A queue that ignores all flags, because there is no hub to ask.
    pub const fn nobodys() -> Self {
        Self(None)
    }

    /// A queue for twins of these hubs. `completes`: also for their new twins, since no event contains the identity fields.
    pub fn about(hubs: impl IntoIterator<Item = impl Into<HubName>>, completes: bool) -> Self {
        Self::with_grace(hubs, completes, GRACE)
    }

    fn with_grace(
        hubs: impl IntoIterator<Item = impl Into<HubName>>,
        completes: bool,
        grace: Duration,
    ) -> Self {
        let hubs: HashSet<_> = hubs.into_iter().map(Into::into).collect();
        if hubs.is_empty() {
            return Self::nobodys();
        }
        Self(Some(Arc::new(Shared {
            state: Mutex::default(),
            changed: Notify::new(),
            hubs,
            completes,
            grace,
        })))
    }

    /// Queues a flagged twin. Never waits.
    pub fn raise(&self, key: &TwinKey) {
        self.note(key, false);
    }

    /// Queues a new twin whose document lacks its identity fields. Never waits. If many twins already wait, it is left to the next audit.
    pub fn complete(&self, key: &TwinKey) {
        if self.0.as_ref().is_some_and(|shared| shared.completes) {
            self.note(key, true);
        }
    }

    fn note(&self, key: &TwinKey, completes: bool) {
        let Some(shared) = &self.0 else { return };
        if !shared.hubs.contains(&key.hub) {
            return;
        }
        let mut state = shared.lock();
        if let Some(repair) = state.twins.get_mut(key) {
            repair.again = repair.running;
            if repair.completes && !completes {
                repair.completes = false;
                state.completing -= 1;
            }
            return;
        }
        if completes && state.twins.len() >= MOST_WITH_NEW {
            return;
        }
        if state.twins.len() >= MOST {
            state.overflowed = true;
            return;
        }
        state.completing += usize::from(completes);
        state.twins.insert(key.clone(), Repair { completes, ..Repair::default() });
        state.wait(key.clone(), Instant::now() + shared.grace);
        drop(state);
        shared.changed.notify_one();
    }

    /// Number of twins in the queue.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |shared| shared.lock().twins.len())
    }

    /// Number of flagged twins in the queue.
    fn flagged(&self) -> usize {
        self.0.as_ref().map_or(0, |shared| {
            let state = shared.lock();
            state.twins.len() - state.completing
        })
    }

    /// Whether the queue is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wait(&mut self, key: TwinKey, until: Instant) {
        self.next += 1;
        self.due.insert((until, self.next), key);
    }

    /// The next twin that is due, with its task and its number of tries. Otherwise the time when the next one is due.
    fn next(&mut self, now: Instant) -> Result<(TwinKey, Task, u32), Option<Instant>> {
        let Some((&(at, number), _)) = self.due.first_key_value() else {
            return Err(None);
        };
        if at > now {
            return Err(Some(at));
        }
        let key = self.due.remove(&(at, number)).ok_or(None)?;
        let (task, attempts) = self.twins.get_mut(&key).map_or((REPAIR, 0), |repair| {
            repair.running = true;
            (if repair.completes { COMPLETION } else { REPAIR }, repair.attempts)
        });
        Ok((key, task, attempts))
    }

    /// Removes a twin, unless it was flagged again meanwhile.
    fn done(&mut self, key: &TwinKey, grace: Duration) {
        let Some(repair) = self.twins.get_mut(key) else { return };
        if std::mem::take(&mut repair.again) {
            *repair = Repair { completes: repair.completes, ..Repair::default() };
            self.wait(key.clone(), Instant::now() + grace);
        } else if self.twins.remove(key).is_some_and(|repair| repair.completes) {
            self.completing -= 1;
        }
    }

    /// Schedules the next try, and returns the delay.
    fn later(&mut self, key: &TwinKey, hint: Option<Duration>) -> Duration {
        let Some(repair) = self.twins.get_mut(key) else { return Duration::ZERO };
        repair.running = false;
        let mut backoff = Backoff::resumed(BACKOFF.0, BACKOFF.1, repair.attempts);
        let delay = backoff.next(jitter(), hint);
        repair.attempts = backoff.attempts();
        self.wait(key.clone(), Instant::now() + delay);
        delay
    }
}

/// Options for repairs.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Number of twins that are repaired at the same time.
    pub concurrency: usize,
    /// How often the store is scanned for flagged documents that are not in the queue.
    pub scan_interval: Duration,
}

/// Repairs the twins in the queue until `stop`. `scans` says whether this replica scans for flagged documents that are not in the queue.
///
/// # Panics
/// If a repair panics, the panic is passed on.
pub async fn run(
    reconciler: Arc<TwinReconciler>,
    repair_queue: RepairQueue,
    options: Options,
    scans: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    let Some(shared) = repair_queue.0.clone() else {
        return stop.cancelled().await;
    };
    let scan = scan(Arc::clone(&reconciler), repair_queue.clone(), Arc::clone(&shared), options, scans);
    let mut scan = std::pin::pin!(scan);
    let mut repairs: JoinSet<(TwinKey, Result<Verdict, Failed>)> = JoinSet::new();
    loop {
        let mut next_due = None;
        while repairs.len() < options.concurrency.max(1) {
            let next = shared.lock().next(Instant::now());
            match next {
                Ok((key, task, attempts)) => {
                    let reconciler = Arc::clone(&reconciler);
                    repairs.spawn(async move {
                        let verdict = Box::pin(repair(&reconciler, &key, &task, attempts)).await;
                        (key, verdict)
                    });
                }
                Err(due) => {
                    next_due = due;
                    break;
                }
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return repairs.shutdown().await,
            Some(done) = repairs.join_next(), if !repairs.is_empty() => match done {
                Ok((key, verdict)) => conclude(&shared, &key, verdict, &reconciler),
                Err(error) => {
                    if let Ok(panic) = error.try_into_panic() {
                        std::panic::resume_unwind(panic);
                    }
                }
            },
            () = until(next_due), if next_due.is_some() => {}
            () = shared.changed.notified() => {}
            () = &mut scan => return repairs.shutdown().await,
        }
        reconciler.budgeted_store().metrics.set_repairs_waiting(repair_queue.flagged());
    }
}

/// Why a twin was not repaired.
struct Failed {
    trouble: StoreError,
    /// After many tries: whether store and hub answer about others.
    alone: bool,
}

async fn repair(
    reconciler: &TwinReconciler,
    key: &TwinKey,
    task: &Task,
    attempts: u32,
) -> Result<Verdict, Failed> {
    match reconciler.reconcile(key, task).await {
        Ok(verdict) => Ok(verdict),
        Err(trouble) => {
            let alone = attempts >= PATIENCE
                && trouble.kind != StoreErrorKind::Throttled
                && reconciler.answers(&key.hub, REPAIR.purpose).await;
            Err(Failed { trouble, alone })
        }
    }
}

fn conclude(shared: &Shared, key: &TwinKey, verdict: Result<Verdict, Failed>, reconciler: &TwinReconciler) {
    let mut state = shared.lock();
    match verdict {
        Ok(
            Verdict::Spared
            | Verdict::Equal
            | Verdict::Absent
            | Verdict::Corrected(_)
            | Verdict::Differs(_)
            | Verdict::Rejected(..)
            | Verdict::ForeignHub,
        ) => state.done(key, shared.grace),
        // For example, an answer that cannot be used: asking again does not help. The document stays flagged, and the next scan finds it.
        Err(Failed { trouble, alone: true }) => {
            state.done(key, shared.grace);
            drop(state);
            RepairGivenUp { twin: key, message: &trouble.message }.emit(&reconciler.budgeted_store().metrics);
        }
        Err(Failed { trouble, alone: false }) => {
            let retry_in = state.later(key, trouble.retry_after);
            drop(state);
            RepairDelayed { twin: key, message: &trouble.message, retry_in }.emit();
            if let Some(registry) = reconciler.registry(&key.hub) {
                registry.asks_again(retry_in);
            }
        }
    }
}

/// Scans for flagged documents that are not in the queue: at the start, periodically, and after there was no room for a twin.
async fn scan(
    reconciler: Arc<TwinReconciler>,
    repair_queue: RepairQueue,
    shared: Arc<Shared>,
    options: Options,
    mut scans: watch::Receiver<bool>,
) {
    let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
    loop {
        if scans.wait_for(|scans| *scans).await.is_err() {
            return std::future::pending().await; // no replica can be asked to scan any more
        }
        let result = scan_once(&reconciler, &repair_queue, &shared).await;
        let pause = match result {
            Ok(found) => {
                backoff.reset();
                RepairScan { found: Ok(found) }.emit();
                options.scan_interval
            }
            Err(trouble) => {
                RepairScan { found: Err(&trouble) }.emit();
                backoff.next(jitter(), trouble.retry_after)
            }
        };
        let again = Instant::now() + pause;
        while Instant::now() < again {
            let overflowed = {
                let mut state = shared.lock();
                let room = state.twins.len() <= FEW;
                room && std::mem::take(&mut state.overflowed)
            };
            if overflowed {
                break;
            }
            tokio::time::sleep_until(again.min(Instant::now() + GRACE)).await;
        }
    }
}

async fn scan_once(
    reconciler: &TwinReconciler,
    repair_queue: &RepairQueue,
    shared: &Shared,
) -> Result<usize, StoreError> {
    let mut found = 0;
    let mut pages = std::pin::pin!(reconciler.budgeted_store().scan(Which::Flagged, Purpose::Repair));
    while let Some(page) = pages.next().await {
        for scanned in page? {
            found += 1;
            repair_queue.raise(&scanned.key);
        }
        while shared.lock().twins.len() > FEW {
            tokio::time::sleep(GRACE).await;
        }
    }
    Ok(found)
}

async fn until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due).await;
    }
}

#[cfg(test)]
mod tests;
