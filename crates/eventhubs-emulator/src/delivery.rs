//! Deliveries from a partition's log to one receiver's link.

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
};

use fe2o3_amqp::{
    Sender,
    link::{DetachError, SendError},
};
use fe2o3_amqp_types::definitions::{self, AmqpError};

use super::{
    authorization::Authorization,
    envelope, link,
    log::Entry,
    namespace::{Hub, Namespace},
    readers::{Closure, Registration},
    wire::{self, Payload},
};

/// Maximum number of events that are read from the log at once. It is small, so that a stall or a closure
/// takes effect soon.
const EVENTS_PER_READ: usize = 128;

/// The link of one receiver.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) namespace: Arc<Namespace>,
    /// When it expires, the link is closed.
    pub(super) authorization: Arc<Authorization>,
    pub(super) hub: Arc<Hub>,
    pub(super) partition: u16,
    /// Sequence number of the next event to deliver.
    pub(super) cursor: i64,
    pub(super) registration: Registration,
}

/// Why a receiver's link ended.
enum End {
    /// The client detached, or its session or connection ended. The broker still has to answer the detach.
    Client(DetachError),
    /// The same, reported by a send. fe2o3-amqp has answered the detach already.
    Answered,
    /// The broker closes it.
    Broker(Closure),
}

impl Delivery {
    /// Delivers until either side ends the link.
    pub(super) async fn run(mut self, mut sender: Sender) {
        let end = self.deliver(&mut sender).await;
        // The registration must end before the client learns that the link ended: the client may attach again
        // at once.
        drop(self.registration);
        match end {
            End::Client(cause) => link::answer_detach(sender, &cause).await,
            End::Answered => {}
            End::Broker(closure) => link::close_sender(sender, closure).await,
        }
    }

    async fn deliver(&mut self, sender: &mut Sender) -> End {
        let lane = match self.hub.lane(self.partition) {
            Ok(lane) => lane,
            Err(error) => {
                return End::Broker(Some(definitions::Error::new(
                    AmqpError::NotFound,
                    error.to_string(),
                    None,
                )));
            }
        };
        let partition = &lane.partition;
        let authorization = Arc::clone(&self.authorization);
        let mut expired = pin!(authorization.ended());
        let mut entries = Vec::with_capacity(EVENTS_PER_READ);
        loop {
            let changed = partition.changed();
            tokio::pin!(changed);
            changed.as_mut().enable();
            entries.clear();
            partition.read(self.cursor, EVENTS_PER_READ, &mut entries);
            if entries.is_empty() {
                tokio::select! {
                    biased;
                    closure = self.registration.closed() => return End::Broker(closure),
                    error = &mut expired => return End::Broker(Some(error)),
                    cause = sender.on_detach() => return End::Client(cause),
                    () = changed => continue,
                }
            }
            for entry in &entries {
                if partition.is_stalled() {
                    break;
                }
                tokio::select! {
                    biased;
                    closure = self.registration.closed() => return End::Broker(closure),
                    error = &mut expired => return End::Broker(Some(error)),
                    sent = send(sender, entry) => if let Err(error) = sent {
                        tracing::debug!(%error, "a receiver's link ended under a delivery");
                        return End::Answered;
                    },
                }
                self.cursor = entry.sequence_number + 1;
                self.namespace.switches.delivered.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

async fn send(sender: &mut Sender, entry: &Entry) -> Result<(), SendError> {
    match &entry.payload {
        Payload::Encoded(bytes) => link::send(sender, &envelope::seal(bytes)).await,
        Payload::Undecodable => link::send(sender, &wire::undecodable()).await,
    }
}
