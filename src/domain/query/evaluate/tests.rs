use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{
    Condition,
    testing::{any_condition, condition, twin, values},
};

const YES: Option<bool> = Some(true);
const NO: Option<bool> = Some(false);
const UNDEFINED: Option<bool> = None;

fn of_tag(value: Value, text: &str) -> Option<bool> {
    condition(text).evaluate(&json!({"tags": {"a": value}}))
}

/// Every comparison of every pair of types.
#[test]
fn comparisons_of_types() {
    let null = json!(null);
    // The results of `=` and `<`; the other results follow from them.
    for (left, right, equal, less) in [
        (null.clone(), "null", YES, UNDEFINED),
        (null.clone(), "false", NO, UNDEFINED),
        (null.clone(), "0", NO, UNDEFINED),
        (null.clone(), "''", NO, UNDEFINED),
        (null, "[]", NO, UNDEFINED),
        (json!(false), "null", NO, UNDEFINED),
        (json!(false), "false", YES, NO),
        (json!(false), "true", NO, YES),
        (json!(true), "false", NO, NO),
        (json!(true), "1", NO, UNDEFINED),
        (json!(true), "'true'", NO, UNDEFINED),
        (json!(1), "null", NO, UNDEFINED),
        (json!(1), "true", NO, UNDEFINED),
        (json!(1), "1.0", YES, NO),
        (json!(1), "2", NO, YES),
        (json!(1), "'1'", NO, UNDEFINED),
        (json!(1), "[1]", NO, UNDEFINED),
        (json!(9_007_199_254_740_993_i64), "9007199254740992.0", NO, NO),
        (json!("a"), "null", NO, UNDEFINED),
        (json!("a"), "'a'", YES, NO),
        (json!("a"), "'b'", NO, YES),
        (json!("a"), "'A'", NO, NO),
        (json!("1"), "1", NO, UNDEFINED),
        (json!([]), "null", NO, UNDEFINED),
        (json!([1, "x"]), "[1.0, 'x']", YES, UNDEFINED),
        (json!([1]), "[2]", NO, UNDEFINED),
        (json!([1]), "1", NO, UNDEFINED),
        (json!({}), "null", NO, UNDEFINED),
        (json!({"a": 1}), "'a'", NO, UNDEFINED),
        (json!({}), "[]", NO, UNDEFINED),
    ] {
        let opposite = |value: Option<bool>| value.map(|value| !value);
        let greater = match (equal, less) {
            (_, UNDEFINED) => UNDEFINED,
            (YES, _) | (_, YES) => NO,
            _ => YES,
        };
        for (sign, expected) in [
            ("=", equal),
            ("!=", opposite(equal)),
            ("<>", opposite(equal)),
            ("<", less),
            (">=", opposite(less)),
            (">", greater),
            ("<=", opposite(greater)),
        ] {
            let text = format!("tags.a {sign} {right}");
            assert_eq!(of_tag(left.clone(), &text), expected, "{left} {sign} {right}");
            assert_eq!(
                of_tag(left.clone(), &format!("NOT {text}")),
                opposite(expected),
                "not {left} {sign} {right}"
            );
        }
    }
}

#[test]
fn what_is_missing_is_undefined_in_every_comparison() {
    for text in [
        "tags.x = 1",
        "tags.x != 1",
        "tags.x <> 1",
        "tags.x < 1",
        "tags.x <= 1",
        "tags.x > 1",
        "tags.x >= 1",
        "1 = tags.x",
        "tags.x = tags.y",
        "tags.a != tags.x",
        "tags.x = null",
        "tags.x IN [1]",
        "tags.x IN [null]",
        "tags.x IN []",
        "tags.x NIN [1]",
        "tags.x NIN []",
        "tags.x",
        "NOT tags.x",
        "STARTSWITH(tags.x, 'a')",
        "ENDSWITH('a', tags.x)",
        "CONTAINS(tags.x, tags.y)",
        "ARRAY_CONTAINS(tags.x, 1)",
        "NOT ARRAY_CONTAINS(tags.x, 1)",
        "tags.a.b = 1",
        "moduleId = 'm'",
        "moduleId != 'm'",
    ] {
        assert_eq!(of_tag(json!(1), text), UNDEFINED, "{text}");
    }
}

#[test]
fn logic_has_three_values() {
    let values = [("true", YES), ("false", NO), ("tags.x = 1", UNDEFINED)];
    // Rows and columns are in the order true, false, undefined.
    let and = [[YES, NO, UNDEFINED], [NO, NO, NO], [UNDEFINED, NO, UNDEFINED]];
    let or = [[YES, YES, YES], [YES, NO, UNDEFINED], [YES, UNDEFINED, UNDEFINED]];
    for (row, (left, left_value)) in values.iter().enumerate() {
        assert_eq!(of_tag(json!(1), &format!("NOT ({left})")), left_value.map(|value| !value));
        for (column, (right, _)) in values.iter().enumerate() {
            for (word, table) in [("AND", and), ("OR", or)] {
                let text = format!("({left}) {word} ({right})");
                assert_eq!(of_tag(json!(1), &text), table[row][column], "{text}");
                let twice = format!("({left}) {word} ({right}) {word} ({left})");
                assert_eq!(of_tag(json!(1), &twice), table[row][column], "{twice}");
            }
        }
    }
}

#[test]
fn lists() {
    for (value, list, is_in) in [
        (json!("a"), "['a', 'b']", YES),
        (json!("c"), "['a', 'b']", NO),
        (json!(1), "['1', 1.0]", YES),
        (json!(1), "['1']", NO),
        (json!(null), "[1, null]", YES),
        (json!(null), "[]", NO),
        (json!([1]), "[1]", NO),
        (json!([1]), "[ [1]]", YES),
        (json!({}), "[1]", NO),
    ] {
        assert_eq!(of_tag(value.clone(), &format!("tags.a IN {list}")), is_in, "{value} {list}");
        assert_eq!(
            of_tag(value.clone(), &format!("tags.a NIN {list}")),
            is_in.map(|is_in| !is_in),
            "{value} {list}"
        );
    }
    assert_eq!(of_tag(json!(0), "1 IN [1]"), YES);
}

#[test]
fn a_path_by_itself_is_the_boolean_that_lies_there() {
    for (value, holds) in [
        (json!(true), YES),
        (json!(false), NO),
        (json!("true"), UNDEFINED),
        (json!(1), UNDEFINED),
        (json!(null), UNDEFINED),
    ] {
        assert_eq!(of_tag(value.clone(), "tags.a"), holds, "{value}");
        assert_eq!(of_tag(value.clone(), "NOT tags.a"), holds.map(|holds| !holds), "{value}");
    }
}

#[test]
fn types_are_never_undefined() {
    // In the order of the functions below.
    let functions = [
        "IS_DEFINED",
        "IS_NULL",
        "IS_BOOL",
        "IS_NUMBER",
        "IS_STRING",
        "IS_OBJECT",
        "IS_ARRAY",
        "IS_PRIMITIVE",
    ];
    for (value, are) in [
        (Some(json!(null)), "11000001"),
        (Some(json!(false)), "10100001"),
        (Some(json!(0)), "10010001"),
        (Some(json!(0.5)), "10010001"),
        (Some(json!("")), "10001001"),
        (Some(json!({})), "10000100"),
        (Some(json!([])), "10000010"),
        (None, "00000000"),
    ] {
        let twin = match &value {
            Some(value) => json!({"tags": {"a": value}}),
            None => json!({"tags": {}}),
        };
        for (function, is) in functions.iter().zip(are.chars()) {
            let text = format!("{function}(tags.a)");
            assert_eq!(condition(&text).evaluate(&twin), Some(is == '1'), "{text} of {value:?}");
            assert_eq!(
                condition(&format!("{text} = false")).evaluate(&twin),
                Some(is != '1'),
                "{text} of {value:?}"
            );
        }
    }
}

#[test]
fn texts() {
    for (value, text, expected) in [
        (json!("abc"), "STARTSWITH(tags.a, 'ab')", YES),
        (json!("abc"), "STARTS_WITH(tags.a, 'AB')", NO),
        (json!("abc"), "STARTSWITH(tags.a, '')", YES),
        (json!("abc"), "STARTSWITH('abcd', tags.a)", YES),
        (json!("abc"), "ENDSWITH(tags.a, 'bc')", YES),
        (json!("abc"), "ENDS_WITH(tags.a, 'ab')", NO),
        (json!("abc"), "CONTAINS(tags.a, 'b')", YES),
        (json!("abc"), "CONTAINS(tags.a, 'x')", NO),
        (json!("abc"), "CONTAINS(tags.a, tags.a)", YES),
        (json!("1"), "STARTSWITH(tags.a, 1)", UNDEFINED),
        (json!(1), "STARTSWITH(tags.a, '1')", UNDEFINED),
        (json!(null), "ENDSWITH(tags.a, '')", UNDEFINED),
        (json!(["a"]), "CONTAINS(tags.a, 'a')", UNDEFINED),
        (json!(1), "NOT STARTSWITH(tags.a, '1')", UNDEFINED),
        (json!(1), "STARTSWITH(tags.a, '1') = false", UNDEFINED),
    ] {
        assert_eq!(of_tag(value.clone(), text), expected, "{text} of {value}");
    }
}

#[test]
fn arrays() {
    for (value, wanted, expected) in [
        (json!(["a", 1, null, [2]]), "'a'", YES),
        (json!(["a", 1, null, [2]]), "1.0", YES),
        (json!(["a", 1, null, [2]]), "null", YES),
        (json!(["a", 1, null, [2]]), "[2]", YES),
        (json!(["a", 1, null, [2]]), "2", NO),
        (json!(["a"]), "'A'", NO),
        (json!([]), "1", NO),
        (json!("a"), "'a'", NO),
        (json!({"a": 1}), "1", NO),
        (json!(null), "null", NO),
    ] {
        assert_eq!(
            of_tag(value.clone(), &format!("array_contains(tags.a, {wanted})")),
            expected,
            "{wanted} in {value}"
        );
    }
}

#[test]
fn only_true_selects() {
    let query = |text: &str| super::super::testing::query(&format!("SELECT * FROM devices WHERE {text}"));
    let twin = json!({"tags": {"a": 1}});
    for (text, selects) in
        [("tags.a = 1", true), ("tags.a = 2", false), ("tags.b = 1", false), ("NOT tags.b = 1", false)]
    {
        assert_eq!(query(text).matches(&twin), selects, "{text}");
    }
    assert!(super::super::testing::query("SELECT * FROM devices").matches(&twin));
}

#[test]
fn a_comparison_and_its_mirror_image_agree() {
    for left in values() {
        for right in values() {
            let twin = json!({"tags": {"a": left, "b": right}});
            for (one, other) in [("=", "="), ("!=", "!="), ("<", ">"), ("<=", ">=")] {
                let here = condition(&format!("tags.a {one} tags.b")).evaluate(&twin);
                assert_eq!(
                    here,
                    condition(&format!("tags.b {other} tags.a")).evaluate(&twin),
                    "{left} {one} {right}"
                );
            }
        }
    }
}

proptest! {
    /// De Morgan's laws and the double negation hold in three values.
    #[test]
    fn laws_of_logic(a in any_condition(), b in any_condition(), twin in twin()) {
        let not = |condition: Condition| Condition::Not(Box::new(condition));
        let and = Condition::And(vec![a.clone(), b.clone()]);
        let or = Condition::Or(vec![not(b), not(a.clone())]);
        prop_assert_eq!(not(and).evaluate(&twin), or.evaluate(&twin));
        prop_assert_eq!(not(not(a.clone())).evaluate(&twin), a.evaluate(&twin));
    }
}
