//! Links that receive from a client: deliveries come in, outcomes go out.
//!
//! SUBTLE: a client on fe2o3-amqp 0.14, such as the Rust SDK, has two race conditions. A broker on the same
//! machine triggers them often, a distant one hardly ever.
//! - The client registers a delivery as unsettled *after* it has sent it. An outcome that arrives earlier is
//!   dropped, and the send waits for ever. So the broker sends an outcome [`OUTCOME_DELAY`] after the delivery
//!   arrived. This is still faster than the service, and the broker receives the next deliveries meanwhile.
//! - The client checks its credit, finds none, and only then begins to wait for more. It misses a flow that
//!   arrives in between. So a link that waits for deliveries sends its credit again, at growing intervals.

use std::{collections::VecDeque, time::Duration};

use fe2o3_amqp::{
    Receiver,
    link::{
        DispositionError, RecvError,
        delivery::{Delivery, DeliveryInfo},
    },
};
use fe2o3_amqp_types::{
    definitions::{self, AmqpError},
    messaging::Body,
    primitives::Value,
};
use tokio::time::Instant;

use super::{link, readers::Closure};

/// Time from a delivery to its outcome.
const OUTCOME_DELAY: Duration = Duration::from_millis(10);

/// Wait before an idle link sends its credit again. It doubles up to [`LONGEST_CREDIT_REMINDER`].
const CREDIT_REMINDER: Duration = Duration::from_millis(50);
const LONGEST_CREDIT_REMINDER: Duration = Duration::from_secs(30);

/// Number of deliveries that a client may send in advance.
const CREDIT: u32 = 200;

/// The result of a delivery: accepted, or rejected with an error.
pub(super) type Outcome = Result<(), definitions::Error>;

/// A link that receives from a client.
#[derive(Debug)]
pub(super) struct Inbox {
    receiver: Receiver,
    outcomes: VecDeque<Pending>,
}

#[derive(Debug)]
struct Pending {
    due: Instant,
    delivery: DeliveryInfo,
    outcome: Outcome,
}

impl Inbox {
    pub(super) fn new(receiver: Receiver) -> Self {
        Self { receiver, outcomes: VecDeque::new() }
    }

    /// Returns the next delivery that is a message. Others are rejected. `None` if the client has ended the link;
    /// the broker need not answer that.
    pub(super) async fn next(&mut self) -> Option<Delivery<Body<Value>>> {
        let mut reminder = CREDIT_REMINDER;
        loop {
            if let Err(error) = self.send_due_outcomes().await {
                tracing::debug!(%error, "a client's sender ended before its outcomes");
                return None;
            }
            let wake = match self.outcomes.front() {
                Some(pending) => pending.due,
                None => Instant::now() + reminder,
            };
            let received = tokio::select! {
                biased;
                received = self.receiver.recv() => received,
                () = tokio::time::sleep_until(wake) => {
                    if self.outcomes.is_empty() {
                        reminder = (2 * reminder).min(LONGEST_CREDIT_REMINDER);
                        self.receiver.set_credit(CREDIT).await.ok()?;
                    }
                    continue;
                }
            };
            match received {
                Ok(delivery) => return Some(delivery),
                Err(RecvError::MessageDecode(error)) => {
                    tracing::debug!(%error, "a client sent a delivery that is no message");
                    self.settle(error.info, Err(AmqpError::DecodeError.into()));
                }
                Err(error) => {
                    tracing::debug!(%error, "a client's sender ended");
                    return None;
                }
            }
        }
    }

    /// Schedules the outcome of a delivery. It is sent after [`OUTCOME_DELAY`].
    pub(super) fn settle(&mut self, delivery: DeliveryInfo, outcome: Outcome) {
        self.outcomes.push_back(Pending { due: Instant::now() + OUTCOME_DELAY, delivery, outcome });
    }

    /// Closes the link from the broker's side, after its outcomes: a client waits for them even on a closed link.
    pub(super) async fn close(mut self, closure: Closure) {
        while let Some(pending) = self.outcomes.front() {
            tokio::time::sleep_until(pending.due).await;
            if let Err(error) = self.send_due_outcomes().await {
                tracing::debug!(%error, "a client's sender ended before its outcomes");
                break;
            }
        }
        link::close_receiver(self.receiver, closure).await;
    }

    async fn send_due_outcomes(&mut self) -> Result<(), DispositionError> {
        let now = Instant::now();
        while self.outcomes.front().is_some_and(|pending| pending.due <= now)
            && let Some(pending) = self.outcomes.pop_front()
        {
            match pending.outcome {
                Ok(()) => self.receiver.accept(pending.delivery).await?,
                Err(error) => self.receiver.reject(pending.delivery, error).await?,
            }
        }
        Ok(())
    }
}
