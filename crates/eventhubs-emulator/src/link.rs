//! Links that send to a client, and the endings of both kinds.
//!
//! SUBTLE: a sender of fe2o3-amqp 0.14 looks at its credit, finds none, and only then begins to listen for more. A
//! flow that arrives in between wakes nobody, and the client renews credit only for what it receives: the link
//! would stand still for ever. So a send that waits for credit looks again after a while.
//!
//! Each side waits for the other's detach, so every path answers it, and none waits for ever. Where `send` or `recv`
//! reports a detach, fe2o3-amqp has answered it already; where `on_detach` reports it, [`answer_detach`] must.

use std::time::Duration;

use fe2o3_amqp::{
    Receiver, Sender,
    link::{DetachError, SendError, delivery::Sendable},
};
use fe2o3_amqp_types::messaging::SerializableBody;

use super::readers::Closure;

/// Before a waiting send looks at its credit again.
const CREDIT_CHECK: Duration = Duration::from_millis(50);

/// How long a client may take to confirm a detach; after that the link is dropped.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends without waiting for the outcome: what a client makes of a delivery means nothing to Event Hubs. (An outcome
/// that overtakes fe2o3-amqp's bookkeeping leaves one payload behind until the link ends; see `inbox`.)
/// Waits for credit. Cancel safe: a cancelled send was not sent.
pub(super) async fn send<T>(sender: &mut Sender, sendable: &Sendable<T>) -> Result<(), SendError>
where
    T: SerializableBody + Sync,
{
    loop {
        if let Ok(sent) = tokio::time::timeout(CREDIT_CHECK, sender.send_batchable_ref(sendable)).await {
            return sent.map(drop);
        }
    }
}

/// Answers a client's detach, which is what `cause` says: a closing one with a close, another with a detach.
/// The wrong kind makes the client attach the link again, only to close it.
pub(super) async fn answer_detach(sender: Sender, cause: &DetachError) {
    match cause {
        DetachError::DetachedByRemote | DetachError::RemoteDetachedWithError(_) => {
            confirm(async { sender.detach().await.map(drop).map_err(|(_sender, error)| error) }).await;
        }
        DetachError::ClosedByRemote
        | DetachError::RemoteClosedWithError(_)
        | DetachError::IllegalState
        | DetachError::IllegalSessionState => close_sender(sender, None).await,
    }
}

/// Closes a link that sends to the client, on our own account.
pub(super) async fn close_sender(sender: Sender, closure: Closure) {
    confirm(async {
        match closure {
            Some(error) => sender.close_with_error(error).await,
            None => sender.close().await,
        }
    })
    .await;
}

/// Closes a link that receives from the client, on our own account.
pub(super) async fn close_receiver(receiver: Receiver, closure: Closure) {
    confirm(async {
        match closure {
            Some(error) => receiver.close_with_error(error).await,
            None => receiver.close().await,
        }
    })
    .await;
}

async fn confirm(closing: impl Future<Output = Result<(), DetachError>>) {
    match tokio::time::timeout(CLOSE_TIMEOUT, closing).await {
        Ok(Ok(())) => {}
        // A session or connection that ended first is a normal end of its links.
        Ok(Err(error)) => tracing::debug!(%error, "a link ended before it was closed"),
        Err(_elapsed) => tracing::debug!("a client did not confirm the end of a link in time"),
    }
}
