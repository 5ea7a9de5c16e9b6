//! The registry and its twins: pure state.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use serde_json::{Map, Value};

use super::{
    Change, Error, IdentityChange, Notification, Timestamp, TwinId,
    history::State,
    patch::{self, ServicePatch},
    twin::Twin,
};

/// What a delete notification's body holds; no public capture shows it, so a mirror must cope with all three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeleteBody {
    /// `{}`.
    Empty,
    /// Ids, etag and version.
    Partial,
    /// The whole twin as it was last.
    #[default]
    Full,
}

/// How the hub behaves where Microsoft's pages leave it open.
#[derive(Clone, Debug)]
pub struct Options {
    /// The hub's name, without a domain.
    pub name: String,
    /// The body of delete notifications.
    pub delete_body: DeleteBody,
    /// Whether a `replaceTwin` body holds the reported properties, which the write leaves as they are.
    pub replace_includes_reported: bool,
    /// Whether each module of a deleted device gets a delete notification of its own, before the device's.
    pub notify_deleted_modules: bool,
    /// Changes that a [`Service`](super::Service) remembers from its start, for stale queries and failovers; 0, the default,
    /// remembers nothing. See [`Service::keep_history`](super::Service::keep_history).
    pub history: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: "devkit-hub".to_owned(),
            delete_body: DeleteBody::default(),
            replace_includes_reported: true,
            notify_deleted_modules: true,
            history: 0,
        }
    }
}

/// One request to the hub.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// Registers a device or a module, optionally with tags and desired properties.
    Create {
        /// Whom.
        id: TwinId,
        /// `{"tags": {…}, "properties": {"desired": {…}}}`.
        twin: Option<Value>,
    },
    /// A back end's PATCH: merges tags, desired properties or both.
    Patch {
        /// Whose twin.
        id: TwinId,
        /// `{"tags": {…}, "properties": {"desired": {…}}}`, either part absent.
        patch: Value,
    },
    /// A back end's PUT: replaces tags and desired properties.
    Replace {
        /// Whose twin.
        id: TwinId,
        /// As for a patch, without nulls.
        twin: Value,
    },
    /// A device or module patches its reported properties.
    Report {
        /// Whose twin.
        id: TwinId,
        /// The reported properties to merge.
        patch: Value,
    },
    /// Removes a device with its modules, or a module.
    Delete {
        /// Whom.
        id: TwinId,
    },
}

impl Operation {
    /// The twin it is about.
    pub fn id(&self) -> &TwinId {
        let (Self::Create { id, .. }
        | Self::Patch { id, .. }
        | Self::Replace { id, .. }
        | Self::Report { id, .. }
        | Self::Delete { id }) = self;
        id
    }
}

/// One IoT hub.
#[derive(Clone, Debug)]
pub struct Hub {
    name: Arc<str>,
    options: Options,
    /// Shared with whoever keeps a past state; a write copies a twin that is.
    twins: BTreeMap<TwinId, Arc<Twin>>,
    now: Timestamp,
    notifications: u64,
}

impl Hub {
    /// A hub without devices whose clock stands at `start`.
    pub fn new(options: Options, start: Timestamp) -> Self {
        Self {
            name: Arc::from(options.name.as_str()),
            options,
            twins: BTreeMap::new(),
            now: start,
            notifications: 0,
        }
    }

    /// The hub's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Moves the clock forward to `now`; an earlier time changes nothing. Without it, time passes by one tick per
    /// operation, so that two operations never share an `operationTimestamp`.
    pub fn advance_to(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
    }

    /// Performs one operation and returns what the hub notifies, in order.
    ///
    /// # Errors
    /// A refused operation changes nothing.
    pub fn apply(&mut self, operation: &Operation) -> Result<Vec<Notification>, Error> {
        let now = self.now.next();
        let notifications = match operation {
            Operation::Create { id, twin } => vec![self.create(id, twin.as_ref(), now)?],
            Operation::Patch { id, patch } => {
                let patch = ServicePatch::read_change(patch)?;
                let body = self.twin_mut(id)?.patch(patch, now)?;
                vec![self.notify(id, Change::Updated, now, body)]
            }
            Operation::Replace { id, twin } => {
                let replacement = ServicePatch::read(twin)?;
                let reported = self.options.replace_includes_reported;
                let twin = self.twin_mut(id)?;
                twin.replace(&replacement, now)?;
                let body = twin.render_replaced(id, reported);
                vec![self.notify(id, Change::Replaced, now, body)]
            }
            Operation::Report { id, patch } => {
                let patch = patch::read_reported(patch)?;
                let body = self.twin_mut(id)?.report(patch, now)?;
                vec![self.notify(id, Change::Updated, now, body)]
            }
            Operation::Delete { id } => self.delete(id, now)?,
        };
        self.now = now;
        Ok(notifications)
    }

    /// Changes what no event tells of: nothing is notified, and version and etag stay.
    ///
    /// # Errors
    /// There is no such twin.
    pub fn change_identity(&mut self, id: &TwinId, change: &IdentityChange) -> Result<(), Error> {
        let now = self.now.next();
        self.twin_mut(id)?.identity_state.change(change, now);
        self.now = now;
        Ok(())
    }

    /// The hub's time.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The twin as far as events tell of it: ids, etag, version, tags and properties.
    pub fn twin(&self, id: &TwinId) -> Option<Value> {
        self.twins.get(id).map(|twin| twin.render(id, true))
    }

    /// The twin as the service's REST API shows it: with the root fields that no event carries.
    pub fn service_twin(&self, id: &TwinId) -> Option<Value> {
        self.twins.get(id).map(|twin| twin.render_for_service(id))
    }

    /// The etag of a twin, which moves with tags and desired properties.
    pub fn etag(&self, id: &TwinId) -> Option<String> {
        self.twins.get(id).map(|twin| twin.etag())
    }

    /// The version of a twin, which moves by one with every write.
    pub fn version(&self, id: &TwinId) -> Option<u64> {
        self.twins.get(id).map(|twin| twin.version())
    }

    /// How many twins there are, devices and modules.
    pub fn len(&self) -> usize {
        self.twins.len()
    }

    /// Whether there are no twins.
    pub fn is_empty(&self) -> bool {
        self.twins.is_empty()
    }

    /// Up to `limit` twins after `after`, in the order of their ids.
    pub fn twins_after(&self, after: Option<&TwinId>, limit: usize) -> Vec<(TwinId, Value)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.twins
            .range((from, Bound::Unbounded))
            .take(limit)
            .map(|(id, twin)| (id.clone(), twin.render(id, true)))
            .collect()
    }

    /// What the operation may change, as it is.
    pub(super) fn touched(&self, operation: &Operation) -> Vec<(TwinId, State)> {
        let id = operation.id();
        let mut touched = vec![(id.clone(), self.state(id))];
        if let Operation::Delete { .. } = operation {
            touched.extend(self.modules(id).map(|(id, twin)| (id.clone(), Some(Arc::clone(twin)))));
        }
        touched
    }

    /// A twin's state.
    pub(super) fn state(&self, id: &TwinId) -> State {
        self.twins.get(id).cloned()
    }

    /// The first twin after `after`.
    pub(super) fn next_after(&self, after: Option<&TwinId>) -> Option<(&TwinId, &Arc<Twin>)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.twins.range((from, Bound::Unbounded)).next()
    }

    /// Puts twins back to what they were, without notifying anybody.
    pub(super) fn restore(&mut self, states: BTreeMap<TwinId, State>) {
        for (id, state) in states {
            match state {
                Some(twin) => {
                    self.twins.insert(id, twin);
                }
                None => {
                    self.twins.remove(&id);
                }
            }
        }
    }

    /// The modules of a device; none of a module.
    fn modules(&self, id: &TwinId) -> impl Iterator<Item = (&TwinId, &Arc<Twin>)> {
        let modules = if id.module_id().is_some() { 0 } else { usize::MAX };
        self.twins
            .range((Bound::Excluded(id), Bound::Unbounded))
            .take_while(move |(other, _)| other.device_id() == id.device_id())
            .take(modules)
    }

    fn create(&mut self, id: &TwinId, twin: Option<&Value>, now: Timestamp) -> Result<Notification, Error> {
        if self.twins.contains_key(id) {
            return Err(Error::AlreadyExists(id.clone()));
        }
        let is_module = id.module_id().is_some();
        if is_module && !self.twins.contains_key(&id.parent()) {
            return Err(Error::NotFound(id.parent()));
        }
        let initial = twin.map(ServicePatch::read).transpose()?;
        // Captured create notifications: a module's sections look never written, a device's carry the time.
        let written = if is_module { Timestamp::NEVER } else { now };
        let twin = Twin::new(initial.as_ref(), written, now)?;
        let body = twin.render(id, true);
        self.twins.insert(id.clone(), Arc::new(twin));
        Ok(self.notify(id, Change::Created, now, body))
    }

    fn delete(&mut self, id: &TwinId, now: Timestamp) -> Result<Vec<Notification>, Error> {
        if !self.twins.contains_key(id) {
            return Err(Error::NotFound(id.clone()));
        }
        let modules: Vec<TwinId> = self.modules(id).map(|(module, _)| module.clone()).collect();
        let mut notifications = Vec::with_capacity(modules.len() + 1);
        for gone in modules.iter().chain([id]) {
            let Some(twin) = self.twins.remove(gone) else {
                continue;
            };
            if gone == id || self.options.notify_deleted_modules {
                let body = match self.options.delete_body {
                    DeleteBody::Empty => Value::Object(Map::new()),
                    DeleteBody::Partial => Value::Object(twin.render_head(gone)),
                    DeleteBody::Full => twin.render(gone, true),
                };
                notifications.push(self.notify(gone, Change::Deleted, now, body));
            }
        }
        Ok(notifications)
    }

    fn twin_mut(&mut self, id: &TwinId) -> Result<&mut Twin, Error> {
        self.twins.get_mut(id).map(Arc::make_mut).ok_or_else(|| Error::NotFound(id.clone()))
    }

    fn notify(&mut self, id: &TwinId, change: Change, now: Timestamp, body: Value) -> Notification {
        self.notifications += 1;
        Notification {
            number: self.notifications,
            hub_name: Arc::clone(&self.name),
            id: id.clone(),
            change,
            operation_time: now,
            body,
        }
    }
}
