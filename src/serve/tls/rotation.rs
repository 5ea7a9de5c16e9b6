//! Replaces the certificate when its files change.

use std::{
    convert::Infallible,
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use rustls::{
    crypto::CryptoProvider,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use time::OffsetDateTime;
use tokio::time::sleep;

use super::pair::{Contents, Files, Fingerprint, Pair, PairError};

/// How often the files are checked. Kubernetes itself takes up to a minute or two to bring a changed secret to a pod.
pub const PERIOD: Duration = Duration::from_secs(10);

/// What happened to the certificate, for logs and metrics.
#[derive(Debug)]
pub enum CertificateEvent {
    /// New connections use the new certificate.
    Changed {
        /// When the new certificate ends.
        expires_at: OffsetDateTime,
    },
    /// The files have changed, but cannot be used. The old certificate stays in use.
    Kept {
        /// The reason.
        error: PairError,
        /// When the old certificate ends.
        expires_at: OffsetDateTime,
    },
}

/// The certificate in use. Each handshake uses the one at its time.
pub(super) struct Current(RwLock<Pair>);

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Current").field(&self.get()).finish()
    }
}

impl Current {
    pub(super) fn new(pair: Pair) -> Self {
        Self(RwLock::new(pair))
    }

    /// Under this lock there is only a clone and an assignment.
    pub(super) fn get(&self) -> Pair {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, pair: Pair) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = pair;
    }
}

impl ResolvesServerCert for Current {
    /// The host name that a client requests is ignored: there is one certificate. A client that does not find its name in it gives a better
    /// error message than this server could.
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get().certified)
    }
}

/// Checks the files for changes.
#[derive(Debug)]
pub struct Rotation {
    pub(super) files: Files,
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) current: Arc<Current>,
    /// The last contents that were found, valid or not.
    pub(super) seen: Seen,
}

/// The state of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    Contents(Fingerprint),
    /// The files could not be read.
    Nothing,
}

impl Rotation {
    /// Checks the files every `period` and passes each change to `report`, until it is dropped.
    pub async fn run(mut self, period: Duration, mut report: impl FnMut(CertificateEvent)) -> Infallible {
        loop {
            sleep(period).await;
            if let Some(event) = self.check().await {
                report(event);
            }
        }
    }

    /// Checks the files once. `None`: they have not changed. So each change is reported once, and so is each error.
    ///
    /// The contents are compared, not the times: files are small, and a program that copies them may set the time back.
    ///
    /// **Cancellation** is safe at any point.
    pub async fn check(&mut self) -> Option<CertificateEvent> {
        let contents = Contents::read(&self.files).await;
        let seen = contents.as_ref().map_or(Seen::Nothing, |contents| Seen::Contents(contents.fingerprint()));
        if std::mem::replace(&mut self.seen, seen) == seen {
            return None;
        }
        let pair = contents.and_then(|contents| contents.pair(&self.files, &self.provider));
        Some(match pair {
            Ok(pair) => {
                let expires_at = pair.expires_at;
                self.current.set(pair);
                CertificateEvent::Changed { expires_at }
            }
            Err(error) => CertificateEvent::Kept { error, expires_at: self.current.get().expires_at },
        })
    }
}
