//! TLS by a certificate and a key in files, which may change while connections go on.
//!
//! [`Tls::load`] reads the files and fails where they cannot be used: that is at the start, where somebody looks. From then
//! on [`Rotation`] looks at them, and keeps what there is where they cannot be used.
//!
//! Connections keep the certificate that they began with. TLS 1.2 and 1.3 are spoken, and HTTP/1.1 is what ALPN offers.

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

/// How long a handshake may take. It takes two round trips and some milliseconds of work.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The files cannot be used.
    #[error(transparent)]
    Pair(#[from] PairError),
    /// rustls does not take its own defaults.
    #[error("cannot set up TLS")]
    Setup(#[source] rustls::Error),
}

/// A connection that did not come to be.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The client did not finish.
    #[error("the handshake took longer than {} s", .0.as_secs())]
    TimedOut(Duration),
    /// The two did not agree, or the client went away.
    #[error("the handshake failed")]
    Failed(#[source] io::Error),
}

/// Accepts connections over TLS. A clone is the same one.
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
    /// Reads the files, and gives what looks at them from now on: somebody has to run it.
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

    /// Makes a connection of `stream`.
    ///
    /// **Cancellation** drops the stream.
    ///
    /// # Errors
    /// There is none.
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

    /// The names and addresses of hosts that the certificate in use is for.
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
