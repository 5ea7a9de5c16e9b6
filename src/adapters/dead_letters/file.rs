//! Dead letters in a directory: one JSON file per event that can never be applied.
//!
//! ```text
//! <path>/<stream>/<partition>/<sequence number>.json
//! ```
//!
//! A dead letter is durable when [`FileDeadLetters::store`] returns. It is removed as a whole file; a file that was
//! replaced since it was read is not removed.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;

use super::{SUFFIX, letter, name, stamped};
use crate::{
    adapters::durable_file,
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

/// [`DeadLetters`] and [`DeadLetterArchive`] in a directory.
#[derive(Debug)]
pub struct FileDeadLetters {
    root: PathBuf,
}

impl FileDeadLetters {
    /// Makes sure that the directory can be used. So a wrong path is reported at start and not with the first event
    /// that cannot be applied.
    ///
    /// # Errors
    /// The operating system's error.
    pub async fn open(path: &Path) -> io::Result<Self> {
        let root = path.to_owned();
        blocking(move || {
            durable_file::create_directory(&root)?;
            if let Err(error) = durable_file::make_private(&root) {
                tracing::warn!(
                    directory = %root.display(), %error, code = "DEAD_LETTERS_READABLE",
                    "other users may read the dead letters, which contain whole events: remove their permissions on this directory"
                );
            }
            // On a read-only file system, creating an existing directory succeeds; this write fails.
            let probe = root.join(format!("probe.{:016x}", rand::random::<u64>()));
            durable_file::replace(&probe, b"")?;
            fs::remove_file(&probe)?;
            Ok(Self { root })
        })
        .await
    }

    /// Opens an existing directory: nothing is created, so a wrong path is an error and does not look like an empty
    /// store.
    ///
    /// # Errors
    /// The directory does not exist, or it cannot be listed.
    pub async fn open_existing(path: &Path) -> io::Result<Self> {
        let root = path.to_owned();
        blocking(move || fs::read_dir(&root).map(|_| Self { root })).await
    }

    /// The directory of one partition's dead letters.
    fn directory(&self, partition: &PartitionId) -> PathBuf {
        self.root
            .join(durable_file::file_name(&partition.stream))
            .join(durable_file::file_name(&partition.partition))
    }

    /// The file of one dead letter. Names come from listings and command lines, so a name must not lead out of the
    /// directory.
    fn file(&self, name: &LetterName) -> io::Result<PathBuf> {
        if name.name().contains('/') {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the name of a dead letter"));
        }
        Ok(self.directory(name.partition()).join(format!("{}{SUFFIX}", name.name())))
    }
}

#[async_trait]
impl DeadLetters for FileDeadLetters {
    async fn store(&self, letter: DeadLetter<'_>) -> Result<(), DeadLetterError> {
        let sequence_number = letter.message.position.sequence_number;
        let partition = letter.partition.clone();
        let directory = self.directory(&partition);
        let stored = stamped(letter);
        let place = directory.join(name(sequence_number.0, 1)).display().to_string();
        let written = blocking(move || put(&directory, &stored)).await;
        written.map_err(|source| DeadLetterError {
            partition,
            sequence_number,
            place,
            code: super::DIRECTORY_UNUSABLE,
            source,
        })
    }
}

#[async_trait]
impl DeadLetterArchive for FileDeadLetters {
    async fn partitions(&self) -> Result<Vec<PartitionId>, ArchiveError> {
        let root = self.root.clone();
        let listed = blocking(move || {
            let mut partitions = Vec::new();
            for (stream, path) in directories(&root)? {
                // A directory that is removed meanwhile counts as empty.
                for (partition, _) in absent_as_default(directories(&path))? {
                    partitions.push(PartitionId { stream: stream.clone(), partition });
                }
            }
            partitions.sort_by_cached_key(partition_order);
            Ok(partitions)
        });
        listed.await.map_err(failed("list the dead letters in", &self.root))
    }

    async fn letters(&self, partition: &PartitionId) -> Result<Vec<LetterName>, ArchiveError> {
        let directory = self.directory(partition);
        let partition = Arc::new(partition.clone());
        let listed = blocking({
            let directory = directory.clone();
            move || {
                let mut letters = Vec::new();
                for entry in absent_as_default(entries(&directory))? {
                    if let Some(name) = entry.strip_suffix(SUFFIX) {
                        letters.push(LetterName::new(Arc::clone(&partition), name));
                    }
                }
                letters.sort_by_cached_key(LetterName::order);
                Ok(letters)
            }
        });
        listed.await.map_err(failed("list the dead letters in", &directory))
    }

    async fn first(&self, most: usize) -> Result<Listing, ArchiveError> {
        let root = self.root.clone();
        blocking(move || first(&root, most)).await.map_err(failed("list the dead letters in", &self.root))
    }

    async fn read(&self, name: &LetterName) -> Result<ReadLetter, ArchiveError> {
        let place = self.root.join(name.to_string());
        let read = async {
            let file = self.file(name)?;
            blocking(move || read(&file)).await
        };
        read.await.map_err(failed("read the dead letter", &place))
    }

    async fn remove(&self, name: &LetterName, version: &LetterVersion) -> Result<Removed, ArchiveError> {
        let place = self.root.join(name.to_string());
        let version = version.clone();
        let removed = async {
            let file = self.file(name)?;
            blocking(move || match fs::metadata(&file) {
                Ok(metadata) if version_of(&metadata) != version => Ok(Removed::Changed),
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                Ok(_) | Err(_) => durable_file::remove(&file).map(|()| Removed::Gone),
            })
            .await
        };
        removed.await.map_err(failed("remove the dead letter", &place))
    }
}

fn failed(operation: &'static str, place: &Path) -> impl FnOnce(io::Error) -> ArchiveError {
    let place = place.display().to_string();
    move |source| ArchiveError { operation, place, source }
}

fn read(file: &Path) -> io::Result<ReadLetter> {
    let Some(mut open) = absent_as_default(fs::File::open(file).map(Some))? else {
        return Ok(ReadLetter::Absent);
    };
    let version = version_of(&open.metadata()?);
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut open, &mut bytes)?;
    Ok(match letter::from_json(&bytes) {
        Ok(letter) => ReadLetter::Found(Box::new(letter), version),
        Err(reason) => ReadLetter::Damaged(reason, version),
    })
}

/// Files are replaced, never changed. An editor may write in place, which changes the time or the length.
fn version_of(metadata: &fs::Metadata) -> LetterVersion {
    let (inode, length) = (metadata.ino(), metadata.len());
    LetterVersion(format!("{inode}-{length}-{}.{}", metadata.mtime(), metadata.mtime_nsec()))
}

/// At most `most` dead letters, with the time at which each file was written.
fn first(root: &Path, most: usize) -> io::Result<Listing> {
    let mut listing = Listing::default();
    for (stream, path) in directories(root)? {
        for (partition, path) in absent_as_default(directories(&path))? {
            let partition = PartitionId { stream: stream.clone(), partition };
            for entry in absent_as_default(fs::read_dir(&path).map(Some))?.into_iter().flatten() {
                let entry = entry?;
                let name = entry.file_name().into_string().ok();
                let Some(name) = name.as_deref().and_then(|name| name.strip_suffix(SUFFIX)) else { continue };
                if listing.letters.len() >= most {
                    listing.more = true;
                    return Ok(listing);
                }
                // A file that is removed meanwhile is skipped.
                let Some(metadata) = absent_as_default(entry.metadata().map(Some))? else { continue };
                let seconds = u64::try_from(metadata.mtime()).ok();
                let stored = seconds.map(|seconds| Ticks::new(0).after(Duration::from_secs(seconds)));
                listing.letters.push(Listed { stored, partition: partition.clone(), name: name.to_owned() });
            }
        }
    }
    Ok(listing)
}

/// Writes the dead letter at the first free name of its position, unless it is already stored.
fn put(directory: &Path, letter: &StoredLetter) -> io::Result<()> {
    let bytes = letter::to_json(letter).map_err(io::Error::other)?;
    durable_file::create_directory(directory)?;
    let sequence_number = letter.message.position.sequence_number;
    for copy in 1_u32.. {
        let path = directory.join(name(sequence_number.0, copy));
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return durable_file::replace(&path, &bytes);
            }
            Err(error) => return Err(error),
            // The same event: stored by an earlier attempt whose answer was lost. A file that cannot be read back is
            // also kept, so that a person can look at it.
            Ok(present) => match letter::from_json(&present) {
                Ok(present) if letter::same_event(&present, letter) => return Ok(()),
                Ok(_) | Err(_) => {}
            },
        }
    }
    Err(io::Error::other("no free name for this position"))
}

/// The directories that this program created in `parent`: the original names, and the paths.
fn directories(parent: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let named = entries(parent)?.into_iter().filter_map(|entry| {
        let path = parent.join(&entry);
        durable_file::name_of(&entry).filter(|_| path.is_dir()).map(|name| (name, path))
    });
    Ok(named.collect())
}

/// Names of the entries of a directory; a name that is not UTF-8 is not ours.
fn entries(directory: &Path) -> io::Result<Vec<String>> {
    let names = fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
    Ok(names.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
}

fn absent_as_default<T: Default>(result: io::Result<T>) -> io::Result<T> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(T::default()),
        other => other,
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests;
