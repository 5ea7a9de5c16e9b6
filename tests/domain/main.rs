//! Tests of the pure core with a model of IoT Hub, with faulty stores and with recorded events.
//!
//! `TWINSYNC_HISTORIES` sets how many random histories each convergence test plays. A failure prints the seed;
//! `TWINSYNC_SEED` starts at that seed. `TWINSYNC_CAPTURED_EVENTS` names a folder of recorded events to replay.

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
