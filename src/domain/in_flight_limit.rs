//! How many events may be under way: as many as are completed in a while, within what memory allows.
//!
//! What is under way waits in the router. Where the document store takes a few hundred events per second, tens of thousands under way
//! would each wait for minutes: nothing is gained by that, and nobody could tell a slow partition from a blocked one. Where events are
//! completed fast, more of them under way share more writes.

use std::time::Duration;

/// For about so long an event may wait in the router because of those before it, beside the time for which it waits for others of its twin.
const WAIT: Duration = Duration::from_secs(20);
/// So many events may be under way however slowly they are completed: what one link delivers ahead.
pub const LEAST: u32 = 2_000;
/// What is left of the pace after a second in which less was completed. A pause is no reason to receive less at once.
const KEPT: f64 = 0.9;

/// The pace at which events are completed, and the room that follows from it.
#[derive(Debug, Clone, Copy)]
pub struct InFlightLimit {
    most: u32,
    /// For how long an event may wait.
    wait: Duration,
    /// Events per second.
    pace: f64,
}

impl InFlightLimit {
    /// Nothing was completed yet; `most` is what memory allows, and `linger` for how long an event waits for others of its twin in any
    /// case.
    pub const fn new(most: u32, linger: Duration) -> Self {
        Self { most, wait: WAIT.saturating_add(linger), pace: 0.0 }
    }

    /// Notes that so many events were completed within `time`. Returns how many may be under way from here on.
    pub fn completed(&mut self, events: u64, time: Duration) -> u32 {
        if !time.is_zero() {
            let now = events as f64 / time.as_secs_f64();
            self.pace = now.max(self.pace * KEPT.powf(time.as_secs_f64()));
        }
        self.events()
    }

    /// Whether it is as small as it gets: after a start or a pause, nothing is known of the pace.
    pub fn is_least(&self) -> bool {
        self.events() == LEAST.min(self.most)
    }

    /// How many may be under way.
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
        assert_eq!((room.events(), room.is_least()), (LEAST, true), "nothing is known yet");
        assert_eq!(room.completed(500, SECOND), 10_000);
        assert!(!room.is_least());
        assert_eq!(room.completed(100_000, SECOND), 60_000, "as many as memory allows");
        assert_eq!(
            InFlightLimit::new(60_000, Duration::ZERO).completed(1_000, 2 * SECOND),
            10_000,
            "a pace is per second"
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
