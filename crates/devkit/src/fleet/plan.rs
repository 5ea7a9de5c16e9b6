//! The plan of a fleet.

use serde::{Deserialize, Serialize};

/// A fleet's size, length and seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Plan {
    /// Devices to register.
    pub devices: usize,
    /// Number of events that the hub emits in all phases. Duplicates and replays of the routes are not
    /// included.
    pub events: u64,
    /// Seed. The same seed gives the same operations.
    pub seed: u64,
    /// Share of devices with modules.
    pub modules: f64,
    /// Number of phases. An id is re-created in a later phase than that of its deletion.
    pub phases: usize,
    /// Share of deletions after which the next operation re-creates the id. This is faster than any skew
    /// between the streams, so only the registry can tell the incarnations apart.
    pub recreate_at_once: f64,
    /// Prefix of each device id, so that several fleets can share a hub.
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

/// Why a plan cannot be carried out.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// There are no devices.
    #[error("devices must be at least 1")]
    NoDevices,
    /// The number of phases is out of range.
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
    /// The devices cannot be numbered.
    #[error("devices must be less than 2^32, not {0}")]
    TooManyDevices(usize),
    /// The content does not fit into a twin.
    #[error("bytes must be at most {most}, not {bytes}")]
    Bytes {
        /// The size in the plan.
        bytes: usize,
        /// The maximum size of a registration.
        most: usize,
    },
    /// The prefix does not give valid ids.
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
