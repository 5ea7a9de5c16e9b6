use serde_json::json;

use super::{super::testing::condition, Comparison, Condition, Operand};

#[test]
fn conditions_print_as_they_are_read() {
    for text in [
        "tags.a = 1",
        "tags.a = properties.reported.b",
        "1 < tags.a",
        "tags.a IN ['x', 2, null]",
        "tags.a NIN []",
        "tags.a = [ [1], [2]]",
        "NOT tags.a",
        "NOT NOT tags.a",
        "NOT (tags.a AND tags.b)",
        "tags.a AND tags.b OR NOT tags.c AND tags.d",
        "(tags.a OR tags.b) AND tags.c",
        "(tags.a AND tags.b) AND tags.c",
        "tags.a OR (tags.b OR tags.c)",
        "IS_PRIMITIVE(tags.a)",
        "STARTSWITH(deviceId, 'a\\'b\\\\c\\u000a')",
        "ARRAY_CONTAINS(tags.a, [1, 'x'])",
        "true OR false",
    ] {
        assert_eq!(condition(text).to_string(), text);
    }
}

#[test]
fn a_comparison_has_an_opposite_and_a_mirror_image() {
    let holds = |comparison: Comparison, left: i32, right: i32| {
        let [left, right] = [left, right].map(|number| Operand::Literal(json!(number)));
        Condition::Compare(left, comparison, right).evaluate(&json!({})).expect("numbers compare")
    };
    for (sign, comparison) in Comparison::ALL {
        for (left, right) in [(1, 2), (2, 2), (2, 1)] {
            let here = holds(comparison, left, right);
            assert_eq!(holds(comparison.opposite(), left, right), !here, "{sign}");
            assert_eq!(holds(comparison.mirrored(), right, left), here, "{sign}");
        }
        assert!(sign == comparison.sign() || sign == "<>");
    }
}

#[test]
fn every_path_is_visited_in_the_order_of_the_text() {
    let all = condition(
        "tags.a = tags.b AND (tags.c OR NOT IS_NULL(tags.d)) AND tags.e IN [1] AND tags.f NIN [1] AND CONTAINS(tags.g, tags.h) AND ARRAY_CONTAINS(tags.i, 1)",
    );
    let mut names = Vec::new();
    all.for_each_path(&mut |path| names.extend(path.below().iter().cloned()));
    assert_eq!(names.concat(), "abcdefghi");
}
