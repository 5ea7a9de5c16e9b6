//! What is reported about the stored dead letters, without reading all of them.

use std::collections::{BTreeMap, BTreeSet};

use super::{id::PartitionId, ticks::Ticks};

/// The maximum number of dead letters that are counted: a listing may contain any number of them.
pub const MOST_COUNTED: usize = 10_000;
/// The maximum number of dead letters that are read per refresh to learn their reasons; known ones are not read again.
pub const MOST_READ: usize = 50;

/// A dead letter from a listing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// When it was stored, if the store reports that.
    pub stored: Option<Ticks>,
    /// Its partition.
    pub partition: PartitionId,
    /// Its name within the partition.
    pub name: String,
}

/// The first part of a listing, limited to a requested number of dead letters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The dead letters.
    pub letters: Vec<Listed>,
    /// Whether there are more dead letters.
    pub more: bool,
}

/// The summary that is reported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// The number of dead letters counted.
    pub count: u64,
    /// Whether there are more.
    pub more: bool,
    /// When the oldest of the counted ones was stored.
    pub oldest: Option<Ticks>,
    /// Number of dead letters by reason, of those that were read.
    pub by_reason: BTreeMap<String, u64>,
    /// How many were read.
    pub read: u64,
}

/// The reasons of dead letters that were read; a dead letter does not change.
#[derive(Debug, Default)]
pub struct Reasons(BTreeMap<(PartitionId, String), String>);

impl Reasons {
    /// Forgets dead letters that are no longer listed, and returns which ones to read next: the newest unknown ones,
    /// because they show the current problems, and the oldest one.
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

    /// Records the reason of a dead letter.
    pub fn learn(&mut self, letter: Listed, reason: String) {
        self.0.insert((letter.partition, letter.name), reason);
    }

    /// Summarises what is known.
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
    fn dead_letters_are_read_once_newest_and_oldest_first_and_dropped_when_they_are_gone() {
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
