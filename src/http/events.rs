//! The status as repeated server-sent events. The page listens to them if they get through.
//!
//! Few of them run at a time. A browser opens at most six connections to one server, whatever the number of its tabs. With streams on all
//! of them, no other request would get through. The server also accepts only a few connections. If there is no place, the client is told so
//! and requests `/api/status` instead. The page does this automatically.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json,
    http::{StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event, Sse},
    },
};
use futures::{Stream, stream};
use serde_json::json;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::State;

/// Time between two events.
const INTERVAL: Duration = Duration::from_secs(2);
/// Maximum number of streams at the same time: fewer than the connections of one browser.
pub(super) const MOST_STREAMS: usize = 4;
/// When to try again if there is no place, in seconds.
const RETRY_AFTER: &str = "60";

/// Places for streams.
#[derive(Debug, Clone)]
pub(super) struct Streams(Arc<Semaphore>);

impl Default for Streams {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST_STREAMS)))
    }
}

/// Events named `status`, each with the whole answer of `/api/status`, until the client disconnects or the server stops. If a client does
/// not read, nothing is sent or buffered for it. 503 if there is no place.
pub(super) fn events(state: State, streams: &Streams, shutdown: CancellationToken) -> Response {
    match Arc::clone(&streams.0).try_acquire_owned() {
        Ok(room) => open(state, room, shutdown).into_response(),
        Err(_) => {
            let error =
                format!("{MOST_STREAMS} streams are open, which is the maximum: request /api/status instead");
            let headers = [(header::RETRY_AFTER, RETRY_AFTER)];
            (StatusCode::SERVICE_UNAVAILABLE, headers, Json(json!({ "error": error }))).into_response()
        }
    }
}

fn open(
    state: State,
    room: OwnedSemaphorePermit,
    shutdown: CancellationToken,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    Sse::new(stream::unfold(
        (state, room, shutdown, Instant::now()),
        |(state, room, shutdown, next)| async move {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return None,
                () = sleep_until(next) => {}
            }
            let event = Event::default().event("status").retry(INTERVAL).json_data(state.observer.status());
            match event {
                Ok(event) => Some((Ok(event), (state, room, shutdown, Instant::now() + INTERVAL))),
                Err(error) => {
                    tracing::warn!(%error, code = "INTERNAL", "the status cannot be written as JSON");
                    None
                }
            }
        },
    ))
}
