//! Programs from npm: installs a package of this repository once, and runs programs until they end.
//!
//! The directory of an installation has a digest of the package's files in its name. So a package is installed once
//! for each content of its files. A lock makes other processes wait meanwhile. A finished installation is moved to its
//! place by one rename, so an incomplete one is never visible, even after a crash.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use sha2::{Digest, Sha256};
use tokio::{io::AsyncWriteExt, process::Command};

/// Oldest Node.js that the packages support.
const OLDEST_NODE: u32 = 20;

/// Long enough for a first installation over a slow connection, and for a process that waits for another one's
/// installation.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(300);

/// A package: its `package.json`, lock file, `.npmrc` and scripts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Package {
    /// Its directory in devkit, which is also the prefix of its installation's name.
    pub(crate) name: &'static str,
    /// What it is used for, for error messages.
    pub(crate) purpose: &'static str,
    /// The files of the package.
    pub(crate) files: &'static [&'static str],
}

/// Why a program from npm cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program is missing.
    #[error(
        "{program} is not installed: {purpose} needs Node.js {OLDEST_NODE} or later with npm; install both, e.g. from \
         your distribution's packages nodejs and npm"
    )]
    Missing {
        /// `node` or `npm`.
        program: String,
        /// What needs it.
        purpose: &'static str,
        /// Reason given by the system.
        #[source]
        source: io::Error,
    },
    /// Node.js is too old.
    #[error("Node.js {found} is too old: {purpose} needs version {OLDEST_NODE} or later")]
    Outdated {
        /// The output of `node --version`.
        found: String,
        /// What needs it.
        purpose: &'static str,
    },
    /// `npm ci` failed.
    #[error("npm ci failed in {directory}: {stderr}", directory = directory.display())]
    Install {
        /// The working directory.
        directory: PathBuf,
        /// Its standard error.
        stderr: String,
    },
    /// Files could not be read, written or moved.
    #[error("prepare {path} for {purpose}", path = path.display())]
    Files {
        /// File or directory.
        path: PathBuf,
        /// What needs it.
        purpose: &'static str,
        /// Reason given by the system.
        #[source]
        source: io::Error,
    },
    /// A program exceeded its time limit and was killed.
    #[error("{program} did not end within {limit:?}")]
    Timeout {
        /// `node` or `npm`.
        program: String,
        /// The time limit.
        limit: Duration,
    },
    /// A program could not be run.
    #[error("run {program}")]
    Run {
        /// `node` or `npm`.
        program: String,
        /// Reason given by the system.
        #[source]
        source: io::Error,
    },
}

/// The default directory of installations: below cargo's target directory, or in the system's temporary directory.
pub(crate) fn default_directory() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    // Cargo creates this file in its target directory.
    let target = program.ancestors().find(|directory| directory.join("CACHEDIR.TAG").exists());
    target.map_or_else(|| std::env::temp_dir().join("twinsync-devkit"), |target| target.join("tmp"))
}

impl Package {
    /// Installs the package in `directory`, unless it is installed already. Returns the path of the installation.
    pub(crate) async fn provision(&self, directory: &Path) -> Result<PathBuf, Error> {
        self.require_node().await?;
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(self.name);
        let files = self
            .files
            .iter()
            .map(|name| self.read(source.join(name)).map(|content| (*name, content)))
            .collect::<Result<Vec<_>, _>>()?;
        let installed = directory.join(format!("{}-{}", self.name, digest(&files)));
        if !installed.exists() {
            let _lock = self.lock(directory).await?;
            // Another process may have installed it while this one waited for the lock.
            if !installed.exists() {
                self.install(&files, directory, &installed).await?;
            }
        }
        Ok(installed)
    }

    /// Runs a program with a text for its standard input. After the time limit, it is killed.
    pub(crate) async fn run(
        &self,
        program: &str,
        mut command: Command,
        input: String,
        limit: Duration,
    ) -> Result<std::process::Output, Error> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| self.not_started(program, source))?;
        let stdin = child.stdin.take();
        let writing = async move {
            if let Some(mut stdin) = stdin {
                // If a program ends without reading its input, the pipe breaks. Its output says why it ended.
                if let Err(error) = stdin.write_all(input.as_bytes()).await {
                    tracing::debug!(%error, "a program did not read its input");
                }
            }
        };
        let running = async { tokio::join!(writing, child.wait_with_output()).1 };
        match tokio::time::timeout(limit, running).await {
            Ok(output) => output.map_err(|source| Error::Run { program: program.to_owned(), source }),
            Err(_elapsed) => Err(Error::Timeout { program: program.to_owned(), limit }),
        }
    }

    /// The error for a program that could not be started.
    pub(crate) fn not_started(&self, program: &str, source: io::Error) -> Error {
        let program = program.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Error::Missing { program, purpose: self.purpose, source },
            _ => Error::Run { program, source },
        }
    }

    async fn require_node(&self) -> Result<(), Error> {
        let mut command = Command::new("node");
        command.arg("--version");
        let output = self.run("node", command, String::new(), INSTALL_TIMEOUT).await?;
        let found = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let major =
            found.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
        match major {
            Some(major) if major >= OLDEST_NODE => Ok(()),
            _ => Err(Error::Outdated { found, purpose: self.purpose }),
        }
    }

    /// Waits until no other process installs this package.
    async fn lock(&self, directory: &Path) -> Result<File, Error> {
        let path = directory.join(format!("{}.lock", self.name));
        let failed = |source| self.files_failed(&path, source);
        fs::create_dir_all(directory).map_err(failed)?;
        let file = File::options().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        let locking = tokio::task::spawn_blocking(move || file.lock().map(|()| file));
        match tokio::time::timeout(INSTALL_TIMEOUT, locking).await {
            Ok(Ok(locked)) => locked.map_err(failed),
            Ok(Err(panic)) => Err(failed(io::Error::other(panic))),
            Err(_elapsed) => Err(failed(io::ErrorKind::TimedOut.into())),
        }
    }

    async fn install(
        &self,
        files: &[(&str, Vec<u8>)],
        directory: &Path,
        installed: &Path,
    ) -> Result<(), Error> {
        let unfinished = tempfile::Builder::new()
            .prefix(&format!("{}-unfinished-", self.name))
            .tempdir_in(directory)
            .map_err(|source| self.files_failed(directory, source))?;
        for (name, content) in files {
            let path = unfinished.path().join(name);
            fs::write(&path, content).map_err(|source| self.files_failed(&path, source))?;
        }
        let mut command = Command::new("npm");
        command.args(["ci", "--ignore-scripts", "--prefer-offline"]).current_dir(unfinished.path());
        let output = self.run("npm", command, String::new(), INSTALL_TIMEOUT).await?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(Error::Install { directory: unfinished.path().to_owned(), stderr });
        }
        fs::rename(unfinished.path(), installed).map_err(|source| self.files_failed(installed, source))?;
        // The directory was renamed, so there is nothing to delete.
        drop(unfinished.keep());
        Ok(())
    }

    fn read(&self, path: PathBuf) -> Result<Vec<u8>, Error> {
        fs::read(&path).map_err(|source| self.files_failed(&path, source))
    }

    fn files_failed(&self, path: &Path, source: io::Error) -> Error {
        Error::Files { path: path.to_owned(), purpose: self.purpose, source }
    }
}

fn digest(files: &[(&str, Vec<u8>)]) -> String {
    let mut digest = Sha256::new();
    for (name, content) in files {
        digest.update(name);
        digest.update(content.len().to_be_bytes());
        digest.update(content);
    }
    digest.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_says_who_needs_it_and_what_to_install() {
        let package = Package { name: "x", purpose: "the storage emulator", files: &[] };
        let error = package.not_started("node", io::ErrorKind::NotFound.into());
        let message = error.to_string();
        assert!(
            message.starts_with("node is not installed: the storage emulator needs Node.js 20"),
            "{message}"
        );
        assert!(message.contains("nodejs and npm"), "{message}");
    }

    #[test]
    fn installations_lie_beside_what_cargo_builds() {
        assert!(default_directory().ends_with("tmp"), "{:?}", default_directory());
    }
}
