//! The world as the daemons' ports show it.

mod checkpoints;
mod documents;
mod events;
mod letters;
mod notes;
mod registry;

pub(crate) use self::{
    checkpoints::Checkpoints, documents::Documents, events::Hub, letters::Letters, notes::Notes,
    registry::Registry,
};
