//! What holds at every moment, whatever happens outside. Each is checked where it would break, at next to no cost, and what would break it
//! is not done. One that does not hold is a bug of twinsync's, and never an outage.

/// Something that holds at every moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Invariant {
    /// A checkpoint lies before every event of its partition that is not completed.
    CheckpointPassesNothingUnfinished,
    /// Every event of a batch that was written was decided about.
    EveryEventIsDecided,
    /// An event that follows from another one completes it.
    EveryFollowerCompletes,
    /// A document is written under the id of its own twin.
    DocumentIsOfItsTwin,
    /// Where no event is under way, none is counted as such.
    NothingIsHeldAtRest,
}

impl Invariant {
    /// All of them.
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

    /// What follows where it does not hold.
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
}
