//! What the router knows of each event until that is completed.

use crate::{
    domain::{document::Cascade, id::TwinKey, ticks::Ticks},
    runtime::intake::Origin,
};

impl Item {
    /// Whether it is an event that is sampled.
    pub(super) fn is_sampled(&self) -> bool {
        matches!(self, Self::FromStream(origin, _) if origin.trace.is_some())
    }
}

/// What travels with an event through its lane.
pub(super) enum Item {
    FromStream(Box<Origin>, Ticks),
    /// The flag about the twin of a dead letter; the dead letter's event completes with it.
    OfDeadLetter(Box<Origin>),
    /// Follows a device's event; the group completes when all its members have.
    Follow(GroupId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct GroupId(pub(super) u64);

/// A dead letter that is durable, and the flag that follows from it.
pub(super) struct StoredDeadLetter {
    pub(super) origin: Box<Origin>,
    pub(super) twin: Option<(TwinKey, Option<Ticks>)>,
    pub(super) reason: &'static str,
}

/// Events of a device whose modules are still on their way.
pub(super) struct Group {
    pub(super) open: usize,
    pub(super) items: Vec<Item>,
    /// The device, and the note in its document that is done with when they are durable.
    pub(super) device: TwinKey,
    pub(super) cascade: Option<Cascade>,
}
