//! IoT Hub's service REST API, answered from the copy, read-only.
//!
//! ```text
//! connection ─► TLS ─► who asks (access) ─► for what (request) ─► may it spend (callers) ─┬─► a twin (twin) ─► runtime/twins
//!                          │ 401                │ 404, 405, 501        │ 429              └─► a page (query) ─► runtime/queries
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`access`] | shared access signatures and tokens of Entra ID, as the official clients send them |
//! | [`tls`] | certificates from files, which are checked for changes |
//! | [`Api`] | the handling of one request |
//! | `request`, `refusal` | the target of a request, from its first line; error answers, in the form of IoT Hub |
//! | `twin`, `query` | twins and rows as answers, with headers about their freshness |
//! | [`Callers`] | the limits of each caller, and the log line with its usage |
//! | [`Lag`] | the lag of the copy, as answers report it |
//!
//! This module writes nothing, and a query reaches only the twins of the configured container. An unauthorized client only learns that it
//! is unauthorized (401), whatever the path.

pub mod access;
mod api;
mod callers;
mod lag;
mod query;
mod refusal;
mod request;
pub mod tls;
mod twin;

#[cfg(test)]
mod tests;

use std::{error::Error as _, time::Duration};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::refusal::Refusal;
pub use self::{
    api::{Api, Parts},
    callers::Callers,
    lag::{Lag, MeasuredLag},
    tls::Tls,
};
use crate::{
    listener::{self, Limits},
    ports::{StoreError, StoreErrorKind},
    telemetry::{ServeMetrics, ServedOutcome, event::HandshakeFailed},
};

/// Clients keep connections open, some of them for minutes between two requests.
const LIMITS: Limits = Limits {
    connections: 512,
    idle: Duration::from_secs(75),
    header_bytes: 32 << 10,
    closing: Duration::from_secs(5),
};

/// Answers requests until `shutdown`, over TLS unless a proxy in front handles it.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    api: &Api,
    metrics: ServeMetrics,
    shutdown: CancellationToken,
) {
    let router = api.router();
    match tls {
        None => listener::serve(listener, LIMITS, router, |stream, _| async { Some(stream) }, shutdown).await,
        Some(tls) => {
            let upgrade = move |stream, peer| {
                let (tls, metrics) = (tls.clone(), metrics.clone());
                async move {
                    let accepted = tls.accept(stream).await;
                    let failed = |error: tls::HandshakeError| {
                        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
                        let reason = format!("{error}{cause}");
                        HandshakeFailed { reason: &reason, peer }.emit(&metrics);
                    };
                    accepted.map_err(failed).ok()
                }
            };
            listener::serve(listener, LIMITS, router, upgrade, shutdown).await;
        }
    }
}

/// The answer if the store gave no answer.
fn trouble(trouble: &StoreError) -> (Refusal, ServedOutcome) {
    let seconds = trouble.retry_after.map_or(1, |hint| hint.as_secs_f64().ceil() as u64);
    match trouble.kind {
        StoreErrorKind::Throttled => {
            let message =
                "the document store throttles, or the limit on request units is used up: try again later";
            (Refusal::throttled(seconds, message), ServedOutcome::Throttled)
        }
        StoreErrorKind::Unavailable | StoreErrorKind::Contradictory | StoreErrorKind::Newer => {
            let message =
                format!("the document store gives no usable answer ({}): try again later", trouble.code);
            (Refusal::unavailable(seconds, message), ServedOutcome::Unavailable)
        }
    }
}
