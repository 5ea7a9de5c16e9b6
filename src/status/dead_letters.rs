//! The stored dead letters: counted up to a limit, with the reasons of a part of them.

use std::sync::Arc;

use tokio::sync::Mutex;

use crate::{
    domain::dead_letter_counts::{Listed, MOST_COUNTED, Reasons, Stored},
    ports::{ArchiveError, DeadLetterArchive, LetterName, ReadLetter},
};

/// The reason of an entry in the archive that is not a dead letter.
const UNREADABLE: &str = "unreadable";

/// Reads an archive repeatedly.
pub(super) struct StoredDeadLetters {
    archive: Arc<dyn DeadLetterArchive>,
    reasons: Mutex<Reasons>,
}

impl StoredDeadLetters {
    pub(super) fn new(archive: Arc<dyn DeadLetterArchive>) -> Self {
        Self { archive, reasons: Mutex::default() }
    }

    /// Counts the dead letters: one listing of limited length, and reads of a few.
    pub(super) async fn count(&self) -> Result<Stored, String> {
        let mut reasons = self.reasons.lock().await;
        let listing = self.archive.first(MOST_COUNTED).await.map_err(told)?;
        for letter in reasons.missing(&listing) {
            if let Some(reason) = self.reason(&letter).await? {
                reasons.learn(letter, reason);
            }
        }
        Ok(reasons.summary(&listing))
    }

    /// The reason of a dead letter. `None`: it no longer exists.
    async fn reason(&self, letter: &Listed) -> Result<Option<String>, String> {
        let name = LetterName::new(Arc::new(letter.partition.clone()), letter.name.as_str());
        Ok(match self.archive.read(&name).await.map_err(told)? {
            ReadLetter::Found(letter, _) => Some(letter.reason),
            ReadLetter::Damaged(..) => Some(UNREADABLE.to_owned()),
            ReadLetter::Absent => None,
        })
    }
}

fn told(error: ArchiveError) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::{
        domain::{dead_letter_counts::Listing, id::PartitionId},
        ports::{LetterVersion, Removed},
    };

    /// An archive whose list has one entry that is not a dead letter, until it is removed.
    struct Archive(std::sync::atomic::AtomicBool);

    fn away() -> ArchiveError {
        let source = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        ArchiveError { operation: "list the dead letters in", place: "/letters".into(), source }
    }

    #[async_trait]
    impl DeadLetterArchive for Archive {
        async fn partitions(&self) -> Result<Vec<PartitionId>, ArchiveError> {
            Err(away())
        }

        async fn letters(&self, _: &PartitionId) -> Result<Vec<LetterName>, ArchiveError> {
            Err(away())
        }

        async fn first(&self, _: usize) -> Result<Listing, ArchiveError> {
            if self.0.load(std::sync::atomic::Ordering::Relaxed) {
                return Err(away());
            }
            let partition = PartitionId { stream: "twins".into(), partition: "0".into() };
            Ok(Listing { letters: vec![Listed { stored: None, partition, name: "7".into() }], more: false })
        }

        async fn read(&self, name: &LetterName) -> Result<ReadLetter, ArchiveError> {
            assert_eq!(name.to_string(), "twins/0/7");
            Ok(ReadLetter::Damaged("no JSON".into(), LetterVersion(String::new())))
        }

        async fn remove(&self, _: &LetterName, _: &LetterVersion) -> Result<Removed, ArchiveError> {
            Err(away())
        }
    }

    #[tokio::test]
    async fn a_file_that_is_no_dead_letter_is_counted_and_a_refusal_is_reported() {
        let archive = Arc::new(Archive(false.into()));
        let letters = StoredDeadLetters::new(Arc::clone(&archive) as _);
        let stored = letters.count().await.expect("listed");
        assert_eq!((stored.count, stored.by_reason[UNREADABLE]), (1, 1));
        archive.0.store(true, std::sync::atomic::Ordering::Relaxed);
        let reason = letters.count().await.expect_err("refused");
        assert!(reason.contains("/letters") && reason.contains("permission denied"), "{reason}");
    }
}
