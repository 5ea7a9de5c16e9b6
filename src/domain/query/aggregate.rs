//! Groups and aggregates: many twins become one row.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{Item, Query, Selected, error::LimitError, path::Path, project, value::Key};
use total::Total;

mod total;

/// An aggregate.
///
/// Source: the grammar of SELECT (learn: iot-hub/iot-hub-devguide-query-language). Special values follow the rules of
/// Cosmos DB (learn: cosmos-db/nosql/query/avg, sum, min, max): an undefined value does not count, and a value of a
/// type that cannot be aggregated makes the result undefined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregate {
    /// The number of twins.
    Count,
    /// The mean of the numbers.
    Average,
    /// The sum of the numbers.
    Sum,
    /// The smallest value, by the order null < booleans < numbers < texts.
    Min,
    /// The largest value, by the same order.
    Max,
}

impl Aggregate {
    /// All aggregates.
    pub const ALL: [Self; 5] = [Self::Count, Self::Average, Self::Sum, Self::Min, Self::Max];

    /// Its name in a query.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Count => "COUNT",
            Self::Average => "AVG",
            Self::Sum => "SUM",
            Self::Min => "MIN",
            Self::Max => "MAX",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|aggregate| aggregate.name().eq_ignore_ascii_case(name))
    }
}

/// The groups of a query, for the twins added so far.
///
/// Integers are summed exactly, in any order of the twins. A result that is not finite has no JSON form and is omitted.
#[derive(Debug, Clone)]
pub struct Aggregation {
    items: Vec<Item>,
    paths: Vec<Path>,
    top: Option<u64>,
    max_groups: usize,
    groups: BTreeMap<Vec<Key>, Vec<Total>>,
}

impl Query {
    /// Starts without twins. At most `max_groups` groups are kept in memory.
    pub fn aggregation(&self, max_groups: usize) -> Aggregation {
        let mut aggregation = Aggregation {
            items: self.items().to_vec(),
            paths: self.groups.clone(),
            top: self.top,
            max_groups,
            groups: BTreeMap::new(),
        };
        // Without GROUP BY there is one group, even without twins: then COUNT() is 0.
        if aggregation.paths.is_empty() {
            aggregation.groups.insert(Vec::new(), aggregation.start());
        }
        aggregation
    }
}

impl Aggregation {
    /// Adds a twin that the query selects.
    ///
    /// # Errors
    ///
    /// The twin starts a group that exceeds the limit. The groups so far are unchanged.
    pub fn add(&mut self, twin: &Value) -> Result<(), LimitError> {
        // A missing key is also a key: all twins without it are one group.
        let key: Vec<_> = self.paths.iter().map(|path| Key(path.find(twin).cloned())).collect();
        if !self.groups.contains_key(&key) {
            if self.groups.len() >= self.max_groups {
                return Err(LimitError::Groups { max: self.max_groups });
            }
            self.groups.insert(key.clone(), self.start());
        }
        for (item, total) in self.items.iter().zip(self.groups.get_mut(&key).into_iter().flatten()) {
            if let Selected::Aggregate(_, path) = &item.selected {
                total.add(path.as_ref().map_or(Some(&Value::Null), |path| path.find(twin)));
            }
        }
        Ok(())
    }

    /// The number of groups.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// The rows, in the order of the group keys: undefined < null < booleans < numbers < texts < arrays < objects.
    pub fn rows(self) -> Vec<Value> {
        let columns = project::columns(&self.items);
        let row = |(key, totals): (Vec<Key>, Vec<Total>)| {
            let key_of =
                |path: &Path| self.paths.iter().zip(&key).find(|(grouped, _)| *grouped == path)?.1.0.clone();
            let cells = self.items.iter().zip(totals).zip(&columns).filter_map(|((item, total), column)| {
                let value = match &item.selected {
                    Selected::Path(path) => key_of(path),
                    Selected::Aggregate(..) => total.result(),
                };
                Some((column.clone(), value?))
            });
            Value::Object(cells.collect::<Map<_, _>>())
        };
        let top = self.top.and_then(|top| usize::try_from(top).ok()).unwrap_or(usize::MAX);
        self.groups.into_iter().take(top).map(row).collect()
    }

    /// A total for each column; the total of a path counts nothing.
    fn start(&self) -> Vec<Total> {
        let total = |item: &Item| match item.selected {
            Selected::Aggregate(aggregate, _) => Total::new(aggregate),
            Selected::Path(_) => Total::new(Aggregate::Count),
        };
        self.items.iter().map(total).collect()
    }
}

#[cfg(test)]
mod tests;
