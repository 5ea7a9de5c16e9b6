//! The daemon as a process: the same binary, configured for the embedded local Azure.

use std::{
    fs::File,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use devkit::stack::Endpoints;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::{failed, scrape::Sample};
use crate::cli::Error;

/// How long the daemon may take until it is ready.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long it may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// A running daemon. Dropping it kills the process.
pub(super) struct Daemon {
    process: Child,
    http: reqwest::Client,
    address: String,
    directory: TempDir,
}

impl Daemon {
    /// Starts the daemon and waits until it is ready.
    pub(super) async fn start(endpoints: &Endpoints) -> Result<Self, Error> {
        let directory = tempfile::tempdir().map_err(|error| failed("cannot make a directory", &error))?;
        let port = free_port().map_err(|error| failed("cannot find a free port", &error))?;
        let file = directory.path().join("twinsync.toml");
        let configuration = configuration(endpoints, directory.path().to_owned(), port);
        std::fs::write(&file, configuration)
            .map_err(|error| failed("cannot write the configuration", &error))?;
        let log = File::create(directory.path().join("log"));
        let log = log.map_err(|error| failed("cannot write the daemon's log", &error))?;
        let program = std::env::current_exe().map_err(|error| failed("cannot find this program", &error))?;
        let process = Command::new(program)
            .arg("run")
            .arg("--config")
            .arg(&file)
            // The SDK asks Azure's metadata service at the first start; there is none here to answer.
            .env("COSMOS_DISABLE_IMDS", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed("cannot start the daemon", &error))?;
        let address = format!("http://127.0.0.1:{port}");
        let mut daemon = Self {
            process,
            http: reqwest::Client::new(),
            address,
            directory,
        };
        daemon.ready().await?;
        Ok(daemon)
    }

    async fn ready(&mut self) -> Result<(), Error> {
        let started = Instant::now();
        loop {
            if let Ok(Some(status)) = self.process.try_wait() {
                return Err(self.ended(status));
            }
            let answer = self.http.get(format!("{}/readyz", self.address)).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if started.elapsed() > START_LIMIT {
                let limit = START_LIMIT.as_secs();
                return Err(Error::Failed(format!(
                    "the daemon was not ready within {limit} s\n{}",
                    self.log()
                )));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The daemon's metrics.
    pub(super) async fn sample(&mut self) -> Result<Sample, Error> {
        let text = async {
            let answer = self.http.get(format!("{}/metrics", self.address)).send().await?;
            answer.error_for_status()?.text().await
        };
        match text.await {
            Ok(text) => Ok(Sample::parse(&text)),
            Err(error) => match self.process.try_wait() {
                Ok(Some(status)) => Err(self.ended(status)),
                Ok(None) | Err(_) => Err(failed("cannot read the daemon's metrics", &error)),
            },
        }
    }

    /// Asks the daemon to stop, as an orchestrator would, and waits for it.
    pub(super) async fn stop(mut self) -> Result<(), Error> {
        if let Some(id) = self.process.id() {
            let kill = Command::new("kill")
                .arg("-TERM")
                .arg(id.to_string())
                .status()
                .await;
            kill.map_err(|error| failed("cannot signal the daemon", &error))?;
        }
        match tokio::time::timeout(STOP_LIMIT, self.process.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(self.ended(status)),
            Ok(Err(error)) => Err(failed("cannot wait for the daemon", &error)),
            Err(_) => {
                let limit = STOP_LIMIT.as_secs();
                Err(Error::Failed(format!(
                    "the daemon did not stop within {limit} s\n{}",
                    self.log()
                )))
            }
        }
    }

    fn ended(&self, status: ExitStatus) -> Error {
        Error::Failed(format!("the daemon ended with {status}\n{}", self.log()))
    }

    /// The end of what it logged.
    pub(super) fn log(&self) -> String {
        let text = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn configuration(endpoints: &Endpoints, directory: PathBuf, port: u16) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string(); // JSON strings are TOML strings
    let path = |name: &str| quoted(&directory.join(name).to_string_lossy());
    format!(
        "[eventhubs]\nnamespace = {}\nendpoint = {}\n[eventhubs.lifecycle]\nhub = {}\n[eventhubs.twin_changes]\nhub = {}\n\
         [credential]\nkind = \"emulator\"\ntoken = {}\n\
         [cosmos]\nendpoint = {}\nkey = {}\ndatabase = {}\ncontainer = {}\n\
         [checkpoint]\nstore = \"file\"\npath = {}\n[dead_letters]\npath = {}\n[http]\nlisten = \"127.0.0.1:{port}\"\n",
        quoted(&endpoints.namespace),
        quoted(&endpoints.eventhubs),
        quoted(&endpoints.lifecycle_hub),
        quoted(&endpoints.twin_changes_hub),
        quoted(&endpoints.token),
        quoted(&endpoints.cosmos),
        quoted(&endpoints.cosmos_key),
        quoted(&endpoints.database),
        quoted(&endpoints.container),
        path("checkpoints"),
        path("dead-letters"),
    )
}
