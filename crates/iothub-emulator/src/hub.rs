//! The registry and its twins as plain state.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use serde_json::{Map, Value};

use super::{
    Change, Error, IdentityChange, Notification, Timestamp, TwinId,
    history::State,
    patch::{self, ServicePatch},
    twin::Twin,
};

/// The contents of a delete notification's body. No public capture shows it, so a consumer must handle all three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeleteBody {
    /// `{}`.
    Empty,
    /// Ids, ETag and version.
    Partial,
    /// The complete twin as it was last.
    #[default]
    Full,
}

/// How the hub behaves where Microsoft's documentation is silent.
#[derive(Clone, Debug)]
pub struct Options {
    /// The hub's name, without a domain.
    pub name: String,
    /// The body of delete notifications.
    pub delete_body: DeleteBody,
    /// Whether the body of a `replaceTwin` notification contains the reported properties, which the write does not change.
    pub replace_includes_reported: bool,
    /// Whether each module of a deleted device gets its own delete notification, before the device's.
    pub notify_deleted_modules: bool,
    /// Number of changes that a [`Service`](super::Service) remembers from its start, for queries of the past and for failovers. 0, the
    /// default, remembers nothing. See [`Service::keep_history`](super::Service::keep_history).
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
        /// The device or module.
        id: TwinId,
        /// `{"tags": {…}, "properties": {"desired": {…}}}`.
        twin: Option<Value>,
    },
    /// A back end's PATCH: merges tags, desired properties or both.
    Patch {
        /// The twin.
        id: TwinId,
        /// `{"tags": {…}, "properties": {"desired": {…}}}`. One of the two may be absent.
        patch: Value,
    },
    /// A back end's PUT: replaces tags and desired properties.
    Replace {
        /// The twin.
        id: TwinId,
        /// As for a patch, without nulls.
        twin: Value,
    },
    /// A device or module patches its reported properties.
    Report {
        /// The twin.
        id: TwinId,
        /// The reported properties to merge.
        patch: Value,
    },
    /// Deletes a device with its modules, or a module.
    Delete {
        /// The device or module.
        id: TwinId,
    },
}

impl Operation {
    /// The twin that the operation is about.
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
    /// The twins are shared with the history. A write copies a shared twin.
    twins: BTreeMap<TwinId, Arc<Twin>>,
    now: Timestamp,
    notifications: u64,
}

impl Hub {
    /// Creates a hub without devices, whose clock is at `start`.
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

    /// Moves the clock forward to `now`. An earlier time changes nothing. Each operation advances the clock by one tick, so that two
    /// operations never have the same `operationTimestamp`.
    pub fn advance_to(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
    }

    /// Performs one operation. Returns its notifications in order.
    ///
    /// # Errors
    /// The operation was refused. In that case, nothing changes.
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

    /// Changes the fields that no event reports. There is no notification, and version and ETag do not change.
    ///
    /// # Errors
    /// The twin does not exist.
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

    /// The twin's fields that events contain: ids, ETag, version, tags and properties.
    pub fn twin(&self, id: &TwinId) -> Option<Value> {
        self.twins.get(id).map(|twin| twin.render(id, true))
    }

    /// The twin as the service's REST API shows it: with the root fields that no event contains.
    pub fn service_twin(&self, id: &TwinId) -> Option<Value> {
        self.twins.get(id).map(|twin| twin.render_for_service(id))
    }

    /// The ETag of a twin, which changes with tags and desired properties.
    pub fn etag(&self, id: &TwinId) -> Option<String> {
        self.twins.get(id).map(|twin| twin.etag())
    }

    /// The version of a twin, which grows by one with every write.
    pub fn version(&self, id: &TwinId) -> Option<u64> {
        self.twins.get(id).map(|twin| twin.version())
    }

    /// Number of twins, of devices and of modules.
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

    /// The twins that the operation may change, with their present states.
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

    /// Restores past states of twins, without notifications.
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

    /// The modules of a device. A module has none.
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
        // As in captured create notifications: the sections of a new module look as if they were never written, those of a device have the
        // time of creation.
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
