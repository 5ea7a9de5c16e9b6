//! Progress of one partition: up to which event all events are completed.
//!
//! Events begin in the order in which they are received and are completed in any order. The checkpoint is the end of
//! the contiguous prefix of completed events: the last event before the first open one.
//!
//! | begun | completed | durable |
//! |---|---|---|
//! | – | – | nothing |
//! | 5 6 7 | – | nothing |
//! | 5 6 7 | 6 7 | nothing: 5 is open |
//! | 5 6 7 | 5 | 5 |
//! | 5 6 7 | 5 7 | 5: 6 is open |
//! | 5 6 7 | 5 6 7 | 7 |

use std::{cmp::Ordering, collections::BTreeMap, time::Duration};

use super::{
    id::{Position, SequenceNumber},
    ticks::Ticks,
};

/// Identifies one begun event of one [`Progress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// The event was received before: its sequence number is not greater than that of the newest event begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sequence number {received} was received after {newest}")]
pub struct Repeated {
    /// The sequence number received.
    pub received: SequenceNumber,
    /// The newest sequence number begun.
    pub newest: SequenceNumber,
}

/// The progress of one partition.
///
/// Each open event knows the position of the event before it. So nothing has to be kept of completed events, and memory
/// grows with the number of open events only.
#[derive(Debug, Default)]
pub struct Progress {
    open: BTreeMap<Ticket, Open>,
    /// The next ticket. Tickets are never reused, so a late completion never affects another event.
    next: u64,
    newest: Option<Position>,
}

/// An event that is begun but not completed.
#[derive(Debug)]
struct Open {
    position: Position,
    /// The position of the event that began before, or of the checkpoint.
    before: Option<Position>,
    began: Duration,
}

/// How an event follows the events received before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It follows directly.
    Next,
    /// It was received before.
    Repeated,
    /// Events in between were never received.
    After(Lost),
    /// It does not belong to the partition that was read so far.
    Foreign(Invalid),
}

/// Events of a partition that can never be received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// The first lost event.
    pub from: SequenceNumber,
    /// The last lost event.
    pub to: SequenceNumber,
}

impl Lost {
    /// The number of lost events.
    pub fn count(self) -> u64 {
        u64::try_from(self.to.0.saturating_sub(self.from.0).saturating_add(1)).unwrap_or(0)
    }
}

/// The event that the durable position waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oldest {
    /// Its position.
    pub position: Position,
    /// When it began: the `now` passed to [`Progress::begin`].
    pub began: Duration,
}

impl Progress {
    /// Progress that continues after `checkpoint`.
    pub fn after(checkpoint: Option<Position>) -> Self {
        Self { newest: checkpoint, ..Self::default() }
    }

    /// How an event at `position` follows the events received before. `reopened`: it is the first event on a connection
    /// that was opened at the newest event, which Event Hubs then delivers once more.
    pub fn arrival(&self, position: &Position, reopened: bool) -> Arrival {
        let Some(newest) = &self.newest else {
            return Arrival::Next;
        };
        let (number, known) = (position.sequence_number, newest.sequence_number);
        match number.cmp(&known) {
            Ordering::Less if reopened => Arrival::Foreign(Invalid::Foreign { checkpoint: known }),
            Ordering::Less => Arrival::Repeated,
            Ordering::Equal if newest.is_same_event(position) => Arrival::Repeated,
            Ordering::Equal => Arrival::Foreign(Invalid::Foreign { checkpoint: known }),
            Ordering::Greater if number.0 - 1 == known.0 => Arrival::Next,
            Ordering::Greater => {
                Arrival::After(Lost { from: SequenceNumber(known.0 + 1), to: SequenceNumber(number.0 - 1) })
            }
        }
    }

    /// Discards everything, because the partition was replaced by another one. Completing events that are still under
    /// way has no effect.
    pub fn start_over(&mut self) {
        *self = Self { next: self.next, ..Self::default() };
    }

    /// Begins the event at `position`. `now` is the time since any fixed start.
    ///
    /// # Errors
    /// The event was received before; nothing changes.
    pub fn begin(&mut self, position: Position, now: Duration) -> Result<Ticket, Repeated> {
        let received = position.sequence_number;
        if let Some(newest) = &self.newest
            && received <= newest.sequence_number
        {
            return Err(Repeated { received, newest: newest.sequence_number });
        }
        let before = self.newest.replace(position.clone());
        let ticket = Ticket(self.next);
        self.next += 1;
        self.open.insert(ticket, Open { position, before, began: now });
        Ok(ticket)
    }

    /// Completes one event; returns whether the durable position moved. Completing an event twice or completing a
    /// withdrawn event is harmless.
    pub fn complete(&mut self, ticket: Ticket) -> bool {
        let was_first = self.open.first_key_value().is_some_and(|(first, _)| *first == ticket);
        self.open.remove(&ticket).is_some() && was_first
    }

    /// Withdraws `ticket` and everything begun after it, as if it had never been received, because it was not
    /// dispatched. Receiving continues after the remaining events. If the event is not open, nothing happens.
    pub fn withdraw(&mut self, ticket: Ticket) {
        let withdrawn = self.open.get_mut(&ticket).map(|open| open.before.take());
        if let Some(before) = withdrawn {
            self.newest = before;
            self.open.split_off(&ticket);
        }
    }

    /// The end of the contiguous prefix of completed events.
    pub fn durable(&self) -> Option<&Position> {
        match self.open.first_key_value() {
            Some((_, first)) => first.before.as_ref(),
            None => self.newest.as_ref(),
        }
    }

    /// The newest event begun: receiving continues after it.
    pub fn newest(&self) -> Option<&Position> {
        self.newest.as_ref()
    }

    /// The number of events begun and not completed.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// The oldest event that is begun and not completed: all later events wait for it.
    pub fn oldest(&self) -> Option<Oldest> {
        let (_, open) = self.open.first_key_value()?;
        Some(Oldest { position: open.position.clone(), began: open.began })
    }
}

/// The properties of a partition that Event Hubs reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Sequence number of the oldest retained event.
    pub first: SequenceNumber,
    /// Sequence number of the newest event; less than `first` if there never was one.
    pub last: SequenceNumber,
    /// Whether the partition holds no event.
    pub is_empty: bool,
    /// When the newest event arrived; `None` if not reported or if there never was one.
    pub newest: Option<Ticks>,
}

impl Extent {
    /// Whether the partition has never held our newest event `newest`: then it was re-created. `newest` must be from
    /// before the partition was asked.
    pub fn never_reached(&self, newest: SequenceNumber) -> Option<Invalid> {
        (newest > self.last).then_some(Invalid::Beyond { checkpoint: newest, last: self.last })
    }

    /// Whether the partition's newest event has the same number as our newest event but another arrival time. Then the
    /// partition was re-created and has reached the same number. `newest` and `enqueued` must be from before the
    /// partition was asked.
    pub fn is_another(&self, newest: SequenceNumber, enqueued: Ticks) -> bool {
        self.last == newest && !self.is_empty && self.newest.is_some_and(|arrived| arrived != enqueued)
    }

    /// The number of events after `durable` that are not done.
    pub fn lag(&self, durable: Option<SequenceNumber>) -> u64 {
        if self.is_empty {
            return 0;
        }
        let done = durable.map_or(self.first.0 - 1, |durable| durable.0.max(self.first.0 - 1));
        u64::try_from(self.last.0.saturating_sub(done)).unwrap_or(0)
    }
}

/// Whether reading can resume from a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// There is no checkpoint: start as configured.
    Fresh,
    /// Continue after this position.
    After(Position),
    /// The checkpoint does not match the content of the partition.
    Invalid(Invalid),
}

/// Why a checkpoint does not match its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The partition never reached it: the Event Hub was re-created, or failed over to an older copy.
    #[error(
        "checkpoint {checkpoint} is beyond the partition's newest event {last}: the Event Hub was re-created, or the checkpoint belongs to another one"
    )]
    Beyond {
        /// Sequence number of the checkpoint.
        checkpoint: SequenceNumber,
        /// Newest sequence number of the partition.
        last: SequenceNumber,
    },
    /// The event with this number is a different one.
    #[error(
        "the event with the number {checkpoint} is not the one that was read: the Event Hub was re-created, or the checkpoint belongs to another one"
    )]
    Foreign {
        /// Sequence number of the checkpoint, or of the newest event received.
        checkpoint: SequenceNumber,
    },
    /// Events after it are gone: their retention has ended.
    #[error("events {from} to {to} are lost: the retention has passed the checkpoint")]
    Expired {
        /// First missing event.
        from: SequenceNumber,
        /// Last missing event.
        to: SequenceNumber,
    },
}

/// Compares a checkpoint with its partition.
pub fn resume(checkpoint: Option<Position>, extent: &Extent) -> Resume {
    let Some(position) = checkpoint else {
        return Resume::Fresh;
    };
    let number = position.sequence_number;
    if let Some(beyond) = extent.never_reached(number) {
        return Resume::Invalid(beyond);
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
    use super::*;

    fn position(number: i64) -> Position {
        Position { sequence_number: SequenceNumber(number), offset: format!("o{number}").into() }
    }

    fn now(number: i64) -> Duration {
        Duration::from_secs(number.unsigned_abs())
    }

    fn durable(progress: &Progress) -> Option<i64> {
        progress.durable().map(|position| position.sequence_number.0)
    }

    #[test]
    fn an_open_event_holds_everything_behind_it() {
        let mut progress = Progress::default();
        let tickets: Vec<_> = (5..8).map(|n| progress.begin(position(n), now(n)).expect("new")).collect();
        assert_eq!(progress.oldest(), Some(Oldest { position: position(5), began: now(5) }));
        assert!(!progress.complete(tickets[1]));
        assert!(!progress.complete(tickets[2]));
        assert_eq!(durable(&progress), None);
        assert!(progress.complete(tickets[0]));
        assert_eq!((durable(&progress), progress.open()), (Some(7), 0));
        assert_eq!(progress.oldest(), None);
    }

    #[test]
    fn a_million_events_behind_an_open_one_leave_nothing_in_memory() {
        let mut progress = Progress::default();
        let first = progress.begin(position(0), now(0)).expect("new");
        for number in 1..1_000_000 {
            let ticket = progress.begin(position(number), now(0)).expect("new");
            progress.complete(ticket);
        }
        assert_eq!(durable(&progress), None);
        // Without `..`, so that a new field has to be considered here.
        let Progress { open, next: _, newest: _ } = &progress;
        assert_eq!(open.len(), 1);
        progress.complete(first);
        assert_eq!((progress.open(), durable(&progress)), (0, Some(999_999)));
    }

    #[test]
    fn what_was_not_handed_over_is_received_again() {
        let mut progress = Progress::after(Some(position(4)));
        let mut begin = |number| progress.begin(position(number), now(0)).expect("new");
        let [five, six, seven, eight] = [begin(5), begin(6), begin(7), begin(8)];
        progress.complete(seven); // not an event of ours, completed at once
        progress.withdraw(six);
        assert_eq!((progress.newest(), progress.open()), (Some(&position(5)), 1));
        progress.complete(eight); // a late completion of a withdrawn event
        assert_eq!(durable(&progress), Some(4));
        progress.complete(five);
        assert_eq!(durable(&progress), Some(5), "6 was never completed");
        let again = progress.begin(position(6), now(0)).expect("it comes again");
        progress.withdraw(six);
        progress.complete(again);
        assert_eq!(durable(&progress), Some(6));
    }

    #[test]
    fn what_was_received_before_is_refused_and_changes_nothing() {
        let mut progress = Progress::after(Some(position(9)));
        assert_eq!(progress.begin(position(9), now(0)).expect_err("repeated").newest, SequenceNumber(9));
        let ticket = progress.begin(position(12), now(0)).expect("gaps are legal: retention, poison");
        assert!(progress.begin(position(10), now(0)).is_err());
        progress.complete(ticket);
        assert!(!progress.complete(ticket), "a second completion must change nothing");
        assert_eq!(durable(&progress), Some(12));
    }

    #[test]
    fn what_arrives_follows_repeats_or_tells_of_a_loss() {
        let progress = Progress::after(Some(position(9)));
        let arrival = |number, reopened| progress.arrival(&position(number), reopened);
        let lost = |from, to| Arrival::After(Lost { from: SequenceNumber(from), to: SequenceNumber(to) });
        let foreign = Arrival::Foreign(Invalid::Foreign { checkpoint: SequenceNumber(9) });
        for reopened in [false, true] {
            assert_eq!(arrival(9, reopened), Arrival::Repeated);
            assert_eq!(arrival(10, reopened), Arrival::Next, "9 may have expired meanwhile");
            assert_eq!(arrival(11, reopened), lost(10, 10));
            assert_eq!(arrival(20, reopened), lost(10, 19));
            let other = Position { offset: "o4711".into(), ..position(9) };
            assert_eq!(progress.arrival(&other, reopened), foreign);
        }
        assert_eq!(arrival(8, false), Arrival::Repeated);
        assert_eq!(arrival(8, true), foreign, "a connection that begins at 9 never delivers 8");
        assert_eq!(Lost { from: SequenceNumber(10), to: SequenceNumber(19) }.count(), 10);
        assert_eq!(Progress::default().arrival(&position(5), false), Arrival::Next);
    }

    #[test]
    fn offsets_that_are_not_known_or_of_two_kinds_are_no_proof() {
        let at = |offset: &str| Position { offset: offset.into(), ..position(9) };
        for (known, seen) in [("", "9"), ("9", ""), ("9", "1:0:9"), ("1:0:9", "9"), ("9", "9")] {
            let progress = Progress::after(Some(at(known)));
            assert_eq!(progress.arrival(&at(seen), true), Arrival::Repeated, "{known:?} {seen:?}");
        }
    }

    #[test]
    fn a_partition_that_starts_over_owes_nothing_to_what_was_before() {
        let mut progress = Progress::after(Some(position(9)));
        let old = progress.begin(position(10), now(0)).expect("new");
        progress.start_over();
        assert_eq!((progress.open(), progress.newest(), progress.durable()), (0, None, None));
        let new = progress.begin(position(0), now(0)).expect("from the beginning");
        assert!(!progress.complete(old), "a late completion must change nothing");
        assert_eq!(durable(&progress), None);
        progress.complete(new);
        assert_eq!(durable(&progress), Some(0));
    }

    #[test]
    fn a_checkpoint_that_does_not_fit_is_never_resumed_from() {
        let extent = |first, last| Extent {
            first: SequenceNumber(first),
            last: SequenceNumber(last),
            is_empty: first > last,
            newest: None,
        };
        let resumed = |at, extent| resume(Some(position(at)), &extent);
        assert_eq!(resume(None, &extent(0, 9)), Resume::Fresh);
        assert_eq!(resumed(9, extent(0, 9)), Resume::After(position(9)));
        assert_eq!(resumed(4, extent(5, 9)), Resume::After(position(4)));
        assert!(matches!(resumed(10, extent(0, 9)), Resume::Invalid(Invalid::Beyond { .. })));
        assert!(matches!(resumed(0, extent(0, -1)), Resume::Invalid(Invalid::Beyond { .. })));
        let expired = |from, to| {
            let (from, to) = (SequenceNumber(from), SequenceNumber(to));
            Resume::Invalid(Invalid::Expired { from, to })
        };
        assert_eq!(resumed(3, extent(5, 9)), expired(4, 4));
        assert_eq!(resumed(3, extent(10, 9)), expired(4, 9));
        assert_eq!(resumed(9, extent(10, 9)), Resume::After(position(9)), "all read, then expired");
    }

    #[test]
    fn a_newest_event_of_another_time_is_another_one() {
        let (received, later) = (Ticks::new(10), Ticks::new(20));
        let extent = |last, newest| Extent {
            first: SequenceNumber(0),
            last: SequenceNumber(last),
            is_empty: false,
            newest,
        };
        for (last, arrived, another) in [
            (4, Some(later), true),
            (4, Some(received), false),
            (4, None, false),           // not reported
            (5, Some(later), false),    // events are waiting and will arrive
            (3, Some(received), false), // `never_reached` reports this
        ] {
            let extent = extent(last, arrived);
            assert_eq!(extent.is_another(SequenceNumber(4), received), another, "{last} {arrived:?}");
        }
        let expired = Extent { is_empty: true, ..extent(4, Some(later)) };
        assert!(!expired.is_another(SequenceNumber(4), received), "no event is left to compare");
    }

    #[test]
    fn lag_is_right_when_idle_and_after_retention() {
        let extent =
            Extent { first: SequenceNumber(10), last: SequenceNumber(19), is_empty: false, newest: None };
        assert_eq!(extent.lag(None), 10);
        assert_eq!(extent.lag(Some(SequenceNumber(3))), 10);
        assert_eq!(extent.lag(Some(SequenceNumber(15))), 4);
        assert_eq!(extent.lag(Some(SequenceNumber(19))), 0);
        let empty =
            Extent { first: SequenceNumber(20), last: SequenceNumber(19), is_empty: true, newest: None };
        assert_eq!(empty.lag(Some(SequenceNumber(3))), 0);
    }

    proptest::proptest! {
        /// Compared with a naive model: the list of begun events, scanned from the front.
        #[test]
        fn the_durable_position_is_the_contiguous_prefix(
            steps in proptest::collection::vec((0_u8..10, 0_usize..40), 0..200)
        ) {
            let mut progress = Progress::default();
            let mut model: Vec<(i64, Ticket, bool)> = Vec::new();
            let mut withdrawn = Vec::new();
            for (action, index) in steps {
                let chosen = (!model.is_empty()).then(|| index % model.len().max(1));
                match (action, chosen) {
                    (0, Some(chosen)) if !model[chosen].2 => {
                        progress.withdraw(model[chosen].1);
                        withdrawn.extend(model.split_off(chosen).into_iter().map(|(_, ticket, _)| ticket));
                    }
                    (1, _) => if let Some(ticket) = withdrawn.get(index) { progress.complete(*ticket); },
                    (2..=5, Some(chosen)) => {
                        progress.complete(model[chosen].1);
                        model[chosen].2 = true;
                    }
                    (0 | 2..=5, _) => {}
                    _ => {
                        let number = model.last().map_or(0, |(last, ..)| *last) + i64::from(action) - 5;
                        let ticket = progress.begin(position(number), now(0)).expect("ascending");
                        model.push((number, ticket, false));
                    }
                }
                let prefix = model.iter().take_while(|(.., completed)| *completed).last();
                proptest::prop_assert_eq!(durable(&progress), prefix.map(|(number, ..)| *number));
                proptest::prop_assert_eq!(progress.newest().map(|newest| newest.sequence_number.0), model.last().map(|(last, ..)| *last));
                let open = model.iter().filter(|(.., completed)| !completed).count();
                proptest::prop_assert_eq!(progress.open(), open);
                let oldest = model.iter().find(|(.., completed)| !completed).map(|(number, ..)| *number);
                proptest::prop_assert_eq!(progress.oldest().map(|oldest| oldest.position.sequence_number.0), oldest);
            }
        }
    }
}
