//! The operations of a plan.
//!
//! Invariants: An operation only refers to twins that exist when it is performed. Within a phase, no operation
//! follows the deletion of an id, unless the id is re-created at once. The operations of all phases together emit
//! exactly the plan's events, if each module of a deleted device has its own delete notification.

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use super::{Plan, PlanError, ids, values};
use crate::iothub::{Operation, TwinId};

/// One deletion per this many events, if the number of twins allows it.
const EVENTS_PER_DELETION: u64 = 50;

/// A device or a module.
#[derive(Debug)]
struct Slot {
    id: TwinId,
    /// The slot of the device. For a device, its own slot.
    device: usize,
    /// Number of modules whose slots follow this one.
    modules: usize,
    /// Its index in `live`, if it exists.
    live_at: Option<usize>,
}

/// The remaining operations of the phase.
#[derive(Debug, Default)]
struct Quota {
    register: u64,
    recreate: u64,
    delete: u64,
    /// Events of twin writes.
    write: u64,
}

/// The devices of a plan, in the state after the operations that were returned so far.
#[derive(Debug)]
pub struct Fleet {
    plan: Plan,
    random: StdRng,
    slots: Vec<Slot>,
    /// Slots of existing twins, in no particular order.
    live: Vec<usize>,
    /// The slots from this index on were never registered.
    registered: usize,
    /// Deleted in an earlier phase. These may be re-created.
    gone: Vec<usize>,
    /// Deleted in this phase. These must not be re-created before the next phase.
    gone_now: Vec<usize>,
    /// Deleted by the last operation. It is re-created by the next one.
    reborn: Option<usize>,
    phase: Option<usize>,
    quota: Quota,
}

impl Fleet {
    /// Prepares the plan. No device is registered yet.
    ///
    /// # Errors
    /// The plan cannot be carried out.
    pub fn new(plan: Plan) -> Result<Self, PlanError> {
        plan.validate()?;
        let mut random = StdRng::seed_from_u64(plan.seed);
        let mut slots = Vec::with_capacity(plan.devices);
        for number in 0..plan.devices {
            let device = slots.len();
            let device_id = ids::device(&plan.prefix, number);
            let modules = if random.random_bool(plan.modules) { random.random_range(1..=2) } else { 0 };
            let id = TwinId::device(device_id.clone()).map_err(PlanError::Prefix)?;
            slots.push(Slot { id, device, modules, live_at: None });
            let first = random.random_range(0..ids::MODULES_PER_DEVICE);
            for module in 0..modules {
                let id = TwinId::module(device_id.clone(), ids::module(first + module))
                    .map_err(PlanError::Prefix)?;
                slots.push(Slot { id, device, modules: 0, live_at: None });
            }
        }
        let registrations = slots.len() as u64;
        if plan.events < registrations {
            return Err(PlanError::TooFewEvents { events: plan.events, registrations });
        }
        Ok(Self {
            plan,
            random,
            slots,
            live: Vec::new(),
            registered: 0,
            gone: Vec::new(),
            gone_now: Vec::new(),
            reborn: None,
            phase: None,
            quota: Quota::default(),
        })
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The present phase, counted from 0.
    pub fn phase(&self) -> Option<usize> {
        self.phase
    }

    /// Number of devices and modules that exist after the operations so far.
    pub fn live(&self) -> usize {
        self.live.len()
    }

    /// Number of devices and modules that were deleted and not re-created.
    pub fn deleted(&self) -> usize {
        self.gone.len() + self.gone_now.len()
    }

    /// Begins the next phase and returns its number. `None` if the plan is done. Before, the documents must equal
    /// the twins of the previous phase. Remaining operations of that phase are dropped.
    pub fn begin_phase(&mut self) -> Option<usize> {
        let phase = self.phase.map_or(0, |phase| phase + 1);
        if phase >= self.plan.phases {
            self.quota = Quota::default();
            return None;
        }
        self.phase = Some(phase);
        self.gone.append(&mut self.gone_now);
        let phases = self.plan.phases as u64;
        let registrations = self.slots.len() as u64;
        let others = self.plan.events - registrations;
        // The first phases get the remainder.
        let budget = others / phases + u64::from((phase as u64) < others % phases);
        let register = if phase == 0 { registrations } else { 0 };
        let recreate = (self.gone.len() as u64).div_ceil(2).min(budget / 4);
        let twins = if phase == 0 { registrations } else { self.live.len() as u64 };
        let delete = (budget / EVENTS_PER_DELETION).min(twins / 10);
        self.quota = Quota { register, recreate, delete, write: budget - recreate - delete };
        Some(phase)
    }

    /// Returns the next operation of the phase.
    pub fn next_operation(&mut self) -> Option<Operation> {
        if let Some(slot) = self.reborn.take() {
            return self.create(slot);
        }
        loop {
            let Quota { register, recreate, delete, write } = self.quota;
            let all = register + recreate + delete + write;
            if all == 0 {
                return None;
            }
            let pick = self.random.random_range(0..all);
            let operation = if self.live.is_empty() && register > 0 || pick < register {
                self.register()
            } else if pick < register + recreate {
                self.recreate()
            } else if pick < register + recreate + delete {
                self.delete()
            } else {
                self.write()
            };
            // `None`: the operation was not possible and became a write, or there is no twin to write to.
            if operation.is_some() {
                return operation;
            }
        }
    }

    fn register(&mut self) -> Option<Operation> {
        self.quota.register -= 1;
        let slot = self.registered;
        self.registered += 1;
        let is_orphan = self.slots.get(slot).is_none_or(|Slot { device, .. }| {
            *device != slot && self.slots.get(*device).is_none_or(|device| device.live_at.is_none())
        });
        if is_orphan {
            // The device was deleted before its module was registered. The module may be registered in a later
            // phase.
            self.gone_now.push(slot);
            self.quota.write += 1;
            return None;
        }
        self.create(slot)
    }

    fn recreate(&mut self) -> Option<Operation> {
        self.quota.recreate -= 1;
        let operation = self.pick_gone().and_then(|slot| self.create(slot));
        if operation.is_none() {
            self.quota.write += 1;
        }
        operation
    }

    /// Takes a slot that may be re-created. For a module whose device is deleted, takes the device.
    fn pick_gone(&mut self) -> Option<usize> {
        if self.gone.is_empty() {
            return None;
        }
        let at = self.random.random_range(0..self.gone.len());
        let device = self.slots.get(*self.gone.get(at)?)?.device;
        let is_whole = *self.gone.get(at)? == device || self.slots.get(device)?.live_at.is_some();
        let at = if is_whole { at } else { self.gone.iter().position(|slot| *slot == device)? };
        Some(self.gone.swap_remove(at))
    }

    fn create(&mut self, slot: usize) -> Option<Operation> {
        let twin = match self.random.random_range(0..10) {
            0..6 => None,
            6..8 => Some(json!({ "tags": values::section(&mut self.random) })),
            8 => Some(json!({ "properties": { "desired": values::section(&mut self.random) } })),
            _ => Some(self.both(values::section)),
        };
        let live_at = self.live.len();
        let entry = self.slots.get_mut(slot)?;
        entry.live_at = Some(live_at);
        self.live.push(slot);
        Some(Operation::Create { id: entry.id.clone(), twin })
    }

    fn delete(&mut self) -> Option<Operation> {
        self.quota.delete -= 1;
        let picked = self.pick_live().map(|slot| (slot, self.live_modules(slot)));
        // Each module has its own notification, which replaces a write.
        let Some((slot, left)) =
            picked.and_then(|(slot, modules)| Some((slot, self.quota.write.checked_sub(modules)?)))
        else {
            self.quota.write += 1;
            return None;
        };
        self.quota.write = left;
        let modules = self.slots.get(slot)?.modules;
        for gone in slot..=slot + modules {
            self.bury(gone);
        }
        // A random number is drawn only if necessary, so that earlier seeds still give the same operations. The
        // creation replaces a write.
        let share = self.plan.recreate_at_once;
        if share > 0.0 && self.quota.write > 0 && self.random.random_bool(share) {
            self.quota.write -= 1;
            self.gone_now.retain(|gone| *gone != slot);
            self.reborn = Some(slot);
        }
        Some(Operation::Delete { id: self.slots.get(slot)?.id.clone() })
    }

    fn live_modules(&self, slot: usize) -> u64 {
        let modules = self.slots.get(slot).map_or(0, |slot| slot.modules);
        self.slots.iter().skip(slot + 1).take(modules).filter(|module| module.live_at.is_some()).count()
            as u64
    }

    /// Removes a slot from the existing ones.
    fn bury(&mut self, slot: usize) {
        let Some(at) = self.slots.get_mut(slot).and_then(|slot| slot.live_at.take()) else {
            return;
        };
        self.live.swap_remove(at);
        if let Some(moved) = self.live.get(at).copied()
            && let Some(moved) = self.slots.get_mut(moved)
        {
            moved.live_at = Some(at);
        }
        self.gone_now.push(slot);
    }

    fn write(&mut self) -> Option<Operation> {
        self.quota.write -= 1;
        let slot = self.pick_live()?;
        let id = self.slots.get(slot)?.id.clone();
        Some(match self.random.random_range(0..100) {
            0..64 => Operation::Report { id, patch: values::patch(&mut self.random) },
            64..78 => Operation::Patch {
                id,
                patch: json!({ "properties": { "desired": values::patch(&mut self.random) } }),
            },
            78..88 => Operation::Patch { id, patch: json!({ "tags": values::patch(&mut self.random) }) },
            88..96 => Operation::Patch { id, patch: self.both(values::patch) },
            _ => Operation::Replace { id, twin: self.both(values::section) },
        })
    }

    fn both(&mut self, part: fn(&mut StdRng) -> Value) -> Value {
        json!({ "tags": part(&mut self.random), "properties": { "desired": part(&mut self.random) } })
    }

    fn pick_live(&mut self) -> Option<usize> {
        if self.live.is_empty() {
            return None;
        }
        let at = self.random.random_range(0..self.live.len());
        self.live.get(at).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::iothub::{Hub, Options, Timestamp};

    fn plan() -> Plan {
        Plan { devices: 60, events: 4_000, seed: 3, modules: 0.4, phases: 4, ..Plan::default() }
    }

    fn operations(plan: Plan) -> Vec<Vec<Operation>> {
        let mut fleet = Fleet::new(plan).unwrap();
        let mut phases = Vec::new();
        while fleet.begin_phase().is_some() {
            phases.push(std::iter::from_fn(|| fleet.next_operation()).collect());
        }
        phases
    }

    #[test]
    fn the_same_seed_gives_the_same_operations_and_another_seed_others() {
        assert_eq!(operations(plan()), operations(plan()));
        assert_ne!(operations(plan()), operations(Plan { seed: 4, ..plan() }));
    }

    #[test]
    fn the_hub_accepts_every_operation_and_emits_exactly_the_plans_events() {
        for seed in 0..10 {
            let mut hub = Hub::new(Options::default(), Timestamp::from_ticks(0));
            let mut events = 0;
            for operation in operations(Plan { seed, ..plan() }).iter().flatten() {
                events += hub.apply(operation).unwrap_or_else(|error| panic!("{operation:?}: {error}")).len();
            }
            assert_eq!(events, 4_000, "seed {seed}");
        }
    }

    #[test]
    fn no_id_is_touched_after_its_deletion_within_a_phase_and_some_stay_deleted() {
        let mut recreated = 0;
        let mut ever_deleted = BTreeSet::new();
        let mut still_deleted = BTreeSet::new();
        for phase in operations(plan()) {
            let mut deleted = BTreeSet::new();
            for operation in phase {
                let (Operation::Create { id, .. }
                | Operation::Patch { id, .. }
                | Operation::Replace { id, .. }
                | Operation::Report { id, .. }
                | Operation::Delete { id }) = &operation;
                let device = TwinId::device(id.device_id()).unwrap();
                assert!(!deleted.contains(id) && !deleted.contains(&device), "{operation:?}");
                match &operation {
                    Operation::Delete { id } => {
                        deleted.insert(id.clone());
                        ever_deleted.insert(id.clone());
                        still_deleted.insert(id.clone());
                    }
                    Operation::Create { id, .. } if ever_deleted.contains(id) => {
                        recreated += 1;
                        still_deleted.remove(id);
                    }
                    _ => {}
                }
            }
        }
        assert!(recreated >= 3, "{recreated} re-created");
        assert!(still_deleted.len() >= 3, "{} stay deleted", still_deleted.len());
    }

    #[test]
    fn ids_re_created_at_once_follow_their_deletion_and_keep_the_number_of_events() {
        let plan = Plan { recreate_at_once: 0.5, ..plan() };
        let mut hub = Hub::new(Options::default(), Timestamp::from_ticks(0));
        let (mut events, mut at_once, mut deletions) = (0, 0, 0);
        for phase in operations(plan) {
            for operation in &phase {
                events += hub.apply(operation).unwrap_or_else(|error| panic!("{operation:?}: {error}")).len();
                deletions += usize::from(matches!(operation, Operation::Delete { .. }));
            }
            at_once += phase
                .windows(2)
                .filter(|pair| {
                    matches!(pair, [Operation::Delete { id }, Operation::Create { id: next, .. }] if id == next)
                })
                .count();
        }
        assert_eq!(events, 4_000);
        assert!(at_once * 4 > deletions && at_once < deletions, "{at_once} of {deletions}");
    }

    #[test]
    fn plans_that_cannot_be_carried_out_are_refused() {
        let refused = |plan: Plan| Fleet::new(plan).unwrap_err();
        assert_eq!(refused(Plan { devices: 0, ..plan() }), PlanError::NoDevices);
        assert_eq!(refused(Plan { phases: 0, ..plan() }), PlanError::Phases(0));
        assert_eq!(refused(Plan { modules: 2.0, ..plan() }), PlanError::Modules(2.0));
        let share = Plan { recreate_at_once: -1.0, ..plan() };
        assert_eq!(refused(share), PlanError::RecreateAtOnce(-1.0));
        assert!(matches!(refused(Plan { events: 59, ..plan() }), PlanError::TooFewEvents { events: 59, .. }));
        assert!(matches!(refused(Plan { prefix: "a b".to_owned(), ..plan() }), PlanError::Prefix(_)));
    }

    #[test]
    fn a_single_device_and_a_single_event_make_a_plan() {
        let phases = operations(Plan { devices: 1, events: 1, modules: 0.0, phases: 2, ..plan() });
        assert_eq!(phases.iter().map(Vec::len).collect::<Vec<_>>(), [1, 0]);
    }
}
