//! The lag of the copy, as answers report it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How long a measurement is reported. This covers three measurements, so a single failure changes nothing.
const GOOD_FOR: Duration = Duration::from_secs(60);

/// The lag of the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeasuredLag {
    /// Number of events that are not known to be completed, over all partitions. Checkpoints are written every few seconds, so this may be
    /// too high.
    pub events: u64,
    /// Lower bound for the age of the oldest of them. `None`: unknown.
    pub at_least: Option<Duration>,
}

/// The last measurement. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Lag(Arc<Mutex<Option<(MeasuredLag, Instant)>>>);

impl Lag {
    /// Stores a measurement.
    pub fn found(&self, behind: MeasuredLag) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((behind, Instant::now()));
    }

    /// The last measurement and its age. `None`: there is none, or it is too old.
    pub fn get(&self) -> Option<(MeasuredLag, Duration)> {
        let found = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        found.map(|(behind, at)| (behind, at.elapsed())).filter(|(_, age)| *age <= GOOD_FOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_figure_is_told_for_a_minute() {
        let lag = Lag::default();
        assert_eq!(lag.get(), None);
        let behind = MeasuredLag { events: 3, at_least: Some(Duration::from_secs(1)) };
        lag.found(behind);
        tokio::time::sleep(GOOD_FOR).await;
        assert_eq!(lag.get(), Some((behind, GOOD_FOR)));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(lag.get(), None);
    }
}
