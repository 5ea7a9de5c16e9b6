use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    super::{
        Comparison, Condition, Operand, Query, QueryErrorKind, Root, TextTest, TypeTest,
        testing::{any_condition, condition, path, query, twin, values},
    },
    Place, Pushdown,
};
use cosmos::Dialect;

mod cosmos;

fn pushdown(condition: &str) -> Pushdown {
    query(&format!("SELECT * FROM devices WHERE {condition}")).pushdown(Root::place).expect("is stored")
}

fn dialects() -> impl Iterator<Item = Dialect> {
    (0..16_u8).map(|bits| Dialect {
        types_compare: bits & 1 != 0,
        by_units: bits & 2 != 0,
        in_is_defined: bits & 4 != 0,
        functions_are_defined: bits & 8 != 0,
    })
}

#[test]
fn conditions_become_cosmos_sql() {
    for (condition, sql, parameters, exact) in [
        ("deviceId = 'd'", "c.deviceId = @q0", json!(["d"]), true),
        ("'d' = deviceId", "c.deviceId = @q0", json!(["d"]), true),
        (
            "tags.a != 1",
            "IS_DEFINED(c.tags['a']) AND NOT (IS_NUMBER(c.tags['a']) AND c.tags['a'] = @q0)",
            json!([1]),
            true,
        ),
        ("NOT tags.a != 1", "c.tags['a'] = @q0", json!([1]), true),
        ("tags.a = null", "IS_NULL(c.tags['a'])", json!([]), true),
        ("tags.a != null", "IS_DEFINED(c.tags['a']) AND NOT IS_NULL(c.tags['a'])", json!([]), true),
        ("tags.on", "c.tags['on'] = @q0", json!([true]), true),
        ("version >= 3", "c.version >= @q0", json!([3]), true),
        ("3 < version", "c.version > @q0", json!([3]), true),
        ("NOT version >= 3", "c.version < @q0", json!([3]), true),
        ("tags.a < null", "false", json!([]), true),
        ("NOT tags.a < null", "false", json!([]), true),
        ("true", "true", json!([]), true),
        ("tags.a = 1 OR true", "true", json!([]), true),
        ("tags.a = 1 AND false", "false", json!([]), true),
        ("tags.a IN ['x', 'y']", "c.tags['a'] IN (@q0, @q1)", json!(["x", "y"]), true),
        ("tags.a IN ['x']", "c.tags['a'] = @q0", json!(["x"]), true),
        ("tags.a IN [null, 'x']", "c.tags['a'] = @q0 OR IS_NULL(c.tags['a'])", json!(["x"]), true),
        ("tags.a IN []", "false", json!([]), true),
        ("tags.a NIN []", "IS_DEFINED(c.tags['a'])", json!([]), true),
        (
            "tags.a NIN ['x', 1]",
            "IS_DEFINED(c.tags['a']) AND NOT (IS_NUMBER(c.tags['a']) AND c.tags['a'] = @q0) AND NOT (IS_STRING(c.tags['a']) AND c.tags['a'] = @q1)",
            json!([1, "x"]),
            true,
        ),
        ("STARTSWITH(deviceId, 'a')", "STARTSWITH(c.deviceId, @q0)", json!(["a"]), true),
        (
            "NOT CONTAINS(deviceId, 'a')",
            "IS_STRING(c.deviceId) AND NOT CONTAINS(c.deviceId, @q0)",
            json!(["a"]),
            true,
        ),
        ("ENDSWITH(deviceId, 1)", "false", json!([]), true),
        ("STARTSWITH('abc', tags.a)", "IS_STRING(c.tags['a'])", json!([]), false),
        ("NOT IS_DEFINED(tags.a.b)", "NOT IS_DEFINED(c.tags['a']['b'])", json!([]), true),
        ("ARRAY_CONTAINS(tags.a, 'x')", "ARRAY_CONTAINS(c.tags['a'], @q0)", json!(["x"]), true),
        ("ARRAY_CONTAINS(tags.a, [1])", "IS_ARRAY(c.tags['a'])", json!([]), false),
        (
            "properties.desired.a = properties.reported.a",
            "IS_DEFINED(c.properties['desired']['a']) AND IS_DEFINED(c.properties['reported']['a'])",
            json!([]),
            false,
        ),
        ("tags.a = 9007199254740991", "c.tags['a'] = @q0", json!([9_007_199_254_740_991_i64]), true),
        ("tags.a = 9007199254740992", "IS_NUMBER(c.tags['a'])", json!([]), false),
        ("tags.a != 9007199254740992", "IS_DEFINED(c.tags['a'])", json!([]), false),
        ("tags.a < 1e300", "IS_NUMBER(c.tags['a'])", json!([]), false),
        ("tags.a < 'é'", "c.tags['a'] < @q0", json!(["é"]), true),
        ("tags.a < '\u{1f600}'", "IS_STRING(c.tags['a'])", json!([]), false),
        ("tags.a = '\u{1f600}'", "c.tags['a'] = @q0", json!(["\u{1f600}"]), true),
        ("tags.[[it's]] = 1", "true", json!([]), false),
        ("tags.[[a\"b]] = 1 AND tags.c = 2", "c.tags['c'] = @q0", json!([2]), false),
        ("tags.[[a\"b]] = 1 OR tags.c = 2", "true", json!([]), false),
        ("tags.[[a b.c]] = 1", "c.tags['a b.c'] = @q0", json!([1]), true),
        (
            "NOT (tags.a = 1 OR tags.[[it's]])",
            "IS_DEFINED(c.tags['a']) AND NOT (IS_NUMBER(c.tags['a']) AND c.tags['a'] = @q0)",
            json!([1]),
            false,
        ),
        (
            "(tags.a = 1 OR tags.b = 2) AND tags.c = 3",
            "(c.tags['a'] = @q0 OR c.tags['b'] = @q1) AND c.tags['c'] = @q2",
            json!([1, 2, 3]),
            true,
        ),
    ] {
        let found = pushdown(condition);
        let (names, values): (Vec<_>, Vec<_>) = found.parameters.into_iter().unzip();
        assert_eq!(
            (found.condition.as_str(), &json!(values), found.exact),
            (sql, &parameters, exact),
            "{condition}"
        );
        assert!(names.iter().enumerate().all(|(index, name)| *name == format!("@q{index}")));
    }
}

#[test]
fn without_a_condition_everything_is_selected() {
    let all = query("SELECT COUNT() AS n FROM devices").pushdown(Root::place).expect("is stored");
    assert_eq!(all, Pushdown { condition: "true".into(), parameters: Vec::new(), exact: true });
}

#[test]
fn what_only_the_hub_knows_is_named_wherever_it_stands() {
    let names = [
        "connectionState",
        "connectionStateUpdatedTime",
        "lastActivityTime",
        "cloudToDeviceMessageCount",
        "configurations",
    ];
    for name in names {
        for (text, position) in [
            (format!("SELECT {name} FROM devices"), 7),
            (format!("SELECT * FROM devices WHERE tags.a = 1 AND NOT {name} = 'x'"), 47),
            (format!("SELECT * FROM devices WHERE tags.a = devices.{name}"), 37),
            (format!("SELECT COUNT() AS n FROM devices GROUP BY {name}"), 42),
            (format!("SELECT * FROM devices ORDER BY version, {}", name.to_uppercase()), 40),
            (format!("SELECT MAX({name}) AS n FROM devices"), 11),
        ] {
            let error = query(&text).pushdown(Root::place).expect_err(&text);
            assert_eq!((error.kind, error.position), (QueryErrorKind::HubOnly, position), "{text}");
            assert!(
                error.message.starts_with(name) && error.message.contains("only the hub knows"),
                "{error}"
            );
        }
    }
}

#[test]
fn etags_are_never_in_the_document_and_the_identity_is_as_of_the_last_audit() {
    let stored = |place: fn(Root) -> Place, name: &str| {
        query(&format!("SELECT * FROM devices WHERE {name} = 'x'")).pushdown(place).is_ok()
    };
    for (name, by_events, by_audits) in [
        ("etag", false, false),
        ("deviceEtag", false, false),
        ("status", false, true),
        ("tags.a", true, true),
        ("connectionState", false, false),
    ] {
        let found = (stored(Root::place_kept_by_events, name), stored(Root::place_as_of_last_audit, name));
        assert_eq!(found, (by_events, by_audits), "{name}");
    }
}

#[test]
fn a_field_that_is_not_in_the_document_is_not_pushed_down() {
    let place = |root: Root| if root == Root::Status { Place::Elsewhere } else { root.place() };
    let both = query("SELECT * FROM devices WHERE status = 'enabled' AND tags.a = 1")
        .pushdown(place)
        .expect("is stored");
    assert_eq!((both.condition.as_str(), both.exact), ("c.tags['a'] = @q0", false));
}

#[test]
fn what_is_nested_too_deep_for_the_sdk_is_taken_for_true() {
    let deep = (0..30).fold("tags.a = 1".to_owned(), |inner, level| {
        format!("({inner}) {} tags.b = {level}", if level % 2 == 0 { "AND" } else { "OR" })
    });
    let found = pushdown(&deep);
    assert!(!found.exact);
    assert!(!found.condition.contains(&"(".repeat(14)), "{}", found.condition);
    let nothing = json!({"tags": {"b": 29}});
    assert!(query(&format!("SELECT * FROM devices WHERE {deep}")).matches(&nothing));
    for dialect in dialects() {
        assert!(cosmos::selects(&found.condition, &found.parameters, &nothing, dialect));
    }
}

/// Names are written into SQL between quotes.
#[test]
fn no_name_gets_out_of_its_quotes() {
    for name in ["x'] = 1 OR true OR c['y", "x\"", "x\\", "x\n", "\u{85}", "'"] {
        let found = pushdown(&format!("tags.[[{name}]] = 'v'"));
        assert_eq!((found.condition.as_str(), found.exact), ("true", false), "{name:?}");
    }
    let odd = pushdown("tags.[[a) OR (true -- /* @q0 ; ü]] = 'v'");
    assert_eq!(odd.condition, "c.tags['a) OR (true -- /* @q0 ; ü'] = @q0");
}

fn check(query: &Query, twin: &Value) -> Result<(), TestCaseError> {
    let found = query.pushdown(Root::place).map_err(|error| TestCaseError::fail(error.to_string()))?;
    let selected = query.matches(twin);
    for dialect in dialects() {
        let asked = cosmos::selects(&found.condition, &found.parameters, twin, dialect);
        prop_assert!(asked || !selected, "{} misses {} as {:?}: {}", query, twin, dialect, found.condition);
        prop_assert!(
            !found.exact || asked == selected,
            "{} is not exact of {} as {:?}: {}",
            query,
            twin,
            dialect,
            found.condition
        );
    }
    Ok(())
}

/// Every comparison and function, with every kind of value and every constant.
#[test]
fn the_pushdown_of_every_single_condition_is_correct() {
    let path = || Operand::Path(path("tags.a"));
    let twins: Vec<_> = values()
        .into_iter()
        .map(|value| json!({"tags": {"a": value}}))
        .chain([json!({"tags": {}})])
        .collect();
    let mut conditions = vec![condition("tags.a"), condition("tags.a.b"), condition("tags.a IN []")];
    conditions.extend(
        TypeTest::ALL.iter().map(|test| Condition::Type(*test, super::super::testing::path("tags.a"))),
    );
    // Objects cannot be written.
    let constants: Vec<_> = values().into_iter().filter(|value| !value.is_object()).collect();
    for (index, constant) in constants.iter().enumerate() {
        let literal = || Operand::Literal(constant.clone());
        for (_, comparison) in Comparison::ALL {
            conditions.push(Condition::Compare(path(), comparison, literal()));
            conditions.push(Condition::Compare(literal(), comparison, path()));
        }
        for test in TextTest::ALL {
            conditions.push(Condition::Text(*test, path(), literal()));
            conditions.push(Condition::Text(*test, literal(), path()));
        }
        conditions.push(Condition::ArrayContains(super::super::testing::path("tags.a"), constant.clone()));
        for other in constants.iter().skip(index).step_by(3) {
            conditions.push(Condition::In(path(), vec![constant.clone(), other.clone()]));
            conditions.push(Condition::NotIn(path(), vec![other.clone(), constant.clone(), other.clone()]));
        }
    }
    let mut query = query("SELECT * FROM devices");
    for condition in conditions {
        for condition in [Condition::Not(Box::new(condition.clone())), condition] {
            query.condition = Some(condition);
            for twin in &twins {
                check(&query, twin).expect("the pushdown is correct");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn the_pushdown_selects_every_matching_twin_and_no_other_if_it_is_exact(condition in any_condition(), twins in proptest::collection::vec(twin(), 1..8)) {
        let mut query = query("SELECT * FROM devices");
        let negated = Condition::Not(Box::new(condition.clone()));
        for condition in [condition, negated] {
            query.condition = Some(condition);
            for twin in &twins {
                check(&query, twin)?;
            }
        }
    }
}
