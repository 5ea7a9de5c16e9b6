//! How far long scans have come, and what they found.

use std::io;

use async_trait::async_trait;

/// A small note under a name such as `backfill/contoso` that survives restarts.
///
/// *Guarantees*: after `Ok`, a note is durable as far as the store is; it is read back whole or not at all.
/// *Assumptions*: whoever takes up a note decides whether it still fits. Two writers of one name: the last wins.
/// *Cancellation*: a dropped `save` may have been done.
/// *Idempotence*: saving twice is saving once.
/// *Errors*: passing, unless a person has to mend the store.
#[async_trait]
pub trait NoteStore: Send + Sync + 'static {
    /// The note, if there is one.
    async fn load(&self, name: &str) -> Result<Option<Vec<u8>>, NoteError>;
    /// Writes the note over an earlier one.
    async fn save(&self, name: &str, note: &[u8]) -> Result<(), NoteError>;
}

/// A note could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} the note {name} in {place}: {source}")]
pub struct NoteError {
    /// `read` or `write`.
    pub operation: &'static str,
    /// The note.
    pub name: String,
    /// Where; no secret.
    pub place: String,
    /// What the operating system or service said.
    #[source]
    pub source: io::Error,
}
