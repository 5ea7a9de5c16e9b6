//! Where events go that can never be applied, and come back from.
//!
//! | store | for |
//! |---|---|
//! | `file` | one replica with a disk, or a volume that all replicas share |
//! | `blob` | any number of replicas |
//!
//! Both hold one dead letter under one name, `<stream>/<partition>/<sequence number>`, in the same form. Storing the dead letter
//! of one event again changes nothing. Sequence numbers start over when an Event Hub is re-created: a *different* event
//! at a position that is taken goes beside it, as `<sequence number>.2` and so on; nothing is overwritten.

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

/// Stable code of a dead letter that is not stored, where nothing more is known.
const NOT_STORED: &str = "DEAD_LETTER_NOT_STORED";

/// Ends the names of dead letters.
const SUFFIX: &str = ".json";

/// There is no place for dead letters.
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
        /// What the operating system said.
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

/// One store, from both sides.
#[derive(Clone)]
pub struct Store {
    /// For the daemon, which puts dead letters in.
    pub letters: Arc<dyn DeadLetters>,
    /// For the people who look at them.
    pub archive: Arc<dyn DeadLetterArchive>,
}

impl Store {
    fn new<T: DeadLetters + DeadLetterArchive>(store: T) -> Self {
        let store = Arc::new(store);
        Self { letters: Arc::clone(&store) as _, archive: store }
    }
}

/// Makes sure that dead letters can be stored, so that a wrong setting shows at start and not with the first poisonous
/// event.
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

/// The store as it is: nothing is created, so that a wrong setting shows instead of looking like an empty store.
///
/// # Errors
/// It is not there; the message says what to do.
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

/// The dead letter as it is kept, stamped with the present.
fn stamped(letter: DeadLetter<'_>) -> StoredLetter {
    StoredLetter {
        stored_at: clock(),
        partition: letter.partition.clone(),
        reason: letter.reason.to_owned(),
        detail: letter.detail,
        message: letter.message.clone(),
    }
}

/// The present; before 1970 only on a machine whose clock is not set.
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
