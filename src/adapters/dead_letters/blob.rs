//! Dead letters in a blob container: one blob per event that can never be applied.
//!
//! ```text
//! deadletters/<stream>/<partition>/<sequence number>.json
//! ```
//!
//! A dead letter is durable when the service has answered; then [`BlobDeadLetters::store`] returns. A blob is created
//! only if there is none (`If-None-Match: *`), so two replicas never overwrite each other's blobs. It is removed only
//! in the version that was read (`If-Match`).

use std::{collections::BTreeSet, io, ops::ControlFlow, sync::Arc};

use async_trait::async_trait;
use azure_core::http::{Etag, RequestContent, StatusCode};
use azure_storage_blob::models::{
    BlobClientDeleteOptions, BlobClientUploadOptions, BlobContainerClientListBlobsOptions,
    DeleteSnapshotsOptionType,
};
use futures::TryStreamExt;

use super::{SUFFIX, letter, name, stamped};
use crate::{
    adapters::{
        blob::{self, Container, REQUEST_LIMIT},
        durable_file::{file_name, name_of},
    },
    domain::{
        dead_letter_counts::{Listed, Listing},
        id::PartitionId,
        ticks::Ticks,
    },
    ports::{
        ArchiveError, DeadLetter, DeadLetterArchive, DeadLetterError, DeadLetters, LetterName, LetterVersion,
        ReadLetter, Removed, StoredLetter, partition_order,
    },
};

/// The error with the kind that [`DeadLetterError::failure`] needs to recognise throttling.
fn with_kind(error: blob::Error) -> io::Error {
    match error {
        blob::Error::Throttled { .. } => io::Error::new(io::ErrorKind::ResourceBusy, error),
        _ => io::Error::other(error),
    }
}

/// The prefix of the names of all dead letters; the container may also hold checkpoints.
const PREFIX: &str = "deadletters/";

/// [`DeadLetters`] and [`DeadLetterArchive`] in a blob container.
#[derive(Debug)]
pub struct BlobDeadLetters {
    container: Arc<Container>,
}

impl BlobDeadLetters {
    /// Creates a store in `container`. No I/O.
    pub fn new(container: Arc<Container>) -> Self {
        Self { container }
    }

    /// Writes the dead letter at the first free name of its position, unless it is already stored.
    async fn put(&self, letter: &StoredLetter) -> io::Result<()> {
        let bytes = letter::to_json(letter).map_err(io::Error::other)?;
        let prefix = prefix(&letter.partition);
        let sequence_number = letter.message.position.sequence_number.0;
        let mut copy = 1_u32;
        loop {
            let blob = format!("{prefix}{}", name(sequence_number, copy));
            if self.create(&blob, bytes.clone()).await.map_err(with_kind)? {
                return Ok(());
            }
            match self.read(&blob).await.map_err(with_kind)? {
                // The same event: stored by an earlier attempt whose answer was lost, or by another replica.
                ReadLetter::Found(present, _) if letter::same_event(&present, letter) => return Ok(()),
                // An item that cannot be read back is also kept, so that a person can look at it.
                ReadLetter::Found(..) | ReadLetter::Damaged(..) => {
                    copy = copy.checked_add(1).ok_or(io::ErrorKind::AlreadyExists)?;
                }
                // It was removed meanwhile, so its name is free.
                ReadLetter::Absent => {}
            }
        }
    }

    /// Creates a blob; `false` if the name is in use.
    async fn create(&self, blob: &str, bytes: Vec<u8>) -> Result<bool, blob::Error> {
        let options = BlobClientUploadOptions {
            blob_content_type: Some("application/json".to_owned()),
            if_none_match: Some(Etag::from("*")),
            ..BlobClientUploadOptions::default()
        };
        let client = self.container.client().blob_client(blob);
        let request = Box::pin(client.upload(RequestContent::from(bytes), Some(options)));
        match self.container.call("store a dead letter", REQUEST_LIMIT, request).await {
            Ok(_) => Ok(true),
            Err(blob::Error::State {
                status: StatusCode::Conflict | StatusCode::PreconditionFailed, ..
            }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn read(&self, blob: &str) -> Result<ReadLetter, blob::Error> {
        let client = self.container.client().blob_client(blob);
        let request = Box::pin(async {
            let answer = client.download(None).await?;
            let etag = answer.properties.etag;
            Ok((etag, answer.body.collect().await?))
        });
        let (etag, bytes) = match self.container.call("read a dead letter", REQUEST_LIMIT, request).await {
            Ok(answer) => answer,
            Err(blob::Error::State { status: StatusCode::NotFound, .. }) => return Ok(ReadLetter::Absent),
            Err(error) => return Err(error),
        };
        // Without an ETag, a removal matches no blob.
        let version = LetterVersion(etag.map_or_else(String::new, |etag| etag.to_string()));
        Ok(match letter::from_json(&bytes) {
            Ok(letter) => ReadLetter::Found(Box::new(letter), version),
            Err(reason) => ReadLetter::Damaged(reason, version),
        })
    }

    async fn delete(&self, blob: &str, version: &LetterVersion) -> Result<Removed, blob::Error> {
        let options = BlobClientDeleteOptions {
            if_match: Some(Etag::from(version.0.as_str())),
            delete_snapshots: Some(DeleteSnapshotsOptionType::Include),
            ..BlobClientDeleteOptions::default()
        };
        let client = self.container.client().blob_client(blob);
        let request = Box::pin(client.delete(Some(options)));
        match self.container.call("remove a dead letter", REQUEST_LIMIT, request).await {
            // "Not found" may also be the answer to the second copy of a request; the answer to the first copy was
            // lost.
            Ok(_) | Err(blob::Error::State { status: StatusCode::NotFound, .. }) => Ok(Removed::Gone),
            // A condition on a blob that does not exist can also be answered as a failed condition.
            Err(blob::Error::State { status: StatusCode::PreconditionFailed, .. }) => {
                Ok(match self.read(blob).await? {
                    ReadLetter::Absent => Removed::Gone,
                    ReadLetter::Found(..) | ReadLetter::Damaged(..) => Removed::Changed,
                })
            }
            Err(error) => Err(error),
        }
    }

    /// Passes the rest of the name of every blob below `prefix` to `take`. Each page has the limit of a request.
    async fn list(&self, prefix: &str, mut take: impl FnMut(&str)) -> Result<(), blob::Error> {
        self.scan(prefix, |rest, _| {
            take(rest);
            ControlFlow::Continue(())
        })
        .await
    }

    /// The same, with the time of the last write of each blob, until `take` has enough.
    async fn scan(
        &self,
        prefix: &str,
        mut take: impl FnMut(&str, Option<Ticks>) -> ControlFlow<()>,
    ) -> Result<(), blob::Error> {
        let operation = "list dead letters";
        let options = BlobContainerClientListBlobsOptions {
            prefix: Some(prefix.to_owned()),
            ..BlobContainerClientListBlobsOptions::default()
        };
        let pager = std::future::ready(self.container.client().list_blobs(Some(options)));
        let mut pages = self.container.call(operation, REQUEST_LIMIT, pager).await?.into_pages();
        loop {
            let page = Box::pin(async {
                match pages.try_next().await? {
                    Some(page) => page.into_model().map(Some),
                    None => Ok(None),
                }
            });
            let Some(page) = self.container.call(operation, REQUEST_LIMIT, page).await? else {
                return Ok(());
            };
            for blob in page.blob_items {
                let written = blob.properties.as_ref().and_then(|properties| properties.last_modified);
                let written =
                    written.and_then(|at| Ticks::from_unix_milliseconds(at.unix_timestamp() * 1000));
                if let Some(rest) = blob.name.as_deref().and_then(|name| name.strip_prefix(prefix))
                    && take(rest, written).is_break()
                {
                    return Ok(());
                }
            }
        }
    }

    fn blob(name: &LetterName) -> String {
        format!("{}{}{SUFFIX}", prefix(name.partition()), name.name())
    }

    fn failed(&self, operation: &'static str, blob: &str) -> impl FnOnce(blob::Error) -> ArchiveError {
        let place = format!("{}/{blob}", self.container.place());
        move |error| ArchiveError { operation, place, source: io::Error::other(error) }
    }
}

#[async_trait]
impl DeadLetters for BlobDeadLetters {
    async fn store(&self, letter: DeadLetter<'_>) -> Result<(), DeadLetterError> {
        let stored = stamped(letter);
        self.put(&stored).await.map_err(|source| {
            let sequence_number = stored.message.position.sequence_number;
            let blob = format!("{}{}", prefix(&stored.partition), name(sequence_number.0, 1));
            let place = format!("{}/{blob}", self.container.place());
            let inner = source.get_ref().and_then(|inner| inner.downcast_ref::<blob::Error>());
            let code = inner.map_or(super::NOT_STORED, blob::Error::code);
            DeadLetterError { partition: stored.partition, sequence_number, place, code, source }
        })
    }
}

#[async_trait]
impl DeadLetterArchive for BlobDeadLetters {
    async fn partitions(&self) -> Result<Vec<PartitionId>, ArchiveError> {
        let mut partitions = BTreeSet::new();
        let listed = self.list(PREFIX, |rest| {
            if let [stream, partition, _] = rest.split('/').collect::<Vec<_>>()[..]
                && let (Some(stream), Some(partition)) = (name_of(stream), name_of(partition))
            {
                partitions.insert((stream, partition));
            }
        });
        listed.await.map_err(self.failed("list the dead letters in", PREFIX))?;
        let named = partitions.into_iter().map(|(stream, partition)| PartitionId { stream, partition });
        let mut partitions: Vec<_> = named.collect();
        partitions.sort_by_cached_key(partition_order);
        Ok(partitions)
    }

    async fn letters(&self, partition: &PartitionId) -> Result<Vec<LetterName>, ArchiveError> {
        let prefix = prefix(partition);
        let partition = Arc::new(partition.clone());
        let mut letters = Vec::new();
        let listed = self.list(&prefix, |rest| {
            // Blobs at deeper levels do not belong to this layout.
            if let Some(name) = rest.strip_suffix(SUFFIX).filter(|name| !name.contains('/')) {
                letters.push(LetterName::new(Arc::clone(&partition), name));
            }
        });
        listed.await.map_err(self.failed("list the dead letters in", &prefix))?;
        letters.sort_by_cached_key(LetterName::order);
        Ok(letters)
    }

    async fn first(&self, most: usize) -> Result<Listing, ArchiveError> {
        let mut listing = Listing::default();
        let listed = self.scan(PREFIX, |rest, stored| {
            let [stream, partition, file] = rest.split('/').collect::<Vec<_>>()[..] else {
                return ControlFlow::Continue(());
            };
            if let (Some(stream), Some(partition), Some(name)) =
                (name_of(stream), name_of(partition), file.strip_suffix(SUFFIX))
            {
                if listing.letters.len() >= most {
                    listing.more = true;
                    return ControlFlow::Break(());
                }
                let partition = PartitionId { stream, partition };
                listing.letters.push(Listed { stored, partition, name: name.to_owned() });
            }
            ControlFlow::Continue(())
        });
        listed.await.map_err(self.failed("list the dead letters in", PREFIX))?;
        Ok(listing)
    }

    async fn read(&self, name: &LetterName) -> Result<ReadLetter, ArchiveError> {
        let blob = Self::blob(name);
        self.read(&blob).await.map_err(self.failed("read the dead letter", &blob))
    }

    async fn remove(&self, name: &LetterName, version: &LetterVersion) -> Result<Removed, ArchiveError> {
        let blob = Self::blob(name);
        self.delete(&blob, version).await.map_err(self.failed("remove the dead letter", &blob))
    }
}

/// The prefix of the names of one partition's dead letters. Names are encoded like file names.
fn prefix(partition: &PartitionId) -> String {
    format!("{PREFIX}{}/{}/", file_name(&partition.stream), file_name(&partition.partition))
}
