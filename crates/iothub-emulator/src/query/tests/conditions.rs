//! The results of conditions for one twin.

use super::*;

fn twin() -> Value {
    json!({
        "deviceId": "x'_OR_'a'='a1", "status": "enabled", "version": 7, "etag": "a\"/\\\u{8}\u{c}\n\r\t\u{1f600}",
        "tags": {
            "site": "north", "floor": 3, "zero": 0, "odd": null, "$x": "y", "a.b": {"c d": 1}, "3d": 1, "and": 2,
            "yes": true, "no": false, "list": [1, "a", null, [2]], "same": [1.0, "a", null, [2.0]],
            "large": 9_007_199_254_740_993_u64, "double": 9_007_199_254_740_992.0, "none": [], "object": {},
        },
        "properties": {"desired": {"on": true, "$version": 4}, "reported": {"t": {"now": 21.5}}},
        "capabilities": {"iotEdge": true},
    })
}

/// The result of a condition: true, false, or undefined. It shows in whether the condition or its negation
/// selects the twin.
fn says(condition: &str) -> Option<bool> {
    let selects = |condition: &str| {
        let of = |dialect| Query::parse(&format!("SELECT * FROM devices WHERE {condition}"), dialect);
        let query = of(Dialect::Hub).or_else(|_| of(Dialect::Extended));
        query.unwrap_or_else(|error| panic!("{condition}: {error}")).selects(&twin())
    };
    match (selects(condition), selects(&format!("NOT ({condition})"))) {
        (true, false) => Some(true),
        (false, true) => Some(false),
        (false, false) => None,
        (true, true) => panic!("{condition} holds, and does not"),
    }
}

#[track_caller]
fn assert_table(table: &[(&str, Option<bool>)]) {
    for (condition, expected) in table {
        assert_eq!(says(condition), *expected, "{condition}");
    }
}

const TRUE: Option<bool> = Some(true);
const FALSE: Option<bool> = Some(false);

#[test]
fn literals_and_paths_are_read_as_they_are_written() {
    assert_table(&[
        (r"deviceId = 'x\'_OR_\'a\'=\'a1'", TRUE),
        (r#"deviceId = "x'_OR_'a'='a1""#, TRUE),
        (r"DEVICEID IN ['b', 'x\u0027_OR_\'a\'=\'a1']", TRUE),
        (r"devices.deviceId NIN ['b']", TRUE),
        (r#"etag = 'a\"\/\\\b\f\n\r\t\ud83d\ude00'"#, TRUE),
        (r#"etag = "a\"/\\\u0008\u000C\u000a\u000d\u0009😀""#, TRUE),
        ("tags.floor=3.0 and tags.floor>=3 and tags.floor<3.5 and tags.floor>-1e2", TRUE),
        ("tags.floor = 30E-1 AND tags.zero = -0 AND tags.zero = -0.0", TRUE),
        ("properties.desired.$version = 4 AND tags.$x = 'y'", TRUE),
        ("properties.reported.t.now > 21", TRUE),
        ("PROPERTIES.reported.t.now > 21", TRUE),
        ("properties.Reported.t.now > 21", None),
        ("tags.[[a.b]].[[c d]] = 1", TRUE),
        ("Tags.[[floor]] = 3", TRUE),
        ("tags.3d = 1 AND tags.and = 2", TRUE),
        ("3 = tags.floor", TRUE),
        ("'a' = 'a'", TRUE),
        ("TRUE = tags.yes AND False = tags.no AND nUll = tags.odd", TRUE),
        ("unknown = 1", None),
    ]);
}

#[test]
fn equality_is_of_type_and_value() {
    assert_table(&[
        ("tags.floor = '3'", FALSE),
        ("tags.floor != '3'", TRUE),
        ("tags.floor <> true", TRUE),
        ("tags.odd = null", TRUE),
        ("tags.odd = 0", FALSE),
        ("tags.odd != null", FALSE),
        ("tags.site = 'North'", FALSE),
        ("tags.large = 9007199254740993", TRUE),
        ("tags.large = 9007199254740992.0", FALSE),
        ("tags.large = tags.double", FALSE),
        ("tags.double = 9007199254740992", TRUE),
        ("tags.list = tags.same", TRUE),
        ("tags.list != tags.same", FALSE),
        ("tags.list = tags.none", FALSE),
        ("tags.object = tags.none", FALSE),
        ("tags.object != properties.desired", TRUE),
        ("properties = properties", TRUE),
        ("tags.nobody = 1", None),
        ("tags.nobody != 1", None),
        ("tags.nobody = tags.nobody", None),
        ("tags.nobody = null", None),
    ]);
}

#[test]
fn order_is_within_a_type() {
    assert_table(&[
        ("tags.floor < 4", TRUE),
        ("tags.floor <= 3", TRUE),
        ("tags.floor > 3", FALSE),
        ("tags.floor >= 3.5", FALSE),
        ("tags.large > 9007199254740992.0", TRUE),
        ("tags.double < tags.large", TRUE),
        ("tags.large < 1e300 AND tags.large > -1e300", TRUE),
        ("tags.site < 'nortz' AND tags.site > 'North'", TRUE),
        ("tags.no < tags.yes", TRUE),
        ("tags.no >= true", FALSE),
        ("tags.floor < 'a'", None),
        ("tags.floor > true", None),
        ("tags.odd <= null", None),
        ("tags.odd < 1", None),
        ("tags.list >= tags.same", None),
        ("tags.object <= tags.object", None),
        ("tags.nobody < 1", None),
    ]);
}

#[test]
fn lists_ask_for_any_that_is_equal() {
    assert_table(&[
        ("tags.floor IN [1, 2, 3]", TRUE),
        ("tags.floor in ['3', 3.0]", TRUE),
        ("tags.floor IN ['3', true, null]", FALSE),
        ("tags.odd IN [null]", TRUE),
        ("tags.list IN [1]", FALSE),
        ("tags.nobody IN [1, null]", None),
        ("tags.floor NIN [1]", TRUE),
        ("tags.floor nin [3]", FALSE),
        ("tags.nobody NIN [1]", None),
        ("3 IN [3]", TRUE),
    ]);
}

#[test]
fn functions() {
    assert_table(&[
        ("IS_DEFINED(properties.reported.t)", TRUE),
        ("is_defined(tags.nobody)", FALSE),
        ("IS_DEFINED(tags.odd)", TRUE),
        ("IS_NULL(tags.odd)", TRUE),
        ("IS_NULL(tags.nobody)", FALSE),
        ("IS_BOOL(tags.no) AND NOT IS_BOOL(tags.zero)", TRUE),
        ("IS_NUMBER(tags.floor) AND IS_NUMBER(tags.double) AND NOT IS_NUMBER(tags.site)", TRUE),
        ("IS_STRING(tags.site) AND NOT IS_STRING(tags.floor)", TRUE),
        ("IS_OBJECT(tags) AND NOT IS_OBJECT(tags.list) AND NOT IS_OBJECT(tags.odd)", TRUE),
        ("IS_ARRAY(tags.none) AND NOT IS_ARRAY(tags.object)", TRUE),
        ("IS_PRIMITIVE(tags.odd) AND IS_PRIMITIVE(tags.site) AND IS_PRIMITIVE(tags.no)", TRUE),
        ("IS_PRIMITIVE(tags.list) OR IS_PRIMITIVE(tags.object) OR IS_PRIMITIVE(tags.nobody)", FALSE),
        ("Is_String(tags.nobody)", FALSE),
        ("startswith(tags.site, 'no') AND EndsWith(tags.site, 'th')", TRUE),
        ("STARTSWITH(tags.site, '') AND STARTSWITH('north pole', tags.site)", TRUE),
        ("STARTSWITH(tags.site, 'No')", FALSE),
        ("STARTSWITH(tags.floor, '3')", None),
        ("ENDSWITH(tags.site, 3)", None),
        ("ENDSWITH(tags.nobody, 'a')", None),
        ("STARTS_WITH(tags.site, 'nor') AND CONTAINS(tags.site, 'ort')", TRUE),
        ("CONTAINS(tags.site, 'orx')", FALSE),
        ("CONTAINS(tags.list, 'a')", None),
        ("ARRAY_CONTAINS(tags.list, 1.0) AND array_contains(tags.list, null)", TRUE),
        ("ARRAY_CONTAINS(tags.list, '1')", FALSE),
        ("ARRAY_CONTAINS(tags.list, 2)", FALSE),
        ("ARRAY_CONTAINS(tags.site, 'n')", FALSE),
        ("ARRAY_CONTAINS(tags.nobody, 1)", None),
    ]);
}

#[test]
fn a_path_alone_is_a_boolean() {
    assert_table(&[
        ("capabilities.iotEdge", TRUE),
        ("tags.no", FALSE),
        ("tags.floor", None),
        ("tags.nobody", None),
        ("tags.odd", None),
        ("tags.yes AND (tags.yes) AND NOT tags.no", TRUE),
    ]);
}

#[test]
fn three_values_are_combined() {
    // Every pair of true, false and undefined. Rows are the left value, columns the right one.
    let values = ["tags.yes", "tags.no", "tags.nobody"];
    let both = [[TRUE, FALSE, None], [FALSE, FALSE, FALSE], [None, FALSE, None]];
    let either = [[TRUE, TRUE, TRUE], [TRUE, FALSE, None], [TRUE, None, None]];
    for (left, (both, either)) in values.iter().zip(both.iter().zip(&either)) {
        for (right, (both, either)) in values.iter().zip(both.iter().zip(either)) {
            assert_eq!(says(&format!("{left} AND {right}")), *both, "{left} AND {right}");
            assert_eq!(says(&format!("{left} OR {right}")), *either, "{left} OR {right}");
        }
    }
    assert_table(&[
        ("NOT tags.yes", FALSE),
        ("NOT NOT tags.no", FALSE),
        ("NOT tags.nobody", None),
        ("NOT tags.nobody OR tags.nobody", None),
    ]);
}

#[test]
fn or_binds_less_than_and_and_not_binds_most() {
    assert_table(&[
        ("tags.floor = 3 OR tags.floor = 4 AND tags.floor = 5", TRUE),
        ("(tags.floor = 3 OR tags.floor = 4) AND tags.floor = 5", FALSE),
        ("NOT tags.floor = 4 AND tags.floor = 3", TRUE),
        ("NOT tags.floor = 3 OR tags.floor = 3", TRUE),
        ("NOT (tags.floor = 3 OR tags.floor = 3)", FALSE),
        ("NOT tags.floor IN [4] AND ((((tags.floor = 3))))", TRUE),
    ]);
}
