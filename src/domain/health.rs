//! What the components of a process know about themselves: partitions, stores, loops, dependencies and tokens, as facts.
//!
//! [`readiness`](super::readiness) makes the answers of `/livez` and `/readyz` of them, [`obstacles`](super::obstacles) the sentences for people.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    id::{PartitionId, SequenceNumber},
    token::Token,
};

/// Where the process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Connections are being made.
    Starting,
    /// Events flow, or could.
    Running,
    /// Asked to stop: finishing what has been received.
    Stopping,
}

/// What a partition's consumer is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartitionState {
    /// It connects.
    Connecting,
    /// Events arrive as they come.
    Receiving,
    /// It cannot go on at present.
    Waiting {
        /// Why, in one line without secrets.
        reason: String,
    },
    /// Event Hubs asks for patience: it answers, and gives no events for a while.
    Throttled {
        /// What it said, in one line without secrets.
        reason: String,
    },
}

/// What a partition's consumer is doing, and for how long it has received nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStatus {
    /// What it is doing.
    pub state: PartitionState,
    /// Since it last received; zero while it does.
    pub lasts: Duration,
    /// How long until it connects again, where that is planned.
    pub next_try: Option<Duration>,
}

/// Whether the document store answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreState {
    /// Not asked yet.
    Unknown,
    /// It answers.
    Reachable,
    /// It does not.
    Unreachable {
        /// Why, in one line without secrets.
        reason: String,
    },
}

/// What the daemon needs beside its partitions and the document store. The first matters at start only: afterwards, each
/// request tells.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dependency {
    /// Who we are towards Azure: a token.
    Credential,
    /// This Event Hub: at start its checkpoints included, later what it says about its partitions beside the events.
    EventHub(String),
    /// Where events go that can never be applied.
    DeadLetters,
    /// Where progress is kept.
    Checkpoints,
    /// Where replicas agree on whose the partitions are: the same store, whose answers to one may differ from those to the
    /// other.
    Leases,
    /// The registry of this IoT hub.
    Registry(String),
    /// Who takes our traces.
    Traces,
    /// Where the keys are that tokens of callers are signed with: Entra ID. For the read API only.
    EntraKeys,
    /// Checkpoints and Event Hubs, asked how far behind the copy is. For the read API only.
    Lag,
    /// What has changed in the container. For declared counts only.
    ChangeFeed,
}

impl std::fmt::Display for Dependency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Credential => f.write_str("the credential"),
            Self::EventHub(hub) => write!(f, "the Event Hub {hub}"),
            Self::DeadLetters => f.write_str("the dead-letter store"),
            Self::Checkpoints => f.write_str("the checkpoint store"),
            Self::Leases => f.write_str("the checkpoint store, asked for leases,"),
            Self::Registry(hub) => write!(f, "the registry of the IoT hub {hub}"),
            Self::Traces => f.write_str("the receiver of traces"),
            Self::EntraKeys => f.write_str("Entra ID, asked for its keys,"),
            Self::Lag => f.write_str("what tells how far behind the copy is"),
            Self::ChangeFeed => f.write_str("the change feed of the container"),
        }
    }
}

impl Dependency {
    /// So many failures in a row are an outage. One of them is nothing: it is tried again in a moment, and a service of that
    /// size always fails somebody.
    pub const fn failures_until_outage(&self) -> u32 {
        match self {
            Self::Credential
            | Self::DeadLetters
            | Self::Checkpoints
            | Self::Leases
            | Self::EventHub(_)
            | Self::ChangeFeed
            | Self::Traces => 2,
            // Whoever asks it counts them: several tasks do, for several reasons.
            Self::Registry(_) => 1,
            // Asked once a minute at most.
            Self::EntraKeys | Self::Lag => 1,
        }
    }
}

/// How something fails that does not do what it is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It does not answer, or refuses us.
    Silent,
    /// It asks for less load: it is there, and slow for us.
    Throttled,
}

/// Since when something does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    /// How it fails.
    pub failure: Failure,
    /// Why, in one line without secrets.
    pub reason: String,
    /// For how long.
    pub lasts: Duration,
    /// How long until it is tried again, where that is planned.
    pub next_try: Option<Duration>,
}

/// The event that a partition's progress waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incomplete {
    /// Its number.
    pub sequence_number: SequenceNumber,
    /// For how long we have had it.
    pub age: Duration,
}

/// How long ago a loop last went round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pulse {
    /// Time since its last round.
    pub silent_for: Duration,
    /// The longest that is still in order for this loop.
    pub limit: Duration,
}

/// All that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Where the process is in its life.
    pub phase: Phase,
    /// The partitions we own.
    pub partitions: BTreeMap<PartitionId, PartitionStatus>,
    /// The document store.
    pub store: StoreState,
    /// For how long it has been like that.
    pub store_lasts: Duration,
    /// How long until it is tried again, where that is planned.
    pub store_next_try: Option<Duration>,
    /// The partitions whose progress waits for a dead letter that could not be stored.
    pub waits_for_dead_letters: BTreeSet<PartitionId>,
    /// What shows services who we are.
    pub tokens: Vec<Token>,
    /// The loops by name.
    pub loops: BTreeMap<String, Pulse>,
    /// What has been asked of the other dependencies, and whether it is out of order.
    pub dependencies: BTreeMap<Dependency, Option<Outage>>,
    /// What each partition's progress waits for, where it waits.
    pub incomplete: BTreeMap<PartitionId, Incomplete>,
    /// For how long an event may be incomplete before its partition counts as blocked, and for how long throttling is borne.
    pub blocked_after: Duration,
}
