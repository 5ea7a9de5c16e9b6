//! What the components of a process report about themselves: partitions, stores, loops, dependencies and tokens, as
//! facts.
//!
//! [`readiness`](super::readiness) turns them into the answers of `/livez` and `/readyz`,
//! [`obstacles`](super::obstacles) into sentences for people.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    id::{PartitionId, SequenceNumber},
    token::Token,
};

/// The phase of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Connections are being opened.
    Starting,
    /// Events are processed when they arrive.
    Running,
    /// Asked to stop: received events are being finished.
    Stopping,
}

/// The state of a partition's consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartitionState {
    /// It is connecting.
    Connecting,
    /// It receives events as they arrive.
    Receiving,
    /// It cannot continue at present.
    Waiting {
        /// The reason, in one line without secrets.
        reason: String,
    },
    /// Event Hubs throttles it: Event Hubs answers, but delivers no events for a while.
    Throttled {
        /// What Event Hubs answered, in one line without secrets.
        reason: String,
    },
}

/// The state of a partition's consumer, and how long it has received nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStatus {
    /// The state.
    pub state: PartitionState,
    /// Time since it last received; zero while it receives.
    pub lasts: Duration,
    /// Time until it reconnects, if that is planned.
    pub next_try: Option<Duration>,
}

/// Whether the document store answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreState {
    /// Not asked yet.
    Unknown,
    /// It answers.
    Reachable,
    /// It does not answer.
    Unreachable {
        /// The reason, in one line without secrets.
        reason: String,
    },
}

/// The services that the daemon needs beside its partitions and the document store. `Credential` is only checked at
/// start; afterwards, each request shows whether it works.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dependency {
    /// Our identity towards Azure: a token.
    Credential,
    /// This Event Hub. At start this includes its checkpoints; later it is the information about its partitions, not
    /// the events.
    EventHub(String),
    /// The store for events that can never be applied.
    DeadLetters,
    /// The store of checkpoints.
    Checkpoints,
    /// The store of leases, through which replicas agree on the owners of partitions. It is the same store as that of
    /// the checkpoints, but requests for one may fail while those for the other succeed.
    Leases,
    /// The registry of this IoT hub.
    Registry(String),
    /// The receiver of our traces.
    Traces,
    /// The Entra ID keys that sign the tokens of callers. For the read API only.
    EntraKeys,
    /// Checkpoints and Event Hubs, asked for the lag of the copy. For the read API only.
    Lag,
    /// The change feed of the container. For declared counts only.
    ChangeFeed,
}

impl std::fmt::Display for Dependency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Credential => f.write_str("the credential"),
            Self::EventHub(hub) => write!(f, "the Event Hub {hub}"),
            Self::DeadLetters => f.write_str("the dead-letter store"),
            Self::Checkpoints => f.write_str("the checkpoint store"),
            Self::Leases => f.write_str("the lease store"),
            Self::Registry(hub) => write!(f, "the registry of the IoT hub {hub}"),
            Self::Traces => f.write_str("the receiver of traces"),
            Self::EntraKeys => f.write_str("the key endpoint of Entra ID"),
            Self::Lag => f.write_str("the source of the copy's lag"),
            Self::ChangeFeed => f.write_str("the change feed of the container"),
        }
    }
}

impl Dependency {
    /// This many failures in a row are an outage. A single failure is retried after a moment and does not count,
    /// because in a large service some requests always fail.
    pub const fn failures_until_outage(&self) -> u32 {
        match self {
            Self::Credential
            | Self::DeadLetters
            | Self::Checkpoints
            | Self::Leases
            | Self::EventHub(_)
            | Self::ChangeFeed
            | Self::Traces => 2,
            // The callers count the failures: several tasks call it, for several reasons.
            Self::Registry(_) => 1,
            // Called once a minute at most.
            Self::EntraKeys | Self::Lag => 1,
        }
    }
}

/// The kind of failure of a dependency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It does not answer, or refuses our requests.
    Silent,
    /// It asks for less load: it is available, but slow for us.
    Throttled,
}

/// An outage of a dependency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    /// The kind of failure.
    pub failure: Failure,
    /// The reason, in one line without secrets.
    pub reason: String,
    /// How long it has lasted.
    pub lasts: Duration,
    /// Time until the next attempt, if that is planned.
    pub next_try: Option<Duration>,
}

/// The event that a partition's progress waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incomplete {
    /// Its sequence number.
    pub sequence_number: SequenceNumber,
    /// Time since we received it.
    pub age: Duration,
}

/// When a loop last ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pulse {
    /// Time since its last iteration.
    pub silent_for: Duration,
    /// The longest acceptable time between two iterations of this loop.
    pub limit: Duration,
}

/// All facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The phase of the process.
    pub phase: Phase,
    /// The partitions that this replica owns.
    pub partitions: BTreeMap<PartitionId, PartitionStatus>,
    /// The document store.
    pub store: StoreState,
    /// How long it has been in this state.
    pub store_lasts: Duration,
    /// Time until the next attempt, if that is planned.
    pub store_next_try: Option<Duration>,
    /// The partitions that wait for a dead letter that could not be stored.
    pub waits_for_dead_letters: BTreeSet<PartitionId>,
    /// The tokens and signatures with which we authenticate.
    pub tokens: Vec<Token>,
    /// The loops by name.
    pub loops: BTreeMap<String, Pulse>,
    /// The other dependencies that have been used, each with its outage if it is out of order.
    pub dependencies: BTreeMap<Dependency, Option<Outage>>,
    /// The event that each partition waits for, if it waits.
    pub incomplete: BTreeMap<PartitionId, Incomplete>,
    /// An event that is incomplete for longer than this blocks its partition. Throttling is tolerated for the same
    /// time.
    pub blocked_after: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_failure_is_an_outage_only_if_the_caller_has_counted_or_asks_seldom() {
        let once = [Dependency::Registry("h".into()), Dependency::EntraKeys, Dependency::Lag];
        assert_eq!(once.map(|dependency| dependency.failures_until_outage()), [1; 3]);
        let twice = [
            Dependency::Credential,
            Dependency::DeadLetters,
            Dependency::Checkpoints,
            Dependency::Leases,
            Dependency::EventHub("twins".into()),
            Dependency::ChangeFeed,
            Dependency::Traces,
        ];
        assert_eq!(twice.map(|dependency| dependency.failures_until_outage()), [2; 7]);
    }
}
