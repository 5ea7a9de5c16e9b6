//! Facts about requests for twins.

use std::net::SocketAddr;

use crate::telemetry::{label::Unauthorized, metrics::Metrics};

/// A request for a twin was refused for lack of permission.
#[derive(Debug, Clone, Copy)]
pub struct TwinReadRefused {
    /// Why it was refused.
    pub reason: Unauthorized,
    /// Address of the client, from the connection. Behind a proxy, this is the proxy.
    pub peer: Option<SocketAddr>,
}

impl TwinReadRefused {
    /// Logs at WARN for a wrong token: the client guesses, or has an old one. At DEBUG without a token.
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
