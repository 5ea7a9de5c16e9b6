//! Azure Event Hubs for tests, in process: AMQP 1.0 on a plain socket, served to the official clients unchanged.
//!
//! [`Broker::start`] listens; a client connects to [`Broker::address`] with any token, or with the one of
//! [`Options::accepted_token`]. [`Broker::append`] puts events into a partition without a client, and [`Broker::faults`] breaks
//! what breaks in production. `examples/receive.rs` is the shortest way through all of it.
//!
//! # Promises
//!
//! - An event is accepted after it is in its partition, and the order there is the order of appends.
//! - Sequence numbers have no gaps. An offset counts bytes, so a client that mistakes one for the other fails here too.
//! - A partition key belongs to the partition that the official clients' buffered producers choose for it.
//! - A higher owner level takes a partition from its reader, and a lower one is refused, as at Event Hubs.
//! - A reader never waits by polling. Every link ends when its client detaches.
//! - Memory is bounded per partition: [`Broker::limit_partitions`].
//!
//! # What it does not do
//!
//! It keeps nothing on disk and speaks neither TLS nor websockets. It authorizes by comparing one token, if told to; a token that
//! says when it expires (`exp` of a JSON Web Token) is good until then: links are closed, new ones refused. It has no Capture,
//! no schema registry, no Kafka endpoint and no quota of throughput units.
//!
//! # Inside
//!
//! | module | subject |
//! |---|---|
//! | `event` | an event as somebody appends it, without AMQP |
//! | `log` | one partition: bounded, in memory, with sequence numbers, offsets and times |
//! | `position` | start positions |
//! | `readers` | owner levels and who takes a partition from whom |
//! | `namespace` | hubs, partitions, consumer groups; which partition a key belongs to (`hash`) |
//! | `connection`, `context`, `session`, `link`, `inbox` | AMQP on fe2o3-amqp's acceptor |
//! | `authorization` | until when a connection's tokens are good |
//! | `services` | `$cbs` and `$management` |
//! | `delivery`, `intake` | links to readers, links from producers |
//! | `envelope`, `stream` | deliveries as they lie in the log, and small writes together |
//! | `faults`, `switches` | what tests break, and what is counted |

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
    /// Takes the envelopes off the whole frames from `start` on; returns where they end.
    pub fn open(stream: &mut Vec<u8>, start: usize) -> usize {
        super::envelope::open(stream, start)
    }
}

/// What a broker serves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The event hubs of the namespace.
    pub hubs: Vec<HubOptions>,
    /// The one token that `$cbs` accepts; others are answered with 401. `None` accepts every token.
    pub accepted_token: Option<String>,
}

/// One event hub.
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// Name; not case-sensitive.
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

/// What can go wrong with a broker, apart from its clients.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is in use or not ours.
    #[error("listen on {address}: choose another address or port")]
    Listen {
        /// The address of the options.
        address: SocketAddr,
        /// Reason given by the system.
        #[source]
        source: io::Error,
    },
    /// No such hub.
    #[error("no event hub is named {hub:?}: name it in the broker's options")]
    UnknownHub {
        /// The name asked for.
        hub: String,
    },
    /// No such partition.
    #[error("event hub {hub:?} has no partition {partition:?}")]
    UnknownPartition {
        /// Hub.
        hub: String,
        /// The partition asked for.
        partition: String,
    },
    /// Somebody reads with a higher owner level.
    #[error("consumer group {group:?} is read with a higher owner level already")]
    Occupied {
        /// The consumer group.
        group: String,
    },
    /// No such consumer group.
    #[error("event hub {hub:?} has no consumer group {group:?}: name it in the broker's options")]
    UnknownGroup {
        /// Hub.
        hub: String,
        /// The consumer group asked for.
        group: String,
    },
    /// Two hubs of the options have one name.
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

/// A running broker. Clones are handles to the same one; it runs until [`Self::stop`] or the end of its last handle.
#[derive(Debug, Clone)]
pub struct Broker {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    namespace: Arc<Namespace>,
    address: SocketAddr,
    /// `None` while it is down.
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
    /// Listens, and serves clients from then on.
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

    /// Goes down as a process that is killed: connections break, and none is taken, until [`Self::come_back`]. Logs
    /// stay, and events can still be appended: somebody else's broker of the same namespace takes them.
    pub async fn go_down(&self) {
        if let Some(listening) = self.inner.listening.lock().await.take() {
            listening.stop.cancel();
            // With its task the socket is gone: what connects from here on is refused.
            if let Err(error) = listening.task.await {
                tracing::warn!(%error, "the broker's listener had ended already");
            }
        }
        self.inner.namespace.switches.cut_connections();
    }

    /// Listens again on the same address, with the same logs.
    ///
    /// # Errors
    /// Somebody else took the port meanwhile.
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

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.inner.address
    }

    /// Appends an event without AMQP and wakes the readers. Events with the same non-empty `partition_key` go to
    /// the same partition, which is the one that the official clients' buffered producers choose; with an empty
    /// one the partitions take turns.
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
    pub fn partitions(&self, hub: &str) -> Result<Vec<PartitionState>, Error> {
        let hub = self.inner.namespace.hub(hub)?;
        Ok(hub.lanes().iter().map(|lane| lane.partition.state()).collect())
    }

    /// Adds partitions to a hub, as Event Hubs does in its Premium and Dedicated tiers while the hub is in use; returns
    /// how many there are. They are empty and numbered on, clients that ask hear of them at once, and keys belong to
    /// other partitions from then on.
    ///
    /// # Errors
    /// No such hub, none to add, or too many.
    pub fn add_partitions(&self, hub: &str, count: u16) -> Result<u16, Error> {
        self.inner.namespace.hub(hub)?.add_partitions(count)
    }

    /// Bounds every partition to this many bytes (encoded events and their bookkeeping), from now on. The oldest
    /// events are dropped first and the newest always stays. 512 MiB before the first call.
    pub fn limit_partitions(&self, bytes: usize) {
        self.inner.namespace.hubs().for_each(|hub| hub.limit_partitions(bytes));
    }

    /// Faults to inject, and counters.
    pub fn faults(&self) -> &Faults {
        &self.inner.faults
    }

    /// Closes the listener and all connections; returns when they and their tasks are gone.
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
