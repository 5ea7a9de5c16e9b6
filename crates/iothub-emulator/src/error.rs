//! Why the hub refused an operation. A refused operation changes nothing and notifies nobody.

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
    /// There is no such device or module.
    #[error("no such twin: {0}")]
    NotFound(TwinId),
    /// The device or module exists already.
    #[error("cannot create {0}: it exists already")]
    AlreadyExists(TwinId),
    /// The twin's etag is not the one that the writer expects.
    #[error("the etag of {0} is not the one given")]
    EtagMismatch(TwinId),
    /// The twin or patch breaks the rules for twins.
    #[error("invalid twin at {path}: {reason}")]
    InvalidTwin {
        /// Where, as a JSON path such as `/properties/desired/a`.
        path: String,
        /// Which rule it breaks.
        reason: String,
    },
    /// A section would grow past its limit.
    #[error("{section} would take {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// `tags`, `properties.desired` or `properties.reported`.
        section: &'static str,
        /// The size it would have, without metadata.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
}
