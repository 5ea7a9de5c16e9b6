use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{LimitError, testing::query};

/// The rows of twins with these tags.
fn rows(text: &str, tags: &[Value]) -> Vec<Value> {
    let mut aggregation = query(text).aggregation(100);
    for tags in tags {
        aggregation.add(&json!({"tags": tags})).expect("has room");
    }
    aggregation.rows()
}

/// The result of an aggregate for these values; `None` if the column is omitted.
fn of(aggregate: &str, values: &[Option<Value>]) -> Option<Value> {
    let tags: Vec<_> =
        values.iter().map(|value| value.as_ref().map_or(json!({}), |value| json!({"v": value}))).collect();
    let rows = rows(&format!("SELECT {aggregate}(tags.v) AS x FROM devices"), &tags);
    assert_eq!(rows.len(), 1);
    rows[0].get("x").cloned()
}

#[test]
fn aggregates_of_odd_values() {
    let numbers = [Some(json!(3)), None, Some(json!(1.5)), Some(json!(-1))];
    for (aggregate, values, result) in [
        ("SUM", &numbers[..], Some(json!(3.5))),
        ("AVG", &numbers, Some(json!(3.5 / 3.0))),
        ("MIN", &numbers, Some(json!(-1))),
        ("MAX", &numbers, Some(json!(3))),
        // Without values.
        ("SUM", &[], Some(json!(0))),
        ("AVG", &[], None),
        ("MIN", &[None], None),
        ("MAX", &[None, None], None),
        // A type without a sum.
        ("SUM", &[Some(json!(1)), Some(json!("1"))], None),
        ("AVG", &[Some(json!(null)), Some(json!(1))], None),
        ("SUM", &[Some(json!(true))], None),
        ("AVG", &[Some(json!([1])), Some(json!(1))], None),
        // The order of types.
        ("MIN", &[Some(json!("a")), Some(json!(1)), Some(json!(true)), Some(json!(null))], Some(json!(null))),
        ("MAX", &[Some(json!(null)), Some(json!(true)), Some(json!(1)), Some(json!("a"))], Some(json!("a"))),
        ("MIN", &[Some(json!("a")), Some(json!(1))], Some(json!(1))),
        ("MAX", &[Some(json!(false)), Some(json!(1)), None], Some(json!(1))),
        ("MIN", &[Some(json!("b")), Some(json!("ab"))], Some(json!("ab"))),
        ("MAX", &[Some(json!([])), Some(json!(1))], None),
        ("MIN", &[Some(json!(1)), Some(json!({}))], None),
        // Exact, and never out of range.
        (
            "SUM",
            &[Some(json!(9_007_199_254_740_993_i64)), Some(json!(2))],
            Some(json!(9_007_199_254_740_995_i64)),
        ),
        ("SUM", &[Some(json!(i64::MAX)), Some(json!(1))], Some(json!(9_223_372_036_854_775_808_u64))),
        ("SUM", &[Some(json!(u64::MAX)), Some(json!(u64::MAX))], Some(json!(36_893_488_147_419_103_230.0))),
        (
            "SUM",
            &[Some(json!(u64::MAX)), Some(json!(u64::MAX)), Some(json!(-36_893_488_147_419_103_232.0))],
            Some(json!(0)),
        ),
        ("AVG", &[Some(json!(u64::MAX)), Some(json!(u64::MAX))], Some(json!(u64::MAX))),
        ("AVG", &[Some(json!(i64::MIN)), Some(json!(i64::MIN))], Some(json!(i64::MIN))),
        ("SUM", &[Some(json!(1.0)), Some(json!(2.0))], Some(json!(3))),
        ("AVG", &[Some(json!(2)), Some(json!(4))], Some(json!(3))),
        ("AVG", &[Some(json!(1)), Some(json!(2))], Some(json!(1.5))),
        ("SUM", &[Some(json!(1e308)), Some(json!(1e308))], None),
        ("AVG", &[Some(json!(-1.7e308)), Some(json!(-1.7e308))], None),
        ("SUM", &[Some(json!(1e16)), Some(json!(0.5)), Some(json!(-1e16))], Some(json!(0.5))),
        ("SUM", &[Some(json!(1e300)), Some(json!(0.5)), Some(json!(-1e300))], Some(json!(0.5))),
        ("SUM", &[Some(json!(0.1)), Some(json!(0.2)), Some(json!(0.3))], Some(json!(0.6))),
    ] {
        let found = of(aggregate, values);
        assert_eq!(found, result, "{aggregate} of {values:?}");
    }
}

#[test]
fn counting_counts_rows() {
    assert_eq!(rows("SELECT COUNT() AS n FROM devices", &[]), [json!({"n": 0})]);
    assert_eq!(rows("SELECT COUNT() AS n FROM devices", &[json!({}), json!({})]), [json!({"n": 2})]);
    assert_eq!(rows("SELECT COUNT() FROM devices", &[json!({})]), [json!({"$1": 1})]);
    assert_eq!(
        rows("SELECT MIN(tags.a) AS a, COUNT(), SUM(tags.a) FROM devices", &[json!({"a": 2})]),
        [json!({"a": 2, "$1": 1, "$2": 2})]
    );
    for (text, name) in [
        ("SELECT COUNT() AS n FROM devices", Some("n")),
        ("SELECT TOP 1 COUNT() FROM devices WHERE tags.a = 1", Some("$1")),
        ("SELECT COUNT() AS n FROM devices GROUP BY tags.a", None),
        ("SELECT COUNT() AS n, COUNT() AS m FROM devices", None),
        ("SELECT MAX(version) AS n FROM devices", None),
        ("SELECT * FROM devices", None),
    ] {
        assert_eq!(query(text).counted_as().as_deref(), name, "{text}");
    }
}

#[test]
fn groups_come_in_the_order_of_their_keys_and_a_missing_key_is_one() {
    let tags = [
        json!({"k": "b", "v": 1}),
        json!({"v": 2}),
        json!({"k": 1, "v": 4}),
        json!({"k": "a"}),
        json!({"k": 1.0, "v": 8}),
        json!({"k": null, "v": 16}),
        json!({"v": 32}),
        json!({"k": {"x": 1}}),
        json!({"k": {"x": 1.0}}),
    ];
    let all = rows("SELECT tags.k, SUM(tags.v) AS sum, COUNT() AS n FROM devices GROUP BY tags.k", &tags);
    let expected = [
        json!({"sum": 34, "n": 2}),
        json!({"k": null, "sum": 16, "n": 1}),
        json!({"k": 1, "sum": 12, "n": 2}),
        json!({"k": "a", "sum": 0, "n": 1}),
        json!({"k": "b", "sum": 1, "n": 1}),
        json!({"k": {"x": 1}, "sum": 0, "n": 2}),
    ];
    assert_eq!(all, expected);
    let top = rows("SELECT TOP 2 COUNT() AS n FROM devices GROUP BY tags.k", &tags);
    assert_eq!(top, [json!({"n": 2}), json!({"n": 1})]);
    assert_eq!(rows("SELECT tags.k AS key FROM devices GROUP BY tags.k", &[]), Vec::<Value>::new());
}

#[test]
fn groups_by_several_paths() {
    let tags = [json!({"a": 1, "b": 2}), json!({"a": 1}), json!({"a": 1, "b": 2}), json!({"b": 2})];
    let all =
        rows("SELECT tags.b, tags.a AS first, COUNT() AS n FROM devices GROUP BY tags.a, tags.b", &tags);
    assert_eq!(
        all,
        [json!({"b": 2, "n": 1}), json!({"first": 1, "n": 1}), json!({"b": 2, "first": 1, "n": 2})]
    );
}

#[test]
fn more_groups_than_are_kept_are_an_error_that_changes_nothing() {
    let mut aggregation = query("SELECT tags.k, COUNT() AS n FROM devices GROUP BY tags.k").aggregation(2);
    let twin = |key: i32| json!({"tags": {"k": key}});
    for key in [1, 2, 1] {
        aggregation.add(&twin(key)).expect("has room");
    }
    let error = aggregation.add(&twin(3)).expect_err("has no room");
    assert_eq!(error, LimitError::Groups { max: 2 });
    assert!(error.to_string().contains("more than 2 groups: group by a field with fewer"), "{error}");
    aggregation.add(&twin(2)).expect("the group exists");
    assert_eq!(aggregation.groups(), 2);
    assert_eq!(aggregation.rows(), [json!({"k": 1, "n": 2}), json!({"k": 2, "n": 2})]);
}

proptest! {
    #[test]
    fn sums_of_integers_do_not_depend_on_their_order(values in proptest::collection::vec(any::<i64>(), 1..20), by in any::<prop::sample::Index>()) {
        let mut turned = values.clone();
        turned.rotate_left(by.index(values.len()));
        let sum = |values: &[i64]| of("SUM", &values.iter().map(|value| Some(json!(value))).collect::<Vec<_>>());
        prop_assert_eq!(sum(&values), sum(&turned));
        let exact: i128 = values.iter().copied().map(i128::from).sum();
        if let Ok(exact) = i64::try_from(exact) {
            prop_assert_eq!(sum(&values), Some(json!(exact)));
        }
    }

    #[test]
    fn whatever_is_added_can_be_written_as_json(values in proptest::collection::vec(any::<f64>(), 0..20)) {
        let values: Vec<_> = values.into_iter().filter(|value| value.is_finite()).map(|value| Some(json!(value))).collect();
        for aggregate in ["SUM", "AVG", "MIN", "MAX"] {
            let result = of(aggregate, &values);
            prop_assert!(result.is_none_or(|result| result.as_f64().is_some_and(f64::is_finite)));
        }
    }
}
