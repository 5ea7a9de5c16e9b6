use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{
    LimitError,
    testing::{query, values},
};

fn sorted(text: &str, twins: &[Value], max: usize) -> Result<Vec<Value>, LimitError> {
    let mut sorter = query(text).sorter(max);
    twins.iter().try_for_each(|twin| sorter.add(twin))?;
    Ok(sorter.rows())
}

fn ids(text: &str, twins: &[Value]) -> String {
    let rows = sorted(text, twins, 100).expect("has room");
    rows.iter().map(|row| row["deviceId"].as_str().expect("is a text")).collect()
}

#[test]
fn rows_come_by_type_then_by_value() {
    let twins: Vec<_> = [
        ("a", Some(json!({}))),
        ("b", Some(json!("x"))),
        ("c", None),
        ("d", Some(json!(2))),
        ("e", Some(json!(true))),
        ("f", Some(json!(null))),
        ("g", Some(json!([1]))),
        ("h", Some(json!(1.5))),
        ("i", Some(json!("X"))),
    ]
    .into_iter()
    .map(|(id, value)| {
        let mut twin = json!({"deviceId": id, "tags": {}});
        if let Some(value) = value {
            twin["tags"]["k"] = value;
        }
        twin
    })
    .collect();
    assert_eq!(ids("SELECT deviceId FROM devices ORDER BY tags.k", &twins), "cfehdibga");
    assert_eq!(ids("SELECT deviceId FROM devices ORDER BY tags.k ASC", &twins), "cfehdibga");
    assert_eq!(ids("SELECT deviceId FROM devices ORDER BY tags.k DESC", &twins), "agbidhefc");
    assert_eq!(ids("SELECT TOP 3 deviceId FROM devices ORDER BY tags.k DESC", &twins), "agb");
    assert_eq!(ids("SELECT deviceId FROM devices", &twins), "abcdefghi");
}

#[test]
fn ties_come_by_device_then_by_module_in_either_direction() {
    let twin = |device: &str, module: Option<&str>, a: i32, b: i32| {
        let mut twin = json!({"deviceId": device, "tags": {"a": a, "b": b}});
        if let Some(module) = module {
            twin["moduleId"] = json!(module);
        }
        twin
    };
    let twins = [
        twin("2", Some("y"), 1, 1),
        twin("2", Some("x"), 1, 1),
        twin("1", Some("z"), 1, 1),
        twin("3", None, 0, 1),
        twin("0", None, 1, 0),
    ];
    let order = |text: &str| -> Vec<String> {
        let rows = sorted(text, &twins, 100).expect("has room");
        rows.iter()
            .map(|row| {
                format!("{}{}", row["deviceId"].as_str().unwrap(), row["moduleId"].as_str().unwrap_or(""))
            })
            .collect()
    };
    assert_eq!(order("SELECT * FROM devices ORDER BY tags.a"), ["3", "0", "1z", "2x", "2y"]);
    assert_eq!(order("SELECT * FROM devices ORDER BY tags.a DESC"), ["0", "1z", "2x", "2y", "3"]);
    assert_eq!(
        order("SELECT * FROM devices ORDER BY tags.a DESC, tags.b DESC"),
        ["1z", "2x", "2y", "0", "3"]
    );
}

#[test]
fn more_rows_than_are_kept_are_an_error_unless_only_the_best_are_wanted() {
    let twins: Vec<_> =
        (0..5).map(|number| json!({"deviceId": number.to_string(), "version": number})).collect();
    let by_version = |top: &str| format!("SELECT {top} version FROM devices ORDER BY version DESC");
    let error = sorted(&by_version(""), &twins, 4).expect_err("has no room");
    assert_eq!(error, LimitError::Rows { max: 4 });
    assert!(error.to_string().contains("with TOP 4 or less"), "{error}");
    assert_eq!(sorted(&by_version("TOP 5"), &twins, 4), Err(LimitError::Rows { max: 4 }));
    assert_eq!(sorted(&by_version("TOP 9"), &twins[..4], 4).expect("has room").len(), 4);
    assert_eq!(
        sorted(&by_version("TOP 2"), &twins, 4),
        Ok(vec![json!({"version": 4}), json!({"version": 3})])
    );
    assert_eq!(sorted(&by_version("TOP 4"), &twins, 4).expect("has room").len(), 4);
}

proptest! {
    #[test]
    fn the_best_are_the_first_of_all(keys in proptest::collection::vec((0..48_usize, 0..6_u32), 0..30), top in 1..10_usize, descending in any::<bool>()) {
        let values = values();
        let twins: Vec<_> = keys.iter().map(|(key, id)| json!({"deviceId": id.to_string(), "tags": {"k": values[*key % values.len()]}})).collect();
        let direction = if descending { "DESC" } else { "ASC" };
        let all = sorted(&format!("SELECT * FROM devices ORDER BY tags.k {direction}"), &twins, 100).expect("has room");
        let best = sorted(&format!("SELECT TOP {top} * FROM devices ORDER BY tags.k {direction}"), &twins, 10).expect("has room");
        prop_assert_eq!(&all[..top.min(all.len())], &best[..]);
    }
}
