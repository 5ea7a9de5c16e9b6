//! The hub's service REST API over a socket, as a back end sees it.

#![expect(clippy::unwrap_used, reason = "a test fails by panic, in its helpers too")]

#[path = "registry/client.rs"]
mod client;
#[path = "registry/faults.rs"]
mod faults;
#[path = "registry/past.rs"]
mod past;
#[path = "registry/queries.rs"]
mod queries;
#[path = "registry/twins.rs"]
mod twins;
