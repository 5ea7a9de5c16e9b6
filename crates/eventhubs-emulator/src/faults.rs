//! Switches that tests throw, and counters that they read.

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

/// Faults to inject into a running broker. Every one takes effect at once and from any thread.
#[derive(Debug, Clone)]
pub struct Faults {
    namespace: Arc<Namespace>,
}

/// What a broker has done since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// TCP connections taken, those refused by [`Faults::refuse_connections`] not counted.
    pub connections: u64,
    /// TCP connections open at present.
    pub open_connections: u64,
    /// `put-token` requests, answered or not.
    pub put_tokens: u64,
    /// Links attached to hubs and partitions, refused ones included.
    pub attaches: u64,
    /// Events handed to receivers' links.
    pub delivered: u64,
    /// Events appended through AMQP.
    pub received: u64,
}

/// The place of a reader with an owner level that nobody but a test is; it is given up when this is dropped.
#[derive(Debug)]
pub struct Occupied {
    _registration: Registration,
}

impl Faults {
    pub(super) fn new(namespace: Arc<Namespace>) -> Self {
        Self { namespace }
    }

    /// Cuts every connection without an AMQP close, as a lost route does. New connections are accepted.
    pub fn drop_connections(&self) {
        self.namespace.switches.cut_connections();
    }

    /// Closes every new connection right after accepting it, until the time has passed. Zero ends it.
    pub fn refuse_connections(&self, time: Duration) {
        *lock(&self.namespace.switches.refuse_until) = Instant::now().checked_add(time);
    }

    /// Closes the links of all receivers of a partition: with an error of this condition, e.g.
    /// `amqp:link:detach-forced`, or without any. Returns how many there were.
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

    /// Reads a partition with an owner level, as another program would: readers without one are displaced, and refused until
    /// what is returned is dropped.
    pub fn occupy(&self, hub: &str, partition: u16, group: &str) -> Result<Occupied, Error> {
        let readers = Arc::clone(&self.namespace.hub(hub)?.lane(partition)?.readers);
        let registration = readers.admit(group, Some(0));
        let registration = registration.map_err(|_| Error::Occupied { group: group.to_owned() })?;
        Ok(Occupied { _registration: registration })
    }

    /// Throttles whoever reads, as Event Hubs does over the limit of its throughput units: from here on the links of all
    /// receivers are closed as `com.microsoft:server-busy`, those that attach included. Until it is called with `false`.
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

    /// Answers every put-token request with 401, until the time has passed. Zero ends it.
    pub fn refuse_tokens_for(&self, time: Duration) {
        *lock(&self.namespace.switches.refuse_tokens_until) = Instant::now().checked_add(time);
    }

    /// Closes the `$cbs` links instead of answering the next `count` put-token requests.
    pub fn close_token_links(&self, count: u32) {
        self.namespace.switches.tokens_to_leave.store(count, Ordering::Release);
    }

    /// Holds back all deliveries of a partition, while connections and links stay up: what a half-open
    /// connection looks like to a reader. What is on its way already still arrives.
    pub fn stall(&self, hub: &str, partition: u16) -> Result<(), Error> {
        self.namespace.hub(hub)?.lane(partition)?.partition.set_stalled(true);
        Ok(())
    }

    /// Ends [`Self::stall`].
    pub fn release(&self, hub: &str, partition: u16) -> Result<(), Error> {
        self.namespace.hub(hub)?.lane(partition)?.partition.set_stalled(false);
        Ok(())
    }

    /// Appends a delivery that no client can decode as an AMQP message; returns its sequence number.
    pub fn append_undecodable(&self, hub: &str, partition: u16) -> Result<i64, Error> {
        Ok(self.namespace.hub(hub)?.lane(partition)?.partition.append_undecodable())
    }

    /// Drops a partition's events before a sequence number, as the end of their retention does.
    pub fn expire_before(&self, hub: &str, partition: u16, sequence_number: i64) -> Result<(), Error> {
        self.namespace.hub(hub)?.lane(partition)?.partition.expire_before(sequence_number);
        Ok(())
    }

    /// Stamps what is appended to a partition from here on as older than it is: what lies there is then as old as it would be in
    /// an Event Hub that keeps events for long. Times never go back, so it is for partitions that are empty.
    pub fn stamp_earlier(&self, hub: &str, partition: u16, age: Duration) -> Result<(), Error> {
        let milliseconds = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        self.namespace.hub(hub)?.lane(partition)?.partition.stamp_earlier(milliseconds);
        Ok(())
    }

    /// Empties all partitions of a hub, starts their numbers over at 0 and closes all receivers: the hub was
    /// deleted and created again, and old positions mean nothing any more.
    pub fn recreate(&self, hub: &str) -> Result<(), Error> {
        let gone: definitions::Error = definitions::AmqpError::NotFound.into();
        for lane in self.namespace.hub(hub)?.lanes() {
            lane.partition.reset();
            lane.readers.close_all(&Some(gone.clone()));
        }
        Ok(())
    }

    /// Deletes a consumer group of a hub: its readers are told that it is not there, and so are those who attach later.
    /// `$Default` cannot be deleted.
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

    /// What the broker has done since its start.
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
