//! Facts about IoT Hub's read API.

use std::net::SocketAddr;

use crate::{
    domain::ticks::Ticks,
    telemetry::serving::{Renewed, ServeMetrics},
};

/// Somebody asked without a right to.
#[derive(Debug, Clone, Copy)]
pub struct RequestDenied<'a> {
    /// Why it was refused, as the label of the metric.
    pub reason: &'static str,
    /// The same in words.
    pub detail: &'a str,
    /// Whether something was shown that is not good; otherwise, nothing was shown, or nobody can tell.
    pub shown: bool,
    /// What the answer is called, so that its recipient can be told why.
    pub tracking_id: &'a str,
    /// Who asked, as far as the connection tells; behind a proxy that is the proxy.
    pub peer: Option<SocketAddr>,
}

impl RequestDenied<'_> {
    /// WARN for what is not good: somebody guesses, or has an old key. DEBUG for anything else.
    pub fn emit(&self, metrics: &ServeMetrics) {
        metrics.refused(self.reason);
        let peer = self.peer.map(|peer| peer.ip().to_string());
        let (reason, detail, tracking_id) = (self.reason, self.detail, self.tracking_id);
        match self.shown {
            false => tracing::debug!(reason, detail, peer, tracking_id, "a request was refused"),
            true => tracing::warn!(
                code = "REQUEST_DENIED",
                reason,
                detail,
                peer,
                tracking_id,
                "a request was refused: what it shows is not good; somebody guesses, or has an old key or token"
            ),
        }
    }
}

/// What one caller was given within a minute.
#[derive(Debug, Clone, Copy)]
pub struct CallerServed<'a> {
    /// The policy, or an id of Entra ID.
    pub caller: &'a str,
    /// What the caller is.
    pub kind: &'static str,
    /// Requests that were answered, in whatever way.
    pub requests: u64,
    /// Twins, and rows of queries.
    pub rows: u64,
    /// What it cost.
    pub request_units: f64,
    /// Requests that were told to wait.
    pub throttled: u64,
}

impl CallerServed<'_> {
    /// INFO, under a target of its own, so that these lines can be kept apart.
    pub fn emit(&self) {
        tracing::info!(
            target: "twinsync::audit",
            caller = self.caller,
            kind = self.kind,
            requests = self.requests,
            rows = self.rows,
            request_units = (self.request_units * 100.0).round() / 100.0,
            throttled = self.throttled,
            "twins were read"
        );
    }
}

/// The certificate's files have changed.
#[derive(Debug, Clone, Copy)]
pub enum CertificateChanged<'a> {
    /// New connections get the new one.
    Taken {
        /// When it ends.
        expires: Ticks,
    },
    /// What the files have cannot be used.
    Kept {
        /// Why, and what to do.
        reason: &'a str,
        /// When the present one ends.
        expires: Ticks,
    },
}

impl CertificateChanged<'_> {
    /// INFO and WARN.
    pub fn emit(&self, metrics: &ServeMetrics) {
        match self {
            Self::Taken { expires } => {
                tracing::info!(%expires, "the certificate has changed: new connections get the new one");
            }
            Self::Kept { reason, expires } => {
                metrics.renewal_failed(Renewed::Certificate);
                tracing::warn!(
                    code = "CERTIFICATE_NOT_RENEWED",
                    reason,
                    %expires,
                    "the certificate's files have changed and cannot be used: the present certificate stays"
                );
            }
        }
    }
}

/// The keys of Entra ID were fetched.
#[derive(Debug, Clone, Copy)]
pub struct KeysRenewed {
    /// How many there are.
    pub keys: usize,
    /// When.
    pub at: Ticks,
}

impl KeysRenewed {
    /// DEBUG: once an hour.
    pub fn emit(&self, metrics: &ServeMetrics) {
        metrics.keys_renewed(self.at);
        tracing::debug!(keys = self.keys, "the keys of Entra ID were fetched");
    }
}

/// A connection did not come to be.
#[derive(Debug, Clone, Copy)]
pub struct HandshakeFailed<'a> {
    /// Why.
    pub reason: &'a str,
    /// Who connected.
    pub peer: SocketAddr,
}

impl HandshakeFailed<'_> {
    /// DEBUG: whoever can reach the address can cause it.
    pub fn emit(&self, metrics: &ServeMetrics) {
        metrics.handshake_failed();
        tracing::debug!(reason = self.reason, peer = %self.peer.ip(), "TLS was not agreed on");
    }
}
