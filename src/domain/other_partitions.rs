//! How far behind a partition is that another replica reads, or no replica. It is computed from the checkpoint that all
//! replicas share and from the properties of the partition.
//!
//! A checkpoint contains a number but not the time of its event. So only a lower bound is known for the age of the
//! oldest waiting event: it is at least as old as the newest event, and at least as old as the first measurement that
//! found it.

use std::{collections::VecDeque, time::Duration};

use super::{id::SequenceNumber, progress::Extent, ticks::Ticks};

/// The number of measurements kept per partition: two hours, if the status is looked at all the time.
const MOST_MEASUREMENTS: usize = 240;

/// The result of one measurement of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The properties of the partition.
    pub extent: Extent,
    /// The checkpoint: all events up to it are completed; `None` if there is no checkpoint.
    pub checkpoint: Option<SequenceNumber>,
    /// When the checkpoint was written.
    pub written: Option<Ticks>,
}

/// How far behind a partition is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Behind {
    /// The number of events that are not completed, according to the checkpoint.
    pub events: u64,
    /// The oldest of them has been there for at least this long; `None` if not known.
    pub at_least: Option<Duration>,
    /// The fraction of the partition's content that is not completed.
    pub retention_used: f64,
    /// The age of the checkpoint, if events are waiting.
    pub checkpoint_age: Option<Duration>,
}

/// The newest event of one partition at each measurement.
#[derive(Debug, Clone, Default)]
pub struct Ends(VecDeque<(Ticks, SequenceNumber)>);

impl Ends {
    /// Evaluates a measurement taken at `now`, and remembers it.
    pub fn assess(&mut self, found: &Found, now: Ticks) -> Behind {
        let Found { extent, checkpoint, written } = *found;
        if self.0.back().is_some_and(|(_, last)| *last > extent.last) {
            self.0.clear(); // it was re-created and starts again
        }
        if self.0.len() >= MOST_MEASUREMENTS {
            self.0.pop_front();
        }
        self.0.push_back((now, extent.last));
        let events = extent.lag(checkpoint);
        let since = |at: Ticks| Duration::try_from_secs_f64(now.seconds_since(at)).unwrap_or_default();
        let first =
            SequenceNumber(extent.last.0.saturating_sub(i64::try_from(events).unwrap_or(i64::MAX)) + 1);
        let seen = self.0.iter().find(|(_, last)| *last >= first).map(|(at, _)| since(*at));
        let held = extent.last.0.saturating_sub(extent.first.0).saturating_add(1).max(1);
        Behind {
            events,
            at_least: match events {
                0 => Some(Duration::ZERO),
                _ => seen.max(extent.newest.map(since)),
            },
            retention_used: (events as f64 / held as f64).clamp(0.0, 1.0),
            checkpoint_age: match events {
                0 => Some(Duration::ZERO),
                _ => written.map(since),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Ticks {
        Ticks::new(0).after(Duration::from_secs(second))
    }

    fn found(checkpoint: Option<i64>, last: i64, newest: u64) -> Found {
        let (first, last) = (SequenceNumber(100), SequenceNumber(last));
        Found {
            extent: Extent { first, last, is_empty: false, newest: Some(at(newest)) },
            checkpoint: checkpoint.map(SequenceNumber),
            written: Some(at(500)),
        }
    }

    #[test]
    fn what_waits_is_at_least_as_old_as_the_newest_event_and_as_the_first_look_that_found_it() {
        let s = Duration::from_secs;
        let mut ends = Ends::default();
        let behind = ends.assess(&found(Some(199), 199, 900), at(1000));
        assert_eq!((behind.events, behind.at_least, behind.checkpoint_age), (0, Some(s(0)), Some(s(0))));
        let behind = ends.assess(&found(Some(199), 299, 1025), at(1030));
        assert_eq!((behind.events, behind.at_least, behind.retention_used), (100, Some(s(5)), 0.5));
        assert_eq!(behind.checkpoint_age, Some(s(530)));
        let behind = ends.assess(&found(Some(199), 399, 1059), at(1060));
        assert_eq!(behind.at_least, Some(s(30)), "event 200 existed at 1030");
        let behind = ends.assess(&found(Some(299), 399, 1059), at(1090));
        assert_eq!(behind.at_least, Some(s(31)), "event 300 existed at 1060, the newest is from 1059");
        let behind = ends.assess(&found(None, 399, 1059), at(1090));
        assert_eq!(
            (behind.events, behind.retention_used),
            (300, 1.0),
            "without checkpoint the whole partition is lag"
        );
        assert_eq!(behind.at_least, Some(s(90)));
        let behind = ends.assess(&found(Some(99), 109, 1119), at(1120));
        assert_eq!(
            (behind.events, behind.at_least),
            (10, Some(s(1))),
            "it is another partition with the same name"
        );
        for second in 2000..3000 {
            ends.assess(&found(Some(99), 109, 1119), at(second));
        }
        assert_eq!(ends.0.len(), MOST_MEASUREMENTS);
    }
}
