//! What a replica knows about itself, put together when somebody asks.
//!
//! Page, `/api/status` and `twinsync status` show the same [`schema::Status`], so they cannot disagree. How it is follows
//! from the health state at the moment of asking; no loop has to live for it to turn red. Rates need two moments: a task keeps
//! samples of the metrics for a quarter of an hour, and where it is late, rates are not known.

pub(crate) mod codes;
mod dead_letters;
mod exposition;
mod history;
mod hubs;
mod observer;
mod other_partitions;
mod refreshed;
pub mod schema;

pub use self::{
    observer::{About, Observer},
    other_partitions::{OtherPartitions, SharedHub, WholeLag},
};
