//! Accepts connections and speaks HTTP/1.1 over them, within bounds.
//!
//! Whoever can reach an address may open connections and send nothing, or half a request. So headers have a time limit, and there is
//! room for so many connections only: where all of it is taken, the oldest idle one makes room for the newest. A new client always
//! gets through, and the process keeps its file descriptors for its work. A connection with a request under way that has shown its
//! right makes room for nobody ([`Connection::kept`]).

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

/// Wait after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Wait before one connection makes room for another: long enough to begin with a request, and short for a probe that stands in
/// line behind whatever fills the room.
const CROWDED_PAUSE: Duration = Duration::from_millis(1);

/// What a server has room and time for.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at the same time, beside those with a request under way that has shown its right.
    pub connections: usize,
    /// How long a client may take for the header of a request, and between two requests on one connection.
    pub idle: Duration,
    /// Bytes of a request's header at most.
    pub header_bytes: usize,
    /// How long requests that are under way may take once the server is asked to stop.
    pub closing: Duration,
}

/// Answers requests by `router` until `shutdown`, then lets those under way finish for a moment. `upgrade` makes what is spoken over of
/// what was accepted, such as TLS; `None` gives the connection up, and has told why.
///
/// Ends with `shutdown` only: a listener that fails is tried again.
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
                tracing::debug!(%error, "a connection to the HTTP server was given up");
            }
            number
        });
        connections.began(number, about, task);
    }
    // A client that does not read its answer must not hold up the exit.
    let finish = async { while tasks.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(room.closing, finish).await;
}
