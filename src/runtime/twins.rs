//! Reads of single twins for whoever asks over HTTP: at once, or when the copy has reached what is waited for.
//!
//! ```text
//! listen for our own writes ─► read the document ─► is it what is waited for? ─ yes ─► answer
//!                                    ▲                       │ no
//!                                    └── our own write, or it is time to look again
//! ```
//!
//! Any replica can answer for any twin. What this process writes itself it hears of at once, and for nothing; for what another
//! replica writes it reads again, after pauses that grow, all waiters together within a budget of request units.
//!
//! SUBTLE: a request is a future that is dropped when its client goes away. Whatever it holds (a place among the waiters, an
//! entry among those who listen) is released by that; it holds nothing else.

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

/// Requests that may wait at the same time. Each keeps a connection open and reads again and again.
pub const MOST_WAITERS: usize = 64;
/// Requests beside them that may be under way at the same time.
pub const MOST_READERS: usize = 64;
/// Requests that may ask a hub at the same time: its quota is worked off one by one anyway.
pub const MOST_COMPARISONS: usize = 4;
/// The longest that anybody may wait.
pub const WAIT_MAX: Duration = Duration::from_secs(30);
/// How long one look at the store may take, where nobody waits for something.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);
/// The least that the first look of a short wait gets.
const LOOKUP_LIMIT_MIN: Duration = Duration::from_secs(1);
/// The first pause between two looks. By then, what we write ourselves has been told.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest one.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// What all waiters together may spend on looking again, per second.
const REQUEST_UNITS_PER_SECOND: f64 = 50.0;
/// The least that a look costs.
const LOOKUP_UNITS_MIN: f64 = 1.0;

/// How many requests may be under way at the same time.
#[derive(Debug, Clone, Copy)]
pub struct Places {
    /// Those that wait.
    pub waiters: usize,
    /// Those beside them.
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
    /// The hubs that are configured.
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

/// What twins are read from.
pub struct Access {
    /// The store, within the cap on request units.
    pub budgeted_store: BudgetedStore,
    /// Where our own writes are heard of.
    pub documents: DocumentCache,
    /// The hubs that may be asked.
    pub registries: BTreeMap<HubName, Arc<RateLimitedRegistry>>,
    /// How long one call to a hub may take.
    pub hub_limit: Duration,
}

/// Which twin, and what is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TwinRequest {
    /// The hub; `None`: the only one that there is.
    pub hub: Option<HubName>,
    /// The device.
    pub device: String,
    /// The module.
    pub module: Option<String>,
    /// What the document has to meet.
    pub requirement: ReadRequirement,
    /// For how long it may fail to.
    pub wait: Duration,
    /// Whether the hub is asked, too.
    pub compare: bool,
}

/// What is known of a twin.
#[derive(Debug)]
pub struct Answer {
    /// The hub, where it is known.
    pub hub: Option<HubName>,
    /// What was found.
    pub outcome: Outcome,
    /// How long it was waited for.
    pub waited: Duration,
    /// What the hub says, where it was asked.
    pub comparison: Option<Comparison>,
    /// Whether the hub is asked about flagged documents.
    pub mended: bool,
    /// What the store has charged for it, as far as it has answered.
    pub request_units: f64,
}

/// What was found.
#[derive(Debug)]
pub enum Outcome {
    /// The document of a twin that is there.
    Found(Stored),
    /// There is no document, for this reason where there is one.
    Absent(Option<String>),
    /// A tombstone.
    Deleted(Stored),
    /// What was waited for did not come; this is there instead.
    TimedOut(Option<Stored>),
    /// It could not be told.
    Unavailable(StoreError),
    /// As many wait, or read, as may.
    Busy,
    /// The store is not connected yet.
    Starting,
    /// The process stops: nothing is waited for any more.
    Stopping,
    /// Several hubs could be meant.
    WhichHub(Vec<HubName>),
    /// No document can have such an id.
    Refused(String),
}

impl Outcome {
    /// Its name in metrics.
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

    /// The document that was found, in whatever state; `None` where nothing is known about one.
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
    /// For these hubs, which may be none; nothing is read until [`Self::open`]. Waiters end with `stop`.
    pub fn new(hubs: Vec<HubName>, metrics: Metrics, stop: CancellationToken) -> Self {
        Self::with_places(hubs, metrics, stop, Places::default())
    }

    /// The same, for so many requests at the same time.
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

    /// Reads from here on; the first call counts.
    pub fn open(&self, access: Access) {
        let _ = self.0.access.set(access);
    }

    /// Answers a request. `kept` is true while it has a place among those that may be under way.
    pub async fn answer(&self, request: &TwinRequest, kept: &AtomicBool) -> Answer {
        let counted = Counted { metrics: &self.0.metrics, read: TwinRead::Gone };
        let answer = Box::pin(self.0.answer(request, kept)).await;
        counted.conclude(answer.outcome.read());
        answer
    }

    /// Counts a request that makes no sense.
    pub fn not_understood(&self) {
        self.0.metrics.twin_read(TwinRead::Invalid);
    }
}

/// Counts a request also where its client does not wait for the answer.
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

/// A place among the requests that may be under way.
struct Place<'a> {
    _permit: SemaphorePermit<'a>,
    kept: &'a AtomicBool,
    /// Who shows how many waiters there are, of whom this is one.
    waits: Option<&'a Metrics>,
}

impl<'a> Place<'a> {
    /// One among `places`, where there is room.
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

    /// A place for a request. Where nobody can wait any more, what is there already can still be read.
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
        // Before the first look, so that nothing is written in between unseen.
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

    /// Waits until `deadline`, with `found` in hand.
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
            // Not all waiters at the same moment, and none at once.
            let pause = pauses.next(0.5 + 0.5 * jitter(), hint);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Outcome::Stopping,
                stored = expected.next() => {
                    // Of another hub's twin of the same name, this says nothing.
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

    /// Reads the store once more, after a pause and when the budget of all waiters has room for it.
    async fn look_up_again(
        &self,
        access: &Access,
        wanted: &mut Wanted<'_>,
        pause: Duration,
        deadline: Instant,
    ) -> Lookup {
        sleep(pause).await;
        loop {
            // The least that a look costs is taken at once, so that not all waiters see the same room.
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
