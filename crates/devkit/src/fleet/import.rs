//! Devices that were there before anybody listened.

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{ids, values};
use crate::iothub::{self, Operation, Service, TwinId};

/// Operations performed while the hub is locked.
const CHUNK: usize = 500;
/// The most writes that a twin has behind it.
const MOST_WRITES: usize = 3;

/// How many devices to bring in, and which.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Import {
    /// Devices to bring in.
    pub devices: usize,
    /// The share of devices with modules.
    pub modules: f64,
    /// The same seed gives the same twins, but for their times.
    pub seed: u64,
    /// Put before each device id: a fleet with the same prefix would meet the same ids.
    pub prefix: String,
}

impl Default for Import {
    fn default() -> Self {
        Self { devices: 1_000, modules: 0.1, seed: 1, prefix: "old-".to_owned() }
    }
}

/// What was brought in.
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

/// Why not everything was brought in.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ImportError {
    /// The share is out of range.
    #[error("modules is a share between 0 and 1, not {0}")]
    Modules(f64),
    /// The prefix does not make valid ids, or the devices exist already; what came before is in the hub.
    #[error("the hub refused an imported device: use another prefix")]
    Refused(#[from] iothub::Error),
}

/// Brings devices, modules and their twins into the hub without any event, as if they had existed for ever. Blocks for
/// as long as it takes: some tens of thousands of twins per second.
///
/// # Errors
/// [`ImportError`].
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

/// The life of one twin; returns how often it was written.
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
