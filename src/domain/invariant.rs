//! Conditions that hold at every moment, whatever happens outside. Each is checked, at almost no cost, where it would
//! be broken, and an action that would break it is not performed. A broken invariant is a bug in twinsync, never an
//! outage.

/// A condition that holds at every moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Invariant {
    /// A checkpoint is before every event of its partition that is not completed.
    CheckpointPassesNothingUnfinished,
    /// Every event of a written batch has a decision.
    EveryEventIsDecided,
    /// An event that was derived from another one completes it.
    EveryFollowerCompletes,
    /// A document is written only under the id of its own twin.
    DocumentIsOfItsTwin,
    /// If no event is under way, none is counted as under way.
    NothingIsHeldAtRest,
}

impl Invariant {
    /// All invariants.
    pub const ALL: [Self; 5] = [
        Self::CheckpointPassesNothingUnfinished,
        Self::EveryEventIsDecided,
        Self::EveryFollowerCompletes,
        Self::DocumentIsOfItsTwin,
        Self::NothingIsHeldAtRest,
    ];

    /// Its id, in metrics and logs.
    pub const fn id(self) -> &'static str {
        match self {
            Self::CheckpointPassesNothingUnfinished => "checkpoint_passes_nothing_unfinished",
            Self::EveryEventIsDecided => "every_event_is_decided",
            Self::EveryFollowerCompletes => "every_follower_completes",
            Self::DocumentIsOfItsTwin => "document_is_of_its_twin",
            Self::NothingIsHeldAtRest => "nothing_is_held_at_rest",
        }
    }

    /// The consequence of a broken invariant.
    pub const fn consequence(self) -> &'static str {
        match self {
            Self::CheckpointPassesNothingUnfinished => {
                "the checkpoint is not written: a restart receives the partition's events again"
            }
            Self::EveryEventIsDecided | Self::EveryFollowerCompletes => {
                "the partition's checkpoint stays behind the event: a restart receives it again"
            }
            Self::DocumentIsOfItsTwin => "the document is not written: its events become dead letters",
            Self::NothingIsHeldAtRest => "the daemon receives less at the same time, until it is restarted",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_those_of_the_names_and_each_is_listed_once() {
        let snake = |name: String| {
            let mut text = String::new();
            for letter in name.chars() {
                if letter.is_uppercase() && !text.is_empty() {
                    text.push('_');
                }
                text.extend(letter.to_lowercase());
            }
            text
        };
        let ids: BTreeSet<_> = Invariant::ALL.iter().map(|invariant| invariant.id()).collect();
        assert_eq!(ids.len(), Invariant::ALL.len());
        for invariant in Invariant::ALL {
            assert_eq!(invariant.id(), snake(format!("{invariant:?}")));
        }
    }

    #[test]
    fn every_consequence_says_what_does_not_happen_or_what_happens_again() {
        for invariant in Invariant::ALL {
            let consequence = invariant.consequence();
            let found = ["is not written", "stays behind", "receives less"]
                .iter()
                .any(|part| consequence.contains(part));
            assert!(found, "{consequence}");
        }
    }
}
