//! The row that a twin becomes.

use serde_json::{Map, Value};

use super::{Item, Query, Selected, Selection};

/// The names of the columns: the alias as written; of a path without one, its last name; of the n-th aggregate without one, `$n`.
///
/// Sources: the hub answers `SELECT DeviceId, LastActivityTime` with `deviceId` and `lastActivityTime`
/// (learn: iot-hub/query-twins), so root names come back in their own case. `$1` is Cosmos DB's name for what has none; the hub's
/// grammar has an alias with every aggregate and is silent about its absence.
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
    /// The row that a selected twin becomes: the twin itself, or an object of what the query selects. A path that leads to
    /// nothing has no column in it. Rows of aggregates come from an [`Aggregation`](super::Aggregation) instead; here they have no column.
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
