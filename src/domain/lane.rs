//! One lane per twin: order within a twin, single flight, and coalescing of what arrives meanwhile.
//!
//! ```text
//! push ─► ready ─► (next) busy ─► (done) gone, or ready again with what arrived meanwhile
//! ```
//!
//! A lane's batch is taken when it may run, not when it becomes ready: the longer the store takes, the more
//! events share one write.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    time::Duration,
};

/// Lanes of items of type `T`, named by `K`.
#[derive(Debug)]
pub struct Lanes<K, T> {
    lanes: HashMap<K, Lane<T>>,
    /// Lanes that may run, in the order in which they became ready, with the time from which they may.
    ready: VecDeque<(K, Duration)>,
    linger: Duration,
    max_batch: usize,
    items: usize,
}

#[derive(Debug)]
struct Lane<T> {
    queue: VecDeque<T>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    Busy,
}

impl<K: Hash + Eq + Clone, T> Lanes<K, T> {
    /// No lanes. A lane waits `linger` before it may run, to collect more; a batch has `max_batch` items at
    /// most.
    pub fn new(linger: Duration, max_batch: usize) -> Self {
        Self { lanes: HashMap::new(), ready: VecDeque::new(), linger, max_batch: max_batch.max(1), items: 0 }
    }

    /// Adds an item at the end of its lane. `now` is time since any fixed start.
    pub fn push(&mut self, key: &K, item: T, now: Duration) {
        self.items += 1;
        if let Some(lane) = self.lanes.get_mut(key) {
            lane.queue.push_back(item);
            return;
        }
        self.lanes.insert(key.clone(), Lane { queue: VecDeque::from([item]), state: State::Ready });
        self.ready.push_back((key.clone(), now + self.linger));
    }

    /// Takes the next batch that may run at `now`; its lane is busy until [`Lanes::done`].
    pub fn next(&mut self, now: Duration) -> Option<(K, Vec<T>)> {
        if self.ready.front()?.1 > now {
            return None;
        }
        let (key, _) = self.ready.pop_front()?;
        let lane = self.lanes.get_mut(&key)?;
        lane.state = State::Busy;
        let count = lane.queue.len().min(self.max_batch);
        let batch = lane.queue.drain(..count).collect();
        Some((key, batch))
    }

    /// When the next lane may run, where one is ready.
    pub fn next_due(&self) -> Option<Duration> {
        self.ready.front().map(|(_, due)| *due)
    }

    /// The batch of `count` items of a busy lane is done; the lane may run again at once with what arrived.
    pub fn done(&mut self, key: &K, count: usize, now: Duration) {
        self.items -= count;
        let Some(lane) = self.lanes.get_mut(key) else {
            return;
        };
        debug_assert_eq!(lane.state, State::Busy, "single flight");
        if lane.queue.is_empty() {
            self.lanes.remove(key);
        } else {
            lane.state = State::Ready;
            self.ready.push_back((key.clone(), now));
        }
    }

    /// Items pushed and not done.
    pub fn items(&self) -> usize {
        self.items
    }

    /// Whether nothing is queued or busy.
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1);

    #[test]
    fn a_twin_has_one_batch_in_flight_and_what_arrives_meanwhile_is_the_next() {
        let mut lanes = Lanes::new(Duration::ZERO, 100);
        lanes.push(&"a", 1, NOW);
        assert_eq!(lanes.next(NOW), Some(("a", vec![1])));
        lanes.push(&"a", 2, NOW);
        lanes.push(&"a", 3, NOW);
        lanes.push(&"b", 9, NOW);
        assert_eq!(lanes.next(NOW), Some(("b", vec![9])), "only `b` may run");
        assert_eq!(lanes.next(NOW), None);
        lanes.done(&"a", 1, NOW);
        assert_eq!(lanes.next(NOW), Some(("a", vec![2, 3])));
        lanes.done(&"a", 2, NOW);
        lanes.done(&"b", 1, NOW);
        assert!(lanes.is_empty());
        assert_eq!(lanes.items(), 0);
    }

    #[test]
    fn a_batch_is_taken_when_it_runs_and_is_bounded() {
        let mut lanes = Lanes::new(Duration::ZERO, 2);
        for item in 0..5 {
            lanes.push(&"a", item, NOW);
        }
        assert_eq!(lanes.next(NOW), Some(("a", vec![0, 1])));
        lanes.done(&"a", 2, NOW);
        assert_eq!(lanes.next(NOW), Some(("a", vec![2, 3])));
        lanes.done(&"a", 2, NOW);
        assert_eq!(lanes.next(NOW), Some(("a", vec![4])));
    }

    #[test]
    fn linger_delays_the_first_batch_of_a_lane() {
        let mut lanes = Lanes::new(Duration::from_millis(50), 10);
        lanes.push(&"a", 1, NOW);
        assert_eq!(lanes.next(NOW), None);
        let due = lanes.next_due().expect("ready");
        assert_eq!(due, NOW + Duration::from_millis(50));
        lanes.push(&"a", 2, NOW);
        assert_eq!(lanes.next(due), Some(("a", vec![1, 2])));
    }

    proptest::proptest! {
        /// Whatever the schedule: per twin, items come out in the order in which they went in, exactly once.
        #[test]
        fn order_within_a_twin_is_kept(script in proptest::collection::vec((0_u8..4, 0_u8..3), 1..200), max_batch in 1_usize..4) {
            let mut lanes = Lanes::new(Duration::ZERO, max_batch);
            let (mut pushed, mut seen) = (HashMap::<u8, Vec<usize>>::new(), HashMap::<u8, Vec<usize>>::new());
            let mut busy = Vec::new();
            let run = |lanes: &mut Lanes<u8, usize>, busy: &mut Vec<(u8, usize)>, seen: &mut HashMap<u8, Vec<usize>>| {
                if let Some((key, batch)) = lanes.next(NOW) {
                    assert!(busy.iter().all(|(other, _)| *other != key), "single flight");
                    busy.push((key, batch.len()));
                    seen.entry(key).or_default().extend(batch);
                }
            };
            for (number, (key, action)) in script.into_iter().enumerate() {
                match action {
                    0 => { lanes.push(&key, number, NOW); pushed.entry(key).or_default().push(number); }
                    1 => run(&mut lanes, &mut busy, &mut seen),
                    _ => if let Some((key, count)) = busy.pop() { lanes.done(&key, count, NOW); },
                }
            }
            while !lanes.is_empty() {
                run(&mut lanes, &mut busy, &mut seen);
                if let Some((key, count)) = busy.pop() { lanes.done(&key, count, NOW); }
            }
            proptest::prop_assert_eq!(pushed, seen);
        }
    }
}
