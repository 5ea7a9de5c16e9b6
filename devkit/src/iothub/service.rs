//! A hub with its routes, shared between threads and on the wall clock.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use serde_json::Value;

use super::{
    Change, DeliveryCounts, DeliveryFaults, Error, Hub, HubNames, Operation, Options, Route, RouteError,
    Routes, TwinId,
};

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
    /// The twins, as a GET shows them.
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
}

impl Service {
    /// A hub without devices whose notifications go to `route`.
    pub fn new(options: Options, names: HubNames, route: Arc<dyn Route>) -> Self {
        let hub = Hub::new(options, SystemTime::now().into());
        Self { state: Mutex::new(State { hub, routes: Routes::new(names) }), route }
    }

    /// Performs one operation and delivers what it notifies.
    ///
    /// # Errors
    /// [`ServiceError`] tells a refusal from a failed delivery.
    pub fn apply(&self, operation: &Operation) -> Result<Applied, ServiceError> {
        let mut state = self.lock();
        let State { hub, routes } = &mut *state;
        hub.advance_to(SystemTime::now().into());
        let notifications = hub.apply(operation)?;
        let changes = notifications.iter().map(|notification| notification.change).collect();
        for notification in notifications {
            routes.deliver(notification, &*self.route)?;
        }
        let (Operation::Create { id, .. }
        | Operation::Patch { id, .. }
        | Operation::Replace { id, .. }
        | Operation::Report { id, .. }
        | Operation::Delete { id }) = operation;
        Ok(Applied { version: hub.version(id), changes })
    }

    /// One twin, as a GET shows it.
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

    /// Sends what a coalescing fault holds back.
    ///
    /// # Errors
    /// The route refused an event.
    pub fn flush(&self) -> Result<(), RouteError> {
        self.lock().routes.flush(&*self.route)
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
