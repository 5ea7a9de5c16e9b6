//! The status again and again, as server-sent events: what the page listens to.

use std::{convert::Infallible, time::Duration};

use axum::response::sse::{Event, Sse};
use futures::{Stream, stream};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::State;

/// Time between two events.
const INTERVAL: Duration = Duration::from_secs(2);

/// Events named `status`, each with the whole answer of `/api/status`, until the client goes or the server stops. A client
/// that does not read is not sent to: nothing is kept for it.
pub(super) fn events(
    state: State,
    shutdown: CancellationToken,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    Sse::new(stream::unfold((state, shutdown, Instant::now()), |(state, shutdown, next)| async move {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return None,
            () = sleep_until(next) => {}
        }
        let event = Event::default().event("status").retry(INTERVAL).json_data(state.observer.status());
        match event {
            Ok(event) => Some((Ok(event), (state, shutdown, Instant::now() + INTERVAL))),
            Err(error) => {
                tracing::warn!(%error, code = "INTERNAL", "the status cannot be told as JSON");
                None
            }
        }
    }))
}
