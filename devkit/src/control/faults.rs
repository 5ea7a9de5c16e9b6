//! Fault switches and counters over the control port.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, body::Bytes, extract::State};
use serde_json::{Value, json};

use super::answer::{Problem, read as read_body};
use crate::{cosmos::Faults, iothub::DeliveryFaults, stack::Parts};

pub(super) async fn delivery(State(parts): State<Arc<Parts>>) -> Json<DeliveryFaults> {
    Json(parts.hub.delivery_faults())
}

pub(super) async fn set_delivery(
    State(parts): State<Arc<Parts>>,
    body: Bytes,
) -> Result<Json<DeliveryFaults>, Problem> {
    let faults: DeliveryFaults = read_body(&body)?;
    faults.validate().map_err(Problem::bad_request)?;
    parts.hub.set_delivery_faults(faults);
    parts.hub.flush()?;
    Ok(Json(parts.hub.delivery_faults()))
}

pub(super) async fn cosmos(State(parts): State<Arc<Parts>>) -> Json<Faults> {
    Json(parts.cosmos.faults())
}

pub(super) async fn set_cosmos(
    State(parts): State<Arc<Parts>>,
    body: Bytes,
) -> Result<Json<Faults>, Problem> {
    parts.cosmos.set_faults(read_body(&body)?)?;
    Ok(Json(parts.cosmos.faults()))
}

pub(super) async fn counters(State(parts): State<Arc<Parts>>) -> Result<Json<Value>, Problem> {
    let endpoints = &parts.endpoints;
    let mut hubs = BTreeMap::new();
    for hub in [&endpoints.lifecycle_hub, &endpoints.twin_changes_hub] {
        let partitions = parts
            .broker
            .partitions(hub)
            .map_err(|error| Problem::bad_request(error.to_string()))?;
        let last: Vec<i64> = partitions
            .iter()
            .map(|partition| partition.last_sequence_number)
            .collect();
        hubs.insert(hub, json!({ "lastSequenceNumbers": last }));
    }
    Ok(Json(json!({
        "twins": parts.hub.len(),
        "delivery": parts.hub.delivery_counts(),
        "eventhubs": hubs,
        "cosmos": parts.cosmos.counters(),
    })))
}

pub(super) async fn reset_cosmos_counters(State(parts): State<Arc<Parts>>) -> Json<Value> {
    parts.cosmos.reset_counters();
    Json(json!({ "status": "ok" }))
}
