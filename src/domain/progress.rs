//! Progress of one partition: how far everything is completed.
//!
//! Events are begun in the order in which they are received and completed in any order. The checkpoint is the
//! end of the contiguous prefix of completed events: the last event before the first one still open.
//!
//! | begun | completed | durable |
//! |---|---|---|
//! | – | – | nothing |
//! | 5 6 7 | – | nothing |
//! | 5 6 7 | 6 7 | nothing: 5 is open |
//! | 5 6 7 | 5 | 5 |
//! | 5 6 7 | 5 7 | 5: 6 is open |
//! | 5 6 7 | 5 6 7 | 7 |

use std::collections::VecDeque;

use super::id::{Position, SequenceNumber};

/// Names one begun event of one [`Progress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// The event was received before: its sequence number is not above the newest one begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sequence number {received} was received after {newest}")]
pub struct Repeated {
    /// What arrived.
    pub received: SequenceNumber,
    /// The newest begun.
    pub newest: SequenceNumber,
}

/// The progress of one partition.
#[derive(Debug, Default)]
pub struct Progress {
    open: VecDeque<Entry>,
    /// Ticket of the front of `open`.
    front: u64,
    newest: Option<SequenceNumber>,
    durable: Option<Position>,
}

#[derive(Debug)]
struct Entry {
    position: Position,
    completed: bool,
}

impl Progress {
    /// Progress that goes on after `checkpoint`.
    pub fn after(checkpoint: Option<Position>) -> Self {
        let newest = checkpoint.as_ref().map(|position| position.sequence_number);
        Self { newest, durable: checkpoint, ..Self::default() }
    }

    /// Begins the event at `position`. An overlap is refused and changes nothing.
    pub fn begin(&mut self, position: Position) -> Result<Ticket, Repeated> {
        let received = position.sequence_number;
        if let Some(newest) = self.newest
            && received <= newest
        {
            return Err(Repeated { received, newest });
        }
        self.newest = Some(received);
        self.open.push_back(Entry { position, completed: false });
        Ok(Ticket(self.front + self.open.len() as u64 - 1))
    }

    /// Completes one event; says whether the durable position moved. Completing twice is harmless.
    pub fn complete(&mut self, ticket: Ticket) -> bool {
        let Some(index) = ticket.0.checked_sub(self.front).and_then(|index| usize::try_from(index).ok())
        else {
            return false;
        };
        if let Some(entry) = self.open.get_mut(index) {
            entry.completed = true;
        }
        let mut moved = false;
        while self.open.front().is_some_and(|entry| entry.completed) {
            self.durable = self.open.pop_front().map(|entry| entry.position);
            self.front += 1;
            moved = true;
        }
        moved
    }

    /// The end of the contiguous prefix of completed events.
    pub fn durable(&self) -> Option<&Position> {
        self.durable.as_ref()
    }

    /// The newest sequence number begun: where receiving goes on.
    pub fn newest(&self) -> Option<SequenceNumber> {
        self.newest
    }

    /// Events begun and not yet part of the durable prefix.
    pub fn open(&self) -> usize {
        self.open.len()
    }
}

/// What Event Hubs says about a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Sequence number of the oldest event still retained.
    pub first: SequenceNumber,
    /// Sequence number of the newest event; below `first` where there never was one.
    pub last: SequenceNumber,
    /// Whether the partition holds no event.
    pub is_empty: bool,
}

impl Extent {
    /// Events after `durable` that are still to be done.
    pub fn lag(&self, durable: Option<SequenceNumber>) -> u64 {
        if self.is_empty {
            return 0;
        }
        let done = durable.map_or(self.first.0 - 1, |durable| durable.0.max(self.first.0 - 1));
        u64::try_from(self.last.0.saturating_sub(done)).unwrap_or(0)
    }
}

/// Whether a checkpoint can be resumed from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// There is none: start as configured.
    Fresh,
    /// Go on after this position.
    After(Position),
    /// It does not belong to what the partition holds.
    Invalid(Invalid),
}

/// Why a checkpoint does not fit its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The partition never reached it: the hub was re-created, or failed over to an older copy.
    #[error(
        "checkpoint {checkpoint} is beyond the partition's newest event {last}: the Event Hub was re-created or the checkpoint is another hub's"
    )]
    Beyond {
        /// Sequence number of the checkpoint.
        checkpoint: SequenceNumber,
        /// Newest sequence number of the partition.
        last: SequenceNumber,
    },
    /// Events after it are gone: retention has passed it.
    #[error("events {from} to {to} are gone: retention has passed the checkpoint")]
    Expired {
        /// First event that is missing.
        from: SequenceNumber,
        /// Last event that is missing.
        to: SequenceNumber,
    },
}

/// Judges a checkpoint against the partition.
pub fn resume(checkpoint: Option<Position>, extent: &Extent) -> Resume {
    let Some(position) = checkpoint else {
        return Resume::Fresh;
    };
    let number = position.sequence_number;
    if number > extent.last {
        return Resume::Invalid(Invalid::Beyond { checkpoint: number, last: extent.last });
    }
    if !extent.is_empty && extent.first.0 > number.0 + 1 {
        let to = SequenceNumber(extent.first.0 - 1);
        return Resume::Invalid(Invalid::Expired { from: SequenceNumber(number.0 + 1), to });
    }
    if extent.is_empty && extent.last > number {
        return Resume::Invalid(Invalid::Expired { from: SequenceNumber(number.0 + 1), to: extent.last });
    }
    Resume::After(position)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn position(number: i64) -> Position {
        Position { sequence_number: SequenceNumber(number), offset: format!("o{number}") }
    }

    fn durable(progress: &Progress) -> Option<i64> {
        progress.durable().map(|position| position.sequence_number.0)
    }

    #[test]
    fn an_open_event_holds_everything_behind_it() {
        let mut progress = Progress::default();
        let tickets: Vec<_> = (5..8).map(|n| progress.begin(position(n)).expect("new")).collect();
        assert!(!progress.complete(tickets[1]));
        assert!(!progress.complete(tickets[2]));
        assert_eq!(durable(&progress), None);
        assert!(progress.complete(tickets[0]));
        assert_eq!((durable(&progress), progress.open()), (Some(7), 0));
    }

    #[test]
    fn what_was_received_before_is_refused_and_changes_nothing() {
        let mut progress = Progress::after(Some(position(9)));
        assert_eq!(progress.begin(position(9)).expect_err("repeated").newest, SequenceNumber(9));
        let ticket = progress.begin(position(12)).expect("gaps are legal: retention, poison");
        assert!(progress.begin(position(10)).is_err());
        progress.complete(ticket);
        assert!(!progress.complete(ticket), "twice is harmless");
        assert_eq!(durable(&progress), Some(12));
    }

    #[test]
    fn a_checkpoint_that_does_not_fit_is_never_resumed_from() {
        let extent = |first, last| Extent {
            first: SequenceNumber(first),
            last: SequenceNumber(last),
            is_empty: first > last,
        };
        let judge = |at, extent| resume(Some(position(at)), &extent);
        assert_eq!(resume(None, &extent(0, 9)), Resume::Fresh);
        assert_eq!(judge(9, extent(0, 9)), Resume::After(position(9)));
        assert_eq!(judge(4, extent(5, 9)), Resume::After(position(4)));
        assert!(matches!(judge(10, extent(0, 9)), Resume::Invalid(Invalid::Beyond { .. })));
        assert!(matches!(judge(0, extent(0, -1)), Resume::Invalid(Invalid::Beyond { .. })));
        assert!(matches!(judge(3, extent(5, 9)), Resume::Invalid(Invalid::Expired { .. })));
        assert!(matches!(judge(3, extent(10, 9)), Resume::Invalid(Invalid::Expired { .. })));
        assert_eq!(judge(9, extent(10, 9)), Resume::After(position(9)), "all read, then expired");
    }

    #[test]
    fn lag_is_right_when_idle_and_after_retention() {
        let extent = Extent { first: SequenceNumber(10), last: SequenceNumber(19), is_empty: false };
        assert_eq!(extent.lag(None), 10);
        assert_eq!(extent.lag(Some(SequenceNumber(3))), 10);
        assert_eq!(extent.lag(Some(SequenceNumber(15))), 4);
        assert_eq!(extent.lag(Some(SequenceNumber(19))), 0);
        let empty = Extent { first: SequenceNumber(20), last: SequenceNumber(19), is_empty: true };
        assert_eq!(empty.lag(Some(SequenceNumber(3))), 0);
    }

    proptest::proptest! {
        /// Against the naive model: a set of completed numbers, scanned from the front.
        #[test]
        fn the_durable_position_is_the_contiguous_prefix(
            steps in proptest::collection::vec(1_i64..4, 1..40), order in proptest::collection::vec(0_usize..40, 0..80)
        ) {
            let mut number = 0;
            let numbers: Vec<i64> = steps.iter().map(|step| { number += step; number }).collect();
            let mut progress = Progress::default();
            let tickets: Vec<_> =
                numbers.iter().map(|n| progress.begin(position(*n)).expect("ascending")).collect();
            let mut completed = BTreeSet::new();
            for index in order.into_iter().filter(|index| *index < numbers.len()) {
                progress.complete(tickets[index]);
                completed.insert(index);
                let prefix = (0..numbers.len()).take_while(|i| completed.contains(i)).last();
                proptest::prop_assert_eq!(durable(&progress), prefix.map(|i| numbers[i]));
            }
        }
    }
}
