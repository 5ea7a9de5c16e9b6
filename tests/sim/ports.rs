//! The ports of the simulated daemons.

mod checkpoints;
mod dead_letters;
mod documents;
mod events;
mod notes;
mod registry;

pub(crate) use self::{
    checkpoints::Checkpoints, dead_letters::DeadLetterStore, documents::Documents, events::Hub, notes::Notes,
    registry::Registry,
};
