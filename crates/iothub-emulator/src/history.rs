//! Past states of the twins, for reads of the past and for failovers to an earlier time.
//!
//! Invariants: the past states of a twin are ordered by their end. A twin without a past state at some time was then
//! what it is now. The history is limited to a number of changes. For a time before the oldest one, it shows the
//! earliest known state.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::Arc,
};

use super::{Timestamp, TwinId, twin::Twin};

/// A twin's state at some time. `None` if the twin did not exist.
pub(super) type State = Option<Arc<Twin>>;

/// A twin's state until it changed.
#[derive(Clone, Debug)]
struct Past {
    until: Timestamp,
    state: State,
}

/// The past of a hub.
#[derive(Debug)]
pub(super) struct History {
    limit: usize,
    /// Every recorded change, oldest first.
    order: VecDeque<(Timestamp, TwinId)>,
    by_twin: BTreeMap<TwinId, VecDeque<Past>>,
}

impl History {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, order: VecDeque::new(), by_twin: BTreeMap::new() }
    }

    /// Limits the history to this number of changes from now on.
    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
        self.trim();
    }

    /// Maximum number of changes that are kept.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Whether nothing is kept.
    pub(super) fn is_off(&self) -> bool {
        self.limit == 0
    }

    /// Records the state of a twin before the operation at `at` changed it.
    pub(super) fn note(&mut self, at: Timestamp, id: TwinId, before: State) {
        self.by_twin.entry(id.clone()).or_default().push_back(Past { until: at, state: before });
        self.order.push_back((at, id));
        self.trim();
    }

    /// The state of a twin at `at`. `None` if it is the present state.
    pub(super) fn state_at(&self, id: &TwinId, at: Timestamp) -> Option<&State> {
        self.by_twin.get(id).and_then(|past| past.iter().find(|past| past.until > at)).map(|past| &past.state)
    }

    /// The first twin after `after` that has a past state.
    pub(super) fn next_after(&self, after: Option<&TwinId>) -> Option<&TwinId> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_twin.range((from, Bound::Unbounded)).next().map(|(id, _)| id)
    }

    /// The time just before the last `operations` operations. If fewer are known, the time before the oldest known one.
    pub(super) fn before_last(&self, operations: u64) -> Option<Timestamp> {
        let mut left = operations;
        let mut reached = None;
        for (at, _) in self.order.iter().rev() {
            // One operation may change several twins, all at the same time.
            if reached != Some(*at) {
                if left == 0 {
                    break;
                }
                left -= 1;
                reached = Some(*at);
            }
        }
        reached.map(|at| Timestamp::from_ticks(at.ticks() - 1))
    }

    /// Removes everything after `at`. Returns the states at `at` of the twins that were changed since.
    pub(super) fn rewind(&mut self, at: Timestamp) -> BTreeMap<TwinId, State> {
        let mut states = BTreeMap::new();
        while self.order.back().is_some_and(|(until, _)| *until > at) {
            let Some((_, id)) = self.order.pop_back() else {
                break;
            };
            let past = self.by_twin.get_mut(&id).and_then(VecDeque::pop_back);
            if self.by_twin.get(&id).is_some_and(VecDeque::is_empty) {
                self.by_twin.remove(&id);
            }
            if let Some(past) = past {
                // The last state popped is the oldest one. It is the state to return to.
                states.insert(id, past.state);
            }
        }
        states
    }

    fn trim(&mut self) {
        while self.order.len() > self.limit {
            let Some((_, id)) = self.order.pop_front() else {
                return;
            };
            if let Some(past) = self.by_twin.get_mut(&id) {
                past.pop_front();
                if past.is_empty() {
                    self.by_twin.remove(&id);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> TwinId {
        TwinId::device(name).unwrap()
    }

    fn at(ticks: i64) -> Timestamp {
        Timestamp::from_ticks(ticks)
    }

    fn twin(created: i64) -> State {
        Some(Arc::new(Twin::new(None, at(created), at(created)).unwrap()))
    }

    fn is_same(one: &State, other: &State) -> bool {
        match (one, other) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    #[test]
    fn a_state_holds_until_the_operation_that_changed_it() {
        let mut history = History::new(10);
        let first = twin(1);
        history.note(at(1), id("a"), None);
        history.note(at(5), id("a"), first.clone());
        let state = |ticks| history.state_at(&id("a"), at(ticks));
        assert!(is_same(state(0).unwrap(), &None));
        assert!(is_same(state(1).unwrap(), &first));
        assert!(is_same(state(4).unwrap(), &first));
        assert!(state(5).is_none(), "as it is");
        assert!(history.state_at(&id("b"), at(0)).is_none(), "never noted: as it is");
    }

    #[test]
    fn rewinding_gives_the_earliest_state_after_the_time_and_forgets_what_came_later() {
        let mut history = History::new(10);
        let (first, second) = (twin(1), twin(2));
        history.note(at(1), id("a"), None);
        history.note(at(2), id("a"), first.clone());
        history.note(at(3), id("a"), second);
        history.note(at(3), id("b"), None);
        let states = history.rewind(at(1));
        assert_eq!(states.keys().cloned().collect::<Vec<_>>(), [id("a"), id("b")]);
        assert!(is_same(&states[&id("a")], &first) && is_same(&states[&id("b")], &None));
        assert_eq!(history.next_after(None), Some(&id("a")));
        assert_eq!(history.next_after(Some(&id("a"))), None);
        assert!(history.rewind(at(1)).is_empty());
    }

    #[test]
    fn the_last_operations_are_counted_by_their_times_and_end_where_the_history_does() {
        let mut history = History::new(3);
        for (ticks, name) in [(1, "a"), (2, "a"), (3, "a"), (3, "b")] {
            history.note(at(ticks), id(name), None);
        }
        assert_eq!(history.before_last(0), None);
        assert_eq!(history.before_last(1), Some(at(2)), "one operation, two twins");
        assert_eq!(history.before_last(2), Some(at(1)));
        assert_eq!(history.before_last(100), Some(at(1)), "the first is forgotten");
        history.set_limit(0);
        assert!(history.is_off() && history.next_after(None).is_none());
    }
}
