//! Facts about IoT Hub's read API.

use std::net::SocketAddr;

use crate::{
    domain::ticks::Ticks,
    telemetry::serving::{Renewed, ServeMetrics},
};

facts! {
    /// Usage of one caller within a minute.
    CallerServed<'a> {
        /// The policy, or an id of Entra ID.
        caller: &'a str,
        /// The kind of caller.
        kind: &'static str,
        /// Number of requests that were answered, with any outcome.
        requests: u64,
        /// Number of twins and of query rows.
        rows: u64,
        /// Cost in request units.
        request_units: f64,
        /// Number of requests that were throttled.
        throttled: u64,
    }
    /// Logs at INFO, under a separate target, so that these lines can be filtered.
    tracing::info!(
        target: "twinsync::audit", caller, kind, requests, rows, request_units = (request_units * 100.0).round() / 100.0, throttled,
        "twins were read"
    );

    /// The keys of Entra ID were fetched.
    KeysRenewed {
        /// How many there are.
        keys: usize,
        /// When they were fetched.
        at: Ticks,
    }
    counts(metrics: &ServeMetrics) { metrics.keys_renewed(at); }
    /// DEBUG: once an hour.
    tracing::debug!(keys, "the keys of Entra ID were fetched");

    /// A TLS handshake failed.
    HandshakeFailed<'a> {
        /// Why.
        reason: &'a str,
        /// Address of the client.
        peer: SocketAddr,
    }
    counts(metrics: &ServeMetrics) { metrics.handshake_failed(); }
    /// Logs at DEBUG: any client that can reach the address can cause it.
    tracing::debug!(reason, peer = %peer.ip(), "the TLS handshake failed");
}

/// A request was refused for lack of permission.
#[derive(Debug, Clone, Copy)]
pub struct RequestDenied<'a> {
    /// Why it was refused, as the label of the metric.
    pub reason: &'static str,
    /// The reason in words.
    pub detail: &'a str,
    /// Whether the request had invalid credentials. Otherwise it had none, or this is unknown.
    pub shown: bool,
    /// Id of the answer, so that its recipient can be told the reason.
    pub tracking_id: &'a str,
    /// Address of the client, from the connection. Behind a proxy, this is the proxy.
    pub peer: Option<SocketAddr>,
}

impl RequestDenied<'_> {
    /// Logs at WARN for invalid credentials: the client guesses, or has an old key. Otherwise at DEBUG.
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
                "a request was refused: its signature or token is not valid; somebody guesses, or has an old key or token"
            ),
        }
    }
}

/// The files of the certificate have changed.
#[derive(Debug, Clone, Copy)]
pub enum CertificateChanged<'a> {
    /// New connections use the new certificate.
    Taken {
        /// When it ends.
        expires: Ticks,
    },
    /// The new files cannot be used.
    Kept {
        /// Why, and what to do.
        reason: &'a str,
        /// When the present certificate ends.
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
