//! Compares the daemon's declared counts with the hub's own query evaluation.

use serde_json::{Value, json};

use crate::iothub::query::{Collection, Dialect, Query};

/// The counts in an answer of `/api/counts` that differ from the result of their query over these twins, one line each. An answer without
/// counts is wrong as well, because nothing was compared.
pub fn wrong_counts(answer: &Value, twins: &[Value]) -> Vec<String> {
    match answer["counts"].as_array().map(Vec::as_slice) {
        None | Some([]) => vec![format!("there are no counts: {answer}")],
        Some(counts) => counts.iter().filter_map(|count| wrong(count, twins)).collect(),
    }
}

fn wrong(count: &Value, twins: &[Value]) -> Option<String> {
    let text = count["query"].as_str().unwrap_or_default();
    let query = match Query::parse(text, Dialect::Extended) {
        Ok(query) => query,
        Err(error) => return Some(format!("cannot parse the query of {count}: {error}")),
    };
    let of_modules = matches!(query.collection(), Collection::Modules);
    let selected = twins
        .iter()
        .filter(|twin| twin.get("moduleId").is_some() == of_modules)
        .filter(|twin| query.selects(twin));
    let expected = sorted(query.answer(selected));
    let total: u64 = expected.iter().filter_map(|row| row["twins"].as_u64()).sum();
    let found = sorted(count["rows"].as_array().cloned().unwrap_or_default());
    (found != expected || count["total"] != total)
        .then(|| format!("{text}: {count}, and the hub has {total}: {}", json!(expected)))
}

/// Sorts the rows, because the two sides order them differently.
fn sorted(mut rows: Vec<Value>) -> Vec<Value> {
    rows.sort_by_key(Value::to_string);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_wrongly_is_found_and_nothing_at_all_is_wrong_too() {
        let twins = [
            json!({"deviceId": "a", "tags": {"site": "x"}}),
            json!({"deviceId": "b", "tags": {"site": "y"}}),
            json!({"deviceId": "b", "moduleId": "m", "tags": {"site": "x"}}),
        ];
        let query = "SELECT tags.site AS s, COUNT() AS twins FROM devices GROUP BY tags.site";
        let answer =
            |total: u64, rows: Value| json!({"counts": [{"query": query, "total": total, "rows": rows}]});
        let right = json!([{"s": "y", "twins": 1}, {"s": "x", "twins": 1}]);
        assert_eq!(wrong_counts(&answer(2, right.clone()), &twins), Vec::<String>::new());
        for wrong in [
            answer(3, right),
            answer(2, json!([{"s": "x", "twins": 2}])),
            answer(2, Value::Null),
            json!({"counts": []}),
            json!({}),
        ] {
            assert_eq!(wrong_counts(&wrong, &twins).len(), 1, "{wrong}");
        }
    }
}
