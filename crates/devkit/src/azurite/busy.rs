//! Blob storage over its limits: every request is answered with the error of a service that asks for less.

use std::{io, net::SocketAddr};

use axum::{
    Router,
    body::Bytes,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The error of Blob Storage for an account or a partition of it that gets more requests than it may (its error codes,
/// `ServerBusy`).
const BODY: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>ServerBusy</Code><Message>The server is busy.</Message></Error>";

/// A service that does nothing but throttle. Put it behind a [`Proxy`](crate::proxy::Proxy) in the place of the real one.
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

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The body is taken first: a connection that is closed under an upload looks like another fault.
async fn refuse(_body: Bytes) -> Response {
    let headers = [(header::CONTENT_TYPE.as_str(), "application/xml"), ("x-ms-error-code", "ServerBusy")];
    (StatusCode::SERVICE_UNAVAILABLE, headers, BODY).into_response()
}
