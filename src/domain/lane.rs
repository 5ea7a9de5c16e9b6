//! One lane per twin: keeps the order within a twin, has one batch in flight, and combines the items that arrive in the
//! meantime.
//!
//! ```text
//! push ─► ready ─► (next) busy ─► (done) gone, or ready again with what arrived meanwhile
//! ```
//!
//! A lane's batch is taken when it may run, not when the lane becomes ready. So the slower the store is, the more
//! events share one write.
//!
//! A lane is ready when its first item has waited long enough, or when it has a full batch. An event that is already
//! late may wait a little longer, see [`Linger`]. During a backlog, this reduces the number of writes.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, HashMap, HashSet, VecDeque},
    hash::Hash,
    time::Duration,
};

/// An event waits for more events of its twin for at most this fraction of its age.
const PART_OF_AGE: u32 = 20;
/// If no event of any twin has arrived for this long, the backlog has probably ended. Shorter gaps are usual while a
/// backlog is received.
const QUIET: Duration = Duration::from_millis(50);

/// How long an event waits for more events of its twin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Linger {
    /// The wait of every event.
    pub always: Duration,
    /// The longest wait of an event that is already late. It waits a twentieth of its age, which is not noticeable.
    pub behind: Duration,
}

impl Linger {
    /// The wait of an event whose operation has this age.
    pub fn of(self, age: Duration) -> Duration {
        (age / PART_OF_AGE).min(self.behind).max(self.always)
    }

    /// If no event of any twin has arrived for this long, no event waits any longer. All have then waited for
    /// `always`.
    pub fn quiet(self) -> Duration {
        QUIET.max(self.always)
    }
}

/// Lanes of items of type `T`, with keys of type `K`.
#[derive(Debug)]
pub struct Lanes<K, T> {
    lanes: HashMap<K, Lane<T>>,
    /// Lanes that may run, the earliest first. The lane's own time is valid: an entry with another time is outdated.
    ready: BinaryHeap<Reverse<Ready<K>>>,
    /// The number of entries so far, so that lanes with the same time keep their order.
    entries: u64,
    max_batch: usize,
    bound: Bound,
    /// Lanes that have reached their bound and are not down to half of it yet.
    full: HashSet<K>,
    items: usize,
}

/// The bound at which a lane is full. A lane may hold slightly more, because items that are on their way to it cannot
/// be stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// Number of items, waiting or busy.
    pub items: usize,
    /// Sum of their weights.
    pub weight: usize,
}

/// The time from which a lane may run.
#[derive(Debug)]
struct Ready<K> {
    due: Duration,
    entry: u64,
    key: K,
}

impl<K> Ready<K> {
    fn order(&self) -> (Duration, u64) {
        (self.due, self.entry)
    }
}

impl<K> PartialEq for Ready<K> {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl<K> Eq for Ready<K> {}

impl<K> PartialOrd for Ready<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K> Ord for Ready<K> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order().cmp(&other.order())
    }
}

#[derive(Debug)]
struct Waiting<T> {
    item: T,
    weight: usize,
    /// The time until which it waits for others.
    due: Duration,
}

#[derive(Debug)]
struct Lane<T> {
    queue: VecDeque<Waiting<T>>,
    state: State,
    /// The time from which it may run, if it is ready.
    due: Duration,
    /// The waiting and the busy items.
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
    /// Creates an empty set of lanes. A batch has at most `max_batch` items (at least 1); a lane is full at `bound`.
    pub fn new(max_batch: usize, bound: Bound) -> Self {
        Self {
            lanes: HashMap::new(),
            ready: BinaryHeap::new(),
            entries: 0,
            max_batch: max_batch.max(1),
            bound,
            full: HashSet::new(),
            items: 0,
        }
    }

    /// Adds an item of this weight at the end of its lane. There it waits for others for up to `linger`. `now` is the
    /// time since any fixed start.
    pub fn push(&mut self, key: &K, item: T, weight: usize, now: Duration, linger: Duration) {
        self.items += 1;
        let due = now + linger;
        let waiting = Waiting { item, weight, due };
        let mut sooner = None;
        let held;
        if let Some(lane) = self.lanes.get_mut(key) {
            lane.queue.push_back(waiting);
            lane.held.add(weight);
            held = lane.held;
            if lane.state == State::Ready {
                let due = if lane.queue.len() >= self.max_batch { now } else { due };
                sooner = (due < lane.due).then_some(due);
            }
        } else {
            held = Bound { items: 1, weight };
            let lane = Lane {
                queue: VecDeque::from([waiting]),
                state: State::Ready,
                due: Duration::MAX,
                held,
                busy: Bound::NONE,
            };
            self.lanes.insert(key.clone(), lane);
            sooner = Some(if self.max_batch == 1 { now } else { due });
        }
        if let Some(due) = sooner {
            self.ready_at(key, due);
        }
        self.weigh(key, held);
    }

    fn ready_at(&mut self, key: &K, due: Duration) {
        if let Some(lane) = self.lanes.get_mut(key) {
            (lane.state, lane.due) = (State::Ready, due);
            self.entries += 1;
            self.ready.push(Reverse(Ready { due, entry: self.entries, key: key.clone() }));
        }
    }

    /// Number of items of a lane that are waiting or busy.
    pub fn held(&self, key: &K) -> usize {
        self.lanes.get(key).map_or(0, |lane| lane.held.items)
    }

    /// Takes the next batch that may run at `now`; its lane is busy until [`Lanes::done`]. With `at_once`, no item
    /// waits for others any more.
    pub fn next(&mut self, now: Duration, at_once: bool) -> Option<(K, Vec<T>)> {
        if self.next_due()? > now && !at_once {
            return None;
        }
        let Reverse(Ready { key, .. }) = self.ready.pop()?;
        let lane = self.lanes.get_mut(&key)?;
        lane.state = State::Busy;
        let count = lane.queue.len().min(self.max_batch);
        let mut batch = Vec::with_capacity(count);
        for Waiting { item, weight, .. } in lane.queue.drain(..count) {
            lane.busy.add(weight);
            batch.push(item);
        }
        Some((key, batch))
    }

    /// When the next lane may run, if one is ready.
    pub fn next_due(&mut self) -> Option<Duration> {
        loop {
            let Reverse(Ready { due, key, .. }) = self.ready.peek()?;
            match self.lanes.get(key) {
                Some(lane) if lane.state == State::Ready && lane.due == *due => return Some(*due),
                Some(_) | None => drop(self.ready.pop()),
            }
        }
    }

    /// The batch of a busy lane is done. The lane may run again when the items that arrived in the meantime have waited
    /// long enough.
    pub fn done(&mut self, key: &K, now: Duration) {
        let Some(lane) = self.lanes.get_mut(key) else {
            return;
        };
        debug_assert_eq!(lane.state, State::Busy, "single flight");
        self.items -= lane.busy.items;
        lane.held.subtract(lane.busy);
        lane.busy = Bound::NONE;
        let held = lane.held;
        match lane.queue.front() {
            None => drop(self.lanes.remove(key)),
            Some(_) if lane.queue.len() >= self.max_batch => self.ready_at(key, now),
            Some(first) => {
                let due = first.due.max(now);
                self.ready_at(key, due);
            }
        }
        self.weigh(key, held);
    }

    /// A part of the batch of a busy lane is done: `part` is its number of items and their total weight.
    pub fn partly_done(&mut self, key: &K, part: Bound) {
        if let Some(lane) = self.lanes.get_mut(key) {
            lane.held.subtract(part);
            lane.busy.subtract(part);
            self.items -= part.items;
            let held = lane.held;
            self.weigh(key, held);
        }
    }

    /// Removes the wanted waiting items from a busy lane and returns them in their order.
    pub fn withdraw(&mut self, key: &K, mut wanted: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut withdrawn = Vec::new();
        if let Some(lane) = self.lanes.get_mut(key) {
            debug_assert_eq!(lane.state, State::Busy, "a ready lane has something to run");
            for waiting in std::mem::take(&mut lane.queue) {
                if wanted(&waiting.item) {
                    lane.held.subtract(Bound { items: 1, weight: waiting.weight });
                    withdrawn.push(waiting.item);
                } else {
                    lane.queue.push_back(waiting);
                }
            }
            self.items -= withdrawn.len();
            let held = lane.held;
            self.weigh(key, held);
        }
        withdrawn
    }

    /// The items of a lane that are waiting and not under way, in their order.
    pub fn waiting_mut(&mut self, key: &K) -> impl Iterator<Item = &mut T> {
        self.lanes
            .get_mut(key)
            .into_iter()
            .flat_map(|lane| lane.queue.iter_mut().map(|waiting| &mut waiting.item))
    }

    /// Number of items that were pushed and are not done.
    pub fn items(&self) -> usize {
        self.items
    }

    /// The full lanes. A lane stays in this set until it is down to half of its bound.
    pub fn full(&self) -> &HashSet<K> {
        &self.full
    }

    /// Whether nothing is queued or busy.
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Notes whether the lane is full, now that it holds this.
    fn weigh(&mut self, key: &K, held: Bound) {
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
        let mut lanes = Lanes::new(100, BOUND);
        lanes.push(&"a", 1, 1, NOW, Duration::ZERO);
        assert_eq!(lanes.next(NOW, false), Some(("a", vec![1])));
        lanes.push(&"a", 2, 1, NOW, Duration::ZERO);
        lanes.push(&"a", 3, 1, NOW, Duration::ZERO);
        lanes.push(&"b", 9, 1, NOW, Duration::ZERO);
        assert_eq!(lanes.next(NOW, false), Some(("b", vec![9])), "only `b` may run");
        assert_eq!(lanes.next(NOW, false), None);
        lanes.done(&"a", NOW);
        assert_eq!(lanes.next(NOW, false), Some(("a", vec![2, 3])));
        lanes.done(&"a", NOW);
        lanes.done(&"b", NOW);
        assert!(lanes.is_empty());
        assert_eq!(lanes.items(), 0);
    }

    #[test]
    fn lanes_that_may_run_at_the_same_time_run_in_the_order_of_their_arrival() {
        let mut lanes = Lanes::new(10, BOUND);
        let keys = ["c", "a", "e", "b", "d", "f"];
        for key in &keys {
            lanes.push(key, 1, 1, NOW, Duration::ZERO);
        }
        lanes.push(&"a", 2, 1, NOW, Duration::ZERO);
        assert_eq!(["a", "c", "x"].map(|key| lanes.held(&key)), [2, 1, 0]);
        let ran: Vec<_> = std::iter::from_fn(|| lanes.next(NOW, false)).map(|(key, _)| key).collect();
        assert_eq!(ran, keys);
    }

    #[test]
    fn a_batch_is_taken_when_it_runs_and_is_bounded() {
        let mut lanes = Lanes::new(2, BOUND);
        for item in 0..5 {
            lanes.push(&"a", item, 1, NOW, Duration::ZERO);
        }
        assert_eq!(lanes.next(NOW, false), Some(("a", vec![0, 1])));
        lanes.done(&"a", NOW);
        assert_eq!(lanes.next(NOW, false), Some(("a", vec![2, 3])));
        lanes.done(&"a", NOW);
        assert_eq!(lanes.next(NOW, false), Some(("a", vec![4])));
    }

    const LINGER: Duration = Duration::from_millis(50);

    #[test]
    fn an_event_lingers_for_a_part_of_its_age_within_limits() {
        let linger = Linger { always: Duration::from_millis(1), behind: Duration::from_millis(250) };
        for (age, expected) in [(0, 1), (20, 1), (100, 5), (1_000, 50), (5_000, 250), (86_400_000, 250)] {
            assert_eq!(linger.of(Duration::from_millis(age)), Duration::from_millis(expected), "{age} ms");
        }
        let longer = Linger { always: Duration::from_secs(1), ..linger };
        assert_eq!(longer.of(Duration::from_secs(60)), Duration::from_secs(1));
        assert_eq!([linger.quiet(), longer.quiet()], [QUIET, Duration::from_secs(1)]);
    }

    #[test]
    fn a_lane_waits_as_long_as_its_first_item_and_no_lane_waits_behind_it() {
        let mut lanes = Lanes::new(10, BOUND);
        lanes.push(&"a", 1, 1, NOW, LINGER);
        assert_eq!(lanes.next(NOW, false), None);
        lanes.push(&"b", 9, 1, NOW, Duration::ZERO);
        assert_eq!(lanes.next(NOW, false), Some(("b", vec![9])));
        let due = lanes.next_due().expect("ready");
        assert_eq!(due, NOW + LINGER);
        lanes.push(&"a", 2, 1, NOW, LINGER * 9);
        assert_eq!(lanes.next(due, false), Some(("a", vec![1, 2])));
        // An item that arrives in the meantime has its own linger time. A part of it may have passed already.
        lanes.push(&"a", 3, 1, due, LINGER);
        lanes.done(&"a", due + LINGER / 2);
        assert_eq!(lanes.next(due + LINGER / 2, false), None);
        assert_eq!(lanes.next(due + LINGER, false), Some(("a", vec![3])));
        lanes.push(&"a", 4, 1, due, LINGER);
        lanes.done(&"a", due + LINGER * 3);
        assert_eq!(lanes.next_due(), Some(due + LINGER * 3));
    }

    #[test]
    fn an_item_that_waits_for_less_and_a_whole_batch_bring_the_lane_forward() {
        let mut lanes = Lanes::new(3, BOUND);
        lanes.push(&"a", 1, 1, NOW, LINGER);
        lanes.push(&"a", 2, 1, NOW, LINGER / 2);
        assert_eq!(lanes.next_due(), Some(NOW + LINGER / 2));
        lanes.push(&"a", 3, 1, NOW, LINGER);
        assert_eq!(lanes.next(NOW, false), Some(("a", vec![1, 2, 3])));
        assert_eq!(lanes.next_due(), None, "an item of the running batch has no due time");
        for item in 4..=6 {
            lanes.push(&"a", item, 1, NOW, LINGER);
        }
        lanes.done(&"a", NOW);
        assert_eq!(lanes.next(NOW, false), Some(("a", vec![4, 5, 6])));
    }

    #[test]
    fn nothing_lingers_when_all_lanes_are_taken_at_once() {
        let mut lanes = Lanes::new(10, BOUND);
        lanes.push(&"a", 1, 1, NOW, LINGER);
        lanes.push(&"b", 2, 1, NOW, LINGER / 2);
        assert_eq!(lanes.next(NOW, true), Some(("b", vec![2])));
        assert_eq!(lanes.next(NOW, true), Some(("a", vec![1])));
        assert_eq!(lanes.next(NOW, true), None);
    }

    #[test]
    fn a_lane_is_full_by_items_or_weight_until_it_is_worked_off_by_half() {
        let mut lanes = Lanes::new(2, Bound { items: 4, weight: 100 });
        let is_full = |lanes: &Lanes<&str, i32>, key: &'static str| lanes.full().contains(key);
        for item in 0..4 {
            assert!(!is_full(&lanes, "a"));
            lanes.push(&"a", item, 1, NOW, Duration::ZERO);
        }
        lanes.push(&"b", 0, 1, NOW, Duration::ZERO);
        assert!(is_full(&lanes, "a") && !is_full(&lanes, "b"), "each lane has its own limit");
        lanes.next(NOW, false);
        assert!(is_full(&lanes, "a"), "items of the running batch count");
        lanes.done(&"a", NOW);
        assert!(!is_full(&lanes, "a"));
        lanes.push(&"b", 1, 99, NOW, Duration::ZERO);
        assert!(is_full(&lanes, "b"), "the weight has a limit as well");
        lanes.next(NOW, false);
        lanes.partly_done(&"b", Bound { items: 1, weight: 99 });
        assert!(!is_full(&lanes, "b"));
        lanes.done(&"b", NOW);
        lanes.next(NOW, false);
        lanes.done(&"a", NOW);
        assert_eq!((lanes.is_empty(), lanes.items()), (true, 0));
    }

    #[test]
    fn a_full_lane_stays_full_until_both_items_and_weight_are_down_to_half() {
        for (weights, full) in [([1, 1, 1, 1], [true, false, false]), ([10, 40, 40, 20], [true, true, false])]
        {
            let mut lanes = Lanes::new(1, Bound { items: 4, weight: 100 });
            for weight in weights {
                lanes.push(&"a", (), weight, NOW, Duration::ZERO);
            }
            assert!(lanes.full().contains("a"));
            let left = full.map(|_| {
                lanes.next(NOW, false);
                lanes.done(&"a", NOW);
                lanes.full().contains("a")
            });
            assert_eq!(left, full, "{weights:?}");
        }
    }

    #[test]
    fn what_waits_behind_a_busy_batch_can_be_taken_out_or_changed() {
        let mut lanes = Lanes::new(1, Bound { items: 3, weight: 1000 });
        for item in 0..5 {
            lanes.push(&"a", item, 1, NOW, Duration::ZERO);
        }
        assert_eq!(lanes.next(NOW, false), Some(("a", vec![0])));
        assert_eq!(lanes.withdraw(&"a", |item| item % 2 == 1), [1, 3]);
        assert_eq!((lanes.full().len(), lanes.items()), (1, 3));
        lanes.waiting_mut(&"a").for_each(|item| *item *= 10);
        lanes.done(&"a", NOW);
        assert_eq!(lanes.next(NOW, false), Some(("a", vec![20])));
        assert_eq!(lanes.withdraw(&"a", |_| true), [40]);
        assert_eq!(lanes.full().len(), 0);
        lanes.done(&"a", NOW);
        assert_eq!((lanes.is_empty(), lanes.items()), (true, 0));
    }

    proptest::proptest! {
        /// With any schedule, the items of a twin come out in the order in which they went in, exactly once.
        #[test]
        fn order_within_a_twin_is_kept(script in proptest::collection::vec((0_u8..4, 0_u8..3, 0_u32..3), 1..200), max_batch in 1_usize..4) {
            let mut lanes = Lanes::new(max_batch, BOUND);
            let (mut pushed, mut seen) = (HashMap::<u8, Vec<usize>>::new(), HashMap::<u8, Vec<usize>>::new());
            let mut busy = Vec::new();
            let run = |lanes: &mut Lanes<u8, usize>, busy: &mut Vec<(u8, usize)>, seen: &mut HashMap<u8, Vec<usize>>| {
                if let Some((key, batch)) = lanes.next(NOW, true) {
                    assert!(busy.iter().all(|(other, _)| *other != key), "a twin has two batches in flight");
                    busy.push((key, batch.len()));
                    seen.entry(key).or_default().extend(batch);
                }
            };
            for (number, (key, action, linger)) in script.into_iter().enumerate() {
                match action {
                    0 => { lanes.push(&key, number, 1, NOW, LINGER * linger); pushed.entry(key).or_default().push(number); }
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
