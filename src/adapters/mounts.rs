//! Whether the directories in which the daemon keeps things outlive it.

use std::{fs, path::Path};

use crate::{
    config::{CheckpointStore, DeadLetters, Settings},
    domain::mounts::{self, Ephemeral},
    telemetry::event::StorageEphemeral,
};

/// What Linux says about the mounts of this process; on other systems nothing is known.
const MOUNTINFO: &str = "/proc/self/mountinfo";

/// Warns about each directory that is gone with its container. Call it once the directories exist.
pub async fn warn_about_ephemeral(settings: &Settings) {
    let mut directories = Vec::new();
    if let CheckpointStore::File { path } = &settings.checkpoint.store {
        directories.push(("checkpoint", path.clone()));
    }
    if let DeadLetters::File { path } = &settings.dead_letters {
        directories.push(("dead_letters", path.clone()));
    }
    let warn = move || {
        // A system without it, or one that hides it, is none of which we could say anything.
        let Ok(mountinfo) = fs::read_to_string(MOUNTINFO) else { return };
        for (section, path) in directories {
            warn(&mountinfo, section, &path);
        }
    };
    if let Err(error) = tokio::task::spawn_blocking(warn).await {
        tracing::debug!(%error, "the directories could not be looked at");
    }
}

fn warn(mountinfo: &str, section: &'static str, path: &Path) {
    if let Some(kind) = kind(mountinfo, path) {
        StorageEphemeral { section, path, kind }.emit();
    }
}

/// Whether a directory is gone with its container. Blocks. `None`: it is not, or nothing is known.
pub(super) fn ephemeral(path: &Path) -> Option<Ephemeral> {
    kind(&fs::read_to_string(MOUNTINFO).ok()?, path)
}

fn kind(mountinfo: &str, path: &Path) -> Option<Ephemeral> {
    // Behind links, to where it really is.
    mounts::ephemeral(mountinfo, &fs::canonicalize(path).ok()?)
}
