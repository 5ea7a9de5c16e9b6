//! Accepts connections and serves HTTP/1.1 over them, within limits.
//!
//! Any client that can reach an address may open connections and send nothing, or half a request. So headers have a time limit, and the
//! number of connections is limited. If all places are taken, the oldest idle connection is closed in favour of the newest one. So a new
//! client always gets through, and the process keeps its file descriptors for its work. A connection with an authorized request in progress
//! is never closed in this way ([`Connection::kept`]).

mod connection;

use std::{net::SocketAddr, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

pub use self::connection::Connection;
use self::connection::Connections;

/// Wait after a failure to accept a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Wait before one connection is closed in favour of another: long enough for a client to begin a request, and short for a probe that
/// queues behind many new connections.
const CROWDED_PAUSE: Duration = Duration::from_millis(1);

/// Limits of a server.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum number of connections at the same time, not counting those with an authorized request in progress.
    pub connections: usize,
    /// Time limit for the header of a request, and for the pause between two requests on one connection.
    pub idle: Duration,
    /// Maximum size of a request's header, in bytes.
    pub header_bytes: usize,
    /// Time limit for open requests after the server is asked to stop.
    pub closing: Duration,
}

/// Answers requests with `router` until `shutdown`, and then lets open requests finish within a limit. `upgrade` turns an accepted
/// connection into the stream to use, such as TLS. `None` means that it gave the connection up and has already reported why.
///
/// Ends only with `shutdown`: a listener that fails is tried again.
pub async fn serve<T, F>(
    listener: TcpListener,
    room: Limits,
    router: Router,
    upgrade: impl Fn(TcpStream, SocketAddr) -> F,
    shutdown: CancellationToken,
) where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Option<T>> + Send + 'static,
{
    let service = TowerToHyperService::new(router);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(room.idle).max_buf_size(room.header_bytes);
    let mut connections = Connections::new(room.connections);
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
                    // No file descriptors, or a client that is already gone: both are temporary.
                    tracing::debug!(%error, "a connection to the HTTP server was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        if connections.is_full() {
            // Many connections may come at once, and the newest have not sent a request yet.
            tokio::time::sleep(CROWDED_PAUSE).await;
            while let Some(ended) = tasks.try_join_next() {
                ended.into_iter().for_each(|ended| connections.ended(ended));
            }
            connections.make_room();
        }
        let (number, about) = connections.next(peer);
        let (http, service, closing) = (http.clone(), about.attached_to(service.clone()), shutdown.clone());
        let upgraded = upgrade(stream, peer);
        let task = tasks.spawn(async move {
            let stream = tokio::select! {
                biased;
                () = closing.cancelled() => None,
                stream = upgraded => stream,
            };
            let Some(stream) = stream else { return number };
            let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
            let ended = tokio::select! {
                biased;
                ended = connection.as_mut() => ended,
                () = closing.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection to the HTTP server failed");
            }
            number
        });
        connections.began(number, about, task);
    }
    // A client that does not read its answer must not delay the exit.
    let finish = async { while tasks.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(room.closing, finish).await;
}
