//! Runs Azure's own JavaScript clients as judges; see `devkit/js/README.md` for the scripts.
//!
//! The packages are installed once per content of `devkit/js`, into a directory whose name is a digest of it. A
//! finished installation is moved into place by one rename: processes that provision at the same time do the work
//! twice at worst, and never see half of it.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::{io::AsyncWriteExt, process::Command};

/// What `devkit/js` consists of, without installed packages.
const FILES: [&str; 7] =
    [".npmrc", "cosmos.mjs", "eventhubs.mjs", "hash.mjs", "lines.mjs", "package-lock.json", "package.json"];

/// Oldest Node.js that the clients support.
const OLDEST_NODE: u32 = 20;

/// Long enough for a first installation over a slow line.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(300);

/// The scripts, with their packages installed.
#[derive(Debug, Clone)]
pub struct Judges {
    directory: PathBuf,
}

/// What a script printed.
#[derive(Debug)]
pub struct Output {
    /// The JSON lines of stdout.
    pub lines: Vec<Value>,
    /// Whether the script ended with exit code 0.
    pub success: bool,
    /// Everything on stderr, for the message of a failed test.
    pub stderr: String,
}

/// Why a judge could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program is missing.
    #[error(
        "{program} is not installed: the JavaScript judges need Node.js {OLDEST_NODE} or later with npm; install \
         both, e.g. from your distribution's packages nodejs and npm"
    )]
    Missing {
        /// `node` or `npm`.
        program: String,
        /// Reason given by the system.
        #[source]
        source: io::Error,
    },
    /// Node.js is too old.
    #[error("Node.js {found} is too old: the JavaScript judges need version {OLDEST_NODE} or later")]
    Outdated {
        /// What `node --version` said.
        found: String,
    },
    /// `npm ci` failed.
    #[error("npm ci failed in {directory}: {stderr}", directory = directory.display())]
    Install {
        /// Where it ran.
        directory: PathBuf,
        /// What it said.
        stderr: String,
    },
    /// Files could not be read, written or moved.
    #[error("prepare {path} for the JavaScript judges", path = path.display())]
    Files {
        /// File or directory.
        path: PathBuf,
        /// Reason given by the system.
        #[source]
        source: io::Error,
    },
    /// A program took too long and was killed.
    #[error("{program} did not end within {limit:?}")]
    Timeout {
        /// `node` or `npm`.
        program: String,
        /// The time it had.
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
    /// A script printed what is no JSON.
    #[error("a script printed a line that is not JSON: {line:?}")]
    NotJson {
        /// The line.
        line: String,
        /// Reason given by the parser.
        #[source]
        source: serde_json::Error,
    },
}

impl Judges {
    /// Installs the scripts under `directory` (in tests `CARGO_TARGET_TMPDIR`), unless they are there already.
    pub async fn provision(directory: &Path) -> Result<Self, Error> {
        require_node().await?;
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("js");
        let files = FILES
            .into_iter()
            .map(|name| read(source.join(name)).map(|content| (name, content)))
            .collect::<Result<Vec<_>, _>>()?;
        let installed = directory.join(format!("judges-{}", digest(&files)));
        if !installed.exists() {
            install(&files, directory, &installed).await?;
        }
        Ok(Self { directory: installed })
    }

    /// Runs a script with arguments, JSON lines for its stdin, and a limit after which it is killed.
    pub async fn run<A: AsRef<OsStr>>(
        &self,
        script: &str,
        arguments: &[A],
        input: &[Value],
        limit: Duration,
    ) -> Result<Output, Error> {
        let mut command = Command::new("node");
        command.arg(self.directory.join(script)).args(arguments).current_dir(&self.directory);
        let input: String = input.iter().map(|line| format!("{line}\n")).collect();
        let output = run("node", command, input, limit).await?;
        let lines = String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(|line| {
                serde_json::from_str(line).map_err(|source| Error::NotJson { line: line.to_owned(), source })
            })
            .collect::<Result<_, _>>()?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(Output { lines, success: output.status.success(), stderr })
    }
}

async fn require_node() -> Result<(), Error> {
    let mut command = Command::new("node");
    command.arg("--version");
    let output = run("node", command, String::new(), INSTALL_TIMEOUT).await?;
    let found = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let major = found.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    match major {
        Some(major) if major >= OLDEST_NODE => Ok(()),
        _ => Err(Error::Outdated { found }),
    }
}

async fn install(files: &[(&str, Vec<u8>)], directory: &Path, installed: &Path) -> Result<(), Error> {
    fs::create_dir_all(directory).map_err(|source| Error::Files { path: directory.to_owned(), source })?;
    let unfinished = tempfile::Builder::new()
        .prefix("judges-unfinished-")
        .tempdir_in(directory)
        .map_err(|source| Error::Files { path: directory.to_owned(), source })?;
    for (name, content) in files {
        let path = unfinished.path().join(name);
        fs::write(&path, content).map_err(|source| Error::Files { path, source })?;
    }
    let mut command = Command::new("npm");
    command.args(["ci", "--ignore-scripts", "--prefer-offline"]).current_dir(unfinished.path());
    let output = run("npm", command, String::new(), INSTALL_TIMEOUT).await?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::Install { directory: unfinished.path().to_owned(), stderr });
    }
    match fs::rename(unfinished.path(), installed) {
        Ok(()) => {
            // Its name is gone; there is nothing left to delete.
            drop(unfinished.keep());
            Ok(())
        }
        // Another process was faster; ours is deleted with its guard.
        Err(_) if installed.exists() => Ok(()),
        Err(source) => Err(Error::Files { path: installed.to_owned(), source }),
    }
}

async fn run(
    program: &str,
    mut command: Command,
    input: String,
    limit: Duration,
) -> Result<std::process::Output, Error> {
    let failed = |source| Error::Run { program: program.to_owned(), source };
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::Missing { program: program.to_owned(), source },
            _ => failed(source),
        })?;
    let stdin = child.stdin.take();
    let writing = async move {
        if let Some(mut stdin) = stdin {
            // A program that ends without reading its input breaks the pipe; its output says why.
            if let Err(error) = stdin.write_all(input.as_bytes()).await {
                tracing::debug!(%error, "a judge did not read its input");
            }
        }
    };
    let running = async { tokio::join!(writing, child.wait_with_output()).1 };
    match tokio::time::timeout(limit, running).await {
        Ok(output) => output.map_err(failed),
        Err(_elapsed) => Err(Error::Timeout { program: program.to_owned(), limit }),
    }
}

fn read(path: PathBuf) -> Result<Vec<u8>, Error> {
    fs::read(&path).map_err(|source| Error::Files { path, source })
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
