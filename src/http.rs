//! The status page, health and metrics over HTTP, for people, probes and scrapers.
//!
//! | path | answers |
//! |---|---|
//! | `/` | the status page; `/page.css` and `/page.js` belong to it |
//! | `/api/status` | what it shows, as JSON: [`crate::status::schema`] |
//! | `/api/counts` | the declared counts, as JSON: a row of a count is that of its query |
//! | `/api/events` | the same again and again, as server-sent events |
//! | `/errors/CODE` | the page about a code that a line carries |
//! | `/livez` | 200 while the loops turn, else 503 with reasons |
//! | `/readyz` | 200 while there is work and it is done, else 503 with reasons |
//! | `/metrics` | Prometheus' text format |
//! | `/version` | version and revision of the build |
//! | `/api/twins/…` | single twins, as JSON, for whoever shows `http.token` |
//! | `/twins/…` | the page that asks for the token and shows them; `/twin.css` and `/twin.js` belong to it |
//!
//! Everything else is 404, as JSON; only GET and HEAD are answered. Nothing here changes anything, and nothing but twins asks
//! who is calling. On a loopback address, only requests to `localhost` or an IP address are answered: a page in a browser on the same
//! machine could otherwise reach it under a name of its own.

mod bearer_auth;
mod events;
mod page;
mod routes;
mod twins;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

pub use self::{bearer_auth::BearerAuth, routes::router};
use crate::{
    listener::{self, Limits},
    runtime::twins::Twins,
    status::Observer,
    telemetry::{HealthState, Metrics},
};

/// More connections than any set of probes and scrapers has, and enough for as many waiters to come at once as may wait.
const CONNECTIONS: usize = 64;

/// How long a client may be idle is `http.idle_timeout`.
const fn limits(idle: Duration) -> Limits {
    Limits { connections: CONNECTIONS, idle, header_bytes: 16 << 10, closing: Duration::from_secs(2) }
}

/// The key of the address.
const KEY: &str = "http.listen";

/// What the endpoints show.
#[derive(Debug, Clone)]
pub struct State {
    /// Health.
    pub health: HealthState,
    /// Metrics.
    pub metrics: Metrics,
    /// Status.
    pub observer: Observer,
    /// Who may read twins.
    pub bearer_auth: BearerAuth,
    /// Twins.
    pub twins: Twins,
}

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for {key}: {hint} ({})", Self::CODE)]
pub struct Error {
    /// The address.
    pub address: SocketAddr,
    /// The key that has it.
    pub key: &'static str,
    hint: &'static str,
    /// What the operating system said.
    #[source]
    pub source: io::Error,
}

impl Error {
    /// Stable code; `docs/errors/HTTP_ADDRESS_UNUSABLE.md` explains it.
    pub const CODE: &'static str = "HTTP_ADDRESS_UNUSABLE";

    fn new(key: &'static str, address: SocketAddr, source: io::Error) -> Self {
        let hint = match source.kind() {
            io::ErrorKind::AddrInUse => "another process uses it; stop that process or choose another port",
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 need more rights (root, or the capability CAP_NET_BIND_SERVICE); choose another port"
            }
            io::ErrorKind::AddrNotAvailable => {
                "this machine does not have that address; use 127.0.0.1 or 0.0.0.0"
            }
            _ => "choose another address",
        };
        Self { address, key, hint, source }
    }
}

/// Where a server on this machine that listens on `address` is reached: what listens on all addresses, at the machine's own.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    SocketAddr::new(ip, address.port())
}

/// Whether the address could be taken. It is not: it is bound for a moment without listening, which keeps nobody from it.
///
/// # Errors
/// As [`bind`].
pub fn try_bind(address: SocketAddr) -> Result<(), Error> {
    try_bind_for(KEY, address)
}

/// The same for the address of another key.
///
/// # Errors
/// The same.
pub fn try_bind_for(key: &'static str, address: SocketAddr) -> Result<(), Error> {
    let bind = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)
    };
    bind().map_err(|source| Error::new(key, address, source))
}

/// Takes the address, before anything else starts that would be in vain without it.
///
/// # Errors
/// The address is in use, not ours, or needs more rights.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    bind_for(KEY, address).await
}

/// The same for the address of another key.
///
/// # Errors
/// The same.
pub async fn bind_for(key: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::new(key, address, source))
}

/// Answers requests until `shutdown`, then lets those under way finish for a moment. `idle` is how long a client may take for the
/// header of a request, and between two requests on one connection.
///
/// Requests for twins take no room among the connections while they are under way ([`listener`]): they have shown a token, and have
/// limits of their own ([`crate::runtime::twins`]).
///
/// # Errors
/// None at present: a listener that fails is tried again.
pub async fn serve(
    listener: TcpListener,
    state: State,
    idle: Duration,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let only_local_names = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    let router = router(state, only_local_names, shutdown.clone());
    listener::serve(listener, limits(idle), router, |stream, _| async { Some(stream) }, shutdown).await;
    Ok(())
}

#[cfg(test)]
mod tests;
