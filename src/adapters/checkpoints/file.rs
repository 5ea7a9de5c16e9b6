//! Progress in a local directory, for one replica.
//!
//! ```text
//! <path>/lock                                             held while the store lives
//! <path>/<namespace>/<hub>/<group>/checkpoint/<id>.json
//! <path>/<namespace>/<hub>/<group>/ownership/<id>.json
//! ```
//!
//! The tree has the same layout as the blobs that the SDKs share. *Invariants*: every file is whole (written to a
//! temporary file, then renamed); it contains the partition that its path names; only one process uses the directory.
//! Each access takes one lock of this store, so a comparison is enough for the compare-and-set of ownership.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use azure_core::{Uuid, http::Etag, time::OffsetDateTime};
use azure_messaging_eventhubs::{
    CheckpointStore,
    models::{Checkpoint, Ownership},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::Error;
use crate::adapters::{directory::LOCK, durable_file};

/// A [`CheckpointStore`] in a directory. Dropping it releases the directory.
#[derive(Debug)]
pub struct FileStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    /// Serialises all accesses.
    access: Mutex<()>,
    /// Locked while it is open. `None`: this store only reads, and another process may write.
    lock: Option<File>,
}

/// The partition of a file: stored in each file, so that a file at the wrong path is detected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    namespace: String,
    hub: String,
    consumer_group: String,
    partition: String,
}

/// Content of a checkpoint file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckpointFile {
    format: Format,
    place: Place,
    offset: Option<String>,
    sequence_number: Option<i64>,
}

/// Content of an ownership file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnershipFile {
    format: Format,
    place: Place,
    owner: Option<String>,
    etag: String,
    #[serde(with = "time::serde::rfc3339")]
    modified: OffsetDateTime,
}

/// The version of the file format. A file with an unknown version is refused.
#[derive(Debug, Serialize, Deserialize)]
enum Format {
    #[serde(rename = "twinsync-1")]
    One,
}

/// The two kinds of files, as directories.
const CHECKPOINT: &str = "checkpoint";
const OWNERSHIP: &str = "ownership";

impl FileStore {
    /// Opens or creates the store in `root` and takes its lock.
    ///
    /// # Errors
    /// The directory cannot be used, or another store holds it.
    pub async fn open(root: PathBuf) -> Result<Self, Error> {
        let place = root.clone();
        blocking(&place, move || {
            durable_file::create_directory(&root).map_err(failed("create checkpoint directory", &root))?;
            let lock = take_lock(&root)?;
            Ok(Self(Arc::new(Inner { root, access: Mutex::new(()), lock: Some(lock) })))
        })
        .await
    }

    /// Opens the store in `root` for reading, even if another process holds it: it lists, and refuses to write. Files
    /// are whole at any time. No I/O.
    pub fn read_only(root: PathBuf) -> Self {
        Self(Arc::new(Inner { root, access: Mutex::new(()), lock: None }))
    }

    /// Runs `work` on a thread that may block.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, Error> + Send + 'static,
    ) -> azure_core::Result<T> {
        let inner = Arc::clone(&self.0);
        let result = blocking(&self.0.root, move || {
            // If code under this lock panics, the files stay whole, as after a crash. So a poisoned lock can be used.
            let _access = inner.access.lock().unwrap_or_else(PoisonError::into_inner);
            work(&inner)
        });
        Ok(result.await?)
    }
}

async fn blocking<T: Send + 'static>(
    place: &Path,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(failed("work in", place)(io::Error::other(error))),
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { operation, path, source }
}

/// How often the lock is tried, and the pause in between: `twinsync check` holds it for a moment.
const LOCK_TRIES: u32 = 5;
const LOCK_PAUSE: Duration = Duration::from_millis(40);

/// Takes the lock that keeps other processes out. The operating system releases it, even after a crash. Blocks.
fn take_lock(root: &Path) -> Result<File, Error> {
    let path = root.join(LOCK);
    let mut lock = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed("open lock file", &path))?;
    let mut taken = lock.try_lock();
    for _ in 1..LOCK_TRIES {
        if !matches!(taken, Err(TryLockError::WouldBlock)) {
            break;
        }
        std::thread::sleep(LOCK_PAUSE);
        taken = lock.try_lock();
    }
    match taken {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Only for the message: if it cannot be read, it is omitted.
            let known = lock.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
            return Err(Error::InUse {
                path: root.to_owned(),
                holder: if known { holder.trim().to_owned() } else { "another process".to_owned() },
            });
        }
        Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
    }
    lock.set_len(0)
        .and_then(|()| writeln!(lock, "process {}", std::process::id()))
        .map_err(failed("write lock file", &path))?;
    Ok(lock)
}

impl Place {
    /// The names in the form in which they are stored and compared.
    fn new(namespace: &str, hub: &str, consumer_group: &str, partition: &str) -> Result<Self, Error> {
        let named = [
            ("fully_qualified_namespace", namespace),
            ("event_hub_name", hub),
            ("consumer_group", consumer_group),
            ("partition_id", partition),
        ];
        if let Some((field, _)) = named.iter().find(|(_, name)| name.is_empty()) {
            return Err(Error::Refused {
                what: "a record of a partition",
                reason: format!("{field} is empty"),
            });
        }
        Ok(Self {
            namespace: namespace.to_lowercase(),
            hub: hub.to_lowercase(),
            consumer_group: consumer_group.to_lowercase(),
            partition: partition.to_lowercase(),
        })
    }
}

impl Inner {
    fn directory(&self, place: &Place, kind: &str) -> PathBuf {
        let mut directory = self.root.clone();
        for name in [&place.namespace, &place.hub, &place.consumer_group] {
            directory.push(durable_file::file_name(name));
        }
        directory.join(kind)
    }

    fn file(&self, place: &Place, kind: &str) -> PathBuf {
        self.directory(place, kind).join(format!("{}.json", durable_file::file_name(&place.partition)))
    }

    /// Reads one file; `None` if it does not exist.
    fn read<T: DeserializeOwned>(
        &self,
        path: &Path,
        place: impl Fn(&T) -> &Place,
        kind: &str,
    ) -> Result<Option<T>, Error> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", path)(error)),
        };
        let damaged = |reason| Error::Damaged { path: path.to_owned(), reason };
        if bytes.is_empty() {
            return Err(damaged("it is empty".to_owned()));
        }
        let content: T = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if self.file(place(&content), kind) != path {
            return Err(damaged("it belongs to another partition".to_owned()));
        }
        Ok(Some(content))
    }

    /// Reads all files of one kind of a consumer group, in the order of their names.
    fn list<T: DeserializeOwned>(
        &self,
        group: &Place,
        place: impl Fn(&T) -> &Place,
        kind: &str,
    ) -> Result<Vec<T>, Error> {
        let directory = self.directory(group, kind);
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("list", &directory)(error)),
        };
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed("list", &directory))?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                paths.push(path);
            }
        }
        if self.lock.is_some() {
            // While we hold the lock, no other code writes here: temporary files are left from a crash.
            durable_file::remove_temporaries(&directory).map_err(failed("tidy", &directory))?;
        }
        paths.sort();
        let contents = paths.iter().map(|path| self.read(path, &place, kind));
        contents.filter_map(Result::transpose).collect()
    }

    fn write(&self, path: &Path, content: &impl Serialize) -> Result<(), Error> {
        if self.lock.is_none() {
            let reason = "the store was opened for reading only".to_owned();
            return Err(Error::Refused { what: "a record of a partition", reason });
        }
        let directory = path.parent().unwrap_or(&self.root);
        durable_file::create_directory(directory).map_err(failed("create", directory))?;
        let mut bytes = serde_json::to_vec_pretty(content)
            .map_err(|error| Error::Refused { what: "a record of a partition", reason: error.to_string() })?;
        bytes.push(b'\n');
        durable_file::replace(path, &bytes).map_err(failed("write", path))
    }

    /// Claims one partition if its ETag still equals the one in the claim.
    fn claim(&self, claim: &Ownership) -> Result<Option<Ownership>, Error> {
        let place = Place::new(
            &claim.fully_qualified_namespace,
            &claim.event_hub_name,
            &claim.consumer_group,
            &claim.partition_id,
        )?;
        let path = self.file(&place, OWNERSHIP);
        let stored = self.read(&path, |file: &OwnershipFile| &file.place, OWNERSHIP)?;
        let expected = claim.etag.as_ref().map(ToString::to_string);
        if stored.map(|file| file.etag) != expected {
            return Ok(None);
        }
        let file = OwnershipFile {
            format: Format::One,
            place,
            owner: claim.owner_id.clone(),
            etag: Uuid::new_v4().to_string(),
            modified: OffsetDateTime::now_utc(),
        };
        self.write(&path, &file)?;
        Ok(Some(Ownership {
            etag: Some(Etag::from(file.etag.as_str())),
            last_modified_time: Some(file.modified),
            ..claim.clone()
        }))
    }
}

#[async_trait]
impl CheckpointStore for FileStore {
    /// A claim without ETag succeeds if no ownership is recorded; a claim with ETag succeeds if the ETag is still
    /// current. Lost claims are missing in the answer, as in the blob store.
    async fn claim_ownership(&self, ownerships: &[Ownership]) -> azure_core::Result<Vec<Ownership>> {
        let claims = ownerships.to_vec();
        self.with(move |inner| {
            let results = claims.iter().map(|claim| inner.claim(claim));
            results.filter_map(Result::transpose).collect()
        })
        .await
    }

    async fn list_checkpoints(
        &self,
        namespace: &str,
        event_hub_name: &str,
        consumer_group: &str,
    ) -> azure_core::Result<Vec<Checkpoint>> {
        let names = Names::new(namespace, event_hub_name, consumer_group);
        self.with(move |inner| {
            let files = inner.list(&names.group()?, |file: &CheckpointFile| &file.place, CHECKPOINT)?;
            let checkpoints = files.into_iter().map(|file| Checkpoint {
                fully_qualified_namespace: names.namespace.clone(),
                event_hub_name: names.hub.clone(),
                consumer_group: names.consumer_group.clone(),
                partition_id: file.place.partition,
                offset: file.offset,
                sequence_number: file.sequence_number,
            });
            Ok(checkpoints.collect())
        })
        .await
    }

    async fn list_ownerships(
        &self,
        namespace: &str,
        event_hub_name: &str,
        consumer_group: &str,
    ) -> azure_core::Result<Vec<Ownership>> {
        let names = Names::new(namespace, event_hub_name, consumer_group);
        self.with(move |inner| {
            let files = inner.list(&names.group()?, |file: &OwnershipFile| &file.place, OWNERSHIP)?;
            let ownerships = files.into_iter().map(|file| Ownership {
                fully_qualified_namespace: names.namespace.clone(),
                event_hub_name: names.hub.clone(),
                consumer_group: names.consumer_group.clone(),
                partition_id: file.place.partition,
                owner_id: file.owner,
                etag: Some(Etag::from(file.etag.as_str())),
                last_modified_time: Some(file.modified),
            });
            Ok(ownerships.collect())
        })
        .await
    }

    /// Unconditional, as in the blob store. A checkpoint without any position is refused, because it would erase
    /// progress.
    async fn update_checkpoint(&self, checkpoint: Checkpoint) -> azure_core::Result<()> {
        self.with(move |inner| {
            let place = Place::new(
                &checkpoint.fully_qualified_namespace,
                &checkpoint.event_hub_name,
                &checkpoint.consumer_group,
                &checkpoint.partition_id,
            )?;
            if checkpoint.offset.is_none() && checkpoint.sequence_number.is_none() {
                return Err(Error::Refused {
                    what: "a checkpoint",
                    reason: "it has neither offset nor sequence number".to_owned(),
                });
            }
            let path = inner.file(&place, CHECKPOINT);
            let file = CheckpointFile {
                format: Format::One,
                place,
                offset: checkpoint.offset,
                sequence_number: checkpoint.sequence_number,
            };
            inner.write(&path, &file)
        })
        .await
    }
}

/// A consumer group with the names as the caller writes them, so that answers contain the same names.
struct Names {
    namespace: String,
    hub: String,
    consumer_group: String,
}

impl Names {
    fn new(namespace: &str, hub: &str, consumer_group: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            hub: hub.to_owned(),
            consumer_group: consumer_group.to_owned(),
        }
    }

    /// The place of the group; its partition is a placeholder that listings ignore.
    fn group(&self) -> Result<Place, Error> {
        Place::new(&self.namespace, &self.hub, &self.consumer_group, "any")
    }
}

#[cfg(test)]
mod tests;
