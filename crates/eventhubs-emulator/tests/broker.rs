//! The broker, tested by the Rust SDK's client over a real socket.
//!
//! Every wait has a deadline: a hang is a failure that names its place.

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
