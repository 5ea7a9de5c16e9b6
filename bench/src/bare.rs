//! The bare loops: the cost of the same work with the SDKs alone. Each loop runs in its own process and prints one line
//! of JSON.

mod receive;
mod registry;
mod replace;

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

pub(crate) use self::{
    receive::Receive,
    registry::{Fill, Scan},
    replace::{Pace, Replace, connect, document_bytes},
};
use crate::process;

/// Time limit of a loop.
const LIMIT: Duration = Duration::from_secs(1800);

/// The work of a loop.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Loop {
    /// Receives events and parses their bodies.
    Receive(Receive),
    /// Reads documents and replaces them.
    Replace(Replace),
    /// Reads twins from the hub and creates their documents.
    Fill(Fill),
    /// Reads twins from the hub page by page, and their documents.
    Scan(Scan),
}

/// The result of a loop.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Took {
    /// Number of events received, or of documents replaced, created or read.
    pub(crate) items: u64,
    /// Seconds from the first item to the last.
    pub(crate) seconds: f64,
    /// CPU time of the process in this time, in seconds.
    pub(crate) cpu_seconds: f64,
}

impl Took {
    /// Items per second.
    pub(crate) fn rate(&self) -> f64 {
        self.items as f64 / self.seconds
    }

    /// CPU seconds per item.
    pub(crate) fn cpu_per_item(&self) -> f64 {
        self.cpu_seconds / self.items as f64
    }
}

impl Loop {
    /// Runs the loop in its own process.
    ///
    /// # Errors
    /// The loop fails, or takes too long.
    pub(crate) async fn run(&self) -> Result<Took> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let process = Command::new(program)
            .arg("bare")
            .arg(serde_json::to_string(self)?)
            // As for the daemon.
            .env("COSMOS_DISABLE_IMDS", "1")
            .env("RUST_LIB_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a bare loop")?;
        let output = tokio::time::timeout(LIMIT, process.wait_with_output()).await;
        let output = output.context("a bare loop does not end")??;
        ensure!(output.status.success(), "a bare loop ended with {}", output.status);
        serde_json::from_slice(&output.stdout).context("a bare loop printed something else than its figures")
    }

    /// Runs the loop in this process.
    ///
    /// # Errors
    /// The service gives an unexpected answer.
    pub(crate) async fn perform(self) -> Result<Took> {
        match self {
            Self::Receive(receive) => receive.perform().await,
            Self::Replace(replace) => replace.perform().await,
            Self::Fill(fill) => fill.perform().await,
            Self::Scan(scan) => scan.perform().await,
        }
    }
}

/// Measures from the first item on.
struct Watch {
    began: Instant,
    cpu: Duration,
}

impl Watch {
    fn start() -> Result<Self> {
        Ok(Self { began: Instant::now(), cpu: process::cpu(std::process::id())? })
    }

    fn stop(&self, items: u64) -> Result<Took> {
        let seconds = self.began.elapsed().as_secs_f64();
        let cpu_seconds = process::cpu(std::process::id())?.saturating_sub(self.cpu).as_secs_f64();
        Ok(Took { items, seconds, cpu_seconds })
    }
}
