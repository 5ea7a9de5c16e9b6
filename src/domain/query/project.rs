//! The row that a twin becomes.

use serde_json::{Map, Value};

use super::{Item, Query, Selected, Selection};

/// The names of the columns. With an alias: the alias as written. For a path without one: its last name. For the n-th
/// aggregate without one: `$n`.
///
/// Sources: the hub answers `SELECT DeviceId, LastActivityTime` with `deviceId` and `lastActivityTime` (learn:
/// iot-hub/query-twins), so root names are returned in their original case. `$1` is Cosmos DB's name for a column
/// without a name. The hub's grammar has an alias for every aggregate and does not say what happens without one.
pub(super) fn columns(items: &[Item]) -> Vec<String> {
    let mut unnamed = 0;
    let name = |item: &Item| match (&item.alias, &item.selected) {
        (Some(alias), _) => alias.clone(),
        (None, Selected::Path(path)) => path.column().to_owned(),
        (None, Selected::Aggregate(..)) => {
            unnamed += 1;
            format!("${unnamed}")
        }
    };
    items.iter().map(name).collect()
}

impl Query {
    /// The row for a selected twin: the twin itself, or an object with the selected columns. A path without a value has
    /// no column in it. Rows with aggregates come from an [`Aggregation`](super::Aggregation) instead; here aggregates
    /// have no column.
    pub fn row(&self, twin: &Value) -> Value {
        row(&self.selection, twin)
    }
}

pub(super) fn row(selection: &Selection, twin: &Value) -> Value {
    let items = match selection {
        Selection::Twin => return twin.clone(),
        Selection::Items(items) => items,
    };
    let found = items.iter().zip(columns(items)).filter_map(|(item, column)| match &item.selected {
        Selected::Path(path) => Some((column, path.find(twin)?.clone())),
        Selected::Aggregate(..) => None,
    });
    Value::Object(found.collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests;
