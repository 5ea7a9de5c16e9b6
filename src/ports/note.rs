//! The progress and the findings of long scans.

use std::io;

use async_trait::async_trait;

/// Stores small notes under names such as `backfill/contoso`; they survive restarts.
///
/// *Guarantees*: after `Ok`, a note is as durable as the store; it is read back whole or not at all.
/// *Assumptions*: the reader of a note decides whether it is still valid. With two writers of one name, the last one
/// wins.
/// *Cancellation*: a dropped `save` may have been applied.
/// *Idempotence*: saving twice has the same effect as saving once.
/// *Errors*: temporary, unless an operator must fix the store.
#[async_trait]
pub trait NoteStore: Send + Sync + 'static {
    /// The note, if there is one.
    async fn load(&self, name: &str) -> Result<Option<Vec<u8>>, NoteError>;
    /// Writes the note; replaces an earlier one.
    async fn save(&self, name: &str, note: &[u8]) -> Result<(), NoteError>;
}

/// A note could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} the note {name} in {place}: {source}")]
pub struct NoteError {
    /// `read` or `write`.
    pub operation: &'static str,
    /// The name of the note.
    pub name: String,
    /// The place; no secret.
    pub place: String,
    /// The error of the operating system or service.
    #[source]
    pub source: io::Error,
}
