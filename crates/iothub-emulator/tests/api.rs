//! The hub's service REST API over a socket, as a back end uses it.

#![expect(clippy::unwrap_used, reason = "a test fails by panic, in its helpers too")]

#[path = "api/client.rs"]
mod client;
#[path = "api/faults.rs"]
mod faults;
#[path = "api/past.rs"]
mod past;
#[path = "api/queries.rs"]
mod queries;
#[path = "api/twins.rs"]
mod twins;
