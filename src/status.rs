//! The state of a replica, put together on request.
//!
//! The page, `/api/status` and `twinsync status` show the same [`schema::Status`], so they cannot disagree. It is computed from the health
//! state at the time of the request, so it turns red even if a loop has died. Rates need two points in time: a task keeps samples of the
//! metrics for 15 minutes. If that task is late, rates are unknown.

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
