//! The service REST API of the hub over HTTP/1.1: what a back end reads and writes twins with.
//!
//! | module | holds |
//! |---|---|
//! | [`Server`] | the socket, and the handle for faults, quota and counters |
//! | `call` | which operation a request asks for, and performing it |
//! | `pages` | queries, and their answers page by page |
//! | `authorization` | shared access signatures and bearer tokens |
//! | [`Quota`] | the tier's limits as token buckets, answered with 429 beyond |
//! | [`Faults`] | wrong answers, silence, broken connections, and queries that show the past |
//! | [`Counters`] | requests by operation and answer |
//!
//! | request | answers |
//! |---|---|
//! | `GET`, `PATCH`, `PUT /twins/{device}`, and the same + `/modules/{module}` | the latest twin; `If-Match` guards writes |
//! | `POST /devices/query` | a page of twins, and `x-ms-continuation` if there are more |
//! | `GET /statistics/devices` | devices by status |
//!
//! Each takes `api-version`. A read by id is always current; a query may be as stale as [`Faults::stale_by_ms`] says.
//! Identities, jobs and direct methods are not here.

mod answer;
mod authorization;
mod call;
mod counters;
mod faults;
mod kind;
mod pages;
mod server;
mod throttle;

pub use counters::{Counters, OperationCount};
pub use faults::{Fault, FaultError, FaultKind, Faults, Operations};
pub use server::{Error, Options, Server};
pub use throttle::{Quota, QuotaError, Tier};
