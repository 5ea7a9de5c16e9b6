//! Dead letters in a directory: one JSON file per event that can never be applied.
//!
//! ```text
//! <path>/<stream>/<partition>/<sequence number>.json
//! ```
//!
//! A letter is durable when [`FileDeadLetters::store`] returns. Storing the letter of one event again changes
//! nothing. Sequence numbers start over when an Event Hub is re-created: a *different* event at a position that is
//! taken goes beside it, as `<sequence number>.2.json` and so on; nothing is overwritten.

mod letter;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;

pub use self::letter::{ReadError, StoredLetter};
use super::durable_file;
use crate::{
    config,
    domain::{id::PartitionId, ticks::Ticks},
    ports::{DeadLetter, DeadLetterError, DeadLetters},
};

/// [`DeadLetters`] in a directory.
#[derive(Debug)]
pub struct FileDeadLetters {
    root: PathBuf,
}

impl FileDeadLetters {
    /// Makes sure that the directory can be used, so that a wrong path shows at start and not with the first
    /// poisonous event.
    ///
    /// # Errors
    /// What the operating system says.
    pub async fn open(settings: &config::DeadLetters) -> io::Result<Self> {
        let config::DeadLetters::File { path } = settings;
        let root = path.clone();
        blocking(move || {
            durable_file::create_directory(&root)?;
            // A read-only file system lets a directory that exists pass; this does not.
            let probe = root.join(format!("probe.{:016x}", rand::random::<u64>()));
            durable_file::replace(&probe, b"")?;
            fs::remove_file(&probe)?;
            Ok(Self { root })
        })
        .await
    }

    /// Reads one letter back.
    ///
    /// # Errors
    /// The file cannot be read or is not a letter.
    pub async fn read(path: &Path) -> Result<StoredLetter, ReadError> {
        let path = path.to_owned();
        let bytes = blocking({
            let path = path.clone();
            move || fs::read(path)
        });
        let bytes = bytes.await.map_err(|source| ReadError::Io { path: path.clone(), source })?;
        StoredLetter::from_json(&bytes).map_err(|reason| ReadError::Damaged { path, reason })
    }

    /// The files of all letters, in order of stream, partition and sequence number.
    ///
    /// # Errors
    /// What the operating system says.
    pub async fn list(&self) -> io::Result<Vec<PathBuf>> {
        let root = self.root.clone();
        blocking(move || {
            let mut letters = Vec::new();
            for stream in entries(&root)?.into_iter().filter(|path| path.is_dir()) {
                for partition in entries(&stream)?.into_iter().filter(|path| path.is_dir()) {
                    letters.extend(entries(&partition)?.into_iter().filter(|path| is_letter(path)));
                }
            }
            letters.sort_by_cached_key(|path| (path.parent().map(Path::to_owned), position(path)));
            Ok(letters)
        })
        .await
    }

    /// Where the letters of one partition are.
    fn directory(&self, partition: &PartitionId) -> PathBuf {
        self.root
            .join(durable_file::file_name(&partition.stream))
            .join(durable_file::file_name(&partition.partition))
    }
}

#[async_trait]
impl DeadLetters for FileDeadLetters {
    async fn store(&self, letter: DeadLetter<'_>) -> Result<(), DeadLetterError> {
        let sequence_number = letter.message.position.sequence_number;
        let partition = letter.partition.clone();
        let directory = self.directory(&partition);
        let stored = StoredLetter {
            stored_at: clock(),
            partition: partition.clone(),
            reason: letter.reason.to_owned(),
            detail: letter.detail,
            message: letter.message.clone(),
        };
        let place = directory.join(format!("{sequence_number}.json")).display().to_string();
        let written = blocking(move || put(&directory, &stored)).await;
        written.map_err(|source| DeadLetterError { partition, sequence_number, place, source })
    }
}

/// Writes the letter at the first free name of its position, unless it is there already.
fn put(directory: &Path, letter: &StoredLetter) -> io::Result<()> {
    let bytes = letter.to_json().map_err(io::Error::other)?;
    durable_file::create_directory(directory)?;
    let sequence_number = letter.message.position.sequence_number;
    for copy in 1_u32.. {
        let path = match copy {
            1 => directory.join(format!("{sequence_number}.json")),
            copy => directory.join(format!("{sequence_number}.{copy}.json")),
        };
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return durable_file::replace(&path, &bytes);
            }
            Err(error) => return Err(error),
            // The same event: stored by an earlier attempt whose answer was lost. What cannot be read back is
            // kept as well, for a person to look at.
            Ok(present) => match StoredLetter::from_json(&present) {
                Ok(present) if present.is_of_the_same_event(letter) => return Ok(()),
                Ok(_) | Err(_) => {}
            },
        }
    }
    Err(io::Error::other("no free name for this position"))
}

/// `sequence number, copy` of a letter's file, for sorting.
fn position(path: &Path) -> (i64, u32) {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let mut parts = name.split('.');
    let number = parts.next().and_then(|part| part.parse().ok()).unwrap_or(i64::MAX);
    let copy = parts.next().and_then(|part| part.parse().ok()).unwrap_or(1);
    (number, copy)
}

fn is_letter(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "json")
}

fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect()
}

/// The present; before 1970 only on a machine whose clock is not set.
fn clock() -> Option<Ticks> {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(elapsed.as_nanos() / 100).ok().map(Ticks::new)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests;
