//! Complete answers.

use super::*;

fn twins() -> Vec<Value> {
    vec![
        json!({"deviceId": "a", "version": 3, "tags": {"site": "north", "t": 21.5, "on": true}}),
        json!({"deviceId": "b", "version": 1, "tags": {"site": "south", "t": 20, "on": false}}),
        json!({"deviceId": "b", "moduleId": "m", "version": 1, "tags": {"site": "north", "t": 19}}),
        json!({"deviceId": "c", "version": 2, "tags": {"site": null, "t": "hot", "on": null}}),
        json!({"deviceId": "d", "version": 2, "tags": {"t": [1], "on": "yes"}}),
        json!({"deviceId": "e", "version": 9, "tags": {"site": 1, "on": 1}}),
        json!({"deviceId": "f", "version": 9, "tags": {"site": 1.0, "on": {}}}),
    ]
}

#[track_caller]
fn assert_answers(twins: &[Value], table: &[(&str, Value)]) {
    for (text, rows) in table {
        assert_eq!(Value::from(parse(text).answer(twins.iter())), *rows, "{text}");
    }
}

/// The ids of the selected twins, in the order of the answer.
fn ids(text: &str) -> String {
    // The twins are reversed, so that a requested order differs from the given one.
    let twins = twins();
    let rows = parse(text).answer(twins.iter().rev());
    let id = |row: &Value| {
        let part = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        part("deviceId") + &part("moduleId")
    };
    rows.iter().map(id).collect::<Vec<_>>().join(" ")
}

#[test]
fn rows_are_those_of_the_selected_twins() {
    assert_answers(
        &twins(),
        &[
            ("SELECT deviceId AS d FROM devices WHERE tags.site = 'north'", json!([{"d": "a"}, {"d": "b"}])),
            ("SELECT tags.on FROM devices WHERE version = 9", json!([{"on": 1}, {"on": {}}])),
            ("SELECT tags.site FROM devices WHERE deviceId = 'd'", json!([{}])),
            ("SELECT TOP 1 * FROM devices WHERE version = 3", json!([twins()[0]])),
            ("SELECT TOP 2 version FROM devices", json!([{"version": 3}, {"version": 1}])),
            ("SELECT top 0 * FROM devices", json!([])),
            (
                "SELECT TOP 18446744073709551615 deviceId FROM devices WHERE tags.on",
                json!([{"deviceId": "a"}]),
            ),
            ("SELECT * FROM devices WHERE deviceId = 'z'", json!([])),
        ],
    );
}

#[test]
fn order_is_by_type_then_value_then_identity() {
    for (clauses, expected) in [
        ("", "f e d c bm b a"),
        ("ORDER BY deviceId", "a b bm c d e f"),
        ("order by deviceId desc", "f e d c b bm a"),
        ("ORDER BY version ASC", "b bm c d a e f"),
        ("ORDER BY version DESC", "e f a c d b bm"),
        ("ORDER BY tags.site", "d c e f a bm b"),
        ("ORDER BY tags.site DESC", "b a bm e f c d"),
        ("ORDER BY tags.t", "e f bm b a c d"),
        ("ORDER BY tags.on", "bm c b a e d f"),
        ("ORDER BY version DESC, tags.site, deviceId DESC", "f e a d c bm b"),
        ("ORDER BY devices.moduleId, VERSION", "b c d a e f bm"),
        ("ORDER BY nothing", "a b bm c d e f"),
    ] {
        assert_eq!(ids(&format!("SELECT * FROM devices {clauses}")), expected, "{clauses}");
        // The selected columns do not change the order, and only TOP limits the rows.
        let top = expected.split(' ').take(3).collect::<Vec<_>>().join(" ");
        assert_eq!(ids(&format!("SELECT TOP 3 deviceId, moduleId FROM devices {clauses}")), top, "{clauses}");
    }
}

#[test]
fn aggregates_over_everything() {
    assert_answers(
        &twins(),
        &[
            ("SELECT COUNT() FROM devices", json!([{"$1": 7}])),
            ("SELECT COUNT() AS n FROM devices WHERE tags.site = 'north'", json!([{"n": 2}])),
            (
                "SELECT sum(version), Avg(version) AS mean, MIN(version), MAX(version) FROM devices",
                json!([{"$1": 27, "mean": 27.0 / 7.0, "$2": 1, "$3": 9}]),
            ),
            (
                "SELECT SUM(tags.t) AS s, AVG(tags.t) AS a, MIN(tags.t) AS i, MAX(tags.t) AS x FROM devices \
                 WHERE IS_NUMBER(tags.t) OR NOT IS_DEFINED(tags.t)",
                json!([{"s": 60.5, "a": 60.5 / 3.0, "i": 19, "x": 21.5}]),
            ),
            // A string is not a number, and an array has no minimum.
            ("SELECT SUM(tags.t), AVG(tags.t) FROM devices WHERE deviceId IN ['a', 'c']", json!([{}])),
            (
                "SELECT MIN(tags.t), MAX(tags.t) FROM devices WHERE deviceId IN ['a', 'c']",
                json!([{"$1": 21.5, "$2": "hot"}]),
            ),
            ("SELECT MIN(tags.t), MAX(tags.t), COUNT() AS n FROM devices", json!([{"n": 7}])),
            (
                "SELECT MIN(tags.on), MAX(tags.on) FROM devices WHERE deviceId IN ['a', 'b', 'c']",
                json!([{"$1": null, "$2": true}]),
            ),
            ("SELECT SUM(tags.on) FROM devices WHERE deviceId = 'c'", json!([{}])),
            (
                "SELECT MIN(tags.on), MAX(tags.site) FROM devices WHERE deviceId IN ['c', 'f']",
                json!([{"$2": 1.0}]),
            ),
            // Without values: no twin, or no twin that has the property.
            (
                "SELECT COUNT(), SUM(version), AVG(version), MIN(version), MAX(version) FROM devices \
                 WHERE deviceId = 'z'",
                json!([{"$1": 0, "$2": 0}]),
            ),
            ("SELECT SUM(tags.z), AVG(tags.z), MIN(tags.z), MAX(tags.z) FROM devices", json!([{"$1": 0}])),
            ("SELECT TOP 0 COUNT() FROM devices", json!([])),
            ("SELECT TOP 1 COUNT() FROM devices", json!([{"$1": 7}])),
        ],
    );
}

#[test]
fn sums_of_integers_are_exact() {
    let of = |values: &[Value]| {
        let twins: Vec<Value> = values.iter().map(|value| json!({"tags": {"n": value}})).collect();
        let rows = parse("SELECT SUM(tags.n) AS s, AVG(tags.n) AS a FROM devices").answer(twins.iter());
        rows.first().unwrap().clone()
    };
    let large = 9_007_199_254_740_993_i64;
    assert_eq!(of(&[json!(large), json!(-1), json!(1)])["s"], json!(large));
    assert_eq!(of(&[json!(i64::MAX), json!(i64::MAX)])["s"], json!(u64::MAX - 1));
    assert_eq!(of(&[json!(i64::MIN), json!(i64::MIN)])["s"], json!(-18_446_744_073_709_551_616.0));
    assert_eq!(
        of(&[json!(u64::MAX), json!(u64::MAX), json!(i64::MIN), json!(i64::MIN)])["s"],
        json!(u64::MAX - 1)
    );
    assert_eq!(of(&[json!(1), json!(2.0)]), json!({"s": 3.0, "a": 1.5}));
    assert_eq!(of(&[json!(1), json!(3)]), json!({"s": 4, "a": 2.0}));
    assert_eq!(of(&[json!(1e308), json!(1e308)]), json!({}), "too large for a double");
}

#[test]
fn groups_are_of_equal_keys_and_sorted_by_them() {
    assert_answers(
        &twins(),
        &[
            (
                "SELECT tags.site, COUNT() FROM devices GROUP BY tags.site",
                json!([
                    {"$1": 1},
                    {"site": null, "$1": 1},
                    {"site": 1, "$1": 2},
                    {"site": "north", "$1": 2},
                    {"site": "south", "$1": 1},
                ]),
            ),
            (
                "SELECT COUNT() AS n, SUM(version) AS v FROM devices WHERE version > 1 GROUP BY devices.Version",
                json!([{"n": 2, "v": 4}, {"n": 1, "v": 3}, {"n": 2, "v": 18}]),
            ),
            (
                "SELECT version, deviceId AS d FROM devices WHERE version < 3 GROUP BY version, deviceId, tags.site",
                // b appears twice: its module has another site, which is not selected.
                json!([
                    {"version": 1, "d": "b"},
                    {"version": 1, "d": "b"},
                    {"version": 2, "d": "c"},
                    {"version": 2, "d": "d"},
                ]),
            ),
            (
                "SELECT TOP 2 version, MAX(tags.t) FROM devices GROUP BY version ORDER BY version DESC",
                json!([{"version": 9}, {"version": 3, "$1": 21.5}]),
            ),
            ("SELECT version FROM devices WHERE version = 0 GROUP BY version", json!([])),
            ("SELECT COUNT() FROM devices WHERE version = 0 GROUP BY version", json!([])),
            (
                "SELECT tags.on FROM devices GROUP BY tags.on ORDER BY tags.on DESC",
                json!([{"on": {}}, {"on": "yes"}, {"on": 1}, {"on": true}, {"on": false}, {"on": null}, {}]),
            ),
            (
                "SELECT tags.site, version FROM devices WHERE version IN [1, 3] GROUP BY version, tags.site \
                 ORDER BY tags.site",
                json!([
                    {"site": "north", "version": 1},
                    {"site": "north", "version": 3},
                    {"site": "south", "version": 1},
                ]),
            ),
        ],
    );
}

#[test]
fn names_of_items_without_alias() {
    assert_answers(
        &twins()[..1],
        &[
            (
                "SELECT version, COUNT(), tags.site, SUM(version) AS s, MIN(version) FROM devices \
                 GROUP BY version, tags.site",
                json!([{"version": 3, "$1": 1, "site": "north", "s": 3, "$2": 3}]),
            ),
            ("SELECT COUNT() AS COUNT, COUNT() FROM devices", json!([{"COUNT": 1, "$1": 1}])),
        ],
    );
}
