//! Selection of documents by condition.

use std::num::NonZeroU32;

use async_trait::async_trait;
use serde_json::Value;

use super::{Charged, StoreError};
use crate::domain::{document::Document, id::HubName};

/// Selects documents of twins that exist, as far as is known: no tombstones.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    /// Only documents of this hub; `None`: of all hubs in the container.
    pub hub: Option<HubName>,
    /// The twins of modules if true, otherwise the twins of devices.
    pub of_modules: bool,
    /// A condition in Cosmos SQL over documents named `c`.
    pub condition: String,
    /// The values of its parameters, by name (`@q0`).
    pub parameters: Vec<(String, Value)>,
}

/// Where the next page begins. Opaque; only valid with the same filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub String);

/// A page of the documents that a filter selects.
#[derive(Debug, Clone)]
pub struct Selected<T> {
    /// The selected content.
    pub content: T,
    /// Where the next page begins; `None` if this is the last page.
    pub next: Option<Cursor>,
}

/// The documents of a page.
#[derive(Debug, Clone, Default)]
pub struct Documents {
    /// The documents that can be read.
    pub readable: Vec<Document>,
    /// The documents that cannot be read: one line for each, without payload.
    pub damaged: Vec<String>,
}

/// Why there is no page.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SelectError {
    /// A temporary error.
    #[error("{}", .0.message)]
    StoreError(StoreError),
    /// The store cannot continue from this cursor (any more): start again.
    #[error("the store does not accept the continuation token")]
    Position,
    /// The store will never answer this; the text says why.
    #[error("the store refuses the query: {0}")]
    Refused(String),
}

/// Selects documents by condition.
///
/// *Guarantees*: a document that exists all the time and matches the filter is on exactly one page; a document written
/// meanwhile may or may not be. The store chooses the order of pages, and a page may be empty.
/// *Cancellation*, *idempotence*: calls only read.
/// *Errors*: in the outcome; nothing is retried inside, and no call takes longer than its limit.
#[async_trait]
pub trait TwinSelection: Send + Sync + 'static {
    /// Reads a page of at most this many documents.
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
