//! The loops that perform what the domain decides.
//!
//! ```text
//! stream (one per Event Hub) ─ partition loops ─► intake ─► router ─► workers ─► store
//!   │  ├─ leases: which partitions this replica owns          │  └──► dead letters
//!   │  ├─ partitions: which there are
//!   │  └─ lag                              progress ◄─────────┘
//!   └─ committer ─► checkpoints ◄─────────────┘
//! receive_threads: where the partition loops run, with their connections
//! replay: dead letters ─► intake, on request
//! twins ─► store, on request; waits for what the router writes
//! queries ─► store, on request; IoT Hub's query language over the documents
//! counts ◄─ changes of the store: declared counts
//! rate_limited_registry ─► registry of a hub, at the pace of quota
//! ```
//!
//! | module | does |
//! |---|---|
//! | [`stream`], [`partitions`], [`lease`], [`start`] | owns the partitions of one Event Hub, and knows where each one resumes |
//! | [`partition`], [`receive_threads`] | receives, decodes, dispatches |
//! | [`progress`], [`intake`], [`in_flight`] | shared by partitions and router: progress, dispatch, in-flight limits |
//! | [`router`], [`worker`], [`documents`] | lanes of twins, reads and writes, and the cache between them |
//! | [`committer`], [`lag`] | checkpoints; how far a partition lags, and whether its link is silent |
//! | [`reconcile`], [`rate_limited_registry`], [`quota`], [`replicas`] | repair, backfill and audit within the hub's quota, which replicas share |
//! | [`budgeted_store`], [`request_unit_budget`] | the cap on request units |
//! | [`twins`], [`queries`], [`counts`], [`store_watch`] | answers to HTTP requests, and declared counts |
//! | [`replay`] | dead letters, replayed on the normal path |
//!
//! Every task has an owner that joins it. A panic in a task ends the daemon: the checkpoint has not moved past open events, so a restart
//! replays them.

pub mod budgeted_store;
pub mod committer;
pub mod counts;
pub mod documents;
pub mod in_flight;
pub mod intake;
pub mod jitter;
pub mod lag;
pub mod lease;
#[cfg(test)]
pub(crate) mod memory_store;
pub mod owned_count;
pub mod partition;
pub mod partitions;
pub mod progress;
pub mod queries;
pub mod quota;
pub mod rate_limited_registry;
pub mod receive_threads;
pub mod reconcile;
pub mod replay;
pub mod replicas;
pub mod request_unit_budget;
pub mod router;
pub mod start;
pub mod store_watch;
pub mod stream;
pub mod twins;
pub mod watch;
pub mod worker;
