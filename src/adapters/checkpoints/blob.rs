//! Progress and ownership in blobs, in the layout that the SDKs of all languages share, for any number of replicas.
//!
//! ```text
//! <namespace>/<hub>/<group>/checkpoint/<id>   metadata: sequencenumber, offset
//! <namespace>/<hub>/<group>/ownership/<id>    metadata: ownerid; a claim is based on the blob's ETag
//! ```
//!
//! The SDK's store (azure_messaging_eventhubs_checkpointstore_blob 0.9) does the writing. This module adds what the SDK
//! lacks: names are converted to lower case, as in all other SDKs; one failed claim does not fail the other claims of
//! the same call; every request has a time limit; errors contain no secret. Checkpoints are read here and not by the
//! SDK: with the SDK, a single value that another SDK left empty fails the listing of all partitions.

use std::{collections::HashMap, fmt, sync::Arc};

use async_trait::async_trait;
use azure_core::http::{Etag, StatusCode};
use azure_messaging_eventhubs::{
    CheckpointStore,
    models::{Checkpoint, Ownership},
};
use azure_messaging_eventhubs_checkpointstore_blob::BlobCheckpointStore;
use azure_storage_blob::models::{BlobContainerClientListBlobsOptions, BlobItem, ListBlobsIncludeItem};
use futures::{StreamExt, TryStreamExt, stream};

use super::Error;
use crate::{
    adapters::blob::{self, Container, LIST_LIMIT, REQUEST_LIMIT},
    domain::{id::SequenceNumber, ticks::Ticks},
    ports::{SharedCheckpoint, SharedCheckpoints},
};

/// Names of a checkpoint's metadata.
const OFFSET: &str = "offset";
const SEQUENCE_NUMBER: &str = "sequencenumber";

/// The number of claims under way at the same time, so that a round of claims takes only a little longer than one
/// claim.
const CONCURRENT_CLAIMS: usize = 16;

/// A [`CheckpointStore`] in a blob container.
pub struct BlobStore {
    container: Arc<Container>,
    inner: Arc<BlobCheckpointStore>,
}

impl fmt::Debug for BlobStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobStore").field("container", &self.container).finish_non_exhaustive()
    }
}

impl BlobStore {
    /// Creates a store in `container`. No I/O.
    ///
    /// # Errors
    /// The SDK cannot create a client.
    pub fn new(container: Arc<Container>) -> Result<Self, blob::Error> {
        let inner = BlobCheckpointStore::new(container.new_client()?);
        Ok(Self { container, inner })
    }

    /// Claims one partition; `None` if another replica was faster.
    async fn claim(&self, claim: &Ownership) -> Result<Option<Ownership>, Error> {
        let wanted = Ownership {
            fully_qualified_namespace: claim.fully_qualified_namespace.to_lowercase(),
            event_hub_name: claim.event_hub_name.to_lowercase(),
            consumer_group: claim.consumer_group.to_lowercase(),
            partition_id: claim.partition_id.to_lowercase(),
            // An empty text means no owner, as in the other SDKs; without the field, they would wait for the expiry.
            owner_id: Some(claim.owner_id.clone().unwrap_or_default()),
            etag: claim.etag.as_ref().map(quoted),
            last_modified_time: claim.last_modified_time,
        };
        let wanted = [wanted];
        let request = Box::pin(self.inner.claim_ownership(&wanted));
        match self.container.call("claim a partition", REQUEST_LIMIT, request).await {
            Ok(claimed) => Ok(claimed.into_iter().next().map(|claimed| Ownership {
                etag: claimed.etag.as_ref().map(unquoted),
                last_modified_time: claimed.last_modified_time,
                ..claim.clone()
            })),
            // The blob of the claim was deleted meanwhile: the claim counts as lost, and the next listing shows the
            // current state.
            Err(blob::Error::State { status: StatusCode::NotFound, .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The blobs directly below `prefix`, each with the rest of its name, in the order of their names.
    async fn list(&self, operation: &'static str, prefix: &str) -> Result<Vec<(String, BlobItem)>, Error> {
        let blobs = Box::pin(async {
            let options = BlobContainerClientListBlobsOptions {
                prefix: Some(prefix.to_owned()),
                include: Some(vec![ListBlobsIncludeItem::Metadata]),
                ..Default::default()
            };
            self.container.client().list_blobs(Some(options))?.try_collect::<Vec<_>>().await
        });
        let blobs = self.container.call(operation, LIST_LIMIT, blobs).await?;
        let named = blobs.into_iter().filter_map(|blob| {
            let rest = blob.name.as_deref()?.strip_prefix(prefix)?;
            // Blobs at deeper levels do not belong to this layout.
            let partition = Some(rest).filter(|rest| !rest.is_empty() && !rest.contains('/'))?.to_owned();
            Some((partition, blob))
        });
        Ok(named.collect())
    }
}

#[async_trait]
impl CheckpointStore for BlobStore {
    /// Each claim is a separate request. A claim that is missing in the answer is not confirmed: another replica was
    /// faster, or its request failed while others of the same call succeeded. A failed request may still have been
    /// applied, which the next listing shows.
    ///
    /// # Errors
    /// No claim succeeded, and at least one request failed.
    async fn claim_ownership(&self, ownerships: &[Ownership]) -> azure_core::Result<Vec<Ownership>> {
        let claims = ownerships.iter().map(|claim| self.claim(claim));
        let results: Vec<_> =
            stream::iter(claims.collect::<Vec<_>>()).buffered(CONCURRENT_CLAIMS).collect().await;
        let mut claimed = Vec::new();
        let mut failure = None;
        for (claim, result) in ownerships.iter().zip(results) {
            match result {
                Ok(confirmed) => claimed.extend(confirmed),
                Err(error) => {
                    tracing::debug!(stream = claim.event_hub_name, partition = claim.partition_id, %error, "a claim failed");
                    failure.get_or_insert(error);
                }
            }
        }
        match failure {
            Some(error) if claimed.is_empty() => Err(error.into()),
            Some(_) | None => Ok(claimed),
        }
    }

    /// A value that is missing, empty or not a number leaves only its own field empty and affects no other partition.
    async fn list_checkpoints(
        &self,
        namespace: &str,
        event_hub_name: &str,
        consumer_group: &str,
    ) -> azure_core::Result<Vec<Checkpoint>> {
        let [lower_namespace, hub, group] =
            [namespace, event_hub_name, consumer_group].map(str::to_lowercase);
        let prefix = Checkpoint::get_checkpoint_blob_prefix_name(&lower_namespace, &hub, &group)?;
        let blobs = self.list("list checkpoints", &prefix).await?;
        let checkpoints = blobs.into_iter().map(|(partition_id, blob)| {
            let metadata = metadata(blob);
            let offset = metadata.get(OFFSET).filter(|offset| is_position(offset)).cloned();
            let number = metadata.get(SEQUENCE_NUMBER);
            Checkpoint {
                fully_qualified_namespace: namespace.to_owned(),
                event_hub_name: event_hub_name.to_owned(),
                consumer_group: consumer_group.to_owned(),
                partition_id,
                sequence_number: number.and_then(|number| sequence_number(number, offset.is_some())),
                offset,
            }
        });
        Ok(checkpoints.collect())
    }

    async fn list_ownerships(
        &self,
        namespace: &str,
        event_hub_name: &str,
        consumer_group: &str,
    ) -> azure_core::Result<Vec<Ownership>> {
        const OWNER: &str = "ownerid";
        let [lower_namespace, hub, group] =
            [namespace, event_hub_name, consumer_group].map(str::to_lowercase);
        let prefix = Ownership::get_ownership_prefix_name(&lower_namespace, &hub, &group)?;
        let blobs = self.list("list ownerships", &prefix).await?;
        let ownerships = blobs.into_iter().map(|(partition_id, blob)| {
            let properties = blob.properties.as_ref();
            Ownership {
                fully_qualified_namespace: namespace.to_owned(),
                event_hub_name: event_hub_name.to_owned(),
                consumer_group: consumer_group.to_owned(),
                partition_id,
                etag: properties.and_then(|properties| properties.etag.as_ref()).map(unquoted),
                last_modified_time: properties.and_then(|properties| properties.last_modified),
                owner_id: metadata(blob).remove(OWNER),
            }
        });
        Ok(ownerships.collect())
    }

    /// Unconditional: versions in the documents make a checkpoint that moves back harmless. A checkpoint without any
    /// position is refused, because it would erase progress.
    async fn update_checkpoint(&self, checkpoint: Checkpoint) -> azure_core::Result<()> {
        let offset = checkpoint.offset.filter(|offset| !offset.is_empty());
        if offset.is_none() && checkpoint.sequence_number.is_none() {
            let reason = "it has neither offset nor sequence number".to_owned();
            return Err(Error::Refused { what: "a checkpoint", reason }.into());
        }
        let checkpoint = Checkpoint {
            fully_qualified_namespace: checkpoint.fully_qualified_namespace.to_lowercase(),
            event_hub_name: checkpoint.event_hub_name.to_lowercase(),
            consumer_group: checkpoint.consumer_group.to_lowercase(),
            partition_id: checkpoint.partition_id.to_lowercase(),
            offset,
            sequence_number: checkpoint.sequence_number,
        };
        let request = Box::pin(self.inner.update_checkpoint(checkpoint));
        let written = self.container.call("write a checkpoint", REQUEST_LIMIT, request).await;
        Ok(written.map_err(Error::from)?)
    }
}

#[async_trait]
impl SharedCheckpoints for BlobStore {
    async fn written(
        &self,
        namespace: &str,
        hub: &str,
        consumer_group: &str,
    ) -> Result<Vec<SharedCheckpoint>, String> {
        let [namespace, hub, group] = [namespace, hub, consumer_group].map(str::to_lowercase);
        let prefix = Checkpoint::get_checkpoint_blob_prefix_name(&namespace, &hub, &group);
        let prefix = prefix.map_err(|error| error.to_string())?;
        let blobs = self.list("list checkpoints", &prefix).await.map_err(|error| error.to_string())?;
        let checkpoints = blobs.into_iter().map(|(partition, blob)| {
            let written = blob.properties.as_ref().and_then(|properties| properties.last_modified);
            let written = written.and_then(|at| Ticks::from_unix_milliseconds(at.unix_timestamp() * 1000));
            let metadata = metadata(blob);
            let has_offset = metadata.get(OFFSET).is_some_and(|offset| is_position(offset));
            let number = metadata.get(SEQUENCE_NUMBER).and_then(|number| sequence_number(number, has_offset));
            SharedCheckpoint { partition, number: number.map(SequenceNumber), written }
        });
        Ok(checkpoints.collect())
    }
}

/// A blob's metadata with names in lower case: HTTP ignores their case, and proxies change it.
fn metadata(blob: BlobItem) -> HashMap<String, String> {
    let values = blob.metadata.and_then(|metadata| metadata.values).unwrap_or_default();
    values.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect()
}

/// The sequence number, if the text is one. Event Hubs counts from 0. We use −1 without an offset for the position
/// before the first event. Other SDKs write the smallest integer for "unknown".
pub(super) fn sequence_number(text: &str, has_offset: bool) -> Option<i64> {
    let least = if has_offset { 0 } else { -1 };
    text.trim().parse().ok().filter(|number| *number >= least)
}

/// Whether this is the offset of an event. Offsets are opaque, but the words for the ends of a partition are known, and
/// other SDKs write text with spaces for "none".
pub(super) fn is_position(offset: &str) -> bool {
    !offset.is_empty() && offset != "-1" && !offset.starts_with('@') && !offset.contains(char::is_whitespace)
}

/// The form of the ETag in listings, so that two ETags can be compared.
fn unquoted(etag: &Etag) -> Etag {
    Etag::from(etag.as_ref().trim_matches('"').to_owned())
}

/// The form of the ETag that HTTP requires in conditions.
fn quoted(etag: &Etag) -> Etag {
    Etag::from(format!("\"{}\"", etag.as_ref().trim_matches('"')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_of_other_sdks_are_no_positions() {
        for text in ["", "-1", "@latest", "no offset"] {
            assert!(!is_position(text), "{text:?}");
        }
        for text in ["0", "4711", "1:2:3", "-10"] {
            assert!(is_position(text), "{text:?}");
        }
        for text in ["", "x", "-1", "-9223372036854775808", "9223372036854775808"] {
            assert_eq!(sequence_number(text, true), None, "{text:?}");
        }
        assert_eq!(sequence_number("-2", false), None);
        assert_eq!(sequence_number("-1", false), Some(-1), "our own checkpoint before the first event");
        assert_eq!(sequence_number("9223372036854775807", true), Some(i64::MAX));
    }

    #[test]
    fn etags_of_headers_and_of_listings_are_the_same() {
        let (header, listed) = (Etag::from("\"0x8D\""), Etag::from("0x8D"));
        assert_eq!(unquoted(&header), unquoted(&listed));
        assert_eq!(quoted(&header), quoted(&listed));
    }
}
