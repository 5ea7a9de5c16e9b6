//! The query language of twins, whole, as far as IoT Hub has it.
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
//! Keywords, functions and the names at the top of a twin are known in any case, names below are case-sensitive.
//! The hub has no `ORDER BY`, `STARTS_WITH` and `CONTAINS`; [`Dialect::Extended`] has.
//!
//! | module | what it knows |
//! |---|---|
//! | `token`, `literal` | text → tokens |
//! | `parser` | tokens → query |
//! | `path`, `value` | where values are, and how they compare |
//! | `condition` | which twins are selected |
//! | `row`, `group`, `aggregate`, `order` | what the answer shows of them |

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

/// The longest query that the service takes, in characters.
pub const LONGEST: usize = 8_192;

/// What of the language is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// What IoT Hub takes.
    Hub,
    /// And `ORDER BY`, `STARTS_WITH` and `CONTAINS`.
    Extended,
}

/// What a query asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collection {
    /// Twins of devices.
    Devices,
    /// Twins of modules.
    Modules,
}

/// What a query answers with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// The twins themselves.
    Twins,
    /// A row of these columns per twin.
    Columns(Vec<Column>),
    /// A row per group of twins.
    Groups(Groups),
}

/// A query that was understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    selection: Selection,
    collection: Collection,
    condition: Option<Condition>,
    order: Vec<Sort>,
    top: Option<usize>,
}

impl Query {
    /// Understands a query.
    pub fn parse(text: &str, dialect: Dialect) -> Result<Self, QueryError> {
        if text.chars().count() > LONGEST {
            return Err(error::error(LONGEST, format!("it is longer than {LONGEST} characters")));
        }
        parser::parse(text, dialect)
    }

    /// What it answers with.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// What it asks for.
    pub fn collection(&self) -> Collection {
        self.collection
    }

    /// Whether the items of the answer are raw ones, not twins.
    pub fn is_raw(&self) -> bool {
        self.selection != Selection::Twins
    }

    /// Whether the twin, as the service's REST API shows it, is selected.
    pub fn selects(&self, twin: &Value) -> bool {
        self.condition.as_ref().is_none_or(|condition| condition.holds(twin) == Some(true))
    }

    /// Whether every twin of the collection is selected.
    pub fn selects_all(&self) -> bool {
        self.condition.is_none()
    }

    /// Whether each selected twin adds one row, in the order of the twins: a page needs no more than its own twins.
    pub fn is_row_by_row(&self) -> bool {
        !matches!(self.selection, Selection::Groups(_)) && self.order.is_empty() && self.top.is_none()
    }

    /// The row that a selected twin adds to the answer; nothing if rows are of groups.
    pub fn row(&self, twin: &Value) -> Option<Value> {
        match &self.selection {
            Selection::Twins => Some(twin.clone()),
            Selection::Columns(columns) => Some(row::row(columns, twin)),
            Selection::Groups(_) => None,
        }
    }

    /// All rows of the answer to the whole query. The twins are those of its collection. Rows of twins are in the
    /// order of the twins, unless the query asks for another one.
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
