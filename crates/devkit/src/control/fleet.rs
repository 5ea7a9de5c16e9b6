//! Fleets over the control port.

use std::sync::Arc;

use axum::{Json, body::Bytes, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    answer::{Problem, read as read_body},
    which::Which,
};
use crate::{
    fleet::{Pace, Plan, Progress, Rounds},
    parts::Parts,
};

/// A plan, and its rate in events per second. `None`: as fast as possible.
#[derive(Deserialize, Serialize)]
struct Request {
    #[serde(flatten)]
    plan: Map<String, Value>,
    #[serde(default)]
    rate: Option<f64>,
}

pub(super) async fn start(Which(hub): Which, body: Bytes) -> Result<(StatusCode, Json<Progress>), Problem> {
    let request: Request = read_body(&body)?;
    let plan: Plan = serde_json::from_value(Value::Object(request.plan))
        .map_err(|error| Problem::bad_request(format!("the plan is not as expected: {error}")))?;
    hub.fleet().start(plan, request.rate.map_or(Pace::Backlog, Pace::Rate))?;
    Ok((StatusCode::ACCEPTED, Json(hub.fleet().progress())))
}

pub(super) async fn start_rounds(
    Which(hub): Which,
    body: Bytes,
) -> Result<(StatusCode, Json<Progress>), Problem> {
    let request: Request = read_body(&body)?;
    let rounds: Rounds = serde_json::from_value(Value::Object(request.plan))
        .map_err(|error| Problem::bad_request(format!("the rounds are not as expected: {error}")))?;
    hub.fleet().start_rounds(rounds, request.rate.map_or(Pace::Backlog, Pace::Rate))?;
    Ok((StatusCode::ACCEPTED, Json(hub.fleet().progress())))
}

pub(super) async fn next(Which(hub): Which) -> Result<(StatusCode, Json<Progress>), Problem> {
    hub.fleet().start_next_phase()?;
    Ok((StatusCode::ACCEPTED, Json(hub.fleet().progress())))
}

pub(super) async fn show(Which(hub): Which) -> Json<Progress> {
    Json(hub.fleet().progress())
}

pub(super) async fn stop(Which(hub): Which) -> Json<Progress> {
    hub.fleet().stop();
    Json(hub.fleet().phase_end().await)
}

pub(super) async fn shutdown(State(parts): State<Arc<Parts>>) -> (StatusCode, Json<Value>) {
    parts.shutdown.cancel();
    (StatusCode::ACCEPTED, Json(json!({ "status": "stopping" })))
}
