//! The traits through which the runtime uses external services.
//!
//! | port | gives | of |
//! |---|---|---|
//! | [`EventSource`], [`Receiver`] | the messages of a partition in order, and what a partition holds | Event Hubs |
//! | [`TwinStore`] | one document, conditional writes, pages of flagged or of all documents | Cosmos DB |
//! | [`TwinSelection`] | documents by condition, for queries | Cosmos DB |
//! | [`TwinChanges`] | documents in the order in which they change, for declared counts | Cosmos DB |
//! | [`TwinRegistry`] | one twin, and pages of a query | IoT Hub |
//! | [`DeadLetters`], [`DeadLetterArchive`] | a store for events that can never be applied, and reading them back | files, blobs |
//! | [`NoteStore`] | small notes that survive restarts | files, blobs |
//! | [`SharedCheckpoints`] | the checkpoints of all replicas | blobs |
//! | [`Clock`] | the time of day | |
//!
//! A port returns an outcome, not a status code. Reads have three results: present, absent, unknown. Only *absent* may
//! lead to a create; a timeout is *unknown*. Each port documents what it guarantees, what it assumes, what a cancelled
//! call may have done, whether it may be repeated, and which errors are temporary.

mod archive;
mod changes;
mod note;
mod registry;
mod selection;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::domain::{
    document::Document,
    grace_period::Nature,
    health::Failure,
    id::{HubName, PartitionId, Position, SequenceNumber, TwinKey},
    message::Message,
    progress::Extent,
    ticks::Ticks,
};

pub use self::archive::{
    ArchiveError, DeadLetterArchive, LetterName, LetterVersion, ReadLetter, Removed, StoredLetter,
    partition_order,
};
pub use self::changes::{Change, Changed, TwinChanges};
pub use self::note::{NoteError, NoteStore};
pub use self::registry::{Call, Continuation, Got, Page, QueryError, TwinRegistry};
pub use self::selection::{Cursor, Documents, Filter, SelectError, Selected, TwinSelection};
pub use crate::domain::document::ETag;

/// The result of a point read.
#[derive(Debug, Clone)]
pub enum Read {
    /// The document, with the ETag that a conditional replace needs.
    Present(Arc<Document>, ETag),
    /// There is no document.
    Absent,
    /// The item stored under its id is not one of our documents; the text says what is wrong with it.
    Damaged(ETag, String),
    /// The document of another twin is stored under its id; the text says what to do about it. It is never overwritten.
    Foreign(String),
    /// No document can have this id, so the store will never answer about it. Contains the reason, without payload.
    Refused(String),
    /// The outcome is unknown.
    Unknown(StoreError),
}

/// The outcome of a conditional write.
#[derive(Debug, Clone)]
pub enum Write {
    /// It is durable under this ETag.
    Written(ETag),
    /// The condition failed: another write happened in between. It may be an earlier, re-sent attempt of this same
    /// write.
    Conflict,
    /// It will never be accepted: too large or malformed. Contains the reason, without payload.
    Rejected(String),
    /// It was not applied, or it was applied and the reply was lost.
    Unknown(StoreError),
}

/// Why an operation got no answer. All of these errors are temporary.
#[derive(Debug, Clone)]
pub struct StoreError {
    /// The kind of error, e.g. whether the service asked for less load.
    pub kind: StoreErrorKind,
    /// Stable code; `docs/errors/<code>.md` explains it.
    pub code: &'static str,
    /// How long the service asked us to wait.
    pub retry_after: Option<Duration>,
    /// One line for logs: operation and status, without payload or secret.
    pub message: String,
}

/// Code of a twin for which there is no usable answer, although there are answers for others.
pub const TWIN_UNANSWERED: &str = "TWIN_UNANSWERED";

/// The kinds of temporary errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// The service throttles (429): slow down; this is not a failure.
    Throttled,
    /// The service or the connection to it fails: timeouts, 5xx, connection errors, and refusals that an operator can
    /// fix while we wait (401, 403, a missing container).
    Unavailable,
    /// The service answers, but its answers about one twin contradict each other: there is no document, and none can be
    /// created.
    Contradictory,
    /// The service answers with a document that only a newer release understands: this twin waits for a replica of that
    /// release.
    Newer,
}

/// The documents that a scan returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Documents of twins that exist, as far as is known: no tombstones.
    Present,
    /// Flagged documents, and documents of devices whose modules have not been checked since the device's repair.
    Flagged,
}

/// A document that a scan has returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scanned {
    /// Its id.
    pub id: String,
    /// Its twin.
    pub key: TwinKey,
    /// When its content was decided.
    pub applied_at: Ticks,
}

/// The result of an operation together with its cost.
#[derive(Debug, Clone)]
pub struct Charged<T> {
    /// The result.
    pub outcome: T,
    /// Request units that the service charged.
    pub request_units: f64,
}

/// The store of documents.
///
/// *Guarantees*: a `Written` document is durable; a write is applied only if its condition held.
/// *Assumptions*: there is one document per twin; the caller serialises its own writes of one twin.
/// *Cancellation*: a dropped write may or may not have been applied: read again.
/// *Idempotence*: none; the conditions make a repeat harmless.
/// *Errors*: in the outcome; the implementation neither retries nor waits longer than the limit of one operation.
#[async_trait]
pub trait TwinStore: Send + Sync + 'static {
    /// Reads the document of `key`.
    async fn read(&self, key: &TwinKey) -> Charged<Read>;
    /// Writes a document that must not exist yet.
    async fn create(&self, key: &TwinKey, document: &Document) -> Charged<Write>;
    /// Replaces the document that still has `etag`.
    async fn replace(&self, key: &TwinKey, document: &Document, etag: &ETag) -> Charged<Write>;
    /// The modules of a device that have a document in any state.
    async fn modules(&self, device: &TwinKey) -> Charged<Result<Vec<TwinKey>, StoreError>>;
    /// The hubs that have a document of this device or module, in any state, in the order of their names: for callers
    /// that do not know the hub.
    async fn hubs(&self, device: &str, module: Option<&str>) -> Charged<Result<Vec<HubName>, StoreError>>;
    /// Scans the documents of all hubs, page by page, in no particular order; each page comes with its cost. Documents
    /// written during the scan may or may not be included. The stream ends after an error.
    fn scan(&self, which: Which) -> BoxStream<'_, Charged<Result<Vec<Scanned>, StoreError>>>;
}

/// An event that can never be applied, with everything that a person needs to assess it.
#[derive(Debug, Clone)]
pub struct DeadLetter<'a> {
    /// The partition it came from.
    pub partition: &'a PartitionId,
    /// The message as received.
    pub message: &'a Message,
    /// Stable reason code, e.g. `body_not_json`.
    pub reason: &'static str,
    /// One sentence for people, without payload.
    pub detail: String,
}

/// The store of events that can never be applied.
///
/// *Guarantees*: when `store` returns `Ok`, the dead letter is durable.
/// *Idempotence*: storing the dead letter of one position twice leaves one dead letter.
/// *Cancellation*: a dropped call may have stored the dead letter; store again.
/// *Errors*: temporary; the caller retries without a limit, and the partition's progress waits meanwhile.
#[async_trait]
pub trait DeadLetters: Send + Sync + 'static {
    /// Stores one dead letter durably.
    async fn store(&self, letter: DeadLetter<'_>) -> Result<(), DeadLetterError>;
}

/// A dead letter could not be made durable.
#[derive(Debug, thiserror::Error)]
#[error("cannot store the dead letter of {partition}@{sequence_number} in {place}")]
pub struct DeadLetterError {
    /// The partition of the event.
    pub partition: PartitionId,
    /// Its sequence number.
    pub sequence_number: SequenceNumber,
    /// The place where it should have been stored; no secret.
    pub place: String,
    /// Stable code; `docs/errors/<code>.md` explains it.
    pub code: &'static str,
    /// The error of the operating system or service. If the service asks for less load, its kind is `ResourceBusy`.
    #[source]
    pub source: std::io::Error,
}

impl DeadLetterError {
    /// The kind of failure of the store.
    pub fn failure(&self) -> Failure {
        match self.source.kind() {
            std::io::ErrorKind::ResourceBusy => Failure::Throttled,
            _ => Failure::Silent,
        }
    }
}

/// A checkpoint that all replicas share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedCheckpoint {
    /// The partition.
    pub partition: String,
    /// The event up to which all events are completed; `None` if another program wrote the checkpoint, without a
    /// number.
    pub number: Option<SequenceNumber>,
    /// When it was written, by the store's clock.
    pub written: Option<Ticks>,
}

/// The progress of all replicas.
///
/// *Cancellation*: calls may be dropped. *Errors*: why the checkpoints cannot be listed, in one line without secrets.
#[async_trait]
pub trait SharedCheckpoints: Send + Sync + 'static {
    /// Lists the checkpoints of an Event Hub and consumer group.
    async fn written(
        &self,
        namespace: &str,
        hub: &str,
        consumer_group: &str,
    ) -> Result<Vec<SharedCheckpoint>, String>;
}

/// Where receiving begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// At the oldest retained event.
    Earliest,
    /// At the event with this position, which was received before. If it is delivered again, the partition is still the
    /// same one. Its offset is known and is used in the request; an offset survives a geo-failover.
    At(Position),
    /// After the event with this sequence number; nothing else is known about it.
    After(SequenceNumber),
}

impl Start {
    /// Starts after an event that was received before; sequence number −1 means the beginning of the partition.
    pub fn behind(position: Position) -> Self {
        match position.offset.is_empty() {
            true if position.sequence_number.0 < 0 => Self::Earliest,
            true => Self::After(position.sequence_number),
            false => Self::At(position),
        }
    }
}

/// Why a source cannot be read at present.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SourceError {
    /// The AMQP layer cannot decode one message; the link still works and the message is skipped.
    #[error("a message could not be decoded by the AMQP layer: {0}")]
    Undecodable(String),
    /// Another receiver took over the partition.
    #[error("another receiver took the partition over (link stolen)")]
    Stolen,
    /// The service refuses our request: credentials or roles.
    #[error("{operation} was refused: {reason}")]
    Refused {
        /// The operation that was tried.
        operation: &'static str,
        /// The service's message; no secret.
        reason: String,
    },
    /// There is no token: the service was not called.
    #[error("{reason}")]
    NoToken {
        /// Which credential provides no token, and why; no secret.
        reason: String,
        /// Whether an operator must fix it.
        refused: bool,
    },
    /// The token of this client has expired, and it was not replaced in time: only a new client gets a new token.
    #[error("the token for Event Hubs has expired and was not renewed")]
    TokenExpired,
    /// The hub, group or partition does not exist.
    #[error("{operation} failed because something does not exist: {reason}")]
    NotFound {
        /// The operation that was tried.
        operation: &'static str,
        /// The service's message.
        reason: String,
    },
    /// The service asks for less load: the namespace exceeds its throughput.
    #[error("{operation} was throttled: {reason}")]
    Throttled {
        /// The operation that was tried.
        operation: &'static str,
        /// The service's message.
        reason: String,
    },
    /// A limit of the service is reached, e.g. five readers in one consumer group.
    #[error("{operation} reached a limit of Event Hubs: {reason}")]
    LimitReached {
        /// The operation that was tried.
        operation: &'static str,
        /// The service's message.
        reason: String,
    },
    /// The connection to the service is broken.
    #[error("{operation} failed: {reason}")]
    Lost {
        /// The operation that was tried.
        operation: &'static str,
        /// The SDK's message, on one line.
        reason: String,
    },
}

impl SourceError {
    /// Whether waiting helps. A missing Event Hub or consumer group must be created by an operator.
    pub const fn nature(&self) -> Nature {
        match self {
            Self::Refused { .. } | Self::NotFound { .. } | Self::NoToken { refused: true, .. } => {
                Nature::Refused
            }
            Self::Undecodable(_)
            | Self::Stolen
            | Self::TokenExpired
            | Self::NoToken { refused: false, .. }
            | Self::Throttled { .. }
            | Self::LimitReached { .. }
            | Self::Lost { .. } => Nature::Passing,
        }
    }

    /// Stable code; `docs/errors/<code>.md` explains it.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "EVENTHUBS_REFUSED",
            Self::NotFound { .. } => "EVENTHUBS_NOT_FOUND",
            Self::NoToken { .. } => "CREDENTIAL_NO_TOKEN",
            Self::Throttled { .. } => "EVENTHUBS_THROTTLED",
            Self::Stolen => "EVENTHUBS_FOREIGN_READER",
            Self::LimitReached { .. } => "EVENTHUBS_LIMIT",
            Self::Undecodable(_) | Self::TokenExpired | Self::Lost { .. } => "EVENTHUBS_UNAVAILABLE",
        }
    }

    /// What an operator can do about it.
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::Refused { .. } | Self::TokenExpired => {
                "give the identity the role `Azure Event Hubs Data Receiver` on the namespace (new assignments take some minutes), and check the section [credential]"
            }
            Self::NoToken { .. } => "without a token, roles have no effect",
            Self::Throttled { .. } => {
                "raise the namespace's throughput units, or check who else reads from it"
            }
            Self::NotFound { .. } => {
                "check eventhubs.namespace, the hub's name and eventhubs.consumer_group; consumer groups are not created by twinsync"
            }
            Self::Stolen => {
                "another program reads with an owner level, which disconnects all other readers: give twinsync a consumer group of its own (eventhubs.consumer_group)"
            }
            Self::LimitReached { .. } => {
                "give twinsync a consumer group of its own (eventhubs.consumer_group), in which five readers may read a partition, or check what the namespace's tier allows"
            }
            Self::Lost { .. } | Self::Undecodable(_) => {
                "check eventhubs.namespace (and eventhubs.endpoint for an emulator), DNS, and that port 5671 is open"
            }
        }
    }

    /// Its name in metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Undecodable(_) => "undecodable",
            Self::Stolen => "stolen",
            Self::Refused { .. } => "refused",
            Self::NoToken { .. } => "no_token",
            Self::TokenExpired => "token_expired",
            Self::NotFound { .. } => "not_found",
            Self::Throttled { .. } => "throttled",
            Self::LimitReached { .. } => "limit_reached",
            Self::Lost { .. } => "lost",
        }
    }

    /// The kind of failure of the service.
    pub const fn failure(&self) -> Failure {
        match self {
            Self::Throttled { .. } => Failure::Throttled,
            Self::Undecodable(_)
            | Self::Stolen
            | Self::Refused { .. }
            | Self::TokenExpired
            | Self::NoToken { .. }
            | Self::NotFound { .. }
            | Self::LimitReached { .. }
            | Self::Lost { .. } => Failure::Silent,
        }
    }
}

/// One Event Hub with one consumer group.
///
/// *Guarantees*: events of a partition arrive in order; after an error other than `Undecodable`, the receiver cannot be
/// used any more.
/// *Cancellation*: every call may be dropped. A dropped `receive` may lose the events that it held, so the caller then
/// opens a new receiver at the last event it received.
/// *Errors*: nothing is retried inside.
#[async_trait]
pub trait EventSource: Send + Sync + 'static {
    /// Name of the Event Hub.
    fn name(&self) -> &str;
    /// Ids of the partitions.
    async fn partitions(&self) -> Result<Vec<String>, SourceError>;
    /// The properties of a partition: which events it holds.
    async fn extent(&self, partition: &str) -> Result<Extent, SourceError>;
    /// Opens a receiver. Only the first `receive` shows whether the partition can be read.
    async fn open(&self, partition: &str, start: Start) -> Result<Box<dyn Receiver>, SourceError>;
    /// Closes the connection used by management calls.
    async fn close(&self);
}

/// Receives from one partition.
#[async_trait]
pub trait Receiver: Send {
    /// Waits for events: returns at least one, and all others that are already available.
    async fn receive(&mut self) -> Result<Vec<Message>, SourceError>;
    /// Detaches cleanly, within a second or two.
    async fn close(self: Box<Self>);
}

/// The time of day. Durations are measured with tokio's clock; this clock is only used for timestamps.
pub trait Clock: Send + Sync + 'static {
    /// The current time.
    fn now(&self) -> Ticks;
}

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Ticks {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let ticks = since.map_or(0, |since| since.as_nanos() / 100);
        Ticks::new(i64::try_from(ticks).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_a_source_has_a_page_and_tells_whether_waiting_helps() {
        let (operation, reason) = ("receiving", "x".to_owned());
        for (error, nature) in [
            (SourceError::Undecodable(reason.clone()), Nature::Passing),
            (SourceError::Stolen, Nature::Passing),
            (SourceError::TokenExpired, Nature::Passing),
            (SourceError::Refused { operation, reason: reason.clone() }, Nature::Refused),
            (SourceError::NotFound { operation, reason: reason.clone() }, Nature::Refused),
            (SourceError::NoToken { reason: reason.clone(), refused: true }, Nature::Refused),
            (SourceError::NoToken { reason: reason.clone(), refused: false }, Nature::Passing),
            (SourceError::LimitReached { operation, reason: reason.clone() }, Nature::Passing),
            (SourceError::Lost { operation, reason }, Nature::Passing),
        ] {
            let code = error.code();
            assert_eq!(error.nature(), nature, "{error:?}");
            let page = format!("{}/docs/errors/{code}.md", env!("CARGO_MANIFEST_DIR"));
            assert!(std::fs::read_to_string(&page).is_ok_and(|text| text.contains(code)), "{page}");
        }
    }
}
