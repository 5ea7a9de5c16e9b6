//! What is known of each partition at the moment of asking.
//!
//! Ages are counted when somebody asks, from moments that were noted: a loop that hangs cannot freeze them. A partition that
//! is given up takes its figures along: a gauge that stays behind looks like lag that nobody works off.

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
    /// What the partition holds.
    extent: Option<Extent>,
    /// When the newest event that was received had arrived in the partition.
    received: Option<Ticks>,
    /// When it was last found that nothing was left to do.
    caught_up: Option<SystemTime>,
    /// Since when progress has been made that no checkpoint tells of.
    unwritten_since: Option<Instant>,
}

impl PartitionMetrics {
    /// Notes how many events of the partition are not completed, as measured at this moment.
    pub fn set_lag(&self, events: u64) {
        self.noted().lag = Some((events, SystemTime::now()));
    }

    /// Notes what the partition holds at this moment, and how far it is completed.
    pub fn measured(&self, extent: Extent, durable: Option<SequenceNumber>) {
        let mut noted = self.noted();
        let (lag, now) = (extent.lag(durable), SystemTime::now());
        noted.lag = Some((lag, now));
        noted.extent = Some(extent);
        if lag == 0 {
            noted.caught_up = Some(now);
        }
    }

    /// Notes when the newest event that was received had arrived in the partition.
    pub fn received(&self, enqueued: Ticks) {
        self.noted().received = Some(enqueued);
    }

    /// What the partition held when it was measured.
    pub fn extent(&self) -> Option<Extent> {
        self.noted().extent
    }

    /// When the newest event that was received had arrived in the partition.
    pub fn newest_received(&self) -> Option<Ticks> {
        self.noted().received
    }

    /// When it was last found that nothing was left to do. What waits now has arrived since.
    pub fn caught_up(&self) -> Option<SystemTime> {
        self.noted().caught_up
    }

    /// Notes that there is progress which no checkpoint tells of.
    pub fn checkpoint_is_behind(&self) {
        self.noted().unwritten_since.get_or_insert_with(Instant::now);
    }

    /// Notes that the checkpoint tells of all progress.
    pub fn checkpoint_is_written(&self) {
        self.noted().unwritten_since = None;
    }

    /// The last measured lag, and when that was.
    pub fn lag(&self) -> Option<(u64, SystemTime)> {
        self.noted().lag
    }

    /// For how long there has been progress that no checkpoint tells of.
    pub fn unwritten_for(&self) -> Duration {
        self.noted().unwritten_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn noted(&self) -> std::sync::MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A partition that can be asked at any time, from any thread.
pub trait Watched: Send + Sync {
    /// Its figures.
    fn metrics(&self) -> &PartitionMetrics;
    /// The oldest event that is not completed, and for how long we have had it.
    fn oldest_incomplete(&self) -> Option<(SequenceNumber, Duration)>;
}

/// For how many seconds at most the oldest event that is not completed has been in the partition.
pub fn behind(watched: &dyn Watched, now: Ticks) -> Option<f64> {
    let ticks = |at: SystemTime| Ticks::new(0).after(at.duration_since(UNIX_EPOCH).unwrap_or_default());
    // Outside of the lock: whoever answers may take it.
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
