//! Intake: from a producer's link to the log of a partition.

use std::sync::{Arc, atomic::Ordering};

use fe2o3_amqp::{Receiver, link::RecvError};
use fe2o3_amqp_types::{
    definitions::{self, AmqpError, MessageFormat},
    messaging::Body,
    primitives::Value,
};

use super::{
    link,
    namespace::{Hub, Namespace},
    wire::{self, Message},
};

/// One producer's link at work.
#[derive(Debug)]
pub(super) struct Intake {
    pub(super) namespace: Arc<Namespace>,
    pub(super) hub: Arc<Hub>,
    /// The partition in the link's address; without one the broker chooses.
    pub(super) partition: Option<u16>,
}

impl Intake {
    /// Appends what arrives until either side ends the link.
    pub(super) async fn run(self, mut receiver: Receiver) {
        loop {
            let settled = match receiver.recv::<Body<Value>>().await {
                Ok(delivery) => {
                    let format = *delivery.message_format();
                    let (info, message) = delivery.into_parts();
                    // Accepted after the append only: the other way round an accepted event could be lost.
                    match self.append(format, message) {
                        Ok(()) => receiver.accept(info).await,
                        Err(refusal) => receiver.reject(info, refusal).await,
                    }
                }
                Err(RecvError::MessageDecode(error)) => {
                    tracing::debug!(%error, hub = self.hub.name, "a producer sent what is no message");
                    let refusal = definitions::Error::from(AmqpError::DecodeError);
                    receiver.reject(error.info, refusal).await
                }
                Err(error) => {
                    tracing::debug!(%error, hub = self.hub.name, "a producer's link ended");
                    return link::close_receiver(receiver, None).await;
                }
            };
            if settled.is_err() {
                return link::close_receiver(receiver, None).await;
            }
        }
    }

    fn append(&self, format: Option<MessageFormat>, message: Message) -> Result<(), definitions::Error> {
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
