//! Sorting the rows of an answer.

use std::cmp::Ordering;

use serde_json::Value;

use super::{path::Path, value};

/// A path to sort by, and the direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sort {
    pub(super) path: Path,
    pub(super) is_descending: bool,
}

/// Sorts by the query's order. Twins that are equal in it are sorted by device, then by module. Without an order,
/// twins stay as they are.
pub(super) fn sort_twins(twins: &mut [&Value], order: &[Sort]) {
    if !order.is_empty() {
        twins.sort_by(|left, right| compare(left, right, order).then_with(|| by_identity(left, right)));
    }
}

pub(super) fn compare(left: &Value, right: &Value, order: &[Sort]) -> Ordering {
    value::first_difference(order.iter().map(|Sort { path, is_descending }| {
        let rising = by_path(left, right, path);
        if *is_descending { rising.reverse() } else { rising }
    }))
}

/// Compares by the values of these paths, ascending.
pub(super) fn by_paths(left: &Value, right: &Value, paths: &[Path]) -> Ordering {
    value::first_difference(paths.iter().map(|path| by_path(left, right, path)))
}

fn by_path(left: &Value, right: &Value, path: &Path) -> Ordering {
    value::sorted_or_undefined(path.of(left), path.of(right))
}

fn by_identity(left: &Value, right: &Value) -> Ordering {
    let names = ["deviceId", "moduleId"].into_iter();
    value::first_difference(names.map(|name| value::sorted_or_undefined(left.get(name), right.get(name))))
}
