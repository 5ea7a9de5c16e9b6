//! An even load: every device changes once per round. Benchmarks use it, because they need to know the number of events per twin.

use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{PlanError, ids, values};
use crate::iothub::{Operation, TwinId};

/// Maximum size of a section in bytes. The hub's own limits leave some room for what is added to it.
const TAGS_BYTES: usize = 6 << 10;
const DESIRED_BYTES: usize = 24 << 10;
/// Size of one filler property in bytes, including its name.
const BALLAST_BYTES: usize = 64;

/// The number of devices and of writes to each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rounds {
    /// Number of devices, without modules.
    pub devices: usize,
    /// Prefix of each device id.
    pub prefix: String,
    /// Whether a first round registers the devices. Otherwise, they exist already.
    pub register: bool,
    /// Number of rounds. Each one changes the reported properties of every device once.
    pub rounds: usize,
    /// Approximate size of the tags and desired properties of a registration in bytes, at most 30 KiB. Changes do not affect them.
    pub bytes: usize,
    /// Seed. The same seed gives the same operations in the same order.
    pub seed: u64,
}

impl Default for Rounds {
    fn default() -> Self {
        Self { devices: 100, prefix: String::new(), register: true, rounds: 1, bytes: 0, seed: 1 }
    }
}

/// The operations of an even load.
#[derive(Debug)]
pub(super) struct Turns {
    rounds: Rounds,
    random: StdRng,
    /// The order of the devices in the present round.
    order: Vec<u32>,
    /// Number of devices in it that have been changed.
    at: usize,
    /// Number of finished rounds, including that of the registration.
    over: usize,
    registered: usize,
}

impl Turns {
    pub(super) fn new(rounds: Rounds) -> Result<Self, PlanError> {
        if rounds.devices == 0 {
            return Err(PlanError::NoDevices);
        }
        if rounds.bytes > TAGS_BYTES + DESIRED_BYTES {
            return Err(PlanError::Bytes { bytes: rounds.bytes, most: TAGS_BYTES + DESIRED_BYTES });
        }
        let devices = u32::try_from(rounds.devices).map_err(|_| PlanError::TooManyDevices(rounds.devices))?;
        TwinId::device(ids::device(&rounds.prefix, 0)).map_err(PlanError::Prefix)?;
        let mut random = StdRng::seed_from_u64(rounds.seed);
        let mut order: Vec<u32> = (0..devices).collect();
        order.shuffle(&mut random);
        let registered = if rounds.register { 0 } else { rounds.devices };
        Ok(Self { rounds, random, order, at: 0, over: 0, registered })
    }

    pub(super) fn live(&self) -> usize {
        self.registered
    }

    pub(super) fn next_operation(&mut self) -> Option<Operation> {
        if self.at == self.order.len() {
            self.at = 0;
            self.over += 1;
            self.order.shuffle(&mut self.random);
        }
        let registers = self.rounds.register && self.over == 0;
        if self.over >= self.rounds.rounds + usize::from(self.rounds.register) {
            return None;
        }
        let number = *self.order.get(self.at)?;
        self.at += 1;
        let id = TwinId::device(ids::device(&self.rounds.prefix, number as usize)).ok()?;
        if !registers {
            return Some(Operation::Report { id, patch: values::patch(&mut self.random) });
        }
        self.registered += 1;
        let (tags, desired) =
            (self.rounds.bytes.min(TAGS_BYTES), self.rounds.bytes.saturating_sub(TAGS_BYTES));
        let twin = json!({ "tags": self.ballast(tags), "properties": { "desired": self.ballast(desired) } });
        Some(Operation::Create { id, twin: Some(twin) })
    }

    /// Many small properties in groups, as in a real twin, instead of one long string.
    fn ballast(&mut self, bytes: usize) -> Value {
        let mut groups = Map::new();
        for number in 0..bytes / BALLAST_BYTES {
            let group = groups.entry(format!("group{:02}", number / 8)).or_insert_with(|| json!({}));
            let text = format!("{:032x}", self.random.random::<u128>());
            if let Some(group) = group.as_object_mut() {
                group.insert(format!("setting-{number:04}"), Value::from(text));
            }
        }
        Value::Object(groups)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::iothub::{Hub, Options, Timestamp};

    fn operations(rounds: Rounds) -> Vec<Operation> {
        let mut turns = Turns::new(rounds).expect("can be carried out");
        std::iter::from_fn(|| turns.next_operation()).collect()
    }

    #[test]
    fn every_device_has_its_turn_in_every_round_and_the_hub_takes_it() {
        let rounds = Rounds { devices: 40, rounds: 3, bytes: 20_000, ..Rounds::default() };
        let operations = operations(rounds.clone());
        assert_eq!(operations.len(), 40 * 4);
        for (number, round) in operations.chunks(40).enumerate() {
            let mut seen = BTreeMap::<_, usize>::new();
            for operation in round {
                *seen.entry(operation.id().clone()).or_default() += 1;
                assert_eq!(matches!(operation, Operation::Create { .. }), number == 0);
            }
            assert_eq!((seen.len(), seen.values().max()), (40, Some(&1)));
        }
        let mut hub = Hub::new(Options::default(), Timestamp::from_ticks(0));
        let events: usize =
            operations.iter().map(|operation| hub.apply(operation).expect("accepted").len()).sum();
        assert_eq!(events, 40 * 4, "one event each");
        let Some(Operation::Create { twin: Some(twin), .. }) = operations.first() else {
            panic!("registers")
        };
        let bytes = twin.to_string().len();
        assert!((15_000..25_000).contains(&bytes), "{bytes}");
        assert_ne!(operations, self::operations(Rounds { seed: 2, ..rounds }));
    }

    #[test]
    fn devices_that_exist_are_not_registered_again() {
        let operations = operations(Rounds { devices: 3, rounds: 2, register: false, ..Rounds::default() });
        assert_eq!(operations.len(), 6);
        assert!(operations.iter().all(|operation| matches!(operation, Operation::Report { .. })));
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused() {
        for wrong in [
            Rounds { devices: 0, ..Rounds::default() },
            Rounds { bytes: 100_000, ..Rounds::default() },
            Rounds { prefix: "no spaces ".to_owned(), ..Rounds::default() },
        ] {
            assert!(Turns::new(wrong.clone()).is_err(), "{wrong:?}");
        }
    }
}
