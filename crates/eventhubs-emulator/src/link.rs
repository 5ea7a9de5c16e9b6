//! Links that send to a client, and how links of both directions end.
//!
//! SUBTLE: a sender of fe2o3-amqp 0.14 checks its credit, finds none, and only then begins to wait for more. A flow
//! that arrives in between wakes no one. The client renews its credit only for deliveries that it receives, so the
//! link would wait for ever. So a send that waits for credit checks again after [`CREDIT_CHECK`].
//!
//! Each side waits for the other's detach. So every path here answers it, and none waits for ever. If `send` or
//! `recv` reports a detach, fe2o3-amqp has answered it already. If `on_detach` reports it, [`answer_detach`] must
//! answer.

use std::time::Duration;

use fe2o3_amqp::{
    Receiver, Sender,
    link::{DetachError, SendError, delivery::Sendable},
};
use fe2o3_amqp_types::messaging::SerializableBody;

use super::readers::Closure;

/// Wait before a send without credit checks its credit again.
const CREDIT_CHECK: Duration = Duration::from_millis(50);

/// How long a client may take to confirm a detach. After that, the link is dropped.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends without waiting for the outcome, because Event Hubs ignores what a client makes of a delivery. Waits for
/// credit. Cancel safe: a cancelled send was not sent.
///
/// An outcome that arrives before fe2o3-amqp has recorded the delivery leaves one payload in memory until the link
/// ends (see `inbox`).
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

/// Answers a client's detach. `cause` says of which kind it is: a closing detach is answered with a close, another
/// one with a detach. The wrong kind makes the client attach the link again, only to close it.
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

/// Closes a link that sends to the client, from the broker's side.
pub(super) async fn close_sender(sender: Sender, closure: Closure) {
    confirm(async {
        match closure {
            Some(error) => sender.close_with_error(error).await,
            None => sender.close().await,
        }
    })
    .await;
}

/// Closes a link that receives from the client, from the broker's side.
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
        // If the session or connection ended first, its links ended normally.
        Ok(Err(error)) => tracing::debug!(%error, "a link ended before it was closed"),
        Err(_elapsed) => tracing::debug!("a client did not confirm the end of a link in time"),
    }
}
