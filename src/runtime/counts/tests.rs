use std::{collections::BTreeMap, sync::Mutex};

use futures::stream::{self, BoxStream, StreamExt as _};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::*;
use crate::{
    domain::{
        document::{Document, State},
        health::Outage,
        id::TwinKey,
        query::{Collection, Row, TwinPlace},
        testing,
    },
    ports::{Change, Changed, StoreError, SystemClock},
};

const INTERVAL: Duration = Duration::from_secs(5);
const RECOUNT: Duration = Duration::from_secs(3600);
/// Documents per page in these tests.
const FEW: usize = 2;

/// A scripted change feed: each document with its place in the order.
#[derive(Default)]
struct Feed(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    documents: BTreeMap<TwinPlace, (u64, Option<Document>)>,
    writes: u64,
    fails: Option<SelectError>,
    /// After this many pages, the next page fails once.
    breaks_after: Option<usize>,
    pages: usize,
    /// How long each page takes.
    delay: Duration,
}

fn document(device: &str, site: Option<&str>) -> (TwinPlace, Document) {
    let mut document = testing::document(1);
    document.key = TwinKey::device("h", device);
    match (&mut document.state, site) {
        (State::Live { twin, .. }, Some(site)) => drop(twin.tags.insert("site".to_owned(), site.into())),
        _ => document.state = State::Deleted,
    }
    (TwinPlace::of(device, device), document)
}

impl Feed {
    fn write(&self, device: &str, site: Option<&str>) {
        let (place, document) = document(device, site);
        self.put(place, Some(document));
    }

    fn put(&self, place: TwinPlace, document: Option<Document>) {
        let mut inner = self.0.lock().unwrap();
        inner.writes += 1;
        let number = inner.writes;
        inner.documents.insert(place, (number, document));
    }

    /// Removes a document. The change feed does not show that.
    fn remove(&self, device: &str) {
        self.0.lock().unwrap().documents.remove(&TwinPlace::of(device, device));
    }

    fn fails(&self, error: Option<SelectError>) {
        self.0.lock().unwrap().fails = error;
    }

    fn page(&self, behind: u64) -> Result<Changed, SelectError> {
        let mut inner = self.0.lock().unwrap();
        inner.pages += 1;
        if let Some(error) = &inner.fails {
            return Err(error.clone());
        }
        if inner.breaks_after.is_some_and(|pages| inner.pages > pages) {
            inner.breaks_after = None;
            return Err(trouble(StoreErrorKind::Unavailable));
        }
        let newer = inner.documents.iter().filter(|(_, (number, _))| *number > behind);
        let mut newer: Vec<_> =
            newer.map(|(place, (number, document))| (*number, *place, document.clone())).collect();
        newer.sort_by_key(|(number, ..)| *number);
        newer.truncate(FEW);
        let next = newer.last().map_or(behind, |(number, ..)| *number);
        let changes =
            newer.into_iter().map(|(_, place, document)| Change { place, document: document.map(Box::new) });
        Ok(Changed { changes: changes.collect(), next: Cursor(next.to_string()) })
    }
}

fn trouble(kind: StoreErrorKind) -> SelectError {
    SelectError::StoreError(StoreError {
        kind,
        code: "COSMOS_UNAVAILABLE",
        retry_after: None,
        message: "503".to_owned(),
    })
}

impl TwinChanges for Feed {
    fn changes(
        &self,
        behind: Option<&Cursor>,
        _most: NonZeroU32,
    ) -> BoxStream<'_, Charged<Result<Changed, SelectError>>> {
        let begin = behind.map_or(0, |Cursor(number)| number.parse().unwrap());
        stream::unfold(Some(begin), async move |behind| {
            let delay = self.0.lock().unwrap().delay;
            sleep(delay).await;
            let outcome = self.page(behind?);
            let next = outcome.as_ref().ok().filter(|page| !page.changes.is_empty());
            let next = next.map(|page| page.next.0.parse().unwrap());
            Some((Charged { outcome, request_units: 2.0 }, next))
        })
        .boxed()
    }
}

struct World {
    feed: Arc<Feed>,
    health: HealthState,
    metrics: Metrics,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl World {
    fn start(feed: Feed) -> Self {
        let (feed, health, stop) = (Arc::new(feed), HealthState::new(), CancellationToken::new());
        let metrics = Metrics::new().unwrap();
        let tools = Tools {
            changes: Arc::clone(&feed) as Arc<dyn TwinChanges>,
            budget: RequestUnitBudget::new(None),
            clock: Arc::new(SystemClock),
            health: health.clone(),
            metrics: metrics.clone(),
        };
        let declared = [
            Declared::new("all", Collection::Devices, None, None, false).unwrap(),
            Declared::new(
                "by_site",
                Collection::Devices,
                Some("tags.site != 'lab'"),
                Some("tags.site"),
                false,
            )
            .unwrap(),
        ];
        let options =
            Options { declared: declared.into(), interval: INTERVAL, recount_interval: Some(RECOUNT) };
        let task = tokio::spawn(run(tools, options, stop.clone()));
        Self { feed, health, metrics, stop, task }
    }

    /// The rows of both counts. `None`: unknown.
    fn rows(&self) -> Option<Vec<Value>> {
        let shown = self.health.counts().get().expect("declared");
        let counted = shown.counted?;
        Some(counted.iter().flat_map(|count| count.rows.iter().flatten()).map(Row::json).collect())
    }

    async fn after(&self, time: Duration) -> Option<Vec<Value>> {
        sleep(time + Duration::from_millis(1)).await;
        self.rows()
    }

    fn outage(&self) -> Option<Outage> {
        self.health.facts().dependencies.get(&Dependency::ChangeFeed).cloned().flatten()
    }

    fn metric(&self, name: &str) -> f64 {
        let page = self.metrics.render();
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in {page}"))
    }

    async fn end(self) {
        self.stop.cancel();
        timeout(INTERVAL, self.task).await.expect("ends at once").unwrap();
    }
}

fn all(twins: u64, sites: &[(&str, u64)]) -> Option<Vec<Value>> {
    let sites = sites.iter().map(|(site, twins)| json!({ "tags_site": site, "twins": twins }));
    Some(std::iter::once(json!({ "twins": twins })).chain(sites).collect())
}

#[tokio::test(start_paused = true)]
async fn counts_begin_with_all_documents_and_follow_every_change() {
    let feed = Feed::default();
    for (device, site) in [("a", "x"), ("b", "x"), ("c", "y"), ("d", "lab"), ("e", "y")] {
        feed.write(device, Some(site));
    }
    feed.write("f", None);
    let world = World::start(feed);
    assert_eq!(world.after(Duration::ZERO).await, all(5, &[("x", 2), ("y", 2)]));
    assert!(world.metrics.request_units(Purpose::Counts) >= 6.0, "the request units must be counted");
    world.feed.write("a", Some("y"));
    world.feed.write("b", None);
    world.feed.write("g", Some("z"));
    world.feed.put(TwinPlace::of("e", "e"), None);
    assert_eq!(world.after(INTERVAL).await, all(4, &[("y", 2), ("z", 1)]));
    assert_eq!(world.health.counts().get().map(|shown| shown.unreadable), Some(1));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_counted_is_shown_only_when_every_document_was_read_and_goes_on_where_it_broke_off() {
    let feed = Feed::default();
    for number in 0..7 {
        feed.write(&format!("d{number}"), Some("x"));
    }
    feed.0.lock().unwrap().breaks_after = Some(2);
    let world = World::start(feed);
    assert_eq!(world.after(Duration::ZERO).await, None, "incomplete counts must not be shown");
    assert_eq!(world.metric("twinsync_counts_read_failures_total"), 1.0);
    assert_eq!(world.after(INTERVAL).await, all(7, &[("x", 7)]));
    let read = world.health.counts().get().map(|shown| shown.documents);
    assert_eq!(read, Some(7), "no document may be read twice");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn without_answers_counts_grow_old_in_sight_and_are_right_again_afterwards() {
    let feed = Feed::default();
    feed.write("a", Some("x"));
    let world = World::start(feed);
    assert_eq!(world.after(Duration::ZERO).await, all(1, &[("x", 1)]));
    for (kind, failure) in
        [(StoreErrorKind::Unavailable, Failure::Silent), (StoreErrorKind::Throttled, Failure::Throttled)]
    {
        world.feed.fails(Some(trouble(kind)));
        world.feed.write("b", Some("x"));
        assert_eq!(
            world.after(INTERVAL * 3).await,
            all(1, &[("x", 1)]),
            "the last correct counts must be shown"
        );
        assert_eq!(world.outage().map(|outage| outage.failure), Some(failure));
        let page = world.health.render();
        let age = page.lines().find_map(|line| line.strip_prefix("twinsync_counts_age_seconds "));
        assert!(age.unwrap().parse::<f64>().unwrap() >= INTERVAL.as_secs_f64() * 2.0, "{age:?}");
        world.health.set_phase(crate::domain::health::Phase::Running);
        let report = world.health.report();
        assert!(report.warnings.iter().any(|warning| warning.contains("change feed")), "{report:?}");
        assert!(!report.ready.reasons.iter().any(|reason| reason.contains("change feed")), "{report:?}");
        world.feed.fails(None);
        assert_eq!(world.after(INTERVAL).await, all(2, &[("x", 2)]));
        assert_eq!(world.outage(), None);
        world.feed.write("b", None);
        assert_eq!(world.after(INTERVAL).await, all(1, &[("x", 1)]));
    }
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn where_the_changes_do_not_go_on_nothing_is_shown_until_all_was_counted_anew() {
    let feed = Feed::default();
    feed.write("a", Some("x"));
    let world = World::start(feed);
    assert_eq!(world.after(Duration::ZERO).await, all(1, &[("x", 1)]));
    world.feed.fails(Some(SelectError::Position));
    assert_eq!(world.after(INTERVAL).await, None);
    // Another container has the same name now.
    world.feed.remove("a");
    world.feed.write("n", Some("y"));
    world.feed.fails(None);
    assert_eq!(world.after(INTERVAL).await, all(1, &[("y", 1)]));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_feed_that_is_lost_again_and_again_is_not_read_from_its_beginning_each_time() {
    let feed = Feed::default();
    feed.write("a", Some("x"));
    let world = World::start(feed);
    for _ in 0..2 {
        assert_eq!(world.after(Duration::ZERO).await, all(1, &[("x", 1)]));
        world.feed.fails(Some(SelectError::Position));
        assert_eq!(world.after(INTERVAL).await, None);
        world.feed.fails(None);
        sleep(INTERVAL).await;
    }
    let pages = world.feed.0.lock().unwrap().pages;
    assert_eq!(world.after(LOST_AGAIN - INTERVAL * 3).await, None);
    assert_eq!(world.feed.0.lock().unwrap().pages, pages, "it must wait before the next attempt");
    assert_eq!(world.after(INTERVAL * 3).await, all(1, &[("x", 1)]));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_recount_finds_what_no_change_told_of_and_says_so() {
    let feed = Feed::default();
    for device in ["a", "b", "c"] {
        feed.write(device, Some("x"));
    }
    let world = World::start(feed);
    assert_eq!(world.after(Duration::ZERO).await, all(3, &[("x", 3)]));
    assert_eq!(world.after(RECOUNT + INTERVAL).await, all(3, &[("x", 3)]));
    assert_eq!(world.metric("twinsync_counts_corrected_twins_total"), 0.0, "no count may be corrected");
    world.feed.remove("b");
    assert_eq!(world.after(INTERVAL).await, all(3, &[("x", 3)]), "the change feed does not show the removal");
    assert_eq!(world.after(RECOUNT + INTERVAL).await, all(2, &[("x", 2)]));
    assert_eq!(world.metric("twinsync_counts_corrected_twins_total"), 1.0);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_shown_follows_the_changes_while_everything_is_counted_anew() {
    let feed = Feed::default();
    for number in 0..100 {
        feed.write(&format!("d{number}"), Some("x"));
    }
    let world = World::start(feed);
    assert_eq!(world.after(Duration::ZERO).await, all(100, &[("x", 100)]));
    // Fifty pages, two seconds each.
    sleep(RECOUNT - INTERVAL).await;
    world.feed.0.lock().unwrap().delay = Duration::from_secs(2);
    let pages = world.feed.0.lock().unwrap().pages;
    sleep(INTERVAL * 4).await;
    world.feed.write("new", Some("y"));
    assert_eq!(world.after(INTERVAL * 3).await, all(101, &[("x", 100), ("y", 1)]));
    let read = world.feed.0.lock().unwrap().pages - pages;
    assert!((5..50).contains(&read), "the recount must be under way: {read} pages");
    sleep(INTERVAL * 60).await;
    assert_eq!(world.metric("twinsync_counts_corrected_twins_total"), 0.0);
    assert_eq!(world.rows(), all(101, &[("x", 100), ("y", 1)]));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn without_declared_counts_nothing_is_read_and_nothing_shown() {
    let (feed, health, stop) = (Arc::new(Feed::default()), HealthState::new(), CancellationToken::new());
    let tools = Tools {
        changes: Arc::clone(&feed) as Arc<dyn TwinChanges>,
        budget: RequestUnitBudget::new(None),
        clock: Arc::new(SystemClock),
        health: health.clone(),
        metrics: Metrics::new().unwrap(),
    };
    let options = Options { declared: [].into(), interval: INTERVAL, recount_interval: None };
    let task = tokio::spawn(run(tools, options, stop.clone()));
    sleep(INTERVAL * 10).await;
    assert!(health.counts().get().is_none() && feed.0.lock().unwrap().pages == 0);
    stop.cancel();
    timeout(INTERVAL, task).await.expect("ends at once").unwrap();
}
