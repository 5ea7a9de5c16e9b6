//! The laws of merge patches, the special cases of twins, and the central property of partial documents: a base put
//! under recorded changes equals the changes applied to the base.

use proptest::{collection, option, prelude::*};
use serde_json::json;

use super::*;

fn map(value: Value) -> Section {
    value.as_object().expect("an object").clone()
}

#[track_caller]
fn patched(target: Value, change: Value, expected: Value) {
    let mut section = map(target);
    patch(&mut section, &map(change));
    assert_eq!(Value::Object(section), expected);
}

#[test]
fn nulls_delete_at_any_depth() {
    patched(json!({"a": 1, "b": 2}), json!({"a": null}), json!({"b": 2}));
    patched(json!({"a": {"b": 1, "c": 2}}), json!({"a": {"b": null}}), json!({"a": {"c": 2}}));
    patched(json!({"a": 1}), json!({"unknown": null}), json!({"a": 1}));
}

#[test]
fn nulls_inside_objects_that_the_patch_creates_leave_empty_objects() {
    patched(json!({}), json!({"a": {"b": null}}), json!({"a": {}}));
    patched(json!({"a": 1}), json!({"a": {"b": {"c": null, "d": 1}}}), json!({"a": {"b": {"d": 1}}}));
}

#[test]
fn objects_and_scalars_replace_each_other() {
    patched(json!({"a": 1}), json!({"a": {"b": 1}}), json!({"a": {"b": 1}}));
    patched(json!({"a": {"b": 1}}), json!({"a": 2}), json!({"a": 2}));
    patched(json!({"a": [1]}), json!({"a": {"b": 1}}), json!({"a": {"b": 1}}));
}

#[test]
fn arrays_are_replaced_whole_and_not_looked_into() {
    patched(json!({"a": [1, {"b": 1}]}), json!({"a": [{"c": null}]}), json!({"a": [{"c": null}]}));
    patched(json!({"a": [1, 2]}), json!({"a": []}), json!({"a": []}));
}

#[test]
fn a_whole_section_holds_no_nulls() {
    assert_eq!(
        Value::Object(whole(&map(json!({"a": null, "b": {"c": null, "d": {}}})))),
        json!({"b": {"d": {}}})
    );
}

#[test]
fn changes_inside_an_object_that_was_set_anew_need_no_notes() {
    let mut notes = Notes::default();
    for (content, change) in
        [(json!({"a": {"b": 1}}), json!({"a": null})), (json!({}), json!({"a": {"b": 2, "c": {"d": 3}}}))]
    {
        notes.record(&map(content), &map(change));
    }
    let before = notes.clone();
    assert_eq!(before.replaced.iter().collect::<Vec<_>>(), ["/a"]);
    notes.record(
        &map(json!({"a": {"b": 2, "c": {"d": 3}}})),
        &map(json!({"a": {"b": null, "c": {"d": null}}})),
    );
    assert_eq!(notes, before);
}

#[test]
fn metadata_follows_the_properties() {
    patched(
        json!({"a": 1, "b": {"c": 1}, "$version": 1,
               "$metadata": {"$lastUpdated": 1, "a": {"$lastUpdated": 1}, "b": {"$lastUpdated": 1, "c": {"$lastUpdated": 1}}}}),
        json!({"a": null, "b": {"d": 2}, "$version": 2,
               "$metadata": {"$lastUpdated": 2, "b": {"$lastUpdated": 2, "d": {"$lastUpdated": 2}}}}),
        json!({"b": {"c": 1, "d": 2}, "$version": 2,
               "$metadata": {"$lastUpdated": 2, "b": {"$lastUpdated": 2, "c": {"$lastUpdated": 1}, "d": {"$lastUpdated": 2}}}}),
    );
}

#[test]
fn metadata_of_what_is_gone_is_removed_at_every_level() {
    patched(
        json!({"a": {"b": {"c": 1}}, "$metadata": {"a": {"$lastUpdated": 1, "b": {"$lastUpdated": 1, "c": {"$lastUpdated": 1}}}}}),
        json!({"a": {"b": 5}}),
        json!({"a": {"b": 5}, "$metadata": {"a": {"$lastUpdated": 1, "b": {"$lastUpdated": 1}}}}),
    );
    // The service may name the deleted key in the patch's metadata, or leave entries without a property.
    patched(
        json!({"a": 1, "$metadata": {"orphan": {"$lastUpdated": 1}, "a": {"$lastUpdated": 1}}}),
        json!({"a": null, "$metadata": {"$lastUpdated": 2, "a": {"$lastUpdated": 2}}}),
        json!({"$metadata": {"$lastUpdated": 2}}),
    );
}

#[test]
fn missing_metadata_is_tolerated() {
    patched(
        json!({"a": 1}),
        json!({"b": 2, "c": 3, "$metadata": {"$lastUpdated": 2, "c": {"$lastUpdated": 2}}}),
        json!({"a": 1, "b": 2, "c": 3, "$metadata": {"$lastUpdated": 2, "c": {"$lastUpdated": 2}}}),
    );
}

/// One step in the life of a section.
#[derive(Debug, Clone)]
enum Step {
    Patch(Section),
    Replace(Section),
}

/// A partial section: the combined result of the steps without the base.
fn recorded(steps: &[Step]) -> (Notes, Section) {
    let (mut notes, mut content) = (Notes::default(), Section::new());
    for step in steps {
        match step {
            Step::Patch(change) => {
                notes.record(&content, change);
                patch(&mut content, change);
            }
            Step::Replace(body) => {
                notes.replace_all();
                content = whole(body);
            }
        }
    }
    (notes, content)
}

fn applied(base: &Section, steps: &[Step]) -> Section {
    let mut section = whole(base);
    for step in steps {
        match step {
            Step::Patch(change) => patch(&mut section, change),
            Step::Replace(body) => section = whole(body),
        }
    }
    section
}

#[track_caller]
fn base_fits_under(base: Value, steps: &[Value]) {
    let base = map(base);
    let steps: Vec<_> = steps.iter().map(|step| Step::Patch(map(step.clone()))).collect();
    let (notes, content) = recorded(&steps);
    assert_eq!(notes.put_under(&base, content), applied(&base, &steps), "{steps:?}");
}

#[test]
fn deletions_and_whole_objects_win_over_the_base() {
    let base = json!({"a": {"x": 1, "y": 2}, "b": 1, "c/d": {"e~f": {"g": 1}}});
    base_fits_under(base.clone(), &[json!({"a": {"x": null}})]);
    base_fits_under(base.clone(), &[json!({"a": null}), json!({"a": {"z": 1}})]);
    base_fits_under(base.clone(), &[json!({"a": 5}), json!({"a": {"z": 1}})]);
    base_fits_under(base.clone(), &[json!({"a": null}), json!({"a": 5}), json!({"a": {"z": {"x": null}}})]);
    base_fits_under(base.clone(), &[json!({"a": {"x": null}}), json!({"a": null}), json!({"a": {"x": {}}})]);
    base_fits_under(base.clone(), &[json!({"b": {"c": null}})]);
    base_fits_under(base.clone(), &[json!({"c/d": {"e~f": null}})]);
    base_fits_under(base.clone(), &[json!({"c/d": {"e~f": null}}), json!({"c/d": {"e~f": {"h": 1}}})]);
    base_fits_under(base, &[json!({"c/d": {"e~f": {"g": null}}})]);
}

#[test]
fn metadata_of_a_key_that_was_deleted_and_set_again_does_not_come_back_with_the_base() {
    let base = json!({"a": 1, "$metadata": {"a": {"$lastUpdated": 1, "$lastUpdatedBy": "x"}}});
    let set = json!({"a": 2, "$metadata": {"a": {"$lastUpdated": 2}}});
    base_fits_under(base.clone(), &[json!({"a": null}), set.clone()]);
    base_fits_under(base.clone(), std::slice::from_ref(&set));
    base_fits_under(base, &[json!({"a": null}), json!({"a": {"b": 1}}), set]);
    let base = json!({"a": {"b": 1}, "$metadata": {"a": {"$lastUpdated": 1, "b": {"$lastUpdated": 1}}}});
    base_fits_under(base, &[json!({"a": 2}), json!({"a": {"b": 1}})]);
}

#[test]
fn notes_survive_json_and_say_nothing_when_there_is_nothing() {
    let steps = [json!({"a/b": null, "c": null}), json!({"c": {"d": 1}}), json!({"e": {"~f": null}})];
    let steps: Vec<_> = steps.into_iter().map(|step| Step::Patch(map(step))).collect();
    let (notes, _) = recorded(&steps);
    let text = serde_json::to_string(&notes).expect("serialises");
    assert_eq!(serde_json::from_str::<Notes>(&text).expect("reads back"), notes);
    assert_eq!(
        serde_json::to_value(&notes).expect("serialises"),
        json!({"deleted": ["/a~1b", "/e/~0f"], "replaced": ["/c"], "renewed": ["/c"]})
    );
    assert_eq!(serde_json::to_value(Notes::default()).expect("serialises"), json!({}));
}

fn key() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c/d", "~", "~1", "/"]).prop_map(str::to_owned)
}

fn object(value: impl Strategy<Value = Value> + 'static, most: usize) -> impl Strategy<Value = Section> {
    collection::vec((key(), value), 0..=most).prop_map(|entries| entries.into_iter().collect())
}

/// Any value; with nulls it is a patch.
fn value(nulls: bool) -> BoxedStrategy<Value> {
    let scalar = prop_oneof![
        (0..5_i64).prop_map(Value::from),
        Just(json!([1, {"a": null}])),
        Just(if nulls { Value::Null } else { json!("text") }),
    ];
    scalar.prop_recursive(3, 12, 3, |inner| object(inner, 3).prop_map(Value::Object)).boxed()
}

/// `$metadata` as the hub writes it for the keys of a body: for some of them, at every level.
fn described(body: Section, time: i64, choices: &mut impl Iterator<Item = u8>, orphan: bool) -> Section {
    fn level(body: &Section, time: i64, choices: &mut impl Iterator<Item = u8>) -> Section {
        let mut entries = Section::new();
        for (name, value) in body {
            let choice = choices.next().unwrap_or_default();
            if choice.is_multiple_of(4) {
                continue; // configurations leave entries out
            }
            let mut entry = value.as_object().map_or_else(Section::new, |below| level(below, time, choices));
            entry.insert("$lastUpdated".into(), time.into());
            if choice % 4 == 1 {
                entry.insert("$lastUpdatedBy".into(), format!("configuration {time}").into());
            }
            entries.insert(name.clone(), Value::Object(entry));
        }
        entries
    }
    let mut metadata = level(&body, time, choices);
    metadata.insert("$lastUpdated".into(), time.into());
    if orphan {
        metadata.insert("orphan".into(), json!({"$lastUpdated": time}));
    }
    let mut body = body;
    body.insert("$metadata".into(), Value::Object(metadata));
    body.insert("$version".into(), time.into());
    body
}

fn body(nulls: bool, most: usize) -> impl Strategy<Value = (Section, Option<Vec<u8>>)> {
    (object(value(nulls), most), option::of(collection::vec(any::<u8>(), 16)))
}

fn history() -> impl Strategy<Value = (Section, Vec<Step>)> {
    let step = prop_oneof![
        9 => body(true, 3).prop_map(|body| (false, body)),
        1 => body(false, 3).prop_map(|body| (true, body)),
    ];
    (body(false, 5), collection::vec(step, 1..7)).prop_map(|(base, steps)| {
        let finish = |(body, metadata): (Section, Option<Vec<u8>>), time, orphan| match metadata {
            Some(choices) => described(body, time, &mut choices.into_iter(), orphan),
            None => body,
        };
        let steps = (1..)
            .zip(steps)
            .map(|(time, (replace, body))| {
                let body = finish(body, time, false);
                if replace { Step::Replace(body) } else { Step::Patch(body) }
            })
            .collect();
        (finish(base, 0, true), steps)
    })
}

/// RFC 7396, implemented literally and slowly.
fn reference(target: &Value, change: &Value) -> Value {
    let Value::Object(change) = change else {
        return change.clone();
    };
    let mut result = target.as_object().cloned().unwrap_or_default();
    for (name, value) in change {
        if value.is_null() {
            result.remove(name);
        } else {
            let below = result.get(name).cloned().unwrap_or(Value::Null);
            result.insert(name.clone(), reference(&below, value));
        }
    }
    Value::Object(result)
}

fn has_null_outside_arrays(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.values().any(has_null_outside_arrays),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => false,
    }
}

fn has_orphan(metadata: &Section, values: &Section) -> bool {
    metadata.iter().filter(|(name, _)| !name.starts_with('$')).any(|(name, entry)| {
        let below = values.get(name);
        let nothing = Section::new();
        below.is_none()
            || entry
                .as_object()
                .is_some_and(|entry| has_orphan(entry, below.and_then(Value::as_object).unwrap_or(&nothing)))
    })
}

#[test]
fn notes_below_a_path_go_with_it_and_its_neighbours_stay() {
    let paths = ["/a", "/a/b", "/a/b/c", "/a0", "/a!", "/ab", "/a~1b"].map(str::to_owned);
    let mut notes = Notes { deleted: paths.into(), ..Notes::default() };
    notes.forget("/a");
    assert_eq!(notes.deleted.iter().collect::<Vec<_>>(), ["/a!", "/a0", "/ab", "/a~1b"]);
}

#[test]
fn the_weight_of_notes_is_that_of_their_paths_and_only_notes_are_given_up() {
    let paths = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<BTreeSet<_>>();
    let mut notes = Notes {
        deleted: paths(&["/a", "/bc"]),
        replaced: paths(&["/d"]),
        renewed: paths(&["/efg"]),
        ..Notes::default()
    };
    assert_eq!(notes.weight(), 4 * 64 + 11);
    notes.give_up();
    assert_eq!(notes, Notes { given_up: true, ..Notes::default() });
    let whole = Notes { whole: true, ..Notes::default() };
    for kept in [Notes::default(), whole] {
        let mut notes = kept.clone();
        notes.give_up();
        assert_eq!(notes, kept);
    }
}

#[test]
fn notes_are_given_up_before_they_outgrow_a_document() {
    let mut notes = Notes::default();
    for number in 0..100_000 {
        notes.record(&Section::new(), &map(json!({format!("key-{number}"): null})));
        assert!(notes.weight() <= NOTES_BYTES_MAX, "{number}: {}", notes.weight());
    }
    assert!(notes.given_up && !notes.is_empty());
    let stored = serde_json::to_value(&notes).expect("JSON");
    assert_eq!(stored, json!({"given_up": true}));
    assert_eq!(serde_json::from_value::<Notes>(stored).expect("read"), notes);
    notes.replace_all();
    assert!(notes.whole && !notes.given_up, "the replacement hides the base in any case");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_patch_does_what_the_rfc_says(target in object(value(false), 5), change in object(value(true), 4)) {
        let mut section = target.clone();
        patch(&mut section, &change);
        let expected = reference(&Value::Object(target), &Value::Object(change));
        prop_assert!(!has_null_outside_arrays(&expected));
        prop_assert_eq!(Value::Object(section), expected);
    }

    #[test]
    fn a_patch_applied_twice_changes_nothing_more((base, steps) in history()) {
        let mut once = applied(&base, &steps);
        if let Some(Step::Patch(change)) = steps.last() {
            let before = once.clone();
            patch(&mut once, change);
            prop_assert_eq!(once, before);
        }
    }

    #[test]
    fn metadata_never_describes_what_is_not_there((base, steps) in history()) {
        let section = applied(&base, &steps);
        if let Some(Value::Object(metadata)) = section.get("$metadata") {
            prop_assert!(!has_orphan(metadata, &section), "{section:?}");
        }
    }

    #[test]
    fn a_base_put_under_recorded_changes_equals_the_changes_applied_to_it((base, steps) in history()) {
        let (notes, content) = recorded(&steps);
        let stored = serde_json::to_string(&(&notes, &content)).expect("serialises");
        let (notes, content): (Notes, Section) = serde_json::from_str(&stored).expect("reads back");
        prop_assert_eq!(notes.put_under(&base, content), applied(&base, &steps));
    }
}
