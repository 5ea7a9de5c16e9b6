//! Notes of long scans, beside the checkpoints.
//!
//! | checkpoints | notes |
//! |---|---|
//! | `memory` | in memory |
//! | `file` | `<checkpoint.path>/notes/<name>.json` |
//! | `blob` | blob `notes/<name>.json` in the container |
//!
//! Files are not locked: `twinsync backfill` may run beside the daemon. The last note wins, and correctness does not
//! depend on notes.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use azure_core::{
    credentials::TokenCredential,
    http::{RequestContent, StatusCode},
};
use azure_storage_blob::models::BlobClientUploadOptions;

use super::{
    blob::{self, Container, REQUEST_LIMIT},
    durable_file::{self, file_name},
};
use crate::{
    config,
    ports::{NoteError, NoteStore},
};

/// The folder of the notes.
const FOLDER: &str = "notes";

/// The notes that belong to a checkpoint store.
///
/// # Errors
/// The container cannot be used.
pub async fn open(
    store: &config::CheckpointStore,
    credential: &Arc<dyn TokenCredential>,
) -> Result<Arc<dyn NoteStore>, blob::Error> {
    Ok(match store {
        config::CheckpointStore::Memory => Arc::new(MemoryNotes::default()),
        config::CheckpointStore::File { path } => Arc::new(FileNotes::new(path.join(FOLDER))),
        config::CheckpointStore::Blob(settings) => {
            Arc::new(BlobNotes { container: Container::open(settings, Arc::clone(credential)).await? })
        }
    })
}

fn failed(operation: &'static str, name: &str, place: String, source: io::Error) -> NoteError {
    NoteError { operation, name: name.to_owned(), place, source }
}

/// Notes in memory: they end with the process.
#[derive(Debug, Default)]
pub struct MemoryNotes(Mutex<BTreeMap<String, Vec<u8>>>);

#[async_trait]
impl NoteStore for MemoryNotes {
    async fn load(&self, name: &str) -> Result<Option<Vec<u8>>, NoteError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned())
    }

    async fn save(&self, name: &str, note: &[u8]) -> Result<(), NoteError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), note.to_owned());
        Ok(())
    }
}

/// One file per note.
#[derive(Debug)]
pub struct FileNotes {
    folder: PathBuf,
}

impl FileNotes {
    /// Creates a store in `folder`. The folder is created with the first note.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        let mut path = self.folder.clone();
        path.extend(name.split('/').map(file_name));
        path.with_added_extension("json")
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[async_trait]
impl NoteStore for FileNotes {
    async fn load(&self, name: &str) -> Result<Option<Vec<u8>>, NoteError> {
        let path = self.path(name);
        let place = self.folder.display().to_string();
        match blocking(move || std::fs::read(path)).await {
            Ok(note) => Ok(Some(note)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", name, place, error)),
        }
    }

    async fn save(&self, name: &str, note: &[u8]) -> Result<(), NoteError> {
        let (path, note) = (self.path(name), note.to_owned());
        let write = blocking(move || {
            if let Some(folder) = path.parent() {
                durable_file::create_directory(folder)?;
            }
            durable_file::replace(&path, &note)
        });
        write.await.map_err(|error| failed("write", name, self.folder.display().to_string(), error))
    }
}

/// One blob per note.
#[derive(Debug)]
struct BlobNotes {
    container: Arc<Container>,
}

impl BlobNotes {
    fn failed(&self, operation: &'static str, name: &str, error: blob::Error) -> NoteError {
        failed(operation, name, self.container.place().to_owned(), io::Error::other(error))
    }
}

fn blob_name(name: &str) -> String {
    format!("{FOLDER}/{name}.json")
}

#[async_trait]
impl NoteStore for BlobNotes {
    async fn load(&self, name: &str) -> Result<Option<Vec<u8>>, NoteError> {
        let client = self.container.client().blob_client(&blob_name(name));
        let request = Box::pin(async { client.download(None).await?.body.collect().await });
        match self.container.call("read a note", REQUEST_LIMIT, request).await {
            Ok(note) => Ok(Some(note.to_vec())),
            Err(blob::Error::State { status: StatusCode::NotFound, .. }) => Ok(None),
            Err(error) => Err(self.failed("read", name, error)),
        }
    }

    async fn save(&self, name: &str, note: &[u8]) -> Result<(), NoteError> {
        let options = BlobClientUploadOptions {
            blob_content_type: Some("application/json".to_owned()),
            ..BlobClientUploadOptions::default()
        };
        let client = self.container.client().blob_client(&blob_name(name));
        let request = Box::pin(client.upload(RequestContent::from(note.to_owned()), Some(options)));
        let written = self.container.call("write a note", REQUEST_LIMIT, request).await;
        written.map(drop).map_err(|error| self.failed("write", name, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_note_in_a_file_is_read_back_and_replaced() {
        let directory = tempfile::tempdir().expect("a directory");
        let notes = FileNotes::new(directory.path().join("a").join(FOLDER));
        assert_eq!(notes.load("backfill/My Hub").await.expect("readable"), None);
        for note in [b"1".as_slice(), b"22"] {
            notes.save("backfill/My Hub", note).await.expect("written");
            assert_eq!(notes.load("backfill/My Hub").await.expect("readable").as_deref(), Some(note));
        }
        assert_eq!(notes.load("audit/My Hub").await.expect("readable"), None);
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_an_error_that_names_the_place() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        std::fs::write(&file, "").expect("written");
        let notes = FileNotes::new(file.clone());
        let error = notes.save("backfill/h", b"1").await.expect_err("a file is no directory");
        assert!(error.to_string().contains(&file.display().to_string()), "{error}");
    }
}
