//! Reads of single twins for HTTP requests: at once, or when the copy meets the read requirement.
//!
//! ```text
//! listen for writes of this process ─► read the document ─► is the requirement met? ─ yes ─► answer
//!                                            ▲                       │ no
//!                                            └── a write of this process, or it is time to read again
//! ```
//!
//! Any replica can answer for any twin. It learns of this process's own writes at once, without cost. For the writes of other replicas it
//! reads again, after growing pauses. All waiting requests together stay within a budget of request units.
//!
//! SUBTLE: a request is a future that is dropped when its client disconnects. Everything that it holds (a place among the waiting requests,
//! an entry among the listeners) is released by that. It holds nothing else.

mod compare;
mod lookup;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

pub use self::compare::{Compared, Comparison};
use self::{
    compare::Comparer,
    lookup::{Lookup, Wanted},
};
use crate::{
    domain::{
        document::Document,
        id::HubName,
        read_requirement::ReadRequirement,
        retry::{Backoff, Budget},
    },
    ports::StoreError,
    runtime::{
        budgeted_store::BudgetedStore,
        documents::{DocumentCache, Expected, Stored},
        jitter::jitter,
        rate_limited_registry::RateLimitedRegistry,
    },
    telemetry::{Metrics, TwinRead},
};

/// Maximum number of requests that wait at the same time. Each one keeps a connection open and reads repeatedly.
pub const MOST_WAITERS: usize = 64;
/// Maximum number of other requests at the same time.
pub const MOST_READERS: usize = 64;
/// Maximum number of requests that ask a hub at the same time. The hub's quota is used one call at a time anyway.
pub const MOST_COMPARISONS: usize = 4;
/// The longest time that a request may wait.
pub const WAIT_MAX: Duration = Duration::from_secs(30);
/// Time limit of one lookup, if the request does not wait.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);
/// Minimum time limit of the first lookup of a short wait.
const LOOKUP_LIMIT_MIN: Duration = Duration::from_secs(1);
/// The first pause between two lookups. By then, the writes of this process have been announced.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Request units per second that all waiting requests together may spend on further lookups.
const REQUEST_UNITS_PER_SECOND: f64 = 50.0;
/// Minimum cost of a lookup, in request units.
const LOOKUP_UNITS_MIN: f64 = 1.0;

/// Maximum numbers of requests at the same time.
#[derive(Debug, Clone, Copy)]
pub struct Places {
    /// Requests that wait.
    pub waiters: usize,
    /// Requests that do not wait.
    pub readers: usize,
}

impl Default for Places {
    fn default() -> Self {
        Self { waiters: MOST_WAITERS, readers: MOST_READERS }
    }
}

/// Reads twins. Cheap to clone.
#[derive(Clone)]
pub struct Twins(Arc<Shared>);

struct Shared {
    /// The configured hubs.
    hubs: Vec<HubName>,
    stop: CancellationToken,
    metrics: Metrics,
    /// Set when the store is connected.
    access: OnceLock<Access>,
    waiters: Semaphore,
    readers: Semaphore,
    comparer: Comparer,
    lookups: Mutex<Budget>,
    started: Instant,
}

/// The dependencies for reading twins.
pub struct Access {
    /// The store, within the cap on request units.
    pub budgeted_store: BudgetedStore,
    /// The cache that announces the writes of this process.
    pub documents: DocumentCache,
    /// The registries of the hubs that may be asked.
    pub registries: BTreeMap<HubName, Arc<RateLimitedRegistry>>,
    /// Time limit of one call to a hub.
    pub hub_limit: Duration,
}

/// The requested twin, and its read requirement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwinRequest {
    /// The hub. `None`: the only hub that there is.
    pub hub: Option<HubName>,
    /// Id of the device.
    pub device: String,
    /// Id of the module. `None`: the twin of the device.
    pub module: Option<String>,
    /// The requirement that the document has to meet.
    pub requirement: ReadRequirement,
    /// How long to wait until it is met.
    pub wait: Duration,
    /// Whether to ask the hub too.
    pub compare: bool,
}

/// The answer to a request.
#[derive(Debug)]
pub struct Answer {
    /// The hub, if it is known.
    pub hub: Option<HubName>,
    /// What was found.
    pub outcome: Outcome,
    /// How long the request waited.
    pub waited: Duration,
    /// The comparison with the hub, if it was requested.
    pub comparison: Option<Comparison>,
    /// Whether flagged documents are repaired from the hub.
    pub mended: bool,
    /// Request units that the store has charged for it, as far as it has answered.
    pub request_units: f64,
}

/// Outcome of a request.
#[derive(Debug)]
pub enum Outcome {
    /// The document of an existing twin.
    Found(Stored),
    /// There is no document. The reason, if there is one.
    Absent(Option<String>),
    /// The twin is deleted. This is its tombstone.
    Deleted(Stored),
    /// The requirement was not met in time. This is the document at that moment, if there is one.
    TimedOut(Option<Stored>),
    /// The outcome is unknown: the store gave no usable answer.
    Unavailable(StoreError),
    /// The maximum number of requests already waits, or reads.
    Busy,
    /// The store is not connected yet.
    Starting,
    /// The process stops. Requests no longer wait.
    Stopping,
    /// Several hubs are possible.
    WhichHub(Vec<HubName>),
    /// No document can have this id.
    Refused(String),
}

impl Outcome {
    /// Name in metrics.
    const fn read(&self) -> TwinRead {
        match self {
            Self::Found(_) => TwinRead::Found,
            Self::Absent(_) => TwinRead::Absent,
            Self::Deleted(_) => TwinRead::Deleted,
            Self::TimedOut(_) => TwinRead::TimedOut,
            Self::Unavailable(_) => TwinRead::Unavailable,
            Self::Busy => TwinRead::Busy,
            Self::Starting => TwinRead::Starting,
            Self::Stopping => TwinRead::Stopping,
            Self::WhichHub(_) | Self::Refused(_) => TwinRead::Invalid,
        }
    }

    /// The document that was found, in any state. `None` if it is unknown whether there is one.
    fn document(&self) -> Option<Option<&Document>> {
        match self {
            Self::Found((document, _)) | Self::Deleted((document, _)) => Some(Some(document)),
            Self::Absent(_) => Some(None),
            Self::TimedOut(stored) => Some(stored.as_ref().map(|(document, _)| &**document)),
            Self::Unavailable(_)
            | Self::Busy
            | Self::Starting
            | Self::Stopping
            | Self::WhichHub(_)
            | Self::Refused(_) => None,
        }
    }
}

impl std::fmt::Debug for Twins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Twins").field("hubs", &self.0.hubs).finish_non_exhaustive()
    }
}

impl Twins {
    /// Creates a reader for these hubs, which may be none. Nothing is read until [`Self::open`]. Waiting requests end with `stop`.
    pub fn new(hubs: Vec<HubName>, metrics: Metrics, stop: CancellationToken) -> Self {
        Self::with_places(hubs, metrics, stop, Places::default())
    }

    /// Does the same as [`Self::new`], with other maximum numbers of requests.
    pub fn with_places(
        hubs: Vec<HubName>,
        metrics: Metrics,
        stop: CancellationToken,
        places: Places,
    ) -> Self {
        Self(Arc::new(Shared {
            hubs,
            stop,
            metrics,
            access: OnceLock::new(),
            waiters: Semaphore::new(places.waiters),
            readers: Semaphore::new(places.readers),
            comparer: Comparer::new(),
            lookups: Mutex::new(Budget::new(REQUEST_UNITS_PER_SECOND)),
            started: Instant::now(),
        }))
    }

    /// Enables reads. Only the first call has an effect.
    pub fn open(&self, access: Access) {
        let _ = self.0.access.set(access);
    }

    /// Answers a request. `kept` is true while the request holds a place.
    pub async fn answer(&self, request: &TwinRequest, kept: &AtomicBool) -> Answer {
        let counted = Counted { metrics: &self.0.metrics, read: TwinRead::Gone };
        let answer = Box::pin(self.0.answer(request, kept)).await;
        counted.conclude(answer.outcome.read());
        answer
    }

    /// Counts an invalid request.
    pub fn not_understood(&self) {
        self.0.metrics.twin_read(TwinRead::Invalid);
    }
}

/// Counts a request, also if its client disconnects before the answer.
struct Counted<'a> {
    metrics: &'a Metrics,
    read: TwinRead,
}

impl Counted<'_> {
    fn conclude(mut self, read: TwinRead) {
        self.read = read;
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.metrics.twin_read(self.read);
    }
}

/// A place among the requests that may run at the same time.
struct Place<'a> {
    _permit: SemaphorePermit<'a>,
    kept: &'a AtomicBool,
    /// The metrics that show the number of waiting requests, if this is one of them.
    waits: Option<&'a Metrics>,
}

impl<'a> Place<'a> {
    /// Takes a place among `places`, if there is one.
    fn among(places: &'a Semaphore, kept: &'a AtomicBool, waits: Option<&'a Metrics>) -> Option<Self> {
        let permit = places.try_acquire().ok()?;
        kept.store(true, Ordering::Release);
        if let Some(metrics) = waits {
            metrics.twin_waiters(1.0);
        }
        Some(Self { _permit: permit, kept, waits })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.kept.store(false, Ordering::Release);
        if let Some(metrics) = self.waits {
            metrics.twin_waiters(-1.0);
        }
    }
}

impl Shared {
    async fn answer(&self, request: &TwinRequest, kept: &AtomicBool) -> Answer {
        let began = Instant::now();
        let only = (self.hubs.len() == 1).then(|| self.hubs.first().cloned()).flatten();
        let mut wanted = Wanted { request, hub: request.hub.clone().or(only), request_units: 0.0 };
        let place = self.place(request, kept);
        let outcome = match (self.access.get(), &place) {
            (None, _) => Outcome::Starting,
            (Some(_), None) => Outcome::Busy,
            (Some(_), Some(_)) if wanted.hub.is_none() && self.hubs.len() > 1 => {
                Outcome::WhichHub(self.hubs.clone())
            }
            (Some(access), Some(place)) => self.read(access, &mut wanted, began, place).await,
        };
        let waited = began.elapsed();
        let comparison = match (self.access.get(), outcome.document()) {
            (Some(access), Some(document)) if request.compare => {
                let key = wanted.key();
                Some(
                    self.comparer.compare(&access.registries, key.as_ref(), document, access.hub_limit).await,
                )
            }
            (Some(_) | None, _) => None,
        };
        let mended = wanted.hub.as_ref().is_some_and(|hub| self.hubs.contains(hub));
        let Wanted { hub, request_units, .. } = wanted;
        Answer { hub, outcome, waited, comparison, mended, request_units }
    }

    /// Takes a place for a request. If all places for waiting are taken, the present document can still be read.
    fn place<'a>(&'a self, request: &TwinRequest, kept: &'a AtomicBool) -> Option<Place<'a>> {
        let waits = request.requirement.is_something() && !request.wait.is_zero();
        let waiter = || Place::among(&self.waiters, kept, Some(&self.metrics));
        waits.then(waiter).flatten().or_else(|| Place::among(&self.readers, kept, None))
    }

    async fn read(
        &self,
        access: &Access,
        wanted: &mut Wanted<'_>,
        began: Instant,
        place: &Place<'_>,
    ) -> Outcome {
        let TwinRequest { device, module, requirement, wait, .. } = wanted.request;
        let waits = requirement.is_something();
        let limit = if waits { (*wait).clamp(LOOKUP_LIMIT_MIN, LOOKUP_LIMIT) } else { LOOKUP_LIMIT };
        // Before the first lookup, so that no write in between is missed.
        let mut expected = waits.then(|| access.documents.expect(device, module.as_deref()));
        let found = access.look_up(wanted, began + limit).await;
        match (&mut expected, &found) {
            (None, _) | (_, Lookup::WhichHub(_) | Lookup::Refused(_)) => found.into_outcome(),
            (Some(_), _) if requirement.is_met_by(found.document()) => found.into_outcome(),
            (Some(_), _) if wait.is_zero() => found.into_disappointment(),
            (Some(_), _) if self.stop.is_cancelled() => Outcome::Stopping,
            (Some(_), _) if place.waits.is_none() => Outcome::Busy,
            (Some(expected), _) => self.wait(access, wanted, expected, found, began + *wait).await,
        }
    }

    /// Waits until `deadline`. `found` is the result of the first lookup.
    async fn wait(
        &self,
        access: &Access,
        wanted: &mut Wanted<'_>,
        expected: &mut Expected,
        mut found: Lookup,
        deadline: Instant,
    ) -> Outcome {
        let requirement = wanted.request.requirement;
        let mut pauses = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            let hint = match &found {
                Lookup::StoreError(trouble) => trouble.retry_after,
                Lookup::Document(_) | Lookup::Nothing(_) | Lookup::WhichHub(_) | Lookup::Refused(_) => None,
            };
            // The pauses are random, so that not all waiting requests read at the same moment. None is zero.
            let pause = pauses.next(0.5 + 0.5 * jitter(), hint);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Outcome::Stopping,
                stored = expected.next() => {
                    // A twin of the same name of another hub is not the requested one.
                    if wanted.hub.as_ref().is_none_or(|hub| *hub == stored.0.key.hub) {
                        wanted.hub = Some(stored.0.key.hub.clone());
                        found = Lookup::Document(stored);
                    }
                }
                () = sleep_until(deadline) => return found.into_disappointment(),
                lookup = self.look_up_again(access, wanted, pause, deadline) => found = lookup,
            }
            if requirement.is_met_by(found.document())
                || matches!(found, Lookup::WhichHub(_) | Lookup::Refused(_))
            {
                return found.into_outcome();
            }
        }
    }

    /// Reads the store once more, after a pause and when the budget of all waiting requests has room for it.
    async fn look_up_again(
        &self,
        access: &Access,
        wanted: &mut Wanted<'_>,
        pause: Duration,
        deadline: Instant,
    ) -> Lookup {
        sleep(pause).await;
        loop {
            // The minimum cost of a lookup is taken at once, so that not all waiting requests see the same room.
            let wait = self.budget(|budget, now| {
                let wait = budget.wait(now);
                if wait.is_zero() {
                    budget.spend(LOOKUP_UNITS_MIN, now);
                }
                wait
            });
            if wait.is_zero() {
                break;
            }
            sleep(wait).await;
        }
        let (lookup, request_units) = access.charged_lookup(wanted, deadline).await;
        self.budget(|budget, now| budget.spend((request_units - LOOKUP_UNITS_MIN).max(0.0), now));
        lookup
    }

    fn budget<T>(&self, act: impl FnOnce(&mut Budget, Duration) -> T) -> T {
        let mut lookups = self.lookups.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut lookups, self.started.elapsed())
    }
}

#[cfg(test)]
mod tests;
