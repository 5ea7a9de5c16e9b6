//! The rules and the dashboard of `deploy/`, tested with real outages and a real Prometheus.

mod live;
mod outages;
mod recorded;

use crate::{flag::now, poison::twin_change, world::World};

/// Appends an event that can never be applied.
fn poison(world: &World, device: &str) {
    let hub = &world.stack.endpoints().twin_changes_hub;
    world.stack.broker().append(hub, device, now(twin_change(device, b"[1]"))).expect("appended");
}
