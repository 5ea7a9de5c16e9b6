//! Health, metrics and version over HTTP, for probes and scrapers.
//!
//! | path | answers |
//! |---|---|
//! | `/livez` | 200 while the loops turn, else 503 with reasons |
//! | `/readyz` | 200 while there is work and it is done, else 503 with reasons |
//! | `/metrics` | Prometheus' text format |
//! | `/version` | version and revision of the build |
//!
//! Everything else is 404, as JSON. Nothing here changes anything and nothing asks who is calling.

mod routes;

use std::{future::IntoFuture as _, io, net::SocketAddr, time::Duration};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use self::routes::router;
use crate::telemetry::{Board, Metrics};

/// How long requests that are under way may take once the server is asked to stop.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the endpoints show.
#[derive(Debug, Clone)]
pub struct State {
    /// Health.
    pub board: Board,
    /// Metrics.
    pub metrics: Metrics,
}

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for http.listen: {hint} ({})", Self::CODE)]
pub struct Error {
    /// The address.
    pub address: SocketAddr,
    hint: &'static str,
    /// What the operating system said.
    #[source]
    pub source: io::Error,
}

impl Error {
    /// Stable code; `docs/errors/HTTP_ADDRESS_UNUSABLE.md` explains it.
    pub const CODE: &'static str = "HTTP_ADDRESS_UNUSABLE";
}

/// Takes the address, before anything else starts that would be in vain without it.
///
/// # Errors
/// The address is in use, not ours, or needs more rights.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error {
        address,
        hint: match source.kind() {
            io::ErrorKind::AddrInUse => "another process has it; stop that or choose another port",
            io::ErrorKind::PermissionDenied => "ports below 1024 need more rights; choose another port",
            io::ErrorKind::AddrNotAvailable => {
                "this machine does not have that address; use 127.0.0.1 or 0.0.0.0"
            }
            _ => "choose another address, or \"off\"",
        },
        source,
    })
}

/// Answers requests until `shutdown`, then lets those under way finish for a moment.
///
/// # Errors
/// The listener failed.
pub async fn serve(listener: TcpListener, state: State, shutdown: CancellationToken) -> io::Result<()> {
    let graceful = shutdown.clone();
    let server = axum::serve(listener, router(state))
        .with_graceful_shutdown(async move { graceful.cancelled().await })
        .into_future();
    let overdue = async {
        shutdown.cancelled().await;
        tokio::time::sleep(CLOSE_TIMEOUT).await;
    };
    tokio::select! {
        biased;
        result = server => result,
        () = overdue => Ok(()), // a client that does not read its answer must not hold up the exit
    }
}

#[cfg(test)]
mod tests;
