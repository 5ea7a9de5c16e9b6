//! The pure core against a model of IoT Hub, against faulty stores, and against recorded events.
//!
//! `TWINSYNC_HISTORIES` sets how many random histories each convergence test plays; a failure prints the
//! seed, and `TWINSYNC_SEED` starts there. `TWINSYNC_CAPTURED_EVENTS` names a folder of recorded events to replay.

mod convergence;
#[path = "../model/delivery.rs"]
mod delivery;
#[path = "../model/hub.rs"]
#[allow(dead_code, reason = "tests/sim uses the rest")]
mod hub;
mod recorded;
mod registry;
mod replica;
mod silence;
mod store;
mod upsert;
