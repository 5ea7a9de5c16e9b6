//! Tests of the broker with the Rust SDK's client, over a real socket.
//!
//! Every wait has a deadline, so that a hang becomes a failure that says what was waited for.

#[path = "broker/client.rs"]
mod client;
#[path = "broker/delivery.rs"]
mod delivery;
#[path = "broker/faults.rs"]
mod faults;
#[path = "broker/positions.rs"]
mod positions;
#[path = "broker/refusals.rs"]
mod refusals;
#[path = "broker/sending.rs"]
mod sending;
#[path = "broker/throughput.rs"]
mod throughput;
