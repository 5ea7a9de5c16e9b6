//! How far a scan over the twins of a hub has come, and when it will end.

use std::{collections::VecDeque, time::Duration};

/// The rate is measured over this time: long enough for pages, short enough to follow a change of the share.
const WINDOW: Duration = Duration::from_secs(120);
/// Two times that are less than this apart are not enough for a rate.
const LEAST: Duration = Duration::from_secs(8);

/// The progress of one scan at several times. Times are since any fixed start.
#[derive(Debug, Default)]
pub struct ScanRate(VecDeque<(Duration, u64)>);

impl ScanRate {
    /// Records how many twins have been processed up to now.
    pub fn note(&mut self, now: Duration, dealt_with: u64) {
        while self.0.len() > 1 && self.0.front().is_some_and(|(at, _)| now.saturating_sub(*at) > WINDOW) {
            self.0.pop_front();
        }
        self.0.push_back((now, dealt_with));
    }

    /// The recent rate in twins per second; `None` if it is not known yet.
    pub fn per_second(&self, now: Duration, dealt_with: u64) -> Option<f64> {
        let (at, then) = self.0.front()?;
        let passed = now.saturating_sub(*at);
        (passed >= LEAST).then(|| dealt_with.saturating_sub(*then) as f64 / passed.as_secs_f64())
    }
}

/// Time until the scan ends; `None` if the number of twins is unknown or the scan does not proceed.
pub fn done_in(dealt_with: u64, out_of: Option<u64>, per_second: Option<f64>) -> Option<Duration> {
    let left = out_of?.checked_sub(dealt_with)?;
    let per_second = per_second.filter(|rate| *rate > 0.0)?;
    Duration::try_from_secs_f64(left as f64 / per_second).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_rate_is_that_of_late_and_says_when_it_is_done() {
        let mut rate = ScanRate::default();
        assert_eq!(rate.per_second(s(0), 0), None);
        rate.note(s(0), 1000);
        assert_eq!(rate.per_second(s(5), 1100), None, "too early for a rate");
        assert_eq!(rate.per_second(s(10), 1100), Some(10.0));
        for second in 1..=100 {
            rate.note(s(second * 5), 1000 + second * 5 * 10);
        }
        for second in 101..=200 {
            rate.note(s(second * 5), 6000);
        }
        assert_eq!(rate.per_second(s(1000), 6000), Some(0.0), "the scan has stopped");
        assert_eq!(rate.0.front(), Some(&(s(1000) - WINDOW, 6000)), "nothing older than the window is kept");
        rate.note(s(5000), 7000);
        assert_eq!(rate.per_second(s(5000), 7000), Some(0.25), "pages may take longer than the window");
        rate.note(s(5010), 7100);
        assert_eq!(rate.per_second(s(5020), 7200), Some(10.0), "what was before the pause is forgotten");
        assert_eq!(done_in(6000, Some(7000), Some(10.0)), Some(s(100)));
        assert_eq!(done_in(6000, Some(7000), Some(0.0)), None);
        assert_eq!(done_in(6000, None, Some(10.0)), None);
        assert_eq!(done_in(6000, Some(5000), Some(10.0)), None, "there were more than expected");
        assert_eq!(done_in(6000, Some(7000), None), None);
    }
}
