//! TLS with a certificate and a key from files, which may change while connections are open.
//!
//! [`Tls::load`] reads the files and fails if they cannot be used. That happens at the start, when a person is watching. From then on,
//! [`Rotation`] checks the files, and keeps the present certificate if they cannot be used.
//!
//! Connections keep the certificate with which they began. TLS 1.2 and 1.3 are supported, and ALPN offers HTTP/1.1.

mod pair;
mod rotation;
#[cfg(test)]
mod tests;
mod validity;

use std::{io, sync::Arc, time::Duration};

use rustls::{ServerConfig, crypto::aws_lc_rs, version};
use time::OffsetDateTime;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use self::{
    pair::Contents,
    rotation::{Current, Seen},
};
pub use self::{
    pair::{Files, PairError},
    rotation::{CertificateEvent, PERIOD, Rotation},
};

/// Time limit of a handshake. It takes two round trips and some milliseconds of work.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The files cannot be used.
    #[error(transparent)]
    Pair(#[from] PairError),
    /// rustls does not accept its own defaults.
    #[error("cannot set up TLS")]
    Setup(#[source] rustls::Error),
}

/// Why a connection could not be established.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The client did not finish in time.
    #[error("the handshake took longer than {} s", .0.as_secs())]
    TimedOut(Duration),
    /// Client and server did not agree, or the client disconnected.
    #[error("the handshake failed")]
    Failed(#[source] io::Error),
}

/// Accepts connections over TLS. Clones share one certificate.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    current: Arc<Current>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("current", &self.current).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files. Returns the acceptor, and the [`Rotation`] that checks the files from now on. The caller must run it.
    ///
    /// # Errors
    /// The files cannot be used.
    pub async fn load(files: Files) -> Result<(Self, Rotation), TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let contents = Contents::read(&files).await?;
        let current = Arc::new(Current::new(contents.pair(&files, &provider)?));
        let config = config(&provider, &current).map_err(TlsError::Setup)?;
        let seen = Seen::Contents(contents.fingerprint());
        let tls = Self { acceptor: TlsAcceptor::from(Arc::new(config)), current: Arc::clone(&current) };
        Ok((tls, Rotation { files, provider, current, seen }))
    }

    /// Performs the handshake on `stream`.
    ///
    /// **Cancellation** drops the stream.
    ///
    /// # Errors
    /// The handshake failed, or took too long.
    pub async fn accept<S>(&self, stream: S) -> Result<TlsStream<S>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let found = timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(stream)).await;
        found.map_err(|_| HandshakeError::TimedOut(HANDSHAKE_TIMEOUT))?.map_err(HandshakeError::Failed)
    }

    /// When the certificate in use ends, for a gauge.
    pub fn expires_at(&self) -> OffsetDateTime {
        self.current.get().expires_at
    }

    /// The host names and addresses in the certificate in use.
    pub fn names(&self) -> Vec<String> {
        self.current.get().names.clone()
    }
}

fn config(
    provider: &Arc<rustls::crypto::CryptoProvider>,
    current: &Arc<Current>,
) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider));
    let builder = builder.with_protocol_versions(&[&version::TLS13, &version::TLS12])?;
    let resolver: Arc<Current> = Arc::clone(current);
    let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
