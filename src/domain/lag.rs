//! How far behind a partition is in time: the maximum time for which the oldest event that is not completed has been in
//! it.

use std::time::Duration;

use super::ticks::Ticks;

/// A measurement that is older than this says nothing about events that have arrived since.
const MEASURED_LATELY: Duration = Duration::from_secs(60);

/// What is known about a partition.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known {
    /// The number of events that were not completed at the last measurement, and its time.
    pub lag: Option<(u64, Ticks)>,
    /// The arrival time, in the partition, of the newest event received.
    pub received: Option<Ticks>,
    /// The last time at which no event was left.
    pub caught_up: Option<Ticks>,
    /// Time since we received the oldest event that is not completed, if there is one.
    pub oldest: Option<Duration>,
}

impl Known {
    /// The lag in seconds, as an upper bound; `None` if nothing is known.
    ///
    /// | lag | answer |
    /// |---|---|
    /// | never measured | not known |
    /// | none, measured recently | age of the oldest event in flight |
    /// | none, measured long ago | time since then, as if an event had arrived right after the measurement |
    /// | some | time since the arrival of the newest event received, or since no event was left: events not received yet are younger |
    pub fn behind(&self, now: Ticks) -> Option<f64> {
        let (events, measured) = self.lag?;
        let in_flight = self.oldest.map(|age| age.as_secs_f64());
        if events == 0 && now.seconds_since(measured) <= MEASURED_LATELY.as_secs_f64() {
            return Some(in_flight.unwrap_or(0.0));
        }
        match self.received.max(self.caught_up) {
            Some(since) => Some(now.seconds_since(since).max(in_flight.unwrap_or(0.0))),
            None => in_flight,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Ticks {
        Ticks::new(0).after(Duration::from_secs(seconds))
    }

    fn known(lag: Option<(u64, u64)>, received: Option<u64>, caught_up: Option<u64>) -> Known {
        let lag = lag.map(|(events, seconds)| (events, at(seconds)));
        Known { lag, received: received.map(at), caught_up: caught_up.map(at), oldest: None }
    }

    #[test]
    fn what_is_not_known_is_not_told_and_what_nobody_measures_grows() {
        let now = at(1000);
        for (known, expected) in [
            (known(None, Some(10), Some(20)), None),
            (known(Some((0, 990)), Some(10), Some(990)), Some(0.0)),
            (known(Some((0, 900)), Some(10), Some(900)), Some(100.0)),
            (known(Some((5, 990)), Some(400), Some(300)), Some(600.0)),
            (known(Some((5, 990)), Some(300), Some(400)), Some(600.0)),
            (known(Some((5, 990)), None, None), None),
        ] {
            assert_eq!(known.behind(now), expected, "{known:?}");
        }
    }

    #[test]
    fn what_is_in_flight_counts_where_it_is_older() {
        let oldest = Some(Duration::from_secs(700));
        for (known, expected) in [
            (known(Some((0, 990)), None, None), 700.0),
            (known(Some((5, 990)), Some(400), None), 700.0),
            (known(Some((5, 990)), Some(100), None), 900.0),
            (known(Some((5, 990)), None, None), 700.0),
        ] {
            assert_eq!(Known { oldest, ..known }.behind(at(1000)), Some(expected), "{known:?}");
        }
    }
}
