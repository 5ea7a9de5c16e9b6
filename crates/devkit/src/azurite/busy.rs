//! Blob storage that is over its limits: every request is answered with 503 `ServerBusy`.

use std::{io, net::SocketAddr};

use axum::{
    Router,
    body::Bytes,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The error of Blob Storage for too many requests to an account or one of its partitions (its error codes,
/// `ServerBusy`).
const BODY: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>ServerBusy</Code><Message>The server is busy.</Message></Error>";

/// A service that throttles every request. A [`Proxy`](crate::proxy::Proxy) can forward to it instead of to the real
/// service.
#[derive(Debug)]
pub struct Busy {
    address: SocketAddr,
    _stop: DropGuard,
}

impl Busy {
    /// Listens on a free port.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let (address, stop) = (listener.local_addr()?, CancellationToken::new());
        let served = axum::serve(listener, Router::new().fallback(refuse)).into_future();
        tokio::spawn(stop.clone().run_until_cancelled_owned(served));
        Ok(Self { address, _stop: stop.drop_guard() })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Reads the body first: if the connection were closed during an upload, the client would see another error.
async fn refuse(_body: Bytes) -> Response {
    let headers = [(header::CONTENT_TYPE.as_str(), "application/xml"), ("x-ms-error-code", "ServerBusy")];
    (StatusCode::SERVICE_UNAVAILABLE, headers, BODY).into_response()
}
