//! The query language of twins, complete as far as IoT Hub supports it.
//!
//! ```text
//! SELECT [TOP n] * | item, …  FROM devices | devices.modules
//!     [WHERE condition] [GROUP BY path, …] [ORDER BY path [ASC | DESC], …]
//!
//! item:      path [AS name]; COUNT(), AVG(path), SUM(path), MIN(path), MAX(path) [AS name]
//! condition: NOT, AND, OR, parentheses; = != <> < <= > >=; IN, NIN ['a', 'b']; a path alone, which is a boolean;
//!            IS_DEFINED, IS_NULL, IS_BOOL, IS_NUMBER, IS_STRING, IS_OBJECT, IS_ARRAY, IS_PRIMITIVE (path);
//!            STARTSWITH, ENDSWITH (text, text); ARRAY_CONTAINS (path, literal)
//! path:      [devices.] name.name.[[any other name]]
//! ```
//!
//! Keywords, functions and the names at the top of a twin are accepted in upper and lower case. Names below are
//! case-sensitive. IoT Hub has no `ORDER BY`, `STARTS_WITH` and `CONTAINS`. [`Dialect::Extended`] has them.
//!
//! | module | subject |
//! |---|---|
//! | `token`, `literal` | text → tokens |
//! | `parser` | tokens → query |
//! | `path`, `value` | finding values in a twin, and comparing them |
//! | `condition` | which twins are selected |
//! | `row`, `group`, `aggregate`, `order` | how the rows of the answer are made |

use serde_json::Value;

mod aggregate;
mod condition;
mod error;
mod group;
mod literal;
mod order;
mod parser;
mod path;
mod row;
#[cfg(test)]
mod tests;
mod token;
mod value;

use condition::Condition;
pub use error::QueryError;
pub use group::Groups;
use order::Sort;
pub use row::Column;

/// Maximum length of a query that the service accepts, in characters.
pub const LONGEST: usize = 8_192;

/// The supported part of the language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// As in IoT Hub.
    Hub,
    /// As in IoT Hub, with `ORDER BY`, `STARTS_WITH` and `CONTAINS`.
    Extended,
}

/// The twins that a query reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collection {
    /// Twins of devices.
    Devices,
    /// Twins of modules.
    Modules,
}

/// The contents of a query's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// The twins themselves.
    Twins,
    /// One row of these columns per twin.
    Columns(Vec<Column>),
    /// One row per group of twins.
    Groups(Groups),
}

/// A parsed query.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    selection: Selection,
    collection: Collection,
    condition: Option<Condition>,
    order: Vec<Sort>,
    top: Option<usize>,
}

impl Query {
    /// Parses a query.
    ///
    /// # Errors
    /// The text is no valid query of the dialect, or is longer than [`LONGEST`].
    pub fn parse(text: &str, dialect: Dialect) -> Result<Self, QueryError> {
        if text.chars().count() > LONGEST {
            return Err(error::error(LONGEST, format!("it is longer than {LONGEST} characters")));
        }
        parser::parse(text, dialect)
    }

    /// The contents of the answer.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// The twins that it reads.
    pub fn collection(&self) -> Collection {
        self.collection
    }

    /// Whether the answer consists of raw rows instead of twins.
    pub fn is_raw(&self) -> bool {
        self.selection != Selection::Twins
    }

    /// Whether a twin is selected. `twin` has the form of the service's REST API.
    pub fn selects(&self, twin: &Value) -> bool {
        self.condition.as_ref().is_none_or(|condition| condition.holds(twin) == Some(true))
    }

    /// Whether every twin of the collection is selected.
    pub fn selects_all(&self) -> bool {
        self.condition.is_none()
    }

    /// Whether each selected twin gives one row, in the order of the twins. If so, a page can be made from its own
    /// twins only.
    pub fn is_row_by_row(&self) -> bool {
        !matches!(self.selection, Selection::Groups(_)) && self.order.is_empty() && self.top.is_none()
    }

    /// The row of a selected twin. `None` if the rows are those of groups.
    pub fn row(&self, twin: &Value) -> Option<Value> {
        match &self.selection {
            Selection::Twins => Some(twin.clone()),
            Selection::Columns(columns) => Some(row::row(columns, twin)),
            Selection::Groups(_) => None,
        }
    }

    /// All rows of the complete answer. `twins` are the twins of the collection. If the rows are those of twins,
    /// they keep the order of the twins, unless the query has an order.
    pub fn answer<'a>(&self, twins: impl Iterator<Item = &'a Value>) -> Vec<Value> {
        let mut selected: Vec<&Value> = twins.filter(|twin| self.selects(twin)).collect();
        let mut rows = match &self.selection {
            Selection::Groups(groups) => groups.rows(selected, &self.order),
            Selection::Twins | Selection::Columns(_) => {
                order::sort_twins(&mut selected, &self.order);
                selected.into_iter().filter_map(|twin| self.row(twin)).collect()
            }
        };
        rows.truncate(self.top.unwrap_or(usize::MAX));
        rows
    }
}
