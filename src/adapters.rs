//! Adapters translate between the ports and the outside world. SDK types stop here; an adapter has no `if`
//! about twins.

pub mod blob;
pub mod checkpoints;
pub mod cosmos;
pub mod credential;
pub mod date;
pub mod dead_letters;
pub mod directory;
mod durable_file;
pub mod eventhubs;
pub mod iothub;
pub mod mounts;
pub mod notes;
pub mod otlp;
pub mod process;
