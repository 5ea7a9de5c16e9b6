//! Runs the `twinsync` binary against a [`Stack`](crate::stack::Stack), as an operator does: with a configuration file, a
//! process, signals, its health and its metrics. It uses none of the binary's code.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use tokio::process::{Child, Command};

use crate::{metrics::Sample, stack::Endpoints};

/// Time limit for becoming ready, and for stopping.
const LIMIT: Duration = Duration::from_secs(60);
/// How often health is checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(10);
/// Number of log lines that an error contains.
const LOG_LINES: usize = 20;

/// Errors of the process. They contain the end of its log, if there is one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operation of the system failed.
    #[error("cannot {0}")]
    System(&'static str, #[source] io::Error),
    /// The process ended although it was not asked to, or not with exit code 0.
    #[error("the daemon ended with {0}\n{1}")]
    Ended(ExitStatus, String),
    /// The process did not do something within the time limit.
    #[error("the daemon did not {0} within {limit} s\n{1}", limit = LIMIT.as_secs())]
    TooLong(&'static str, String),
    /// Its metrics could not be read.
    #[error("cannot read the daemon's metrics")]
    Metrics(#[source] reqwest::Error),
}

/// A signal for the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM: stop in an orderly way.
    Terminate,
    /// SIGKILL: as if the machine lost power.
    Kill,
}

/// How to run the binary: its path, and a directory for its configuration, checkpoints, dead letters and log. The
/// directory outlives the process, so that a second process can continue.
#[derive(Debug, Clone)]
pub struct Setup {
    program: PathBuf,
    directory: PathBuf,
    port: u16,
    variables: Vec<(String, OsString)>,
    own_group: bool,
    service: &'static str,
}

impl Setup {
    /// Writes the configuration for `endpoints`. `more` is additional TOML, in a second file that takes precedence.
    ///
    /// # Errors
    /// The directory cannot be written, or no port is free.
    pub fn new(program: &Path, directory: &Path, endpoints: &Endpoints, more: &str) -> Result<Self, Error> {
        let port = free_port().map_err(|error| Error::System("find a free port", error))?;
        let write = |name: &str, text: &str| {
            fs::write(directory.join(name), text)
                .map_err(|error| Error::System("write the configuration", error))
        };
        write("twinsync.toml", &configuration(endpoints, directory, port))?;
        write("more.toml", more)?;
        Ok(Self {
            program: program.to_owned(),
            directory: directory.to_owned(),
            port,
            variables: Vec::new(),
            own_group: false,
            service: "run",
        })
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// Runs the read API instead of the daemon. It has its own directory and address.
    #[must_use]
    pub fn serving(mut self) -> Self {
        self.service = "serve";
        self
    }

    /// Puts the process into its own process group. Ctrl-C on the terminal does not reach it then, so the program that
    /// started it decides when it ends.
    #[must_use]
    pub fn in_a_group_of_its_own(mut self) -> Self {
        self.own_group = true;
        self
    }

    /// The command that runs the daemon, for tests in which it should end without being stopped.
    pub fn command(&self) -> Command {
        self.command_for(&[self.service])
    }

    /// A command with these arguments instead, in the same environment.
    pub fn command_for(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .arg("--config")
            .arg(self.directory.join("twinsync.toml"))
            .arg("--config")
            .arg(self.directory.join("more.toml"))
            // At its first start, the SDK asks Azure's metadata service, which does not exist here.
            .env("COSMOS_DISABLE_IMDS", "1")
            // As in the image: with RUST_BACKTRACE, the Cosmos DB client would otherwise capture a backtrace for each
            // request.
            .env("RUST_LIB_BACKTRACE", "0")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if self.own_group {
            command.process_group(0);
        }
        command
    }

    /// Starts the daemon without waiting for it.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn spawn(&self) -> Result<Daemon, Error> {
        let log = File::options().create(true).append(true).open(self.log_file());
        let log = log.map_err(|error| Error::System("write the daemon's log", error))?;
        let process = self.command().stdout(Stdio::null()).stderr(log).spawn();
        Ok(Daemon {
            process: process.map_err(|error| Error::System("start the daemon", error))?,
            http: reqwest::Client::new(),
            address: format!("http://127.0.0.1:{}", self.port),
            log_file: self.log_file(),
        })
    }

    /// Starts the daemon and waits until it is ready.
    ///
    /// # Errors
    /// The process ended, or was not ready in time.
    pub async fn start(&self) -> Result<Daemon, Error> {
        let mut daemon = self.spawn()?;
        daemon.ready().await?;
        Ok(daemon)
    }

    fn log_file(&self) -> PathBuf {
        self.directory.join("log")
    }
}

/// A running daemon. Dropping it kills the process.
#[derive(Debug)]
pub struct Daemon {
    process: Child,
    http: reqwest::Client,
    address: String,
    log_file: PathBuf,
}

impl Daemon {
    /// Waits until `/readyz` reports that it is ready.
    ///
    /// # Errors
    /// The process ended, or was not ready in time.
    pub async fn ready(&mut self) -> Result<(), Error> {
        let started = Instant::now();
        loop {
            if let Ok(Some(status)) = self.process.try_wait() {
                return Err(Error::Ended(status, self.log()));
            }
            let answer = self.http.get(format!("{}/readyz", self.address)).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if started.elapsed() > LIMIT {
                return Err(Error::TooLong("become ready", self.log()));
            }
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    }

    /// The id of the process, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Host and port of its HTTP server.
    pub fn address(&self) -> &str {
        self.address.trim_start_matches("http://")
    }

    /// An answer of its HTTP server: status and text.
    ///
    /// # Errors
    /// The process does not answer.
    pub async fn get(&self, path: &str) -> Result<(u16, String), Error> {
        let answer = self.http.get(format!("{}{path}", self.address)).send().await;
        let answer = answer.map_err(Error::Metrics)?;
        let status = answer.status().as_u16();
        Ok((status, answer.text().await.map_err(Error::Metrics)?))
    }

    /// Reads its metrics.
    ///
    /// # Errors
    /// The process has ended, or does not answer.
    pub async fn sample(&mut self) -> Result<Sample, Error> {
        match self.get("/metrics").await {
            Ok((_, text)) => Ok(Sample::parse(&text)),
            Err(error) => match self.process.try_wait() {
                Ok(Some(status)) => Err(Error::Ended(status, self.log())),
                Ok(None) | Err(_) => Err(error),
            },
        }
    }

    /// Sends SIGTERM, without waiting for the end.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub async fn signal(&self) -> Result<(), Error> {
        let Some(id) = self.process.id() else {
            return Ok(());
        };
        let kill = Command::new("kill").arg("-TERM").arg(id.to_string()).status().await;
        kill.map(drop).map_err(|error| Error::System("signal the daemon", error))
    }

    /// Sends a signal and waits until the process ends.
    ///
    /// # Errors
    /// The process did not end in time.
    pub async fn end(mut self, signal: Signal) -> Result<ExitStatus, Error> {
        match signal {
            Signal::Kill => {
                self.process.start_kill().map_err(|error| Error::System("kill the daemon", error))?;
            }
            Signal::Terminate => self.signal().await?,
        }
        match tokio::time::timeout(LIMIT, self.process.wait()).await {
            Ok(status) => status.map_err(|error| Error::System("wait for the daemon", error)),
            Err(_) => Err(Error::TooLong("stop", self.log())),
        }
    }

    /// Waits until the process ends, without sending a signal.
    ///
    /// # Errors
    /// The process cannot be waited for.
    pub async fn ended(&mut self) -> Result<ExitStatus, Error> {
        self.process.wait().await.map_err(|error| Error::System("wait for the daemon", error))
    }

    /// Stops the process in an orderly way. Any exit code but 0 is an error.
    ///
    /// # Errors
    /// The process did not end in time, or not with exit code 0.
    pub async fn stop(self) -> Result<(), Error> {
        let log_file = self.log_file.clone();
        let status = self.end(Signal::Terminate).await?;
        if status.success() { Ok(()) } else { Err(Error::Ended(status, tail(&log_file))) }
    }

    /// The last lines of its log.
    pub fn log(&self) -> String {
        tail(&self.log_file)
    }
}

fn tail(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

/// Finds a free port below the range of ephemeral ports. So neither a connection nor a listener on port 0 can take it
/// before the daemon binds it. Callers in one process never get the same port twice.
///
/// # Errors
/// No port is free.
pub fn free_port() -> io::Result<u16> {
    const PORTS: std::ops::Range<u32> = 10_240..32_768;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Processes with consecutive ids begin far from each other.
    let first = std::process::id().wrapping_mul(7_919);
    let mut refused = None;
    for _ in 0..PORTS.len() {
        let number = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = (PORTS.start + number % (PORTS.end - PORTS.start)) as u16;
        match std::net::TcpListener::bind(("127.0.0.1", port)) {
            Ok(_) => return Ok(port),
            Err(error) => refused = Some(error),
        }
    }
    Err(refused.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()))
}

fn configuration(endpoints: &Endpoints, directory: &Path, port: u16) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string(); // JSON strings are TOML strings
    let path = |name: &str| quoted(&directory.join(name).to_string_lossy());
    let checkpoints = match &endpoints.checkpoint_container_url {
        Some(url) => {
            format!("[blob]\ncontainer_url = {}\n[checkpoint]\nstore = \"blob\"\n", quoted(url))
        }
        None => format!("[checkpoint]\nstore = \"file\"\npath = {}\n", path("checkpoints")),
    };
    format!(
        "[eventhubs]\nnamespace = {}\nendpoint = {}\n\
         [eventhubs.lifecycle]\nhub = {}\n[eventhubs.twin_changes]\nhub = {}\n\
         [credential]\nkind = \"emulator\"\ntoken = {}\n\
         [cosmos]\nendpoint = {}\nkey = {}\ndatabase = {}\ncontainer = {}\n\
         {checkpoints}[dead_letters]\npath = {}\n\
         [http]\nlisten = \"127.0.0.1:{port}\"\n",
        quoted(&endpoints.namespace),
        quoted(&endpoints.eventhubs),
        quoted(&endpoints.lifecycle_hub),
        quoted(&endpoints.twin_changes_hub),
        quoted(&endpoints.token),
        quoted(&endpoints.cosmos),
        quoted(&endpoints.cosmos_key),
        quoted(&endpoints.database),
        quoted(&endpoints.container),
        path("dead-letters"),
    )
}
