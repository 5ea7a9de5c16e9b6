//! Deliveries from a producer's link to the logs of partitions.

use std::sync::{Arc, atomic::Ordering};

use fe2o3_amqp::Receiver;
use fe2o3_amqp_types::definitions::{self, AmqpError, MessageFormat};

use super::{
    inbox::{Inbox, Outcome},
    namespace::{Hub, Namespace},
    wire::{self, Message},
};

/// The link of one producer.
#[derive(Debug)]
pub(super) struct Intake {
    pub(super) namespace: Arc<Namespace>,
    pub(super) hub: Arc<Hub>,
    /// The partition in the link's address. If it names none, the broker chooses.
    pub(super) partition: Option<u16>,
}

impl Intake {
    /// Appends the events that arrive, until the client ends the link.
    pub(super) async fn run(self, receiver: Receiver) {
        let mut inbox = Inbox::new(receiver);
        while let Some(delivery) = inbox.next().await {
            let format = *delivery.message_format();
            let (info, message) = delivery.into_parts();
            // The delivery is settled only after the append. In the other order, an accepted event could be
            // lost.
            let outcome = self.append(format, message);
            inbox.settle(info, outcome);
        }
    }

    fn append(&self, format: Option<MessageFormat>, message: Message) -> Outcome {
        let (key, events) = wire::events(format, message)
            .map_err(|error| definitions::Error::new(AmqpError::DecodeError, error.to_string(), None))?;
        let lane = match self.partition {
            Some(partition) => self.hub.lane(partition),
            None => Ok(self.hub.lane_for(key.as_deref())),
        }
        .map_err(|error| definitions::Error::new(AmqpError::NotFound, error.to_string(), None))?;
        for event in events {
            lane.partition.append(event).map_err(|error| {
                definitions::Error::new(AmqpError::InternalError, error.to_string(), None)
            })?;
            self.namespace.switches.received.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}
