//! Documents in the order in which they change.

use std::num::NonZeroU32;

use futures::stream::BoxStream;

use super::{Charged, Cursor, SelectError};
use crate::domain::{document::Document, query::TwinPlace};

/// A document that has changed.
#[derive(Debug, Clone)]
pub struct Change {
    /// Where it is.
    pub place: TwinPlace,
    /// What it says now; `None`: nobody here can read it.
    pub document: Option<Box<Document>>,
}

/// A page of changes.
#[derive(Debug, Clone)]
pub struct Changed {
    /// The documents.
    pub changes: Vec<Change>,
    /// Where the next page begins.
    pub next: Cursor,
}

/// The documents that change.
///
/// *Guarantees*: every document that was written after `cursor` comes as it is then, or as it is later, tombstones included; of several
/// writes, the last one does. One that was removed does not come. Ends where, for a moment, there was nothing more.
/// *Cancellation*, *idempotence*: reads only.
/// *Errors*: in the outcome, and nothing comes after one; nothing is retried inside, and no page takes longer than its limit.
pub trait TwinChanges: Send + Sync + 'static {
    /// What was written after a cursor; `None`: all that there is. Pages of about so many documents.
    fn changes(
        &self,
        cursor: Option<&Cursor>,
        most: NonZeroU32,
    ) -> BoxStream<'_, Charged<Result<Changed, SelectError>>>;
}
