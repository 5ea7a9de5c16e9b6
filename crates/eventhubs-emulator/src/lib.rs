//! Azure Event Hubs for tests, inside the test's process: AMQP 1.0 on a plain socket. The official clients use it unchanged.
//!
//! [`Broker::start`] listens. A client connects to [`Broker::address`] with any token, or with the token of [`Options::accepted_token`].
//! [`Broker::append`] appends events without a client. [`Broker::faults`] injects faults as they happen in production.
//! `examples/receive.rs` is a complete example.
//!
//! # Guarantees
//!
//! - The broker accepts an event only after it is in its partition. The order in a partition is the order of the appends.
//! - Sequence numbers have no gaps. Offsets count bytes, so a client that confuses the two fails here as it fails with Event Hubs.
//! - A partition key is assigned to the partition that the official clients' buffered producers choose for it.
//! - A reader with a higher owner level takes a partition from its reader, and one with a lower level is refused, as in Event Hubs.
//! - Readers do not wait by polling. Every link ends when its client detaches.
//! - Memory is bounded per partition: [`Broker::limit_partitions`].
//!
//! # Limitations
//!
//! Nothing is stored on disk. There is no TLS and there are no websockets. Authorization compares one token, if the options name one. If a
//! token states when it expires (`exp` of a JSON Web Token), the connection's links are closed at that time and new ones are refused. There
//! is no Capture, no schema registry, no Kafka endpoint and no quota of throughput units.
//!
//! # Modules
//!
//! | module | subject |
//! |---|---|
//! | `event` | an event to append, without AMQP |
//! | `log` | one partition: bounded, in memory, with sequence numbers, offsets and times |
//! | `position` | start positions |
//! | `readers` | owner levels, and which reader displaces which |
//! | `namespace` | hubs, partitions, consumer groups; the partition of a partition key (`hash`) |
//! | `connection`, `context`, `session`, `link`, `inbox` | AMQP on fe2o3-amqp's acceptor |
//! | `authorization` | how long a connection's tokens are valid |
//! | `services` | `$cbs` and `$management` |
//! | `delivery`, `intake` | links to readers, links from producers |
//! | `envelope`, `stream` | sending messages that are encoded already, and combining small writes |
//! | `faults`, `switches` | faults that tests inject, and counters |

mod address;
mod authorization;
mod connection;
mod context;
mod delivery;
mod envelope;
mod event;
mod faults;
mod hash;
mod inbox;
mod intake;
mod link;
mod log;
mod namespace;
mod position;
mod readers;
mod services;
mod session;
mod stream;
mod switches;
mod wire;

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{net::TcpListener, sync::Mutex, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::namespace::Namespace;
pub use self::{
    event::{Event, Value},
    faults::{Counters, Faults, Occupied},
    log::PartitionState,
};

/// For fuzz targets only.
#[cfg(fuzzing)]
pub mod fuzzing {
    /// Removes the envelopes from the complete frames that begin at `start`. Returns where these frames end.
    pub fn open(stream: &mut Vec<u8>, start: usize) -> usize {
        super::envelope::open(stream, start)
    }
}

/// What a broker serves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address to listen on. With port 0, the system chooses a free port.
    pub listen: SocketAddr,
    /// The event hubs of the namespace.
    pub hubs: Vec<HubOptions>,
    /// The only token that `$cbs` accepts. Others are answered with 401. `None` accepts every token.
    pub accepted_token: Option<String>,
}

/// One event hub.
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// Name, not case-sensitive.
    pub name: String,
    /// Number of partitions, 1 to 1024.
    pub partitions: u16,
    /// Consumer groups besides `$Default`, which always exists.
    pub consumer_groups: Vec<String>,
}

/// Where an event was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Partition number.
    pub partition: u16,
    /// Sequence number in the partition.
    pub sequence_number: i64,
}

/// An error of the broker itself, not of a client's connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is in use, or does not belong to this machine.
    #[error("listen on {address}: choose another address or port")]
    Listen {
        /// The address of the options.
        address: SocketAddr,
        /// Reason given by the system.
        #[source]
        source: io::Error,
    },
    /// The hub does not exist.
    #[error("no event hub is named {hub:?}: name it in the broker's options")]
    UnknownHub {
        /// The name asked for.
        hub: String,
    },
    /// The partition does not exist.
    #[error("event hub {hub:?} has no partition {partition:?}")]
    UnknownPartition {
        /// Hub.
        hub: String,
        /// The partition asked for.
        partition: String,
    },
    /// Another reader has a higher owner level.
    #[error("consumer group {group:?} already has a reader with a higher owner level")]
    Occupied {
        /// The consumer group.
        group: String,
    },
    /// The consumer group does not exist.
    #[error("event hub {hub:?} has no consumer group {group:?}: name it in the broker's options")]
    UnknownGroup {
        /// Hub.
        hub: String,
        /// The consumer group asked for.
        group: String,
    },
    /// Two hubs of the options have the same name.
    #[error("event hub {hub:?} is in the broker's options twice")]
    DuplicateHub {
        /// The name.
        hub: String,
    },
    /// A hub's number of partitions is out of range.
    #[error("event hub {hub:?} needs between 1 and {maximum} partitions")]
    PartitionCount {
        /// Hub.
        hub: String,
        /// Largest number allowed.
        maximum: u16,
    },
    /// An event has a value that AMQP cannot express.
    #[error("encode an event for event hub {hub:?}")]
    Encode {
        /// Hub.
        hub: String,
        /// Reason given by the encoder.
        #[source]
        source: serde_amqp::Error,
    },
}

/// A running broker. Clones are handles to the same broker. It runs until [`Self::stop`], or until its last handle is dropped.
#[derive(Debug, Clone)]
pub struct Broker {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    namespace: Arc<Namespace>,
    address: SocketAddr,
    /// `None` while the broker is down.
    listening: Mutex<Option<Listening>>,
    faults: Faults,
    stop: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Listening {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Broker {
    /// Starts to listen and to serve clients.
    ///
    /// # Errors
    /// The options are invalid, or the address cannot be used.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let listen = options.listen;
        let failed = |source| Error::Listen { address: listen, source };
        let namespace = Arc::new(Namespace::new(options)?);
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let faults = Faults::new(Arc::clone(&namespace));
        let listening = Mutex::new(None);
        let inner = Arc::new(Inner { namespace, address, listening, faults, stop, tasks });
        *inner.listening.lock().await = Some(inner.listen(listener));
        Ok(Self { inner })
    }

    /// Simulates a process that was killed: connections break, and new ones are refused until [`Self::come_back`]. Logs are kept, and
    /// [`Self::append`] still works. This corresponds to another broker of the same namespace that is still reachable for the producers.
    pub async fn go_down(&self) {
        if let Some(listening) = self.inner.listening.lock().await.take() {
            listening.stop.cancel();
            // The socket is closed when the task ends. New connections are refused from then on.
            if let Err(error) = listening.task.await {
                tracing::warn!(%error, "the broker's listener had ended already");
            }
        }
        self.inner.namespace.switches.cut_connections();
    }

    /// Listens again on the same address, with the same logs.
    ///
    /// # Errors
    /// Another process has taken the port meanwhile.
    pub async fn come_back(&self) -> Result<(), Error> {
        let address = self.inner.address;
        let mut listening = self.inner.listening.lock().await;
        if listening.is_none() {
            let listener = TcpListener::bind(address).await;
            let listener = listener.map_err(|source| Error::Listen { address, source })?;
            *listening = Some(self.inner.listen(listener));
        }
        Ok(())
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.inner.address
    }

    /// Appends an event without AMQP and wakes the readers. Events with the same non-empty `partition_key` go to the same partition: the
    /// one that the official clients' buffered producers choose. With an empty key, the partitions take turns.
    ///
    /// # Errors
    /// The hub does not exist, or the event has a value that AMQP cannot express.
    pub fn append(&self, hub: &str, partition_key: &str, event: Event) -> Result<Appended, Error> {
        let hub = self.inner.namespace.hub(hub)?;
        let lane = hub.lane_for((!partition_key.is_empty()).then_some(partition_key));
        let sequence_number = lane
            .partition
            .append(event.into_message(partition_key))
            .map_err(|source| Error::Encode { hub: hub.name.clone(), source })?;
        Ok(Appended { partition: lane.partition.id(), sequence_number })
    }

    /// The state of every partition of a hub, by partition number.
    ///
    /// # Errors
    /// The hub does not exist.
    pub fn partitions(&self, hub: &str) -> Result<Vec<PartitionState>, Error> {
        let hub = self.inner.namespace.hub(hub)?;
        Ok(hub.lanes().iter().map(|lane| lane.partition.state()).collect())
    }

    /// Adds partitions to a hub that is in use, as Event Hubs does in its Premium and Dedicated tiers. Returns the new number of
    /// partitions. The new partitions are empty and get the next numbers. Requests for properties see them at once, and most partition keys
    /// move to other partitions.
    ///
    /// # Errors
    /// The hub does not exist, `count` is zero, or there would be too many partitions.
    pub fn add_partitions(&self, hub: &str, count: u16) -> Result<u16, Error> {
        self.inner.namespace.hub(hub)?.add_partitions(count)
    }

    /// Limits every partition to this many bytes (encoded events and their bookkeeping), from now on. The oldest events are removed first.
    /// The newest event always stays. The default is 512 MiB.
    pub fn limit_partitions(&self, bytes: usize) {
        self.inner.namespace.hubs().for_each(|hub| hub.limit_partitions(bytes));
    }

    /// The faults to inject, and the counters.
    pub fn faults(&self) -> &Faults {
        &self.inner.faults
    }

    /// Closes the listener and all connections. Returns when all their tasks have ended.
    pub async fn stop(&self) {
        self.inner.shut();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

impl Inner {
    fn listen(&self, listener: TcpListener) -> Listening {
        let (stop, tasks) = (self.stop.child_token(), self.tasks.clone());
        let listen = connection::listen(listener, Arc::clone(&self.namespace), tasks, stop.clone());
        Listening { stop, task: self.tasks.spawn(listen) }
    }

    fn shut(&self) {
        self.stop.cancel();
        self.namespace.switches.cut_connections();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shut();
    }
}
