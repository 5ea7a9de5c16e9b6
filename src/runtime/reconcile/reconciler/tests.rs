//! The order of the reads makes the writes safe: no newer state is lost by changes between them and nothing is changed without
//! an answer.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::{
    super::testing::{Bench, CORRECT, away, created, device, module, stream, updated},
    *,
};
use crate::{
    domain::{document::Flag, drift::Part, event::Change},
    runtime::memory_store::Fault,
};

async fn repair(bench: &Bench, key: &TwinKey) -> Verdict {
    bench.reconciler.reconcile(key, &CORRECT).await.expect("an answer")
}

#[tokio::test]
async fn a_twin_without_a_document_gets_one_and_the_streams_cache_too() {
    let bench = Bench::new();
    let key = device("d");
    bench.registry.set(&key, 7, json!({"a": 1}));
    assert_eq!(repair(&bench, &key).await, Verdict::Corrected(Drift::Missing));
    assert_eq!(bench.says(&key), Some((7, json!({"a": 1}))));
    let (cached, etag) = bench.cache.get(&key).expect("cached");
    assert_eq!((Some(cached.as_ref()), etag.0.as_str()), (bench.document(&key).as_ref(), "1"));
    let writes = bench.writes();
    for _ in 0..2 {
        assert_eq!(repair(&bench, &key).await, Verdict::Equal);
    }
    assert_eq!(bench.writes(), writes, "an equal document must cost no write");
}

#[tokio::test]
async fn a_repair_that_finds_the_hub_gone_back_asks_for_an_audit() {
    let bench = Bench::new();
    let (audits, mut asked) = AuditRequests::channel(Arc::new(crate::ports::SystemClock));
    let (reconciler, [key, other]) = (bench.reconciler_over(audits), ["d", "e"].map(device));
    for key in [&key, &other] {
        bench.agreed(key, 7, json!({"a": 1}));
        bench.event(key, updated(9, json!({"a": 2})));
    }
    // The twin with coalesced changes is repaired. No audit is requested.
    bench.registry.set(&key, 9, json!({"a": 2, "b": 1}));
    reconciler.reconcile(&key, &CORRECT).await.expect("an answer");
    assert!(!asked.has_changed());
    // As after a failover. An audit asks about all twins anyway.
    bench.registry.set(&key, 8, json!({"a": 1, "b": 1}));
    let audit = Task { purpose: Purpose::Audit, ..CORRECT };
    assert!(matches!(reconciler.reconcile(&key, &audit).await, Ok(Verdict::Corrected(_))));
    assert!(!asked.has_changed());
    for (seconds, expected) in [(0, true), (9, false), (1, true)] {
        bench.pass(seconds);
        let (version, _) = bench.says(&other).expect("live");
        bench.registry.set(&other, version - 1, json!({"a": version}));
        reconciler.reconcile(&other, &CORRECT).await.expect("an answer");
        assert_eq!(asked.has_changed(), expected, "not an audit for each twin");
        drop(asked.borrow_and_update());
    }
    assert!(bench.metrics.render().contains("twinsync_twins_went_back_total 3"));
}

#[tokio::test]
async fn only_the_hubs_own_not_found_makes_a_tombstone() {
    let bench = Bench::new();
    let key = device("d");
    bench.event(&key, created(2, json!({})));
    let before = bench.document(&key);
    for trouble in [away(), super::super::testing::trouble(StoreErrorKind::Throttled, None)] {
        bench.registry.gets.lock().unwrap().push_back(trouble);
        bench.reconciler.reconcile(&key, &CORRECT).await.expect_err("no answer");
        assert_eq!(bench.document(&key), before);
    }
    bench.pass(10);
    assert_eq!(repair(&bench, &key).await, Verdict::Corrected(Drift::Extra));
    assert_eq!(bench.document(&key).expect("a tombstone").state, State::Deleted);
    assert_eq!(repair(&bench, &key).await, Verdict::Equal);
    assert_eq!(repair(&bench, &device("never-was")).await, Verdict::Absent);
    assert_eq!(bench.document(&device("never-was")), None);
}

#[tokio::test]
async fn the_source_wins_whatever_versions_say() {
    let bench = Bench::new();
    let key = device("d");
    bench.event(&key, created(40, json!({"ahead": true})));
    bench.registry.set(&key, 3, json!({"back": true}));
    assert_eq!(repair(&bench, &key).await, Verdict::Corrected(Drift::Different(Part::Tags)));
    assert_eq!(bench.says(&key), Some((3, json!({"back": true}))));
}

#[tokio::test]
async fn what_a_stream_writes_in_between_is_never_set_back() {
    let bench = Bench::new();
    let key = device("d");
    bench.event(&key, created(2, json!({"a": 1})));
    bench.registry.set(&key, 5, json!({"a": 5}));
    let (store, clock, registry) =
        (Arc::clone(&bench.store), Arc::clone(&bench.clock), Arc::clone(&bench.registry));
    let rounds = AtomicUsize::new(0);
    bench.registry.on_get(move |key| {
        // The hub and then a stream continue while the answer is on its way, twice.
        let round = rounds.fetch_add(1, Ordering::Relaxed);
        if round < 2 {
            clock.pass(Duration::from_secs(1));
            let version = 6 + round as i64;
            registry.set(key, version, json!({"a": version}));
            stream(&store, key, clock.now(), updated(version, json!({"a": version})));
        }
    });
    repair(&bench, &key).await;
    assert_eq!(bench.says(&key), Some((7, json!({"a": 7}))));
    assert_eq!(bench.registry.asked().len(), 3, "the hub must be asked again after each write in between");
    assert!(!bench.document(&key).expect("a document").is_flagged());
}

#[tokio::test]
async fn a_twin_that_is_expected_to_have_no_document_costs_one_write() {
    let bench = Bench::new();
    let key = device("d");
    bench.registry.set(&key, 5, json!({"a": 5}));
    let verdict = bench.reconciler.bring_in(&key, &CORRECT).await.expect("reconciled");
    assert_eq!(verdict, Verdict::Corrected(Drift::Missing));
    assert_eq!(bench.says(&key), Some((5, json!({"a": 5}))));
    assert_eq!((*bench.store.reads.lock().unwrap(), bench.writes()), (0, 1));
}

#[tokio::test]
async fn a_document_that_comes_into_being_where_none_was_expected_is_never_set_back() {
    let bench = Bench::new();
    let key = device("d");
    bench.registry.set(&key, 5, json!({"a": 5}));
    let (store, clock, registry) =
        (Arc::clone(&bench.store), Arc::clone(&bench.clock), Arc::clone(&bench.registry));
    let mut first = true;
    bench.registry.on_get(move |key| {
        if std::mem::take(&mut first) {
            clock.pass(Duration::from_secs(1));
            registry.set(key, 6, json!({"a": 6}));
            stream(&store, key, clock.now(), updated(6, json!({"a": 6})));
        }
    });
    bench.reconciler.bring_in(&key, &CORRECT).await.expect("reconciled");
    assert_eq!(bench.says(&key), Some((6, json!({"a": 6}))));
    assert!(!bench.document(&key).expect("a document").is_flagged());
    assert_eq!(bench.registry.asked().len(), 2, "an answer from before that document must not be used");
}

#[tokio::test]
async fn a_module_whose_device_ends_while_the_hub_is_asked_about_it_follows_its_device() {
    for expected_missing in [false, true] {
        let bench = Bench::new();
        let (device, key) = (device("d"), module("d", "m"));
        bench.event(&device, created(2, json!({})));
        bench.registry.set(&key, 2, json!({"module": true}));
        bench.pass(60);
        // The stream writes the device's end and finds no module, since this module is not written yet.
        let (store, clock) = (Arc::clone(&bench.store), Arc::clone(&bench.clock));
        bench.registry.on_get(move |key| {
            clock.pass(Duration::from_secs(1));
            stream(&store, &key.parent(), clock.now(), Change::Deleted);
        });
        let write = async || match expected_missing {
            true => bench.reconciler.bring_in(&key, &CORRECT).await,
            false => bench.reconciler.reconcile(&key, &CORRECT).await,
        };
        if !expected_missing {
            // If the read of the device gets no answer, the next try repeats it.
            bench.store.broken.lock().unwrap().push(device.clone());
            write().await.expect_err("the read of the device fails");
            assert!(bench.says(&key).is_some(), "the hub had it when it was asked");
            bench.store.broken.lock().unwrap().clear();
            bench.registry.on_get(|_| {});
            // Compare mode writes nothing. A backfill skips a document that has the version, but still reads its device.
            let compare = Task { mode: Mode::Compare, ..CORRECT };
            bench.reconciler.reconcile(&key, &compare).await.expect("compared");
            assert!(bench.says(&key).is_some());
            let holds = Task { unless: Unless::Holds(TwinVersion(2)), ..CORRECT };
            assert_eq!(bench.reconciler.reconcile(&key, &holds).await.expect("an answer"), Verdict::Spared);
        } else {
            write().await.expect("reconciled");
        }
        assert_eq!(bench.document(&key).expect("a tombstone").state, State::Deleted, "{expected_missing}");
    }
}

#[tokio::test]
async fn a_module_of_an_existing_device_costs_one_read_of_the_device() {
    let bench = Bench::new();
    let (device, key) = (device("d"), module("d", "m"));
    bench.event(&device, created(2, json!({})));
    bench.registry.set(&key, 2, json!({"module": true}));
    bench.pass(60);
    for reads in [2, 1] {
        let before = *bench.store.reads.lock().unwrap();
        repair(&bench, &key).await;
        assert_eq!(*bench.store.reads.lock().unwrap() - before, reads);
    }
    assert_eq!((bench.says(&key).map(|(version, _)| version), bench.writes()), (Some(2), 1));
}

#[tokio::test]
async fn a_twin_that_is_gone_gets_its_tombstone_also_where_no_document_was_expected() {
    let bench = Bench::new();
    let key = device("d");
    assert_eq!(bench.reconciler.bring_in(&key, &CORRECT).await.expect("reconciled"), Verdict::Absent);
    bench.event(&key, created(2, json!({})));
    let verdict = bench.reconciler.bring_in(&key, &CORRECT).await.expect("reconciled");
    assert_eq!(verdict, Verdict::Corrected(Drift::Extra));
    assert_eq!(bench.says(&key), None);
    bench.registry.set(&key, 3, json!({}));
    let look = Task { mode: Mode::Compare, ..CORRECT };
    let verdict = bench.reconciler.bring_in(&device("e"), &look).await.expect("reconciled");
    assert_eq!(verdict, Verdict::Absent, "compare mode must create nothing");
    assert_eq!(bench.document(&device("e")), None);
}

#[tokio::test]
async fn a_document_that_never_stands_still_is_left_for_later() {
    let bench = Bench::new();
    let key = device("d");
    bench.event(&key, created(2, json!({})));
    bench.registry.set(&key, 50, json!({"a": 1}));
    let (store, clock) = (Arc::clone(&bench.store), Arc::clone(&bench.clock));
    let version = AtomicUsize::new(2);
    bench.registry.on_get(move |key| {
        clock.pass(Duration::from_secs(1));
        let next = version.fetch_add(1, Ordering::Relaxed) as i64 + 1;
        stream(&store, key, clock.now(), updated(next, json!({"step": next})));
    });
    bench.reconciler.reconcile(&key, &CORRECT).await.expect_err("a document that keeps changing");
    assert_eq!(bench.registry.asked().len(), CYCLES as usize);
}

#[tokio::test]
async fn what_cannot_be_read_is_replaced_or_gets_a_tombstone_over_it() {
    let bench = Bench::new();
    let (there, gone) = (device("there"), device("gone"));
    bench.registry.set(&there, 4, json!({"a": 1}));
    for key in [&there, &gone] {
        bench.store.damaged.lock().unwrap().insert(key.clone(), 9);
    }
    assert_eq!(repair(&bench, &there).await, Verdict::Corrected(Drift::Different(Part::Damaged)));
    assert_eq!(bench.says(&there), Some((4, json!({"a": 1}))));
    let orphan = module("gone", "m");
    bench.event(&orphan, created(2, json!({})));
    bench.pass(5);
    assert_eq!(repair(&bench, &gone).await, Verdict::Corrected(Drift::Extra));
    assert_eq!(bench.document(&gone).expect("a tombstone").state, State::Deleted);
    assert_eq!(
        bench.document(&orphan).expect("a tombstone").state,
        State::Deleted,
        "it must follow its device"
    );
}

#[tokio::test]
async fn compare_mode_writes_nothing_and_reports_the_difference() {
    let bench = Bench::new();
    let look = Task { mode: Mode::Compare, ..CORRECT };
    let (missing, extra, other) = (device("missing"), device("extra"), device("other"));
    bench.registry.set(&missing, 2, json!({}));
    bench.event(&extra, created(2, json!({})));
    bench.agreed(&other, 2, json!({"a": 1}));
    bench.registry.set(&other, 2, json!({"a": 2}));
    for (key, drift) in
        [(&missing, Drift::Missing), (&extra, Drift::Extra), (&other, Drift::Different(Part::Tags))]
    {
        assert_eq!(bench.reconciler.reconcile(key, &look).await.expect("an answer"), Verdict::Differs(drift));
    }
    assert_eq!(bench.writes(), 0);
}

#[tokio::test]
async fn a_document_that_needs_no_check_costs_no_call() {
    let bench = Bench::new();
    let key = device("d");
    bench.event(&key, created(5, json!({})));
    let spares = [Unless::Unflagged, Unless::Holds(TwinVersion(5)), Unless::Holds(TwinVersion(4))];
    for unless in spares {
        let verdict = bench.reconciler.reconcile(&key, &Task { unless, ..CORRECT }).await.expect("an answer");
        assert_eq!(verdict, Verdict::Spared, "{unless:?}");
    }
    let absent = Task { unless: Unless::Unflagged, ..CORRECT };
    assert_eq!(bench.reconciler.reconcile(&device("x"), &absent).await.expect("an answer"), Verdict::Spared);
    assert!(bench.registry.asked().is_empty());
    bench.registry.set(&key, 6, json!({}));
    let behind = Task { unless: Unless::Holds(TwinVersion(6)), ..CORRECT };
    let verdict = bench.reconciler.reconcile(&key, &behind).await.expect("an answer");
    assert_eq!(verdict, Verdict::Corrected(Drift::Different(Part::Version)));
    // If it is flagged, it is reconciled whatever version it holds.
    bench.pass(1);
    bench.event(&key, updated(9, json!({"skipped": true})));
    assert!(bench.document(&key).expect("a document").flags.contains(&Flag::Gap));
    bench.registry.set(&key, 9, json!({"whole": true}));
    let verdict =
        bench.reconciler.reconcile(&key, &Task { unless: Unless::Holds(TwinVersion(2)), ..CORRECT }).await;
    assert_eq!(verdict.expect("an answer"), Verdict::Corrected(Drift::Different(Part::Tags)));
}

#[tokio::test]
async fn a_write_whose_reply_is_lost_is_found_done() {
    let bench = Bench::new();
    let key = device("d");
    bench.registry.set(&key, 3, json!({"a": 1}));
    // The document is read first.
    bench.reconciler.reconcile(&key, &Task { mode: Mode::Compare, ..CORRECT }).await.expect("an answer");
    *bench.store.script.lock().unwrap() = [].into();
    let store = Arc::clone(&bench.store);
    bench.registry.on_get(move |_| {
        let mut script = store.script.lock().unwrap();
        if script.is_empty() && *store.writes.lock().unwrap() == 0 {
            script.push_back(Fault::ApplyThenFail);
        }
    });
    bench.reconciler.reconcile(&key, &CORRECT).await.expect_err("the reply is lost");
    assert_eq!(repair(&bench, &key).await, Verdict::Equal);
    assert_eq!((bench.writes(), bench.says(&key)), (1, Some((3, json!({"a": 1})))));
}

/// Each case: the hub's state when the write had no answer, and the hub's state at the next try.
#[tokio::test]
async fn a_write_without_an_answer_cannot_be_performed_after_the_next_reconciliation() {
    let (key, tags) = (module("d", "m"), || json!({"a": 1}));
    for (stored, first, then) in [
        // Created without an answer, then deleted at the hub.
        (None, Some(3), None),
        // Made a tombstone without an answer, then restored as it was.
        (Some(2), None, Some(2)),
        // Replaced without an answer, then the hub went back to what is stored.
        (Some(2), Some(3), Some(2)),
    ] {
        let bench = Bench::new();
        let says = |version: Option<i64>| match version {
            Some(version) => bench.registry.set(&key, version, tags()),
            None => bench.registry.remove(&key),
        };
        if let Some(version) = stored {
            bench.agreed(&key, version, tags());
            repair(&bench, &key).await;
        }
        bench.pass(10);
        says(first);
        bench.store.script.lock().unwrap().push_back(Fault::ApplyLater);
        let case = format!("{stored:?}, {first:?}, {then:?}");
        bench.reconciler.reconcile(&key, &CORRECT).await.expect_err(&case);
        says(then);
        let look = Task { mode: Mode::Compare, ..CORRECT };
        let looked = bench.reconciler.reconcile(&key, &look).await.expect("an answer");
        assert!(
            matches!(looked, Verdict::Absent | Verdict::Equal),
            "{case}: document and twin must be equal: {looked:?}"
        );
        let before = bench.writes();
        repair(&bench, &key).await;
        assert_eq!(bench.writes(), before + 1, "{case}: one write must follow");
        assert!(matches!(bench.store.perform_late()[..], [Write::Conflict]), "{case}");
        assert_eq!(bench.says(&key), then.map(|version| (version, tags())), "{case}");
        let before = bench.writes();
        repair(&bench, &key).await;
        assert_eq!(bench.writes(), before, "{case}: a second write is not needed");
    }
}

#[tokio::test]
async fn a_late_creation_that_came_first_is_found_and_gets_its_tombstone() {
    let bench = Bench::new();
    let key = device("d");
    bench.registry.set(&key, 3, json!({}));
    bench.store.script.lock().unwrap().push_back(Fault::ApplyLater);
    bench.reconciler.reconcile(&key, &CORRECT).await.expect_err("no answer");
    bench.registry.remove(&key);
    let store = Arc::clone(&bench.store);
    bench.registry.on_get(move |_| drop(store.perform_late()));
    assert_eq!(repair(&bench, &key).await, Verdict::Corrected(Drift::Extra));
    assert_eq!(bench.document(&key).expect("a tombstone").state, State::Deleted);
}

#[tokio::test]
async fn what_the_store_never_takes_is_told_and_changes_nothing() {
    let bench = Bench::new();
    let key = device("d");
    bench.registry.set(&key, 3, json!({}));
    let store = Arc::clone(&bench.store);
    bench.registry.on_get(move |_| store.script.lock().unwrap().push_back(Fault::Reject));
    assert_eq!(repair(&bench, &key).await, Verdict::Rejected(Drift::Missing, "too large".into()));
    assert!(bench.metrics.render().contains("twinsync_twins_rejected_total 1"));
}

#[tokio::test]
async fn modules_of_a_device_that_is_gone_are_asked_about_one_by_one() {
    let bench = Bench::new();
    let key = device("d");
    let (dead, alive) = (module("d", "dead"), module("d", "alive"));
    for key in [&key, &dead, &alive] {
        bench.event(key, created(2, json!({})));
    }
    // A hub that answers like this contradicts itself. Each answer is accepted for its twin.
    bench.registry.set(&alive, 2, json!({}));
    bench.pass(5);
    assert_eq!(repair(&bench, &key).await, Verdict::Corrected(Drift::Extra));
    assert_eq!(bench.document(&dead).expect("a tombstone").state, State::Deleted);
    assert!(bench.document(&alive).expect("a document").twin().is_some());
    assert_eq!(bench.document(&key).expect("a tombstone").cascade, None, "the cascade must be done");
    assert_eq!(bench.registry.asked(), [key, alive, dead]);
}

#[tokio::test]
async fn a_cascade_cut_short_by_a_crash_is_finished_by_the_next_reconciliation() {
    let bench = Bench::new();
    let (key, module) = (device("d"), module("d", "m"));
    for key in [&key, &module] {
        bench.event(key, created(2, json!({})));
    }
    bench.pass(5);
    let (store, device) = (Arc::clone(&bench.store), key.clone());
    // The store fails right after the device's write.
    bench.registry.on_get(move |key| {
        if *key == device {
            store.script.lock().unwrap().extend([Fault::ApplyThenFail, Fault::Fail]);
        }
    });
    bench.reconciler.reconcile(&key, &CORRECT).await.expect_err("the store is away");
    assert!(
        bench.document(&module).expect("a document").twin().is_some(),
        "the module must not be deleted yet"
    );
    bench.store.script.lock().unwrap().clear();
    bench.registry.on_get(|_| {});
    // The scan over flagged documents finds the device, since the cascade is in its tombstone.
    let found: Vec<_> = futures::StreamExt::collect(
        bench.reconciler.budgeted_store().scan(crate::ports::Which::Flagged, Purpose::Repair),
    )
    .await;
    let found: Vec<_> = found.into_iter().flat_map(|page| page.expect("a page")).collect();
    assert_eq!(found.len(), 1);
    let repair = Task { unless: Unless::Unflagged, ..CORRECT };
    assert_eq!(bench.reconciler.reconcile(&found[0].key, &repair).await.expect("an answer"), Verdict::Spared);
    assert_eq!(bench.document(&module).expect("a tombstone").state, State::Deleted);
    assert_eq!(bench.document(&key).expect("a tombstone").cascade, None);
}

#[tokio::test]
async fn twins_of_a_hub_that_nobody_can_ask_stay_as_they_are() {
    let bench = Bench::new();
    let key = TwinKey::device("elsewhere", "d");
    bench.event(&key, created(2, json!({})));
    assert_eq!(repair(&bench, &key).await, Verdict::ForeignHub);
    assert!(bench.registry.asked().is_empty() && bench.writes() == 0);
    // Hub names are compared without case.
    assert_eq!(repair(&bench, &TwinKey::device("H", "x")).await, Verdict::Absent);
}

#[tokio::test]
async fn events_that_an_answer_contains_raise_no_flag_afterwards() {
    let bench = Bench::new();
    let key = device("d");
    bench.registry.set(&key, 9, json!({"a": 9}));
    bench.pass(60);
    repair(&bench, &key).await;
    let repaired = bench.document(&key);
    let earlier = Ticks::new(bench.clock.now().get() - 100);
    for change in [created(2, json!({})), updated(5, json!({"a": 5})), Change::Deleted] {
        stream(&bench.store, &key, earlier, change);
    }
    let document = bench.document(&key).expect("a document");
    assert!(!document.is_flagged());
    assert_eq!(document.twin(), repaired.as_ref().and_then(Document::twin));
}

#[tokio::test]
async fn a_document_of_another_twin_is_never_written() {
    let bench = Bench::new();
    let (key, other) = (device("d"), device("e"));
    bench.event(&other, created(2, json!({})));
    let document = bench.document(&other).expect("it was created");
    let written = bench.reconciler.budgeted_store().write(&key, &document, None, Purpose::Repair).await;
    assert!(matches!(written, Write::Rejected(_)), "{written:?}");
    assert_eq!(bench.document(&key), None);
    let line = "twinsync_invariant_violations_total{invariant=\"document_is_of_its_twin\"} 1";
    assert!(bench.metrics.render().contains(line));
}
