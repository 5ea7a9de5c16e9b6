//! Counts that are kept from one change to the next.
//!
//! The tally does not store numbers to add to and subtract from, but the groups of each twin. So it gives the same
//! numbers as a count of all twins, even if a change is reported twice or late, or if a change in between was never
//! reported.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::{Collection, Declared, value::Key};
use crate::domain::{document::Document, rest};

/// The maximum number of groups per count. If a count has more, only its total remains.
pub const GROUPS_MAX: usize = 1_000;

/// Means no group: the count does not select the twin.
const NONE: u32 = u32::MAX;
/// Means a group that is not distinguished from others any more.
const ANY: u32 = u32::MAX - 1;

/// Identifies a document by a digest of its device and its id, which are unique in the container. Uses less memory than
/// the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(u128);

impl Place {
    /// The place of the document with this id, in the partition of this device.
    pub fn of(device: &str, id: &str) -> Self {
        let mut digest = Sha256::new();
        digest.update((device.len() as u64).to_le_bytes());
        digest.update(device);
        digest.update(id);
        let digest: [u8; 32] = digest.finalize().into();
        let (half, _) = digest.split_at(16);
        Self(half.iter().fold(0, |number, byte| number << 8 | u128::from(*byte)))
    }
}

/// The result of one count.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    /// Its name.
    pub name: String,
    /// The number of twins over all groups.
    pub total: u64,
    /// The groups, in the order of their keys; `None` if there are, or were, more than [`GROUPS_MAX`].
    pub rows: Option<Vec<Row>>,
}

/// The count of one group.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The values that the group's twins have in common, by label; `None` where a path has no value.
    pub group: Vec<(String, Option<Value>)>,
    /// The number of twins.
    pub twins: u64,
}

impl Row {
    /// The row in the form that the query of the count returns.
    pub fn json(&self) -> Value {
        let cells = self.group.iter().filter_map(|(label, value)| Some((label.clone(), value.clone()?)));
        let mut row: Map<_, _> = cells.collect();
        row.insert("twins".to_owned(), self.twins.into());
        Value::Object(row)
    }
}

/// The counts of all twins that were added.
#[derive(Debug, Clone)]
pub struct Tally {
    declared: Arc<[Declared]>,
    counts: Vec<Groups>,
    /// The group in each count, for every twin that is in at least one group.
    twins: HashMap<Place, Box<[u32]>>,
    /// Documents that cannot be read: their groups are unknown.
    unreadable: HashSet<Place>,
}

/// The groups of one count.
#[derive(Debug, Clone, Default)]
struct Groups {
    numbers: BTreeMap<Vec<Key>, u32>,
    /// Key and number of twins of each group, by its index.
    groups: Vec<(Vec<Key>, u64)>,
    /// Indices of empty groups.
    free: Vec<u32>,
    total: u64,
    /// There were too many groups to distinguish them.
    is_over: bool,
}

impl Groups {
    /// Adds a twin to the group with this key; returns its index.
    fn enter(&mut self, key: Vec<Key>) -> u32 {
        self.total += 1;
        if self.is_over {
            return ANY;
        }
        if let Some(number) = self.numbers.get(&key).copied() {
            self.groups[number as usize].1 += 1;
            return number;
        }
        if self.numbers.len() >= GROUPS_MAX {
            *self = Self { total: self.total, is_over: true, ..Self::default() };
            return ANY;
        }
        let number = match self.free.pop() {
            Some(number) => {
                self.groups[number as usize] = (key.clone(), 1);
                number
            }
            None => {
                self.groups.push((key.clone(), 1));
                self.groups.len() as u32 - 1 // at most GROUPS_MAX
            }
        };
        self.numbers.insert(key, number);
        number
    }

    /// The key of the group with this index; groups that are not distinguished all have the same key.
    fn key_of(&self, number: u32) -> Option<&[Key]> {
        if number == NONE {
            return None;
        }
        Some(self.groups.get(number as usize).map_or(&[], |(key, _)| key))
    }

    /// Removes a twin from a group.
    fn leave(&mut self, number: u32) {
        self.total -= 1;
        // After an overflow, there are no groups for the indices.
        let Some((key, twins)) = self.groups.get_mut(number as usize) else { return };
        *twins -= 1;
        if *twins == 0 {
            self.numbers.remove(key);
            self.free.push(number);
        }
    }
}

impl Tally {
    /// Counts without twins.
    pub fn new(declared: Arc<[Declared]>) -> Self {
        let counts = declared.iter().map(|_| Groups::default()).collect();
        Self { declared, counts, twins: HashMap::new(), unreadable: HashSet::new() }
    }

    /// Sets the document at this place. A tombstone is not counted.
    pub fn put(&mut self, place: Place, document: &Document) {
        self.unreadable.remove(&place);
        let collection = if document.key.is_module() { Collection::Modules } else { Collection::Devices };
        let counts = self.declared.iter().any(|declared| declared.query().collection() == collection);
        let twin = if counts { rest::twin(document) } else { None };
        if !planted!(CountNotTakenBack) {
            self.leave(place);
        }
        let Some(twin) = twin else { return };
        let enter = |(declared, groups): (&Declared, &mut Groups)| {
            let query = declared.query();
            if query.collection() != collection || !query.matches(&twin) {
                return NONE;
            }
            groups.enter(declared.groups().iter().map(|path| Key(path.find(&twin).cloned())).collect())
        };
        let numbers: Box<[u32]> = self.declared.iter().zip(&mut self.counts).map(enter).collect();
        if numbers.iter().any(|number| *number != NONE) {
            self.twins.insert(place, numbers);
        }
    }

    /// The item at this place cannot be read.
    pub fn put_unreadable(&mut self, place: Place) {
        self.leave(place);
        self.unreadable.insert(place);
    }

    fn leave(&mut self, place: Place) {
        let Some(numbers) = self.twins.remove(&place) else { return };
        for (groups, number) in self.counts.iter_mut().zip(numbers).filter(|(_, number)| *number != NONE) {
            groups.leave(number);
        }
    }

    /// The number of documents that cannot be read.
    pub fn unreadable(&self) -> usize {
        self.unreadable.len()
    }

    /// The current counts.
    pub fn counts(&self) -> Vec<Counted> {
        let counted = |(declared, groups): (&Declared, &Groups)| Counted {
            name: declared.name().to_owned(),
            total: groups.total,
            rows: (!groups.is_over).then(|| rows(declared, groups)),
        };
        self.declared.iter().zip(&self.counts).map(counted).collect()
    }

    /// The places whose documents are counted differently in `other`.
    pub fn differing(&self, other: &Self) -> HashSet<Place> {
        let differs = |place: &&Place| self.groups_at(**place) != other.groups_at(**place);
        self.twins.keys().chain(other.twins.keys()).filter(differs).copied().collect()
    }

    /// The groups of the twin at a place. Indices differ between tallies, so keys are compared.
    fn groups_at(&self, place: Place) -> Vec<Option<&[Key]>> {
        let Some(numbers) = self.twins.get(&place) else { return vec![None; self.counts.len()] };
        self.counts.iter().zip(numbers.iter()).map(|(groups, number)| groups.key_of(*number)).collect()
    }
}

fn rows(declared: &Declared, groups: &Groups) -> Vec<Row> {
    // Without GROUP BY there is one group, even without twins, as in a query.
    if declared.labels().is_empty() {
        return vec![Row { group: Vec::new(), twins: groups.total }];
    }
    let row = |(key, number): (&Vec<Key>, &u32)| Row {
        group: declared.labels().iter().cloned().zip(key.iter().map(|key| key.0.clone())).collect(),
        twins: groups.groups[*number as usize].1,
    };
    groups.numbers.iter().map(row).collect()
}

#[cfg(test)]
mod tests;
