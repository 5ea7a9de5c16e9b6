//! The pure core: every decision about events, twins and progress.
//!
//! Nothing in here performs I/O, reads a clock or draws a random number; time and jitter arrive as
//! arguments. The same input gives the same output, which is what makes the property tests possible.

pub mod audit;
pub mod awaited;
pub mod behind;
pub mod checks;
pub mod dead_letter_counts;
pub mod decide;
pub mod decode;
pub mod differences;
pub mod document;
pub mod drift;
pub mod event;
pub mod headline;
pub mod health;
pub mod hint;
pub mod id;
pub mod invariant;
pub mod lane;
pub mod lease;
pub mod merge;
pub mod message;
pub mod mounts;
pub mod other_partitions;
pub mod outage;
pub mod patch;
pub mod patience;
pub mod progress;
pub mod query;
pub mod quota;
pub mod refresh;
pub mod registry;
pub mod rest;
pub mod retry;
pub mod room;
pub mod sampling;
pub mod standing;
#[cfg(test)]
pub(crate) mod testing;
pub mod ticks;
pub mod token;
pub mod upsert;
pub mod wait;
pub mod walk;
