//! The read-modify-write cycle with a store that loses replies, rejects writes and has other writers.

use std::collections::VecDeque;

use proptest::{collection, prelude::*};
use serde_json::json;
use twinsync::domain::{
    decide::{Decision, decide},
    document::{Cascade, Document, ETag, Flag, Operation, State},
    event::{Change, TwinEvent},
    ticks::Ticks,
    twin::{Sections, TwinVersion},
    upsert::{Action, EventOutcome, Upsert},
};

use crate::{
    convergence::{UNHURRIED, equal, is_flagged},
    delivery::{Order, Random, deliver},
    hub::{Hub, key},
    store::{Fault, NOW, Outcome, RULES, Store},
};

fn event(at: i64, change: Change) -> TwinEvent {
    TwinEvent { key: key(), at: Ticks::new(at), change }
}

fn tags(value: serde_json::Value) -> Sections {
    Sections { tags: value.as_object().cloned(), ..Sections::default() }
}

fn created(at: i64) -> TwinEvent {
    event(at, Change::Created { version: TwinVersion(2), twin: tags(json!({"a": 0})) })
}

fn updated(at: i64, version: i64) -> TwinEvent {
    event(at, Change::Updated { version: TwinVersion(version), patch: tags(json!({ "a": version })).into() })
}

fn decisions(outcome: &Outcome) -> Vec<Decision> {
    outcome
        .outcomes
        .iter()
        .map(|outcome| match outcome {
            EventOutcome::Decided(decision) => *decision,
            EventOutcome::Rejected(reason) | EventOutcome::Foreign(reason) => panic!("rejected: {reason}"),
        })
        .collect()
}

fn store_with(faults: impl IntoIterator<Item = Fault>) -> Store {
    let mut store = Store::default();
    store.bring(vec![created(10)], None);
    store.faults = faults.into_iter().collect();
    (store.reads, store.writes) = (0, 0);
    store
}

fn stored_version(store: &Store) -> i64 {
    store.document().expect("stored").twin().expect("content").version.0
}

#[test]
fn a_batch_costs_one_read_and_one_write() {
    let mut store = Store::default();
    let outcome = store.bring(vec![created(10), updated(11, 3), updated(12, 4)], None);
    assert_eq!(decisions(&outcome), [Decision::Applied; 3]);
    assert_eq!((store.reads, store.writes, stored_version(&store)), (1, 1, 4));
    assert_eq!(outcome.cached.expect("known").0.as_ref(), &store.document().expect("stored"));
}

#[test]
fn a_cached_document_spares_the_read() {
    let mut store = Store::default();
    let cached = store.bring(vec![created(10)], None).cached;
    store.reads = 0;
    store.bring(vec![updated(11, 3)], cached);
    assert_eq!((store.reads, stored_version(&store)), (0, 3));
}

#[test]
fn duplicates_cost_no_write() {
    let mut store = store_with([]);
    let cached = store.bring(vec![updated(11, 3)], None).cached;
    (store.reads, store.writes) = (0, 0);
    let outcome = store.bring(vec![created(10), updated(11, 3), updated(11, 3)], cached);
    assert_eq!(decisions(&outcome), [Decision::Duplicate; 3]);
    assert_eq!((store.reads, store.writes), (0, 0));
}

#[test]
fn a_lost_reply_is_recognised_as_our_own_write_and_keeps_the_decisions() {
    for (mut store, events) in [
        (Store::default(), vec![created(10), updated(11, 3)]),
        (store_with([]), vec![updated(11, 3), updated(12, 4)]),
    ] {
        store.faults = VecDeque::from([Fault::ApplyThenFail]);
        let mut clock = NOW.get();
        let outcome = store.bring_at(events, None, &mut || {
            clock += 1;
            Ticks::new(clock)
        });
        assert_eq!(decisions(&outcome), [Decision::Applied; 2]);
        assert_eq!(store.writes, 1, "the write is not repeated");
        assert!(outcome.cached.is_some());
    }
}

#[test]
fn a_store_that_spells_numbers_in_another_way_does_not_hide_our_own_write() {
    let mut store = store_with([Fault::ApplyThenFail]);
    let patch = tags(json!({"a": 1.0, "b": {"c": [1.0, 2]}}));
    let update = Change::Updated { version: TwinVersion(3), patch: patch.into() };
    let outcome = store.bring(vec![event(11, update)], None);
    assert_eq!(decisions(&outcome), [Decision::Applied]);
    assert_eq!(store.writes, 1);
}

#[test]
fn an_equal_snapshot_costs_no_write_however_numbers_are_spelt() {
    let snapshot = |number| Change::Snapshot { version: TwinVersion(3), twin: tags(json!({ "a": number })) };
    let mut store = Store::default();
    store.bring(vec![event(10, snapshot(1.0))], None);
    let outcome = store.bring(vec![event(20, snapshot(1.0))], None);
    assert_eq!((decisions(&outcome), store.writes), (vec![Decision::Duplicate], 1));
    let outcome = store.bring(vec![event(20, snapshot(1.5))], None);
    assert_eq!((decisions(&outcome), store.writes), (vec![Decision::Applied], 2));
}

#[test]
fn a_write_that_got_lost_is_done_again() {
    let mut store = store_with([Fault::Lose, Fault::Lose]);
    let outcome = store.bring(vec![updated(11, 3)], None);
    assert_eq!(decisions(&outcome), [Decision::Applied]);
    assert_eq!((store.writes, stored_version(&store)), (1, 3));
}

#[test]
fn a_conflict_reads_the_document_again_and_decides_again() {
    let mut store = store_with([Fault::Overtake(vec![updated(11, 3)])]);
    let outcome = store.bring(vec![updated(11, 3), updated(12, 4)], None);
    assert_eq!(decisions(&outcome), [Decision::Duplicate, Decision::Applied]);
    assert_eq!(stored_version(&store), 4);
    assert!(store.document().expect("stored").flags.is_empty());
}

#[test]
fn a_create_that_another_writer_won_becomes_a_replace() {
    let mut store = Store::default();
    store.faults = VecDeque::from([Fault::Overtake(vec![created(10)])]);
    let outcome = store.bring(vec![created(10), updated(11, 3)], None);
    assert_eq!(decisions(&outcome), [Decision::Duplicate, Decision::Applied]);
    assert_eq!(stored_version(&store), 3);
}

#[test]
fn our_write_with_another_on_top_is_not_written_again() {
    let mut store = store_with([Fault::ApplyThenOvertake(vec![updated(12, 4)])]);
    let outcome = store.bring(vec![updated(11, 3)], None);
    assert_eq!(decisions(&outcome), [Decision::Duplicate]);
    assert_eq!((store.writes, stored_version(&store)), (2, 4));
}

#[test]
fn a_document_that_vanished_is_created_again() {
    let mut store = Store::default();
    store.bring(vec![event(10, Change::Deleted)], None);
    store.faults = VecDeque::from([Fault::Vanish]);
    let outcome = store.bring(vec![created(11)], None);
    assert_eq!(decisions(&outcome), [Decision::Applied]);
    let document = store.document().expect("stored");
    assert_eq!((document.previous, document.ttl_seconds), (None, None));
}

#[test]
fn a_stale_cache_is_found_out_by_the_condition() {
    let mut store = Store::default();
    let stale = store.bring(vec![created(10)], None).cached;
    store.bring(vec![updated(11, 3)], None);
    let outcome = store.bring(vec![updated(12, 4)], stale);
    assert_eq!(decisions(&outcome), [Decision::Applied]);
    assert!(
        store.document().expect("stored").flags.is_empty(),
        "no gap: the decision used the stored document"
    );
}

#[test]
fn a_damaged_document_of_a_module_is_replaced_and_flagged_by_a_cascade() {
    let reborn = event(20, Change::ParentReborn);
    let mut upsert = Upsert::new(vec![reborn.clone()], None, RULES);
    assert!(matches!(upsert.action(NOW), Action::Read));
    upsert.damaged(ETag("e".into()));
    let Action::Replace(document, etag) = upsert.action(NOW) else { panic!("the document is not replaced") };
    assert!(
        etag.0 == "e" && document.is_flagged() && document.refused >= Some(Ticks::new(20)),
        "{document:?}"
    );
    // Without a document there is no module that has to follow.
    let mut upsert = Upsert::new(vec![reborn], None, RULES);
    assert!(matches!(upsert.action(NOW), Action::Read));
    upsert.absent();
    assert!(matches!(upsert.action(NOW), Action::Done));
}

#[test]
fn one_rejected_event_costs_its_neighbours_nothing() {
    let mut store = store_with([]);
    store.poison = Some("POISON");
    let poison =
        event(13, Change::Updated { version: TwinVersion(5), patch: tags(json!({"big": "POISON"})).into() });
    let outcome = store.bring(vec![updated(11, 3), updated(12, 4), poison, updated(14, 6)], None);
    let decided = EventOutcome::Decided;
    assert_eq!(
        outcome.outcomes,
        [
            decided(Decision::Applied),
            decided(Decision::Applied),
            EventOutcome::Rejected("too large".into()),
            decided(Decision::Gap),
        ]
    );
    let document = store.document().expect("stored");
    assert_eq!(stored_version(&store), 6);
    assert!(document.flags.contains(&Flag::Gap), "the missing event leaves a gap");
}

#[test]
fn a_single_rejected_event_changes_nothing() {
    let mut store = Store::default();
    store.poison = Some("hub");
    let outcome = store.bring(vec![created(10)], None);
    assert_eq!(outcome.outcomes, [EventOutcome::Rejected("too large".into())]);
    assert_eq!((store.document(), outcome.cached.is_none()), (None, true));
}

/// A second snapshot in the same instant differs in its content only.
#[test]
fn a_snapshot_with_other_content_is_written_even_at_the_same_version_and_time() {
    let snapshot = |number| Change::Snapshot { version: TwinVersion(3), twin: tags(json!({ "a": number })) };
    let mut store = Store::default();
    let cached = store.bring(vec![event(10, snapshot(1))], None).cached;
    store.bring(vec![event(10, snapshot(2))], cached);
    assert_eq!(store.document().expect("stored").twin().expect("content").tags["a"], 2);
}

#[test]
fn what_cannot_be_read_is_replaced_under_its_etag_and_flagged() {
    let mut store = Store::default();
    store.put(r#"{"id": "pump", "something": "else"}"#);
    let outcome = store.bring(vec![created(10), updated(11, 3)], None);
    assert_eq!(decisions(&outcome), [Decision::Applied; 2]);
    let document = store.document().expect("readable");
    assert_eq!(document.flags.iter().collect::<Vec<_>>(), [&Flag::Suspect]);
    assert_eq!(document.refused, Some(Ticks::new(11)));
}

#[test]
fn nothing_is_written_before_something_was_read() {
    let mut upsert = Upsert::new(vec![created(10)], None, RULES);
    assert!(matches!(upsert.action(NOW), Action::Read));
    upsert.absent();
    assert!(matches!(upsert.action(NOW), Action::Create(_)));
    upsert.unsure();
    assert!(matches!(upsert.action(NOW), Action::Read));
}

#[test]
fn no_events_need_no_store() {
    assert!(matches!(Upsert::new(Vec::new(), None, RULES).action(NOW), Action::Done));
}

#[test]
fn an_added_event_is_decided_on_the_document_written_before_it() {
    let mut store = store_with([]);
    let mut upsert = Upsert::new(vec![updated(11, 3)], store.bring(Vec::new(), None).cached, RULES);
    assert!(matches!(upsert.action(NOW), Action::Read));
    let document = std::sync::Arc::new(store.document().expect("stored"));
    upsert.found(document, ETag("1".into()));
    assert!(matches!(upsert.action(NOW), Action::Replace(..)));
    upsert.written(ETag("2".into()));
    assert!(matches!(upsert.action(NOW), Action::Done));
    upsert.add(event(12, Change::Deleted));
    let Action::Replace(document, etag) = upsert.action(NOW) else {
        panic!("no write");
    };
    assert_eq!((document.state.clone(), etag.0.as_str()), (State::Deleted, "2"));
}

#[test]
fn a_new_incarnation_is_reported_whatever_the_result_of_the_write() {
    let mut store = Store::default();
    assert_eq!(store.bring(vec![created(10)], None).incarnation, Some(Ticks::new(10)));
    assert_eq!(store.bring(vec![updated(11, 3)], None).incarnation, None);
    store.faults = VecDeque::from([Fault::ApplyThenFail]);
    assert_eq!(store.bring(vec![updated(12, 4)], None).incarnation, None);
    assert_eq!(store.bring(vec![event(13, Change::Deleted)], None).incarnation, None);
    for fault in [Fault::ApplyThenFail, Fault::ApplyThenOvertake(vec![updated(15, 3)])] {
        let mut store = Store::default();
        store.faults = VecDeque::from([fault]);
        assert_eq!(store.bring(vec![created(14)], None).incarnation, Some(Ticks::new(14)));
        // The same, as after a crash between the write and the check of the device.
        assert_eq!(store.bring(vec![created(14)], None).incarnation, Some(Ticks::new(14)));
    }
}

#[test]
fn a_deletion_and_a_re_creation_in_one_batch_still_cascade_the_modules() {
    let mut store = store_with([]);
    let mut upsert = Upsert::new(vec![event(20, Change::Deleted), created(21)], None, RULES);
    assert!(matches!(upsert.action(NOW), Action::Read));
    let document = std::sync::Arc::new(store.document().expect("stored"));
    upsert.found(document, ETag("1".into()));
    assert!(matches!(upsert.action(NOW), Action::Replace(..)));
    upsert.written(ETag("2".into()));
    assert_eq!(upsert.cascade(), Some(Cascade::Deleted(Ticks::new(20))));
    upsert.cascaded();
    assert_eq!(upsert.cascade(), None);
    store.faults.clear();
}

#[test]
fn events_without_a_document_of_their_own_end_and_nothing_is_written() {
    let batch = || vec![created(10), updated(11, 3), updated(12, 4)];
    let ended = |finish: fn(&mut Upsert), expected: EventOutcome| {
        let mut upsert = Upsert::new(batch(), None, RULES);
        assert!(matches!(upsert.action(NOW), Action::Read));
        finish(&mut upsert);
        assert!(matches!(upsert.action(NOW), Action::Done));
        assert_eq!(upsert.finish().0, vec![expected.clone(); 3]);
        // The same after an event that was decided already: the batch is written one by one.
        let mut upsert = Upsert::new(batch(), None, RULES);
        upsert.absent();
        assert!(matches!(upsert.action(NOW), Action::Create(_)));
        upsert.rejected("too large".into());
        assert!(matches!(upsert.action(NOW), Action::Read));
        upsert.absent();
        assert!(matches!(upsert.action(NOW), Action::Create(_)));
        upsert.written(ETag("1".into()));
        assert!(matches!(upsert.action(NOW), Action::Replace(..)));
        upsert.unsure();
        assert!(matches!(upsert.action(NOW), Action::Read));
        finish(&mut upsert);
        assert!(matches!(upsert.action(NOW), Action::Done));
        let applied = EventOutcome::Decided(Decision::Applied);
        assert_eq!(upsert.finish().0, [applied, expected.clone(), expected]);
    };
    ended(|upsert| upsert.foreign("of fan"), EventOutcome::Foreign("of fan".into()));
    ended(|upsert| upsert.refused("an id with /"), EventOutcome::Rejected("an id with /".into()));
}

#[test]
fn whoever_gives_up_has_all_events_in_their_order() {
    let events = vec![created(10), updated(11, 3)];
    assert_eq!(Upsert::new(events.clone(), None, RULES).give_up(), events);
}

/// The document after these events.
fn after(events: &[TwinEvent]) -> Document {
    let mut document = None;
    for event in events {
        decide(&mut document, event, NOW, &RULES);
    }
    document.expect("stored")
}

#[test]
fn a_module_that_began_before_its_device_ended_ends_with_it() {
    let device = |ended| after(&[created(1), event(ended, Change::Deleted)]);
    for (device, expected) in [
        (Some(device(15)), true),
        (Some(device(11)), true),
        (Some(device(10)), false), // the device ended, and the module began in a new one
        (Some(device(9)), false),
        (Some(after(&[created(1)])), false),
        (None, false),
    ] {
        let mut upsert = Upsert::new(vec![created(10)], None, RULES);
        assert!(matches!(upsert.action(NOW), Action::Read));
        upsert.absent();
        assert!(matches!(upsert.action(NOW), Action::Create(_)));
        upsert.written(ETag("1".into()));
        assert!(matches!(upsert.action(NOW), Action::Done));
        assert_eq!(upsert.checked_device(device.as_ref()), expected, "{device:?}");
        match upsert.action(NOW) {
            Action::Replace(document, _) => assert!(expected && document.state == State::Deleted),
            other => assert!(!expected && matches!(other, Action::Done), "{other:?}"),
        }
        assert!(!upsert.checked_device(device.as_ref()), "the incarnation has been checked");
    }
}

#[test]
fn the_modules_of_a_deletion_follow_it_and_not_what_comes_late() {
    let deletion = event(20, Change::Deleted);
    let replaced = event(12, Change::Replaced { version: TwinVersion(4), twin: tags(json!({})) });
    let tombstone = after(&[created(10), deletion.clone()]);
    // A change that cannot be of the ended incarnation leaves a flag, and the tombstone is not the deletion's any more.
    let flagged = Document { operation: Operation::Flag, flags: [Flag::Suspect].into(), ..tombstone.clone() };
    let again = after(&[created(10), deletion.clone(), created(30)]);
    let owed = Some(Cascade::Deleted(Ticks::new(20)));
    for (document, events, expected) in [
        (&tombstone, vec![deletion.clone()], owed),
        (&tombstone, vec![updated(11, 3), deletion.clone()], owed),
        (&tombstone, vec![updated(11, 3)], None),
        (&tombstone, vec![updated(11, 3), replaced], None),
        (&flagged, vec![updated(11, 3)], owed),
        (&again, vec![updated(11, 3)], owed),
    ] {
        let only_changes = !events.contains(&deletion);
        let cached = (std::sync::Arc::new(document.clone()), ETag("1".into()));
        let upsert = Upsert::new(events, Some(cached), RULES);
        assert_eq!(upsert.cascade(), expected, "{document:?}");
        assert_eq!(upsert.holds_changes_only(), only_changes);
    }
}

/// Two writers may differ in `applied_at` only.
fn content(document: Option<Document>) -> Option<Document> {
    document.map(|document| Document { applied_at: NOW, ..document })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn faults_do_not_change_the_final_document(
        seed in any::<u64>(), script in collection::vec((0..8_u8, 0..4_usize), 0..25), order in 0..4_usize
    ) {
        let mut hub = Hub::new(seed, UNHURRIED);
        let mut random = Random::new(seed);
        hub.live(random.between(1, 12) as usize);
        let delivered = deliver(&mut random, &hub.events, Order::ALL[order]);
        let mut expected = None;
        for event in &delivered {
            decide(&mut expected, event, NOW, &RULES);
        }

        let (mut store, mut cached, mut clock) = (Store::default(), None, NOW.get());
        let (mut rest, mut script) = (&delivered[..], script.into_iter());
        while !rest.is_empty() {
            let (batch, behind) = rest.split_at((random.between(1, 5) as usize).min(rest.len()));
            rest = behind;
            // Another writer is a second replica that has received a part of the same events.
            let theirs = |many: usize| batch[..many.min(batch.len())].to_vec();
            store.faults = script.by_ref().take(3).map(|(fault, many)| match fault {
                0 => Fault::ApplyThenFail,
                1 => Fault::Lose,
                2 => Fault::Overtake(theirs(many)),
                3 => Fault::ApplyThenOvertake(theirs(many)),
                _ => Fault::Pass,
            }).collect();
            let outcome = store.bring_at(batch.to_vec(), cached.take(), &mut || {
                clock += 10;
                Ticks::new(clock)
            });
            prop_assert_eq!(outcome.outcomes.len(), batch.len());
            cached = outcome.cached.filter(|_| random.chance(60));
        }
        let stored = store.document();
        if order == 0 {
            prop_assert_eq!(content(stored), content(expected));
        } else {
            // A batch that is decided twice is a replay of both streams. Which flags it sets or avoids is open.
            prop_assert!(is_flagged(stored.as_ref()) || equal(stored.as_ref(), hub.device()), "{stored:?}");
            store.faults.clear();
            store.bring(vec![hub.get()], None);
            let stored = store.document();
            prop_assert!(!is_flagged(stored.as_ref()) && equal(stored.as_ref(), hub.device()), "{stored:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    /// Documents are changed in place, and a change is detected by the decisions and `Document::marks`. Copying and
    /// comparing documents must give the same writes, and no write in the same cases.
    #[test]
    fn changing_a_document_in_place_writes_the_same_as_changing_a_copy(seed in any::<u64>(), order in 0..4_usize, asks in any::<bool>()) {
        let mut hub = Hub::new(seed, UNHURRIED);
        let mut random = Random::new(seed);
        hub.live(random.between(1, 12) as usize);
        let mut delivered = deliver(&mut random, &hub.events, Order::ALL[order]);
        if asks {
            // The answer of the registry, once more the same answer, and an event that cannot be applied.
            let at = random.between(0, delivered.len() as i64) as usize;
            let unapplied = TwinEvent { change: Change::Unapplied, ..hub.get() };
            delivered.splice(at..at, [hub.get(), hub.get(), unapplied]);
        }
        let (mut stored, mut clock, mut rest) = (None::<Document>, NOW.get(), &delivered[..]);
        while !rest.is_empty() {
            let (batch, behind) = rest.split_at((random.between(1, 5) as usize).min(rest.len()));
            rest = behind;
            clock += i64::from(random.chance(50));
            let (now, mut expected) = (Ticks::new(clock), stored.clone());
            for event in batch {
                decide(&mut expected, event, now, &RULES);
            }
            let etag = ETag("1".into());
            let shared = random.chance(50);
            let current = stored.clone().map(std::sync::Arc::new);
            let cached = current.clone().map(|document| (document, etag.clone()));
            let other = current.filter(|_| shared);
            let mut upsert = Upsert::new(batch.to_vec(), cached, RULES);
            let mut action = upsert.action(now);
            if matches!(action, Action::Read) {
                prop_assert!(stored.is_none());
                upsert.absent();
                action = upsert.action(now);
            }
            match action {
                Action::Create(document) | Action::Replace(document, _) => {
                    prop_assert_eq!(Some(document.as_ref()), expected.as_ref());
                    // A second request for the action, as after a throttled write, gives the same document.
                    let (Action::Create(again) | Action::Replace(again, _)) = upsert.action(Ticks::new(clock + 9)) else {
                        panic!("no write");
                    };
                    prop_assert_eq!(&again, &document);
                    upsert.written(etag);
                }
                Action::Done => prop_assert_eq!(&expected, &stored, "a change was not written"),
                Action::Read => panic!("read a second time"),
            }
            prop_assert!(matches!(upsert.action(now), Action::Done));
            if let Some(other) = &other {
                prop_assert_eq!(Some(other.as_ref()), stored.as_ref(), "another owner of the document sees no change");
            }
            let (outcomes, kept) = upsert.finish();
            prop_assert_eq!(outcomes.len(), batch.len());
            prop_assert_eq!(kept.map(|(document, _)| document.as_ref().clone()), expected.clone());
            stored = expected;
        }
    }
}
