//! Documents by condition.

use std::num::NonZeroU32;

use async_trait::async_trait;
use serde_json::Value;

use super::{Charged, StoreError};
use crate::domain::{document::Document, id::HubName};

/// Which documents are asked for, of twins that are there as far as is known: no tombstones.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    /// Of this hub only; `None`: of all that the container holds.
    pub hub: Option<HubName>,
    /// The twins of modules, and not those of devices.
    pub of_modules: bool,
    /// A condition in Cosmos SQL over documents named `c`.
    pub condition: String,
    /// The values of its parameters, by name (`@q0`).
    pub parameters: Vec<(String, Value)>,
}

/// Where the next page begins. Opaque; it belongs to its filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub String);

/// A part of the documents that a filter selects.
#[derive(Debug, Clone)]
pub struct Selected<T> {
    /// What was selected.
    pub content: T,
    /// Where the next page begins; `None`: this is the last one.
    pub next: Option<Cursor>,
}

/// Documents of a page.
#[derive(Debug, Clone, Default)]
pub struct Documents {
    /// Those that can be read.
    pub readable: Vec<Document>,
    /// What cannot: one line for each, without payload.
    pub damaged: Vec<String>,
}

/// Why there is no page.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SelectError {
    /// It passes with time.
    #[error("{}", .0.message)]
    StoreError(StoreError),
    /// The store does not know where to go on (any more): begin again.
    #[error("the store does not know the continuation")]
    Position,
    /// The store will never answer this; says why.
    #[error("the store refuses the query: {0}")]
    Refused(String),
}

/// Documents by condition.
///
/// *Guarantees*: each document that is there all the time, and meets the filter, is on exactly one page; what is written
/// meanwhile may or may not be. Pages are in an order of the store's own, and a page may be empty.
/// *Cancellation*, *idempotence*: reads only.
/// *Errors*: in the outcome; nothing is retried inside, and no call takes longer than its limit.
#[async_trait]
pub trait TwinSelection: Send + Sync + 'static {
    /// Reads a page of at most so many documents.
    async fn select(
        &self,
        filter: &Filter,
        from: Option<&Cursor>,
        most: NonZeroU32,
    ) -> Charged<Result<Selected<Documents>, SelectError>>;
    /// Counts documents instead of reading them, page by page.
    async fn count(
        &self,
        filter: &Filter,
        from: Option<&Cursor>,
    ) -> Charged<Result<Selected<u64>, SelectError>>;
}
