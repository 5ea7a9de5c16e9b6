//! The notes of a partial document are limited, and a base that arrives after they were given up is flagged.

use serde_json::json;

use super::*;
use crate::domain::id::{DocumentIdScheme, TwinKey};

const TTL_SECONDS: u32 = 60;
const SECOND: i64 = 10_000_000;

const RULES: Rules = Rules {
    id_scheme: DocumentIdScheme::Device,
    tombstone_ttl_seconds: TTL_SECONDS,
    clock_tolerance: Duration::ZERO,
    forgets_after: None,
};

fn tags(body: Value) -> Sections {
    Sections { tags: body.as_object().cloned(), ..Sections::default() }
}

fn event(at: i64, change: Change) -> TwinEvent {
    TwinEvent { key: TwinKey::device("h", "d"), at: Ticks::new(at), change }
}

fn updated(at: i64, version: i64, body: Value) -> TwinEvent {
    event(at, Change::Updated { version: TwinVersion(version), patch: tags(body).into() })
}

fn created(at: i64, body: Value) -> TwinEvent {
    event(at, Change::Created { version: TwinVersion(1), twin: tags(body) })
}

fn after(events: &[TwinEvent]) -> Document {
    let mut document = None;
    for event in events {
        decide(&mut document, event, event.at, &RULES);
    }
    document.expect("stored")
}

fn tags_of(document: &Document) -> Value {
    Value::Object(document.twin().expect("has a twin").tags.clone())
}

#[test]
fn a_base_within_the_retention_is_put_under_what_was_deleted() {
    let document = after(&[
        updated(100, 2, json!({"a": null})),
        updated(100 + SECOND, 3, json!({"b": 1})),
        created(99, json!({"a": 1, "c": 1})),
    ]);
    assert_eq!(tags_of(&document), json!({"b": 1, "c": 1}));
    assert!(document.flags.is_empty(), "{document:?}");
}

#[test]
fn after_the_retention_nothing_is_remembered_and_a_base_that_comes_all_the_same_is_flagged() {
    let late = 100 + i64::from(TTL_SECONDS) * SECOND + 1;
    let partial = [updated(100, 2, json!({"a": null})), updated(late, 3, json!({"b": 1}))];
    let document = after(&partial);
    let State::Partial { base, .. } = &document.state else { panic!("{document:?}") };
    assert!(base.is_given_up() && base.tags.deleted.is_empty(), "{base:?}");
    let [first, second] = partial;
    let document = after(&[first, second, created(99, json!({"a": 1}))]);
    assert!(document.flags.contains(&Flag::Gap), "the deleted key shows: {document:?}");
}

#[test]
fn a_partial_document_of_many_deletions_stays_small_and_says_so() {
    let deletions = (0..3_000).map(|number| {
        updated(100 + number, 2 + number, json!({format!("a-rather-long-name-of-a-tag-{number}"): null}))
    });
    let events: Vec<_> = deletions.collect();
    let document = after(&events);
    let stored = serde_json::to_string(&document).expect("JSON");
    assert!(stored.len() < 200_000, "{}", stored.len());
    assert!(document.weight() < 400_000, "{}", document.weight());
    let based = after(&[&events[..], &[created(99, json!({"a-rather-long-name-of-a-tag-7": 1}))]].concat());
    assert!(based.flags.contains(&Flag::Gap), "{:?}", based.flags);
}

#[test]
fn notes_count_as_memory() {
    let few = after(&[updated(100, 2, json!({"a": null}))]);
    let many: Vec<_> = (0..500)
        .map(|number| updated(100 + number, 2 + number, json!({format!("key-{number}"): null})))
        .collect();
    let many = after(&many);
    assert!(many.weight() > few.weight() + 500 * 64, "{} and {}", many.weight(), few.weight());
}
