//! Figures of each partition, computed when they are requested.
//!
//! Ages are computed at the time of the request from recorded instants, so a loop that hangs cannot freeze them. When a partition is given
//! up, its figures are removed: a gauge that remains would look like lag that is never reduced.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

use crate::domain::{id::SequenceNumber, lag::Known, progress::Extent, ticks::Ticks};

/// Figures of one partition. Writing is cheap.
#[derive(Debug, Default)]
pub struct PartitionMetrics(Mutex<Noted>);

#[derive(Debug, Default, Clone, Copy)]
struct Noted {
    lag: Option<(u64, SystemTime)>,
    /// The extent of the partition.
    extent: Option<Extent>,
    /// When the newest event that was received had arrived in the partition.
    received: Option<Ticks>,
    /// When the partition was last found without open events.
    caught_up: Option<SystemTime>,
    /// Since when there is progress that no checkpoint contains.
    unwritten_since: Option<Instant>,
}

impl PartitionMetrics {
    /// Records how many events of the partition are not completed, as measured at this moment.
    pub fn set_lag(&self, events: u64) {
        self.noted().lag = Some((events, SystemTime::now()));
    }

    /// Records the extent of the partition at this moment, and the last durable event.
    pub fn measured(&self, extent: Extent, durable: Option<SequenceNumber>) {
        let mut noted = self.noted();
        let (lag, now) = (extent.lag(durable), SystemTime::now());
        noted.lag = Some((lag, now));
        noted.extent = Some(extent);
        if lag == 0 {
            noted.caught_up = Some(now);
        }
    }

    /// Records when the newest received event had arrived in the partition.
    pub fn received(&self, enqueued: Ticks) {
        self.noted().received = Some(enqueued);
    }

    /// The extent of the partition at the last measurement.
    pub fn extent(&self) -> Option<Extent> {
        self.noted().extent
    }

    /// When the newest received event had arrived in the partition.
    pub fn newest_received(&self) -> Option<Ticks> {
        self.noted().received
    }

    /// When the partition was last found without open events. All waiting events have arrived since.
    pub fn caught_up(&self) -> Option<SystemTime> {
        self.noted().caught_up
    }

    /// Records that there is progress that no checkpoint contains.
    pub fn checkpoint_is_behind(&self) {
        self.noted().unwritten_since.get_or_insert_with(Instant::now);
    }

    /// Records that the checkpoint contains all progress.
    pub fn checkpoint_is_written(&self) {
        self.noted().unwritten_since = None;
    }

    /// The last measured lag, and the time of the measurement.
    pub fn lag(&self) -> Option<(u64, SystemTime)> {
        self.noted().lag
    }

    /// How long there has been progress that no checkpoint contains.
    pub fn unwritten_for(&self) -> Duration {
        self.noted().unwritten_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn noted(&self) -> std::sync::MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A partition whose figures can be read at any time, from any thread.
pub trait Watched: Send + Sync {
    /// Its figures.
    fn metrics(&self) -> &PartitionMetrics;
    /// The oldest event that is not completed, and the time since it was begun.
    fn oldest_incomplete(&self) -> Option<(SequenceNumber, Duration)>;
}

/// Upper bound, in seconds, of how long the oldest event that is not completed has been in the partition.
pub fn behind(watched: &dyn Watched, now: Ticks) -> Option<f64> {
    let ticks = |at: SystemTime| Ticks::new(0).after(at.duration_since(UNIX_EPOCH).unwrap_or_default());
    // Called without the lock, because the callee may take it.
    let oldest = watched.oldest_incomplete().map(|(_, age)| age);
    let noted = *watched.metrics().noted();
    let known = Known {
        lag: noted.lag.map(|(events, at)| (events, ticks(at))),
        received: noted.received,
        caught_up: noted.caught_up.map(ticks),
        oldest,
    };
    known.behind(now)
}
