//! Differences are found by class, accepted only when the hub confirms them, and repaired if the mode says so.

use std::sync::atomic::Ordering;

use serde_json::json;

use super::{
    super::testing::{Bench, created, device, module, updated},
    *,
};
use crate::domain::{document::Flag, event::Change};

const OPTIONS: Options = Options {
    sample: 1.0,
    mode: Mode::Correct,
    strictness: Strictness::Content,
    tolerance: Duration::from_secs(1800),
    recent_checks: 0,
    concurrency: 4,
};

const LOOK: Options = Options { mode: Mode::Compare, ..OPTIONS };

async fn try_audit(bench: &Bench, options: &Options) -> Result<Report, Ended> {
    let stop = CancellationToken::new();
    run(&bench.reconciler, &bench.rate_limited, options, 0, &Progress::default(), &stop).await
}

async fn audit(bench: &Bench, options: &Options) -> Report {
    try_audit(bench, options).await.expect("an audit")
}

fn counts(report: &Report) -> [u64; 4] {
    ["missing", "extra", "different", "flagged"].map(|class| report.found[class])
}

/// Twenty twins whose documents have equaled the hub's twins for hours.
fn agreed() -> Bench {
    let bench = Bench::with_pages_of(4);
    for number in 0..18 {
        bench.agreed(&device(&format!("d{number:02}")), 3, json!({"n": number}));
    }
    for id in ["m1", "m2"] {
        bench.agreed(&module("d00", id), 2, json!({}));
    }
    bench.pass(7200);
    bench
}

/// One twin of each class, and the differences before the audit.
fn spoilt() -> Bench {
    let bench = agreed();
    bench.store.documents.lock().unwrap().remove(&device("d01"));
    bench.registry.remove(&module("d00", "m2"));
    bench.registry.set(&device("d02"), 4, json!({"n": "unheard"}));
    bench
        .store
        .documents
        .lock()
        .unwrap()
        .get_mut(&device("d03"))
        .expect("there")
        .0
        .flags
        .insert(Flag::Suspect);
    bench
}

#[tokio::test(start_paused = true)]
async fn an_equal_replica_costs_no_point_read_and_no_write() {
    let bench = agreed();
    for _ in 0..2 {
        let report = audit(&bench, &OPTIONS).await;
        assert_eq!((report.twins, report.documents, counts(&report)), (20, 20, [0; 4]));
        assert!(report.left() == 0 && report.is_complete() && report.findings.is_empty());
    }
    assert!(bench.registry.asked().is_empty() && bench.writes() == 0);
}

#[tokio::test(start_paused = true)]
async fn every_class_is_found_and_only_repaired_where_that_is_wanted() {
    let bench = spoilt();
    let report = audit(&bench, &LOOK).await;
    assert_eq!((counts(&report), report.left(), bench.writes()), ([1, 1, 1, 1], 4, 0));
    let report = audit(&bench, &OPTIONS).await;
    assert_eq!((counts(&report), report.left(), report.still_different), ([1, 1, 1, 1], 0, 0));
    assert_eq!(report.repaired.values().sum::<u64>(), 4);
    let part = |device: &str| {
        report.findings.iter().find(|finding| finding.device_id == device).and_then(|finding| finding.part)
    };
    assert_eq!((part("d02"), part("d01")), (Some("tags"), None));
    assert_eq!(bench.says(&device("d02")), Some((4, json!({"n": "unheard"}))));
    assert_eq!(counts(&audit(&bench, &OPTIONS).await), [0; 4]);
}

#[tokio::test(start_paused = true)]
async fn a_query_that_is_behind_changes_nothing() {
    let bench = agreed();
    bench.registry.hold_view();
    for number in 0..6 {
        let key = device(&format!("d{number:02}"));
        bench.event(&key, updated(4, json!({"n": "new"})));
        bench.registry.set(&key, 4, json!({"n": "new"}));
    }
    bench.agreed(&device("new"), 2, json!({}));
    bench.registry.remove(&device("d07"));
    bench.event(&device("d07"), Change::Deleted);
    bench.pass(7200);
    let before = bench.writes();
    let report = audit(&bench, &OPTIONS).await;
    assert_eq!((counts(&report), report.cleared), ([0; 4], 8));
    assert_eq!(bench.writes(), before);
    assert!(
        bench.document(&device("new")).expect("there").twin().is_some(),
        "an incomplete query must not delete a document"
    );
}

#[tokio::test(start_paused = true)]
async fn what_changed_within_the_tolerance_is_not_asked_about_beyond_the_limit() {
    let bench = agreed();
    bench.event(&device("d01"), updated(4, json!({"n": "new"})));
    bench.event(&device("newer-than-the-query"), created(2, json!({})));
    let report = audit(&bench, &OPTIONS).await;
    assert_eq!((counts(&report), report.recent), ([0; 4], 2));
    assert!(bench.registry.asked().is_empty());
    let all = Options { tolerance: Duration::ZERO, ..LOOK };
    assert_eq!(counts(&audit(&bench, &all).await), [0, 1, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn every_twin_that_changes_all_the_time_is_compared_in_some_audit() {
    let bench = agreed();
    // Their documents are wrong, and they change repeatedly.
    let busy: Vec<_> = (0..8).map(|number| device(&format!("d{number:02}"))).collect();
    for key in &busy {
        bench.registry.set(key, 9, json!({"n": "right"}));
        bench.event(key, updated(4, json!({"n": "wrong"})));
    }
    bench.event(&device("extra"), created(2, json!({})));
    let few = Options { recent_checks: 4, ..OPTIONS };
    let (mut from, mut left) = (0, Vec::new());
    for _ in 0..3 {
        let stop = CancellationToken::new();
        let progress = Progress::default();
        let report = run(&bench.reconciler, &bench.rate_limited, &few, from, &progress, &stop).await;
        let report = report.expect("an audit");
        assert_eq!(report.recent_asked + report.recent, 9 - left.iter().sum::<u64>(), "{report:?}");
        assert_eq!((report.left(), report.still_different), (0, 0), "{report:?}");
        left.push(report.repaired.values().sum());
        from = report.recent_next;
        let undecided =
            format!("twinsync_audit_undecided_twins{{hub=\"h\",reason=\"recent\"}} {}", report.recent);
        assert!(bench.metrics.render().contains(&undecided), "{undecided}");
    }
    assert_eq!(left, [4, 4, 1]);
    assert!(busy.iter().all(|key| bench.says(key) == Some((9, json!({"n": "right"})))));
    assert!(bench.document(&device("extra")).expect("a tombstone").twin().is_none());
}

#[tokio::test(start_paused = true)]
async fn each_audit_asks_about_recently_changed_twins_that_the_last_one_left_out() {
    let bench = agreed();
    for number in 0..6 {
        bench.registry.set(&device(&format!("d{number:02}")), 9, json!({"n": "right"}));
        bench.event(&device(&format!("d{number:02}")), updated(4, json!({"n": "wrong"})));
    }
    let few = Options { recent_checks: 2, ..LOOK };
    let mut from = 0;
    for scan in 1..=3 {
        let stop = CancellationToken::new();
        let progress = Progress::default();
        let report = run(&bench.reconciler, &bench.rate_limited, &few, from, &progress, &stop).await;
        from = report.expect("an audit").recent_next;
        let asked: HashSet<_> = bench.registry.asked().into_iter().collect();
        assert_eq!(asked.len(), scan * 2);
    }
}

#[tokio::test(start_paused = true)]
async fn two_contents_of_one_version_are_asked_about_at_once() {
    let bench = agreed();
    bench.event(&device("d01"), updated(4, json!({"n": "wrong"})));
    bench.registry.set(&device("d01"), 4, json!({"n": "right"}));
    let report = audit(&bench, &OPTIONS).await;
    assert_eq!((counts(&report), report.recent, report.left()), ([0, 0, 1, 0], 0, 0));
    assert_eq!(bench.says(&device("d01")), Some((4, json!({"n": "right"}))));
}

#[tokio::test(start_paused = true)]
async fn a_stamp_from_the_future_is_not_recent_for_ever() {
    let bench = agreed();
    bench.registry.set(&device("d01"), 9, json!({"n": "right"}));
    let future = bench.reconciler.now().after(Duration::from_secs(86_400));
    bench.store.documents.lock().unwrap().get_mut(&device("d01")).expect("there").0.applied_at = future;
    let report = audit(&bench, &OPTIONS).await;
    assert_eq!((counts(&report), report.recent), ([0, 0, 1, 0], 0));
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_nothing_is_known_and_nothing_changes() {
    let bench = spoilt();
    *bench.registry.silent.lock().unwrap() = true;
    let report = audit(&bench, &OPTIONS).await;
    assert_eq!((counts(&report), report.unknown, bench.writes()), ([0; 4], 4, 0));
    assert!(!report.is_complete());
    assert!(
        report
            .findings
            .iter()
            .all(|finding| finding.outcome == FindingOutcome::Unknown && finding.reason.is_some())
    );
    *bench.registry.silent.lock().unwrap() = false;
    assert_eq!(audit(&bench, &OPTIONS).await.left(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_answers_nothing_at_all_ends_the_audit() {
    let bench = Bench::with_pages_of(500);
    for number in 0..GIVE_UP * 4 {
        bench.registry.set(&device(&format!("d{number}")), 2, json!({}));
    }
    *bench.registry.silent.lock().unwrap() = true;
    assert!(matches!(try_audit(&bench, &OPTIONS).await, Err(Ended::Silent { .. })));
    let asked = bench.registry.asked().len() as u64;
    assert!(asked < GIVE_UP * 2 * u64::from(ATTEMPTS), "{asked}");
}

#[tokio::test(start_paused = true)]
async fn a_scan_over_the_documents_that_breaks_off_begins_again() {
    let bench = spoilt();
    *bench.store.broken_scans.lock().unwrap() = 2;
    let report = audit(&bench, &OPTIONS).await;
    assert_eq!((counts(&report), report.documents), ([1, 1, 1, 1], 20));
    *bench.store.broken_scans.lock().unwrap() = 100;
    assert!(matches!(try_audit(&bench, &OPTIONS).await, Err(Ended::Silent { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_sample_is_another_one_each_time_and_about_as_large_as_asked_for() {
    let bench = Bench::with_pages_of(1000);
    for number in 0..2000 {
        bench.agreed(&device(&format!("d{number}")), 2, json!({}));
    }
    bench.pass(7200);
    let tenth = Options { sample: 0.1, ..OPTIONS };
    for _ in 0..3 {
        let report = audit(&bench, &tenth).await;
        assert!((100..320).contains(&report.twins) && report.documents == report.twins, "{report:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn repaired_and_different_again_at_once_is_an_alarm() {
    let bench = spoilt();
    // Another program writes its own version back, repeatedly.
    let store = Arc::clone(&bench.store);
    let watch = tokio::spawn(async move {
        loop {
            if let Some((document, _)) = store.documents.lock().unwrap().get_mut(&device("d02"))
                && document.operation == crate::domain::document::Operation::Snapshot
                && let crate::domain::document::State::Live { twin, .. } = &mut document.state
            {
                twin.tags.insert("opinion".into(), json!(true));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let report = audit(&bench, &OPTIONS).await;
    watch.abort();
    assert_eq!((report.still_different, report.left()), (1, 1), "{:?}", report.findings);
    assert!(bench.metrics.render().contains("twinsync_twins_still_different_total 1"));
}

#[tokio::test(start_paused = true)]
async fn a_change_on_its_way_is_no_alarm() {
    let bench = spoilt();
    let registry = Arc::clone(&bench.registry);
    let mut calls = 0;
    bench.registry.on_get(move |asked| {
        if *asked == device("d02") {
            calls += 1;
            if calls == 1 {
                registry.set(asked, 5, json!({"n": "later still"})); // the event comes a little later
            }
        }
    });
    let report = audit(&bench, &OPTIONS).await;
    assert_eq!((report.still_different, report.unknown), (0, 0));
    assert_eq!(
        bench.says(&device("d02")),
        Some((4, json!({"n": "unheard"}))),
        "the event of the change has not arrived yet"
    );
}

#[tokio::test(start_paused = true)]
async fn a_repaired_twin_that_cannot_be_checked_again_counts_as_unknown() {
    let bench = spoilt();
    let registry = Arc::clone(&bench.registry);
    let mut calls = 0;
    bench.registry.on_get(move |asked| {
        calls += usize::from(*asked == device("d02"));
        if calls == 1 {
            registry.mute.lock().unwrap().insert(device("d02"));
        }
    });
    let report = audit(&bench, &OPTIONS).await;
    assert_eq!((report.still_different, report.unknown), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn rows_that_are_no_twins_make_an_audit_incomplete() {
    let bench = agreed();
    bench.registry.odd.store(2, Ordering::Relaxed);
    assert!(!audit(&bench, &OPTIONS).await.is_complete());
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_an_audit_at_once_and_without_a_report() {
    let bench = spoilt();
    *bench.registry.silent.lock().unwrap() = true;
    let stop = CancellationToken::new();
    let stopper = stop.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        stopper.cancel();
    });
    let started = tokio::time::Instant::now();
    let ended = run(&bench.reconciler, &bench.rate_limited, &OPTIONS, 0, &Progress::default(), &stop).await;
    assert!(matches!(ended, Err(Ended::Stopped)));
    assert!(started.elapsed() < Duration::from_secs(1), "took {:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_no_event_tells_is_brought_in_where_that_is_wanted_and_is_no_difference() {
    for (options, completed, incomplete) in [(LOOK, 0, 20), (OPTIONS, 20, 0)] {
        let bench = agreed();
        bench.registry.identity.store(true, Ordering::Relaxed);
        let report = audit(&bench, &options).await;
        assert_eq!((report.completed, report.incomplete), (completed, incomplete));
        assert!(counts(&report) == [0; 4] && report.left() == 0 && report.is_complete());
        assert!(report.findings.is_empty());
        assert_eq!(bench.writes() as u64, completed);
        bench.pass(7200);
        let again = audit(&bench, &options).await;
        assert_eq!((again.completed, again.incomplete), (0, incomplete));
    }
}

#[tokio::test(start_paused = true)]
async fn what_changed_lately_or_has_no_answer_stays_incomplete_and_is_not_unknown() {
    let bench = agreed();
    bench.registry.identity.store(true, Ordering::Relaxed);
    let recent = Options { tolerance: Duration::from_secs(86_400), ..OPTIONS };
    let report = audit(&bench, &recent).await;
    assert_eq!((report.completed, report.incomplete), (0, 20));
    assert!(bench.registry.asked().is_empty());
    bench.registry.mute.lock().unwrap().insert(device("d05"));
    let report = audit(&bench, &OPTIONS).await;
    assert_eq!((report.completed, report.incomplete, report.unknown), (19, 1, 0));
}
