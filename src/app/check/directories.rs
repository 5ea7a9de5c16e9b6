//! Checks the directories of checkpoints and dead letters, if they are stored on a disk.

use std::path::Path;

use super::{Inspector, LIMIT};
use crate::{
    adapters,
    config::{CheckpointStore, DeadLetters},
    domain::checks::{Checked, Finding, Kind, directory},
};

impl Inspector<'_> {
    /// Runs the checks of this section.
    pub(super) async fn directories(&self) -> Vec<Checked> {
        let checkpoints = async {
            match &self.settings.checkpoint.store {
                CheckpointStore::File { path } => {
                    self.directory("checkpoint.path", "CHECKPOINT_IO", path).await
                }
                CheckpointStore::Blob(_) => Finding::Skipped("checkpoints are kept in blobs".to_owned()),
                CheckpointStore::Memory => Finding::Skipped(
                    "checkpoints are kept in memory: each start begins as eventhubs.start says".to_owned(),
                ),
            }
        };
        let letters = async {
            match &self.settings.dead_letters {
                DeadLetters::File { path } => {
                    self.directory("dead_letters.path", "DEAD_LETTER_DIRECTORY_UNUSABLE", path).await
                }
                DeadLetters::Blob(_) => Finding::Skipped("dead letters are kept in blobs".to_owned()),
            }
        };
        let (checkpoints, letters) = tokio::join!(checkpoints, letters);
        vec![
            Checked::new(Kind::DirectoryCheckpoints, checkpoints),
            Checked::new(Kind::DirectoryDeadLetters, letters),
        ]
    }

    async fn directory(&self, key: &str, code: &'static str, path: &Path) -> Finding {
        let failed = |reason: String| {
            Finding::fail(
                code,
                format!("{}: {reason}", path.display()),
                format!("check the disk or network share that it lies on, or set {key} to another directory"),
            )
        };
        match self.within(LIMIT, failed, adapters::directory::inspect(path.to_owned())).await {
            Ok(Ok(found)) => directory(key, code, path, &found),
            Ok(Err(error)) => failed(error.to_string()),
            Err(finding) => finding,
        }
    }
}
