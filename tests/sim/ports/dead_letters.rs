//! Dead letters.

use std::sync::Arc;

use async_trait::async_trait;
use twinsync::{
    domain::{dead_letter_counts::Listing, id::PartitionId},
    ports::{
        ArchiveError, DeadLetter, DeadLetterArchive, DeadLetterError, DeadLetters, LetterName, LetterVersion,
        ReadLetter, Removed,
    },
};

use crate::{link::Link, plan::Fault, world::Service};

pub(crate) struct DeadLetterStore(pub(crate) Arc<Link>);

#[async_trait]
impl DeadLetters for DeadLetterStore {
    async fn store(&self, letter: DeadLetter<'_>) -> Result<(), DeadLetterError> {
        let link = &self.0;
        let PartitionId { stream, partition } = letter.partition.clone();
        let number = letter.message.position.sequence_number;
        let step = link.begin(&format!("letter {stream}/{partition}@{number} {}", letter.reason)).await;
        let away = link.world.is_away(Service::DeadLetters, &link.name);
        let fails = away || link.world.draws(Fault::DeadLettersFail);
        let is_stored = !away && link.world.below(2) == 0;
        if !fails || is_stored {
            let offset = letter.message.position.offset.to_string();
            link.world.lock().letters.insert(((stream.to_lowercase(), partition), offset));
        }
        link.end(step).await;
        match fails {
            false => Ok(()),
            true => Err(DeadLetterError {
                partition: letter.partition.clone(),
                sequence_number: number,
                place: "the simulation".to_owned(),
                code: "DEAD_LETTER_IO",
                source: std::io::ErrorKind::StorageFull.into(),
            }),
        }
    }
}

/// The simulation never reads dead letters.
#[async_trait]
impl DeadLetterArchive for DeadLetterStore {
    async fn partitions(&self) -> Result<Vec<PartitionId>, ArchiveError> {
        Ok(Vec::new())
    }

    async fn letters(&self, _: &PartitionId) -> Result<Vec<LetterName>, ArchiveError> {
        Ok(Vec::new())
    }

    async fn first(&self, _: usize) -> Result<Listing, ArchiveError> {
        Ok(Listing::default())
    }

    async fn read(&self, _: &LetterName) -> Result<ReadLetter, ArchiveError> {
        Ok(ReadLetter::Absent)
    }

    async fn remove(&self, _: &LetterName, _: &LetterVersion) -> Result<Removed, ArchiveError> {
        Ok(Removed::Gone)
    }
}
