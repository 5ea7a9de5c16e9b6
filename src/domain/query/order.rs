//! Sorted rows: an extension, because the hub has no ORDER BY.

use std::{cmp::Ordering, collections::BTreeMap};

use serde_json::Value;

use super::{Direction, Order, Query, Selection, error::LimitError, path::Root, project, value::Key};

/// The first rows of the twins added so far.
///
/// Values sort as in Cosmos DB: undefined < null < booleans < numbers < texts < arrays < objects. Twins that are equal
/// by every path of ORDER BY are sorted by device id, then by module id, in ascending order in both directions.
#[derive(Debug, Clone)]
pub struct Sorter {
    order: Vec<Order>,
    selection: Selection,
    max_rows: usize,
    /// The number of wanted rows, if it is not more than are kept.
    wanted: Option<usize>,
    rows: BTreeMap<Place, Value>,
    added: u64,
}

/// The sort position of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    keys: Vec<(Key, Direction)>,
    device: Key,
    module: Key,
    /// The number of rows added before: no two rows have the same place.
    added: u64,
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        let keys = self.keys.iter().zip(&other.keys).map(|((key, direction), (other, _))| match direction {
            Direction::Ascending => key.cmp(other),
            Direction::Descending => other.cmp(key),
        });
        keys.into_iter()
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
            .then_with(|| self.device.cmp(&other.device))
            .then_with(|| self.module.cmp(&other.module))
            .then_with(|| self.added.cmp(&other.added))
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Query {
    /// Starts without twins. At most `max_rows` rows are kept in memory. With `TOP n` up to that limit, these are the
    /// first n rows of any number of twins; otherwise all rows are kept.
    pub fn sorter(&self, max_rows: usize) -> Sorter {
        let wanted = self.top.and_then(|top| usize::try_from(top).ok()).filter(|top| *top <= max_rows);
        Sorter {
            order: self.order.clone(),
            selection: self.selection.clone(),
            max_rows,
            wanted,
            rows: BTreeMap::new(),
            added: 0,
        }
    }
}

impl Sorter {
    /// Adds a twin that the query selects.
    ///
    /// # Errors
    ///
    /// The query wants all rows, or more than are kept, and this row exceeds the limit. The rows so far are unchanged.
    pub fn add(&mut self, twin: &Value) -> Result<(), LimitError> {
        let id = |root: Root| Key(twin.get(root.name()).cloned());
        let place = Place {
            keys: self
                .order
                .iter()
                .map(|order| (Key(order.path.find(twin).cloned()), order.direction))
                .collect(),
            device: id(Root::DeviceId),
            module: id(Root::ModuleId),
            added: self.added,
        };
        if self.rows.len() >= self.wanted.unwrap_or(self.max_rows) {
            if self.wanted.is_none() {
                return Err(LimitError::Rows { max: self.max_rows });
            }
            if self.rows.last_key_value().is_none_or(|(last, _)| *last < place) {
                return Ok(());
            }
            self.rows.pop_last();
        }
        self.added = self.added.saturating_add(1);
        self.rows.insert(place, project::row(&self.selection, twin));
        Ok(())
    }

    /// The rows in sorted order.
    pub fn rows(self) -> Vec<Value> {
        self.rows.into_values().collect()
    }
}

#[cfg(test)]
mod tests;
