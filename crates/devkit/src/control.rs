//! The control port, which controls a running devkit from outside, with JSON over HTTP.
//!
//! | request | effect |
//! |---|---|
//! | `GET /health`, `GET /endpoints` | whether it is alive; the endpoints of all services |
//! | `PUT`, `DELETE /devices/{device}` and `/devices/{device}/modules/{module}` | registers (the body may contain a twin); deletes |
//! | `PATCH` the same | changes status and connection, which no event reports: `{"status": "disabled"}` |
//! | `GET`, `PATCH`, `PUT /twins/{device}` and `/twins/{device}/modules/{module}` | reads; merges and replaces as a back end does |
//! | `PATCH` the same + `/reported` | reports properties as the device does |
//! | `GET /twins?limit=&continuation=` | twins in pages |
//! | `POST`, `GET`, `DELETE /fleet`; `POST /fleet/next` | starts, shows, stops a fleet; starts its next phase |
//! | `POST /rounds` | starts an even load, which is shown and stopped like a fleet: `{"devices": 100, "register": true, "rounds": 20, "bytes": 2000, "rate": 500}` |
//! | `POST /import` | creates devices without any events: `{"devices": 10000, "modules": 0.1, "seed": 1, "prefix": "old-"}` |
//! | `POST /failover` | the hub returns to an earlier state: `{"ms": 60000}` or `{"operations": 100}`; refused if its history is off |
//! | `GET`, `PUT /history` | how many changes the hub remembers: `{"changes": 50000}`; 0, the default, is off; `staleByMs` of `/faults/iothub` switches it on |
//! | `GET /counters`; `POST /counters/cosmos/reset`, `/counters/iothub/reset` | counts of deliveries and requests, and the request units; resets them |
//! | `GET`, `PUT /faults/delivery`, `/faults/cosmos` and `/faults/iothub` | the injected faults |
//! | `GET`, `PUT /quota/iothub` | limits of the service API: `{"tier": "S1", "units": 1}`, or `null` |
//! | `POST /faults/eventhubs` | one fault of the broker, such as `{"fault": "dropConnections"}` |
//! | `POST /shutdown` | asks the process to stop |
//!
//! If there are several IoT hubs, `?hub=NAME` selects one. Without it, the first one is meant. Ids in paths are percent-encoded. Errors are
//! `{"error": {"code": …, "message": …}}`. There is no authentication, so the port must only be reachable on loopback.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    http::StatusCode,
    routing::{get, patch, post, put},
    serve::ListenerExt,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::parts::Parts;

mod answer;
mod faults;
mod fleet;
mod iothub;
mod twins;
mod which;

use answer::Problem;

/// How long running requests may take when the port stops.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// Serves until `stop`.
pub(crate) async fn serve(listener: TcpListener, parts: Arc<Parts>, stop: CancellationToken) {
    let listener = listener.tap_io(|stream| {
        // If the option cannot be set, the connection works all the same, but more slowly.
        let _ = stream.set_nodelay(true);
    });
    let serving = axum::serve(listener, router(parts)).with_graceful_shutdown(stop.clone().cancelled_owned());
    let deadline = async {
        stop.cancelled().await;
        tokio::time::sleep(STOP_GRACE).await;
    };
    tokio::select! {
        biased;
        outcome = serving.into_future() => {
            if let Err(error) = outcome {
                tracing::error!(error = &error as &dyn std::error::Error, "the control port stopped");
            }
        }
        () = deadline => {}
    }
}

fn router(parts: Arc<Parts>) -> Router {
    let identity = || put(twins::register).delete(twins::remove).patch(iothub::change_identity);
    let twin = || get(twins::read).patch(twins::merge).put(twins::replace);
    Router::new()
        .route("/health", get(twins::health))
        .route("/endpoints", get(twins::endpoints))
        .route("/devices/{device}", identity())
        .route("/devices/{device}/modules/{module}", identity())
        .route("/twins", get(twins::page))
        .route("/twins/{device}", twin())
        .route("/twins/{device}/modules/{module}", twin())
        .route("/twins/{device}/reported", patch(twins::report))
        .route("/twins/{device}/modules/{module}/reported", patch(twins::report))
        .route("/fleet", post(fleet::start).get(fleet::show).delete(fleet::stop))
        .route("/fleet/next", post(fleet::next))
        .route("/rounds", post(fleet::start_rounds))
        .route("/import", post(iothub::bring_in))
        .route("/failover", post(iothub::failover))
        .route("/history", get(iothub::history).put(iothub::keep_history))
        .route("/counters", get(faults::counters))
        .route("/counters/cosmos/reset", post(faults::reset_cosmos_counters))
        .route("/counters/iothub/reset", post(iothub::reset_counters))
        .route("/quota/iothub", get(iothub::quota).put(iothub::set_quota))
        .route("/faults/iothub", get(iothub::faults).put(iothub::set_faults))
        .route("/faults/delivery", get(faults::delivery).put(faults::set_delivery))
        .route("/faults/eventhubs", post(faults::broker))
        .route("/faults/cosmos", get(faults::cosmos).put(faults::set_cosmos))
        .route("/shutdown", post(fleet::shutdown))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "unknown_path", "there is no such path"))
        .method_not_allowed_fallback(async || {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "unknown_method",
                "the path does not take this method",
            )
        })
        .with_state(parts)
}
