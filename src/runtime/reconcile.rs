//! Everything that asks the IoT hub itself, so that the copy is right whatever happened to events.
//!
//! ```text
//! router ── flagged documents ─► repair queue ─┐
//! scan of flagged documents ───────────────────┤
//! backfill: pages of a query ──────────────────┼─► reconciler: read ─► GET ─► compare ─► conditional write
//! audit: pages of a query, documents ──────────┤
//! resync: twins that a person names ───────────┘
//! ```
//!
//! A query lists candidates, and a point read decides. All of this runs in the background: lanes never wait for the registry. A document
//! that changes in between is read again.

pub mod audit;
pub mod backfill;
pub mod candidates;
pub mod reconciler;
pub mod repair_queue;
pub mod requests;
mod scanning;
pub mod schedule;
#[cfg(test)]
mod testing;
