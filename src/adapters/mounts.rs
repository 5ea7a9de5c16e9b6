//! Whether the data directories of the daemon outlive its container.

use std::{fs, path::Path};

use crate::{
    config::{CheckpointStore, DeadLetters, Settings},
    domain::mounts::{self, Ephemeral},
    telemetry::event::StorageEphemeral,
};

/// The list of this process's mounts on Linux; on other systems nothing is known.
const MOUNTINFO: &str = "/proc/self/mountinfo";

/// Warns about each directory that is lost with its container. Call it after the directories exist.
pub async fn warn_about_ephemeral(settings: &Settings) {
    let mut directories = Vec::new();
    if let CheckpointStore::File { path } = &settings.checkpoint.store {
        directories.push(("checkpoint", path.clone()));
    }
    if let DeadLetters::File { path } = &settings.dead_letters {
        directories.push(("dead_letters", path.clone()));
    }
    let warn = move || {
        // If a system does not have it or hides it, nothing is known.
        let Ok(mountinfo) = fs::read_to_string(MOUNTINFO) else { return };
        for (section, path) in directories {
            warn(&mountinfo, section, &path);
        }
    };
    if let Err(error) = tokio::task::spawn_blocking(warn).await {
        tracing::debug!(%error, "the mounts of the directories could not be checked");
    }
}

fn warn(mountinfo: &str, section: &'static str, path: &Path) {
    if let Some(kind) = kind(mountinfo, path) {
        StorageEphemeral { section, path, kind }.emit();
    }
}

/// Whether a directory is lost with its container. Blocks. `None` if it is not, or if nothing is known.
pub(super) fn ephemeral(path: &Path) -> Option<Ephemeral> {
    kind(&fs::read_to_string(MOUNTINFO).ok()?, path)
}

fn kind(mountinfo: &str, path: &Path) -> Option<Ephemeral> {
    // Links are resolved to the real path.
    mounts::ephemeral(mountinfo, &fs::canonicalize(path).ok()?)
}
