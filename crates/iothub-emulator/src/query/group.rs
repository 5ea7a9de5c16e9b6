//! Rows of groups of twins.

use serde_json::{Map, Value};

use super::{
    aggregate::Aggregate,
    order::{self, Sort},
    path::Path,
};

/// Which twins make a group, and what is shown of each group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    /// Twins that are equal in these are a group. None at all: all twins are one group, even if there is no twin.
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
    /// A row per group: by the order that is asked for, then by the keys.
    pub(super) fn rows(&self, mut twins: Vec<&Value>, order: &[Sort]) -> Vec<Value> {
        if self.keys.is_empty() {
            return vec![self.row(&twins)];
        }
        let by_keys = |left: &Value, right: &Value| order::by_paths(left, right, &self.keys);
        // What is asked for are keys as well, so that a group stays together.
        twins.sort_by(|left, right| order::compare(left, right, order).then_with(|| by_keys(left, right)));
        twins.chunk_by(|left, right| by_keys(left, right).is_eq()).map(|group| self.row(group)).collect()
    }

    /// What is undefined is left out. Keys are shown as the first twin has them.
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
