//! The loops that perform what the domain decides.
//!
//! ```text
//! stream (one per Event Hub) ─ partition loops ─► intake ─► router ─► workers ─► store
//!   │  ├─ leases: which partitions are ours                   │  └──► dead letters
//!   │  └─ lag                              progress ◄─────────┘
//!   └─ committer ─► checkpoints ◄─────────────┘
//! replay: dead letters ─► intake, on request
//! ```
//!
//! Every task has an owner that joins it, and a panic in one of them ends the daemon: progress is held, so a
//! restart replays what was open.

pub mod committer;
pub mod in_flight;
pub mod lag;
pub mod lease;
pub mod partition;
pub mod replay;
pub mod router;
pub mod start;
pub mod stream;
pub mod worker;
