//! The usual way: a handler in JavaScript, as a function with an Event Hubs trigger would run it. `bench/usual/handler.mjs` says what it
//! does and what it omits.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use devkit::stack::Endpoints;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::{azure::Ends, bare::Took};

/// Time limit for the installation of its packages.
const INSTALL_LIMIT: Duration = Duration::from_secs(300);
/// Time limit of a run.
const RUN_LIMIT: Duration = Duration::from_secs(300);

/// The handler, with its packages installed.
pub(crate) struct Handler {
    directory: PathBuf,
}

/// How the handler processes the events of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Way {
    /// One after the other: a loop that awaits each event.
    InOrder,
    /// The twins of the batch at the same time, the events of a twin one after the other.
    Concurrent,
    /// The same, but the events of a twin in the batch share a read and an upsert.
    Coalesced,
}

impl Way {
    /// All ways, the plainest first.
    pub(crate) const ALL: [Self; 3] = [Self::InOrder, Self::Concurrent, Self::Coalesced];

    /// Number of events in a run. It would need many times as long as the daemon for the daemon's number.
    pub(crate) const fn events(self) -> usize {
        match self {
            Self::InOrder | Self::Concurrent => 4_000,
            Self::Coalesced => 20_000,
        }
    }

    /// The most twins that any of them is measured with.
    pub(crate) const MOST_TWINS: usize = Self::Coalesced.events();
}

/// The task of a run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Task<'a> {
    pub(crate) endpoints: &'a Endpoints,
    /// Receives the events after these positions.
    pub(crate) after: &'a Ends,
    /// Receives the events up to and including these positions.
    pub(crate) until: &'a Ends,
    /// How it processes a batch.
    pub(crate) way: Way,
}

impl Handler {
    /// Installs the handler in `directory`.
    ///
    /// # Errors
    /// Node.js or npm are missing, or the packages cannot be downloaded.
    pub(crate) async fn install(directory: &Path) -> Result<Self> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("usual");
        let directory = directory.join("usual-way");
        std::fs::create_dir_all(&directory)?;
        for file in [".npmrc", "package.json", "package-lock.json", "handler.mjs"] {
            std::fs::copy(source.join(file), directory.join(file)).with_context(|| file.to_owned())?;
        }
        let install = Command::new("npm").arg("ci").current_dir(&directory).kill_on_drop(true).output();
        let output = tokio::time::timeout(INSTALL_LIMIT, install).await.context("npm does not end")?;
        let output = output.context("npm cannot be run: install Node.js 20 or later with npm")?;
        ensure!(output.status.success(), "npm ci: {}", String::from_utf8_lossy(&output.stderr));
        Ok(Self { directory })
    }

    /// Runs the handler.
    ///
    /// # Errors
    /// The handler fails, or does not end.
    pub(crate) async fn run(&self, task: &Task<'_>) -> Result<Took> {
        let process = Command::new("node")
            .arg("handler.mjs")
            .arg(serde_json::to_string(task)?)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("node cannot be run")?;
        let output = tokio::time::timeout(RUN_LIMIT, process.wait_with_output()).await;
        let output = output.context("the usual way does not end")??;
        ensure!(output.status.success(), "the usual way: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout)
            .context("the usual way printed something else than its figures")
    }
}
