//! The control port: drives a running devkit from outside, as JSON over HTTP.
//!
//! | request | does |
//! |---|---|
//! | `GET /health`, `GET /endpoints` | alive; where everything is |
//! | `PUT`, `DELETE /devices/{device}` and `/devices/{device}/modules/{module}` | registers (the body may hold a twin), removes |
//! | `PATCH` the same | changes status and connection, of which no event tells: `{"status": "disabled"}` |
//! | `GET`, `PATCH`, `PUT /twins/{device}` and `/twins/{device}/modules/{module}` | reads; merges and replaces as a back end does |
//! | `PATCH` the same + `/reported` | reports properties as the device does |
//! | `GET /twins?limit=&continuation=` | twins in pages |
//! | `POST`, `GET`, `DELETE /fleet`; `POST /fleet/next` | starts, shows, stops a fleet; starts its next phase |
//! | `POST /rounds` | starts an even load, which is shown and stopped as a fleet: `{"devices": 100, "register": true, "rounds": 20, "bytes": 2000, "rate": 500}` |
//! | `POST /import` | brings in devices without any event: `{"devices": 10000, "modules": 0.1, "seed": 1, "prefix": "old-"}` |
//! | `POST /failover` | the hub goes back: `{"ms": 60000}` or `{"operations": 100}`; refused while its history is off |
//! | `GET`, `PUT /history` | how many changes the hub remembers: `{"changes": 50000}`; 0, the default, is off. `staleByMs` of `/faults/iothub` switches it on |
//! | `GET /counters`; `POST /counters/cosmos/reset`, `/counters/iothub/reset` | what was delivered, asked and charged |
//! | `GET`, `PUT /faults/delivery`, `/faults/cosmos` and `/faults/iothub` | fault switches |
//! | `GET`, `PUT /quota/iothub` | limits of the service API: `{"tier": "S1", "units": 1}`, or `null` |
//! | `POST /faults/eventhubs` | one fault of the broker, such as `{"fault": "dropConnections"}` |
//! | `POST /shutdown` | asks the process to stop |
//!
//! Where there are several IoT hubs, `?hub=NAME` says which one is meant; without it, the first one. Ids in paths are percent-encoded. Errors are `{"error": {"code": …, "message": …}}`. There is no authentication:
//! it belongs on loopback.

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

/// How long requests under way may take at a stop.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// Serves until `stop`.
pub(crate) async fn serve(listener: TcpListener, parts: Arc<Parts>, stop: CancellationToken) {
    let listener = listener.tap_io(|stream| {
        // A socket that refuses the option works all the same, only slower.
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
