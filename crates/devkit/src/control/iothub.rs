//! Requests about the hub itself: fields that change without events, its history, and its service API.

use axum::{Json, body::Bytes};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    answer::{Problem, read as read_body},
    twins::{Ids, id},
    which::Which,
};
use crate::{
    fleet::{Import, Imported, import},
    iothub::{
        Loss,
        api::{Faults, Quota},
    },
};

pub(super) async fn change_identity(
    Which(hub): Which,
    names: Ids,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    hub.service().change_identity(&id(names)?, &read_body(&body)?)?;
    Ok(Json(json!({ "events": [] })))
}

pub(super) async fn bring_in(Which(hub): Which, body: Bytes) -> Result<Json<Imported>, Problem> {
    let plan: Import = read_body(&body)?;
    // For a large hub this takes seconds, during which it would block all other requests of this thread.
    let imported = tokio::task::spawn_blocking(move || import(hub.service(), &plan)).await;
    let imported = imported.map_err(|_| Problem::internal("the import ended with a panic"))?;
    Ok(Json(imported?))
}

pub(super) async fn failover(Which(hub): Which, body: Bytes) -> Result<Json<Value>, Problem> {
    let loss: Loss = read_body(&body)?;
    Ok(Json(json!({ "changed": hub.service().failover(loss)? })))
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Remembered {
    changes: usize,
}

pub(super) async fn history(Which(hub): Which) -> Json<Remembered> {
    Json(Remembered { changes: hub.service().history() })
}

pub(super) async fn keep_history(Which(hub): Which, body: Bytes) -> Result<Json<Remembered>, Problem> {
    let Remembered { changes } = read_body(&body)?;
    hub.service().keep_history(changes);
    Ok(Json(Remembered { changes: hub.service().history() }))
}

pub(super) async fn quota(Which(hub): Which) -> Json<Option<Quota>> {
    Json(hub.registry().quota())
}

pub(super) async fn set_quota(Which(hub): Which, body: Bytes) -> Result<Json<Option<Quota>>, Problem> {
    hub.registry().set_quota(read_body(&body)?)?;
    Ok(Json(hub.registry().quota()))
}

pub(super) async fn faults(Which(hub): Which) -> Json<Faults> {
    Json(hub.registry().faults())
}

pub(super) async fn set_faults(Which(hub): Which, body: Bytes) -> Result<Json<Faults>, Problem> {
    hub.registry().set_faults(read_body(&body)?)?;
    Ok(Json(hub.registry().faults()))
}

pub(super) async fn reset_counters(Which(hub): Which) -> Json<Value> {
    hub.registry().reset_counters();
    Json(json!({ "status": "ok" }))
}
