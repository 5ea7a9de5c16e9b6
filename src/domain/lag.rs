//! How far a partition is behind in time: for how long the oldest event that is not completed may have been in it.

use std::time::Duration;

use super::ticks::Ticks;

/// What was measured longer ago than this tells nothing about what has arrived since.
const MEASURED_LATELY: Duration = Duration::from_secs(60);

/// What is known of a partition.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known {
    /// Events that were not completed when that was measured, and when it was.
    pub lag: Option<(u64, Ticks)>,
    /// When the newest event that was received had arrived in the partition.
    pub received: Option<Ticks>,
    /// When it was last found that nothing was left to do.
    pub caught_up: Option<Ticks>,
    /// For how long we have had the oldest event that is not completed, where there is one.
    pub oldest: Option<Duration>,
}

impl Known {
    /// Seconds, at most; `None` where nothing is known.
    ///
    /// | lag | answer |
    /// |---|---|
    /// | never measured | not known |
    /// | none, measured lately | what is in flight |
    /// | none, measured long ago | since then, as if an event had arrived right after: nobody says that none has |
    /// | some | since the newest event was received, or nothing was left to do: what was not received is younger |
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
