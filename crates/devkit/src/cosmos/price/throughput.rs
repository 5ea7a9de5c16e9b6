//! Provisioned throughput: the request units that may be used per second.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

const WINDOW: Duration = Duration::from_secs(1);

/// Request units per second, divided evenly among the physical partitions, as in the service. A request is admitted if any are left, and
/// may use more than that.
#[derive(Debug)]
pub(in crate::cosmos) struct Throughput {
    each: f64,
    windows: Vec<Mutex<Window>>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    spent: f64,
}

impl Throughput {
    pub(in crate::cosmos) fn new(request_units_per_second: u64, partitions: u32) -> Self {
        let window = || Mutex::new(Window { began: Instant::now(), spent: 0.0 });
        let windows: Vec<_> = std::iter::repeat_with(window).take(partitions.max(1) as usize).collect();
        Self { each: request_units_per_second as f64 / windows.len() as f64, windows }
    }

    /// Admits a request, or returns the time after which to try again. `place` is the logical partition, or the partition key range of a
    /// query.
    pub(in crate::cosmos) fn admit(&self, place: &str) -> Result<(), Duration> {
        let window = self.window(place);
        if window.spent < self.each {
            return Ok(());
        }
        Err(WINDOW.saturating_sub(window.began.elapsed()).max(Duration::from_millis(1)))
    }

    /// Records the request units of a request.
    pub(in crate::cosmos) fn spend(&self, place: &str, request_units: f64) {
        self.window(place).spent += request_units;
    }

    fn window(&self, place: &str) -> MutexGuard<'_, Window> {
        let mut hasher = DefaultHasher::new();
        place.hash(&mut hasher);
        let at = usize::try_from(hasher.finish() % self.windows.len() as u64).unwrap_or_default();
        let mut window = self.windows[at].lock().unwrap_or_else(PoisonError::into_inner);
        if window.began.elapsed() >= WINDOW {
            *window = Window { began: Instant::now(), spent: 0.0 };
        }
        window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_is_refused_until_the_second_is_over() {
        let throughput = Throughput::new(400, 1);
        assert_eq!(throughput.admit("a"), Ok(()));
        throughput.spend("a", 399.0);
        assert_eq!(throughput.admit("b"), Ok(()), "something is left");
        throughput.spend("b", 50.0);
        let wait = throughput.admit("a").expect_err("all of it is spent");
        assert!(wait > Duration::ZERO && wait <= WINDOW, "{wait:?}");
    }

    #[test]
    fn partitions_have_equal_parts() {
        let throughput = Throughput::new(400, 4);
        throughput.spend("a", 100.0);
        assert!(throughput.admit("a").is_err());
        let free = (0..100).filter(|n| throughput.admit(&n.to_string()).is_ok()).count();
        assert!((50..100).contains(&free), "{free} of 100 are elsewhere");
    }
}
