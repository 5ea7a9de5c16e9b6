//! Facts about requests for twins.

use std::net::SocketAddr;

use crate::telemetry::{label::Unauthorized, metrics::Metrics};

/// Somebody asked for a twin without a right to.
#[derive(Debug, Clone, Copy)]
pub struct TwinReadRefused {
    /// Why it was refused.
    pub reason: Unauthorized,
    /// Who asked, as far as the connection tells; behind a proxy that is the proxy.
    pub peer: Option<SocketAddr>,
}

impl TwinReadRefused {
    /// WARN for a wrong token: somebody guesses, or has an old one. DEBUG without one.
    pub fn emit(&self, metrics: &Metrics) {
        metrics.twin_read_unauthorized(self.reason);
        let (reason, peer) = (self.reason.label(), self.peer.map(|peer| peer.ip().to_string()));
        match self.reason {
            Unauthorized::NoToken => tracing::debug!(reason, peer, "a request for a twin was refused"),
            Unauthorized::WrongToken => tracing::warn!(
                code = "TOKEN_WRONG",
                reason,
                peer,
                "a request for a twin was refused: its token is not that of http.token; somebody guesses, or has an old one"
            ),
        }
    }
}
