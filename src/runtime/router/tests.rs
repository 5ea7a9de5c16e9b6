//! The router with a store in memory and scripted faults: no event is completed before it is durable, and none is lost.

use std::{collections::BTreeSet, sync::Mutex};

use async_trait::async_trait;
use futures::FutureExt;
use serde_json::json;

use super::*;
use crate::{
    domain::{
        decide::Decision,
        document::{Document, Flag, State},
        event::Change,
        health::StoreState,
        id::{DocumentIdScheme, PartitionId, Position, SequenceNumber},
        message::{Message, Properties},
        ticks::Ticks,
        twin::{Sections, TwinVersion},
    },
    ports::{DeadLetter, DeadLetterError, SystemClock},
    runtime::{
        documents::document_cache,
        intake::{Origin, Outcome, Watcher},
        memory_store::{Fault, MemoryStore},
        progress::Progress,
    },
    telemetry::reason::{REJECTED_BY_STORE, STORE_SILENT},
};

#[derive(Default)]
struct Letters {
    stored: Mutex<Vec<(i64, &'static str)>>,
    failures: Mutex<usize>,
    /// The sequence number of a dead letter that is never stored, and the number of attempts.
    never: Mutex<Option<(i64, usize)>>,
}

#[async_trait]
impl DeadLetters for Letters {
    async fn store(&self, letter: DeadLetter<'_>) -> Result<(), DeadLetterError> {
        let number = letter.message.position.sequence_number;
        let mut failures = self.failures.lock().unwrap();
        let mut never = self.never.lock().unwrap();
        let tries = never.as_mut().filter(|(never, _)| *never == number.0).map(|(_, tries)| *tries += 1);
        if *failures > 0 || tries.is_some() {
            *failures = failures.saturating_sub(1);
            return Err(DeadLetterError {
                partition: letter.partition.clone(),
                sequence_number: number,
                place: "memory".into(),
                code: "DEAD_LETTER_NOT_STORED",
                source: std::io::Error::other("disk full"),
            });
        }
        self.stored.lock().unwrap().push((number.0, letter.reason));
        Ok(())
    }
}

/// A router, its dependencies, and one partition that sends events to it.
struct Bench {
    store: Arc<MemoryStore>,
    letters: Arc<Letters>,
    limits: Arc<InFlight>,
    progress: Arc<Progress>,
    intake: mpsc::Sender<Vec<Intake>>,
    router: tokio::task::JoinHandle<Result<(), Panicked>>,
    metrics: Metrics,
    health: HealthState,
    next: i64,
}

impl Bench {
    fn new(most_concurrency: usize) -> Self {
        Self::with(|options| options.most_concurrency = most_concurrency)
    }

    fn with(adjust: impl FnOnce(&mut Options)) -> Self {
        Self::over(Arc::new(MemoryStore::default()), adjust)
    }

    /// A router with an empty cache over a store that already has documents.
    fn over(store: Arc<MemoryStore>, adjust: impl FnOnce(&mut Options)) -> Self {
        let letters = Arc::new(Letters::default());
        let limits = InFlight::new(10_000, 64 << 20);
        let mut options = Options {
            rules: Rules {
                id_scheme: DocumentIdScheme::Device,
                tombstone_ttl_seconds: 60,
                clock_tolerance: Duration::ZERO,
                forgets_after: None,
            },
            most_concurrency: 4,
            budget: RequestUnitBudget::new(None),
            repair_queue: RepairQueue::nobodys(),
            audits: AuditRequests::nobodys(),
            linger: Linger { always: Duration::ZERO, behind: Duration::ZERO },
            tracer: None,
            max_batch: 100,
            bound: Bound { items: 5_000, weight: 32 << 20 },
            give_up_after: None,
            cache: document_cache(1 << 20),
            backoff: Backoff::new(Duration::from_millis(1), Duration::from_millis(5)),
        };
        adjust(&mut options);
        let (metrics, health) = (Metrics::new().expect("buckets"), HealthState::new());
        let store_port: Arc<dyn TwinStore> = store.clone();
        let letters_port: Arc<dyn DeadLetters> = letters.clone();
        let router = Router::new(
            options,
            store_port,
            letters_port,
            Arc::new(SystemClock),
            Arc::clone(&limits),
            health.clone(),
            metrics.clone(),
        );
        let (intake, batches) = mpsc::channel(1);
        let id = PartitionId { stream: "s".into(), partition: "0".into() };
        Self {
            store,
            letters,
            limits,
            progress: Progress::new(id, None, &metrics),
            metrics,
            health,
            intake,
            router: tokio::spawn(router.run(batches)),
            next: 0,
        }
    }

    async fn origin(&mut self) -> Origin {
        let position =
            Position { sequence_number: SequenceNumber(self.next), offset: self.next.to_string().into() };
        self.next += 1;
        let message = Message {
            position: position.clone(),
            enqueued: None,
            body: Default::default(),
            application_properties: Properties::default(),
            annotations: Properties::default(),
        };
        let permit = self.limits.acquire(message.weight()).await;
        let ticket = self.progress.begin(position).expect("ascending");
        let (progress, received) = (Arc::clone(&self.progress), Instant::now());
        Origin { progress, ticket, message, permit, received, trace: None, watcher: None }
    }

    async fn send(&mut self, events: Vec<TwinEvent>) {
        let mut batch = Vec::new();
        for event in events {
            let origin = self.origin().await;
            batch.push(Intake::Event(event, origin));
        }
        self.intake.send(batch).await.expect("the router runs");
    }

    fn durable(&self) -> i64 {
        self.progress.durable().map_or(-1, |position| position.sequence_number.0)
    }

    /// Waits for a condition.
    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let wait = async {
            while !condition(self) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    /// Closes the intake and waits for everything.
    async fn finish(self) -> (Arc<MemoryStore>, Arc<Letters>, i64, (usize, usize)) {
        drop(self.intake);
        tokio::time::timeout(Duration::from_secs(10), self.router)
            .await
            .expect("drains")
            .expect("no panic in the router")
            .expect("no panic in a worker");
        let durable = self.progress.durable().map_or(-1, |position| position.sequence_number.0);
        (self.store, self.letters, durable, self.limits.used())
    }
}

fn body(value: i64) -> Sections {
    let tags = json!({"value": value});
    Sections { tags: tags.as_object().cloned(), ..Sections::default() }
}

fn event(key: &TwinKey, at: i64, change: Change) -> TwinEvent {
    TwinEvent { key: key.clone(), at: Ticks::new(at), change }
}

fn created(key: &TwinKey, at: i64) -> TwinEvent {
    event(key, at, Change::Created { version: TwinVersion(2), twin: body(0) })
}

fn updated(key: &TwinKey, at: i64, version: i64) -> TwinEvent {
    event(key, at, Change::Updated { version: TwinVersion(version), patch: body(version).into() })
}

fn device(name: &str) -> TwinKey {
    TwinKey::device("h", name)
}

fn value(document: &Document) -> i64 {
    document.twin().expect("has a twin").tags["value"].as_i64().expect("a number")
}

#[tokio::test]
async fn events_of_a_busy_twin_share_writes_and_arrive_in_order() {
    let mut bench = Bench::new(4);
    let key = device("d");
    bench.send(vec![created(&key, 1)]).await;
    for chunk in 0..20 {
        bench.send((0..25).map(|n| updated(&key, 2 + chunk * 25 + n, 3 + chunk * 25 + n)).collect()).await;
    }
    let (store, _, durable, used) = bench.finish().await;
    let document = store.document(&key).expect("stored");
    assert_eq!((value(&document), durable, used), (502, 500, (0, 0)));
    assert!(document.flags.is_empty(), "there must be no gap");
    assert!(
        *store.writes.lock().unwrap() < 100,
        "events must share writes: {}",
        store.writes.lock().unwrap()
    );
    assert!(*store.reads.lock().unwrap() <= 1, "the cache must have the document that was just written");
}

#[tokio::test]
async fn the_cached_documents_show_in_the_metrics() {
    let mut bench = Bench::new(1);
    bench.send(vec![created(&device("d"), 1)]).await;
    let metrics = bench.metrics.clone();
    bench.finish().await;
    let text = metrics.render();
    let bytes = text.lines().find_map(|line| line.strip_prefix("twinsync_cache_bytes ")).expect("a gauge");
    let bytes: f64 = bytes.parse().expect("a number");
    assert!((500.0..5_000.0).contains(&bytes), "{bytes}");
}

const AN_HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn what_lingers_shares_a_write_and_is_written_at_once_at_the_end() {
    let mut bench = Bench::with(|options| options.linger.always = AN_HOUR);
    let key = device("d");
    bench.send(vec![created(&key, 1)]).await;
    for version in 3..20 {
        bench.send(vec![updated(&key, version, version)]).await;
    }
    assert_eq!(*bench.store.writes.lock().unwrap(), 0);
    let (store, _, durable, used) = bench.finish().await;
    assert_eq!((value(&store.document(&key).expect("stored")), durable, used), (19, 17, (0, 0)));
    assert_eq!(*store.writes.lock().unwrap(), 1);
}

#[tokio::test]
async fn a_write_with_events_of_two_partitions_completes_those_of_both() {
    let mut bench = Bench::with(|options| options.linger.always = AN_HOUR);
    let key = device("d");
    let id = PartitionId { stream: "s".into(), partition: "1".into() };
    let first = Arc::clone(&bench.progress);
    let second = Progress::new(id, None, &bench.metrics);
    let mut batch = vec![Intake::Event(created(&key, 1), bench.origin().await)];
    for version in 3..20 {
        bench.progress = Arc::clone(if version % 2 == 0 { &first } else { &second });
        batch.push(Intake::Event(updated(&key, version, version), bench.origin().await));
    }
    bench.intake.send(batch).await.expect("the router runs");
    bench.progress = Arc::clone(&first);
    let (store, _, durable, used) = bench.finish().await;
    let of_second = second.durable().expect("durable").sequence_number.0;
    assert_eq!((durable, of_second, used), (16, 17, (0, 0)));
    assert_eq!((first.open(), second.open()), (0, 0));
    assert_eq!(*store.writes.lock().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn only_late_events_linger_because_of_lag_and_only_while_events_arrive() {
    let linger = Linger { always: Duration::ZERO, behind: AN_HOUR };
    let mut bench = Bench::with(|options| options.linger = linger);
    let (late, fresh) = (device("late"), device("fresh"));
    let now = SystemClock.now().get();
    bench.send(vec![created(&late, 1), created(&fresh, now)]).await;
    bench.until("the fresh one is written", |bench| bench.store.document(&fresh).is_some()).await;
    for version in 2..30 {
        tokio::time::sleep(linger.quiet() / 2).await;
        bench.send(vec![updated(&fresh, version, now + version)]).await;
    }
    assert_eq!(bench.store.document(&late), None);
    let last = Instant::now();
    bench.until("nothing arrives any more", |bench| bench.store.document(&late).is_some()).await;
    assert!((linger.quiet()..AN_HOUR).contains(&last.elapsed()), "{:?}", last.elapsed());
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_lingers_always_is_not_written_earlier_because_nothing_arrives() {
    let always = Duration::from_secs(2);
    let mut bench = Bench::with(|options| options.linger = Linger { always, behind: Duration::ZERO });
    let (key, sent) = (device("d"), Instant::now());
    bench.send(vec![created(&key, 1)]).await;
    bench.until("it is written", |bench| bench.store.document(&key).is_some()).await;
    assert!((always..always * 2).contains(&sent.elapsed()), "{:?}", sent.elapsed());
    bench.finish().await;
}

#[tokio::test]
async fn nothing_lingers_when_the_in_flight_limit_is_nearly_reached() {
    let mut bench = Bench::with(|options| {
        options.linger.always = AN_HOUR;
        options.max_batch = 100_000;
    });
    let key = device("d");
    // At least 2,000 events may be in flight. With one more than `nearly`, less than a sixteenth of the limit is left.
    let nearly = 1_874;
    bench.send(vec![created(&key, 1)]).await;
    bench.send((3..=nearly).map(|version| updated(&key, version, version)).collect()).await;
    bench.send(vec![updated(&key, nearly + 1, nearly + 1)]).await;
    assert_eq!(*bench.store.writes.lock().unwrap(), 0, "the events must linger");
    bench.send(vec![updated(&key, nearly + 2, nearly + 2)]).await;
    // The last event may linger, because the in-flight limit is no longer nearly reached when it arrives.
    bench.until("the others are written", |bench| bench.durable() >= nearly - 1).await;
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn completed_events_raise_the_in_flight_limit_before_a_second_has_passed() {
    let least = crate::domain::in_flight_limit::LEAST;
    let began = Instant::now();
    let mut bench = Bench::new(64);
    for part in 0..4 {
        let twins = (0..600).map(|number| created(&device(&format!("d{part}-{number}")), 1));
        bench.send(twins.collect()).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    bench.until("there is more room", |bench| bench.limits.room() > least).await;
    assert!(began.elapsed() < Duration::from_secs(1), "took {:?}", began.elapsed());
    bench.finish().await;
}

#[tokio::test]
async fn duplicates_cost_no_write() {
    let mut bench = Bench::new(4);
    let key = device("d");
    let events = || vec![created(&key, 1), updated(&key, 2, 3), updated(&key, 3, 4)];
    bench.send(events()).await;
    bench.until("first round", |bench| bench.durable() == 2).await;
    let writes = *bench.store.writes.lock().unwrap();
    bench.send(events()).await;
    let (store, _, durable, _) = bench.finish().await;
    assert_eq!((*store.writes.lock().unwrap(), durable), (writes, 5));
}

#[tokio::test]
async fn a_failing_twin_blocks_its_own_lane_only_and_holds_the_checkpoint() {
    let mut bench = Bench::new(1); // a single slot, which a waiting lane must not occupy
    let (bad, good) = (device("bad"), device("good"));
    bench.store.broken.lock().unwrap().push(bad.clone());
    bench.send(vec![created(&good, 1), created(&bad, 1), updated(&good, 2, 3)]).await;
    bench.until("good is written", |bench| bench.store.document(&good).is_some_and(|d| value(&d) == 3)).await;
    assert_eq!(bench.durable(), 0, "the open event of `bad` must hold the checkpoint");
    bench.store.broken.lock().unwrap().clear();
    let (store, _, durable, used) = bench.finish().await;
    assert!(store.document(&bad).is_some());
    assert_eq!((durable, used), (2, (0, 0)));
}

#[tokio::test]
async fn a_store_that_contradicts_itself_about_a_twin_is_asked_at_a_pace_and_others_go_on() {
    let mut bench = Bench::new(1);
    let (odd, good) = (device("odd"), device("good"));
    bench.store.contradictory.lock().unwrap().push(odd.clone());
    bench.send(vec![created(&odd, 1), created(&good, 1)]).await;
    bench.until("good is written", |bench| bench.store.document(&good).is_some()).await;
    let in_trouble = |bench: &Bench| bench.metrics.render().contains("twinsync_twins_in_trouble 1");
    bench.until("the other one is in trouble", in_trouble).await;
    bench.store.contradictory.lock().unwrap().clear();
    let (store, letters, durable, _) = bench.finish().await;
    assert!(store.document(&odd).is_some() && letters.stored.lock().unwrap().is_empty());
    assert_eq!(durable, 1);
}

#[tokio::test]
async fn an_id_that_the_store_refuses_is_a_dead_letter_and_its_flag_is_counted() {
    let mut bench = Bench::new(2);
    let (refused, good) = (device("refused"), device("good"));
    bench.store.refused.lock().unwrap().push(refused.clone());
    bench.send(vec![created(&refused, 1), updated(&refused, 2, 3), created(&good, 1)]).await;
    let metrics = bench.metrics.clone();
    let (store, letters, durable, used) = bench.finish().await;
    assert_eq!((letters.stored.lock().unwrap().len(), durable, used), (2, 2, (0, 0)));
    assert!(store.document(&good).is_some() && store.document(&refused).is_none());
    assert!(metrics.render().contains("twinsync_flags_rejected_total 2"));
}

#[tokio::test]
async fn throttling_failures_and_lost_replies_lose_nothing() {
    use Fault::{ApplyThenFail, Fail, Throttle};
    for script in [
        vec![Throttle, Throttle, Fail, Throttle],
        vec![Fail, ApplyThenFail],
        vec![ApplyThenFail, Fail, Fail],
        vec![Throttle, ApplyThenFail, Throttle, Fail, ApplyThenFail, ApplyThenFail, Fail],
    ] {
        let mut bench = Bench::new(2);
        *bench.store.script.lock().unwrap() = script.iter().copied().collect();
        let keys = [device("a"), device("b"), device("c")];
        for round in 0..10 {
            let change = |key| {
                if round == 0 { created(key, 1) } else { updated(key, 1 + round, 2 + round) }
            };
            bench.send(keys.iter().map(change).collect()).await;
        }
        let (store, letters, durable, used) = bench.finish().await;
        for key in &keys {
            let document = store.document(key).expect("stored");
            assert_eq!((value(&document), document.flags.len()), (11, 0), "{script:?}");
        }
        assert_eq!((durable, used), (29, (0, 0)), "{script:?}");
        assert!(
            letters.stored.lock().unwrap().is_empty(),
            "a fault of the store must not make a dead letter"
        );
    }
}

#[tokio::test]
async fn what_the_store_refuses_for_good_becomes_one_dead_letter() {
    let mut bench = Bench::new(1);
    let key = device("d");
    bench.send(vec![created(&key, 1)]).await;
    bench.until("created", |bench| bench.durable() == 0).await;
    // The batch of three is refused, and then written one event at a time. The first event alone is refused again.
    bench.store.script.lock().unwrap().extend([Fault::Reject, Fault::Reject]);
    bench.send(vec![updated(&key, 2, 3), updated(&key, 3, 4), updated(&key, 4, 5)]).await;
    let (store, letters, durable, used) = bench.finish().await;
    assert_eq!(*letters.stored.lock().unwrap(), [(1, "rejected_by_store")]);
    let document = store.document(&key).expect("stored");
    assert_eq!((value(&document), durable, used), (5, 3, (0, 0)));
    let flags = BTreeSet::from([Flag::Gap, Flag::Suspect]);
    assert_eq!(
        (document.flags, document.refused),
        (flags, Some(Ticks::new(2))),
        "the missing event must set flags"
    );
}

#[tokio::test]
async fn a_dead_letter_that_cannot_be_stored_holds_the_checkpoint() {
    let mut bench = Bench::new(1);
    *bench.letters.failures.lock().unwrap() = usize::MAX;
    let origin = bench.origin().await;
    let letter = Intake::DeadLetter { reason: "not_json", detail: "x".into(), twin: None, origin };
    bench.intake.send(vec![letter]).await.expect("the router runs");
    let key = device("d");
    bench.send(vec![created(&key, 1)]).await;
    bench.until("the partition goes on", |bench| bench.store.document(&key).is_some()).await;
    assert_eq!(bench.durable(), -1);
    *bench.letters.failures.lock().unwrap() = 0;
    let (_, letters, durable, used) = bench.finish().await;
    assert_eq!(*letters.stored.lock().unwrap(), [(0, "not_json")]);
    assert_eq!((durable, used), (1, (0, 0)));
}

#[tokio::test(start_paused = true)]
async fn waiting_dead_letters_are_tried_when_another_is_stored_and_a_few_are_tried_often() {
    let _seeded = crate::runtime::jitter::seeded(1);
    let longest = Duration::from_secs(30);
    let mut bench = Bench::with(|options| options.backoff = Backoff::new(longest, longest));
    *bench.letters.failures.lock().unwrap() = 3;
    for _ in 0..3 {
        letter(&mut bench, None).await;
    }
    bench.until("all have failed once", |bench| *bench.letters.failures.lock().unwrap() == 0).await;
    let began = Instant::now();
    // An event that arrives later is stored, and the waiting dead letters are stored with it.
    letter(&mut bench, None).await;
    bench.until("all are stored", |bench| bench.letters.stored.lock().unwrap().len() == 4).await;
    assert!(began.elapsed() < Duration::from_secs(1), "took {:?}", began.elapsed());
    *bench.letters.failures.lock().unwrap() = 1;
    let began = Instant::now();
    letter(&mut bench, None).await;
    bench.until("it is stored", |bench| bench.letters.stored.lock().unwrap().len() == 5).await;
    let waited = began.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(7)).contains(&waited), "{waited:?}");
    bench.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_fails_while_others_are_stored_is_not_tried_with_each_of_them() {
    let _seeded = crate::runtime::jitter::seeded(1);
    let longest = Duration::from_secs(30);
    let mut bench = Bench::with(|options| options.backoff = Backoff::new(longest, longest));
    *bench.letters.never.lock().unwrap() = Some((0, 0));
    for stored in 0..200 {
        letter(&mut bench, None).await;
        let enough = |bench: &Bench| bench.letters.stored.lock().unwrap().len() >= stored;
        bench.until("the others are stored", enough).await;
    }
    let (_, tries) = bench.letters.never.lock().unwrap().take().expect("it was tried");
    assert!((2..10).contains(&tries), "{tries}");
    bench.until("it is stored in the end", |bench| bench.letters.stored.lock().unwrap().len() == 200).await;
    bench.finish().await;
}

/// Stores a dead letter about `twin`.
async fn letter(bench: &mut Bench, twin: Option<(TwinKey, Option<Ticks>)>) {
    let origin = bench.origin().await;
    let letter = Intake::DeadLetter { reason: "not_json", detail: "x".into(), twin, origin };
    bench.intake.send(vec![letter]).await.expect("the router runs");
}

#[tokio::test]
async fn the_twin_of_a_dead_letter_is_flagged_before_the_event_counts_as_completed() {
    let mut bench = Bench::new(1);
    let (known, unknown) = (device("known"), device("unknown"));
    bench.send(vec![created(&known, 1)]).await;
    bench.until("created", |bench| bench.durable() == 0).await;
    bench.store.broken.lock().unwrap().push(known.clone());
    letter(&mut bench, Some((known.clone(), Some(Ticks::new(5))))).await;
    letter(&mut bench, Some((unknown.clone(), None))).await;
    bench.until("the other one is flagged", |bench| bench.store.document(&unknown).is_some()).await;
    assert_eq!(bench.letters.stored.lock().unwrap().len(), 2, "both dead letters must be durable");
    assert_eq!(bench.durable(), 0, "one flag is not durable");
    bench.store.broken.lock().unwrap().clear();
    let (store, _, durable, used) = bench.finish().await;
    assert_eq!((durable, used), (2, (0, 0)));
    let flagged = store.document(&known).expect("stored");
    assert!(flagged.flags.contains(&Flag::Suspect));
    assert_eq!((flagged.refused, value(&flagged)), (Some(Ticks::new(5)), 0));
    let flagged = store.document(&unknown).expect("stored");
    assert!(
        flagged.is_flagged() && flagged.refused > Some(Ticks::new(5)),
        "a flag without the time of an event must have the current time"
    );
}

#[tokio::test]
async fn a_dead_letter_without_a_twin_requests_an_audit() {
    for answered in [true, false] {
        let (audits, mut asked) = AuditRequests::channel(Arc::new(SystemClock));
        let audits = if answered { audits } else { AuditRequests::nobodys() };
        let mut bench = Bench::with(|options| options.audits = audits);
        letter(&mut bench, None).await;
        let metrics = bench.metrics.clone();
        let (_, letters, durable, used) = bench.finish().await;
        assert_eq!((letters.stored.lock().unwrap().len(), durable, used), (1, 0, (0, 0)));
        assert_eq!(asked.changed().now_or_never().is_some_and(|asked| asked.is_ok()), answered);
        assert!(metrics.render().contains("twinsync_dead_letters_without_twin_total 1"));
    }
}

#[tokio::test]
async fn what_the_store_refuses_leaves_the_old_content_flagged() {
    let mut bench = Bench::new(1);
    let (old, new) = (device("old"), device("new"));
    bench.send(vec![created(&old, 1)]).await;
    bench.until("created", |bench| bench.durable() == 0).await;
    bench.store.script.lock().unwrap().extend([Fault::Reject]);
    bench.send(vec![updated(&old, 2, 3)]).await;
    bench.until("flagged", |bench| bench.durable() == 1).await;
    bench.store.script.lock().unwrap().extend([Fault::Reject]);
    bench.send(vec![created(&new, 1)]).await;
    let (store, letters, durable, used) = bench.finish().await;
    assert_eq!(*letters.stored.lock().unwrap(), [(1, REJECTED_BY_STORE), (2, REJECTED_BY_STORE)]);
    assert_eq!((durable, used), (2, (0, 0)));
    let document = store.document(&old).expect("stored");
    assert_eq!((value(&document), document.refused), (0, Some(Ticks::new(2))));
    assert!(document.flags.contains(&Flag::Suspect));
    let document = store.document(&new).expect("the twin of the dead letter");
    assert!(document.is_flagged() && matches!(document.state, State::Partial { .. }));
}

#[tokio::test]
async fn a_flag_that_the_store_refuses_is_told_and_holds_nothing_up() {
    let mut bench = Bench::new(1);
    let key = device("d");
    bench.store.script.lock().unwrap().extend([Fault::Reject, Fault::Reject]);
    bench.send(vec![created(&key, 1)]).await;
    bench.until("completed all the same", |bench| bench.durable() == 0).await;
    assert!(bench.metrics.render().contains("twinsync_flags_rejected_total 1"));
    bench.finish().await;
}

#[tokio::test]
async fn deleting_a_device_tombstones_its_modules_before_the_event_counts_as_done() {
    let mut bench = Bench::new(1);
    let key = device("d");
    let modules = ["m1", "m2"].map(|name| TwinKey::module("h", "d", name));
    bench.send(vec![created(&key, 1), created(&modules[0], 2), created(&modules[1], 3)]).await;
    bench.until("created", |bench| bench.durable() == 2).await;
    bench.store.broken.lock().unwrap().push(modules[1].clone());
    bench.send(vec![event(&key, 9, Change::Deleted)]).await;
    let deleted =
        |bench: &Bench, key: &TwinKey| bench.store.document(key).is_some_and(|d| d.state == State::Deleted);
    bench.until("device and first module", |bench| deleted(bench, &key) && deleted(bench, &modules[0])).await;
    assert_eq!(bench.durable(), 2, "one module has not followed yet");
    bench.store.broken.lock().unwrap().clear();
    bench.until("second module", |bench| deleted(bench, &modules[1])).await;
    let (_, _, durable, used) = bench.finish().await;
    assert_eq!((durable, used), (3, (0, 0)));
}

#[tokio::test]
async fn a_watcher_gets_the_outcome_of_its_event_only_after_it_is_durable() {
    let mut bench = Bench::new(4);
    let (key, module) = (device("d"), TwinKey::module("h", "d", "m"));
    bench.send(vec![created(&key, 1), created(&module, 2)]).await;
    bench.until("created", |bench| bench.durable() == 1).await;
    bench.store.broken.lock().unwrap().push(module.clone());
    let mut told = Vec::new();
    for happened in [event(&key, 9, Change::Deleted), created(&key, 1)] {
        let mut origin = bench.origin().await;
        let (watcher, outcome) = Watcher::new();
        origin.watcher = Some(watcher);
        told.push(outcome);
        bench.intake.send(vec![Intake::Event(happened, origin)]).await.expect("the router runs");
    }
    let deleted = |bench: &Bench| bench.store.document(&key).is_some_and(|d| d.state == State::Deleted);
    bench.until("the device is deleted", deleted).await;
    assert!(told[0].try_recv().is_err(), "its module has not followed yet");
    bench.store.broken.lock().unwrap().clear();
    bench.until("the module is deleted", |bench| bench.durable() == 3).await;
    let told: Vec<_> = told.into_iter().map(|mut outcome| outcome.try_recv()).collect();
    assert_eq!(told, [Ok(Outcome::Decided(Decision::Applied)), Ok(Outcome::Decided(Decision::Stale))]);

    bench.store.script.lock().unwrap().extend([Fault::Reject]);
    let mut origin = bench.origin().await;
    let (watcher, outcome) = Watcher::new();
    origin.watcher = Some(watcher);
    let other = Intake::Event(created(&key, 20), origin);
    bench.intake.send(vec![other]).await.expect("the router runs");
    let (_, letters, ..) = bench.finish().await;
    let reason = REJECTED_BY_STORE;
    assert_eq!(outcome.await, Ok(Outcome::DeadLettered { reason, detail: "too large".into() }));
    assert_eq!(*letters.stored.lock().unwrap(), [(4, reason)]);
}

#[tokio::test]
async fn a_cascade_cut_short_by_a_crash_is_done_when_the_device_is_touched_again() {
    let mut bench = Bench::new(1);
    let (key, module) = (device("d"), TwinKey::module("h", "d", "m"));
    bench.send(vec![created(&key, 1), created(&module, 2)]).await;
    bench.until("created", |bench| bench.durable() == 1).await;
    let (store, ..) = bench.finish().await;
    // The state after a crash: the tombstone is stored, and the modules have not followed.
    let rules = Rules {
        id_scheme: DocumentIdScheme::Device,
        tombstone_ttl_seconds: 60,
        clock_tolerance: Duration::ZERO,
        forgets_after: None,
    };
    let deletion = event(&key, 9, Change::Deleted);
    let mut tombstone = store.document(&key);
    crate::domain::decide::decide(&mut tombstone, &deletion, Ticks::new(9), &rules);
    store.documents.lock().unwrap().insert(key.clone(), (tombstone.expect("present"), 7));
    let mut restarted = Bench::over(Arc::clone(&store), |_| {});
    restarted.send(vec![deletion]).await;
    restarted.finish().await;
    assert_eq!(store.document(&module).expect("kept").state, State::Deleted);
}

#[tokio::test]
async fn a_cascade_stays_stored_until_the_modules_have_followed() {
    let mut bench = Bench::new(4);
    let (key, module) = (device("d"), TwinKey::module("h", "d", "m"));
    bench.send(vec![created(&key, 1), created(&module, 2)]).await;
    bench.until("created", |bench| bench.durable() == 1).await;
    bench.store.broken.lock().unwrap().push(module.clone());
    bench.send(vec![event(&key, 9, Change::Deleted)]).await;
    let cascade = |bench: &Bench| bench.store.document(&key).and_then(|document| document.cascade);
    bench.until("deleted", |bench| cascade(bench).is_some()).await;
    bench.send(vec![created(&key, 20)]).await;
    let lives = |bench: &Bench| {
        bench.store.document(&key).is_some_and(|document| matches!(document.state, State::Live { .. }))
    };
    bench.until("created anew", lives).await;
    assert!(cascade(&bench).is_some(), "the cascade must be stored until the module has followed");
    assert_eq!(bench.durable(), 1, "the deletion must not be completed");
    // Changes need not wait for the module, however many there are. Only its deletion and its creation are held.
    for version in 3..40 {
        bench.send(vec![updated(&key, 20 + version, version)]).await;
    }
    bench.until("changes are done with", |bench| bench.limits.used().0 == 2).await;
    assert!(cascade(&bench).is_some(), "the cascade must still be stored");
    bench.store.broken.lock().unwrap().clear();
    bench.until("the module has followed", |bench| bench.durable() == 40).await;
    assert_eq!(bench.store.document(&module).expect("kept").state, State::Deleted);
    bench.send(vec![updated(&key, 90, 40)]).await;
    bench.until("updated", |bench| bench.durable() == 41).await;
    assert_eq!(cascade(&bench), None, "the next write must clear the cascade");
    bench.finish().await;
}

#[tokio::test]
async fn a_module_that_shows_up_after_its_device_was_deleted_does_not_live() {
    let mut bench = Bench::new(4);
    let (key, module) = (device("d"), TwinKey::module("h", "d", "m"));
    bench.send(vec![created(&key, 1), event(&key, 9, Change::Deleted)]).await;
    bench.until("deleted", |bench| bench.durable() == 1).await;
    bench.send(vec![created(&module, 5), updated(&module, 6, 3)]).await;
    bench.until("module", |bench| bench.durable() == 3).await;
    assert_eq!(bench.store.document(&module).expect("tombstone").state, State::Deleted);
    // The next incarnation of both has to wait.
    bench.send(vec![created(&key, 20), created(&module, 21)]).await;
    let (store, ..) = bench.finish().await;
    assert!(matches!(store.document(&module).expect("stored").state, State::Live { .. }));
}

#[tokio::test]
async fn a_spending_cap_slows_down_and_loses_nothing() {
    let mut bench = Bench::with(|options| options.budget = RequestUnitBudget::new(Some(200.0)));
    let started = Instant::now();
    // Each new twin costs a read and a write of one unit each: 300 units. 200 of them are available at the start.
    bench.send((0..150).map(|n| created(&device(&n.to_string()), 1)).collect()).await;
    let (store, _, durable, _) = bench.finish().await;
    assert_eq!((store.documents.lock().unwrap().len(), durable), (150, 149));
    assert!(started.elapsed() >= Duration::from_millis(350), "took {:?}", started.elapsed());
}

#[tokio::test]
async fn one_failing_twin_slows_no_other_down_and_is_no_outage() {
    let mut bench = Bench::with(|options| options.most_concurrency = 8);
    let (bad, good) = (device("bad"), device("good"));
    bench.store.broken.lock().unwrap().push(bad.clone());
    bench.send(vec![created(&bad, 1), created(&good, 1)]).await;
    bench.until("good is written", |bench| bench.store.document(&good).is_some()).await;
    let probes = |bench: &Bench| bench.metrics.render().contains("kind=\"probe\",outcome=\"conflict\"} 2");
    // No other twin sends a request. Only a probe can find out whether the store answers.
    bench.until("probed", probes).await;
    assert_eq!(bench.health.facts().store, StoreState::Reachable);
    let text = bench.metrics.render();
    assert!(text.contains("twinsync_store_concurrency_limit 8"), "{text}");
    assert!(text.contains("twinsync_twins_in_trouble 1"), "the metric must count it: {text}");
    bench.store.broken.lock().unwrap().clear();
    bench
        .until("out of trouble", |bench| bench.metrics.render().contains("twinsync_twins_in_trouble 0"))
        .await;
    bench.finish().await;
}

#[tokio::test]
async fn conditions_that_keep_failing_are_answers_and_no_outage() {
    let mut bench = Bench::with(|options| options.most_concurrency = 8);
    let odd: Vec<_> = (0..5).map(|n| device(&n.to_string())).collect();
    bench.store.contradictory.lock().unwrap().extend(odd.iter().cloned());
    bench.send(odd.iter().map(|key| created(key, 1)).collect()).await;
    let shows = |bench: &Bench| bench.metrics.render().contains("twinsync_twins_in_trouble 5");
    bench.until("all are in trouble", shows).await;
    assert_eq!(bench.health.facts().store, StoreState::Reachable);
    let text = bench.metrics.render();
    assert!(
        text.contains("twinsync_store_concurrency_limit 8"),
        "other twins must not be slowed down: {text}"
    );
    bench.store.contradictory.lock().unwrap().clear();
    let (_, _, durable, used) = bench.finish().await;
    assert_eq!((durable, used), (4, (0, 0)));
}

#[tokio::test]
async fn an_outage_is_found_whether_one_twin_meets_it_or_many() {
    for twins in [1, 5] {
        let mut bench = Bench::with(|options| options.most_concurrency = 8);
        *bench.store.away.lock().unwrap() = true;
        bench.send((0..twins).map(|n| created(&device(&n.to_string()), 1)).collect()).await;
        let unreachable =
            |bench: &Bench| matches!(bench.health.facts().store, StoreState::Unreachable { .. });
        bench.until("unreachable", unreachable).await;
        let less = |bench: &Bench| !bench.metrics.render().contains("twinsync_store_concurrency_limit 8");
        bench.until("less is asked of it", less).await;
        *bench.store.away.lock().unwrap() = false;
        bench.until("reachable", |bench| bench.health.facts().store == StoreState::Reachable).await;
        let (_, _, durable, used) = bench.finish().await;
        assert_eq!((durable, used), (twins - 1, (0, 0)));
    }
}

#[tokio::test]
async fn what_is_served_from_memory_says_nothing_about_the_store() {
    let mut bench = Bench::new(4);
    let key = device("d");
    bench.send(vec![created(&key, 1)]).await;
    bench.until("created", |bench| bench.durable() == 0).await;
    let reason = "as it was told".to_owned();
    bench.health.set_store(StoreState::Unreachable { reason });
    bench.send(vec![created(&key, 1)]).await;
    bench.until("a duplicate", |bench| bench.durable() == 1).await;
    assert!(matches!(bench.health.facts().store, StoreState::Unreachable { .. }));
    bench.finish().await;
}

#[tokio::test]
async fn a_twin_with_too_many_waiting_events_pauses_its_partitions() {
    let mut bench = Bench::with(|options| options.bound = Bound { items: 10, weight: 1 << 20 });
    let key = device("bad");
    bench.store.broken.lock().unwrap().push(key.clone());
    bench.send((0..9).map(|n| updated(&key, 1 + n, 3 + n)).collect()).await;
    bench.send(vec![created(&device("good"), 1)]).await;
    bench.until("good is written", |bench| bench.store.document(&device("good")).is_some()).await;
    assert!(!bench.limits.is_twin_full(&key));
    bench.send(vec![updated(&key, 10, 12)]).await;
    bench.until("full", |bench| bench.limits.is_twin_full(&key)).await;
    assert!(!bench.limits.is_twin_full(&device("good")));
    bench.until("it shows", |bench| bench.metrics.render().contains("twinsync_twins_full 1")).await;
    bench.store.broken.lock().unwrap().clear();
    bench.limits.twin_has_room(&key).await;
    bench.until("worked off", |bench| bench.metrics.render().contains("twinsync_twins_full 0")).await;
    bench.finish().await;
}

#[tokio::test]
async fn a_twin_that_keeps_failing_is_dead_lettered_in_constant_memory_and_ends_flagged() {
    let mut bench = Bench::with(|options| options.give_up_after = Some(Duration::from_millis(50)));
    let (bad, good) = (device("bad"), device("good"));
    bench.send(vec![created(&bad, 1), created(&good, 1)]).await;
    bench.until("created", |bench| bench.durable() == 1).await;
    bench.store.broken.lock().unwrap().push(bad.clone());
    let letters = |bench: &Bench| bench.letters.stored.lock().unwrap().len();
    let mut others = 0;
    for round in 0..20 {
        let events = (0..50).map(|n| updated(&bad, 2 + round * 50 + n, 3 + round * 50 + n));
        bench.send(events.collect()).await;
        let wanted = 50 * (round as usize + 1);
        while letters(&bench) < wanted {
            // The store answers about others.
            bench.send(vec![updated(&good, 2 + others, 3 + others)]).await;
            others += 1;
            let written =
                |bench: &Bench| bench.store.document(&good).is_some_and(|d| value(&d) == 2 + others);
            bench.until("others go on", written).await;
        }
        // One flag in flight, and one waiting flag for all later dead letters.
        bench.until("constant memory", |bench| bench.limits.used().0 <= 2).await;
    }
    assert!(bench.letters.stored.lock().unwrap().iter().all(|(_, reason)| *reason == STORE_SILENT));
    assert_eq!(bench.durable(), 1, "the flag is not durable, so a restart must replay from here");
    bench.store.broken.lock().unwrap().clear();
    let sent = bench.next - 1;
    let (store, _, durable, used) = bench.finish().await;
    assert_eq!((durable, used), (sent, (0, 0)));
    let document = store.document(&bad).expect("stored");
    assert!(document.flags.contains(&Flag::Suspect));
    assert_eq!((value(&document), document.refused), (0, Some(Ticks::new(1001))), "no event may be applied");
    assert!(store.document(&good).expect("stored").flags.is_empty());
}

#[tokio::test]
async fn an_outage_makes_no_dead_letter_however_long_it_lasts() {
    let mut bench = Bench::with(|options| options.give_up_after = Some(Duration::from_millis(20)));
    let keys = [device("a"), device("b")];
    *bench.store.away.lock().unwrap() = true;
    bench.send(keys.iter().map(|key| created(key, 1)).collect()).await;
    let unreachable = |bench: &Bench| matches!(bench.health.facts().store, StoreState::Unreachable { .. });
    bench.until("unreachable", unreachable).await;
    let asked = |bench: &Bench| *bench.store.reads.lock().unwrap();
    let before = asked(&bench);
    bench.until("tried again and again", |bench| asked(bench) > before + 50).await;
    *bench.store.away.lock().unwrap() = false;
    let (_, letters, durable, used) = bench.finish().await;
    assert!(letters.stored.lock().unwrap().is_empty());
    assert_eq!((durable, used), (1, (0, 0)));
}

/// A permit that belongs to no event of the router and is never returned.
#[tokio::test(start_paused = true)]
async fn a_permit_held_for_a_minute_at_rest_is_reported_once() {
    let bench = Bench::new(4);
    let broken = |bench: &Bench| {
        let line = "twinsync_invariant_violations_total{invariant=\"nothing_is_held_at_rest\"}";
        let page = bench.metrics.render();
        let count =
            page.lines().find_map(|found| found.strip_prefix(line)).map(|count| count.trim().to_owned());
        count.expect("it is served")
    };
    let permit = bench.limits.acquire(100).await;
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(broken(&bench), "0", "events may be on their way to the router");
    drop(permit);
    tokio::time::sleep(Duration::from_secs(50)).await;
    let forgotten = bench.limits.acquire(100).await;
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(broken(&bench), "0", "the time must count from the last moment without permits");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(broken(&bench), "1");
    drop(forgotten);
}

/// After many attempts, the next attempt of each twin is up to 30 s away.
#[tokio::test(start_paused = true)]
async fn waiting_twins_try_at_once_when_the_store_answers() {
    let mut bench = Bench::with(|options| {
        options.backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3_600));
    });
    *bench.store.away.lock().unwrap() = true;
    let events = (0..50).map(|twin| created(&device(&format!("d{twin}")), 1));
    bench.send(events.collect()).await;
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(bench.progress.open(), 50);
    *bench.store.away.lock().unwrap() = false;
    let began = Instant::now();
    while bench.progress.open() > 0 {
        assert!(began.elapsed() < Duration::from_secs(5), "{} events are open", bench.progress.open());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The least in-flight limit equals the limit of one twin. Without an extra limit, the events that wait for that twin would block
/// all others.
#[tokio::test(start_paused = true)]
async fn a_twin_without_an_answer_does_not_reduce_the_limit_of_others() {
    let mut bench = Bench::new(4);
    let stuck = device("stuck");
    bench.store.broken.lock().unwrap().push(stuck.clone());
    let limits = Arc::clone(&bench.limits);
    assert_eq!(limits.room(), crate::domain::in_flight_limit::LEAST, "no event was completed yet");
    let events: Vec<_> = (1..2_000).map(|version| updated(&stuck, version, version)).collect();
    bench.send(events).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(limits.used().0, 1_999);
    assert_eq!(limits.room(), crate::domain::in_flight_limit::LEAST + 1_999);
    // As many events of others, one after the other, while it waits.
    for round in 0..4 {
        bench.send((0..1_000).map(|twin| created(&device(&format!("d{round}-{twin}")), 1)).collect()).await;
    }
    bench.until("the others are done", |bench| bench.progress.open() == 1_999).await;
}

#[tokio::test(start_paused = true)]
async fn a_fast_pace_raises_the_in_flight_limit() {
    let mut bench = Bench::new(4);
    let limits = Arc::clone(&bench.limits);
    for round in 0..20 {
        bench.send((0..100).map(|twin| created(&device(&format!("d{round}-{twin}")), 1)).collect()).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let room = limits.room();
    assert!(room > 5_000, "about a thousand events were completed per second, but the limit is {room}");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(limits.room(), crate::domain::in_flight_limit::LEAST);
}
