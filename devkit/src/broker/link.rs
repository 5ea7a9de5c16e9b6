//! Endings of links: each side waits for the other's detach, so every path closes, and none waits for ever.

use std::time::Duration;

use fe2o3_amqp::{Receiver, Sender};

use super::readers::Closure;

/// How long a client may take to confirm a detach; after that the link is dropped.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Closes a link that sends to the client: as the answer to its detach, or on our own account.
pub(super) async fn close_sender(sender: Sender, closure: Closure) {
    let closing = async {
        match closure {
            Some(error) => sender.close_with_error(error).await,
            None => sender.close().await,
        }
    };
    match tokio::time::timeout(CLOSE_TIMEOUT, closing).await {
        Ok(Ok(())) => {}
        // A session or connection that ended first is a normal end of its links.
        Ok(Err(error)) => tracing::debug!(%error, "a sending link ended"),
        Err(_elapsed) => tracing::debug!("a client did not confirm the end of its receiver"),
    }
}

/// Closes a link that receives from the client: as the answer to its detach, or on our own account.
pub(super) async fn close_receiver(receiver: Receiver, closure: Closure) {
    let closing = async {
        match closure {
            Some(error) => receiver.close_with_error(error).await,
            None => receiver.close().await,
        }
    };
    match tokio::time::timeout(CLOSE_TIMEOUT, closing).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a receiving link ended"),
        Err(_elapsed) => tracing::debug!("a client did not confirm the end of its sender"),
    }
}
