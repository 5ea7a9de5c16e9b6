//! The implementations of the ports. SDK types are used only here, and an adapter makes no decisions about twins.
//!
//! | module | the port and the service behind it |
//! |---|---|
//! | [`eventhubs`] | [`EventSource`](crate::ports::EventSource): Event Hubs over AMQP, one client per partition, replaced and never repaired |
//! | [`cosmos`] | [`TwinStore`](crate::ports::TwinStore), [`TwinSelection`](crate::ports::TwinSelection), [`TwinChanges`](crate::ports::TwinChanges): Cosmos DB |
//! | [`iothub`] | [`TwinRegistry`](crate::ports::TwinRegistry): the service API of an IoT hub |
//! | [`checkpoints`] | the SDK's checkpoint store: in memory, in files, on blobs |
//! | [`dead_letters`] | [`DeadLetters`](crate::ports::DeadLetters) and [`DeadLetterArchive`](crate::ports::DeadLetterArchive): files or blobs |
//! | [`notes`] | [`NoteStore`](crate::ports::NoteStore): beside the checkpoints |
//! | [`blob`], `durable_file` | the base of the three above: a blob container; files that are whole after a crash |
//! | [`credential`] | tokens of Entra ID, and how long they are valid |
//! | [`otlp`] | spans for a collector |
//! | [`date`], [`directory`], [`mounts`] | facts about this machine and the services' clocks, for `twinsync check` and warnings |
//!
//! An error of an adapter has a stable code, one line for people without a secret, and a
//! [`Nature`](crate::domain::grace_period::Nature): whether waiting helps.

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
