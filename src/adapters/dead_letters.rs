//! The store of events that can never be applied, for writing and reading back.
//!
//! | store | for |
//! |---|---|
//! | `file` | one replica with a disk, or a volume that all replicas share |
//! | `blob` | any number of replicas |
//!
//! Both store one dead letter under one name, `<stream>/<partition>/<sequence number>`, in the same form. Storing the
//! dead letter of one event again changes nothing. Sequence numbers start again when an Event Hub is re-created. A
//! *different* event at a position that is in use is stored beside it, as `<sequence number>.2` and so on; nothing is
//! overwritten.

mod blob;
mod file;
mod letter;

use std::{
    io,
    path::PathBuf,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use azure_core::credentials::TokenCredential;

pub use self::{blob::BlobDeadLetters, file::FileDeadLetters, letter::to_value};
use crate::{
    adapters::blob::{self as storage, Container},
    config,
    domain::{grace_period::Nature, ticks::Ticks},
    ports::{DeadLetter, DeadLetterArchive, DeadLetters, StoredLetter},
};

/// Stable code of a dead letter that cannot be read; `docs/errors/DEAD_LETTER_DAMAGED.md` explains it.
pub const DAMAGED: &str = "DEAD_LETTER_DAMAGED";

/// Stable code of a directory that cannot be used.
const DIRECTORY_UNUSABLE: &str = "DEAD_LETTER_DIRECTORY_UNUSABLE";

/// Stable code of a dead letter that was not stored, if nothing more specific is known.
const NOT_STORED: &str = "DEAD_LETTER_NOT_STORED";

/// The suffix of the names of dead letters.
const SUFFIX: &str = ".json";

/// Dead letters cannot be stored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory cannot be used.
    #[error(
        "cannot use {} for dead letters: {reason}; check dead_letters.path and its permissions ({})",
        path.display(), self.code()
    )]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The operating system's error.
        reason: io::Error,
    },
    /// The blob container cannot be used.
    #[error(transparent)]
    Blob(#[from] storage::Error),
}

impl Error {
    /// Stable code; `docs/errors/<code>.md` explains it.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Directory { .. } => DIRECTORY_UNUSABLE,
            Self::Blob(error) => error.code(),
        }
    }

    /// Whether waiting helps.
    pub fn nature(&self) -> Nature {
        match self {
            Self::Directory { .. } => Nature::Final,
            Self::Blob(error) => error.nature(),
        }
    }
}

/// One store, for writers and for readers.
#[derive(Clone)]
pub struct Store {
    /// For the daemon, which stores dead letters.
    pub letters: Arc<dyn DeadLetters>,
    /// For the people who read them.
    pub archive: Arc<dyn DeadLetterArchive>,
}

impl Store {
    fn new<T: DeadLetters + DeadLetterArchive>(store: T) -> Self {
        let store = Arc::new(store);
        Self { letters: Arc::clone(&store) as _, archive: store }
    }
}

/// Makes sure that dead letters can be stored. So a wrong setting is reported at start and not with the first event
/// that cannot be applied.
///
/// # Errors
/// The message says what to do.
pub async fn open(
    settings: &config::DeadLetters,
    credential: &Arc<dyn TokenCredential>,
) -> Result<Store, Error> {
    Ok(match settings {
        config::DeadLetters::File { path } => {
            let opened = FileDeadLetters::open(path).await;
            Store::new(opened.map_err(|reason| Error::Directory { path: path.clone(), reason })?)
        }
        config::DeadLetters::Blob(settings) => {
            Store::new(BlobDeadLetters::new(Container::open(settings, Arc::clone(credential)).await?))
        }
    })
}

/// Opens an existing store: nothing is created, so a wrong setting is an error and does not look like an empty store.
///
/// # Errors
/// The store does not exist; the message says what to do.
pub async fn open_existing(
    settings: &config::DeadLetters,
    credential: &Arc<dyn TokenCredential>,
) -> Result<Store, Error> {
    Ok(match settings {
        config::DeadLetters::File { path } => {
            let opened = FileDeadLetters::open_existing(path).await;
            Store::new(opened.map_err(|reason| Error::Directory { path: path.clone(), reason })?)
        }
        config::DeadLetters::Blob(settings) => {
            let container = Container::open_existing(settings, Arc::clone(credential)).await?;
            Store::new(BlobDeadLetters::new(container))
        }
    })
}

/// The dead letter in its stored form, with the current time.
fn stamped(letter: DeadLetter<'_>) -> StoredLetter {
    StoredLetter {
        stored_at: clock(),
        partition: letter.partition.clone(),
        reason: letter.reason.to_owned(),
        detail: letter.detail,
        message: letter.message.clone(),
    }
}

/// The current time; before 1970 only on a machine whose clock is not set.
fn clock() -> Option<Ticks> {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(elapsed.as_nanos() / 100).ok().map(Ticks::new)
}

/// The name of the `copy`th dead letter at a position, counted from 1.
fn name(sequence_number: i64, copy: u32) -> String {
    match copy {
        1 => format!("{sequence_number}{SUFFIX}"),
        copy => format!("{sequence_number}.{copy}{SUFFIX}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_of_a_directory_has_a_page_and_the_systems_words_are_shown() {
        let reason = io::Error::from(io::ErrorKind::PermissionDenied);
        let words = reason.to_string();
        let error = Error::Directory { path: "/x".into(), reason };
        let page = format!("{}/docs/errors/{}.md", env!("CARGO_MANIFEST_DIR"), error.code());
        assert!(std::fs::read_to_string(&page).is_ok_and(|text| text.contains(error.code())), "{page}");
        assert!(error.to_string().contains(error.code()) && error.to_string().contains(&words), "{error}");
    }
}
