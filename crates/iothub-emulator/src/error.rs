//! Why the hub refused an operation. A refused operation changes nothing and emits no notification.

use super::TwinId;

/// A refusal of the hub.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The device or module id breaks the rules for ids.
    #[error("invalid {kind} id {id:?}: {reason}")]
    InvalidId {
        /// `device` or `module`.
        kind: &'static str,
        /// The id as given.
        id: String,
        /// Which rule it breaks.
        reason: String,
    },
    /// The device or module does not exist.
    #[error("no such twin: {0}")]
    NotFound(TwinId),
    /// The device or module exists already.
    #[error("cannot create {0}: it exists already")]
    AlreadyExists(TwinId),
    /// The twin's ETag is not the one that the writer gave.
    #[error("the etag of {0} is not the one given")]
    EtagMismatch(TwinId),
    /// The twin or patch breaks the rules for twins.
    #[error("invalid twin at {path}: {reason}")]
    InvalidTwin {
        /// The position, as a JSON pointer such as `/properties/desired/a`.
        path: String,
        /// Which rule it breaks.
        reason: String,
    },
    /// A section would become larger than its limit.
    #[error("{section} would take {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// `tags`, `properties.desired` or `properties.reported`.
        section: &'static str,
        /// The size that it would have, without metadata.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
}
