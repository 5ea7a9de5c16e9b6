//! Identities and twins over the control port.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::StatusCode,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    answer::{Problem, read as read_body},
    which::Which,
};
use crate::{
    iothub::{self, Operation, TwinId},
    parts::{Endpoints, IotHub, Parts},
};

const DEFAULT_LIMIT: usize = 1_000;
const LARGEST_LIMIT: usize = 10_000;

#[derive(Deserialize)]
pub(super) struct Names {
    device: String,
    module: Option<String>,
}

pub(super) type Ids = Result<Path<Names>, PathRejection>;

impl Names {
    fn id(self) -> Result<TwinId, iothub::Error> {
        match self.module {
            None => TwinId::device(self.device),
            Some(module) => TwinId::module(self.device, module),
        }
    }
}

pub(super) fn id(names: Ids) -> Result<TwinId, Problem> {
    let Path(names) = names?;
    Ok(names.id()?)
}

pub(super) async fn health(Which(hub): Which) -> Json<Value> {
    Json(json!({ "status": "ok", "twins": hub.service().len() }))
}

pub(super) async fn endpoints(State(parts): State<Arc<Parts>>) -> Json<Endpoints> {
    Json(parts.endpoints.clone())
}

pub(super) async fn register(
    Which(hub): Which,
    names: Ids,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let twin = if body.is_empty() { None } else { Some(read_body(&body)?) };
    let id = id(names)?;
    let Json(answer) = apply(&hub, &Operation::Create { id, twin })?;
    Ok((StatusCode::CREATED, Json(answer)))
}

pub(super) async fn remove(Which(hub): Which, names: Ids) -> Result<Json<Value>, Problem> {
    apply(&hub, &Operation::Delete { id: id(names)? })
}

pub(super) async fn merge(Which(hub): Which, names: Ids, body: Bytes) -> Result<Json<Value>, Problem> {
    apply(&hub, &Operation::Patch { id: id(names)?, patch: read_body(&body)? })
}

pub(super) async fn replace(Which(hub): Which, names: Ids, body: Bytes) -> Result<Json<Value>, Problem> {
    apply(&hub, &Operation::Replace { id: id(names)?, twin: read_body(&body)? })
}

pub(super) async fn report(Which(hub): Which, names: Ids, body: Bytes) -> Result<Json<Value>, Problem> {
    apply(&hub, &Operation::Report { id: id(names)?, patch: read_body(&body)? })
}

pub(super) async fn read(Which(hub): Which, names: Ids) -> Result<Json<Value>, Problem> {
    let id = id(names)?;
    hub.service().twin(&id).map(Json).ok_or_else(|| iothub::Error::NotFound(id).into())
}

#[derive(Deserialize)]
pub(super) struct Paging {
    limit: Option<usize>,
    continuation: Option<String>,
}

pub(super) async fn page(
    Which(hub): Which,
    paging: Result<Query<Paging>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(paging) = paging?;
    let after = paging.continuation.as_deref().map(decode).transpose()?;
    let limit = paging.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, LARGEST_LIMIT);
    let page = hub.service().page(after.as_ref(), limit);
    let continuation = page.next.as_ref().map(encode);
    Ok(Json(json!({ "twins": page.twins, "continuation": continuation })))
}

fn apply(hub: &IotHub, operation: &Operation) -> Result<Json<Value>, Problem> {
    let applied = hub.service().apply(operation)?;
    let events: Vec<&str> = applied.changes.iter().map(|change| change.operation_type()).collect();
    Ok(Json(json!({ "version": applied.version, "events": events })))
}

fn encode(id: &TwinId) -> String {
    URL_SAFE_NO_PAD.encode(json!([id.device_id(), id.module_id()]).to_string())
}

fn decode(continuation: &str) -> Result<TwinId, Problem> {
    let names: Option<(String, Option<String>)> =
        URL_SAFE_NO_PAD.decode(continuation).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let Some((device, module)) = names else {
        return Err(Problem::bad_request("this continuation was not returned by this port"));
    };
    Ok(Names { device, module }.id()?)
}
