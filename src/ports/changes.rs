//! Documents in the order in which they change.

use std::num::NonZeroU32;

use futures::stream::BoxStream;

use super::{Charged, Cursor, SelectError};
use crate::domain::{document::Document, query::TwinPlace};

/// A document that has changed.
#[derive(Debug, Clone)]
pub struct Change {
    /// The place of the document.
    pub place: TwinPlace,
    /// Its current content; `None` if this release cannot read it.
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

/// The changes of documents.
///
/// *Guarantees*: every document that was written after `cursor` is returned in that state or a later one, tombstones
/// included; of several writes, at least the last one is returned. A removed document is not returned. The stream ends
/// when there are no more changes at the moment.
/// *Cancellation*, *idempotence*: calls only read.
/// *Errors*: in the outcome; the stream ends after one. Nothing is retried inside, and no page takes longer than its
/// limit.
pub trait TwinChanges: Send + Sync + 'static {
    /// The documents written after a cursor; `None`: all documents. A page has about this many documents.
    fn changes(
        &self,
        cursor: Option<&Cursor>,
        most: NonZeroU32,
    ) -> BoxStream<'_, Charged<Result<Changed, SelectError>>>;
}
