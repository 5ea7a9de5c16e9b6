//! The store of progress and ownership, behind the SDK's [`CheckpointStore`].
//!
//! | store | for | durable |
//! |---|---|---|
//! | `memory` | trials and tests: the SDK's own | no |
//! | `file` | one replica with a disk | yes |
//! | `blob` | any number of replicas | yes |
//!
//! Damaged data is an error with a code, never "no checkpoint", because starting over by mistake is worse.

mod blob;
mod file;

use std::{io, path::PathBuf, sync::Arc};

use azure_core::{credentials::TokenCredential, error::ErrorKind};
use azure_messaging_eventhubs::{CheckpointStore, InMemoryCheckpointStore};

pub use self::{blob::BlobStore, file::FileStore};
use crate::{
    adapters::blob::{self as storage, Container},
    config,
    domain::grace_period::Nature,
    ports::SharedCheckpoints,
};

/// Opens the configured store; `credential` is used for a container whose URL contains no signature.
///
/// # Errors
/// The directory cannot be used, or another process uses it; the container cannot be used.
pub async fn open(
    store: &config::CheckpointStore,
    credential: &Arc<dyn TokenCredential>,
) -> Result<Opened, Error> {
    Ok(match store {
        config::CheckpointStore::Memory => {
            Opened { store: Arc::new(InMemoryCheckpointStore::new()), shared: None }
        }
        config::CheckpointStore::File { path } => {
            Opened { store: Arc::new(FileStore::open(path.clone()).await?), shared: None }
        }
        config::CheckpointStore::Blob(settings) => {
            let container = Container::open(settings, Arc::clone(credential)).await?;
            let store = Arc::new(BlobStore::new(container)?);
            Opened { store: Arc::clone(&store) as _, shared: Some(store) }
        }
    })
}

/// An open store.
#[derive(Clone)]
pub struct Opened {
    /// For the code that owns partitions.
    pub store: Arc<dyn CheckpointStore>,
    /// For the code that reads the progress of other replicas; `None` if the store has only one replica.
    pub shared: Option<Arc<dyn SharedCheckpoints>>,
}

/// Opens the configured store for reading: nothing is created, locked or changed. `None` if the store is in memory: it
/// ends with its process, so there is nothing to read.
///
/// # Errors
/// The container cannot be used.
pub async fn open_read_only(
    store: &config::CheckpointStore,
    credential: &Arc<dyn TokenCredential>,
) -> Result<Option<Arc<dyn CheckpointStore>>, Error> {
    Ok(match store {
        config::CheckpointStore::Memory => None,
        config::CheckpointStore::File { path } => Some(Arc::new(FileStore::read_only(path.clone()))),
        config::CheckpointStore::Blob(settings) => {
            let container = Container::open_existing(settings, Arc::clone(credential)).await?;
            Some(Arc::new(BlobStore::new(container)?))
        }
    })
}

/// Opens the shared part of the configured store for reading: nothing is created, locked or changed. `None` if the
/// store belongs to one process.
///
/// # Errors
/// The container cannot be used.
pub async fn open_shared_read_only(
    store: &config::CheckpointStore,
    credential: &Arc<dyn TokenCredential>,
) -> Result<Option<Arc<dyn SharedCheckpoints>>, Error> {
    Ok(match store {
        config::CheckpointStore::Memory | config::CheckpointStore::File { .. } => None,
        config::CheckpointStore::Blob(settings) => {
            let container = Container::open_existing(settings, Arc::clone(credential)).await?;
            Some(Arc::new(BlobStore::new(container)?))
        }
    })
}

/// Why a store cannot be used. Callers of the trait get it inside an [`azure_core::Error`]: see [`Error::find`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another store uses the directory.
    #[error(
        "cannot use checkpoint directory {}: {holder} uses it; stop that process or configure another directory \
         ({})", path.display(), self.code()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The holder of the lock, if known.
        holder: String,
    },
    /// The content of a file is not what was written there.
    #[error(
        "cannot read checkpoint file {}: {reason}; restore it, or delete it to begin at eventhubs.start ({})",
        path.display(), self.code()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The operating system refused.
    #[error("cannot {operation} {}: {source} ({})", path.display(), self.code())]
    Io {
        /// The operation that was tried.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: io::Error,
    },
    /// The caller's data cannot be stored.
    #[error("cannot store {what}: {reason} ({})", self.code())]
    Refused {
        /// What should have been stored.
        what: &'static str,
        /// The reason.
        reason: String,
    },
    /// The blob container cannot be used.
    #[error(transparent)]
    Blob(#[from] storage::Error),
}

impl Error {
    /// Stable code; `docs/errors/<code>.md` explains it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InUse { .. } => "CHECKPOINT_DIRECTORY_IN_USE",
            Self::Damaged { .. } => "CHECKPOINT_DAMAGED",
            Self::Io { .. } => "CHECKPOINT_IO",
            Self::Refused { .. } => "CHECKPOINT_REFUSED",
            Self::Blob(error) => error.code(),
        }
    }

    /// Whether waiting helps.
    pub fn nature(&self) -> Nature {
        match self {
            Self::InUse { .. } | Self::Damaged { .. } | Self::Io { .. } | Self::Refused { .. } => {
                Nature::Final
            }
            Self::Blob(error) => error.nature(),
        }
    }

    /// The error of this type inside an error of the trait's methods, if there is one.
    pub fn find(error: &azure_core::Error) -> Option<&Self> {
        error.downcast_ref()
    }
}

impl From<Error> for azure_core::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Blob(error) => error.kind(),
            Error::Damaged { .. } => ErrorKind::DataConversion,
            Error::Io { .. } => ErrorKind::Io,
            Error::InUse { .. } | Error::Refused { .. } => ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// For fuzz targets only.
#[cfg(fuzzing)]
pub mod fuzzing {
    /// The position in the metadata of a checkpoint: sequence number and offset, each only if it is valid.
    pub fn position(number: &str, offset: &str) -> (Option<i64>, Option<String>) {
        let offset = super::blob::is_position(offset).then(|| offset.to_owned());
        (super::blob::sequence_number(number, offset.is_some()), offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_page_and_survives_the_way_through_the_trait() {
        let path = PathBuf::from("x");
        for error in [
            Error::InUse { path: path.clone(), holder: "process 1".into() },
            Error::Damaged { path: path.clone(), reason: "it is empty".into() },
            Error::Io { operation: "read", path, source: io::ErrorKind::StorageFull.into() },
            Error::Refused { what: "a checkpoint", reason: "it is empty".into() },
            Error::Blob(storage::Error::Unavailable {
                operation: "list checkpoints",
                place: "x".into(),
                reason: "y".into(),
            }),
        ] {
            let code = error.code();
            let page = format!("{}/docs/errors/{code}.md", env!("CARGO_MANIFEST_DIR"));
            assert!(std::fs::read_to_string(&page).is_ok_and(|text| text.contains(code)), "{page}");
            assert!(error.to_string().contains(code), "{error}");
            if let Error::Io { source, .. } = &error {
                assert!(
                    error.to_string().contains(&source.to_string()),
                    "the operating system's reason is missing: {error}"
                );
            }
            assert_eq!(Error::find(&azure_core::Error::from(error)).map(Error::code), Some(code));
        }
    }
}
