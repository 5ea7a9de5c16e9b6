//! Every cell of the decision table, with both sides of each boundary.

use serde_json::{Value, json};

use super::*;
use crate::domain::merge::Section;

const NOW: Ticks = Ticks::new(1_000);
const EARLIER: Ticks = Ticks::new(900);
const RULES: Rules = Rules {
    id_scheme: DocumentIdScheme::Device,
    tombstone_ttl_seconds: 77,
    clock_tolerance: Duration::ZERO,
    forgets_after: None,
};
/// The same rules, with clocks that may differ by five ticks.
const TOLERANT: Rules = Rules { clock_tolerance: Duration::from_nanos(500), ..RULES };

fn t(ticks: i64) -> Ticks {
    Ticks::new(ticks)
}

fn map(value: Value) -> Section {
    value.as_object().expect("an object").clone()
}

fn sections(tags: Value) -> Sections {
    Sections { tags: Some(map(tags)), ..Sections::default() }
}

fn event(at: i64, change: Change) -> TwinEvent {
    TwinEvent { key: TwinKey::device("hub", "pump"), at: t(at), change }
}

fn created(at: i64, version: i64, tags: Value) -> TwinEvent {
    event(at, Change::Created { version: TwinVersion(version), twin: sections(tags) })
}

fn updated(at: i64, version: i64, tags: Value) -> TwinEvent {
    event(at, Change::Updated { version: TwinVersion(version), patch: sections(tags).into() })
}

fn replaced(at: i64, version: i64, tags: Value) -> TwinEvent {
    let twin = Sections { desired: Some(Section::new()), ..sections(tags) };
    event(at, Change::Replaced { version: TwinVersion(version), twin })
}

fn deleted(at: i64) -> TwinEvent {
    event(at, Change::Deleted)
}

fn snapshot(at: i64, version: i64, tags: Value) -> TwinEvent {
    event(at, Change::Snapshot { version: TwinVersion(version), twin: sections(tags) })
}

fn gone(at: i64) -> TwinEvent {
    event(at, Change::Gone)
}

fn play(events: &[TwinEvent]) -> Option<Document> {
    let mut document = None;
    for event in events {
        decide(&mut document, event, EARLIER, &RULES);
    }
    document
}

/// Live: born 10, last 20, version 5, unflagged.
fn live_document() -> Document {
    let mut document =
        play(&[created(10, 4, json!({"a": 1, "b": {"c": 1}})), updated(20, 5, json!({"d": 1}))])
            .expect("created");
    document.applied_at = EARLIER;
    document
}

/// Partial: since 10, last 20, version 5.
fn partial_document() -> Document {
    play(&[updated(10, 4, json!({"a": 1, "x": null})), updated(20, 5, json!({"d": 1}))]).expect("created")
}

/// Deleted at 20.
fn tombstone() -> Document {
    play(&[created(10, 2, json!({"a": 1})), deleted(20)]).expect("created")
}

/// The decision on `event`, and `document` after it.
fn after(document: &Document, event: &TwinEvent) -> (Decision, Document) {
    let mut stored = Some(document.clone());
    let decision = decide(&mut stored, event, NOW, &RULES);
    (decision, stored.expect("a document never vanishes"))
}

#[track_caller]
fn unchanged(document: &Document, event: &TwinEvent, expected: Decision) {
    let (decision, stored) = after(document, event);
    assert_eq!(decision, expected, "{event:?}");
    assert_eq!(&stored, document, "no field may change");
}

#[track_caller]
fn refused(document: &Document, event: &TwinEvent, expected: Decision) {
    let (decision, stored) = after(document, event);
    assert_eq!(decision, expected, "{event:?}");
    let flagged = Document {
        flags: &document.flags | &BTreeSet::from([Flag::Suspect]),
        refused: document.refused.max(Some(event.at)),
        applied_at: NOW,
        operation: Operation::Flag,
        ..document.clone()
    };
    assert_eq!(stored, flagged, "only the flag and the refused time may change");
    unchanged(&stored, event, expected);
}

/// The deletion of an incarnation that is over ends only the device's modules of that time.
#[track_caller]
fn stale_deletion(document: &Document, at: i64) {
    let (decision, stored) = after(document, &deleted(at));
    assert_eq!(decision, Decision::Stale);
    let cascaded = Document {
        previous: Some(t(at)),
        cascade: Some(Cascade::Deleted(t(at))),
        applied_at: NOW,
        ..document.clone()
    };
    assert_eq!(stored, cascaded);
    assert_eq!(stored.modules_dead_before(), Some(t(at)));
    unchanged(&stored, &deleted(at), Decision::Stale);
    let module = Document { key: TwinKey::module("hub", "pump", "m"), ..document.clone() };
    let mut of_module = deleted(at);
    of_module.key = module.key.clone();
    unchanged(&module, &of_module, Decision::Stale);
}

#[track_caller]
fn tags(document: &Document) -> Value {
    Value::Object(document.twin().expect("has content").tags.clone())
}

#[track_caller]
fn version(document: &Document) -> i64 {
    document.twin().expect("has content").version.0
}

// ---- absent

#[test]
fn what_is_older_than_any_tombstone_is_stored_and_flagged() {
    let forgetful = Rules { forgets_after: Some(Duration::from_nanos(100 * 500)), ..RULES };
    let decided = |event: &TwinEvent, rules: &Rules| {
        let mut document = None;
        let decision = decide(&mut document, event, NOW, rules);
        (decision, document.expect("stored").flags.contains(&Flag::Suspect))
    };
    for (event, decision) in [
        (created as fn(i64, i64, Value) -> TwinEvent, Decision::Applied),
        (updated, Decision::Partial),
        (replaced, Decision::Partial),
    ] {
        assert_eq!(decided(&event(499, 3, json!({})), &forgetful), (Decision::Suspect, true));
        assert_eq!(
            decided(&event(500, 3, json!({})), &forgetful),
            (decision, false),
            "the deletion is still remembered"
        );
        assert_eq!(decided(&event(499, 3, json!({})), &RULES), (decision, false), "streams have no limit");
        let skewed = Rules { clock_tolerance: Duration::from_nanos(500), ..forgetful };
        assert_eq!(decided(&event(504, 3, json!({})), &skewed), (Decision::Suspect, true));
    }
    // A deletion brings no twin back, and ends everything before it.
    assert_eq!(decided(&event(1, Change::Deleted), &forgetful), (Decision::Applied, false));
    let mut document = None;
    decide(&mut document, &created(1, 1, json!({})), NOW, &forgetful);
    decide(&mut document, &event(2, Change::Deleted), NOW, &forgetful);
    let document = document.expect("a tombstone");
    assert!(document.state == State::Deleted && document.flags.is_empty());
    // Events for a stored document are decided as usual.
    let mut tombstone = None;
    decide(&mut tombstone, &event(400, Change::Deleted), NOW, &forgetful);
    assert_eq!(decide(&mut tombstone, &created(399, 1, json!({})), NOW, &forgetful), Decision::Stale);
}

#[test]
fn the_first_create_makes_a_live_document() {
    let document = play(&[created(10, 2, json!({"a": 1, "n": null}))]).expect("created");
    let expected = Document {
        id: "pump".into(),
        key: TwinKey::device("hub", "pump"),
        state: State::Live {
            born: Some(t(10)),
            twin: Twin { version: TwinVersion(2), tags: map(json!({"a": 1})), ..Twin::default() },
        },
        last: t(10),
        flags: BTreeSet::new(),
        refused: None,
        previous: None,
        confirmed_until: None,
        cascade: None,
        applied_at: EARLIER,
        operation: Operation::Create,
        ttl_seconds: None,
    };
    assert_eq!(document, expected);
}

#[test]
fn a_change_of_an_unseen_twin_makes_a_partial_document() {
    for (event, operation, whole) in [
        (updated(10, 7, json!({"a": 1, "n": null})), Operation::Update, false),
        (replaced(10, 7, json!({"a": 1, "n": null})), Operation::Replace, true),
    ] {
        let mut stored = None;
        assert_eq!(decide(&mut stored, &event, NOW, &RULES), Decision::Partial);
        let document = stored.expect("created");
        let State::Partial { since, twin, base } = &document.state else {
            panic!("not partial: {document:?}");
        };
        assert_eq!((*since, twin.version, document.last), (t(10), TwinVersion(7), t(10)));
        assert_eq!(Value::Object(twin.tags.clone()), json!({"a": 1}));
        assert_eq!(base.first, Some(TwinVersion(7)));
        assert_eq!(base.tags.whole, whole);
        assert_eq!(base.tags.deleted.contains("/n"), !whole);
        assert_eq!(base.desired.whole, whole);
        assert!(!base.reported.whole, "the event did not carry it");
        assert_eq!((document.operation, document.ttl_seconds, document.cascade), (operation, None, None));
        assert!(document.flags.is_empty() && document.refused.is_none() && document.previous.is_none());
    }
}

#[test]
fn the_first_delete_leaves_a_tombstone() {
    let document = play(&[deleted(10)]).expect("created");
    assert_eq!(document.state, State::Deleted);
    assert_eq!((document.last, document.ttl_seconds), (t(10), Some(77)));
    assert_eq!(document.cascade, Some(Cascade::Deleted(t(10))));
    assert_eq!(document.operation, Operation::Delete);
}

#[test]
fn a_snapshot_of_an_absent_twin_makes_a_live_document() {
    let document = play(&[snapshot(30, 9, json!({"a": 1}))]).expect("created");
    assert!(matches!(document.state, State::Live { born: None, .. }));
    assert_eq!((document.last, version(&document), tags(&document)), (t(30), 9, json!({"a": 1})));
    assert_eq!(document.confirmed_until, Some(t(30)));
    assert!(document.flags.is_empty());
}

#[test]
fn an_absent_twin_that_the_hub_does_not_know_stays_absent() {
    let mut stored = None;
    assert_eq!(decide(&mut stored, &gone(30), NOW, &RULES), Decision::Duplicate);
    assert_eq!(stored, None);
}

#[test]
fn a_reborn_parent_of_an_absent_module_changes_nothing() {
    let mut stored = None;
    let event = follow(TwinKey::module("hub", "pump", "m"), Cascade::Reborn(t(5)));
    assert_eq!(decide(&mut stored, &event, NOW, &RULES), Decision::Stale);
    assert_eq!(stored, None);
}

// ---- live

#[test]
fn a_create_at_or_before_birth_is_a_duplicate() {
    for at in [9, 10] {
        unchanged(&live_document(), &created(at, 2, json!({"z": 1})), Decision::Duplicate);
    }
}

#[test]
fn a_create_after_birth_that_is_not_the_newest_is_suspect() {
    for at in [11, 19, 20] {
        refused(&live_document(), &created(at, 2, json!({"z": 1})), Decision::Suspect);
    }
}

#[test]
fn a_create_after_everything_replaces_everything() {
    let mut before = live_document();
    before.flags.insert(Flag::Gap);
    let (decision, stored) = after(&before, &created(21, 2, json!({"z": 1})));
    assert_eq!(decision, Decision::Applied);
    assert!(matches!(stored.state, State::Live { born: Some(born), .. } if born == t(21)));
    assert_eq!((version(&stored), tags(&stored), stored.last), (2, json!({"z": 1}), t(21)));
    assert_eq!(stored.previous, Some(t(20)), "the old incarnation had an event at that time");
    assert_eq!(stored.cascade, Some(Cascade::Reborn(t(21))));
    assert!(stored.flags.is_empty(), "a gap of the old incarnation does not matter any more");
    assert_eq!((stored.applied_at, stored.operation), (NOW, Operation::Create));
}

#[test]
fn a_flag_no_older_than_the_new_birth_outlives_the_old_incarnation() {
    for (refused_at, kept) in [(20, false), (29, false), (30, true), (31, true)] {
        let flagged = Document {
            refused: Some(t(refused_at)),
            flags: BTreeSet::from([Flag::Suspect, Flag::Gap]),
            ..live_document()
        };
        for event in [created(30, 2, json!({})), deleted(30)] {
            let (_, stored) = after(&flagged, &event);
            assert_eq!(stored.refused, kept.then_some(t(refused_at)), "{event:?}");
            assert_eq!(stored.flags, if kept { BTreeSet::from([Flag::Suspect]) } else { BTreeSet::new() });
        }
        let grave =
            Document { refused: Some(t(refused_at)), flags: BTreeSet::from([Flag::Suspect]), ..tombstone() };
        let (_, stored) = after(&grave, &created(30, 2, json!({})));
        assert_eq!(stored.refused, kept.then_some(t(refused_at)));
        assert_eq!(stored.flags.contains(&Flag::Suspect), kept);
        // A change says nothing about the time between the deletion and the change.
        let (_, stored) = after(&grave, &updated(40, 3, json!({})));
        assert_eq!(stored.refused, (refused_at >= 20).then_some(t(refused_at)));
        let (_, stored) = after(&grave, &deleted(30));
        assert_eq!(stored.refused, kept.then_some(t(refused_at)));
    }
}

#[test]
fn a_change_before_birth_is_stale_and_one_at_birth_is_assessed_by_version() {
    for make in [updated, replaced] {
        unchanged(&live_document(), &make(9, 99, json!({"z": 1})), Decision::Stale);
        unchanged(&live_document(), &make(10, 5, json!({"z": 1})), Decision::Duplicate);
        refused(&live_document(), &make(10, 6, json!({"z": 1})), Decision::Suspect);
    }
}

#[test]
fn a_change_at_birth_is_stale_where_the_hub_has_answered_long_after_it() {
    let rules = Rules { clock_tolerance: Duration::from_nanos(100 * 5), ..RULES };
    let confirmed = play(&[created(10, 4, json!({})), snapshot(1000, 7, json!({}))]).expect("created");
    let decided = |at| {
        let mut stored = Some(confirmed.clone());
        decide(&mut stored, &updated(at, 99, json!({"z": 1})), NOW, &rules)
    };
    assert_eq!(decided(9), Decision::Suspect, "of this incarnation, with a time that is too early");
    assert_eq!(decided(10), Decision::Stale, "the hub's answer is of a later time, and contains it");
}

#[test]
fn a_replacement_without_tags_leaves_a_gap_unless_it_is_known_that_there_are_none() {
    let mut bare = replaced(20, 5, json!({}));
    if let Change::Replaced { twin, .. } = &mut bare.change {
        twin.tags = None;
    }
    for (before, expected) in [
        (created(10, 4, json!({})), Decision::Applied),
        (created(10, 4, json!({"a": 1})), Decision::Gap),
        (updated(10, 4, json!({})), Decision::Gap), // those before this change are not known
        (replaced(10, 4, json!({"a": 1})), Decision::Gap),
        (replaced(10, 4, json!({})), Decision::Applied),
    ] {
        let (decision, _) = after(&play(std::slice::from_ref(&before)).expect("stored"), &bare);
        assert_eq!(decision, expected, "{before:?}");
    }
}

#[test]
fn version_and_time_together_place_a_change() {
    for document in [live_document(), partial_document()] {
        for make in [updated, replaced] {
            for (at, version) in [(10, 5), (15, 4), (20, 5), (20, 1)] {
                unchanged(&document, &make(at, version, json!({"z": 1})), Decision::Duplicate);
            }
            for (at, version) in [(21, 5), (21, 1)] {
                refused(&document, &make(at, version, json!({"z": 1})), Decision::Regression);
            }
            for (at, version) in [(20, 6), (15, 6), (20, 99)] {
                refused(&document, &make(at, version, json!({"z": 1})), Decision::Suspect);
            }
        }
    }
}

#[test]
fn the_next_version_is_applied_and_a_later_one_is_flagged() {
    for document in [live_document(), partial_document()] {
        for (next, expected, flags) in
            [(6, Decision::Applied, BTreeSet::new()), (7, Decision::Gap, BTreeSet::from([Flag::Gap]))]
        {
            let (decision, stored) = after(&document, &updated(21, next, json!({"a": null, "z": {"y": 1}})));
            assert_eq!((decision, &stored.flags), (expected, &flags));
            assert_eq!((version(&stored), stored.last), (next, t(21)));
            let mut content = tags(&document);
            content.as_object_mut().expect("an object").remove("a");
            content["z"] = json!({"y": 1});
            assert_eq!(tags(&stored), content);
            assert_eq!((stored.applied_at, stored.operation), (NOW, Operation::Update));

            let (decision, stored) = after(&document, &replaced(21, next, json!({"z": 1})));
            assert_eq!((decision, &stored.flags), (expected, &flags));
            assert_eq!(tags(&stored), json!({"z": 1}));
            assert_eq!(stored.operation, Operation::Replace);
        }
    }
}

#[test]
fn a_flagged_document_keeps_its_flags_while_changes_are_applied() {
    let flagged = Document {
        refused: Some(t(18)),
        flags: BTreeSet::from([Flag::Suspect, Flag::Gap]),
        ..live_document()
    };
    let (decision, stored) = after(&flagged, &updated(21, 6, json!({})));
    assert_eq!(decision, Decision::Applied);
    assert_eq!((stored.flags, stored.refused), (flagged.flags, flagged.refused));
}

#[test]
fn only_a_newer_refusal_moves_the_refused_time() {
    let (_, flagged) = after(&live_document(), &updated(30, 5, json!({})));
    assert_eq!(flagged.refused, Some(t(30)));
    unchanged(&flagged, &updated(29, 5, json!({})), Decision::Regression);
    refused(&flagged, &updated(31, 5, json!({})), Decision::Regression);
}

#[test]
fn a_delete_before_birth_is_stale_one_in_the_middle_suspect_and_the_newest_leaves_a_tombstone() {
    stale_deletion(&live_document(), 9);
    for at in [10, 19] {
        let (decision, stored) = after(&live_document(), &deleted(at));
        assert_eq!(decision, Decision::Suspect);
        assert_eq!(stored.state, live_document().state);
        assert_eq!((stored.refused, stored.last), (Some(t(at)), t(20)));
        assert!(stored.flags.contains(&Flag::Suspect));
        assert_eq!(stored.cascade, Some(Cascade::Deleted(t(at))), "its modules are deleted in any case");
        assert_eq!(stored.modules_dead_before(), Some(t(at)));
        unchanged(&stored, &deleted(at), Decision::Suspect);
    }
    for at in [20, 21] {
        let (decision, stored) = after(&live_document(), &deleted(at));
        assert_eq!(decision, Decision::Applied);
        assert_eq!(stored.state, State::Deleted);
        assert_eq!((stored.last, stored.ttl_seconds), (t(at), Some(77)));
        assert_eq!(stored.cascade, Some(Cascade::Deleted(t(at))));
        assert_eq!((stored.applied_at, stored.operation), (NOW, Operation::Delete));
        assert!(stored.flags.is_empty() && stored.refused.is_none());
    }
}

// ---- partial

#[test]
fn a_create_no_later_than_the_first_change_becomes_the_base() {
    for at in [9, 10] {
        let (decision, stored) =
            after(&partial_document(), &created(at, 3, json!({"a": 0, "x": 1, "kept": 1})));
        assert_eq!(decision, Decision::Applied);
        assert!(matches!(stored.state, State::Live { born: Some(born), .. } if born == t(at)));
        assert_eq!(tags(&stored), json!({"a": 1, "d": 1, "kept": 1}));
        assert_eq!((version(&stored), stored.last), (5, t(20)));
        assert!(stored.flags.is_empty());
        assert_eq!(stored.operation, Operation::Create);
    }
}

#[test]
fn a_base_that_the_first_change_does_not_follow_leaves_a_gap() {
    let (decision, stored) = after(&partial_document(), &created(9, 2, json!({})));
    assert_eq!(decision, Decision::Gap);
    assert_eq!(stored.flags, BTreeSet::from([Flag::Gap]));
    assert!(matches!(stored.state, State::Live { .. }));
}

#[test]
fn a_base_takes_replaced_sections_from_what_is_stored() {
    let replacement = Change::Replaced { version: TwinVersion(3), twin: sections(json!({"a": 1})) };
    let partial = play(&[event(10, replacement)]).expect("created");
    let mut base = created(9, 2, json!({"b": 1}));
    if let Change::Created { twin, .. } = &mut base.change {
        twin.desired = Some(map(json!({"wish": 1})));
        twin.root = map(json!({"etag": "e"}));
    }
    let (_, stored) = after(&partial, &base);
    let twin = stored.twin().expect("live");
    assert_eq!(tags(&stored), json!({"a": 1}));
    assert_eq!(twin.desired, map(json!({"wish": 1})), "the event did not carry desired properties");
    assert_eq!(twin.root, map(json!({"etag": "e"})));
}

#[test]
fn a_create_inside_a_partial_twins_time_is_suspect_and_one_after_it_starts_over() {
    for at in [11, 20] {
        refused(&partial_document(), &created(at, 2, json!({})), Decision::Suspect);
    }
    let (decision, stored) = after(&partial_document(), &created(21, 2, json!({"z": 1})));
    assert_eq!(decision, Decision::Applied);
    assert!(matches!(stored.state, State::Live { born: Some(born), .. } if born == t(21)));
    assert_eq!(tags(&stored), json!({"z": 1}));
    assert_eq!((stored.previous, stored.cascade), (Some(t(20)), Some(Cascade::Reborn(t(21)))));
}

#[test]
fn what_is_older_than_a_partial_twins_first_change_is_not_taken_for_contained() {
    for make in [updated, replaced] {
        refused(&partial_document(), &make(9, 3, json!({"z": 1})), Decision::Suspect);
        unchanged(&partial_document(), &make(10, 4, json!({"z": 1})), Decision::Duplicate);
    }
}

#[test]
fn deletes_of_a_partial_twin() {
    stale_deletion(&partial_document(), 9);
    for at in [10, 19] {
        let (decision, stored) = after(&partial_document(), &deleted(at));
        assert_eq!(decision, Decision::Suspect);
        assert_eq!(stored.state, partial_document().state);
    }
    for at in [20, 21] {
        let (decision, stored) = after(&partial_document(), &deleted(at));
        assert_eq!((decision, stored.state, stored.last), (Decision::Applied, State::Deleted, t(at)));
    }
}

// ---- deleted

#[test]
fn no_event_at_or_before_the_deletion_restores_a_twin() {
    for at in [19, 20] {
        unchanged(&tombstone(), &created(at, 2, json!({})), Decision::Stale);
        unchanged(&tombstone(), &updated(at, 99, json!({})), Decision::Stale);
        unchanged(&tombstone(), &replaced(at, 99, json!({})), Decision::Stale);
    }
    unchanged(&tombstone(), &deleted(19), Decision::Stale);
    unchanged(&tombstone(), &deleted(20), Decision::Duplicate);
}

#[test]
fn a_later_delete_moves_the_tombstone() {
    let (decision, stored) = after(&tombstone(), &deleted(21));
    assert_eq!((decision, stored.last), (Decision::Applied, t(21)));
    assert_eq!(stored.previous, Some(t(20)), "everything before the first deletion is over");
    assert_eq!(stored.cascade, Some(Cascade::Deleted(t(21))));
    assert_eq!(stored.ttl_seconds, Some(77));
}

#[test]
fn a_new_incarnation_replaces_a_tombstone_and_stores_when_the_old_one_ended() {
    let (decision, stored) = after(&tombstone(), &created(21, 2, json!({"z": 1})));
    assert_eq!(decision, Decision::Applied);
    assert!(matches!(stored.state, State::Live { born: Some(born), .. } if born == t(21)));
    assert_eq!((tags(&stored), stored.previous), (json!({"z": 1}), Some(t(20))));
    assert_eq!(stored.ttl_seconds, None, "a live document must not expire");
    for make in [updated, replaced] {
        let (decision, stored) = after(&tombstone(), &make(21, 3, json!({"z": 1})));
        assert_eq!(decision, Decision::Partial);
        assert!(matches!(stored.state, State::Partial { since, .. } if since == t(21)));
        assert_eq!((tags(&stored), stored.previous), (json!({"z": 1}), Some(t(20))));
        assert_eq!(stored.ttl_seconds, None);
    }
}

#[test]
fn a_cascade_that_is_still_pending_survives_the_re_creation() {
    for event in [created(21, 2, json!({})), updated(21, 3, json!({})), replaced(21, 3, json!({}))] {
        let (_, stored) = after(&tombstone(), &event);
        assert_eq!(stored.cascade, Some(Cascade::Deleted(t(20))));
        let cascaded = Document { cascade: None, ..tombstone() };
        assert_eq!(after(&cascaded, &event).1.cascade, None);
    }
}

#[test]
fn events_of_the_incarnation_before_are_stale_for_a_partial_one() {
    let (_, partial) = after(&tombstone(), &updated(30, 3, json!({"z": 1})));
    for at in [15, 20] {
        unchanged(&partial, &created(at, 2, json!({"old": 1})), Decision::Stale);
        unchanged(&partial, &updated(at, 99, json!({"old": 1})), Decision::Stale);
        unchanged(&partial, &replaced(at, 1, json!({"old": 1})), Decision::Stale);
        unchanged(&partial, &deleted(at), Decision::Stale);
    }
    let (decision, stored) = after(&partial, &created(21, 2, json!({"base": 1})));
    assert_eq!(decision, Decision::Applied);
    assert_eq!(tags(&stored), json!({"base": 1, "z": 1}));
    assert_eq!(stored.previous, Some(t(20)));
}

// ---- snapshots

#[test]
fn a_snapshot_clears_every_flag() {
    for (document, previous) in
        [(live_document(), None), (partial_document(), None), (tombstone(), Some(t(20)))]
    {
        let flagged =
            Document { flags: BTreeSet::from([Flag::Gap, Flag::Suspect]), refused: Some(t(30)), ..document };
        // Versions go back after a failover: the hub is right. The answer also reflects the refused events.
        for (at, last) in [(15, 15), (30, 30), (40, 40)] {
            let event = snapshot(at, 3, json!({"z": 1}));
            let (decision, stored) = after(&flagged, &event);
            assert_eq!(decision, Decision::Applied);
            assert!(matches!(stored.state, State::Live { born: None, .. }));
            assert_eq!((version(&stored), tags(&stored)), (3, json!({"z": 1})));
            assert_eq!((stored.last, stored.previous, stored.ttl_seconds), (t(last), previous, None));
            assert_eq!(stored.confirmed_until, Some(t(last)));
            assert!(stored.flags.is_empty() && stored.refused.is_none());
            assert_eq!((stored.applied_at, stored.operation), (NOW, Operation::Snapshot));
            unchanged(&stored, &event, Decision::Duplicate);
        }
    }
}

#[test]
fn a_gap_leaves_no_flag_about_the_incarnation_and_a_suspicion_does() {
    let gap = Document { flags: BTreeSet::from([Flag::Gap]), ..live_document() };
    let (_, stored) = after(&gap, &snapshot(40, 9, json!({"z": 1})));
    assert!(matches!(stored.state, State::Live { born: Some(born), .. } if born == t(10)));
    assert_eq!(stored.cascade, None);
    let suspect =
        Document { flags: BTreeSet::from([Flag::Suspect]), refused: Some(t(30)), ..live_document() };
    let (_, stored) = after(&suspect, &snapshot(40, 9, json!({"z": 1})));
    assert!(matches!(stored.state, State::Live { born: None, .. }));
    assert_eq!(
        stored.cascade,
        Some(Cascade::Reborn(t(40))),
        "modules may have been deleted with the previous incarnation"
    );
}

#[test]
fn after_a_snapshot_over_a_tombstone_older_events_stay_stale() {
    let (_, stored) = after(&tombstone(), &snapshot(40, 3, json!({"z": 1})));
    unchanged(&stored, &updated(20, 3, json!({})), Decision::Stale);
    for event in
        [created(10, 2, json!({})), updated(20, 9, json!({})), replaced(15, 9, json!({})), deleted(20)]
    {
        unchanged(&stored, &event, Decision::Stale);
    }
    let (decision, stored) = after(&stored, &deleted(41));
    assert_eq!((decision, stored.state), (Decision::Applied, State::Deleted));
}

#[test]
fn what_a_snapshot_reflects_raises_no_flag_and_what_follows_it_is_applied() {
    let stored = play(&[snapshot(40, 9, json!({"z": 1}))]).expect("created");
    unchanged(&stored, &updated(40, 9, json!({"old": 1})), Decision::Duplicate);
    unchanged(&stored, &updated(39, 10, json!({"dead": 1})), Decision::Stale);
    unchanged(&stored, &created(40, 2, json!({})), Decision::Stale);
    refused(&stored, &updated(41, 9, json!({"old": 1})), Decision::Regression);
    assert_eq!(after(&stored, &updated(41, 10, json!({}))).0, Decision::Applied);
    assert_eq!(after(&stored, &created(41, 2, json!({}))).0, Decision::Applied);
}

#[test]
fn clocks_that_differ_leave_a_margin_in_which_versions_decide() {
    let mut stored = None;
    decide(&mut stored, &snapshot(40, 9, json!({"z": 1})), NOW, &TOLERANT);
    let stored = stored.expect("created");
    assert_eq!(
        (stored.confirmed_until, stored.last),
        (Some(t(35)), t(35)),
        "the answer's own time is not certain"
    );
    let decided = |event: &TwinEvent| {
        let mut document = Some(stored.clone());
        decide(&mut document, event, NOW, &TOLERANT)
    };
    assert_eq!(decided(&updated(25, 10, json!({}))), Decision::Stale);
    assert_eq!(decided(&updated(26, 10, json!({}))), Decision::Suspect, "from before or after the answer");
    assert_eq!(decided(&updated(35, 10, json!({}))), Decision::Suspect);
    assert_eq!(decided(&deleted(25)), Decision::Stale);
    assert_eq!(decided(&deleted(26)), Decision::Suspect);
    assert_eq!(decided(&updated(35, 9, json!({}))), Decision::Duplicate);
    assert_eq!(decided(&updated(36, 10, json!({}))), Decision::Applied, "the answer cannot contain it");
    assert_eq!(decided(&updated(40, 9, json!({}))), Decision::Regression);
    // The creation may or may not be the beginning of what the hub described: this cannot be known.
    assert_eq!(decided(&created(36, 2, json!({}))), Decision::Suspect);
    assert_eq!(decided(&created(44, 2, json!({}))), Decision::Suspect);
    assert_eq!(decided(&created(45, 2, json!({}))), Decision::Applied, "it must be another incarnation");
}

#[test]
fn a_stamp_from_the_future_freezes_nothing() {
    // The timestamp is far ahead of the hub's answer: the twin's real events come after the answer and before that
    // timestamp.
    for document in [live_document(), Document { refused: Some(t(1_000)), ..live_document() }] {
        let ahead = Document { last: t(1_000), flags: BTreeSet::from([Flag::Gap]), ..document };
        let mut stored = Some(ahead);
        decide(&mut stored, &snapshot(40, 9, json!({"z": 1})), NOW, &TOLERANT);
        let confirmed = stored.clone().expect("present");
        assert_eq!((confirmed.confirmed_until, confirmed.last), (Some(t(45)), t(45)));
        assert_eq!(decide(&mut stored, &updated(50, 10, json!({"y": 1})), NOW, &TOLERANT), Decision::Applied);
        assert_eq!(tags(&stored.expect("present")), json!({"y": 1, "z": 1}));
        let mut stored = Some(confirmed);
        assert_eq!(decide(&mut stored, &deleted(50), NOW, &TOLERANT), Decision::Applied);
    }
    // The times that the document knows count within the clock tolerance.
    let flagged =
        Document { refused: Some(t(43)), flags: BTreeSet::from([Flag::Suspect]), ..live_document() };
    let mut stored = Some(flagged);
    decide(&mut stored, &snapshot(40, 9, json!({})), NOW, &TOLERANT);
    assert_eq!(stored.expect("present").confirmed_until, Some(t(43)));
}

#[test]
fn a_boundary_that_is_missed_by_less_than_clocks_differ_is_no_boundary() {
    let decided = |document: &Document, event: &TwinEvent| {
        let mut stored = Some(document.clone());
        let decision = decide(&mut stored, event, NOW, &TOLERANT);
        (decision, stored.expect("never vanishes"))
    };
    let born = play(&[created(100, 2, json!({"a": 1}))]).expect("created");
    // A change of this incarnation, with a timestamp before its creation.
    for (at, version, expected) in [
        (96, 3, Decision::Suspect),
        (95, 3, Decision::Stale),
        (96, 4, Decision::Suspect),
        (95, 4, Decision::Stale),
        (96, 2, Decision::Stale),
    ] {
        assert_eq!(decided(&born, &updated(at, version, json!({"b": 1}))).0, expected, "{at} {version}");
    }
    // Its deletion, with a timestamp before its creation. The deletion of an incarnation that is known to be over is
    // not suspect.
    assert_eq!(decided(&born, &deleted(96)).0, Decision::Suspect);
    assert_eq!(decided(&born, &deleted(95)).0, Decision::Stale);
    let again = play(&[created(90, 2, json!({})), deleted(97), created(100, 2, json!({}))]).expect("created");
    assert_eq!(decided(&again, &deleted(97)).0, Decision::Stale);
    assert_eq!(decided(&again, &updated(97, 3, json!({}))).0, Decision::Stale);
    assert_eq!(decided(&again, &updated(98, 4, json!({}))).0, Decision::Suspect);
    // A creation after a deletion, with a timestamp before it. The creation of the deleted incarnation is known.
    let tombstone = play(&[created(90, 2, json!({})), deleted(100)]).expect("created");
    assert_eq!(decided(&tombstone, &created(96, 2, json!({}))).0, Decision::Suspect);
    assert_eq!(decided(&tombstone, &created(95, 2, json!({}))).0, Decision::Stale);
    let short = play(&[created(98, 2, json!({})), deleted(100)]).expect("created");
    assert_eq!(decided(&short, &created(98, 2, json!({}))).0, Decision::Stale, "a replay");
    // The base of a partial document, with a timestamp after the changes received so far.
    let partial = play(&[updated(100, 3, json!({"a": 1}))]).expect("created");
    let (decision, stored) = decided(&partial, &created(104, 2, json!({"b": 1})));
    assert_eq!((decision, tags(&stored)), (Decision::Suspect, json!({"a": 1})), "no content may be lost");
    assert_eq!(decided(&partial, &created(105, 2, json!({"b": 1}))).0, Decision::Applied);
    let later = play(&[updated(100, 7, json!({"a": 1}))]).expect("created");
    assert_eq!(
        decided(&later, &created(104, 2, json!({"b": 1}))).0,
        Decision::Suspect,
        "the changes between are missing"
    );
    let earlier = play(&[updated(100, 2, json!({"a": 1}))]).expect("created");
    assert_eq!(
        decided(&earlier, &created(104, 2, json!({"b": 1}))).0,
        Decision::Applied,
        "it cannot be the base"
    );
}

#[test]
fn of_two_deletions_before_an_answer_the_later_one_ends_modules() {
    let answered = after(&live_document(), &snapshot(60, 9, json!({"z": 1}))).1;
    let first = after(&answered, &deleted(30)).1;
    assert_eq!(first.cascade, Some(Cascade::Reborn(t(30))));
    assert_eq!(after(&first, &deleted(40)).1.cascade, Some(Cascade::Reborn(t(40))));
}

fn unapplied(at: i64) -> TwinEvent {
    event(at, Change::Unapplied)
}

#[test]
fn an_event_that_could_not_be_applied_flags_its_twin() {
    for document in [live_document(), partial_document()] {
        for at in [11, 20, 30] {
            refused(&document, &unapplied(at), Decision::Suspect);
        }
    }
    unchanged(&live_document(), &unapplied(9), Decision::Stale);
    let answered = play(&[snapshot(40, 9, json!({}))]).expect("created");
    unchanged(&answered, &unapplied(40), Decision::Duplicate);
    refused(&answered, &unapplied(41), Decision::Suspect);
    unchanged(&tombstone(), &unapplied(20), Decision::Stale);
    let again = play(&[created(10, 2, json!({})), deleted(20), created(30, 2, json!({}))]).expect("created");
    unchanged(&again, &unapplied(20), Decision::Stale);
}

#[test]
fn an_event_that_could_not_be_applied_is_all_that_is_known_of_a_twin_without_a_document() {
    let over_a_tombstone = after(&tombstone(), &unapplied(30)).1;
    assert_eq!((over_a_tombstone.previous, over_a_tombstone.cascade), (Some(t(20)), tombstone().cascade));
    for unknown in [play(&[unapplied(30)]).expect("created"), over_a_tombstone] {
        assert!(matches!(unknown.state, State::Partial { since, .. } if since == t(30)));
        assert!(unknown.is_flagged() && unknown.flags.contains(&Flag::Suspect));
        assert_eq!((unknown.refused, unknown.ttl_seconds), (Some(t(30)), None), "a flag does not expire");
        assert_eq!(version(&unknown), 0);
        unchanged(&unknown, &unapplied(30), Decision::Suspect);
        // The event itself, after it has been repaired, and the events that follow it.
        for at in [25, 30] {
            // A flag may be set before the create event that it is about arrives.
            let (decision, stored) = after(&unknown, &created(at, 2, json!({"a": 1})));
            assert_eq!((decision, tags(&stored), version(&stored)), (Decision::Gap, json!({"a": 1}), 2));
            assert!(stored.is_flagged());
            // A change between the two is newer than the create event.
            let (decision, stored) = after(&stored, &updated(at + 1, 3, json!({"b": 2})));
            assert_eq!((decision, tags(&stored)), (Decision::Applied, json!({"a": 1, "b": 2})));
            assert_eq!((stored.is_flagged(), stored.refused), (true, Some(t(30))));
        }
        let (decision, stored) = after(&unknown, &updated(30, 3, json!({"a": 1})));
        assert_eq!((decision, tags(&stored)), (Decision::Gap, json!({"a": 1})));
        assert!(stored.flags.contains(&Flag::Suspect), "what came before it is still missing");
        let (decision, stored) = after(&unknown, &created(31, 2, json!({"a": 1})));
        assert_eq!(
            (decision, stored.is_flagged()),
            (Decision::Applied, false),
            "the flag was about a previous incarnation"
        );
        assert_eq!(after(&unknown, &deleted(30)).1.state, State::Deleted);
        let (_, confirmed) = after(&unknown, &snapshot(40, 9, json!({"a": 1})));
        assert!(!confirmed.is_flagged());
        let (_, gone) = after(&unknown, &gone(40));
        assert!(!gone.is_flagged() && gone.state == State::Deleted);
    }
}

#[test]
fn a_section_that_skips_a_version_is_a_gap_although_the_twin_does_not() {
    // A failover lost a change that we have. Then the next version follows ours, but its section does not.
    let section = |version: i64| Some(map(json!({"$version": version, "a": version})));
    let mut create = created(10, 2, json!({}));
    if let Change::Created { twin, .. } = &mut create.change {
        (twin.desired, twin.reported) = (section(1), section(1));
    }
    let stored = play(&[create]).expect("created");
    let changed = |at, version, desired: Option<i64>, reported: Option<i64>| {
        let patch = Sections {
            desired: desired.and_then(section),
            reported: reported.and_then(section),
            ..Sections::default()
        };
        event(at, Change::Updated { version: TwinVersion(version), patch: patch.into() })
    };
    for (desired, reported, expected) in [
        (Some(2), None, Decision::Applied),
        (None, Some(2), Decision::Applied),
        (Some(2), Some(2), Decision::Applied),
        (Some(1), None, Decision::Gap),
        (Some(3), None, Decision::Gap),
        (Some(2), Some(1), Decision::Gap),
    ] {
        let (decision, stored) = after(&stored, &changed(20, 3, desired, reported));
        assert_eq!(decision, expected, "{desired:?} {reported:?}");
        assert_eq!(stored.flags.contains(&Flag::Gap), expected == Decision::Gap);
    }
    let unknown = play(&[updated(10, 2, json!({}))]).expect("created");
    assert_eq!(
        after(&unknown, &changed(20, 3, Some(9), None)).0,
        Decision::Applied,
        "no version of the section is known"
    );
}

#[test]
fn metadata_tell_the_newest_change_to_the_tick_unless_an_import_wrote_them() {
    let at = |ticks: i64| t(ticks).to_string();
    for (desired, reported, last) in [(41, 44, 44), (43, 30, 43), (46, 30, 35), (30, 31, 35)] {
        let mut event = snapshot(40, 9, json!({}));
        if let Change::Snapshot { twin, .. } = &mut event.change {
            twin.desired = Some(map(json!({"$metadata": {"$lastUpdated": at(desired)}})));
            twin.reported = Some(map(json!({"$metadata": {"$lastUpdated": at(reported)}})));
        }
        let mut stored = None;
        decide(&mut stored, &event, NOW, &TOLERANT);
        assert_eq!(stored.expect("created").last, t(last), "{desired} {reported}");
    }
}

#[test]
fn a_deletion_that_a_snapshot_has_overtaken_makes_the_modules_flagged() {
    let stored = play(&[snapshot(40, 9, json!({"z": 1}))]).expect("created");
    let (decision, looked) = after(&stored, &deleted(30));
    assert_eq!(decision, Decision::Stale);
    assert_eq!((looked.previous, looked.cascade), (Some(t(30)), Some(Cascade::Reborn(t(30)))));
    assert_eq!((looked.state.clone(), looked.flags.clone()), (stored.state.clone(), stored.flags.clone()));
    unchanged(&looked, &deleted(30), Decision::Stale);
    // So are the modules created after an older deletion, while the modules of that deletion have not followed it yet.
    let owed = Document { previous: Some(t(20)), cascade: Some(Cascade::Deleted(t(20))), ..stored };
    assert_eq!(after(&owed, &deleted(30)).1.cascade, Some(Cascade::Reborn(t(30))));
}

#[test]
fn what_the_hub_does_not_know_becomes_a_tombstone_without_flag() {
    for (document, known) in [(live_document(), 20), (partial_document(), 20)] {
        let flagged =
            Document { flags: BTreeSet::from([Flag::Suspect]), refused: Some(t(known + 5)), ..document };
        for (at, ended) in [(known + 5, known + 5), (60, 60)] {
            let (decision, stored) = after(&flagged, &gone(at));
            assert_eq!((decision, &stored.state), (Decision::Applied, &State::Deleted));
            assert_eq!((stored.last, stored.ttl_seconds), (t(ended), Some(77)));
            assert_eq!(stored.cascade, Some(Cascade::Deleted(t(ended))));
            assert!(!stored.is_flagged() && stored.refused.is_none());
            unchanged(&stored, &gone(at + 1), Decision::Duplicate);
            unchanged(&stored, &updated(ended, 99, json!({})), Decision::Stale);
        }
    }
}

#[test]
fn a_tombstone_by_the_hubs_word_keeps_its_id_and_ends_before_clocks_can_differ() {
    // Older releases stored documents under other ids.
    let flagged = Document {
        id: "an older id".to_owned(),
        flags: BTreeSet::from([Flag::Suspect]),
        refused: Some(t(25)),
        ..live_document()
    };
    let rules = Rules { clock_tolerance: Duration::from_nanos(100 * 5), ..RULES };
    let mut stored = Some(flagged.clone());
    assert_eq!(decide(&mut stored, &gone(60), NOW, &rules), Decision::Applied);
    let stored = stored.expect("a document never vanishes");
    assert_eq!((stored.id.as_str(), stored.last), ("an older id", t(55)));
    assert_eq!(stored.cascade, Some(Cascade::Deleted(t(55))));
    // The modules of an earlier deletion still have to follow.
    let owed = Document {
        flags: BTreeSet::from([Flag::Suspect]),
        cascade: Some(Cascade::Deleted(t(20))),
        ..tombstone()
    };
    assert_eq!(after(&owed, &gone(60)).1.cascade, Some(Cascade::Deleted(t(20))));
}

#[test]
fn a_flag_about_a_tombstone_ends_with_the_hubs_word() {
    let flagged = Document { flags: BTreeSet::from([Flag::Suspect]), refused: Some(t(30)), ..tombstone() };
    let (decision, stored) = after(&flagged, &gone(30));
    assert_eq!((decision, stored.last), (Decision::Applied, t(30)));
    assert!(!stored.is_flagged());
}

// ---- content

#[test]
fn sections_and_root_fields_that_an_event_does_not_carry_stay() {
    let mut create = created(10, 2, json!({"t": 1}));
    if let Change::Created { twin, .. } = &mut create.change {
        twin.root = map(json!({"etag": "1", "status": "enabled"}));
        twin.desired = Some(map(json!({"w": 1})));
        twin.reported = Some(map(json!({"r": 1})));
    }
    let document = play(&[create]).expect("created");
    let content = |event: &TwinEvent| {
        let twin = after(&document, event).1.twin().expect("live").clone();
        (
            Value::Object(twin.root),
            Value::Object(twin.tags),
            Value::Object(twin.desired),
            Value::Object(twin.reported),
        )
    };
    let only_tags = updated(11, 3, json!({"u": 1}));
    assert_eq!(
        content(&only_tags),
        (json!({"status": "enabled"}), json!({"t": 1, "u": 1}), json!({"w": 1}), json!({"r": 1}))
    );
    let replacement = |tags: Option<Value>, reported: Option<Value>| {
        event(
            11,
            Change::Replaced {
                version: TwinVersion(3),
                twin: Sections {
                    root: map(json!({"etag": "2"})),
                    tags: tags.map(map),
                    desired: Some(map(json!({"w2": 1}))),
                    reported: reported.map(map),
                },
            },
        )
    };
    let root = json!({"etag": "2", "status": "enabled"});
    assert_eq!(
        content(&replacement(Some(json!({"u": 1})), None)),
        (root.clone(), json!({"u": 1}), json!({"w2": 1}), json!({"r": 1})),
        "reported properties must stay if the event does not carry them"
    );
    assert_eq!(
        content(&replacement(None, Some(json!({"r2": 1})))),
        (root, json!({}), json!({"w2": 1}), json!({"r2": 1})),
        "a body without tags means empty tags"
    );
}

#[test]
fn a_replacement_that_does_not_tell_what_it_replaced_is_applied_and_flagged() {
    let replacement = |tags: Option<Value>, desired: Option<Value>| {
        let twin = Sections { tags: tags.map(map), desired: desired.map(map), ..Sections::default() };
        event(21, Change::Replaced { version: TwinVersion(6), twin })
    };
    let desired = || Some(json!({"w": 1}));
    let untagged = play(&[created(10, 4, json!({})), updated(20, 5, json!({}))]).expect("created");
    for (document, event, decision) in [
        (live_document(), replacement(None, desired()), Decision::Gap),
        (live_document(), replacement(Some(json!({})), desired()), Decision::Applied),
        (live_document(), replacement(Some(json!({})), None), Decision::Gap),
        (untagged.clone(), replacement(None, desired()), Decision::Applied),
        (untagged, replacement(None, None), Decision::Gap),
        // Tags of a base that is not known yet may exist.
        (partial_document(), replacement(None, desired()), Decision::Gap),
        (partial_document(), replacement(Some(json!({})), desired()), Decision::Applied),
        (
            play(&[updated(10, 4, json!({})), replaced(20, 5, json!({}))]).expect("created"),
            replacement(None, desired()),
            Decision::Applied,
        ),
    ] {
        let (decided, stored) = after(&document, &event);
        assert_eq!(decided, decision, "{event:?} on {document:?}");
        assert_eq!(stored.flags.contains(&Flag::Gap), decision == Decision::Gap);
        assert_eq!(
            stored.twin().expect("content").tags,
            Section::new(),
            "the replacement is applied in any case"
        );
    }
    for stored in [None, Some(tombstone())] {
        for (tags, flags) in [(None, 1), (Some(json!({})), 0)] {
            let mut document = stored.clone();
            let decision = decide(&mut document, &replacement(tags, desired()), NOW, &RULES);
            let document = document.expect("stored");
            assert_eq!((decision, document.flags.len()), (Decision::Partial, flags));
            // The flag stays after the base has arrived.
            let based = after(&document, &created(20, 5, json!({"old": 1}))).1;
            if document.previous.is_none() {
                assert_eq!((based.flags.len(), based.is_flagged()), (flags, flags > 0));
            }
        }
    }
}

// ---- modules

fn module(at: i64, change: Change) -> TwinEvent {
    TwinEvent { key: TwinKey::module("hub", "pump", "m"), at: t(at), change }
}

fn module_document(born: i64, last: i64) -> Document {
    let as_module = |event: TwinEvent| module(event.at.get(), event.change);
    play(&[as_module(created(born, 2, json!({}))), as_module(updated(last, 3, json!({"a": 1})))])
        .expect("created")
}

#[test]
fn modules_have_no_modules() {
    let mut stored = Some(module_document(10, 20));
    decide(&mut stored, &module(30, Change::Deleted), NOW, &RULES);
    assert_eq!(stored.expect("kept").cascade, None);
    let mut stored = None;
    decide(&mut stored, &module(30, Change::Deleted), NOW, &RULES);
    assert_eq!(stored.expect("kept").cascade, None);
    let mut stored = Some(module_document(10, 20));
    decide(&mut stored, &module(15, Change::Deleted), NOW, &RULES);
    let stored = stored.expect("kept");
    assert_eq!((stored.cascade, stored.previous), (None, None));
    let (_, stored) = after(&stored, &module(30, created(30, 2, json!({})).change));
    assert_eq!(stored.cascade, None);
}

#[test]
fn modules_are_deleted_with_their_device_but_younger_ones_stay() {
    let follow = |dead_at| follow(TwinKey::module("hub", "pump", "m"), Cascade::Deleted(t(dead_at)));
    for dead_at in [20, 30] {
        let (decision, stored) = after(&module_document(10, 20), &follow(dead_at));
        assert_eq!((decision, stored.state, stored.last), (Decision::Applied, State::Deleted, t(dead_at)));
    }
    unchanged(&module_document(10, 20), &follow(9), Decision::Stale);
    refused(&module_document(10, 20), &follow(15), Decision::Suspect);
}

#[test]
fn modules_from_before_the_devices_last_deletion_are_over() {
    assert_eq!(tombstone().modules_dead_before(), Some(t(20)));
    assert_eq!(live_document().modules_dead_before(), None);
    let (_, again) = after(&tombstone(), &created(30, 2, json!({})));
    assert_eq!(again.modules_dead_before(), Some(t(20)));
    let (_, unseen) = after(&live_document(), &created(30, 2, json!({})));
    assert_eq!(unseen.modules_dead_before(), Some(t(20)));
    let (_, gone) = after(&again, &deleted(40));
    assert_eq!(gone.modules_dead_before(), Some(t(40)));
}

#[test]
fn a_cascade_deletes_a_module_that_a_late_event_brought_back() {
    for change in [created(15, 2, json!({})).change, updated(15, 3, json!({})).change] {
        let mut stored = None;
        decide(&mut stored, &module(15, change), NOW, &RULES);
        let dead_before = tombstone().modules_dead_before().expect("deleted");
        let event = follow(TwinKey::module("hub", "pump", "m"), Cascade::Deleted(dead_before));
        assert_eq!(decide(&mut stored, &event, NOW, &RULES), Decision::Applied);
        assert_eq!(stored.expect("kept").state, State::Deleted);
    }
}

#[test]
fn a_reborn_parent_flags_older_modules_until_they_are_created_anew() {
    let follow = |at| follow(TwinKey::module("hub", "pump", "m"), Cascade::Reborn(t(at)));
    for at in [19, 20] {
        unchanged(&module_document(10, 20), &follow(at), Decision::Stale);
    }
    refused(&module_document(10, 20), &follow(21), Decision::Suspect);
    let (_, flagged) = after(&module_document(10, 20), &follow(21));
    let (decision, stored) = after(&flagged, &module(25, created(25, 2, json!({})).change));
    assert_eq!(decision, Decision::Applied);
    assert!(stored.flags.is_empty(), "the flag was about the previous module");
    let mut buried = Some(module_document(10, 20));
    decide(&mut buried, &module(22, Change::Deleted), EARLIER, &RULES);
    unchanged(&buried.expect("kept"), &follow(30), Decision::Stale);
}

#[test]
fn names_of_decisions_are_distinct() {
    let names: BTreeSet<_> = Decision::ALL.into_iter().map(Decision::name).collect();
    assert_eq!(names.len(), Decision::ALL.len());
}

#[test]
fn a_deletion_that_comes_late_adds_to_what_the_modules_still_have_to_follow() {
    let confirmed = |cascade| Document { confirmed_until: Some(t(40)), cascade, ..live_document() };
    let not_confirmed = |cascade| Document { cascade, ..live_document() };
    let (deleted_at, reborn) = (|at| Some(Cascade::Deleted(t(at))), |at| Some(Cascade::Reborn(t(at))));
    for (stored, at, expected) in [
        // The hub knew the twin after the deletion: it was created again.
        (confirmed(None), 30, reborn(30)),
        (confirmed(reborn(15)), 30, reborn(30)),
        (confirmed(reborn(35)), 30, reborn(35)),
        (confirmed(deleted_at(25)), 30, reborn(30)),
        (confirmed(deleted_at(35)), 30, deleted_at(35)),
        // The deletion ended an earlier incarnation.
        (not_confirmed(None), 5, deleted_at(5)),
        (not_confirmed(reborn(15)), 5, reborn(15)),
        (not_confirmed(deleted_at(7)), 5, deleted_at(5)),
        // It lies within this incarnation, and nobody can tell what it ended.
        (not_confirmed(reborn(12)), 15, deleted_at(15)),
    ] {
        let found = after(&stored, &deleted(at)).1;
        assert_eq!((found.cascade, found.previous), (expected, Some(t(at))), "{:?} at {at}", stored.cascade);
    }
}

#[test]
fn a_deletion_just_before_the_first_change_received_may_be_of_this_incarnation() {
    for (at, rules, expected) in
        [(7, &TOLERANT, Decision::Suspect), (4, &TOLERANT, Decision::Stale), (7, &RULES, Decision::Stale)]
    {
        let mut stored = Some(partial_document());
        assert_eq!(decide(&mut stored, &deleted(at), NOW, rules), expected, "{at}");
    }
}

#[test]
fn an_event_that_cannot_be_applied_flags_an_incarnation_from_its_first_moment_on() {
    let unapplied = |at| event(at, Change::Unapplied);
    assert_eq!(after(&live_document(), &unapplied(10)).0, Decision::Suspect);
    unchanged(&live_document(), &unapplied(9), Decision::Stale);
    let refused = Document { refused: Some(t(50)), ..tombstone() };
    assert_eq!(after(&refused, &unapplied(30)).1.refused, Some(t(50)));
    assert_eq!(after(&tombstone(), &unapplied(30)).1.refused, Some(t(30)));
}

#[test]
fn a_document_keeps_the_id_that_it_was_created_with() {
    let stored = Document { id: "hub|pump".into(), ..tombstone() };
    for change in [created(30, 1, json!({})), updated(30, 3, json!({})), event(30, Change::Unapplied)] {
        assert_eq!(after(&stored, &change).1.id, "hub|pump", "{change:?}");
    }
}
