//! Reads of the hub as it is and as it was, and its way back to an earlier state.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Service, State};
use crate::{RouteError, Status, Timestamp, TwinId};

/// One twin as the service's REST API reads it.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The hub's time of the reading: everything up to it is in it, nothing after it is.
    pub at: Timestamp,
    /// The twin with all its root fields, and its etag; nothing if there is no such twin.
    pub twin: Option<(String, Value)>,
}

/// A part of the hub, as it is or was.
#[derive(Clone, Debug)]
pub struct View {
    /// The twins as the service's REST API shows them, in the order of their ids.
    pub twins: Vec<(TwinId, Value)>,
    /// The last twin that was looked at, if there are more after it.
    pub next: Option<TwinId>,
}

/// What is enough for a test of failovers or stale queries: the number of changes that the hub remembers once something
/// needs its past and nobody has said how many.
pub const USUAL_HISTORY: usize = 50_000;

/// Why a hub did not go back.
#[derive(Debug, thiserror::Error)]
pub enum FailoverError {
    /// Its history is off, so it does not know what it was.
    #[error(
        "the hub remembers no past to go back to: switch its history on before the operations that are to be lost, with \
         the option `history` of the hub or `Service::keep_history`"
    )]
    NoHistory,
    /// What waited to be coalesced could not be sent.
    #[error("what waited before the failover could not be delivered")]
    NotDelivered(#[from] RouteError),
}

/// What a failover loses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Loss {
    /// The operations of the last so many milliseconds.
    Ms(u64),
    /// The last so many operations.
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

    /// Looks at up to `limit` twins after `after`, as the hub was `stale_by` ago, and shows those that are `wanted`.
    /// Further back than the history goes, it shows the earliest state known; without a history, that is the present one.
    pub fn look(
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

    /// Devices by status: enabled, disabled.
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

    /// Goes back to an earlier state, as a failover to another region does: versions go back, what was created since is
    /// gone, what was deleted is there again, and nobody is notified. Events that were routed stay routed; those that
    /// wait to be coalesced go out first, since they must not meet what comes after. Returns how many twins changed. It
    /// cannot go further back than the history.
    ///
    /// # Errors
    /// The history is off, or the route refused an event; the hub is as it was.
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

    /// Remembers this many changes from here on, for stale queries and failovers; 0 forgets everything and remembers nothing
    /// more. It is dear, since each change then copies its twin: with a backlog of 100,000 events, more than a gigabyte, and
    /// less than half the hub's rate without it.
    pub fn keep_history(&self, changes: usize) {
        self.lock().history.set_limit(changes);
    }

    /// How many changes the hub remembers at most; 0: its history is off.
    pub fn history(&self) -> usize {
        self.lock().history.limit()
    }

    /// Switches the history on, with [`USUAL_HISTORY`], unless it is on.
    pub(crate) fn need_history(&self) {
        let mut state = self.lock();
        if state.history.is_off() {
            state.history.set_limit(USUAL_HISTORY);
        }
    }
}

impl State {
    /// The first twin after `after` that exists, or may have existed at `at`.
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
