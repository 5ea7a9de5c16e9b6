use proptest::{collection, option, prelude::*};
use serde_json::json;

use super::*;

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => panic!("no object: {other}"),
    }
}

fn check(body: &str) -> Result<Checked, Undeliverable> {
    Patch::check(Bytes::copy_from_slice(body.as_bytes()))
}

fn patch(body: &str) -> Patch {
    check(body).expect("a change").patch
}

/// Few names, so that collisions are frequent; some are the service's own, and some have escapes.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "[abc]",
        1 => Just("$x".to_owned()),
        1 => Just("q\"\\\u{e9}\n".to_owned()),
    ]
}

fn value(depth: u32) -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        2 => Just(Value::Null),
        2 => any::<i64>().prop_map(Value::from),
        1 => any::<u64>().prop_map(Value::from),
        2 => any::<f64>().prop_filter_map("finite", |number| number.is_finite().then(|| Value::from(number))),
        2 => ".{0,3}".prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(json!([null, {"a": null}, [1]])),
    ];
    leaf.prop_recursive(depth, 16, 4, |inner| {
        collection::btree_map(name(), inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect()))
    })
    .boxed()
}

/// A section, or a wrong value in its place, with invented metadata.
fn section() -> impl Strategy<Value = Option<Value>> {
    let metadata = prop_oneof![
        3 => collection::btree_map(name(), value(2), 0..4)
            .prop_map(|map| Value::Object(map.into_iter().collect())),
        1 => value(0),
    ];
    let whole = (collection::btree_map(name(), value(3), 0..4), option::of(metadata), option::of(0..9_i64));
    let whole = whole.prop_map(|(properties, metadata, version)| {
        let mut section: Map<_, _> = properties.into_iter().collect();
        section.extend(metadata.map(|metadata| (merge::METADATA.to_owned(), metadata)));
        section.extend(version.map(|version| (merge::VERSION.to_owned(), version.into())));
        Value::Object(section)
    });
    option::of(prop_oneof![12 => whole, 1 => Just(Value::Null)])
}

fn body() -> impl Strategy<Value = Map<String, Value>> {
    (section(), section(), section(), option::of(value(1)), any::<bool>()).prop_map(
        |(tags, desired, reported, root, etag)| {
            let mut properties = Map::new();
            properties.extend(desired.map(|section| ("desired".to_owned(), section)));
            properties.extend(reported.map(|section| ("reported".to_owned(), section)));
            let mut body = object(json!({"version": 7, "deviceId": "d", "connectionState": "Connected"}));
            body.extend(tags.map(|tags| ("tags".to_owned(), tags)));
            body.extend(root.map(|root| ("capabilities".to_owned(), root)));
            body.extend(etag.then(|| ("etag".to_owned(), json!("AAAA"))));
            if !properties.is_empty() {
                body.insert("properties".to_owned(), Value::Object(properties));
            }
            body
        },
    )
}

/// The same operation with trees.
fn reference(twin: &mut Twin, sections: &Sections) {
    super::super::twin::drop_etags(&mut twin.root);
    twin.root.extend(sections.root.clone());
    for (section, patch) in [
        (&mut twin.tags, &sections.tags),
        (&mut twin.desired, &sections.desired),
        (&mut twin.reported, &sections.reported),
    ] {
        if let Some(patch) = patch {
            merge::patch(section, patch);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    /// Applies changes one after another, as text and as trees: the twins are the same, including all numbers.
    #[test]
    fn a_patch_changes_what_its_tree_would_change(bodies in collection::vec(body(), 1..6)) {
        let (mut twin, mut expected) = (Twin::default(), Twin::default());
        for body in bodies {
            let text = Value::Object(body.clone()).to_string();
            let checked = check(&text).expect("a change");
            prop_assert_eq!(checked.version, Some(TwinVersion(7)));
            prop_assert_eq!(Value::Object(checked.ids), json!({"deviceId": "d"}));
            prop_assert!(!checked.wrong_section);
            let sections = checked.patch.sections();
            prop_assert_eq!(&sections, &body::sections(body).expect("sections"));
            let version = |section: &Option<merge::Section>| section.as_ref()?.get(merge::VERSION)?.as_i64();
            let counted = Counted { desired: version(&sections.desired), reported: version(&sections.reported) };
            prop_assert_eq!(checked.patch.counted(), counted);
            prop_assert_eq!(Patch::from(sections.clone()).counted(), counted);
            prop_assert_eq!(&Patch::from(sections.clone()), &checked.patch);
            let applied = checked.patch.apply_text(&mut twin);
            prop_assert!(applied.is_ok(), "no name occurs twice, so no tree is needed: {:?}", applied);
            reference(&mut expected, &sections);
            prop_assert_eq!(&twin, &expected);
        }
    }

    /// A body that passes the check can be applied: later, it could not become a dead letter any more.
    #[test]
    fn what_passes_the_check_can_be_parsed(body in body(), at in any::<prop::sample::Index>(), with in prop_oneof![
        Just("1e999"), Just("\"\\ud800\""), Just("\""), Just("}"), Just("01"), Just("nul"), Just("[1,]"), Just("\u{1}"), Just(",")
    ]) {
        let mut text = Value::Object(body).to_string();
        let places: Vec<_> = text.char_indices().map(|(place, _)| place).collect();
        text.insert_str(places[at.index(places.len())], with);
        let parsed = body::tree(text.as_bytes());
        match (check(&text), parsed) {
            (Ok(checked), Ok(tree)) => {
                let sections = body::sections(tree);
                prop_assert_eq!(checked.wrong_section, sections.is_err());
                if let Ok(sections) = sections {
                    prop_assert_eq!(checked.patch.sections(), sections);
                    checked.patch.apply(&mut Twin::default());
                }
            }
            (checked, tree) => prop_assert_eq!(checked.err(), tree.err()),
        }
    }
}

#[test]
fn what_is_no_patch_is_refused_as_a_tree_would_be() {
    for (body, reason) in [
        ("", Undeliverable::NotJson),
        ("[]", Undeliverable::NotObject),
        ("null", Undeliverable::NotObject),
        ("[1, {\"a\": \"\\ud800\"}]", Undeliverable::NotJson),
        ("{} {}", Undeliverable::NotJson),
        ("{\"tags\": {\"a\": 1e999}}", Undeliverable::NotJson),
        ("{\"tags\": {\"a\": \"\\ud800\"}}", Undeliverable::NotJson),
        ("{\"other\": \"\\ud800\"}", Undeliverable::NotJson),
        ("{\"version\": [\"\\ud800\"]}", Undeliverable::NotJson),
    ] {
        assert_eq!(check(body).err(), Some(reason), "{body}");
    }
    for body in [
        r#"{"tags": 1}"#,
        r#"{"tags": []}"#,
        r#"{"properties": "x"}"#,
        r#"{"properties": {"desired": 1.5}}"#,
        r#"{"properties": {"reported": true}}"#,
    ] {
        assert!(check(body).expect("JSON").wrong_section, "{body}");
    }
    for body in [r#"{"tags": null, "properties": {"desired": null}}"#, r#"{"properties": null}"#, "{}"] {
        let mut twin = Twin { tags: object(json!({"a": 1})), ..Twin::default() };
        let checked = check(body).expect("JSON");
        assert!(!checked.wrong_section, "{body}");
        checked.patch.apply(&mut twin);
        assert_eq!(Value::Object(twin.tags), json!({"a": 1}), "{body}");
    }
}

#[test]
fn a_section_that_stands_twice_is_applied_whatever_the_first_one_is() {
    for body in [
        r#"{"version": 3, "tags": 1, "tags": {"a": 2}, "properties": {"reported": {"b": 1}}}"#,
        r#"{"properties": [], "properties": {"reported": {"b": 1}}, "tags": {"a": 2}, "version": 3}"#,
        r#"{"properties": {"reported": "x", "reported": {"b": 1}}, "tags": {"a": 2}, "version": 3}"#,
    ] {
        let checked = check(body).expect("JSON");
        assert!(!checked.wrong_section, "{body}");
        let mut twin = Twin { tags: object(json!({"z": 0})), ..Twin::default() };
        checked.patch.apply(&mut twin);
        assert_eq!(
            (Value::Object(twin.tags), Value::Object(twin.reported)),
            (json!({"a": 2, "z": 0}), json!({"b": 1}))
        );
    }
}

#[test]
fn versions_are_whole_numbers_or_their_text() {
    for (body, version) in [
        (r#"{"version": 5}"#, Some(5)),
        (r#"{"version": "5"}"#, Some(5)),
        (r#"{"version": -1}"#, Some(-1)),
        (r#"{"version": 5.0}"#, None),
        (r#"{"version": 9223372036854775808}"#, None),
        (r#"{"version": null}"#, None),
        (r#"{"version": {"a": [1]}}"#, None),
        (r#"{"version": [1]}"#, None),
        ("{}", None),
    ] {
        assert_eq!(check(body).expect("JSON").version, version.map(TwinVersion), "{body}");
    }
}

#[test]
fn versions_of_sections_are_whole_numbers() {
    for (version, expected) in [
        ("7", Some(7)),
        ("-3", Some(-3)),
        ("0", Some(0)),
        ("9223372036854775808", None),
        ("1.0", None),
        ("null", None),
        ("\"7\"", None),
    ] {
        let patch = patch(&format!(r#"{{"properties": {{"desired": {{"$version": {version}}}}}}}"#));
        assert_eq!(patch.counted(), Counted { desired: expected, reported: None }, "{version}");
    }
}

#[test]
fn metadata_goes_with_its_property() {
    let metadata = |twin: &Twin| twin.reported.get(merge::METADATA).cloned().unwrap_or_default();
    let mut twin = Twin::default();
    patch(
        r#"{"properties": {"reported": {"a": {"b": 1, "c": 2}, "d": 1,
            "$metadata": {"$lastUpdated": 1, "a": {"b": {}, "c": {}}, "d": {}, "orphan": {}}}}}"#,
    )
    .apply(&mut twin);
    assert_eq!(metadata(&twin), json!({"$lastUpdated": 1, "a": {"b": {}, "c": {}}, "d": {}}));
    patch(r#"{"properties": {"reported": {"a": {"b": null}}}}"#).apply(&mut twin);
    assert_eq!(metadata(&twin), json!({"$lastUpdated": 1, "a": {"c": {}}, "d": {}}));
    patch(r#"{"properties": {"reported": {"a": 5}}}"#).apply(&mut twin);
    assert_eq!(metadata(&twin), json!({"$lastUpdated": 1, "a": {}, "d": {}}));
    patch(r#"{"properties": {"reported": {"d": null, "$metadata": {"$lastUpdated": 2}}}}"#).apply(&mut twin);
    assert_eq!(metadata(&twin), json!({"$lastUpdated": 2, "a": {}}));
    patch(r#"{"properties": {"reported": {"$metadata": 1}}}"#).apply(&mut twin);
    assert_eq!(metadata(&twin), Value::Null, "a value that is no metadata must be dropped");
}

#[test]
fn patches_are_equal_where_their_sections_are_and_show_them() {
    let one = patch(r#"{"tags": {"a": 1}, "version": 2}"#);
    assert_eq!(one, patch(r#"{"version": 2, "tags": {"a":1}}"#));
    assert_ne!(one, patch(r#"{"tags": {"a": 2}, "version": 2}"#));
    assert!(format!("{one:?}").contains(r#""a""#), "{one:?}");
}
