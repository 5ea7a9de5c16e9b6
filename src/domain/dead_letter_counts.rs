//! What is told of the dead letters that are stored, without reading all of them.

use std::collections::{BTreeMap, BTreeSet};

use super::{id::PartitionId, ticks::Ticks};

/// Dead letters that are counted at most: a listing may hold any number of them.
pub const MOST_COUNTED: usize = 10_000;
/// Dead letters that are read per look to learn their reasons; those that are known are not read again.
pub const MOST_READ: usize = 50;

/// A dead letter that a listing shows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// When it was stored, as the store tells.
    pub stored: Option<Ticks>,
    /// Its partition.
    pub partition: PartitionId,
    /// Its name there.
    pub name: String,
}

/// At most so many dead letters as were asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The dead letters.
    pub letters: Vec<Listed>,
    /// Whether there are more.
    pub more: bool,
}

/// What is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// Dead letters that were counted.
    pub count: u64,
    /// Whether there are more.
    pub more: bool,
    /// When the oldest of those was stored.
    pub oldest: Option<Ticks>,
    /// Dead letters by reason, of those that were read.
    pub by_reason: BTreeMap<String, u64>,
    /// How many that are.
    pub read: u64,
}

/// The reasons of dead letters that were read; a dead letter does not change.
#[derive(Debug, Default)]
pub struct Reasons(BTreeMap<(PartitionId, String), String>);

impl Reasons {
    /// Forgets dead letters that are no longer listed, and says which to read next: the newest of those that are not known, since
    /// they tell of what goes wrong at present, and the oldest.
    pub fn missing(&mut self, listing: &Listing) -> Vec<Listed> {
        let listed: BTreeSet<_> =
            listing.letters.iter().map(|letter| (&letter.partition, letter.name.as_str())).collect();
        self.0.retain(|(partition, name), _| listed.contains(&(partition, name.as_str())));
        let mut missing: Vec<_> = listing.letters.iter().filter(|letter| !self.knows(letter)).collect();
        missing.sort_by(|one, other| other.cmp(one));
        if missing.len() > MOST_READ {
            let oldest = missing.pop();
            missing.truncate(MOST_READ - 1);
            missing.extend(oldest);
        }
        missing.into_iter().cloned().collect()
    }

    fn knows(&self, letter: &Listed) -> bool {
        self.0.contains_key(&(letter.partition.clone(), letter.name.clone()))
    }

    /// Notes what a dead letter says.
    pub fn learn(&mut self, letter: Listed, reason: String) {
        self.0.insert((letter.partition, letter.name), reason);
    }

    /// Puts together what is known.
    pub fn summary(&self, listing: &Listing) -> Stored {
        let mut by_reason = BTreeMap::new();
        for reason in self.0.values() {
            *by_reason.entry(reason.clone()).or_default() += 1;
        }
        Stored {
            count: listing.letters.len() as u64,
            more: listing.more,
            oldest: listing.letters.iter().filter_map(|letter| letter.stored).min(),
            by_reason,
            read: self.0.len() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(stored: i64, name: &str) -> Listed {
        let partition = PartitionId { stream: "twins".into(), partition: "0".into() };
        Listed { stored: Some(Ticks::new(stored)), partition, name: name.into() }
    }

    #[test]
    fn letters_are_read_once_the_newest_and_the_oldest_first_and_forgotten_when_they_are_gone() {
        let mut reasons = Reasons::default();
        let letters: Vec<_> = (0..200).map(|number| letter(number, &number.to_string())).collect();
        let listing = Listing { letters: letters.clone(), more: true };
        let first = reasons.missing(&listing);
        assert_eq!(first.len(), MOST_READ);
        assert_eq!((first[0].name.as_str(), first[MOST_READ - 1].name.as_str()), ("199", "0"));
        for letter in first {
            reasons.learn(letter, "not_json".into());
        }
        let next = reasons.missing(&listing);
        assert_eq!((next[0].name.as_str(), next[MOST_READ - 1].name.as_str()), ("150", "1"));
        reasons.learn(letters[150].clone(), "too_large".into());
        let told = reasons.summary(&listing);
        assert_eq!((told.count, told.more, told.read, told.oldest), (200, true, 51, Some(Ticks::new(0))));
        assert_eq!(told.by_reason["not_json"], 50);
        let left = Listing { letters: letters[199..].to_vec(), more: false };
        assert!(reasons.missing(&left).is_empty());
        let told = reasons.summary(&left);
        assert_eq!((told.count, told.read, told.by_reason["not_json"]), (1, 1, 1));
    }
}
