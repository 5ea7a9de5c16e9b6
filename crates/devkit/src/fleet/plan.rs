//! What a fleet is to do.

use serde::{Deserialize, Serialize};

/// A fleet's size, length and seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Plan {
    /// Devices to register.
    pub devices: usize,
    /// Events that the hub is to emit, over all phases. Duplicates and replays of the routes come on top.
    pub events: u64,
    /// The same seed gives the same operations.
    pub seed: u64,
    /// The share of devices with modules.
    pub modules: f64,
    /// The number of phases: an id is re-created in a later phase than it was deleted in.
    pub phases: usize,
    /// The share of deletions after which the id is re-created by the very next operation, faster than any skew
    /// between the streams: only a registry can tell then what belongs to which life.
    pub recreate_at_once: f64,
    /// Put before each device id, so that two fleets can share a hub.
    pub prefix: String,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            devices: 100,
            events: 5_000,
            seed: 1,
            modules: 0.1,
            phases: 3,
            recreate_at_once: 0.0,
            prefix: String::new(),
        }
    }
}

/// A plan that cannot be carried out.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// There is nobody to do anything.
    #[error("devices must be at least 1")]
    NoDevices,
    /// There is no time to do anything.
    #[error("phases must be between 1 and 100, not {0}")]
    Phases(usize),
    /// The share is out of range.
    #[error("modules is a share between 0 and 1, not {0}")]
    Modules(f64),
    /// The share is out of range.
    #[error("recreateAtOnce is a share between 0 and 1, not {0}")]
    RecreateAtOnce(f64),
    /// Each device and module is registered once, with one event.
    #[error("{events} events are too few: registering the devices and modules alone takes {registrations}")]
    TooFewEvents {
        /// The events of the plan.
        events: u64,
        /// The devices and modules that the plan registers.
        registrations: u64,
    },
    /// More than can be numbered.
    #[error("devices must be less than 2^32, not {0}")]
    TooManyDevices(usize),
    /// More than a twin holds.
    #[error("bytes must be at most {most}, not {bytes}")]
    Bytes {
        /// The bytes of the plan.
        bytes: usize,
        /// What a registration can bring along.
        most: usize,
    },
    /// The prefix does not make valid ids.
    #[error("the prefix does not make valid device ids")]
    Prefix(#[source] crate::iothub::Error),
}

impl Plan {
    pub(super) fn validate(&self) -> Result<(), PlanError> {
        if self.devices == 0 {
            Err(PlanError::NoDevices)
        } else if !(1..=100).contains(&self.phases) {
            Err(PlanError::Phases(self.phases))
        } else if !(0.0..=1.0).contains(&self.modules) {
            Err(PlanError::Modules(self.modules))
        } else if !(0.0..=1.0).contains(&self.recreate_at_once) {
            Err(PlanError::RecreateAtOnce(self.recreate_at_once))
        } else {
            Ok(())
        }
    }
}
