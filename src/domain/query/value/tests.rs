use std::cmp::Ordering::{self, Equal, Greater, Less};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{super::testing::values, Exact, compare, equal, total};

#[test]
fn numbers_are_compared_by_what_they_are() {
    for (left, right, order) in [
        (json!(1), json!(1.0), Equal),
        (json!(0), json!(-0.0), Equal),
        (json!(9_007_199_254_740_993_i64), json!(9_007_199_254_740_992.0), Greater),
        (json!(9_007_199_254_740_992_i64), json!(9_007_199_254_740_992.0), Equal),
        (json!(i64::MAX), json!(9_223_372_036_854_775_808.0), Less),
        (json!(i64::MIN), json!(-9_223_372_036_854_775_808.0), Equal),
        (json!(u64::MAX), json!(18_446_744_073_709_551_616.0), Less),
        (json!(u64::MAX), json!(i64::MIN), Greater),
        (json!(1), json!(1.5), Less),
        (json!(2), json!(1.5), Greater),
        (json!(-1), json!(-1.5), Greater),
        (json!(-2), json!(-1.5), Less),
        (json!(0), json!(5e-324), Less),
        (json!(0), json!(-5e-324), Greater),
        (json!(u64::MAX), json!(1e300), Less),
        (json!(i64::MIN), json!(-1e300), Greater),
        (json!(1e300), json!(1e301), Less),
        (json!(0.1), json!(0.2), Less),
    ] {
        assert_eq!(
            (compare(&left, &right), compare(&right, &left)),
            (Some(order), Some(order.reverse())),
            "{left} {right}"
        );
        assert_eq!(equal(&left, &right), order == Equal);
    }
}

#[test]
fn only_booleans_numbers_and_texts_have_an_order() {
    for (left, right, order) in [
        (json!(false), json!(true), Some(Less)),
        (json!("a"), json!("ab"), Some(Less)),
        (json!("Z"), json!("a"), Some(Less)),
        // By code points; in UTF-16 the order is reversed.
        (json!("\u{ffff}"), json!("\u{10000}"), Some(Less)),
        (json!(null), json!(null), None),
        (json!([]), json!([]), None),
        (json!({}), json!({}), None),
        (json!(1), json!("1"), None),
        (json!(true), json!(1), None),
        (json!(null), json!(false), None),
    ] {
        assert_eq!(compare(&left, &right), order, "{left} {right}");
    }
}

#[test]
fn equality_goes_deep_and_does_not_look_at_the_order_of_keys() {
    for (left, right, same) in [
        (json!(null), json!(null), true),
        (json!([1, [2.0]]), json!([1.0, [2]]), true),
        (json!([1, 2]), json!([2, 1]), false),
        (json!([1]), json!([1, 1]), false),
        (json!({"a": 1, "b": 2}), json!({"b": 2.0, "a": 1}), true),
        (json!({"a": null}), json!({}), false),
        (json!({"a": null}), json!({"b": null}), false),
        (json!(1), json!("1"), false),
        (json!(1), json!(true), false),
        (json!([]), json!({}), false),
        (json!("é"), json!("e\u{301}"), false),
    ] {
        assert_eq!((equal(&left, &right), equal(&right, &left)), (same, same), "{left} {right}");
    }
}

#[test]
fn types_sort_in_the_order_of_cosmos_db() {
    let sorted = [
        None,
        Some(json!(null)),
        Some(json!(false)),
        Some(json!(true)),
        Some(json!(-1)),
        Some(json!(1.5)),
        Some(json!("")),
        Some(json!("a")),
        Some(json!([])),
        Some(json!([1])),
        Some(json!([1, null])),
        Some(json!([2])),
        Some(json!({})),
        Some(json!({"a": 1, "c": 0})),
        Some(json!({"a": 2})),
        Some(json!({"b": 0})),
    ];
    for (index, left) in sorted.iter().enumerate() {
        for (other, right) in sorted.iter().enumerate() {
            assert_eq!(total(left.as_ref(), right.as_ref()), index.cmp(&other), "{left:?} {right:?}");
        }
    }
}

#[test]
fn the_total_order_is_one() {
    let values: Vec<_> = values().into_iter().map(Some).chain([None]).collect();
    let order = |left: &Option<Value>, right: &Option<Value>| total(left.as_ref(), right.as_ref());
    for a in &values {
        for b in &values {
            assert_eq!(order(a, b), order(b, a).reverse());
            if let (Some(a), Some(b)) = (a, b) {
                assert_eq!(order(&Some(a.clone()), &Some(b.clone())).is_eq(), equal(a, b), "{a} {b}");
            }
            for c in &values {
                let goes_up = order(a, b).is_le() && order(b, c).is_le();
                assert!(!goes_up || order(a, c).is_le(), "{a:?} {b:?} {c:?}");
            }
        }
    }
}

#[test]
fn a_number_comes_back_as_json_can_hold_it() {
    for (exact, number) in [
        (Exact::Integer(i128::from(u64::MAX)), Some(json!(u64::MAX))),
        (Exact::Integer(i128::from(u64::MAX) + 1), Some(json!(18_446_744_073_709_551_616.0))),
        (Exact::Integer(i128::from(i64::MIN)), Some(json!(i64::MIN))),
        (Exact::Double(0.5), Some(json!(0.5))),
        (Exact::Double(f64::INFINITY), None),
        (Exact::Double(f64::NAN), None),
    ] {
        assert_eq!(exact.number().map(Value::Number), number);
    }
}

proptest! {
    /// Compared with a reference that compares the whole part and the fraction separately.
    #[test]
    fn integers_and_doubles_compare_without_loss(integer in any::<i64>(), double in -1e19..1e19_f64, near in any::<bool>()) {
        let double = if near { integer as f64 + double.fract() } else { double };
        let whole = double.trunc();
        // The strategy keeps it in range.
        let fraction = if double == whole { Equal } else { 0.0_f64.total_cmp(&(double - whole)) };
        let expected = i128::from(integer).cmp(&(whole as i128)).then(fraction);
        let found: Option<Ordering> = compare(&json!(integer), &json!(double));
        prop_assert_eq!(found, Some(expected));
    }
}
