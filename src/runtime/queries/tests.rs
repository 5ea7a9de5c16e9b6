//! Queries over scripted documents: pages, limits, failures.

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use serde::Deserialize as _;
use serde_json::json;

use super::*;
use crate::{domain::document::Document, ports::StoreErrorKind};

/// Documents in order. Every filter selects all of them, which is more than it must.
struct Scripted {
    documents: Vec<Document>,
    /// Errors of the next requests. `None`: no error.
    errors: Mutex<VecDeque<Option<SelectError>>>,
    /// The largest page that was requested.
    largest: usize,
    selects: AtomicU64,
    counts: AtomicU64,
    asked: Mutex<Vec<Filter>>,
    takes: Duration,
}

const PER_PAGE: f64 = 5.0;

impl Scripted {
    async fn begin(&self, filter: &Filter, from: Option<&Cursor>) -> Result<usize, SelectError> {
        self.asked.lock().unwrap().push(filter.clone());
        tokio::time::sleep(self.takes).await;
        match self.errors.lock().unwrap().pop_front() {
            Some(Some(error)) => Err(error),
            _ => Ok(from.map_or(0, |from| from.0.parse().expect("a position of this script"))),
        }
    }

    fn next(&self, end: usize) -> Option<Cursor> {
        (end < self.documents.len()).then(|| Cursor(end.to_string()))
    }
}

fn charged<T>(outcome: Result<T, SelectError>) -> Charged<Result<T, SelectError>> {
    Charged { outcome, request_units: PER_PAGE }
}

#[async_trait]
impl TwinSelection for Scripted {
    async fn select(
        &self,
        filter: &Filter,
        from: Option<&Cursor>,
        most: NonZeroU32,
    ) -> Charged<Result<Selected<Documents>, SelectError>> {
        self.selects.fetch_add(1, Ordering::Relaxed);
        charged(self.begin(filter, from).await.map(|begin| {
            let end = (begin + self.largest.min(most.get() as usize)).min(self.documents.len());
            let damaged = if begin == 0 { vec!["`x`: spoilt".to_owned()] } else { Vec::new() };
            let content = Documents { readable: self.documents[begin..end].to_vec(), damaged };
            Selected { content, next: self.next(end) }
        }))
    }

    async fn count(
        &self,
        filter: &Filter,
        from: Option<&Cursor>,
    ) -> Charged<Result<Selected<u64>, SelectError>> {
        self.counts.fetch_add(1, Ordering::Relaxed);
        charged(self.begin(filter, from).await.map(|begin| {
            let end = (begin + self.largest).min(self.documents.len());
            Selected { content: (end - begin) as u64, next: self.next(end) }
        }))
    }
}

fn document(number: usize) -> Document {
    Document::deserialize(json!({
        "id": format!("d{number}"), "hubName": "h", "deviceId": format!("d{number}"), "version": number + 1,
        "tags": {"n": number, "site": if number.is_multiple_of(3) { "north" } else { "south" }},
        "properties": {"desired": {"$version": 1}, "reported": {"$version": 1}},
        "sync": {"state": "live", "last": "2031-01-01T00:00:00.0000000Z", "appliedAt": "2031-01-01T00:00:01.0000000Z", "op": "updateTwin"},
    }))
    .expect("a document")
}

struct Bench {
    store: Arc<Scripted>,
    queries: Queries,
}

fn bench_of(documents: usize, limits: Limits) -> Bench {
    let store = Arc::new(Scripted {
        documents: (0..documents).map(document).collect(),
        errors: Mutex::default(),
        largest: 4,
        selects: AtomicU64::new(0),
        counts: AtomicU64::new(0),
        asked: Mutex::default(),
        takes: Duration::from_millis(100),
    });
    let queries = Queries {
        selection: Arc::clone(&store) as Arc<dyn TwinSelection>,
        budget: RequestUnitBudget::new(None),
        metrics: Metrics::new().expect("metrics"),
        limits,
        place: Root::place,
    };
    Bench { store, queries }
}

const WIDE: Limits = Limits { request_units: 1e6, time: Duration::from_secs(3600), held: 100 };

fn bench(documents: usize) -> Bench {
    bench_of(documents, WIDE)
}

impl Bench {
    async fn page(&self, query: &str, from: Option<&str>, most: u32) -> Result<Answer, Failure> {
        let most = NonZeroU32::new(most).expect("not 0");
        self.queries.answer(Ask { query, hub: None, from, most, client: &StaysConnected }).await.outcome
    }

    /// The rows of each page, up to the last page.
    async fn pages(&self, query: &str, most: u32) -> Vec<Vec<Value>> {
        let (mut pages, mut from) = (Vec::new(), None);
        loop {
            let page = self.page(query, from.as_deref(), most).await.expect("a page");
            pages.push(page.rows);
            from = page.next;
            if from.is_none() {
                return pages;
            }
            assert!(pages.len() < 100, "the pages do not end");
        }
    }

    async fn rows(&self, query: &str, most: u32) -> Vec<Value> {
        self.pages(query, most).await.concat()
    }

    fn fails(&self, errors: impl IntoIterator<Item = Option<SelectError>>) {
        self.store.errors.lock().unwrap().extend(errors);
    }
}

fn away() -> SelectError {
    SelectError::StoreError(StoreError {
        kind: StoreErrorKind::Unavailable,
        code: "COSMOS_UNAVAILABLE",
        retry_after: None,
        message: "away".into(),
    })
}

#[tokio::test(start_paused = true)]
async fn pages_hold_what_the_query_selects_and_nothing_twice() {
    let bench = bench(23);
    for most in [1, 3, 4, 7, 100] {
        let pages = bench.pages("SELECT tags.n FROM devices WHERE tags.site = 'north'", most).await;
        assert!(pages.iter().all(|page| page.len() <= most as usize), "{most}: {pages:?}");
        let expected: Vec<_> = (0..23).step_by(3).map(|n| json!({ "n": n })).collect();
        assert_eq!(pages.concat(), expected, "{most}");
    }
    assert_eq!(bench.rows("SELECT * FROM devices WHERE tags.n = 99", 5).await, Vec::<Value>::new());
    let asked = bench.store.asked.lock().unwrap()[0].clone();
    assert_eq!(asked.condition, "c.tags['site'] = @q0");
    assert_eq!((asked.parameters, asked.of_modules), (vec![("@q0".to_owned(), json!("north"))], false));
}

#[tokio::test(start_paused = true)]
async fn a_whole_twin_has_nothing_of_its_document() {
    let bench = bench(1);
    let page = bench.page("SELECT * FROM devices", None, 10).await.expect("a page");
    assert_eq!((page.item_type, page.passed_over), (ItemType::Twin, 1));
    let names: Vec<_> = page.rows[0].as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(names, ["deviceId", "properties", "tags", "version"]);
}

#[tokio::test(start_paused = true)]
async fn top_counts_over_all_pages() {
    let bench = bench(23);
    for most in [1, 2, 5, 50] {
        let rows = bench.rows("SELECT TOP 5 tags.n FROM devices WHERE tags.site = 'south'", most).await;
        let expected: Vec<_> = [1, 2, 4, 5, 7].map(|n| json!({ "n": n })).to_vec();
        assert_eq!(rows, expected, "{most}");
    }
}

#[tokio::test(start_paused = true)]
async fn groups_and_sorted_rows_are_made_of_all_twins_and_cut_into_pages() {
    let bench = bench(23);
    for most in [1, 50] {
        let groups = bench.rows("SELECT tags.site, COUNT() AS n FROM devices GROUP BY tags.site", most).await;
        assert_eq!(groups, [json!({"site": "north", "n": 8}), json!({"site": "south", "n": 15})], "{most}");
        let sorted = bench.rows("SELECT TOP 3 tags.n FROM devices ORDER BY tags.n DESC", most).await;
        assert_eq!(sorted, [json!({"n": 22}), json!({"n": 21}), json!({"n": 20})], "{most}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_count_reads_documents_only_where_it_must() {
    let bench = bench(23);
    // The script selects all documents, so the number shows which side has counted.
    let exact = bench.rows("SELECT COUNT() AS n FROM devices WHERE tags.site = 'north'", 1).await;
    assert_eq!(exact, [json!({"n": 23})]);
    assert_eq!(
        (bench.store.selects.load(Ordering::Relaxed), bench.store.counts.load(Ordering::Relaxed)),
        (0, 6)
    );
    let inexact = "SELECT COUNT() AS n FROM devices WHERE tags.site = 'north' AND tags.n < 9007199254740993";
    assert_eq!(bench.rows(inexact, 1).await, [json!({"n": 8})]);
    assert_eq!(bench.store.counts.load(Ordering::Relaxed), 6);
}

#[tokio::test(start_paused = true)]
async fn a_page_that_has_cost_enough_is_short_and_goes_on() {
    let limits = Limits { request_units: 2.0 * PER_PAGE, ..WIDE };
    let pages = bench_of(23, limits).pages("SELECT tags.n FROM devices WHERE tags.site = 'north'", 100).await;
    assert_eq!(
        pages.iter().map(Vec::len).collect::<Vec<_>>(),
        [3, 3, 2],
        "eight documents per page, fewer on the last one"
    );
    let limits = Limits { time: Duration::from_millis(150), ..WIDE };
    let pages = bench_of(23, limits).pages("SELECT tags.n FROM devices", 100).await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [8, 8, 7]);
}

#[tokio::test(start_paused = true)]
async fn what_needs_all_twins_and_more_than_it_may_take_is_refused_with_what_to_do() {
    let dear = Limits { request_units: 2.0 * PER_PAGE, ..WIDE };
    let long = Limits { time: Duration::from_millis(150), ..WIDE };
    for limits in [dear, long] {
        for query in [
            "SELECT COUNT() AS n FROM devices",
            "SELECT tags.site, COUNT() AS n FROM devices GROUP BY tags.site",
            "SELECT * FROM devices ORDER BY tags.n",
        ] {
            let failure = bench_of(23, limits).page(query, None, 10).await.expect_err("too much");
            assert!(
                matches!(&failure, Failure::TooExpensive(advice) if advice.contains("restrict its condition")),
                "{query}: {failure}"
            );
        }
        // A query that ends with the last page within its limits has an answer.
        assert_eq!(bench_of(8, limits).rows("SELECT COUNT() AS n FROM devices", 1).await, [json!({"n": 8})]);
    }
    let few = Limits { held: 2, ..WIDE };
    for query in ["SELECT COUNT() AS n FROM devices GROUP BY tags.n", "SELECT * FROM devices ORDER BY tags.n"]
    {
        let failure = bench_of(23, few).page(query, None, 10).await.expect_err("too much");
        assert!(matches!(failure, Failure::TooExpensive(_)), "{query}: {failure}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_ends_a_page_with_rows_early_and_fails_one_without() {
    let query = "SELECT tags.n FROM devices";
    let bench = bench(10);
    bench.fails([None, Some(away())]);
    let first = bench.page(query, None, 100).await.expect("a page with rows");
    assert_eq!(first.rows.len(), 4);
    bench.fails([Some(away())]);
    let failure = bench.page(query, first.next.as_deref(), 100).await.expect_err("a page without rows");
    assert!(matches!(failure, Failure::StoreError(_)), "{failure}");
    let rest = bench.page(query, first.next.as_deref(), 100).await.expect("the remaining rows");
    assert_eq!((rest.rows.len(), rest.next), (6, None));
    bench.fails([None, Some(away())]);
    let failure =
        bench.page("SELECT COUNT() AS n FROM devices", None, 1).await.expect_err("an incomplete count");
    assert!(matches!(failure, Failure::StoreError(_)), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_room_within_the_cap_for_longer_than_a_request_may_take() {
    let mut bench = bench_of(10, Limits { time: Duration::from_secs(1), ..WIDE });
    bench.queries.budget = RequestUnitBudget::new(Some(1.0));
    let (query, began) = ("SELECT tags.n FROM devices", Instant::now());
    let first = bench.page(query, None, 100).await.expect("a page within the cap");
    assert_eq!(first.rows.len(), 4);
    let failure = bench.page(query, first.next.as_deref(), 100).await.expect_err("no request units are left");
    assert!(
        matches!(&failure, Failure::StoreError(trouble) if trouble.kind == StoreErrorKind::Throttled),
        "{failure}"
    );
    assert!(began.elapsed() <= Duration::from_secs(2), "took {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_a_request_is_told() {
    let bench = bench(10);
    let next = bench.page("SELECT * FROM devices", None, 3).await.expect("a page").next;
    for from in [next.as_deref(), Some("nonsense")] {
        let failure = bench
            .page("SELECT * FROM devices WHERE tags.n = 1", from, 3)
            .await
            .expect_err("a continuation of another query");
        assert!(matches!(failure, Failure::Continuation), "{failure}");
    }
    bench.fails([Some(SelectError::Position)]);
    let failure = bench.page("SELECT * FROM devices", next.as_deref(), 3).await.expect_err("expired");
    assert!(matches!(failure, Failure::Continuation), "{failure}");
    for query in ["SELECT * FRM devices", "SELECT * FROM devices WHERE connectionState = 'Connected'"] {
        let failure = bench.page(query, None, 3).await.expect_err("refused");
        assert!(matches!(failure, Failure::Query(_)), "{query}: {failure}");
    }
    bench.fails([Some(SelectError::Refused("no".into()))]);
    let failure = bench.page("SELECT * FROM devices", None, 3).await.expect_err("refused");
    assert!(matches!(failure, Failure::Refused(_)), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn what_a_request_costs_is_told_and_counted() {
    let bench = bench(10);
    let most = NonZeroU32::new(100).expect("not 0");
    let ask = Ask { query: "SELECT * FROM devices", hub: None, from: None, most, client: &StaysConnected };
    let charged = bench.queries.answer(ask).await;
    assert_eq!(charged.request_units, 3.0 * PER_PAGE);
    let text = bench.queries.metrics.render();
    assert!(text.contains(r#"twinsync_request_units_total{purpose="request"} 15"#), "{text}");
}
