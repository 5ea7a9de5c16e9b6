//! A directory that stores checkpoints or dead letters.

use std::{path::Path, time::Duration};

use super::{Finding, Problem, words};
use crate::domain::mounts::Ephemeral;

/// Below this many free bytes, there is a warning.
const WARN_BYTES: u64 = 256 << 20;
/// Checkpoints and dead letters are small, but they are first written to a temporary file: fewer free bytes than this
/// are not usable.
const FAIL_BYTES: u64 = 1 << 20;

/// Whether files can be written to the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writable {
    /// A file was written to the directory and removed.
    Yes,
    /// The directory does not exist, but can be created.
    CanBeMade,
    /// The operating system refused; the text is its message.
    No(String),
    /// The test file could not be removed: its path and the reason.
    Left(String),
}

/// What is known about a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// Whether it can be written to.
    pub writable: Writable,
    /// The holder of its lock, if known; `None` if it is not locked.
    pub held_by: Option<String>,
    /// Set if the directory is on storage that does not last.
    pub ephemeral: Option<Ephemeral>,
    /// Bytes that we can still write; `None` if not known.
    pub free_bytes: Option<u64>,
    /// Files that can still be created; `None` if not known, or if there is no limit.
    pub free_files: Option<u64>,
    /// How long the check took.
    pub took: Duration,
}

/// Writing and removing one small file should not take longer.
const SLOW: Duration = Duration::from_secs(1);

/// Evaluates the directory of the setting `key`; `code` is the code of a directory that cannot be used.
pub fn directory(key: &str, code: &'static str, path: &Path, found: &Directory) -> Finding {
    let place = path.display();
    match &found.writable {
        Writable::No(reason) => {
            return Finding::fail(
                code,
                format!("{place} cannot be written: {reason}"),
                format!(
                    "give the user of twinsync write permission, e.g. with `chown`, or set {key} to another directory"
                ),
            );
        }
        Writable::Left(reason) => {
            return Finding::fail(
                code,
                format!("{place} can be written, but what was written cannot be removed: {reason}"),
                format!(
                    "fix the permissions of the directory and remove that file, or set {key} to another directory"
                ),
            );
        }
        Writable::Yes | Writable::CanBeMade => {}
    }
    if let Some(problem) = space(key, path, found) {
        return problem;
    }
    let held = match &found.held_by {
        Some(holder) => format!(", in use by a running twinsync ({holder})"),
        None => String::new(),
    };
    if let Some(kind) = found.ephemeral {
        let store = key.strip_suffix(".path").unwrap_or(key);
        return Finding::warn(
            "STORAGE_EPHEMERAL",
            format!("{place} lies on {}{held}", kind.describe()),
            format!("set {store}.store = \"blob\", or put a volume on the directory"),
        );
    }
    if found.took >= SLOW {
        return Finding::warn(
            "STORAGE_FULL",
            format!("{place} is slow: one small file took {}", words::duration(found.took)),
            format!("check what else uses that disk, or set {key} to a directory on a faster one"),
        );
    }
    let state = match found.writable {
        Writable::CanBeMade => "does not exist yet, and can be created",
        Writable::Yes | Writable::No(_) | Writable::Left(_) => "can be written",
    };
    let free = found.free_bytes.map(|free| format!(", {} free", words::bytes(free))).unwrap_or_default();
    Finding::ok(format!("{place} {state}{free}{held}"))
}

fn space(key: &str, path: &Path, found: &Directory) -> Option<Finding> {
    let problem = |what: String| {
        let remedy = format!("free space on its disk, or set {key} to a directory on another one");
        Problem::new("STORAGE_FULL", format!("{}: {what}", path.display()), remedy)
    };
    if found.free_files == Some(0) {
        return Some(Finding::Fail(problem("the disk has no free inode for another file".to_owned())));
    }
    let free = found.free_bytes?;
    let told = || problem(format!("only {} are free", words::bytes(free)));
    if free < FAIL_BYTES {
        return Some(Finding::Fail(told()));
    }
    (free < WARN_BYTES).then(|| Finding::Warn(told()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::checks::Verdict;

    fn good() -> Directory {
        Directory {
            writable: Writable::Yes,
            held_by: None,
            ephemeral: None,
            free_bytes: Some(5 << 30),
            free_files: None,
            took: Duration::from_millis(2),
        }
    }

    fn assess(found: &Directory) -> (Verdict, String, Option<&'static str>) {
        let finding = directory("checkpoint.path", "CHECKPOINT_IO", Path::new("/var/x"), found);
        let problem = finding.problem();
        let text = format!("{} {}", finding.text(), problem.map_or("", |problem| &problem.remedy));
        (finding.verdict(), text, problem.map(|problem| problem.code))
    }

    #[test]
    fn each_fact_has_its_verdict() {
        use Verdict::{Fail, Ok, Warn};
        for (found, verdict, code, words) in [
            (good(), Ok, None, "5.0 GiB free"),
            (Directory { writable: Writable::CanBeMade, ..good() }, Ok, None, "can be created"),
            (
                Directory { held_by: Some("process 7".into()), ..good() },
                Ok,
                None,
                "running twinsync (process 7)",
            ),
            (
                Directory { writable: Writable::No("denied".into()), ..good() },
                Fail,
                Some("CHECKPOINT_IO"),
                "denied",
            ),
            (
                Directory { writable: Writable::Left("/x: no".into()), ..good() },
                Fail,
                Some("CHECKPOINT_IO"),
                "/x: no",
            ),
            (
                Directory { ephemeral: Some(Ephemeral::Memory), ..good() },
                Warn,
                Some("STORAGE_EPHEMERAL"),
                "checkpoint.store = \"blob\"",
            ),
            (Directory { free_bytes: Some(200 << 20), ..good() }, Warn, Some("STORAGE_FULL"), "200 MiB"),
            (Directory { free_bytes: Some(0), ..good() }, Fail, Some("STORAGE_FULL"), "0 B"),
            (
                Directory { free_bytes: Some(FAIL_BYTES - 1), ..good() },
                Fail,
                Some("STORAGE_FULL"),
                "are free",
            ),
            (Directory { free_bytes: Some(FAIL_BYTES), ..good() }, Warn, Some("STORAGE_FULL"), "are free"),
            (Directory { free_bytes: Some(WARN_BYTES), ..good() }, Ok, None, "free"),
            (Directory { free_files: Some(0), ..good() }, Fail, Some("STORAGE_FULL"), "no free inode"),
            (Directory { free_bytes: None, ..good() }, Ok, None, "can be written"),
            (Directory { took: Duration::from_secs(2), ..good() }, Warn, Some("STORAGE_FULL"), "2 s"),
        ] {
            let assessed = assess(&found);
            assert!(
                (assessed.0, assessed.2) == (verdict, code) && assessed.1.contains(words),
                "{found:?}: {assessed:?}"
            );
        }
    }
}
