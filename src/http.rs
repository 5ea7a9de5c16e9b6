//! The status page, health and metrics over HTTP, for people, probes and scrapers.
//!
//! | path | answers |
//! |---|---|
//! | `/` | the status page; `/page.css` and `/page.js` belong to it |
//! | `/api/status` | what it shows, as JSON: [`crate::status::schema`] |
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

mod connection;
mod door;
mod events;
mod page;
mod routes;
mod twins;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use self::connection::Connections;
pub use self::{door::Door, routes::router};
use crate::{
    runtime::twins::Twins,
    status::Observer,
    telemetry::{Board, Metrics},
};

/// How long a client may take for the header of a request, and between two requests on one connection.
const HEADER_LIMIT: Duration = Duration::from_secs(5);
/// Bytes of a request's header at most.
const MOST_HEADER_BYTES: usize = 16 << 10;
/// Connections at the same time, beside those with a request for a twin under way: more than any set of probes and scrapers
/// has, and enough for as many waiters to come at once as may wait.
const MOST_CONNECTIONS: usize = 64;
/// Wait after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Wait before one connection makes room for another: long enough to begin with a request, and short for a probe that stands in
/// line behind whatever fills the room.
const CROWDED_PAUSE: Duration = Duration::from_millis(1);

/// How long requests that are under way may take once the server is asked to stop.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the endpoints show.
#[derive(Debug, Clone)]
pub struct State {
    /// Health.
    pub board: Board,
    /// Metrics.
    pub metrics: Metrics,
    /// Status.
    pub observer: Observer,
    /// Who may read twins.
    pub door: Door,
    /// Twins.
    pub twins: Twins,
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

    fn new(address: SocketAddr, source: io::Error) -> Self {
        let hint = match source.kind() {
            io::ErrorKind::AddrInUse => "another process has it; stop that or choose another port",
            io::ErrorKind::PermissionDenied => "ports below 1024 need more rights; choose another port",
            io::ErrorKind::AddrNotAvailable => {
                "this machine does not have that address; use 127.0.0.1 or 0.0.0.0"
            }
            _ => "choose another address, or \"off\"",
        };
        Self { address, hint, source }
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
    let bind = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)
    };
    bind().map_err(|source| Error::new(address, source))
}

/// Takes the address, before anything else starts that would be in vain without it.
///
/// # Errors
/// The address is in use, not ours, or needs more rights.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::new(address, source))
}

/// Answers requests until `shutdown`, then lets those under way finish for a moment.
///
/// Whoever can reach the address may open connections and send nothing, or half a request. So headers have a time limit, and
/// there is room for a few connections only: where all of it is taken, the oldest one makes room for the newest, so that a
/// probe always gets through and the process keeps its file descriptors for its work. Requests for twins take none of that
/// room while they are under way, and make none: they have shown a token, and have limits of their own ([`crate::runtime::twins`]).
///
/// # Errors
/// None at present: a listener that fails is tried again.
pub async fn serve(listener: TcpListener, state: State, shutdown: CancellationToken) -> io::Result<()> {
    let only_local_names = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
    let service = TowerToHyperService::new(router(state, only_local_names, shutdown.clone()));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_LIMIT).max_buf_size(MOST_HEADER_BYTES);
    let mut connections = Connections::new(MOST_CONNECTIONS);
    let mut tasks = JoinSet::new();
    loop {
        let (stream, peer) = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                if let Ok(ended) = ended {
                    connections.ended(ended);
                }
                continue;
            }
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // No file descriptors, or a client that is gone already: neither lasts.
                    tracing::debug!(%error, "a connection to the HTTP server was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        if connections.is_full() {
            // Many may come at once, and those that have just been accepted have not shown yet what they want.
            tokio::time::sleep(CROWDED_PAUSE).await;
            while let Some(ended) = tasks.try_join_next() {
                ended.into_iter().for_each(|ended| connections.ended(ended));
            }
            connections.make_room();
        }
        let (number, about) = connections.next(peer);
        let connection = http.serve_connection(TokioIo::new(stream), about.attached_to(service.clone()));
        let closing = shutdown.clone();
        let task = tasks.spawn(async move {
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                biased;
                ended = connection.as_mut() => ended,
                () = closing.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection to the HTTP server was given up");
            }
            number
        });
        connections.began(number, about, task);
    }
    // A client that does not read its answer must not hold up the exit.
    let finish = async { while tasks.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, finish).await;
    Ok(())
}

#[cfg(test)]
mod tests;
