//! How far behind the copy is, as answers tell it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How long a figure is told. Three looks, so that one that fails changes nothing.
const GOOD_FOR: Duration = Duration::from_secs(60);

/// How far behind the copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeasuredLag {
    /// Events that are not known to be completed, over all partitions. Checkpoints are written every few seconds, so this may be
    /// more than there are.
    pub events: u64,
    /// At least for so long the oldest of them has been there; `None`: not known.
    pub at_least: Option<Duration>,
}

/// What was found last. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Lag(Arc<Mutex<Option<(MeasuredLag, Instant)>>>);

impl Lag {
    /// Notes what a look has found.
    pub fn found(&self, behind: MeasuredLag) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((behind, Instant::now()));
    }

    /// What the last look has found, and how long ago; `None`: nothing that is still of use.
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
