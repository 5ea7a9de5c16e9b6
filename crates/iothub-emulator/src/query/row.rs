//! Columns: what a query shows of a twin.

use serde_json::{Map, Value};

use super::path::Path;

/// A value of the twin and the name that it is shown under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub(super) name: String,
    pub(super) path: Path,
}

/// The row that these columns make of a twin. What is undefined is left out.
pub(super) fn row(columns: &[Column], twin: &Value) -> Value {
    let shown =
        columns.iter().filter_map(|Column { name, path }| Some((name.clone(), path.of(twin)?.clone())));
    Value::Object(shown.collect::<Map<_, _>>())
}
