//! Devices that existed before the routes.

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{ids, values};
use crate::iothub::{self, Operation, Service, TwinId};

/// Number of operations that are performed while the hub is locked.
const CHUNK: usize = 500;
/// Maximum number of writes to a twin after its creation.
const MOST_WRITES: usize = 3;

/// How many devices to create, and which.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Import {
    /// Number of devices.
    pub devices: usize,
    /// Share of devices with modules.
    pub modules: f64,
    /// Seed. The same seed gives the same twins, except for their times.
    pub seed: u64,
    /// Prefix of each device id. A fleet with the same prefix would use the same ids.
    pub prefix: String,
}

impl Default for Import {
    fn default() -> Self {
        Self { devices: 1_000, modules: 0.1, seed: 1, prefix: "old-".to_owned() }
    }
}

/// What was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Imported {
    /// Devices.
    pub devices: usize,
    /// Modules.
    pub modules: usize,
    /// Twin writes after the creation, so that versions differ.
    pub writes: usize,
}

/// Why the import failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ImportError {
    /// The share is out of range.
    #[error("modules is a share between 0 and 1, not {0}")]
    Modules(f64),
    /// The prefix does not give valid ids, or the devices exist already. The devices before the refused one are in the
    /// hub.
    #[error("the hub refused an imported device: use another prefix")]
    Refused(#[from] iothub::Error),
}

/// Creates devices, modules and their twins without any events, as if they had always existed. Blocks until it is
/// done: it creates some tens of thousands of twins per second.
///
/// # Errors
/// The plan is invalid, or the hub refused a device.
pub fn import(hub: &Service, import: &Import) -> Result<Imported, ImportError> {
    if !(0.0..=1.0).contains(&import.modules) {
        return Err(ImportError::Modules(import.modules));
    }
    let mut random = StdRng::seed_from_u64(import.seed);
    let mut imported = Imported::default();
    let mut operations = Vec::with_capacity(CHUNK);
    for number in 0..import.devices {
        let device_id = ids::device(&import.prefix, number);
        let modules = if random.random_bool(import.modules) { random.random_range(1..=2) } else { 0 };
        imported.devices += 1;
        imported.modules += modules;
        imported.writes += twin(&mut random, TwinId::device(device_id.clone())?, &mut operations);
        let first = random.random_range(0..ids::MODULES_PER_DEVICE);
        for module in first..first + modules {
            let id = TwinId::module(device_id.clone(), ids::module(module))?;
            imported.writes += twin(&mut random, id, &mut operations);
        }
        if operations.len() >= CHUNK {
            hub.apply_unrouted(&operations)?;
            operations.clear();
        }
    }
    hub.apply_unrouted(&operations)?;
    Ok(imported)
}

/// Adds the operations of one twin. Returns the number of writes after the creation.
fn twin(random: &mut StdRng, id: TwinId, operations: &mut Vec<Operation>) -> usize {
    let twin =
        json!({ "tags": values::section(random), "properties": { "desired": values::section(random) } });
    operations.push(Operation::Create { id: id.clone(), twin: Some(twin) });
    let writes = random.random_range(0..=MOST_WRITES);
    for _ in 0..writes {
        let id = id.clone();
        operations.push(match random.random_range(0..4) {
            0 => Operation::Patch { id, patch: json!({ "tags": values::patch(random) }) },
            1 => {
                Operation::Patch { id, patch: json!({ "properties": { "desired": values::patch(random) } }) }
            }
            _ => Operation::Report { id, patch: values::patch(random) },
        });
    }
    writes
}
