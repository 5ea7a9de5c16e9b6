//! The service REST API of the hub over HTTP/1.1, with which back ends read and write twins.
//!
//! | module | contents |
//! |---|---|
//! | [`Server`] | the socket; sets faults and quota, and returns the counters |
//! | `call` | finds the operation of a request, and performs it |
//! | `pages` | queries, and their answers page by page |
//! | `authorization` | shared access signatures and bearer tokens |
//! | [`Quota`] | the tier's limits as token buckets; requests beyond them are answered with 429 |
//! | [`Faults`] | error answers, missing answers, broken connections, and queries that show an earlier state |
//! | [`Counters`] | requests by operation and answer |
//!
//! | request | answers |
//! |---|---|
//! | `GET`, `PATCH`, `PUT /twins/{device}`, and the same + `/modules/{module}` | the latest twin; `If-Match` guards writes |
//! | `POST /devices/query` | a page of twins or rows, and `x-ms-continuation` if there are more |
//! | `GET /statistics/devices` | devices by status |
//!
//! Each request needs `api-version`. A read by id always shows the latest twin. A query may show the state of some time ago, see
//! [`Faults::stale_by_ms`]. There is no API for identities, jobs and direct methods.

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
