//! A backfill brings in the existing twins once, despite interruptions.

use serde_json::json;

use super::{
    super::testing::{Bench, References, away, created, device, module, stream, updated},
    *,
};
use crate::{
    adapters::notes::MemoryNotes,
    ports::{Clock, QueryError},
    runtime::reconcile::requests::{AuditRequests, last_request},
};

fn bench(devices: usize) -> Bench {
    let bench = Bench::with_pages_of(4);
    for number in 0..devices {
        bench.registry.set(&device(&format!("d{number:02}")), 3, json!({"n": number}));
    }
    bench.registry.set(&module("d00", "m"), 2, json!({"module": true}));
    bench
}

async fn fill(bench: &Bench) -> Counts {
    let progress = Arc::new(Progress::default());
    let stop = CancellationToken::new();
    let filled = run(&bench.reconciler, &bench.rate_limited, bench.notes.as_ref(), 2, &progress, &stop).await;
    let counts = filled.expect("filled");
    assert_eq!(progress.counts(), counts);
    counts
}

#[tokio::test(start_paused = true)]
async fn devices_and_modules_are_brought_in_and_a_second_run_asks_nobody() {
    let bench = bench(10);
    let counts = fill(&bench).await;
    assert_eq!((counts.listed, counts.created, counts.present), (11, 11, 0));
    assert_eq!(bench.says(&device("d07")), Some((3, json!({"n": 7}))));
    assert_eq!(bench.says(&module("d00", "m")), Some((2, json!({"module": true}))));
    let asked = bench.registry.asked().len();
    let counts = fill(&bench).await;
    assert_eq!((counts.created, counts.present), (0, 11));
    assert_eq!(bench.registry.asked().len(), asked, "a correct document must cost no call");
}

#[tokio::test(start_paused = true)]
async fn an_empty_container_is_filled_without_reading_it() {
    let bench = bench(60);
    assert_eq!(fill(&bench).await.created, 61);
    let reads = *bench.store.reads.lock().unwrap();
    // Two run at the same time, so the last of the first ones begins before the previous one is counted.
    assert!((16..=18).contains(&reads), "{reads} reads");
    assert_eq!((bench.writes(), bench.registry.asked().len()), (61, 61));
}

#[tokio::test(start_paused = true)]
async fn a_document_among_many_that_are_missing_is_met_and_left_as_it_is() {
    let bench = bench(60);
    bench.event(&device("d40"), created(3, json!({"n": 40})));
    let counts = fill(&bench).await;
    assert_eq!((counts.created, counts.present), (60, 1));
    assert_eq!(bench.says(&device("d40")), Some((3, json!({"n": 40}))));
    let reads = *bench.store.reads.lock().unwrap();
    assert!(
        (33..=36).contains(&reads),
        "the next documents must be read before the hub is asked: {reads} reads"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_planned_is_noted_once_and_leaves_a_scan_that_has_begun_where_it_is() {
    let bench = bench(12);
    let (hub, notes) = (HubName::from("H"), bench.notes.as_ref());
    let noted = async || note(notes, &hub).await.expect("readable").expect("noted");
    plan(&bench.reconciler, notes, &hub).await.expect("noted");
    assert_eq!((noted().await.finished_at, noted().await.continuation), (None, None));
    let begun = Note { continuation: Some("4".into()), ..noted().await };
    save(notes, &hub, &begun).await.expect("saved");
    plan(&bench.reconciler, notes, &hub).await.expect("noted");
    assert_eq!(noted().await, begun);
    // A container that was emptied after an earlier backfill is filled again.
    let finished_at = Some(bench.reconciler.now());
    save(notes, &hub, &Note { finished_at, ..begun }).await.expect("saved");
    plan(&bench.reconciler, notes, &hub).await.expect("noted");
    assert_eq!((noted().await.finished_at, noted().await.continuation), (None, None));
}

#[tokio::test(start_paused = true)]
async fn it_goes_on_at_its_note_and_asks_for_nothing_twice() {
    let bench = bench(12);
    // Stopped in the second page.
    let stop = CancellationToken::new();
    let (stopper, mut calls) = (stop.clone(), 0);
    bench.registry.on_get(move |_| {
        calls += 1;
        if calls == 6 {
            stopper.cancel();
        }
    });
    let progress = Arc::new(Progress::default());
    let stopped =
        run(&bench.reconciler, &bench.rate_limited, bench.notes.as_ref(), 1, &progress, &stop).await;
    assert!(matches!(stopped, Err(Error::Ended(Ended::Stopped))));
    let kept = note(bench.notes.as_ref(), &"H".into()).await.expect("readable").expect("kept");
    assert_eq!((kept.kind, kept.continuation.as_deref(), kept.counts.listed), (Kind::Devices, Some("4"), 4));
    bench.registry.on_get(|_| {});
    let pages = bench.registry.pages.load(Ordering::Relaxed);
    let counts = fill(&bench).await;
    assert_eq!(counts.listed, 13, "the count must include both runs");
    let asked = bench.registry.asked();
    let distinct: std::collections::BTreeSet<_> = asked.iter().collect();
    assert!(asked.len() <= distinct.len() + 1, "only the interrupted call may be repeated: {asked:?}");
    assert_eq!(
        bench.registry.pages.load(Ordering::Relaxed) - pages,
        3,
        "two pages of devices and one of modules"
    );
    let done = note(bench.notes.as_ref(), &"h".into()).await.expect("readable").expect("kept");
    assert!(done.finished_at.is_some() && done.continuation.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_continuation_goes_on_with_the_query_that_it_is_of() {
    let whole = "SELECT * FROM devices";
    let columns = "SELECT deviceId, version FROM devices";
    // The note as it is kept today, for a hub that gives references and one that does not, and as it was before the query was kept.
    for (kept, first) in [(Some(columns), columns), (Some(whole), whole), (None, whole)] {
        let bench = bench(8);
        let note = Note {
            started_at: bench.clock.now(),
            finished_at: None,
            kind: Kind::Devices,
            continuation: Some("4".to_owned()),
            query: kept.map(str::to_owned),
            counts: Counts::default(),
            runs: 1,
        };
        save(bench.notes.as_ref(), &"h".into(), &note).await.expect("kept");
        assert_eq!(fill(&bench).await.created, 5, "four devices and a module, {kept:?}");
        let queries = bench.registry.asked_for.lock().unwrap().clone();
        assert_eq!(queries, [first, "SELECT deviceId, moduleId, version FROM devices.modules"], "{kept:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_query_that_a_hub_takes_is_kept_with_the_continuation() {
    for (mode, expected) in [
        (References::Given, "SELECT deviceId, version FROM devices"),
        (References::Refused, "SELECT * FROM devices"),
    ] {
        let bench = bench(12);
        *bench.registry.references.lock().unwrap() = mode;
        let stop = CancellationToken::new();
        let (stopper, mut calls) = (stop.clone(), 0);
        bench.registry.on_get(move |_| {
            calls += 1;
            if calls == 6 {
                stopper.cancel();
            }
        });
        let progress = Arc::new(Progress::default());
        let stopped =
            run(&bench.reconciler, &bench.rate_limited, bench.notes.as_ref(), 1, &progress, &stop).await;
        assert!(matches!(stopped, Err(Error::Ended(Ended::Stopped))));
        let kept = note(bench.notes.as_ref(), &"h".into()).await.expect("readable").expect("kept");
        assert_eq!((kept.continuation.as_deref(), kept.query.as_deref()), (Some("4"), Some(expected)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_kept_continuation_that_the_hub_forgot_costs_a_scan_and_no_call() {
    let bench = bench(8);
    let kept = Note {
        started_at: bench.clock.now(),
        finished_at: None,
        kind: Kind::Devices,
        continuation: Some("4".to_owned()),
        query: None,
        counts: Counts::default(),
        runs: 1,
    };
    save(bench.notes.as_ref(), &"h".into(), &kept).await.expect("kept");
    bench.registry.queries.lock().unwrap().push_back(QueryError::Expired);
    assert_eq!(fill(&bench).await.created, 9, "the first devices must be created as well");
}

#[tokio::test(start_paused = true)]
async fn a_note_that_cannot_be_understood_counts_as_none() {
    let bench = bench(3);
    bench.notes.save(&note_name(&"h".into()), b"{\"kind\": 7").await.expect("kept");
    assert_eq!(fill(&bench).await.created, 4);
}

#[tokio::test(start_paused = true)]
async fn documents_that_stream_in_meanwhile_are_never_set_back() {
    let bench = bench(6);
    bench.registry.hold_view(); // the query lags from this moment
    let key = device("d03");
    let (store, clock, registry) =
        (Arc::clone(&bench.store), Arc::clone(&bench.clock), Arc::clone(&bench.registry));
    let mut first = true;
    bench.registry.on_get(move |asked| {
        if *asked == device("d03") && std::mem::take(&mut first) {
            clock.pass(Duration::from_secs(1));
            registry.set(asked, 4, json!({"n": "streamed"}));
            stream(&store, asked, clock.now(), updated(4, json!({"n": "streamed"})));
        }
    });
    // Deleted and streamed before its turn.
    bench.registry.remove(&device("d05"));
    bench.event(&device("d05"), crate::domain::event::Change::Deleted);
    bench.pass(1);
    bench.event(&device("d04"), created(30, json!({"n": "newer than the row"})));
    fill(&bench).await;
    assert_eq!(bench.says(&key), Some((4, json!({"n": "streamed"}))));
    assert_eq!(bench.says(&device("d04")), Some((30, json!({"n": "newer than the row"}))));
    assert_eq!(bench.says(&device("d05")), None);
    assert!(bench.store.documents.lock().unwrap().values().all(|(document, _)| !document.is_flagged()));
}

#[tokio::test(start_paused = true)]
async fn errors_of_single_twins_are_retried() {
    let bench = bench(5);
    bench.registry.gets.lock().unwrap().extend((0..7).map(|_| away()));
    assert_eq!(fill(&bench).await.created, 6);
}

#[tokio::test(start_paused = true)]
async fn one_twin_without_an_answer_holds_up_the_others_for_a_while_only() {
    let bench = bench(6);
    bench.registry.mute.lock().unwrap().insert(device("d02"));
    bench.registry.odd.store(1, Ordering::Relaxed);
    let counts = fill(&bench).await;
    // Two pages of devices and one of modules, each with a row that is not a twin.
    assert_eq!((counts.listed, counts.created, counts.unknown), (10, 6, 4));
    assert_eq!(bench.document(&device("d02")), None);
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_ends_between_the_twin_and_the_others_gives_nobody_up() {
    let bench = Bench::with_pages_of(4);
    bench.registry.set(&device("d"), 3, json!({}));
    // The last failure is the first one after which others are asked about. They are answered.
    bench.registry.gets.lock().unwrap().extend((0..=PATIENCE).map(|_| away()));
    let counts = fill(&bench).await;
    assert_eq!((counts.created, counts.unknown), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_audit_follows_where_twins_had_no_answer_and_nobody_forgets_it() {
    let bench = bench(6);
    let (audits, asked) = AuditRequests::channel(Arc::clone(&bench.clock) as _);
    let reconciler = Arc::new(bench.reconciler_over(audits));
    let progress = Arc::new(Progress::default());
    let stop = CancellationToken::new();
    let fill = || run(&reconciler, &bench.rate_limited, bench.notes.as_ref(), 2, &progress, &stop);
    bench.registry.mute.lock().unwrap().insert(device("d02"));
    assert_eq!(fill().await.expect("filled").unknown, 1);
    // The note is there although `keep` does not run: it was written before the backfill was noted as finished.
    let noted = last_request(bench.notes.as_ref()).await.expect("readable");
    assert!(noted.is_some() && noted == *asked.borrow(), "{noted:?}");

    bench.registry.mute.lock().unwrap().clear();
    let (notes, progress) = (MemoryNotes::default(), Arc::new(Progress::default()));
    let filled = run(&reconciler, &bench.rate_limited, &notes, 2, &progress, &stop).await;
    assert_eq!(filled.expect("filled").unknown, 0);
    assert_eq!(last_request(&notes).await.expect("readable"), None, "no twin was left without an answer");
}

#[tokio::test(start_paused = true)]
async fn an_audit_follows_a_backfill_that_was_interrupted() {
    let bench = bench(6);
    let (audits, _asked) = AuditRequests::channel(Arc::clone(&bench.clock) as _);
    let reconciler = Arc::new(bench.reconciler_over(audits));
    let (progress, stop) = (Arc::new(Progress::default()), CancellationToken::new());
    stop.cancel();
    let fill = |stop| run(&reconciler, &bench.rate_limited, bench.notes.as_ref(), 2, &progress, stop);
    fill(&stop).await.expect_err("stopped");
    assert_eq!(last_request(bench.notes.as_ref()).await.expect("readable"), None);
    fill(&CancellationToken::new()).await.expect("filled");
    assert!(last_request(bench.notes.as_ref()).await.expect("readable").is_some());
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_waited_out_however_long_it_lasts() {
    let bench = bench(4);
    *bench.registry.silent.lock().unwrap() = true;
    let registry = Arc::clone(&bench.registry);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(6 * 3600)).await;
        *registry.silent.lock().unwrap() = false;
    });
    let counts = fill(&bench).await;
    assert_eq!((counts.created, counts.unknown), (5, 0));
    // The same for the store.
    let more = device("later");
    bench.registry.set(&more, 2, json!({}));
    bench.store.broken.lock().unwrap().extend([more.clone(), TwinKey::device("h", "|")]);
    let store = Arc::clone(&bench.store);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(6 * 3600)).await;
        store.broken.lock().unwrap().clear();
    });
    let counts = fill(&bench).await;
    assert_eq!((counts.created, counts.unknown), (1, 0));
}
