//! The query language of IoT Hub, over stored twins.
//!
//! A query is parsed and then evaluated for one twin at a time: does it select this twin, and which row does the twin
//! become? Groups are aggregated and rows are sorted here, within limits that the caller sets. A query also provides a
//! condition for Cosmos DB, so that not every document has to be read: the condition selects every twin that the query
//! selects, and maybe more.
//!
//! This code performs no I/O, does not wait and reads no clock. Twins are JSON in the form of the service's REST API
//! (`GET /twins/{id}`).
//!
//! `docs/query-language.md` is the page for users. If IoT Hub's documentation does not define something, the rules of
//! Cosmos DB apply; each such rule names its source where it is implemented.

use std::fmt;

use serde_json::Value;

mod aggregate;
mod condition;
mod declared;
mod error;
mod evaluate;
mod order;
mod parse;
mod path;
mod project;
mod pushdown;
mod tally;
#[cfg(test)]
mod testing;
mod token;
mod value;

pub use aggregate::{Aggregate, Aggregation};
pub use condition::{Comparison, Condition, Operand, TextTest, TypeTest};
pub use declared::{Declared, DeclaredError};
pub use error::{LimitError, QueryError, QueryErrorKind};
pub use order::Sorter;
pub use parse::{CHARACTERS_MAX, NESTING_MAX};
pub use path::{Path, Root};
pub use pushdown::{Place, Pushdown};
pub use tally::{Counted, GROUPS_MAX, Place as TwinPlace, Row, Tally};

/// A query. Its `Display` form parses to the same query.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    top: Option<u64>,
    selection: Selection,
    collection: Collection,
    condition: Option<Condition>,
    groups: Vec<Path>,
    order: Vec<Order>,
}

/// The collection that is queried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Collection {
    /// The twins of devices: `FROM devices`.
    Devices,
    /// The twins of modules: `FROM devices.modules`.
    Modules,
}

/// What a query returns.
#[derive(Debug, Clone, PartialEq)]
pub enum Selection {
    /// Whole twins: `SELECT *`.
    Twin,
    /// An object with these columns; at least one.
    Items(Vec<Item>),
}

/// A column.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Its content.
    pub selected: Selected,
    /// Its name, if the query gives one.
    pub alias: Option<String>,
}

/// The content of a column.
#[derive(Debug, Clone, PartialEq)]
pub enum Selected {
    /// The value at a path.
    Path(Path),
    /// An aggregate of the values at the path; COUNT has no path.
    Aggregate(Aggregate, Option<Path>),
}

/// A path to sort by. An extension: the hub has no ORDER BY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The path.
    pub path: Path,
    /// The direction of sorting.
    pub direction: Direction,
}

/// The direction of sorting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The smallest value first.
    Ascending,
    /// The largest value first.
    Descending,
}

/// The type of the items of an answer. The service returns it in the header `x-ms-item-type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemType {
    /// Whole twins.
    Twin,
    /// Objects defined by the query.
    Raw,
}

impl ItemType {
    /// Its name in the header.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Twin => "twin",
            Self::Raw => "raw",
        }
    }
}

impl Query {
    /// Parses a query.
    ///
    /// # Errors
    ///
    /// The text is not a query, or it asks for something that a copy of twins cannot provide. The error says where, and
    /// what to do.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        parse::parse(text)
    }

    /// The collection that is queried. [`Query::matches`] does not check it: the caller must pass only twins of this
    /// collection.
    pub fn collection(&self) -> Collection {
        self.collection
    }

    /// The maximum number of rows. [`Aggregation`] and [`Sorter`] respect it; a caller that uses neither must count
    /// rows.
    pub fn top(&self) -> Option<u64> {
        self.top
    }

    /// What a row contains.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// The type of the answer's items.
    pub fn item_type(&self) -> ItemType {
        match self.selection {
            Selection::Twin => ItemType::Twin,
            Selection::Items(_) => ItemType::Raw,
        }
    }

    /// Whether one row is made from many twins, so that rows come from an [`Aggregation`].
    pub fn is_grouped(&self) -> bool {
        let is_aggregate = |item: &Item| matches!(item.selected, Selected::Aggregate(..));
        !self.groups.is_empty() || self.items().iter().any(is_aggregate)
    }

    /// Whether the order of rows matters, so that they come from a [`Sorter`].
    pub fn is_sorted(&self) -> bool {
        !self.order.is_empty()
    }

    /// The name of the only column, if the query only counts: then a store that can count can answer it.
    pub fn counted_as(&self) -> Option<String> {
        match self.items() {
            [Item { selected: Selected::Aggregate(Aggregate::Count, _), .. }] if self.groups.is_empty() => {
                project::columns(self.items()).pop()
            }
            _ => None,
        }
    }

    /// Whether the query selects this twin: its condition is true, neither false nor undefined.
    pub fn matches(&self, twin: &Value) -> bool {
        self.condition.as_ref().is_none_or(|condition| condition.evaluate(twin) == Some(true))
    }

    fn items(&self) -> &[Item] {
        match &self.selection {
            Selection::Twin => &[],
            Selection::Items(items) => items,
        }
    }

    /// Calls `each` with every path of the query, in the order of the text.
    fn for_each_path<'a>(&'a self, each: &mut impl FnMut(&'a Path)) {
        for item in self.items() {
            match &item.selected {
                Selected::Path(path) | Selected::Aggregate(_, Some(path)) => each(path),
                Selected::Aggregate(_, None) => {}
            }
        }
        if let Some(condition) = &self.condition {
            condition.for_each_path(each);
        }
        self.groups.iter().chain(self.order.iter().map(|order| &order.path)).for_each(each);
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SELECT ")?;
        if let Some(top) = self.top {
            write!(f, "TOP {top} ")?;
        }
        match &self.selection {
            Selection::Twin => f.write_str("*")?,
            Selection::Items(items) => list(f, items)?,
        }
        f.write_str(match self.collection {
            Collection::Devices => " FROM devices",
            Collection::Modules => " FROM devices.modules",
        })?;
        if let Some(condition) = &self.condition {
            write!(f, " WHERE {condition}")?;
        }
        if !self.groups.is_empty() {
            f.write_str(" GROUP BY ")?;
            list(f, &self.groups)?;
        }
        if !self.order.is_empty() {
            f.write_str(" ORDER BY ")?;
            list(f, &self.order)?;
        }
        Ok(())
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.selected {
            Selected::Path(path) => write!(f, "{path}")?,
            Selected::Aggregate(aggregate, None) => write!(f, "{}()", aggregate.name())?,
            Selected::Aggregate(aggregate, Some(path)) => write!(f, "{}({path})", aggregate.name())?,
        }
        if let Some(alias) = &self.alias {
            f.write_str(" AS ")?;
            path::write_name(f, alias)?;
        }
        Ok(())
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.direction {
            Direction::Ascending => write!(f, "{}", self.path),
            Direction::Descending => write!(f, "{} DESC", self.path),
        }
    }
}

fn list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, items: &[T]) -> fmt::Result {
    items.iter().enumerate().try_for_each(|(index, item)| {
        f.write_str(if index == 0 { "" } else { ", " })?;
        write!(f, "{item}")
    })
}

#[cfg(test)]
mod tests;
