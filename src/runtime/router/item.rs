//! State that the router keeps for each event until the event is completed.

use crate::{
    domain::{document::Cascade, id::TwinKey, ticks::Ticks},
    runtime::intake::Origin,
};

impl Item {
    /// Whether this is a sampled event.
    pub(super) fn is_sampled(&self) -> bool {
        matches!(self, Self::FromStream(origin, _) if origin.trace.is_some())
    }
}

/// The state that travels with an event through its lane.
pub(super) enum Item {
    FromStream(Box<Origin>, Ticks),
    /// The flag on the twin of a dead letter. The event of the dead letter completes with it.
    OfDeadLetter(Box<Origin>),
    /// An event that follows the event of its device. The group completes when all its members have completed.
    Follow(GroupId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct GroupId(pub(super) u64);

/// A durable dead letter, and the twin to be flagged because of it.
pub(super) struct StoredDeadLetter {
    pub(super) origin: Box<Origin>,
    pub(super) twin: Option<(TwinKey, Option<Ticks>)>,
    pub(super) reason: &'static str,
}

/// Events of a device that wait until its modules have followed.
pub(super) struct Group {
    pub(super) open: usize,
    pub(super) items: Vec<Item>,
    /// The device, and the cascade in its document that is cleared when the modules are durable.
    pub(super) device: TwinKey,
    pub(super) cascade: Option<Cascade>,
}
