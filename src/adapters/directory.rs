//! Facts about a directory for stored data. Nothing that the check creates is left behind.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    time::Instant,
};

use super::mounts;
use crate::domain::checks::{Directory, Writable};

/// The file that a running daemon keeps locked in a checkpoint directory.
pub(super) const LOCK: &str = "lock";

/// The prefix of the names of files that the check creates.
const PREFIX: &str = ".twinsync-check-";

/// Checks the directory on a thread that may block: a network disk may hang.
///
/// # Errors
/// The check panicked or was cancelled.
pub async fn inspect(path: PathBuf) -> io::Result<Directory> {
    tokio::task::spawn_blocking(move || inspect_now(&path)).await.map_err(io::Error::other)
}

fn inspect_now(path: &Path) -> Directory {
    let began = Instant::now();
    let writable = write_into(path);
    let took = began.elapsed();
    let there = existing(path);
    let space = rustix::fs::statvfs(there).ok();
    Directory {
        writable,
        held_by: holder(path),
        ephemeral: mounts::ephemeral(there),
        free_bytes: space.as_ref().map(|space| space.f_bavail.saturating_mul(space.f_frsize)),
        // File systems that create inodes on demand report 0 of 0.
        free_files: space.filter(|space| space.f_files > 0).map(|space| space.f_favail),
        took,
    }
}

/// The directory, or its nearest parent that exists.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."))
}

fn write_into(path: &Path) -> Writable {
    let unique = format!("{PREFIX}{:016x}", rand::random::<u64>());
    if path.is_dir() {
        let probe = path.join(&unique);
        let written = File::options().write(true).create_new(true).open(&probe).and_then(|mut file| {
            file.write_all(b"`twinsync check` wrote this; it can be deleted at any time\n")?;
            file.sync_all()
        });
        let removed = match fs::remove_file(&probe) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        return match (written, removed) {
            (Err(error), _) => Writable::No(error.to_string()),
            (Ok(()), Err(error)) => Writable::Left(format!("{}: {error}", probe.display())),
            (Ok(()), Ok(())) => Writable::Yes,
        };
    }
    if path.exists() {
        return Writable::No("it exists and is not a directory".to_owned());
    }
    let parent = existing(path);
    let in_between = path.ancestors().skip(1).take_while(|above| *above != parent);
    if let Some(file) = in_between.into_iter().find(|above| above.exists()) {
        return Writable::No(format!("{} is not a directory", file.display()));
    }
    let probe = parent.join(unique);
    match fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe)) {
        Ok(()) => Writable::CanBeMade,
        Err(_) if probe.is_dir() => Writable::Left(probe.display().to_string()),
        Err(error) => {
            Writable::No(format!("it does not exist and cannot be created in {}: {error}", parent.display()))
        }
    }
}

/// The holder of the lock of a checkpoint directory. The check takes a shared lock for a moment; a daemon that starts
/// at that moment tries again.
fn holder(path: &Path) -> Option<String> {
    let mut file = File::open(path.join(LOCK)).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let known = file.read_to_string(&mut text).is_ok() && !text.trim().is_empty();
            Some(if known { text.trim().to_owned() } else { "another process".to_owned() })
        }
        Ok(()) | Err(TryLockError::Error(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn names(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path).expect("readable").flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    #[tokio::test]
    async fn a_directory_is_written_to_and_left_as_it_was() {
        let directory = tempfile::tempdir().expect("a directory");
        let found = inspect(directory.path().to_owned()).await.expect("inspected");
        assert_eq!((found.writable, found.held_by), (Writable::Yes, None));
        assert!(found.free_bytes.is_some_and(|free| free > 0));
        let below = inspect(directory.path().join("a").join("b")).await.expect("inspected");
        assert_eq!(below.writable, Writable::CanBeMade);
        assert!(names(directory.path()).is_empty(), "the check must leave no file");
    }

    #[tokio::test]
    async fn what_is_in_the_way_is_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        fs::write(&file, "").expect("written");
        for path in [file.clone(), file.join("below")] {
            let found = inspect(path).await.expect("inspected");
            assert!(matches!(found.writable, Writable::No(_)), "{found:?}");
        }
        assert_eq!(names(directory.path()), ["file"]);
    }

    #[tokio::test]
    async fn a_lock_that_is_held_is_seen_with_its_holder_and_a_free_one_stays_free() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().to_owned();
        fs::write(path.join(LOCK), "process 7\n").expect("written");
        assert_eq!(inspect(path.clone()).await.expect("inspected").held_by, None);
        let lock = File::open(path.join(LOCK)).expect("opened");
        lock.try_lock().expect("the address is free");
        assert_eq!(inspect(path).await.expect("inspected").held_by.as_deref(), Some("process 7"));
    }

    #[tokio::test]
    async fn a_directory_without_rights_is_not_writable() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o500)).expect("changed");
        let found = inspect(directory.path().to_owned()).await.expect("inspected");
        let is_root = rustix::process::geteuid().is_root();
        assert_eq!(matches!(found.writable, Writable::No(_)), !is_root, "only root may write: {found:?}");
    }
}
