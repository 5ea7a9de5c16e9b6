//! The routes of the HTTP server.

use std::net::IpAddr;

use axum::{
    Json, Router, extract,
    http::{HeaderValue, StatusCode, Uri, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{State, events, page, twins};
use crate::{
    domain::readiness::Verdict,
    status::schema::{Counts, Status},
    telemetry::{self, REVISION, VERSION},
};

/// Content type of `/metrics`.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The page may use its own script, style and data, and nothing from other hosts.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                                       img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// All routes. `only_local_names`: requests for host names other than `localhost` are refused. Streams end with `shutdown`.
pub fn router(state: State, only_local_names: bool, shutdown: CancellationToken) -> Router {
    let streams = events::Streams::default();
    let routes = Router::new()
        .route("/", get(page::page))
        .route("/page.css", get(page::style))
        .route("/page.js", get(page::script))
        .route("/twins", get(page::twin))
        .route("/twins/{device}", get(page::twin))
        .route("/twins/{device}/modules/{module}", get(page::twin))
        .route("/twin.css", get(page::twin_style))
        .route("/twin.js", get(page::twin_script))
        .route("/errors/{code}", get(page::error))
        .route("/api/status", get(status))
        .route("/api/counts", get(counts))
        .route(
            "/api/events",
            get(async move |extract::State(state)| events::events(state, &streams, shutdown)),
        )
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .merge(twins::routes(state.clone()))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(state)
        .layer(middleware::map_response(with_security_headers));
    match only_local_names {
        true => routes.layer(middleware::from_fn(refuse_foreign_names)),
        false => routes,
    }
}

/// No answer may be shown inside another page, have its content type guessed, or be cached.
async fn with_security_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn refuse_foreign_names(request: extract::Request, next: middleware::Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if host.is_some_and(is_local_name) {
        return next.run(request).await;
    }
    let error = "this address answers requests to localhost or an IP address only; to use a host name, set \
                 http.listen to another address";
    (StatusCode::MISDIRECTED_REQUEST, Json(Refusal { error: error.to_owned() })).into_response()
}

/// Whether a `Host` header names this machine, by a name that nobody else can point at it.
fn is_local_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    reasons: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

fn health(verdict: Verdict, warnings: Vec<String>, yes: &'static str, no: &'static str) -> Response {
    let (code, status) = match verdict.is_yes() {
        true => (StatusCode::OK, yes),
        false => (StatusCode::SERVICE_UNAVAILABLE, no),
    };
    let body = Health { status, reasons: verdict.reasons, warnings };
    (code, Json(body)).into_response()
}

async fn livez(extract::State(state): extract::State<State>) -> Response {
    health(state.health.report().live, Vec::new(), "live", "stalled")
}

async fn readyz(extract::State(state): extract::State<State>) -> Response {
    let report = state.health.report();
    health(report.ready, report.warnings, "ready", "not ready")
}

async fn metrics(extract::State(state): extract::State<State>) -> Response {
    let text = telemetry::exposition(&state.metrics, &state.health);
    ([(header::CONTENT_TYPE, PROMETHEUS_TEXT)], text).into_response()
}

async fn status(extract::State(state): extract::State<State>) -> Json<Status> {
    Json(state.observer.status())
}

async fn counts(extract::State(state): extract::State<State>) -> Json<Counts> {
    Json(Counts::of(state.health.counts()))
}

#[derive(Serialize)]
struct Version {
    name: &'static str,
    version: &'static str,
    revision: &'static str,
}

async fn version() -> Json<Version> {
    Json(Version { name: env!("CARGO_PKG_NAME"), version: VERSION, revision: REVISION })
}

#[derive(Serialize)]
struct Refusal {
    error: String,
}

async fn not_found(uri: Uri) -> (StatusCode, Json<Refusal>) {
    let error = format!(
        "there is no {}: try /, /api/status, /api/counts, /livez, /readyz, /metrics or /version",
        uri.path()
    );
    (StatusCode::NOT_FOUND, Json(Refusal { error }))
}

async fn method_not_allowed() -> (StatusCode, Json<Refusal>) {
    let error = "only GET is answered here".to_owned();
    (StatusCode::METHOD_NOT_ALLOWED, Json(Refusal { error }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machines_own_names_are_local() {
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1",
            "127.0.0.1:8080",
            "[::1]:8080",
            "[::1]",
            "10.0.0.7:80",
        ] {
            assert!(is_local_name(host), "{host}");
        }
        for host in
            ["", "evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example:80"]
        {
            assert!(!is_local_name(host), "{host}");
        }
    }
}
