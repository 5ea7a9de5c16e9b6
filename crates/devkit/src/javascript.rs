//! Runs Azure's own JavaScript clients. `devkit/js/README.md` describes the scripts.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use tokio::process::Command;

use crate::npm::{self, Package};

/// The files of `devkit/js`, without installed packages.
const PACKAGE: Package = Package {
    name: "js",
    purpose: "Azure's JavaScript clients",
    files: &[
        ".npmrc",
        "cosmos.mjs",
        "eventhubs.mjs",
        "hash.mjs",
        "lines.mjs",
        "package-lock.json",
        "package.json",
    ],
};

/// The scripts, with their packages installed.
#[derive(Debug, Clone)]
pub struct OfficialClients {
    directory: PathBuf,
}

/// The output of a script.
#[derive(Debug)]
pub struct Output {
    /// The JSON lines that it printed.
    pub lines: Vec<Value>,
    /// Whether the script ended with exit code 0.
    pub success: bool,
    /// Its standard error, for the message of a failed test.
    pub stderr: String,
}

/// Why a client could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The scripts cannot be installed or run.
    #[error(transparent)]
    Npm(#[from] npm::Error),
    /// A script printed a line that is not JSON.
    #[error("a script printed a line that is not JSON: {line:?}")]
    NotJson {
        /// The line.
        line: String,
        /// Reason given by the parser.
        #[source]
        source: serde_json::Error,
    },
}

impl OfficialClients {
    /// Installs the scripts in `directory` (in tests `CARGO_TARGET_TMPDIR`), unless they are installed
    /// already.
    ///
    /// # Errors
    /// Node.js or npm are missing, or the installation fails.
    pub async fn provision(directory: &Path) -> Result<Self, Error> {
        Ok(Self { directory: PACKAGE.provision(directory).await? })
    }

    /// Runs a script with arguments and JSON lines for its standard input. After the time limit, it is killed.
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
        let output = PACKAGE.run("node", command, input, limit).await?;
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
