//! Rows of groups of twins.

use serde_json::{Map, Value};

use super::{
    aggregate::Aggregate,
    order::{self, Sort},
    path::Path,
};

/// How twins are grouped, and what the row of each group contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    /// Twins with equal values of these keys form a group. Without keys, all twins form one group, even if there
    /// is no twin.
    pub(super) keys: Vec<Path>,
    pub(super) shown: Vec<(String, Shown)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shown {
    /// One of the keys.
    Key(Path),
    Aggregate(Aggregate),
}

impl Groups {
    /// One row per group, in the requested order, then in the order of the keys.
    pub(super) fn rows(&self, mut twins: Vec<&Value>, order: &[Sort]) -> Vec<Value> {
        if self.keys.is_empty() {
            return vec![self.row(&twins)];
        }
        let by_keys = |left: &Value, right: &Value| order::by_paths(left, right, &self.keys);
        // Sort paths are always keys as well, so a group stays together.
        twins.sort_by(|left, right| order::compare(left, right, order).then_with(|| by_keys(left, right)));
        twins.chunk_by(|left, right| by_keys(left, right).is_eq()).map(|group| self.row(group)).collect()
    }

    /// Undefined values are omitted. Keys have the values of the group's first twin.
    fn row(&self, group: &[&Value]) -> Value {
        let values = self.shown.iter().filter_map(|(name, shown)| {
            let value = match shown {
                Shown::Key(path) => path.of(group.first()?)?.clone(),
                Shown::Aggregate(aggregate) => aggregate.over(group)?,
            };
            Some((name.clone(), value))
        });
        Value::Object(values.collect::<Map<_, _>>())
    }
}
