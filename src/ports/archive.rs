//! Reading dead letters back, for the people who decide what to do with them.

use std::{fmt, sync::Arc};

use async_trait::async_trait;

use crate::domain::{dead_letter_counts::Listing, id::PartitionId, message::Message, ticks::Ticks};

/// A dead letter as read back.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredLetter {
    /// When it was first stored; `None` if the machine's clock was not set.
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

/// The place of one dead letter: `stream/partition/sequence number`, followed by `.2`, `.3`, … for more events at the
/// same position.
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

    /// The partition under which the dead letter is stored; the stream's name is in lower case.
    pub fn partition(&self) -> &PartitionId {
        &self.partition
    }

    /// Its name within the partition.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The sequence number, and the number of the dead letter at that position, counted from 1. `None` if the name does
    /// not have the form that this program uses.
    pub fn position(&self) -> Option<(i64, u32)> {
        let (number, copy) = match self.name.split_once('.') {
            None => (self.name.as_str(), 1),
            Some((number, copy)) => (number, copy.parse().ok()?),
        };
        Some((number.parse().ok()?, copy))
    }

    /// Sort key for dead letters of one partition: by sequence number; names of another form come last.
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

/// Identifies the content stored under a name. Opaque.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterVersion(pub String);

/// The result of reading a dead letter.
#[derive(Debug, Clone)]
pub enum ReadLetter {
    /// The dead letter.
    Found(Box<StoredLetter>, LetterVersion),
    /// The stored item is not a dead letter; the text says what is wrong with it.
    Damaged(String, LetterVersion),
    /// It does not exist any more.
    Absent,
}

/// The outcome of a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// The dead letter is permanently gone, now or since earlier.
    Gone,
    /// Another content has been stored there meanwhile, and was not removed.
    Changed,
}

/// The archive did not answer.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {place}: {source}")]
pub struct ArchiveError {
    /// The operation that was tried, e.g. `list the dead letters in`.
    pub operation: &'static str,
    /// The place; no secret.
    pub place: String,
    /// The error of the operating system or service.
    pub source: std::io::Error,
}

/// The store of dead letters, for readers.
///
/// *Guarantees*: a dead letter that [`super::DeadLetters::store`] made durable before a listing began is in it, unless
/// it was removed. A removal is durable when it returns; the dead letter is always whole or gone.
/// *Assumptions*: none about writers: at any time, a daemon may store dead letters and another reader may remove them.
/// *Memory*: a listing holds the names of one partition; bodies are read one at a time.
/// *Cancellation*: a dropped removal may or may not have happened: remove again.
/// *Idempotence*: removing a dead letter that is gone is not an error; a dead letter of another version is never
/// removed.
/// *Errors*: the error of the operating system or service; nothing is retried for long.
#[async_trait]
pub trait DeadLetterArchive: Send + Sync + 'static {
    /// The partitions that have dead letters, in order of stream and partition.
    async fn partitions(&self) -> Result<Vec<PartitionId>, ArchiveError>;
    /// The dead letters of one partition, in the order of sequence numbers.
    async fn letters(&self, partition: &PartitionId) -> Result<Vec<LetterName>, ArchiveError>;
    /// At most `most` dead letters of all partitions, in no particular order, each with the time at which it was
    /// stored. If there are more, the others are not listed at all.
    async fn first(&self, most: usize) -> Result<Listing, ArchiveError>;
    /// Reads one dead letter.
    async fn read(&self, name: &LetterName) -> Result<ReadLetter, ArchiveError>;
    /// Removes the dead letter if it still has the version that was read.
    async fn remove(&self, name: &LetterName, version: &LetterVersion) -> Result<Removed, ArchiveError>;
}

/// Sort key for partitions: by stream, then by number.
pub fn partition_order(partition: &PartitionId) -> (String, Option<u64>, String) {
    (partition.stream.clone(), partition.partition.parse().ok(), partition.partition.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_letters_sort_by_number_and_copy_and_foreign_names_come_last() {
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
