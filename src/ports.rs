//! The traits through which the runtime drives the outside world.
//!
//! A port returns an outcome, not a status code. Reads are three-valued: present, absent, unknown; only
//! *absent* may lead to a create, and a timeout is *unknown*. Adapters translate; they decide nothing about
//! twins.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::domain::{
    document::Document,
    id::{PartitionId, SequenceNumber, TwinKey},
    message::Message,
};

pub use crate::domain::document::ETag;

/// What a point read found.
#[derive(Debug, Clone)]
pub enum Read {
    /// The document, with the ETag a conditional replace needs.
    Present(Arc<Document>, ETag),
    /// There is no such document.
    Absent,
    /// Something is stored under its id that is no document of ours; says what is wrong with it.
    Damaged(ETag, String),
    /// It could not be told.
    Unknown(Trouble),
}

/// What became of a conditional write.
#[derive(Debug, Clone)]
pub enum Write {
    /// It is durable under this ETag.
    Written(ETag),
    /// The condition did not hold: someone wrote in between. That someone may be an earlier, re-sent attempt
    /// of this very write.
    Conflict,
    /// It will never be accepted: too large or malformed. Holds the reason without payload.
    Rejected(String),
    /// It was not applied, or it was and the reply is lost.
    Unknown(Trouble),
}

/// Why an operation did not come to an answer. All of these pass with time.
#[derive(Debug, Clone)]
pub struct Trouble {
    /// Whether the service asked for less load.
    pub kind: TroubleKind,
    /// How long the service asked to wait.
    pub retry_after: Option<Duration>,
    /// One line for logs: operation and status, no payload, no secret.
    pub message: String,
}

/// The kinds of passing trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TroubleKind {
    /// The service throttles (429): slow down; this is no failure.
    Throttled,
    /// The service or the way to it fails: timeouts, 5xx, connection errors, and refusals that an operator
    /// can mend while we wait (401, 403, a missing container).
    Unavailable,
}

/// The outcome of an operation together with what it cost.
#[derive(Debug, Clone)]
pub struct Charged<T> {
    /// The outcome.
    pub outcome: T,
    /// Request units charged by the service.
    pub request_units: f64,
}

/// Where documents live.
///
/// *Guarantees*: a `Written` document is durable; a write is applied only if its condition held.
/// *Assumptions*: one document per twin; the caller serialises its own writes of one twin.
/// *Cancellation*: a dropped write may or may not have been applied: read again.
/// *Idempotence*: none; conditions are what makes a repeat harmless.
/// *Errors*: in the outcome; the implementation neither retries nor waits longer than one operation's limit.
#[async_trait]
pub trait TwinStore: Send + Sync + 'static {
    /// Reads the document of `key`.
    async fn read(&self, key: &TwinKey) -> Charged<Read>;
    /// Writes a document that must not exist yet.
    async fn create(&self, key: &TwinKey, document: &Document) -> Charged<Write>;
    /// Replaces the document that still has `etag`.
    async fn replace(&self, key: &TwinKey, document: &Document, etag: &ETag) -> Charged<Write>;
    /// The modules of a device that have a document of any state.
    async fn modules(&self, device: &TwinKey) -> Charged<Result<Vec<TwinKey>, Trouble>>;
}

/// An event that can never be applied, with all a person needs to judge it.
#[derive(Debug, Clone)]
pub struct DeadLetter<'a> {
    /// The partition it came from.
    pub partition: &'a PartitionId,
    /// The message as received.
    pub message: &'a Message,
    /// Stable reason code, e.g. `body_not_json`.
    pub reason: &'static str,
    /// One sentence for people; no payload.
    pub detail: String,
}

/// Where events go that can never be applied.
///
/// *Guarantees*: when `store` returns `Ok`, the letter is durable.
/// *Idempotence*: storing the letter of one position twice leaves one letter.
/// *Cancellation*: a dropped call may have stored the letter; store again.
/// *Errors*: passing; the caller retries for ever and holds the partition's progress meanwhile.
#[async_trait]
pub trait DeadLetters: Send + Sync + 'static {
    /// Stores one letter durably.
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
    /// Where it should have gone; no secret.
    pub place: String,
    /// What the operating system or service said.
    #[source]
    pub source: std::io::Error,
}
