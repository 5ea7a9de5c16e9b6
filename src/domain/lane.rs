//! One lane per twin: order within a twin, single flight, and coalescing of what arrives meanwhile.
//!
//! ```text
//! push ─► ready ─► (next) busy ─► (done) gone, or ready again with what arrived meanwhile
//! ```
//!
//! A lane's batch is taken when it may run, not when it becomes ready: the longer the store takes, the more
//! events share one write.

use std::{
    collections::{HashMap, HashSet, VecDeque},
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
    bound: Bound,
    /// Lanes that have reached their bound and have not been worked off since.
    full: HashSet<K>,
    items: usize,
}

/// From when on a lane is full. It may hold a little more: what is on its way to it cannot turn back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// Items, waiting or busy.
    pub items: usize,
    /// Sum of their weights.
    pub weight: usize,
}

#[derive(Debug)]
struct Lane<T> {
    queue: VecDeque<(T, usize)>,
    state: State,
    /// What waits and what is busy.
    held: Bound,
    busy: Bound,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    Busy,
}

impl Bound {
    const NONE: Self = Self { items: 0, weight: 0 };

    fn add(&mut self, weight: usize) {
        self.items += 1;
        self.weight += weight;
    }

    fn subtract(&mut self, other: Self) {
        self.items = self.items.saturating_sub(other.items);
        self.weight = self.weight.saturating_sub(other.weight);
    }
}

impl<K: Hash + Eq + Clone, T> Lanes<K, T> {
    /// No lanes. A lane waits `linger` before it may run, to collect more; a batch has `max_batch` items at
    /// most; a lane is full at `bound`.
    pub fn new(linger: Duration, max_batch: usize, bound: Bound) -> Self {
        Self {
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            linger,
            max_batch: max_batch.max(1),
            bound,
            full: HashSet::new(),
            items: 0,
        }
    }

    /// Adds an item of this weight at the end of its lane. `now` is time since any fixed start.
    pub fn push(&mut self, key: &K, item: T, weight: usize, now: Duration) {
        self.items += 1;
        if let Some(lane) = self.lanes.get_mut(key) {
            lane.queue.push_back((item, weight));
            lane.held.add(weight);
        } else {
            let lane = Lane {
                queue: VecDeque::from([(item, weight)]),
                state: State::Ready,
                held: Bound { items: 1, weight },
                busy: Bound::NONE,
            };
            self.lanes.insert(key.clone(), lane);
            self.ready.push_back((key.clone(), now + self.linger));
        }
        self.weigh(key);
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
        let mut batch = Vec::with_capacity(count);
        for (item, weight) in lane.queue.drain(..count) {
            lane.busy.add(weight);
            batch.push(item);
        }
        Some((key, batch))
    }

    /// When the next lane may run, where one is ready.
    pub fn next_due(&self) -> Option<Duration> {
        self.ready.front().map(|(_, due)| *due)
    }

    /// The batch of a busy lane is done; the lane may run again at once with what arrived.
    pub fn done(&mut self, key: &K, now: Duration) {
        let Some(lane) = self.lanes.get_mut(key) else {
            return;
        };
        debug_assert_eq!(lane.state, State::Busy, "single flight");
        self.items -= lane.busy.items;
        lane.held.subtract(lane.busy);
        lane.busy = Bound::NONE;
        if lane.queue.is_empty() {
            self.lanes.remove(key);
        } else {
            lane.state = State::Ready;
            self.ready.push_back((key.clone(), now));
        }
        self.weigh(key);
    }

    /// A part of the batch of a busy lane is done: items with this weight in all.
    pub fn partly_done(&mut self, key: &K, part: Bound) {
        if let Some(lane) = self.lanes.get_mut(key) {
            lane.held.subtract(part);
            lane.busy.subtract(part);
            self.items -= part.items;
        }
        self.weigh(key);
    }

    /// Takes waiting items out of a busy lane, in their order.
    pub fn withdraw(&mut self, key: &K, mut wanted: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut withdrawn = Vec::new();
        if let Some(lane) = self.lanes.get_mut(key) {
            debug_assert_eq!(lane.state, State::Busy, "a ready lane has something to run");
            for (item, weight) in std::mem::take(&mut lane.queue) {
                if wanted(&item) {
                    lane.held.subtract(Bound { items: 1, weight });
                    withdrawn.push(item);
                } else {
                    lane.queue.push_back((item, weight));
                }
            }
            self.items -= withdrawn.len();
        }
        self.weigh(key);
        withdrawn
    }

    /// What waits in a lane and is not under way, in its order.
    pub fn waiting_mut(&mut self, key: &K) -> impl Iterator<Item = &mut T> {
        self.lanes.get_mut(key).into_iter().flat_map(|lane| lane.queue.iter_mut().map(|(item, _)| item))
    }

    /// Items pushed and not done.
    pub fn items(&self) -> usize {
        self.items
    }

    /// The lanes that are full, until they are worked off by half.
    pub fn full(&self) -> &HashSet<K> {
        &self.full
    }

    /// Whether nothing is queued or busy.
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    fn weigh(&mut self, key: &K) {
        let held = self.lanes.get(key).map_or(Bound::NONE, |lane| lane.held);
        if held.items >= self.bound.items || held.weight >= self.bound.weight {
            if !self.full.contains(key) {
                self.full.insert(key.clone());
            }
        } else if !self.full.is_empty()
            && held.items <= self.bound.items / 2
            && held.weight <= self.bound.weight / 2
        {
            self.full.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1);
    const BOUND: Bound = Bound { items: 1000, weight: 1000 };

    #[test]
    fn a_twin_has_one_batch_in_flight_and_what_arrives_meanwhile_is_the_next() {
        let mut lanes = Lanes::new(Duration::ZERO, 100, BOUND);
        lanes.push(&"a", 1, 1, NOW);
        assert_eq!(lanes.next(NOW), Some(("a", vec![1])));
        lanes.push(&"a", 2, 1, NOW);
        lanes.push(&"a", 3, 1, NOW);
        lanes.push(&"b", 9, 1, NOW);
        assert_eq!(lanes.next(NOW), Some(("b", vec![9])), "only `b` may run");
        assert_eq!(lanes.next(NOW), None);
        lanes.done(&"a", NOW);
        assert_eq!(lanes.next(NOW), Some(("a", vec![2, 3])));
        lanes.done(&"a", NOW);
        lanes.done(&"b", NOW);
        assert!(lanes.is_empty());
        assert_eq!(lanes.items(), 0);
    }

    #[test]
    fn a_batch_is_taken_when_it_runs_and_is_bounded() {
        let mut lanes = Lanes::new(Duration::ZERO, 2, BOUND);
        for item in 0..5 {
            lanes.push(&"a", item, 1, NOW);
        }
        assert_eq!(lanes.next(NOW), Some(("a", vec![0, 1])));
        lanes.done(&"a", NOW);
        assert_eq!(lanes.next(NOW), Some(("a", vec![2, 3])));
        lanes.done(&"a", NOW);
        assert_eq!(lanes.next(NOW), Some(("a", vec![4])));
    }

    #[test]
    fn linger_delays_the_first_batch_of_a_lane() {
        let mut lanes = Lanes::new(Duration::from_millis(50), 10, BOUND);
        lanes.push(&"a", 1, 1, NOW);
        assert_eq!(lanes.next(NOW), None);
        let due = lanes.next_due().expect("ready");
        assert_eq!(due, NOW + Duration::from_millis(50));
        lanes.push(&"a", 2, 1, NOW);
        assert_eq!(lanes.next(due), Some(("a", vec![1, 2])));
    }

    #[test]
    fn a_lane_is_full_by_items_or_weight_until_it_is_worked_off_by_half() {
        let mut lanes = Lanes::new(Duration::ZERO, 2, Bound { items: 4, weight: 100 });
        let is_full = |lanes: &Lanes<&str, i32>, key: &'static str| lanes.full().contains(key);
        for item in 0..4 {
            assert!(!is_full(&lanes, "a"));
            lanes.push(&"a", item, 1, NOW);
        }
        lanes.push(&"b", 0, 1, NOW);
        assert!(is_full(&lanes, "a") && !is_full(&lanes, "b"), "each for itself");
        lanes.next(NOW);
        assert!(is_full(&lanes, "a"), "what is under way counts");
        lanes.done(&"a", NOW);
        assert!(!is_full(&lanes, "a"));
        lanes.push(&"b", 1, 99, NOW);
        assert!(is_full(&lanes, "b"), "by weight");
        lanes.next(NOW);
        lanes.partly_done(&"b", Bound { items: 1, weight: 99 });
        assert!(!is_full(&lanes, "b"));
        lanes.done(&"b", NOW);
        lanes.next(NOW);
        lanes.done(&"a", NOW);
        assert_eq!((lanes.is_empty(), lanes.items()), (true, 0));
    }

    #[test]
    fn what_waits_behind_a_busy_batch_can_be_taken_out_or_changed() {
        let mut lanes = Lanes::new(Duration::ZERO, 1, Bound { items: 3, weight: 1000 });
        for item in 0..5 {
            lanes.push(&"a", item, 1, NOW);
        }
        assert_eq!(lanes.next(NOW), Some(("a", vec![0])));
        assert_eq!(lanes.withdraw(&"a", |item| item % 2 == 1), [1, 3]);
        assert_eq!((lanes.full().len(), lanes.items()), (1, 3));
        lanes.waiting_mut(&"a").for_each(|item| *item *= 10);
        lanes.done(&"a", NOW);
        assert_eq!(lanes.next(NOW), Some(("a", vec![20])));
        assert_eq!(lanes.withdraw(&"a", |_| true), [40]);
        assert_eq!(lanes.full().len(), 0);
        lanes.done(&"a", NOW);
        assert_eq!((lanes.is_empty(), lanes.items()), (true, 0));
    }

    proptest::proptest! {
        /// Whatever the schedule: per twin, items come out in the order in which they went in, exactly once.
        #[test]
        fn order_within_a_twin_is_kept(script in proptest::collection::vec((0_u8..4, 0_u8..3), 1..200), max_batch in 1_usize..4) {
            let mut lanes = Lanes::new(Duration::ZERO, max_batch, BOUND);
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
                    0 => { lanes.push(&key, number, 1, NOW); pushed.entry(key).or_default().push(number); }
                    1 => run(&mut lanes, &mut busy, &mut seen),
                    _ => if let Some((key, _)) = busy.pop() { lanes.done(&key, NOW); },
                }
            }
            while !lanes.is_empty() {
                run(&mut lanes, &mut busy, &mut seen);
                if let Some((key, _)) = busy.pop() { lanes.done(&key, NOW); }
            }
            proptest::prop_assert_eq!(pushed, seen);
        }
    }
}
