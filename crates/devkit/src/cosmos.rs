//! Cosmos DB: the SDK's in-memory emulator as an HTTP server, so that other processes and other languages can use it.
//!
//! | module | contents |
//! |---|---|
//! | [`Server`] | one account with one container (partition key `/deviceId`), created at start |
//! | `bridge` | HTTP request → emulator → HTTP answer |
//! | `authorization` | the master-key signature, verified as the service does |
//! | [`Faults`] | error answers, before or after the request is performed; latency; outage; another consistency, a second write region |
//! | [`price`] | the request units of requests: a model from published figures |
//! | `stale_reads` | reads that do not see the newest writes yet |
//! | [`Counters`] | requests and request units by operation and status |
//!
//! The emulator belongs to a feature of the SDK that has no compatibility guarantee. So its version is pinned, and only this module uses
//! it. It does not support a time to live. Its data is in memory only, and its resource ids do not survive a restart.

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
pub use faults::{Consistency, ContainerOverrides, Fault, FaultError, Faults, Moment, Operations};
pub use server::{Error, Options, RECOMMENDED_POLICY, Server, service_default_policy};

/// The name of the second write region, which [`Faults::multi_write`] adds.
pub const ELSEWHERE: &str = "Elsewhere";
