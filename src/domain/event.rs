//! The change of a twin, decoded from one message.

use super::{
    document::Operation,
    id::TwinKey,
    patch::Patch,
    ticks::Ticks,
    twin::{Sections, TwinVersion},
};

/// One change of one twin.
#[derive(Debug, Clone, PartialEq)]
pub struct TwinEvent {
    /// The twin.
    pub key: TwinKey,
    /// When the hub performed the operation.
    pub at: Ticks,
    /// The change.
    pub change: Change,
}

/// The kinds of change.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The identity was created with this twin.
    Created {
        /// Version of the new twin.
        version: TwinVersion,
        /// The whole twin.
        twin: Sections,
    },
    /// The identity was deleted, and with it the twin.
    Deleted,
    /// A merge patch was applied.
    Updated {
        /// Version after the patch.
        version: TwinVersion,
        /// The patch.
        patch: Patch,
    },
    /// Tags and desired properties were replaced whole.
    Replaced {
        /// Version after the replacement.
        version: TwinVersion,
        /// The new content; `reported` only if the event contains it.
        twin: Sections,
    },
    /// Internal: the answer of the registry to a point read. The read was sent after the document had been read, and
    /// the answer is written only over that document. So it reflects everything that the document can know.
    Snapshot {
        /// Version of the twin read.
        version: TwinVersion,
        /// The whole twin.
        twin: Sections,
    },
    /// Internal: the registry answered a point read, sent as for a snapshot, that there is no such twin.
    Gone,
    /// Internal: an event of this time could not be applied and is kept as a dead letter, so its change is missing.
    Unapplied,
    /// Internal: the parent device was re-created, but no deletion was received. So it is unknown whether this module
    /// still exists.
    ParentReborn,
}

impl Change {
    /// The name stored in `sync.op`.
    pub fn operation(&self) -> Operation {
        match self {
            Self::Created { .. } => Operation::Create,
            Self::Deleted => Operation::Delete,
            Self::Updated { .. } => Operation::Update,
            Self::Replaced { .. } => Operation::Replace,
            Self::Snapshot { .. } | Self::Gone => Operation::Snapshot,
            Self::Unapplied | Self::ParentReborn => Operation::Flag,
        }
    }
}
