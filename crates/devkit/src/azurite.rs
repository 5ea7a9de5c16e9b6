//! Azure Blob Storage: Microsoft's Azurite as a child process, on loopback and without telemetry.
//!
//! Stored data survives [`Azurite::stop`] and [`Azurite::restart`], as it survives an outage of the service. It is
//! deleted when the value is dropped. The child process ends whenever this process ends, because its standard input is
//! closed then.

mod authority;
mod busy;
mod sas;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, Command},
    sync::Mutex,
};

use crate::npm::{self, Package};

pub use busy::Busy;
pub use sas::{Permissions, Validity};

/// The files of `devkit/azurite`, without installed packages.
const PACKAGE: Package = Package {
    name: "azurite",
    purpose: "Azurite, the storage emulator,",
    files: &[".npmrc", "package-lock.json", "package.json", "run.cjs"],
};

/// Time limit for starting to listen, and for writing the data and ending.
const LIMIT: Duration = Duration::from_secs(30);

/// The text that Azurite prints before its address.
const LISTENING: &str = "successfully listens on ";

/// Why Azurite cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Azurite cannot be installed or started.
    #[error(transparent)]
    Npm(#[from] npm::Error),
    /// The directory for its data cannot be created.
    #[error("cannot create a directory for Azurite's data")]
    Data(#[source] std::io::Error),
    /// Azurite ended instead of listening.
    #[error("Azurite ended with {status} instead of listening on {address}: {stderr}")]
    Ended {
        /// Its exit status.
        status: ExitStatus,
        /// The address on which it should listen.
        address: SocketAddr,
        /// Its output on standard error.
        stderr: String,
    },
    /// Azurite did not do something within the time limit.
    #[error("Azurite did not {operation} within {limit} s", limit = LIMIT.as_secs())]
    TooLong {
        /// What it did not do.
        operation: &'static str,
    },
    /// An operation on the process failed.
    #[error("cannot {operation} Azurite")]
    System {
        /// The operation that failed.
        operation: &'static str,
        /// Reason given by the system.
        #[source]
        source: std::io::Error,
    },
}

/// How clients connect and authenticate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Plain http, with signatures.
    Signatures,
    /// https, where tokens of Entra ID are accepted as well. Azurite checks their contents, but not their signature. The
    /// certificate is issued by the authority of this run, see [`Azurite::authority`].
    Tokens,
}

/// A blob storage account. Dropping it kills the process and deletes the data.
#[derive(Debug)]
pub struct Azurite {
    script: PathBuf,
    address: SocketAddr,
    data: TempDir,
    certificates: Option<(TempDir, authority::Files)>,
    process: Mutex<Option<Child>>,
}

impl Azurite {
    /// Installs Azurite if necessary, starts it on `listen` (with port 0, the system chooses a free port), and waits
    /// until it listens.
    ///
    /// # Errors
    /// Node.js or npm are missing, the installation fails, or the address is in use.
    pub async fn start(listen: SocketAddr) -> Result<Self, Error> {
        Self::start_with(listen, Access::Signatures).await
    }

    /// Starts Azurite as [`Self::start`] does, with this kind of access.
    ///
    /// # Errors
    /// As for [`Self::start`], or no certificate can be made.
    pub async fn start_with(listen: SocketAddr, access: Access) -> Result<Self, Error> {
        let installed = PACKAGE.provision(&npm::default_directory()).await?;
        let data = tempfile::Builder::new().prefix("devkit-azurite-").tempdir().map_err(Error::Data)?;
        let script = installed.join("run.cjs");
        let certificates = match access {
            Access::Signatures => None,
            Access::Tokens => {
                let folder = tempfile::Builder::new().prefix("devkit-authority-").tempdir();
                let folder = folder.map_err(Error::Data)?;
                let files = authority::make(folder.path()).map_err(Error::Data)?;
                Some((folder, files))
            }
        };
        let files = certificates.as_ref().map(|(_, files)| files);
        let (process, address) = spawn(&script, listen, &data, files).await?;
        Ok(Self { script, address, data, certificates, process: Mutex::new(Some(process)) })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The account's URL, without a slash at the end: `http://host:port/account`, or the same with https.
    pub fn endpoint(&self) -> String {
        let scheme = if self.certificates.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/{}", self.address, sas::ACCOUNT)
    }

    /// The certificate that a client has to trust, if https is used. `SSL_CERT_FILE` may name it.
    pub fn authority(&self) -> Option<&Path> {
        self.certificates.as_ref().map(|(_, files)| files.authority.as_path())
    }

    /// A container's URL with a signature of the account. The signature allows everything, including the creation of the
    /// container.
    pub fn account_url(&self, container: &str, validity: Validity) -> String {
        format!("{}/{container}?{}", self.endpoint(), sas::account(validity))
    }

    /// A container's URL with a signature for its blobs only. It does not allow the creation of the container.
    pub fn container_url(&self, container: &str, permissions: Permissions, validity: Validity) -> String {
        format!("{}/{container}?{}", self.endpoint(), sas::container(container, permissions, validity))
    }

    /// Stops the service. Connections are refused from then on. Does nothing if it is stopped already.
    ///
    /// # Errors
    /// The process does not end.
    pub async fn stop(&self) -> Result<(), Error> {
        // A paused process could not end.
        self.resume().await?;
        let Some(mut process) = self.process.lock().await.take() else {
            return Ok(());
        };
        // The end of its standard input makes it write its data and end.
        drop(process.stdin.take());
        match tokio::time::timeout(LIMIT, process.wait()).await {
            Ok(ended) => ended.map(drop).map_err(|source| Error::System { operation: "wait for", source }),
            Err(_elapsed) => Err(Error::TooLong { operation: "stop" }),
        }
    }

    /// Starts the service again, on the same port and with the stored data. Stops it first if it is running.
    ///
    /// # Errors
    /// The process does not end, or cannot be started again.
    pub async fn restart(&self) -> Result<(), Error> {
        self.stop().await?;
        let files = self.certificates.as_ref().map(|(_, files)| files);
        let (process, _) = spawn(&self.script, self.address, &self.data, files).await?;
        *self.process.lock().await = Some(process);
        Ok(())
    }

    /// Pauses the process until [`Azurite::resume`]: connections stay open, and nothing is answered.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub async fn pause(&self) -> Result<(), Error> {
        self.signal("-STOP", "pause").await
    }

    /// Resumes a paused process.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub async fn resume(&self) -> Result<(), Error> {
        self.signal("-CONT", "resume").await
    }

    async fn signal(&self, signal: &str, operation: &'static str) -> Result<(), Error> {
        let Some(id) = self.process.lock().await.as_ref().and_then(Child::id) else {
            return Ok(());
        };
        let kill = Command::new("kill").arg(signal).arg(id.to_string()).status().await;
        kill.map(drop).map_err(|source| Error::System { operation, source })
    }
}

/// Starts the process and waits until it prints its address.
async fn spawn(
    script: &Path,
    listen: SocketAddr,
    data: &TempDir,
    certificates: Option<&authority::Files>,
) -> Result<(Child, SocketAddr), Error> {
    let mut command = Command::new("node");
    command.arg(script);
    if let Some(files) = certificates {
        command.args(["--oauth", "basic", "--cert"]).arg(&files.certificate).arg("--key").arg(&files.key);
    }
    let mut process = command
        .args(["--blobHost", &listen.ip().to_string(), "--blobPort", &listen.port().to_string()])
        .arg("--location")
        .arg(data.path())
        // The account's name is part of the path. API versions that are newer than Azurite are accepted.
        .args(["--disableProductStyleUrl", "--skipApiVersionCheck", "--disableTelemetry", "--silent"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| PACKAGE.not_started("node", source))?;
    let read = |source| Error::System { operation: "read the output of", source };
    let Some(stdout) = process.stdout.take() else {
        return Err(read(std::io::ErrorKind::BrokenPipe.into()));
    };
    let mut lines = BufReader::new(stdout).lines();
    let listening = async {
        while let Some(line) = lines.next_line().await.map_err(read)? {
            let url = line.split_once(LISTENING).map(|(_, url)| url.trim());
            let address = url.and_then(|url| url.split_once("://")).map(|(_, address)| address.parse());
            if let Some(Ok(address)) = address {
                return Ok(address);
            }
        }
        let mut stderr = String::new();
        if let Some(mut output) = process.stderr.take() {
            output.read_to_string(&mut stderr).await.map_err(read)?;
        }
        let status =
            process.wait().await.map_err(|source| Error::System { operation: "wait for", source })?;
        let stderr = stderr.split_whitespace().collect::<Vec<_>>().join(" ");
        Err(Error::Ended { status, address: listen, stderr })
    };
    let address = match tokio::time::timeout(LIMIT, listening).await {
        Ok(address) => address?,
        Err(_elapsed) => return Err(Error::TooLong { operation: "listen" }),
    };
    // The output must be read, otherwise the pipe fills up and blocks the process.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    if let Some(stderr) = process.stderr.take() {
        tokio::spawn(async move {
            let mut lines = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                tracing::warn!(line, "azurite wrote to standard error");
            }
        });
    }
    Ok((process, address))
}
