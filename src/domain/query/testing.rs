//! Random twins and queries for property tests.

use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Value, json};

use super::{
    Aggregate, Collection, Comparison, Condition, Direction, Item, Operand, Order, Path, Query, Root,
    Selected, Selection, TextTest, TypeTest, project,
};

/// Parses a path that must be valid.
pub(super) fn path(text: &str) -> Path {
    let query = Query::parse(&format!("SELECT {text} FROM devices")).expect("a path");
    let Selected::Path(path) = &query.items()[0].selected else { panic!("{text} is no path") };
    path.clone()
}

/// Parses a condition that must be valid.
pub(super) fn condition(text: &str) -> Condition {
    let query = Query::parse(&format!("SELECT * FROM devices WHERE {text}")).expect(text);
    query.condition.expect("has a condition")
}

pub(super) fn query(text: &str) -> Query {
    Query::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Values on both sides of every boundary between values.
pub(super) fn scalar() -> impl Strategy<Value = Value> + Clone {
    let texts = [
        "",
        "a",
        "ab",
        "b",
        "a'b",
        "\"",
        "\\",
        "\u{7}",
        "\u{d7ff}",
        "\u{e000}",
        "\u{1f600}",
        "é",
        "Ab",
        "]]",
    ];
    prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        (-2_i64..4).prop_map(Value::from),
        select(vec![0.5, -0.5, 1.0, 2.0, 1e15, 1e300, -1e300, 9_007_199_254_740_992.0, 1.8e19])
            .prop_map(Value::from),
        (9_007_199_254_740_990_i64..9_007_199_254_740_996).prop_map(Value::from),
        select(vec![i64::MIN, i64::MAX]).prop_map(Value::from),
        Just(json!(u64::MAX)),
        select(texts.to_vec()).prop_map(Value::from),
    ]
}

/// Values that can be written as a constant.
pub(super) fn constant() -> impl Strategy<Value = Value> + Clone {
    scalar().prop_recursive(2, 6, 3, |inner| vec(inner, 0..3).prop_map(Value::from))
}

/// Values that a twin can contain.
fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::from),
            (inner.clone(), inner).prop_map(|(a, b)| json!({"a": a, "b": b})),
        ]
    })
}

const NAMES: [&str; 9] = ["a", "a", "a", "b", "group", "it's", "a.b", "Ünï", "a-b]"];

/// Few paths, so that many of them have a value.
pub(super) fn any_path() -> impl Strategy<Value = Path> {
    let places = prop_oneof![
        8 => vec(select(NAMES.to_vec()), 1..2).prop_map(|names| (Root::Tags, names)),
        2 => vec(select(NAMES.to_vec()), 0..3).prop_map(|names| (Root::Tags, names)),
        1 => Just((Root::Properties, vec!["desired", "$version"])),
        1 => Just((Root::Properties, vec!["Desired"])),
        1 => select(vec![Root::Version, Root::DeviceId, Root::Status]).prop_map(|root| (root, Vec::new())),
    ];
    places.prop_map(|(root, names)| Path {
        root,
        below: names.into_iter().map(str::to_owned).collect(),
        position: 0,
    })
}

pub(super) fn twin() -> impl Strategy<Value = Value> {
    let tags = (value(), vec((select(NAMES.to_vec()), value()), 0..4))
        .prop_map(|(first, entries)| [("a", first)].into_iter().chain(entries).collect::<Value>());
    (tags, 0..4_u32, proptest::option::of(select(vec!["enabled", "disabled"]))).prop_map(
        |(tags, version, status)| {
            let mut twin = json!({"deviceId": format!("d{version}"), "version": version, "tags": tags,
            "properties": {"desired": {"$version": version}, "reported": {}}});
            if let Some(status) = status {
                twin["status"] = json!(status);
            }
            twin
        },
    )
}

/// Values of every kind, and similar values that are easily confused.
pub(super) fn values() -> Vec<Value> {
    vec![
        json!(null),
        json!(false),
        json!(true),
        json!(0),
        json!(1),
        json!(1.0),
        json!(1.5),
        json!(-1),
        json!(2),
        json!(0.1),
        json!(9_007_199_254_740_991_i64),
        json!(9_007_199_254_740_992_i64),
        json!(9_007_199_254_740_993_i64),
        json!(9_007_199_254_740_992.0),
        json!(-9_007_199_254_740_993_i64),
        json!(i64::MIN),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(9_223_372_036_854_775_808.0),
        json!(18_446_744_073_709_551_616.0),
        json!(1e300),
        json!(-1e300),
        json!(5e-324),
        json!(""),
        json!("a"),
        json!("A"),
        json!("ab"),
        json!("b"),
        json!("1"),
        json!("true"),
        json!("null"),
        json!("'"),
        json!("\u{d7ff}"),
        json!("\u{e000}"),
        json!("\u{ffff}"),
        json!("\u{10000}"),
        json!("a\u{1f600}"),
        json!("a\u{fb01}"),
        json!([]),
        json!(["a"]),
        json!([1, "a", null]),
        json!([1.0]),
        json!([9_007_199_254_740_993_i64]),
        json!([["a"]]),
        json!({}),
        json!({"a": 1}),
        json!({"a": 1.0}),
        json!({"b": 1, "a": null}),
    ]
}

fn operand() -> impl Strategy<Value = Operand> {
    prop_oneof![
        3 => any_path().prop_map(Operand::Path),
        1 => constant().prop_map(Operand::Literal),
    ]
}

fn comparison() -> impl Strategy<Value = Comparison> {
    select(Comparison::ALL.map(|(_, comparison)| comparison).to_vec())
}

pub(super) fn any_condition() -> impl Strategy<Value = Condition> {
    let literal = || constant().prop_map(Operand::Literal);
    let leaf = prop_oneof![
        1 => any::<bool>().prop_map(Condition::Constant),
        2 => any_path().prop_map(Condition::Holds),
        6 => (any_path(), comparison(), literal()).prop_map(|(path, comparison, value)| Condition::Compare(Operand::Path(path), comparison, value)),
        2 => (operand(), comparison(), operand()).prop_map(|(left, comparison, right)| Condition::Compare(left, comparison, right)),
        3 => (operand(), vec(constant(), 0..5)).prop_map(|(operand, list)| Condition::In(operand, list)),
        3 => (operand(), vec(constant(), 0..5)).prop_map(|(operand, list)| Condition::NotIn(operand, list)),
        3 => (select(TypeTest::ALL.to_vec()), any_path()).prop_map(|(test, path)| Condition::Type(test, path)),
        3 => (select(TextTest::ALL.to_vec()), operand(), operand()).prop_map(|(test, left, right)| Condition::Text(test, left, right)),
        2 => (any_path(), constant()).prop_map(|(path, value)| Condition::ArrayContains(path, value)),
    ];
    leaf.prop_recursive(5, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 2..4).prop_map(Condition::And),
            vec(inner.clone(), 2..4).prop_map(Condition::Or),
            inner.prop_map(|inner| Condition::Not(Box::new(inner))),
        ]
    })
}

fn item() -> impl Strategy<Value = Item> {
    let path = any_path().prop_map(Selected::Path);
    let aggregate = (select(Aggregate::ALL.to_vec()), any_path()).prop_map(|(aggregate, path)| {
        Selected::Aggregate(aggregate, (aggregate != Aggregate::Count).then_some(path))
    });
    let alias = proptest::option::of(
        select(vec!["n", "N", "count", "from", "a b", "$1", "ü"]).prop_map(str::to_owned),
    );
    (prop_oneof![path, aggregate], alias).prop_map(|(selected, alias)| Item { selected, alias })
}

/// A query that follows the rules of the clauses.
pub(super) fn any_query() -> impl Strategy<Value = Query> {
    let collection = select(vec![Collection::Devices, Collection::Modules]);
    let order = (any_path(), select(vec![Direction::Ascending, Direction::Descending]))
        .prop_map(|(path, direction)| Order { path, direction });
    let parts = (
        proptest::option::of(1..1000_u64),
        vec(item(), 0..4),
        collection,
        proptest::option::of(any_condition()),
        vec(any_path(), 0..2),
        vec(order, 0..3),
    );
    parts.prop_map(|(top, mut items, collection, condition, mut groups, mut order)| {
        let columns = project::columns(&items);
        let is_double = (1..columns.len()).any(|index| columns[..index].contains(&columns[index]));
        if is_double {
            items.truncate(1);
        }
        let has_aggregates = items.iter().any(|item| matches!(item.selected, Selected::Aggregate(..)));
        if items.is_empty() {
            groups.clear();
        }
        if has_aggregates || !groups.is_empty() {
            order.clear();
            groups.extend(items.iter().filter_map(|item| match &item.selected {
                Selected::Path(path) => Some(path.clone()),
                Selected::Aggregate(..) => None,
            }));
        }
        let selection = if items.is_empty() { Selection::Twin } else { Selection::Items(items) };
        Query { top, selection, collection, condition, groups, order }
    })
}
