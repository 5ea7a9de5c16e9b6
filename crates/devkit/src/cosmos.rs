//! Cosmos DB: the SDK's in-memory emulator as an HTTP server, so that other processes and other languages use it.
//!
//! | module | holds |
//! |---|---|
//! | [`Server`] | one account with one container (partition key `/deviceId`), seeded at start |
//! | `bridge` | HTTP request → emulator → HTTP answer |
//! | `authorization` | the master-key signature, checked as the service does |
//! | [`Faults`] | wrong answers, before or after the work is done; latency; outage; another consistency, a second write region |
//! | [`price`] | what requests cost: a model from published figures |
//! | `behind` | reads that do not see the newest writes yet |
//! | [`Counters`] | requests and request units by operation and status |
//!
//! The emulator sits behind a feature of the SDK without promises on compatibility, so its version is pinned and it
//! is used here only. It has no time to live and no unique ids across restarts: everything is in memory.

mod authorization;
mod bridge;
mod counters;
mod faults;
mod headers;
pub mod price;
mod reply;
mod server;
mod stale_reads;

pub use counters::{Counters, OperationCount};
pub use faults::{Consistency, Disguise, Fault, FaultError, Faults, Moment, Operations};
pub use server::{Error, Options, RECOMMENDED_POLICY, Server, service_default_policy};

/// The name of the second write region that a fault makes up.
pub const ELSEWHERE: &str = "Elsewhere";
