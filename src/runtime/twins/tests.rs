use std::collections::BTreeMap;

use futures::FutureExt as _;

use super::*;
use crate::{
    domain::{
        document::{ETag, State},
        id::TwinKey,
        testing::document,
        twin::TwinVersion,
    },
    runtime::{documents::document_cache, memory_store::MemoryStore, request_unit_budget::RequestUnitBudget},
};

struct Bench {
    store: Arc<MemoryStore>,
    documents: DocumentCache,
    metrics: Metrics,
    stop: CancellationToken,
    twins: Twins,
    kept: AtomicBool,
}

impl Bench {
    /// A replica for these hubs, with its store.
    fn new(hubs: &[&str]) -> Self {
        let bench = Self::starting(hubs);
        let budgeted_store = BudgetedStore {
            store: Arc::clone(&bench.store) as _,
            budget: RequestUnitBudget::new(None),
            metrics: bench.metrics.clone(),
        };
        bench.twins.open(Access {
            budgeted_store,
            documents: bench.documents.clone(),
            registries: BTreeMap::new(),
            hub_limit: Duration::from_secs(10),
        });
        bench
    }

    fn starting(hubs: &[&str]) -> Self {
        let (metrics, stop) = (Metrics::new().unwrap(), CancellationToken::new());
        let hubs = hubs.iter().map(|hub| HubName::new(hub)).collect();
        Self {
            store: Arc::default(),
            documents: document_cache(1 << 20),
            twins: Twins::new(hubs, metrics.clone(), stop.clone()),
            metrics,
            stop,
            kept: AtomicBool::new(false),
        }
    }

    /// Writes as another replica does.
    fn write(&self, document: &Document) {
        let mut documents = self.store.documents.lock().unwrap();
        let etag = documents.get(&document.key).map_or(1, |(_, etag)| etag + 1);
        documents.insert(document.key.clone(), (document.clone(), etag));
    }

    /// Writes as this replica's own router does.
    fn write_here(&self, document: &Document) {
        self.write(document);
        self.documents.insert(document.key.clone(), (Arc::new(document.clone()), ETag("own".into())));
    }

    async fn ask(&self, request: &TwinRequest) -> Answer {
        self.twins.answer(request, &self.kept).await
    }

    fn reads(&self) -> usize {
        *self.store.reads.lock().unwrap()
    }

    fn has_line(&self, line: &str) {
        let text = self.metrics.render();
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
}

fn request() -> TwinRequest {
    TwinRequest {
        hub: None,
        device: "d".into(),
        module: None,
        requirement: ReadRequirement::default(),
        wait: Duration::from_secs(5),
        compare: false,
    }
}

fn for_version(version: i64) -> TwinRequest {
    let requirement = ReadRequirement { version: Some(TwinVersion(version)), ..ReadRequirement::default() };
    TwinRequest { requirement, ..request() }
}

fn version(outcome: &Outcome) -> Option<i64> {
    match outcome {
        Outcome::Found((document, _)) => document.twin().map(|twin| twin.version.0),
        other => panic!("{other:?}"),
    }
}

fn deleted() -> Document {
    Document { state: State::Deleted, ..document(0) }
}

#[tokio::test(start_paused = true)]
async fn a_lookup_returns_the_stored_twin_with_one_read() {
    let bench = Bench::new(&["h"]);
    let answer = bench.ask(&request()).await;
    assert!(matches!(answer.outcome, Outcome::Absent(None)), "{answer:?}");
    bench.write(&document(7));
    assert_eq!(version(&bench.ask(&request()).await.outcome), Some(7));
    bench.write(&deleted());
    assert!(matches!(bench.ask(&request()).await.outcome, Outcome::Deleted(_)));
    assert_eq!(bench.reads(), 3);
    for line in [
        "twinsync_twin_reads_total{outcome=\"absent\"} 1",
        "twinsync_twin_reads_total{outcome=\"found\"} 1",
        "twinsync_twin_reads_total{outcome=\"deleted\"} 1",
        "twinsync_request_units_total{purpose=\"request\"} 3",
        "twinsync_request_units_total{purpose=\"live\"} 0",
    ] {
        bench.has_line(line);
    }
}

#[tokio::test(start_paused = true)]
async fn what_this_replica_writes_is_told_at_once_and_read_no_more() {
    let bench = Bench::new(&["h"]);
    bench.write(&document(6));
    let for_version = for_version(7);
    let mut waiting = Box::pin(bench.ask(&for_version));
    assert!(futures::poll!(&mut waiting).is_pending());
    assert!(bench.kept.load(Ordering::Acquire), "its connection must not be closed for another");
    bench.has_line("twinsync_twin_waiters 1");
    bench.write_here(&document(7));
    let answer = waiting.as_mut().now_or_never().expect("no time passes");
    assert_eq!(version(&answer.outcome), Some(7));
    assert_eq!(bench.reads(), 1, "only the first read");
    assert!(!bench.kept.load(Ordering::Acquire));
    bench.has_line("twinsync_twin_waiters 0");
}

#[tokio::test(start_paused = true)]
async fn what_another_replica_writes_is_found_after_a_few_reads() {
    let bench = Bench::new(&["h"]);
    bench.write(&document(6));
    let other = async {
        sleep(Duration::from_secs(3)).await;
        bench.write(&document(8));
    };
    let for_version = for_version(7);
    let (answer, ()) = tokio::join!(bench.ask(&for_version), other);
    assert_eq!(version(&answer.outcome), Some(8));
    assert!(answer.waited <= Duration::from_secs(3) + LONGEST_PAUSE, "{:?}", answer.waited);
    assert!((4..12).contains(&bench.reads()), "{}", bench.reads());
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_times_out_returns_the_stored_document() {
    let bench = Bench::new(&["h"]);
    let answer = bench.ask(&for_version(1)).await;
    assert!(matches!(answer.outcome, Outcome::TimedOut(None)), "the twin may still be created: {answer:?}");
    assert_eq!(answer.waited, Duration::from_secs(5));
    for stored in [document(6), deleted()] {
        bench.write(&stored);
        let answer = bench.ask(&for_version(7)).await;
        let Outcome::TimedOut(Some((found, _))) = answer.outcome else { panic!("{answer:?}") };
        assert_eq!(found.state, stored.state);
    }
    let at_once = TwinRequest { wait: Duration::ZERO, ..for_version(7) };
    let reads = bench.reads();
    let answer = bench.ask(&at_once).now_or_never().expect("no time passes");
    assert!(matches!(answer.outcome, Outcome::TimedOut(Some(_))), "{answer:?}");
    assert_eq!(bench.reads(), reads + 1);
    bench.has_line("twinsync_twin_reads_total{outcome=\"timed_out\"} 4");
    bench.has_line("twinsync_twin_waiters 0");
}

#[tokio::test(start_paused = true)]
async fn all_waiters_together_keep_within_a_budget_of_request_units() {
    let bench = Bench::new(&["h"]);
    let each = 5.0; // as for a document of 64 KB
    *bench.store.dearer.lock().unwrap() = each - 1.0;
    let request = TwinRequest { wait: WAIT_MAX, ..for_version(1) };
    let kept: Vec<_> = (0..MOST_WAITERS).map(|_| AtomicBool::new(false)).collect();
    let waiters = kept.iter().map(|kept| bench.twins.answer(&request, kept));
    futures::future::join_all(waiters).await;
    let spent = bench.metrics.request_units(crate::telemetry::Purpose::Request);
    let first_lookups = MOST_WAITERS as f64 * each;
    let budget = REQUEST_UNITS_PER_SECOND * (WAIT_MAX.as_secs_f64() + 1.0);
    assert!(spent <= first_lookups + budget + first_lookups, "{spent} of {budget}");
    assert!(spent > first_lookups + budget * 0.9, "the budget must be used: {spent} of {budget}");
}

#[tokio::test(start_paused = true)]
async fn no_more_than_the_most_wait_and_those_who_go_away_make_room() {
    let bench = Bench::new(&["h"]);
    let request = TwinRequest { wait: WAIT_MAX, ..for_version(1) };
    let kept: Vec<_> = (0..MOST_WAITERS).map(|_| AtomicBool::new(false)).collect();
    let mut waiters: Vec<_> = kept.iter().map(|kept| Box::pin(bench.twins.answer(&request, kept))).collect();
    for waiter in &mut waiters {
        assert!(futures::poll!(waiter).is_pending());
    }
    bench.has_line(&format!("twinsync_twin_waiters {MOST_WAITERS}"));
    let answer = bench.ask(&request).now_or_never().expect("no time passes");
    assert!(matches!(answer.outcome, Outcome::Busy), "{answer:?}");
    bench.write(&document(1));
    assert_eq!(
        version(&bench.ask(&request).await.outcome),
        Some(1),
        "a document that meets the request must be returned at once"
    );
    drop(waiters);
    bench.has_line("twinsync_twin_waiters 0");
    bench.has_line(&format!("twinsync_twin_reads_total{{outcome=\"gone\"}} {MOST_WAITERS}"));
    let waits = for_version(2);
    assert!(futures::poll!(Box::pin(bench.ask(&waits))).is_pending(), "a place must be free again");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_process_ends_every_wait_and_no_read() {
    let bench = Bench::new(&["h"]);
    bench.write(&document(6));
    let for_version = for_version(7);
    let mut waiting = Box::pin(bench.ask(&for_version));
    assert!(futures::poll!(&mut waiting).is_pending());
    bench.stop.cancel();
    let answer = waiting.as_mut().now_or_never().expect("no time passes");
    assert!(matches!(answer.outcome, Outcome::Stopping), "{answer:?}");
    let answer = bench.ask(&for_version).now_or_never().expect("no time passes");
    assert!(matches!(answer.outcome, Outcome::Stopping), "{answer:?}");
    assert_eq!(version(&bench.ask(&request()).await.outcome), Some(6), "lookups must work during the drain");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_is_told_with_its_reason_and_its_return_is_noticed() {
    let bench = Bench::new(&["h"]);
    bench.write(&document(7));
    *bench.store.away.lock().unwrap() = true;
    for request in [request(), for_version(7), TwinRequest { wait: Duration::ZERO, ..for_version(7) }] {
        let answer = bench.ask(&request).await;
        assert!(answer.waited <= Duration::from_secs(5), "{answer:?}");
        let Outcome::Unavailable(trouble) = answer.outcome else { panic!("{answer:?}") };
        assert_eq!(trouble.message, "scripted");
    }
    let back = async {
        sleep(Duration::from_secs(1)).await;
        *bench.store.away.lock().unwrap() = false;
    };
    let for_version = for_version(7);
    let (answer, ()) = tokio::join!(bench.ask(&for_version), back);
    assert_eq!(version(&answer.outcome), Some(7));
}

#[tokio::test(start_paused = true)]
async fn reads_that_get_no_turn_end_within_the_limit_and_say_why() {
    let bench = Bench::new(&["h"]);
    let budget = RequestUnitBudget::new(Some(1.0));
    budget.spend(1000.0);
    let twins = Twins::new(vec!["h".into()], bench.metrics.clone(), bench.stop.clone());
    let budgeted_store =
        BudgetedStore { store: Arc::clone(&bench.store) as _, budget, metrics: bench.metrics.clone() };
    let (documents, registries) = (bench.documents.clone(), BTreeMap::new());
    twins.open(Access { budgeted_store, documents, registries, hub_limit: Duration::from_secs(1) });
    let answer = twins.answer(&request(), &bench.kept).await;
    assert_eq!(answer.waited, LOOKUP_LIMIT);
    let Outcome::Unavailable(trouble) = answer.outcome else { panic!("{answer:?}") };
    assert!(trouble.message.contains("cosmos.max_request_units_per_second"), "{trouble:?}");
    assert_eq!(bench.reads(), 0);
}

#[tokio::test(start_paused = true)]
async fn before_the_store_is_there_it_says_so() {
    let bench = Bench::starting(&["h"]);
    for request in [request(), for_version(1)] {
        let answer = bench.ask(&request).now_or_never().expect("no time passes");
        assert!(matches!(answer.outcome, Outcome::Starting), "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn which_hub_is_meant_is_asked_for_only_where_there_are_several() {
    let several = Bench::new(&["h", "other"]);
    several.write(&document(7));
    let answer = several.ask(&request()).await;
    let Outcome::WhichHub(hubs) = &answer.outcome else { panic!("{answer:?}") };
    assert_eq!(hubs.iter().map(ToString::to_string).collect::<Vec<_>>(), ["h", "other"]);
    assert_eq!(several.reads(), 0, "no document may be read");
    let named = TwinRequest { hub: Some("H".into()), ..request() };
    assert_eq!(version(&several.ask(&named).await.outcome), Some(7));

    // If no hub is configured, the documents show which hubs exist.
    let unknown = Bench::new(&[]);
    assert!(matches!(unknown.ask(&request()).await.outcome, Outcome::Absent(None)));
    unknown.write(&document(7));
    let answer = unknown.ask(&request()).await;
    assert_eq!((version(&answer.outcome), answer.hub), (Some(7), Some("h".into())));
    unknown.write(&Document { key: TwinKey::device("i", "d"), ..document(8) });
    assert!(matches!(unknown.ask(&request()).await.outcome, Outcome::WhichHub(hubs) if hubs.len() == 2));
}

#[tokio::test(start_paused = true)]
async fn a_lookup_without_a_hub_finds_a_twin_that_is_created() {
    let bench = Bench::new(&[]);
    let for_version = for_version(2);
    let mut waiting = Box::pin(bench.ask(&for_version));
    assert!(futures::poll!(&mut waiting).is_pending());
    bench.write_here(&document(2));
    let answer = waiting.as_mut().now_or_never().expect("no time passes");
    assert_eq!((version(&answer.outcome), answer.hub), (Some(2), Some("h".into())));
}

#[tokio::test(start_paused = true)]
async fn another_hubs_twin_of_the_same_name_is_no_answer() {
    let bench = Bench::new(&["h", "other"]);
    let named = TwinRequest { hub: Some("h".into()), ..for_version(2) };
    let mut waiting = Box::pin(bench.ask(&named));
    assert!(futures::poll!(&mut waiting).is_pending());
    bench.write_here(&Document { key: TwinKey::device("other", "d"), ..document(9) });
    assert!(futures::poll!(&mut waiting).is_pending());
    bench.write_here(&document(2));
    let answer = waiting.as_mut().now_or_never().expect("no time passes");
    assert_eq!(version(&answer.outcome), Some(2));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_document_and_what_can_be_none_are_told_apart() {
    let bench = Bench::new(&["h"]);
    bench.store.damaged.lock().unwrap().insert(TwinKey::device("h", "d"), 1);
    let answer = bench.ask(&request()).await;
    let Outcome::Unavailable(trouble) = &answer.outcome else { panic!("{answer:?}") };
    assert!(trouble.message.contains("is not a twin document"), "{trouble:?}");
    bench.store.refused.lock().unwrap().push(TwinKey::device("h", "d"));
    for request in [request(), for_version(1)] {
        let answer = bench.ask(&request).now_or_never().expect("an answer at once");
        assert!(matches!(answer.outcome, Outcome::Refused(_)), "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_than_the_most_read_at_once() {
    let bench = Bench::new(&["h"]);
    let budget = RequestUnitBudget::new(Some(1.0));
    budget.spend(1000.0); // so that every request waits for a turn
    let twins = Twins::new(vec!["h".into()], bench.metrics.clone(), bench.stop.clone());
    let budgeted_store =
        BudgetedStore { store: Arc::clone(&bench.store) as _, budget, metrics: bench.metrics.clone() };
    let (documents, registries) = (bench.documents.clone(), BTreeMap::new());
    twins.open(Access { budgeted_store, documents, registries, hub_limit: Duration::from_secs(1) });
    let request = request();
    let kept: Vec<_> = (0..MOST_READERS).map(|_| AtomicBool::new(false)).collect();
    let mut readers: Vec<_> = kept.iter().map(|kept| Box::pin(twins.answer(&request, kept))).collect();
    for reader in &mut readers {
        assert!(futures::poll!(reader).is_pending());
    }
    assert!(kept.iter().all(|kept| kept.load(Ordering::Acquire)), "the connections must be kept");
    let answer = twins.answer(&request, &bench.kept).now_or_never().expect("no time passes");
    assert!(matches!(answer.outcome, Outcome::Busy), "{answer:?}");
    assert!(!bench.kept.load(Ordering::Acquire));
    drop(readers);
    assert!(
        futures::poll!(Box::pin(twins.answer(&request, &bench.kept))).is_pending(),
        "a place must be free again"
    );
}
