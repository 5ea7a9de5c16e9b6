//! The blob that `twinsync check` writes to find out whether blobs can be written. It is always removed afterwards.
//!
//! It is in a separate folder, so it cannot be taken for other data: checkpoints and ownerships are below the
//! namespace's host name, which contains a dot; dead letters are below `deadletters/`, notes below `notes/`.

use std::{collections::HashMap, time::Duration};

use azure_core::http::{Etag, RequestContent, StatusCode};
use azure_storage_blob::models::{
    BlobClientDeleteOptions, BlobClientSetMetadataOptions, BlobClientUploadOptions, DeleteSnapshotsOptionType,
};
use tokio_util::sync::CancellationToken;

use super::{Container, Error, REQUEST_LIMIT};

/// The folder of the blob.
const FOLDER: &str = "check";

/// How often its removal is tried.
const REMOVALS: u32 = 3;

/// The pause between two removals: a request whose answer was lost may still be on its way.
const PAUSE: Duration = Duration::from_millis(300);

/// The result of the probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// Whether all steps succeeded; `None` if it was stopped before the end.
    pub worked: Option<Result<(), Error>>,
    /// The blob that could not be removed; `None` if nothing is left.
    pub left: Option<String>,
}

impl Container {
    /// Performs the operations that replicas perform with ownerships, checkpoints and dead letters. It creates a blob
    /// if there is none, verifies that it cannot be created again, claims it under a condition, verifies that a failed
    /// condition is respected, reads the blob and removes it. If `stop` is cancelled, it ends early and still removes
    /// the blob.
    ///
    /// *Cancellation*: must not be dropped, or the blob stays.
    pub async fn write(&self, stop: &CancellationToken) -> Probed {
        let name = format!("{FOLDER}/probe-{:016x}", rand::random::<u64>());
        if stop.is_cancelled() {
            return Probed { worked: None, left: None };
        }
        let worked = match self.create_blob(&name).await {
            Err(error @ (Error::Refused { .. } | Error::NoToken { .. } | Error::Version { .. })) => {
                return Probed { worked: Some(Err(error)), left: None };
            }
            Err(error) => Some(Err(error)),
            Ok(()) => tokio::select! {
                biased;
                () = stop.cancelled() => None,
                worked = self.use_blob(&name) => Some(worked),
            },
        };
        match self.remove_blob(&name).await {
            Ok(()) => Probed { worked, left: None },
            Err(error) => Probed { worked: worked.map(|worked| worked.and(Err(error))), left: Some(name) },
        }
    }

    async fn create_blob(&self, name: &str) -> Result<(), Error> {
        match self.create_where_none_is(name).await {
            // No other process uses this name: if it exists, the SDK has sent the request twice.
            Err(Error::State { status: StatusCode::Conflict | StatusCode::PreconditionFailed, .. }) => Ok(()),
            other => other,
        }
    }

    /// Creates the blob if there is none.
    async fn create_where_none_is(&self, name: &str) -> Result<(), Error> {
        let options = BlobClientUploadOptions {
            if_none_match: Some(Etag::from("*")),
            ..BlobClientUploadOptions::default()
        };
        let client = self.client().blob_client(name);
        let content = b"`twinsync check` wrote this; it can be deleted at any time\n".to_vec();
        let request = Box::pin(client.upload(RequestContent::from(content), Some(options)));
        self.call("create a blob", REQUEST_LIMIT, request).await.map(drop)
    }

    /// Reads the blob; returns its version, if the service reports it.
    async fn version(&self, name: &str) -> Result<Option<Etag>, Error> {
        let client = self.client().blob_client(name);
        let request = Box::pin(async {
            let answer = client.download(None).await?;
            let etag = answer.properties.etag;
            answer.body.collect().await?;
            Ok(etag)
        });
        self.call("read a blob", REQUEST_LIMIT, request).await
    }

    async fn use_blob(&self, name: &str) -> Result<(), Error> {
        let odd = |reason: &str| Error::Unavailable {
            operation: "claim a blob",
            place: self.place().to_owned(),
            reason: reason.to_owned(),
        };
        let first = self.version(name).await?.ok_or_else(|| odd("the service returns no ETag for blobs"))?;
        match self.claim_blob(name, &first).await {
            // The SDK may have sent the request twice: then the blob has already changed.
            Err(Error::State { status: StatusCode::PreconditionFailed, .. })
                if self.version(name).await?.is_some_and(|version| version != first) => {}
            other => other?,
        }
        match self.create_where_none_is(name).await {
            Err(Error::State { status: StatusCode::Conflict | StatusCode::PreconditionFailed, .. }) => {}
            Err(error) => return Err(error),
            Ok(()) => {
                return Err(odd(
                    "the service replaced an existing blob although the request forbade it: leases need a service that enforces conditions",
                ));
            }
        }
        match self.claim_blob(name, &first).await {
            Err(Error::State { status: StatusCode::PreconditionFailed, .. }) => Ok(()),
            Err(error) => Err(error),
            Ok(()) => Err(odd(
                "the service accepted a write although its condition was false: leases need a service that enforces conditions",
            )),
        }
    }

    /// Changes its metadata if it still has this version, like a claim of a partition.
    async fn claim_blob(&self, name: &str, etag: &Etag) -> Result<(), Error> {
        let options = BlobClientSetMetadataOptions {
            if_match: Some(etag.clone()),
            ..BlobClientSetMetadataOptions::default()
        };
        let metadata = HashMap::from([("ownerid".to_owned(), "twinsync-check".to_owned())]);
        let client = self.client().blob_client(name);
        let request = Box::pin(client.set_metadata(&metadata, Some(options)));
        self.call("claim a blob", REQUEST_LIMIT, request).await.map(drop)
    }

    async fn remove_blob(&self, name: &str) -> Result<(), Error> {
        let mut absent = false;
        let mut tries = 0;
        loop {
            tries += 1;
            let options = BlobClientDeleteOptions {
                delete_snapshots: Some(DeleteSnapshotsOptionType::Include),
                ..BlobClientDeleteOptions::default()
            };
            let client = self.client().blob_client(name);
            let request = Box::pin(client.delete(Some(options)));
            let error = match self.call("remove a blob", REQUEST_LIMIT, request).await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            let missing = matches!(error, Error::State { status: StatusCode::NotFound, .. });
            // It does not exist, and still does not exist a moment later.
            if missing && absent {
                return Ok(());
            }
            absent = missing;
            if tries >= REMOVALS && !absent {
                return Err(error);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
