//! Faults that tests inject, and counters that tests read.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use fe2o3_amqp_types::{
    definitions::{self, ErrorCondition},
    primitives::Symbol,
};

use super::{
    Error,
    namespace::Namespace,
    readers::Registration,
    switches::{lock, server_busy},
};

/// Faults to inject into a running broker. Each takes effect at once. The methods may be called from any thread.
#[derive(Debug, Clone)]
pub struct Faults {
    namespace: Arc<Namespace>,
}

/// What a broker has done since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// TCP connections accepted, without those that [`Faults::refuse_connections`] closed.
    pub connections: u64,
    /// TCP connections that are open now.
    pub open_connections: u64,
    /// `put-token` requests received, whether answered or not.
    pub put_tokens: u64,
    /// Links attached to hubs and partitions, including refused ones.
    pub attaches: u64,
    /// Events sent to receivers' links.
    pub delivered: u64,
    /// Events appended through AMQP.
    pub received: u64,
}

/// A registered reader with an owner level, without a link. It displaces other readers until it is dropped.
#[derive(Debug)]
pub struct Occupied {
    _registration: Registration,
}

impl Faults {
    pub(super) fn new(namespace: Arc<Namespace>) -> Self {
        Self { namespace }
    }

    /// Cuts every connection without an AMQP close, as the loss of a network route does. New connections are accepted.
    pub fn drop_connections(&self) {
        self.namespace.switches.cut_connections();
    }

    /// Closes every new connection right after accepting it, for `time` from now on. Zero ends it.
    pub fn refuse_connections(&self, time: Duration) {
        *lock(&self.namespace.switches.refuse_until) = Instant::now().checked_add(time);
    }

    /// Closes the links of all receivers of a partition: with an error of this condition, e.g. `amqp:link:detach-forced`, or without an
    /// error if it is `None`. Returns the number of links.
    pub fn close_receivers(
        &self,
        hub: &str,
        partition: u16,
        condition: Option<&str>,
    ) -> Result<usize, Error> {
        let error = condition.map(|condition| {
            let condition = ErrorCondition::Custom(Symbol::from(condition));
            definitions::Error::new(condition, "closed by a fault of the test".to_owned(), None)
        });
        Ok(self.namespace.hub(hub)?.lane(partition)?.readers.close_all(&error))
    }

    /// Registers a reader of a partition with owner level 0, as another program would. Readers without an owner level are displaced, and
    /// new ones are refused until the returned value is dropped.
    ///
    /// # Errors
    /// The hub or the partition does not exist, or the consumer group has a reader with a higher owner level.
    pub fn occupy(&self, hub: &str, partition: u16, group: &str) -> Result<Occupied, Error> {
        let readers = Arc::clone(&self.namespace.hub(hub)?.lane(partition)?.readers);
        let registration = readers.admit(group, Some(0));
        let registration = registration.map_err(|_| Error::Occupied { group: group.to_owned() })?;
        Ok(Occupied { _registration: registration })
    }

    /// Throttles all readers, as Event Hubs does if the throughput units are exceeded. The links of all receivers are closed with
    /// `com.microsoft:server-busy`, and so are new ones, until it is called with `false`.
    pub fn throttle(&self, throttled: bool) {
        self.namespace.switches.busy.store(throttled, Ordering::Release);
        if throttled {
            for lane in self.namespace.hubs().flat_map(|hub| hub.lanes()) {
                lane.readers.close_all(&Some(server_busy()));
            }
        }
    }

    /// Answers the next `count` put-token requests with 401.
    pub fn refuse_tokens(&self, count: u32) {
        self.namespace.switches.tokens_to_refuse.store(count, Ordering::Release);
    }

    /// Answers every put-token request with 401, for `time` from now on. Zero ends it.
    pub fn refuse_tokens_for(&self, time: Duration) {
        *lock(&self.namespace.switches.refuse_tokens_until) = Instant::now().checked_add(time);
    }

    /// Closes the `$cbs` link instead of answering, for the next `count` put-token requests.
    pub fn close_token_links(&self, count: u32) {
        self.namespace.switches.tokens_to_leave.store(count, Ordering::Release);
    }

    /// Stops all deliveries of a partition, while connections and links stay open. To a reader, this looks like a half-open connection.
    /// Events that were sent before still arrive.
    pub fn stall(&self, hub: &str, partition: u16) -> Result<(), Error> {
        self.namespace.hub(hub)?.lane(partition)?.partition.set_stalled(true);
        Ok(())
    }

    /// Ends [`Self::stall`].
    pub fn release(&self, hub: &str, partition: u16) -> Result<(), Error> {
        self.namespace.hub(hub)?.lane(partition)?.partition.set_stalled(false);
        Ok(())
    }

    /// Appends a delivery that no client can decode as an AMQP message. Returns its sequence number.
    pub fn append_undecodable(&self, hub: &str, partition: u16) -> Result<i64, Error> {
        Ok(self.namespace.hub(hub)?.lane(partition)?.partition.append_undecodable())
    }

    /// Removes the events of a partition before a sequence number, as if their retention had ended.
    pub fn expire_before(&self, hub: &str, partition: u16, sequence_number: i64) -> Result<(), Error> {
        self.namespace.hub(hub)?.lane(partition)?.partition.expire_before(sequence_number);
        Ok(())
    }

    /// Gives the events that are appended to a partition from now on an enqueued time that is `age` earlier. So they look as old as events
    /// in an Event Hub with a long retention. Enqueued times never decrease, so use it on empty partitions.
    pub fn stamp_earlier(&self, hub: &str, partition: u16, age: Duration) -> Result<(), Error> {
        let milliseconds = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        self.namespace.hub(hub)?.lane(partition)?.partition.stamp_earlier(milliseconds);
        Ok(())
    }

    /// Removes all events of a hub, starts its sequence numbers at 0 again and closes all receivers, as if the hub had been deleted and
    /// created again. Earlier positions are not valid afterwards.
    pub fn recreate(&self, hub: &str) -> Result<(), Error> {
        let gone: definitions::Error = definitions::AmqpError::NotFound.into();
        for lane in self.namespace.hub(hub)?.lanes() {
            lane.partition.reset();
            lane.readers.close_all(&Some(gone.clone()));
        }
        Ok(())
    }

    /// Deletes a consumer group of a hub. Its readers are closed with `amqp:not-found`, and links that attach later are refused. `$Default`
    /// cannot be deleted.
    pub fn delete_group(&self, hub: &str, group: &str) -> Result<(), Error> {
        let gone: definitions::Error = definitions::AmqpError::NotFound.into();
        let hub = self.namespace.hub(hub)?;
        hub.set_group(group, false);
        hub.lanes().iter().for_each(|lane| {
            lane.readers.close_group(group, &gone);
        });
        Ok(())
    }

    /// Creates a consumer group of a hub.
    pub fn create_group(&self, hub: &str, group: &str) -> Result<(), Error> {
        self.namespace.hub(hub)?.set_group(group, true);
        Ok(())
    }

    /// The counters since the start of the broker.
    pub fn counters(&self) -> Counters {
        let switches = &self.namespace.switches;
        let closed = switches.closed.load(Ordering::Acquire);
        let connections = switches.accepted.load(Ordering::Acquire);
        Counters {
            connections,
            open_connections: connections.saturating_sub(closed),
            put_tokens: switches.put_tokens.load(Ordering::Acquire),
            attaches: switches.attaches.load(Ordering::Acquire),
            delivered: switches.delivered.load(Ordering::Acquire),
            received: switches.received.load(Ordering::Acquire),
        }
    }
}
