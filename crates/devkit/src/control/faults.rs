//! Injected faults and counters over the control port.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{Json, body::Bytes, extract::State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    answer::{Problem, read as read_body},
    which::Which,
};
use crate::{cosmos::Faults, iothub::DeliveryFaults, parts::Parts};

pub(super) async fn delivery(Which(hub): Which) -> Json<DeliveryFaults> {
    Json(hub.service().delivery_faults())
}

pub(super) async fn set_delivery(Which(hub): Which, body: Bytes) -> Result<Json<DeliveryFaults>, Problem> {
    let faults: DeliveryFaults = read_body(&body)?;
    faults.validate().map_err(Problem::bad_request)?;
    hub.service().set_delivery_faults(faults);
    hub.service().flush()?;
    Ok(Json(hub.service().delivery_faults()))
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

pub(super) async fn counters(
    State(parts): State<Arc<Parts>>,
    Which(iothub): Which,
) -> Result<Json<Value>, Problem> {
    let mut hubs = BTreeMap::new();
    for hub in parts.endpoints.event_hubs() {
        let partitions = parts.broker.partitions(&hub)?;
        let last: Vec<i64> = partitions.iter().map(|partition| partition.last_sequence_number).collect();
        hubs.insert(hub, json!({ "lastSequenceNumbers": last }));
    }
    Ok(Json(json!({
        "twins": iothub.service().len(),
        "delivery": iothub.service().delivery_counts(),
        "eventhubs": hubs,
        "cosmos": parts.cosmos.counters(),
        "iothub": iothub.registry().counters(),
    })))
}

pub(super) async fn reset_cosmos_counters(State(parts): State<Arc<Parts>>) -> Json<Value> {
    parts.cosmos.reset_counters();
    Json(json!({ "status": "ok" }))
}

/// One fault of the broker.
#[derive(Deserialize)]
#[serde(tag = "fault", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
enum BrokerFault {
    /// Cuts every connection.
    DropConnections,
    /// Refuses new connections for this time. 0 ends it.
    RefuseConnections { seconds: f64 },
    /// Closes the links of a partition's receivers, with or without an error condition.
    CloseReceivers {
        hub: String,
        partition: u16,
        #[serde(default)]
        condition: Option<String>,
    },
    /// Answers the next put-token requests with 401.
    RefuseTokens { count: u32 },
    /// Closes the link instead of answering the next put-token requests.
    CloseTokenLinks { count: u32 },
    /// Stops the deliveries of a partition.
    Stall { hub: String, partition: u16 },
    /// Ends a stall.
    Release { hub: String, partition: u16 },
    /// Appends a delivery that no client can decode.
    AppendUndecodable { hub: String, partition: u16 },
    /// Removes the events before a sequence number, as if their retention had ended.
    ExpireBefore { hub: String, partition: u16, sequence_number: i64 },
    /// Deletes an Event Hub and creates it again.
    Recreate { hub: String },
    /// Adds partitions to an Event Hub. Most partition keys move to other partitions.
    AddPartitions { hub: String, count: u16 },
}

pub(super) async fn broker(State(parts): State<Arc<Parts>>, body: Bytes) -> Result<Json<Value>, Problem> {
    let faults = parts.broker.faults();
    match read_body(&body)? {
        BrokerFault::DropConnections => faults.drop_connections(),
        BrokerFault::RefuseConnections { seconds } => {
            let time = Duration::try_from_secs_f64(seconds)
                .map_err(|error| Problem::bad_request(format!("seconds: {error}")))?;
            faults.refuse_connections(time);
        }
        BrokerFault::CloseReceivers { hub, partition, condition } => {
            let closed = faults.close_receivers(&hub, partition, condition.as_deref())?;
            return Ok(Json(json!({ "status": "ok", "closed": closed })));
        }
        BrokerFault::RefuseTokens { count } => faults.refuse_tokens(count),
        BrokerFault::CloseTokenLinks { count } => faults.close_token_links(count),
        BrokerFault::Stall { hub, partition } => faults.stall(&hub, partition)?,
        BrokerFault::Release { hub, partition } => faults.release(&hub, partition)?,
        BrokerFault::AppendUndecodable { hub, partition } => {
            let sequence_number = faults.append_undecodable(&hub, partition)?;
            return Ok(Json(json!({ "status": "ok", "sequenceNumber": sequence_number })));
        }
        BrokerFault::ExpireBefore { hub, partition, sequence_number } => {
            faults.expire_before(&hub, partition, sequence_number)?;
        }
        BrokerFault::Recreate { hub } => faults.recreate(&hub)?,
        BrokerFault::AddPartitions { hub, count } => {
            let partitions = parts.broker.add_partitions(&hub, count)?;
            return Ok(Json(json!({ "status": "ok", "partitions": partitions })));
        }
    }
    Ok(Json(json!({ "status": "ok" })))
}
