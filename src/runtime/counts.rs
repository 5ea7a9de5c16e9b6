//! Keeps the declared counts current.
//!
//! The source is the change feed of the container, whoever makes a change: this replica, another replica, a command or a person. So every
//! replica has the counts of the whole fleet. A write with an unknown outcome (a lost answer, a replica that died) does no harm: either its
//! document is in the change feed, or it was never written. A restart begins with all documents.
//!
//! A document that is removed without a tombstone is not in the change feed. So the counts are rebuilt periodically, beside the ones that
//! are shown, and compared with them.

use std::{collections::HashSet, num::NonZeroU32, sync::Arc, time::Duration};

use futures::{StreamExt, stream::BoxStream};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{
        health::{Dependency, Failure},
        query::{Declared, Tally, TwinPlace},
    },
    ports::{Changed, Charged, Clock, Cursor, SelectError, StoreErrorKind, TwinChanges},
    runtime::request_unit_budget::RequestUnitBudget,
    telemetry::{
        HealthState, Metrics, Purpose,
        event::{CountsChanged, DependencyChanged, Fault},
    },
};

/// Approximate number of documents per page.
const PAGE: NonZeroU32 = NonZeroU32::new(1_000).expect("1,000 is not 0");
/// Number of documents that are counted before the task yields to others.
const AT_ONCE: usize = 100;
/// How many times two tallies are compared. A difference that lasts through all of them is not just a change that only one of them has read
/// yet.
const COMPARISONS: usize = 3;

/// Options of the counts.
#[derive(Debug, Clone)]
pub struct Options {
    /// The declared counts.
    pub declared: Arc<[Declared]>,
    /// Time between two reads of the change feed.
    pub interval: Duration,
    /// How often all documents are counted again. `None`: only after a start.
    pub recount_interval: Option<Duration>,
}

/// If the position in the feed is lost again within this time, the feed is not read from its beginning at once. Where no position stays
/// valid for long, that would read, and pay for, every document again and again.
const LOST_AGAIN: Duration = Duration::from_secs(3600);

/// Dependencies of the counts.
pub struct Tools {
    /// The change feed.
    pub changes: Arc<dyn TwinChanges>,
    /// The request units that may be spent, shared with everything else.
    pub budget: RequestUnitBudget,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Health state that shows the counts.
    pub health: HealthState,
    /// Counts the request units.
    pub metrics: Metrics,
}

/// Keeps the counts until `stop`.
pub async fn run(tools: Tools, options: Options, stop: CancellationToken) {
    if options.declared.is_empty() {
        return stop.cancelled().await;
    }
    tools.health.counts().begin(Arc::clone(&options.declared));
    let mut keeper =
        Keeper { begun: None, kept: None, recount: Some(Instant::now()), lost: None, tools, options };
    let mut timer = interval(keeper.options.interval);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let turn = async {
            timer.tick().await;
            keeper.turn().await;
        };
        // Dropping the turn is safe: it has only read, and all counts end with the process.
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = Box::pin(turn) => {}
        }
    }
}

type Pages<'a> = BoxStream<'a, Charged<Result<Changed, SelectError>>>;

/// A tally, and its position in the change feed.
struct Reader {
    tally: Tally,
    cursor: Option<Cursor>,
    documents: u64,
}

impl Reader {
    fn new(declared: &Arc<[Declared]>) -> Self {
        Self { tally: Tally::new(Arc::clone(declared)), cursor: None, documents: 0 }
    }
}

struct Keeper {
    tools: Tools,
    options: Options,
    /// The reader of the counts that are shown.
    kept: Option<Reader>,
    /// A reader that has not read all documents yet.
    begun: Option<Reader>,
    /// When all documents are counted next, for the first time or again.
    recount: Option<Instant>,
    /// When the position in the change feed was last lost.
    lost: Option<Instant>,
}

impl Keeper {
    /// Reads the change feed once. If this fails, the next turn continues it.
    async fn turn(&mut self) {
        let outcome = self.look().await;
        let fault = match &outcome {
            Ok(()) => None,
            Err(error) => Some(fault(error)),
        };
        if fault.is_some() {
            self.tools.metrics.counts_read_failed();
        }
        DependencyChanged::post(&self.tools.health, &Dependency::ChangeFeed, fault);
        if matches!(outcome, Err(SelectError::Position)) {
            self.begin_anew();
        }
    }

    /// The position in the change feed is lost: the container is probably another one. Begins again.
    fn begin_anew(&mut self) {
        CountsChanged::BegunAnew.emit(&self.tools.metrics);
        let is_lost_again = self.lost.is_some_and(|at| at.elapsed() < LOST_AGAIN);
        let wait = if is_lost_again { LOST_AGAIN } else { Duration::ZERO };
        let now = Instant::now();
        (self.kept, self.begun) = (None, None);
        (self.lost, self.recount) = (Some(now), Some(now + wait));
        self.tools.health.counts().withdraw();
    }

    async fn look(&mut self) -> Result<(), SelectError> {
        self.follow().await?;
        if self.begun.is_none() && self.recount.is_some_and(|at| Instant::now() >= at) {
            self.begun = Some(Reader::new(&self.options.declared));
        }
        match self.begun.take() {
            None => Ok(()),
            Some(mut begun) => {
                let outcome = self.count_all(&mut begun).await;
                self.begun = Some(begun);
                outcome?;
                self.take_over().await
            }
        }
    }

    /// Brings the shown counts up to date.
    async fn follow(&mut self) -> Result<(), SelectError> {
        let Some(kept) = &mut self.kept else { return Ok(()) };
        let changed = self.tools.catch_up(kept).await? > 0;
        self.tools.show(kept, changed);
        Ok(())
    }

    /// Reads all documents. This may take long, so the shown counts are brought up to date meanwhile.
    ///
    /// SUBTLE: all pages are read in one go, not a few in each turn. A feed that is reopened begins with the first physical partition. If a
    /// turn had time for one page only, it would never reach the other partitions.
    async fn count_all(&mut self, begun: &mut Reader) -> Result<(), SelectError> {
        let changes = Arc::clone(&self.tools.changes);
        let mut pages = changes.changes(begun.cursor.as_ref(), PAGE);
        let mut followed = Instant::now();
        while self.tools.page(&mut pages, begun).await?.is_some() {
            if self.kept.is_none() {
                self.tools.health.counts().read(begun.documents);
            }
            if followed.elapsed() >= self.options.interval {
                self.follow().await?;
                followed = Instant::now();
            }
        }
        Ok(())
    }

    /// All documents were counted again. The new tally replaces the one that is shown.
    async fn take_over(&mut self) -> Result<(), SelectError> {
        let Some(mut new) = self.begun.take() else { return Ok(()) };
        let corrected = match &mut self.kept {
            None => None,
            Some(kept) => match self.tools.compare(kept, &mut new).await {
                Ok(twins) => Some(twins),
                Err(error) => {
                    self.begun = Some(new); // the next turn continues it
                    return Err(error);
                }
            },
        };
        match corrected {
            None => CountsChanged::Complete { documents: new.documents }.emit(&self.tools.metrics),
            Some(0) => {}
            Some(twins) => CountsChanged::Corrected { twins }.emit(&self.tools.metrics),
        }
        self.tools.show(&new, true);
        self.kept = Some(new);
        self.recount = self.options.recount_interval.map(|interval| Instant::now() + interval);
        Ok(())
    }
}

impl Tools {
    /// Reads the changes to their end. Returns how many there were.
    async fn catch_up(&self, reader: &mut Reader) -> Result<u64, SelectError> {
        let mut pages = self.changes.changes(reader.cursor.as_ref(), PAGE);
        let mut documents = 0;
        while let Some(page) = self.page(&mut pages, reader).await? {
            documents += page;
        }
        Ok(documents)
    }

    /// Reads the next page, and returns its number of documents. `None`: there are no more pages.
    async fn page(&self, pages: &mut Pages<'_>, reader: &mut Reader) -> Result<Option<u64>, SelectError> {
        self.budget.allowed().await;
        let Some(Charged { outcome, request_units }) = pages.next().await else { return Ok(None) };
        self.budget.spend(request_units);
        self.metrics.request_units_spent(Purpose::Counts, request_units);
        let page = outcome?;
        let documents = page.changes.len() as u64;
        for (number, change) in page.changes.into_iter().enumerate() {
            match change.document {
                Some(document) => reader.tally.put(change.place, &document),
                None => reader.tally.put_unreadable(change.place),
            }
            if number % AT_ONCE == AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
        }
        reader.documents += documents;
        reader.cursor = Some(page.next);
        Ok(Some(documents))
    }

    /// Returns how many twins the two tallies count differently. One of them reads a change before the other, so they are compared several
    /// times.
    async fn compare(&self, kept: &mut Reader, new: &mut Reader) -> Result<usize, SelectError> {
        let mut differing: Option<HashSet<TwinPlace>> = None;
        for _ in 0..COMPARISONS {
            self.catch_up(kept).await?;
            self.catch_up(new).await?;
            let mut found = kept.tally.differing(&new.tally);
            if let Some(before) = &differing {
                found.retain(|place| before.contains(place));
            }
            if found.is_empty() {
                return Ok(0);
            }
            differing = Some(found);
        }
        Ok(differing.map_or(0, |differing| differing.len()))
    }

    fn show(&self, reader: &Reader, is_news: bool) {
        let counted = is_news.then(|| reader.tally.counts());
        if let Some(over) = counted.iter().flatten().find(|counted| counted.rows.is_none()) {
            CountsChanged::TooManyGroups { name: &over.name }.emit(&self.metrics);
        }
        self.health.counts().current(counted, reader.tally.unreadable(), self.clock.now());
    }
}

fn fault(error: &SelectError) -> Fault<'_> {
    match error {
        SelectError::StoreError(trouble) => Fault {
            failure: match trouble.kind {
                StoreErrorKind::Throttled => Failure::Throttled,
                StoreErrorKind::Unavailable | StoreErrorKind::Contradictory | StoreErrorKind::Newer => {
                    Failure::Silent
                }
            },
            code: trouble.code,
            reason: &trouble.message,
        },
        SelectError::Position => Fault {
            failure: Failure::Silent,
            code: "CHANGE_FEED_LOST",
            reason: "the change feed does not continue where it ended: all documents are counted again",
        },
        SelectError::Refused(reason) => {
            Fault { failure: Failure::Silent, code: "CHANGE_FEED_REFUSED", reason }
        }
    }
}

#[cfg(test)]
mod tests;
