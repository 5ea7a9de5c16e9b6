//! Which path answers what.

use axum::{
    Json, Router, extract,
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;

use super::State;
use crate::{
    domain::health::Verdict,
    telemetry::{REVISION, VERSION},
};

/// What `/metrics` claims to be.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All routes.
pub fn router(state: State) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(state)
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
    // What an intermediary remembers is not health.
    (code, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

async fn livez(extract::State(state): extract::State<State>) -> Response {
    health(state.board.report().live, Vec::new(), "live", "stalled")
}

async fn readyz(extract::State(state): extract::State<State>) -> Response {
    let report = state.board.report();
    health(report.ready, report.warnings, "ready", "not ready")
}

async fn metrics(extract::State(state): extract::State<State>) -> Response {
    ([(header::CONTENT_TYPE, PROMETHEUS_TEXT)], state.metrics.render() + &state.board.render())
        .into_response()
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
    let error = format!("there is no {}: try /livez, /readyz, /metrics or /version", uri.path());
    (StatusCode::NOT_FOUND, Json(Refusal { error }))
}

async fn method_not_allowed() -> (StatusCode, Json<Refusal>) {
    let error = "only GET is answered here".to_owned();
    (StatusCode::METHOD_NOT_ALLOWED, Json(Refusal { error }))
}
