//! The published shape of documents, and items that are not our documents.

use serde_json::json;

use super::*;

fn ticks(text: &str) -> Ticks {
    Ticks::parse(text).expect("a valid time")
}

fn live() -> Document {
    let section = |value: Value| value.as_object().expect("an object").clone();
    Document {
        id: "pump%2F1|m".into(),
        key: TwinKey::module("h", "pump/1", "m"),
        state: State::Live {
            born: Some(ticks("2031-01-01T00:00:00.0000001Z")),
            twin: Twin {
                version: TwinVersion(7),
                root: section(json!({"etag": "AAAAAAAAAAQ=", "status": "enabled"})),
                tags: section(json!({"id": "user's", "ttl": 3, "_etag": "user's"})),
                desired: section(json!({"$version": 2, "rate": 0.1, "big": 4_503_599_627_370_495_i64})),
                reported: section(json!({"$version": 3, "deep": {"a": [1, {"b": null}]}})),
            },
        },
        last: ticks("2031-01-02T00:00:00Z"),
        flags: BTreeSet::from([Flag::Gap]),
        refused: None,
        previous: None,
        confirmed_until: None,
        cascade: None,
        applied_at: ticks("2031-01-02T00:00:01Z"),
        operation: Operation::Update,
        ttl_seconds: None,
    }
}

#[test]
fn a_live_document_has_the_published_shape() {
    let written = serde_json::to_value(live()).expect("serialises");
    assert_eq!(
        written,
        json!({
            "id": "pump%2F1|m", "hubName": "h", "deviceId": "pump/1", "moduleId": "m",
            "etag": "AAAAAAAAAAQ=", "status": "enabled", "version": 7,
            "tags": {"id": "user's", "ttl": 3, "_etag": "user's"},
            "properties": {
                "desired": {"$version": 2, "rate": 0.1, "big": 4_503_599_627_370_495_i64},
                "reported": {"$version": 3, "deep": {"a": [1, {"b": null}]}}
            },
            "sync": {
                "state": "live", "flags": ["gap"], "born": "2031-01-01T00:00:00.0000001Z",
                "last": "2031-01-02T00:00:00.0000000Z", "appliedAt": "2031-01-02T00:00:01.0000000Z",
                "op": "updateTwin"
            }
        })
    );
}

#[test]
fn a_document_survives_the_way_through_cosmos() {
    let mut stored = serde_json::to_value(live()).expect("serialises");
    for (name, value) in [("_rid", json!("x")), ("_etag", json!("\"e\"")), ("_ts", json!(1))] {
        stored[name] = value;
    }
    assert_eq!(serde_json::from_value::<Document>(stored).expect("reads back"), live());
}

#[test]
fn names_of_earlier_releases_are_read_and_not_written() {
    let at = ticks("2031-01-03T00:00:00Z");
    let cascade = Some(Cascade::Deleted(at));
    let document = Document { confirmed_until: Some(at), operation: Operation::Flag, cascade, ..live() };
    let mut stored = serde_json::to_value(&document).expect("serialises");
    let sync = stored["sync"].as_object_mut().expect("an object");
    assert_eq!(sync["op"], "flag");
    let confirmed = sync.remove("confirmedUntil").expect("written");
    let cascade = sync.remove("cascade").expect("written");
    let earlier = [("settled", confirmed), ("sweep", cascade), ("op", json!("doubt"))];
    sync.extend(earlier.map(|(name, value)| (name.to_owned(), value)));
    assert_eq!(serde_json::from_value::<Document>(stored).expect("reads back"), document);
}

#[test]
fn a_tombstone_keeps_ids_and_sync_only() {
    let tombstone = Document { state: State::Deleted, ttl_seconds: Some(60), ..live() };
    let written = serde_json::to_value(&tombstone).expect("serialises");
    let names: Vec<_> = written.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(names, ["deviceId", "hubName", "id", "moduleId", "sync", "ttl"]);
    assert_eq!(serde_json::from_value::<Document>(written).expect("reads back"), tombstone);
}

#[test]
fn reserved_names_of_a_twin_root_never_reach_the_document() {
    let mut document = live();
    if let State::Live { twin, .. } = &mut document.state {
        for name in ["id", "ttl", "_etag", "_self", "sync", "hubName"] {
            twin.root.insert(name.into(), json!("intruder"));
        }
    }
    let written = serde_json::to_string(&document).expect("serialises");
    assert!(!written.contains("intruder"), "{written}");
}

#[test]
fn an_item_is_the_twins_document_or_foreign_newer_or_damaged() {
    let key = live().key;
    let stored = || serde_json::to_value(live()).expect("serialises");
    assert_eq!(Item::of(stored(), &key), Item::Document(Box::new(live())));
    let with = |pointer: &str, value: Value| {
        let mut item = stored();
        *item.pointer_mut(pointer).expect("is there") = value;
        item
    };
    assert_eq!(Item::of(with("/hubName", json!("H")), &key), Item::Document(Box::new(live())));
    for (pointer, value, whose) in [
        ("/hubName", json!("other"), "other/pump/1/m"),
        ("/deviceId", json!("pump"), "h/pump/m"),
        ("/moduleId", json!("n"), "h/pump/1/n"),
    ] {
        assert_eq!(Item::of(with(pointer, value), &key), Item::Foreign(whose.into()), "{pointer}");
    }
    // A newer release may write what this one cannot read. Then the document says so.
    let mut newer = with("/sync/state", json!("archived"));
    newer["sync"]["format"] = json!(2);
    assert_eq!(Item::of(newer, &key), Item::Newer(2));
    let mut current = stored();
    current["sync"]["format"] = json!(1);
    assert!(matches!(Item::of(current, &key), Item::Document(_)));
    for damaged in
        [with("/sync", json!("nonsense")), with("/sync/state", json!("archived")), json!({}), json!([])]
    {
        assert!(matches!(Item::of(damaged.clone(), &key), Item::Damaged(_)), "{damaged}");
    }
    // A document of another hub that is also damaged still belongs to that hub's twin.
    let mut foreign = with("/sync", json!(1));
    foreign["hubName"] = json!("other");
    assert!(matches!(Item::of(foreign, &key), Item::Foreign(_)));
}

#[test]
fn a_document_whose_id_spells_the_hub_otherwise_is_found_by_what_it_says() {
    let key = live().key;
    let stored = |id: &str, hub: &str, module: &str| {
        let mut item = serde_json::to_value(live()).expect("serialises");
        item["_etag"] = json!(format!("of {id}"));
        (item["id"], item["hubName"], item["moduleId"]) = (json!(id), json!(hub), json!(module));
        item
    };
    let of_others =
        [stored("x|pump%2F1|m", "x", "m"), stored("H|pump%2F1|n", "H", "n"), json!({"id": "H|?"})];
    assert_eq!(Misplaced::among(of_others.to_vec(), &key), None);
    let mut damaged = stored("A|pump%2F1|m", "h", "m");
    damaged["sync"] = json!(0);
    let ours = [stored("hH|pump%2F1|m", "h", "m"), stored("H|pump%2F1|m", "H", "m"), damaged];
    let found = Misplaced::among([&of_others[..], &ours].concat(), &key).expect("is there");
    assert_eq!((found.id.as_str(), found.etag), ("H|pump%2F1|m", ETag("of H|pump%2F1|m".into())));
    let document = found.document.expect("can be read");
    assert_eq!(*document, Document { id: "H|pump%2F1|m".into(), ..live() }, "it must keep its id");
    let mut newer = stored("H|pump%2F1|m", "H", "m");
    newer["sync"]["format"] = json!(2);
    assert_eq!(Misplaced::among(vec![newer], &key).expect("is there").document, Err(2));
}

#[test]
fn what_is_no_document_is_an_error() {
    for damaged in [json!({}), json!({"id": "a", "hubName": "h", "deviceId": 1, "sync": {}}), json!([])] {
        assert!(serde_json::from_value::<Document>(damaged).is_err());
    }
}

fn twin(document: &mut Document) -> &mut Twin {
    match &mut document.state {
        State::Live { twin, .. } | State::Partial { twin, .. } => twin,
        State::Deleted => panic!("has no twin"),
    }
}

#[test]
fn a_document_that_differs_in_any_field_is_another_write() {
    type Change = (&'static str, fn(&mut Document));
    let changes: [Change; 18] = [
        ("id", |document| document.id.push('x')),
        ("key", |document| document.key = TwinKey::device("h", "another")),
        ("last", |document| document.last = ticks("2031-01-02T00:00:02Z")),
        ("flags", |document| document.flags.clear()),
        ("refused", |document| document.refused = Some(document.last)),
        ("previous", |document| document.previous = Some(document.last)),
        ("confirmed_until", |document| document.confirmed_until = Some(document.last)),
        ("cascade", |document| document.cascade = Some(Cascade::Deleted(document.last))),
        ("applied_at", |document| document.applied_at = document.last),
        ("operation", |document| document.operation = Operation::Create),
        ("ttl_seconds", |document| document.ttl_seconds = Some(60)),
        ("state", |document| document.state = State::Deleted),
        ("born", |document| {
            let twin = twin(document).clone();
            document.state = State::Live { born: None, twin };
        }),
        ("version", |document| twin(document).version = TwinVersion(8)),
        ("root", |document| twin(document).root.clear()),
        ("tags", |document| twin(document).tags.clear()),
        ("desired", |document| twin(document).desired.clear()),
        ("reported", |document| twin(document).reported.clear()),
    ];
    assert!(live().is_same_write(&live()));
    for (field, change) in changes {
        let mut other = live();
        change(&mut other);
        assert!(!live().is_same_write(&other) && !other.is_same_write(&live()), "{field}");
    }
}

#[test]
fn partial_states_say_the_same_if_time_content_and_notes_are_equal() {
    let twin = live().twin().expect("is live").clone();
    let partial = |since, twin: &Twin, first| State::Partial {
        since,
        twin: twin.clone(),
        base: Box::new(BaseNotes { first, ..BaseNotes::default() }),
    };
    let (now, later) = (ticks("2031-01-01T00:00:00Z"), ticks("2031-01-01T00:00:01Z"));
    let one = partial(now, &twin, None);
    assert!(one.says_the_same(&partial(now, &twin, None)) && State::Deleted.says_the_same(&State::Deleted));
    let changed = Twin { version: TwinVersion(8), ..twin.clone() };
    let others = [
        partial(later, &twin, None),
        partial(now, &changed, None),
        partial(now, &twin, Some(TwinVersion(7))),
        State::Live { born: Some(now), twin },
        State::Deleted,
    ];
    for other in others {
        assert!(!one.says_the_same(&other) && !other.says_the_same(&one), "{other:?}");
    }
}

#[test]
fn the_notes_of_each_section_count() {
    let notes = || Notes { deleted: BTreeSet::from(["/a".to_owned()]), ..Notes::default() };
    let given_up = || Notes { given_up: true, ..Notes::default() };
    let of = |tags, desired, reported| BaseNotes { first: None, tags, desired, reported };
    let none = Notes::default;
    let weights = [of(notes(), none(), none()), of(none(), notes(), none()), of(notes(), notes(), notes())]
        .map(|base| base.weight());
    assert_eq!(weights, [66, 66, 198]);
    for base in
        [of(given_up(), none(), none()), of(none(), given_up(), none()), of(none(), none(), given_up())]
    {
        assert!(base.is_given_up(), "{base:?}");
    }
    assert!(!of(notes(), none(), none()).is_given_up());
}

#[test]
fn the_weight_counts_every_name_and_value() {
    let with = |value: Value| {
        let mut document = live();
        twin(&mut document).tags.insert("k".into(), value);
        document.weight()
    };
    let null = with(Value::Null);
    let more = [json!(1), json!("abcd"), json!([1, "ab"]), json!({"ab": 1})].map(|value| with(value) - null);
    assert_eq!(more, [0, 4, 32 + 34, 568 + 2 + 32]);
    let sections: [fn(&mut Twin) -> &mut Section; 4] =
        [|twin| &mut twin.root, |twin| &mut twin.tags, |twin| &mut twin.desired, |twin| &mut twin.reported];
    for section in sections {
        let mut document = live();
        section(twin(&mut document)).insert("name".into(), json!("x"));
        assert_eq!(document.weight(), live().weight() + 4 + 33);
    }
    let tombstone = Document { state: State::Deleted, ..live() };
    assert_eq!(tombstone.weight(), 512);
    let tags = Notes { deleted: BTreeSet::from(["/a".to_owned()]), ..Notes::default() };
    let base = Box::new(BaseNotes { tags, ..BaseNotes::default() });
    let since = ticks("2031-01-01T00:00:00Z");
    let partial = State::Partial { since, twin: live().twin().expect("is live").clone(), base };
    assert_eq!(Document { state: partial, ..live() }.weight(), live().weight() + 66);
}

#[test]
fn the_identity_is_missing_if_a_twin_has_no_status() {
    let mut document = live();
    assert!(!document.lacks_identity());
    twin(&mut document).root.remove("status");
    assert!(document.lacks_identity());
    assert!(!Document { state: State::Deleted, ..document }.lacks_identity());
}

#[test]
fn a_twin_is_new_for_ten_minutes_from_its_beginning() {
    let born = ticks("2031-01-01T00:00:00.0000001Z");
    let after = |seconds| born.after(Duration::from_secs(seconds));
    assert_eq!([0, 599, 600, 601].map(|age| live().is_new(after(age))), [true, true, false, false]);
    assert!(!Document { state: State::Deleted, ..live() }.is_new(born));
}
