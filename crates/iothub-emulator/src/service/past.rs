//! Reads of the hub's present and past states, and failovers to an earlier state.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Service, State};
use crate::{RouteError, Status, Timestamp, TwinId};

/// One twin as the service's REST API returns it.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The hub's time of the reading: it contains everything up to then, and nothing later.
    pub at: Timestamp,
    /// The twin with all its root fields, and its ETag. `None` if the twin does not exist.
    pub twin: Option<(String, Value)>,
}

/// A part of the hub, at present or at an earlier time.
#[derive(Clone, Debug)]
pub struct View {
    /// The twins as the service's REST API shows them, in the order of their ids.
    pub twins: Vec<(TwinId, Value)>,
    /// The last twin that was examined, if more follow.
    pub next: Option<TwinId>,
}

/// The number of changes that the hub remembers if its history is switched on automatically. It is sufficient for tests of failovers and of
/// queries that show an earlier state.
pub const USUAL_HISTORY: usize = 50_000;

/// Why a failover failed.
#[derive(Debug, thiserror::Error)]
pub enum FailoverError {
    /// The history is off, so the earlier states are not known.
    #[error(
        "the hub has no history to return to: switch it on before the operations that are to be lost, with \
         the option `history` of the hub or `Service::keep_history`"
    )]
    NoHistory,
    /// The updates that waited to be coalesced could not be delivered.
    #[error("the events that waited before the failover could not be delivered")]
    NotDelivered(#[from] RouteError),
}

/// Which operations a failover loses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Loss {
    /// The operations of this many last milliseconds.
    Ms(u64),
    /// This many last operations.
    Operations(u64),
}

impl Service {
    /// The latest state of one twin.
    pub fn read(&self, id: &TwinId) -> Reading {
        let mut state = self.lock();
        state.hub.advance_to(SystemTime::now().into());
        let twin = state.hub.etag(id).zip(state.hub.service_twin(id));
        Reading { at: state.hub.now(), twin }
    }

    /// The hub's time.
    pub fn now(&self) -> Timestamp {
        let mut state = self.lock();
        state.hub.advance_to(SystemTime::now().into());
        state.hub.now()
    }

    /// Examines up to `limit` twins after `after`, in their state `stale_by` ago, and returns those that are `wanted`. For a time before
    /// the beginning of the history, it returns the earliest known state. Without a history, that is the present state.
    pub fn scan(
        &self,
        after: Option<&TwinId>,
        limit: usize,
        stale_by: Duration,
        wanted: impl Fn(&TwinId) -> bool,
    ) -> View {
        let mut state = self.lock();
        state.hub.advance_to(SystemTime::now().into());
        let at = (!stale_by.is_zero()).then(|| state.hub.now().before(stale_by));
        let mut view = View { twins: Vec::new(), next: None };
        let mut last = after.cloned();
        for _ in 0..limit.max(1) {
            let Some(id) = state.next_at(at, last.as_ref()) else {
                return view;
            };
            if wanted(&id)
                && let Some(twin) = state.state_at(at, &id)
            {
                view.twins.push((id.clone(), twin.render_for_service(&id)));
            }
            last = Some(id);
        }
        view.next = last.filter(|last| state.next_at(at, Some(last)).is_some());
        view
    }

    /// Number of devices by status: enabled, disabled.
    pub fn device_counts(&self) -> (u64, u64) {
        let state = self.lock();
        let (mut enabled, mut disabled) = (0, 0);
        let mut next = state.hub.next_after(None);
        while let Some((id, twin)) = next {
            if id.module_id().is_none() {
                match twin.identity_state.status() {
                    Status::Enabled => enabled += 1,
                    Status::Disabled => disabled += 1,
                }
            }
            next = state.hub.next_after(Some(id));
        }
        (enabled, disabled)
    }

    /// Returns to an earlier state, as a failover to another region does. Versions go back. Twins that were created since are gone, and
    /// those that were deleted exist again. There are no notifications. Events that were routed already are not affected. Events that wait
    /// to be coalesced are sent first, so that they are not combined with later ones. Returns the number of changed twins. It cannot return
    /// to a time before the history.
    ///
    /// # Errors
    /// The history is off, or the route refused an event. The twins are unchanged.
    pub fn failover(&self, loss: Loss) -> Result<usize, FailoverError> {
        let mut state = self.lock();
        if state.history.is_off() {
            return Err(FailoverError::NoHistory);
        }
        state.routes.flush_updates(&*self.route)?;
        state.hub.advance_to(SystemTime::now().into());
        let at = match loss {
            Loss::Ms(ms) => Some(state.hub.now().before(Duration::from_millis(ms))),
            Loss::Operations(operations) => state.history.before_last(operations),
        };
        let states = at.map(|at| state.history.rewind(at)).unwrap_or_default();
        let changed = states.len();
        state.hub.restore(states);
        Ok(changed)
    }

    /// Remembers this many changes from now on, for queries of the past and for failovers. 0 removes the history and switches it off. The
    /// history is expensive, because each change then copies its twin: with a backlog of 100,000 events, it takes more than a gigabyte, and
    /// the hub is less than half as fast.
    pub fn keep_history(&self, changes: usize) {
        self.lock().history.set_limit(changes);
    }

    /// Maximum number of changes that the hub remembers. 0: the history is off.
    pub fn history(&self) -> usize {
        self.lock().history.limit()
    }

    /// Switches the history on if it is off, with [`USUAL_HISTORY`].
    pub(crate) fn need_history(&self) {
        let mut state = self.lock();
        if state.history.is_off() {
            state.history.set_limit(USUAL_HISTORY);
        }
    }
}

impl State {
    /// The first twin after `after` that exists now, or may have existed at `at`.
    fn next_at(&self, at: Option<Timestamp>, after: Option<&TwinId>) -> Option<TwinId> {
        let present = self.hub.next_after(after).map(|(id, _)| id);
        let past = at.and_then(|_| self.history.next_after(after));
        match (present, past) {
            (Some(present), Some(past)) => Some(present.min(past).clone()),
            (one, other) => one.or(other).cloned(),
        }
    }

    fn state_at(&self, at: Option<Timestamp>, id: &TwinId) -> crate::history::State {
        match at.and_then(|at| self.history.state_at(id, at)) {
            Some(state) => state.clone(),
            None => self.hub.state(id),
        }
    }
}
