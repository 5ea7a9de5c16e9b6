//! Columns: the values of a twin that a query returns.

use serde_json::{Map, Value};

use super::path::Path;

/// A value of the twin, and its name in the row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub(super) name: String,
    pub(super) path: Path,
}

/// The row with these columns of a twin. Undefined values are omitted.
pub(super) fn row(columns: &[Column], twin: &Value) -> Value {
    let shown =
        columns.iter().filter_map(|Column { name, path }| Some((name.clone(), path.of(twin)?.clone())));
    Value::Object(shown.collect::<Map<_, _>>())
}
