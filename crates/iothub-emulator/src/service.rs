//! A hub with its routes, shared between threads and on the system clock.

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
    /// The hub refused the operation. Nothing changed.
    #[error(transparent)]
    Refused(#[from] Error),
    /// The hub performed the operation, but its notification could not be delivered.
    #[error("the operation was performed, but its notification was not delivered")]
    NotDelivered(#[from] RouteError),
}

/// The result of an accepted operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The version of the twin after the operation. `None` after a deletion.
    pub version: Option<u64>,
    /// The notifications, in order, before any delivery faults.
    pub changes: Vec<Change>,
}

/// Some of the hub's twins, in the order of their ids.
#[derive(Clone, Debug)]
pub struct Page {
    /// The twins, with the fields that events contain.
    pub twins: Vec<Value>,
    /// The last twin of the page, if more follow.
    pub next: Option<TwinId>,
}

/// A running hub. Operations are performed and delivered one at a time. So the events of a partition key are appended
/// in the order in which the hub performed the operations.
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
    /// Performs an operation at the system clock's time, and records the previous states.
    fn perform(&mut self, operation: &Operation) -> Result<Vec<Notification>, Error> {
        self.hub.advance_to(SystemTime::now().into());
        // A write copies a twin that is shared. So the previous states are only fetched while the history is on.
        let before = if self.history.is_off() { Vec::new() } else { self.hub.touched(operation) };
        let notifications = self.hub.apply(operation)?;
        for (id, state) in before {
            self.history.note(self.hub.now(), id, state);
        }
        Ok(notifications)
    }
}

impl Service {
    /// Creates a hub without devices, whose notifications go to `route`.
    pub fn new(options: Options, names: HubNames, route: Arc<dyn Route>) -> Self {
        let history = History::new(options.history);
        let hub = Hub::new(options, SystemTime::now().into());
        let state = State { hub, routes: Routes::new(names), history };
        Self { state: Mutex::new(state), route }
    }

    /// Performs one operation and delivers its notifications.
    ///
    /// # Errors
    /// The hub refused the operation, or the delivery failed: [`ServiceError`] says which.
    pub fn apply(&self, operation: &Operation) -> Result<Applied, ServiceError> {
        self.apply_if(operation, None)
    }

    /// Performs one operation as [`Service::apply`] does. If `etag` is given, the twin must have this ETag.
    ///
    /// # Errors
    /// As for [`Service::apply`], or [`Error::EtagMismatch`] if the twin has another ETag.
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

    /// Performs operations that happened long ago. There are no notifications, as if the retention of the Event Hubs
    /// had ended since, and the history does not record the changes.
    ///
    /// # Errors
    /// The first refusal. The operations before it have been performed.
    pub fn apply_unrouted(&self, operations: &[Operation]) -> Result<(), Error> {
        let mut state = self.lock();
        state.hub.advance_to(SystemTime::now().into());
        for operation in operations {
            state.hub.apply(operation)?;
        }
        Ok(())
    }

    /// Changes fields that no event reports: status and connection.
    ///
    /// # Errors
    /// The twin does not exist.
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

    /// One twin, with the fields that events contain.
    pub fn twin(&self, id: &TwinId) -> Option<Value> {
        self.lock().hub.twin(id)
    }

    /// Number of twins, of devices and of modules.
    pub fn len(&self) -> usize {
        self.lock().hub.len()
    }

    /// Whether there are no twins.
    pub fn is_empty(&self) -> bool {
        self.lock().hub.is_empty()
    }

    /// Returns up to `limit` twins after `after`.
    pub fn page(&self, after: Option<&TwinId>, limit: usize) -> Page {
        let limit = limit.max(1);
        let mut twins = self.lock().hub.twins_after(after, limit + 1);
        let more = twins.len() > limit;
        twins.truncate(limit);
        let next = if more { twins.last().map(|(id, _)| id.clone()) } else { None };
        Page { twins: twins.into_iter().map(|(_, twin)| twin).collect(), next }
    }

    /// Sends everything that delivery faults hold back.
    ///
    /// # Errors
    /// The route refused an event.
    pub fn flush(&self) -> Result<(), RouteError> {
        self.lock().routes.flush(&*self.route)
    }

    /// Sends the updates that coalescing holds back, but not the events of a late stream.
    ///
    /// # Errors
    /// The route refused an event.
    pub fn flush_updates(&self) -> Result<(), RouteError> {
        self.lock().routes.flush_updates(&*self.route)
    }

    /// Sends the late events whose time has come.
    ///
    /// # Errors
    /// The route refused an event.
    pub fn release_late(&self) -> Result<(), RouteError> {
        self.lock().routes.release(SystemTime::now().into(), &*self.route)
    }

    /// Sets the delivery faults.
    pub fn set_delivery_faults(&self, faults: DeliveryFaults) {
        self.lock().routes.set_faults(faults);
    }

    /// The active delivery faults.
    pub fn delivery_faults(&self) -> DeliveryFaults {
        self.lock().routes.faults().clone()
    }

    /// The delivery counts so far.
    pub fn delivery_counts(&self) -> DeliveryCounts {
        self.lock().routes.counts().clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
