//! Which of the IoT hubs a request refers to.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, Query},
    http::{StatusCode, request},
};
use serde::Deserialize;

use super::answer::Problem;
use crate::parts::{IotHub, Parts};

/// The IoT hub that `?hub=NAME` names. Without it, the first one.
pub(super) struct Which(pub(super) Arc<IotHub>);

#[derive(Deserialize)]
struct Named {
    hub: Option<String>,
}

impl FromRequestParts<Arc<Parts>> for Which {
    type Rejection = Problem;

    async fn from_request_parts(request: &mut request::Parts, parts: &Arc<Parts>) -> Result<Self, Problem> {
        let Query(Named { hub }) = Query::from_request_parts(request, parts).await?;
        let found = parts.iothub(hub.as_deref()).cloned();
        found.map(Self).ok_or_else(|| {
            let known: Vec<_> = parts.iothubs.iter().map(|hub| hub.name()).collect();
            let message = format!("there is no such iot hub; there are: {}", known.join(", "));
            Problem::new(StatusCode::NOT_FOUND, "unknown_hub", message)
        })
    }
}
