//! A hub with its routes, shared between threads and on the wall clock.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use serde_json::Value;

use super::{
    Change, DeliveryCounts, DeliveryFaults, Error, Hub, HubNames, IdentityChange, Notification, Operation,
    Options, Route, RouteError, Routes, TwinId, history::History,
};

mod past;

pub use past::{FailoverError, Loss, Reading, USUAL_HISTORY, View};

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The hub refused it; nothing changed.
    #[error(transparent)]
    Refused(#[from] Error),
    /// The hub performed it, but its notification could not be delivered.
    #[error("the operation was performed, but not notified")]
    NotDelivered(#[from] RouteError),
}

/// What an accepted operation caused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The version of the twin after the operation; absent once it is deleted.
    pub version: Option<u64>,
    /// What was notified, in order, before any fault of delivery.
    pub changes: Vec<Change>,
}

/// Some of the hub's twins, in the order of their ids.
#[derive(Clone, Debug)]
pub struct Page {
    /// The twins, as far as events tell of them.
    pub twins: Vec<Value>,
    /// The last twin of the page, if there are more after it.
    pub next: Option<TwinId>,
}

/// A running hub. Operations are applied and delivered one at a time, so that the events of a partition key are
/// appended in the order in which the hub performed the operations.
pub struct Service {
    state: Mutex<State>,
    route: Arc<dyn Route>,
}

struct State {
    hub: Hub,
    routes: Routes,
    history: History,
}

impl State {
    /// Performs an operation at the wall clock's time, and remembers what was there before.
    fn perform(&mut self, operation: &Operation) -> Result<Vec<Notification>, Error> {
        self.hub.advance_to(SystemTime::now().into());
        // A twin that somebody else holds is copied when it is written to, so nothing is held while the history is off.
        let before = if self.history.is_off() { Vec::new() } else { self.hub.touched(operation) };
        let notifications = self.hub.apply(operation)?;
        for (id, state) in before {
            self.history.note(self.hub.now(), id, state);
        }
        Ok(notifications)
    }
}

impl Service {
    /// A hub without devices whose notifications go to `route`.
    pub fn new(options: Options, names: HubNames, route: Arc<dyn Route>) -> Self {
        let history = History::new(options.history);
        let hub = Hub::new(options, SystemTime::now().into());
        let state = State { hub, routes: Routes::new(names), history };
        Self { state: Mutex::new(state), route }
    }

    /// Performs one operation and delivers what it notifies.
    ///
    /// # Errors
    /// [`ServiceError`] tells a refusal from a failed delivery.
    pub fn apply(&self, operation: &Operation) -> Result<Applied, ServiceError> {
        self.apply_if(operation, None)
    }

    /// As [`Service::apply`], but only if the twin's etag is `etag`, where one is given.
    ///
    /// # Errors
    /// As [`Service::apply`]; [`Error::EtagMismatch`] if it is another.
    pub fn apply_if(&self, operation: &Operation, etag: Option<&str>) -> Result<Applied, ServiceError> {
        let mut state = self.lock();
        let id = operation.id();
        if let (Some(expected), Some(found)) = (etag, state.hub.etag(id))
            && expected != found
        {
            return Err(Error::EtagMismatch(id.clone()).into());
        }
        let notifications = state.perform(operation)?;
        let changes = notifications.iter().map(|notification| notification.change).collect();
        for notification in notifications {
            state.routes.deliver(notification, &*self.route)?;
        }
        Ok(Applied { version: state.hub.version(id), changes })
    }

    /// Performs operations long past: nobody is notified, as after the end of a route's retention, and the history
    /// knows nothing else than that the twins are as they are.
    ///
    /// # Errors
    /// The first refusal; what came before it is done.
    pub fn apply_unrouted(&self, operations: &[Operation]) -> Result<(), Error> {
        let mut state = self.lock();
        state.hub.advance_to(SystemTime::now().into());
        for operation in operations {
            state.hub.apply(operation)?;
        }
        Ok(())
    }

    /// Changes what no event tells of: status and connection.
    ///
    /// # Errors
    /// There is no such twin.
    pub fn change_identity(&self, id: &TwinId, change: &IdentityChange) -> Result<(), Error> {
        let mut state = self.lock();
        state.hub.advance_to(SystemTime::now().into());
        let before = (!state.history.is_off()).then(|| state.hub.state(id));
        state.hub.change_identity(id, change)?;
        if let Some(before) = before {
            let now = state.hub.now();
            state.history.note(now, id.clone(), before);
        }
        Ok(())
    }

    /// One twin, as far as events tell of it.
    pub fn twin(&self, id: &TwinId) -> Option<Value> {
        self.lock().hub.twin(id)
    }

    /// How many twins there are, devices and modules.
    pub fn len(&self) -> usize {
        self.lock().hub.len()
    }

    /// Whether there are no twins.
    pub fn is_empty(&self) -> bool {
        self.lock().hub.is_empty()
    }

    /// Up to `limit` twins after `after`.
    pub fn page(&self, after: Option<&TwinId>, limit: usize) -> Page {
        let limit = limit.max(1);
        let mut twins = self.lock().hub.twins_after(after, limit + 1);
        let more = twins.len() > limit;
        twins.truncate(limit);
        let next = if more { twins.last().map(|(id, _)| id.clone()) } else { None };
        Page { twins: twins.into_iter().map(|(_, twin)| twin).collect(), next }
    }

    /// Sends what faults of delivery hold back.
    ///
    /// # Errors
    /// The route refused an event.
    pub fn flush(&self) -> Result<(), RouteError> {
        self.lock().routes.flush(&*self.route)
    }

    /// Sends the updates that a coalescing fault holds back, and nothing that is late for another reason.
    ///
    /// # Errors
    /// The route refused an event.
    pub fn flush_updates(&self) -> Result<(), RouteError> {
        self.lock().routes.flush_updates(&*self.route)
    }

    /// Sends what was late for long enough.
    ///
    /// # Errors
    /// The route refused an event.
    pub fn release_late(&self) -> Result<(), RouteError> {
        self.lock().routes.release(SystemTime::now().into(), &*self.route)
    }

    /// Switches faults of delivery on or off.
    pub fn set_delivery_faults(&self, faults: DeliveryFaults) {
        self.lock().routes.set_faults(faults);
    }

    /// The faults of delivery that are on.
    pub fn delivery_faults(&self) -> DeliveryFaults {
        self.lock().routes.faults().clone()
    }

    /// What was delivered up to here.
    pub fn delivery_counts(&self) -> DeliveryCounts {
        self.lock().routes.counts().clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
