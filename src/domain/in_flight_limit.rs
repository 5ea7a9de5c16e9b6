//! How many events may be under way: as many as are completed in a short time, within the memory limit.
//!
//! Events under way wait in the router. If the document store accepts a few hundred events per second, tens of
//! thousands of events under way would each wait for minutes. That gains nothing, and a slow partition would look like
//! a blocked one. If events are completed fast, more of them under way share more writes.

use std::time::Duration;

/// About how long an event may wait in the router for earlier events, in addition to its wait for other events of its
/// twin.
const WAIT: Duration = Duration::from_secs(20);
/// This many events may be under way even if they are completed slowly: one link prefetches this many.
pub const LEAST: u32 = 2_000;
/// The factor by which the pace falls per second while fewer events are completed. A pause must not reduce the limit at
/// once.
const KEPT: f64 = 0.9;

/// The pace at which events are completed, and the limit computed from it.
#[derive(Debug, Clone, Copy)]
pub struct InFlightLimit {
    most: u32,
    /// How long an event may wait.
    wait: Duration,
    /// Events per second.
    pace: f64,
}

impl InFlightLimit {
    /// The limit before any event is completed. `most` is the limit from memory, in events; `linger` is how long every
    /// event waits for others of its twin.
    pub const fn new(most: u32, linger: Duration) -> Self {
        Self { most, wait: WAIT.saturating_add(linger), pace: 0.0 }
    }

    /// Records that this many events were completed within `time`. Returns how many events may be under way from now
    /// on.
    pub fn completed(&mut self, events: u64, time: Duration) -> u32 {
        if !time.is_zero() {
            let now = events as f64 / time.as_secs_f64();
            self.pace = now.max(self.pace * KEPT.powf(time.as_secs_f64()));
        }
        self.events()
    }

    /// Whether the pace should be measured now, after this many completed events, and not only after the usual time. After
    /// a start or a pause, the pace is unknown, and the limit is at its minimum. A quarter of it shows the pace well enough.
    pub fn should_measure(&self, completed: u64) -> bool {
        let least = LEAST.min(self.most);
        self.events() == least && completed >= u64::from(least / 4)
    }

    /// How many events may be under way.
    pub fn events(&self) -> u32 {
        let waits = (self.pace * self.wait.as_secs_f64()).min(f64::from(u32::MAX));
        (waits as u32).clamp(LEAST.min(self.most), self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_under_way_is_completed_in_twenty_seconds() {
        let mut room = InFlightLimit::new(60_000, Duration::ZERO);
        assert_eq!(room.events(), LEAST, "the pace is unknown");
        assert!(room.should_measure(500) && !room.should_measure(499));
        assert_eq!(room.completed(500, SECOND), 10_000);
        assert!(!room.should_measure(u64::MAX), "the pace is known");
        assert_eq!(room.completed(100_000, SECOND), 60_000, "the limit of the memory");
        assert_eq!(
            InFlightLimit::new(60_000, Duration::ZERO).completed(1_000, 2 * SECOND),
            10_000,
            "the pace is per second"
        );
    }

    #[test]
    fn it_grows_at_once_and_shrinks_slowly_down_to_the_least() {
        let mut room = InFlightLimit::new(60_000, Duration::ZERO);
        room.completed(1_000, SECOND);
        assert_eq!(room.completed(0, SECOND), 18_000);
        assert_eq!(room.completed(0, 2 * SECOND), 14_580);
        assert_eq!(room.completed(2_000, SECOND), 40_000);
        assert_eq!(room.completed(0, 3_600 * SECOND), LEAST);
        assert_eq!(room.completed(0, Duration::ZERO), LEAST);
    }

    #[test]
    fn what_waits_for_others_takes_no_room_from_what_waits_for_the_store() {
        let mut room = InFlightLimit::new(60_000, 40 * SECOND);
        assert_eq!(room.completed(500, SECOND), 30_000);
        assert_eq!(InFlightLimit::new(60_000, Duration::MAX).completed(1, SECOND), 60_000);
    }

    #[test]
    fn a_small_limit_stays_as_it_is() {
        let mut room = InFlightLimit::new(10, Duration::ZERO);
        assert_eq!(room.events(), 10);
        assert_eq!(room.completed(1_000_000, SECOND), 10);
        assert_eq!(room.completed(0, 3_600 * SECOND), 10);
    }
}
