//! The hub's hidden sides over the control port: what changes without events, its past, and its service API.

use std::sync::Arc;

use axum::{Json, body::Bytes, extract::State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    answer::{Problem, read as read_body},
    twins::{Ids, id},
};
use crate::{
    fleet::{Import, Imported, import},
    iothub::{
        Loss,
        api::{Faults, Quota},
    },
    stack::Parts,
};

pub(super) async fn change_identity(
    State(parts): State<Arc<Parts>>,
    names: Ids,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    parts.hub.change_identity(&id(names)?, &read_body(&body)?)?;
    Ok(Json(json!({ "events": [] })))
}

pub(super) async fn bring_in(
    State(parts): State<Arc<Parts>>,
    body: Bytes,
) -> Result<Json<Imported>, Problem> {
    let plan: Import = read_body(&body)?;
    // Seconds of work for a large hub, which would keep every other request of this thread waiting.
    let imported = tokio::task::spawn_blocking(move || import(&parts.hub, &plan)).await;
    let imported = imported.map_err(|_| Problem::internal("the import did not come to its end"))?;
    Ok(Json(imported?))
}

pub(super) async fn failover(State(parts): State<Arc<Parts>>, body: Bytes) -> Result<Json<Value>, Problem> {
    let loss: Loss = read_body(&body)?;
    Ok(Json(json!({ "changed": parts.hub.failover(loss)? })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Remembered {
    changes: usize,
}

pub(super) async fn keep_history(
    State(parts): State<Arc<Parts>>,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let Remembered { changes } = read_body(&body)?;
    parts.hub.keep_history(changes);
    Ok(Json(json!({ "status": "ok" })))
}

pub(super) async fn quota(State(parts): State<Arc<Parts>>) -> Json<Option<Quota>> {
    Json(parts.registry.quota())
}

pub(super) async fn set_quota(
    State(parts): State<Arc<Parts>>,
    body: Bytes,
) -> Result<Json<Option<Quota>>, Problem> {
    parts.registry.set_quota(read_body(&body)?)?;
    Ok(Json(parts.registry.quota()))
}

pub(super) async fn faults(State(parts): State<Arc<Parts>>) -> Json<Faults> {
    Json(parts.registry.faults())
}

pub(super) async fn set_faults(
    State(parts): State<Arc<Parts>>,
    body: Bytes,
) -> Result<Json<Faults>, Problem> {
    parts.registry.set_faults(read_body(&body)?)?;
    Ok(Json(parts.registry.faults()))
}

pub(super) async fn reset_counters(State(parts): State<Arc<Parts>>) -> Json<Value> {
    parts.registry.reset_counters();
    Json(json!({ "status": "ok" }))
}
