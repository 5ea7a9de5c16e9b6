//! Reading dead letters back, for the people who decide what becomes of them.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use crate::domain::{dead_letter_counts::Listing, id::PartitionId, message::Message, ticks::Ticks};

/// A dead letter as read back.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredLetter {
    /// When it was stored first; `None` where the machine's clock was not set.
    pub stored_at: Option<Ticks>,
    /// The partition it came from.
    pub partition: PartitionId,
    /// Stable reason code.
    pub reason: String,
    /// One sentence for people.
    pub detail: String,
    /// The message as received.
    pub message: Message,
}

/// Where one dead letter lies: `stream/partition/sequence number`, with `.2`, `.3`, … behind it for further events at
/// the same position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterName {
    partition: Arc<PartitionId>,
    name: String,
}

impl LetterName {
    /// The dead letter `name` among those of `partition`.
    pub fn new(partition: Arc<PartitionId>, name: impl Into<String>) -> Self {
        Self { partition, name: name.into() }
    }

    /// The partition that the dead letter is filed under; the stream's name is in lower case.
    pub fn partition(&self) -> &PartitionId {
        &self.partition
    }

    /// Its own name within the partition.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sequence number, and which of the dead letters at that position it is, counted from 1. `None` where the name is
    /// none that this program gives.
    pub fn position(&self) -> Option<(i64, u32)> {
        let (number, copy) = match self.name.split_once('.') {
            None => (self.name.as_str(), 1),
            Some((number, copy)) => (number, copy.parse().ok()?),
        };
        Some((number.parse().ok()?, copy))
    }

    /// Sorts dead letters of one partition by sequence number; foreign names come last.
    pub fn order(&self) -> (bool, Option<(i64, u32)>, String) {
        let position = self.position();
        (position.is_none(), position, self.name.clone())
    }
}

impl fmt::Display for LetterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.partition, self.name)
    }
}

/// Tells one content stored under a name from another. Opaque.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterVersion(pub String);

/// What reading a dead letter found.
#[derive(Debug, Clone)]
pub enum ReadLetter {
    /// The dead letter.
    Found(Box<StoredLetter>, LetterVersion),
    /// Something is stored there that is no dead letter; says what is wrong with it.
    Damaged(String, LetterVersion),
    /// Nothing is there any more.
    Absent,
}

/// What became of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// The dead letter is gone for good, now or since earlier.
    Gone,
    /// Something else lies there by now, and was left alone.
    Changed,
}

/// The archive did not answer.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {place}: {source}")]
pub struct ArchiveError {
    /// What was tried, e.g. `list the dead letters in`.
    pub operation: &'static str,
    /// Where; no secret.
    pub place: String,
    /// What the operating system or service said.
    pub source: std::io::Error,
}

/// Where dead letters are kept, from the side of the reader.
///
/// *Guarantees*: a dead letter that [`super::DeadLetters::store`] made durable before a listing began is in it, unless
/// it was removed; a removal is durable when it returns, and leaves the dead letter whole or gone.
/// *Assumptions*: none about writers: a daemon may store dead letters, and another reader remove them, at any time.
/// *Memory*: a listing holds the names of one partition; bodies are read one at a time.
/// *Cancellation*: a dropped removal may or may not have happened: remove again.
/// *Idempotence*: removing what is gone is no error; a dead letter of another version is never removed.
/// *Errors*: what the operating system or service said; nothing is retried for long.
#[async_trait]
pub trait DeadLetterArchive: Send + Sync + 'static {
    /// The partitions that have dead letters, in order of stream and partition.
    async fn partitions(&self) -> Result<Vec<PartitionId>, ArchiveError>;
    /// The dead letters of one of them, in order of sequence number.
    async fn letters(&self, partition: &PartitionId) -> Result<Vec<LetterName>, ArchiveError>;
    /// At most `most` dead letters, of all partitions and in no particular order, each with when it was stored. Where there are
    /// more, the others are not even listed.
    async fn first(&self, most: usize) -> Result<Listing, ArchiveError>;
    /// Reads one dead letter.
    async fn read(&self, name: &LetterName) -> Result<ReadLetter, ArchiveError>;
    /// Removes the dead letter that was read as this version.
    async fn remove(&self, name: &LetterName, version: &LetterVersion) -> Result<Removed, ArchiveError>;
}

/// Sorts partitions by stream, then by number.
pub fn partition_order(partition: &PartitionId) -> (String, Option<u64>, String) {
    (partition.stream.clone(), partition.partition.parse().ok(), partition.partition.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_sort_by_number_and_copy_and_foreign_names_come_last() {
        let partition = Arc::new(PartitionId { stream: "twins".into(), partition: "0".into() });
        let mut names: Vec<_> = ["x", "100", "7.2", "20", "7", "7.x", "-1", "7.10"]
            .map(|name| LetterName::new(Arc::clone(&partition), name))
            .into();
        names.sort_by_cached_key(LetterName::order);
        let names: Vec<_> = names.iter().map(LetterName::name).collect();
        assert_eq!(names, ["-1", "7", "7.2", "7.10", "20", "100", "7.x", "x"]);
    }

    #[test]
    fn partitions_sort_by_number() {
        let partition = |partition: &str| PartitionId { stream: "twins".into(), partition: partition.into() };
        let mut partitions = [partition("10"), partition("2"), partition("0")];
        partitions.sort_by_cached_key(partition_order);
        assert_eq!(partitions.map(|partition| partition.partition), ["0", "2", "10"]);
    }
}
