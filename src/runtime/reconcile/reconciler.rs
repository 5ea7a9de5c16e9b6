//! Reconciles one twin: makes its document equal to the hub's twin.
//!
//! ```text
//! read the document ─► GET the twin ─► compare ─► equal: nothing
//!        ▲                                └─► differs: write, if the document is still the one that was read
//!        └──────────── conflict, or no answer ◄──────────┘
//! ```
//!
//! SUBTLE: the order of the two reads is the proof. Everything that the document could contain happened before it was read, and a GET that
//! is issued afterwards reflects it. So the answer may replace the document without comparing versions, which a failover may have set back.
//! The write has the condition that the document is still the same.
//!
//! Only the hub's own "not found" makes a tombstone. A missing answer changes nothing.
//!
//! SUBTLE: a write without an answer may still be performed later. Only another write under the same condition prevents that. So if the
//! next cycle finds the document unchanged, it writes even if nothing differs: the same content once more, or a tombstone if there is
//! neither a document nor a twin.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::requests::AuditRequests;
use crate::{
    domain::{
        decide::{Rules, decide, follow},
        document::{Cascade, Document, ETag, Operation, State},
        drift::{Drift, Part, Strictness, drift},
        event::{Change, TwinEvent},
        id::{HubName, TwinKey},
        quota::Purpose,
        registry::{RegistryTwin, went_back},
        ticks::Ticks,
        twin::{Sections, TwinVersion},
    },
    ports::{Clock, Got, Read, StoreError, StoreErrorKind, TWIN_UNANSWERED, Write},
    runtime::{
        budgeted_store::BudgetedStore, documents::DocumentCache, rate_limited_registry::RateLimitedRegistry,
    },
    telemetry::event::{DocumentRejected, TwinCorrected, TwinWentBack},
};

/// How many times a cycle is repeated because the document was written meanwhile. After that, the twin is tried again later.
const CYCLES: u32 = 5;

/// A hub that went back is reported, and audited, at most this often: all its twins may have gone back.
const WENT_BACK_TOLD: Duration = Duration::from_secs(10);

/// What to do with a twin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Task {
    /// The purpose, for quota and metrics.
    pub purpose: Purpose,
    /// How closely to compare.
    pub strictness: Strictness,
    /// Whether documents are written.
    pub mode: Mode,
    /// Which documents are not compared.
    pub unless: Unless,
}

/// Whether documents are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Only compares.
    Compare,
    /// Writes the hub's twin if the document differs.
    Correct,
}

/// Documents for which the hub is not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unless {
    /// None: the hub is always asked.
    Never,
    /// Documents that are no longer flagged.
    Unflagged,
    /// Missing documents, and documents with the identity fields.
    Complete,
    /// Documents that are not flagged and hold this version or a newer one.
    Holds(TwinVersion),
}

/// Result of reconciling a twin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The hub was not asked: [`Unless`] applied.
    Spared,
    /// The document equals the hub's twin, and is not flagged.
    Equal,
    /// Neither the hub nor the store has the twin. There is no tombstone either.
    Absent,
    /// The document differed, and now equals the hub's twin.
    Corrected(Drift),
    /// The document differs, and nothing may be written.
    Differs(Drift),
    /// The document differs, and the store will never take the hub's twin. Holds the store's reason.
    Rejected(Drift, String),
    /// There is no registry for this twin's hub.
    ForeignHub,
}

/// Reconciles twins.
pub struct TwinReconciler {
    budgeted_store: BudgetedStore,
    registries: BTreeMap<HubName, Arc<RateLimitedRegistry>>,
    cache: DocumentCache,
    clock: Arc<dyn Clock>,
    rules: Rules,
    audits: AuditRequests,
    /// Whether documents should have the identity fields, which no event contains.
    identity: bool,
    /// When it was last reported that a hub went back.
    told: Mutex<Option<Ticks>>,
    unanswered: Unanswered,
    begun: Begun,
}

/// Modules whose documents were begun here and whose devices have not been read since, with the time until which the hub's answer is
/// confirmed.
#[derive(Default)]
struct Begun(Mutex<HashMap<TwinKey, Ticks>>);

impl Begun {
    fn lock(&self) -> MutexGuard<'_, HashMap<TwinKey, Ticks>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes `document`, which is about to be written over `stored`, if it begins a module.
    fn note(&self, document: &Document, stored: Option<&Document>) {
        let begins = document.twin().is_some() && stored.and_then(Document::twin).is_none();
        if document.key.is_module() && begins {
            let until = document.confirmed_until.unwrap_or(document.last);
            self.lock().insert(document.key.clone(), until);
        }
    }

    fn get(&self, key: &TwinKey) -> Option<Ticks> {
        self.lock().get(key).copied()
    }

    fn forget(&self, key: &TwinKey) {
        self.lock().remove(key);
    }
}

/// The last unanswered write of each twin, by its condition: the ETag to be replaced, or `None` for a creation. There are as many entries
/// as twins that are being tried at the same time, plus those that were given up.
#[derive(Default)]
struct Unanswered(Mutex<HashMap<TwinKey, Option<ETag>>>);

impl Unanswered {
    fn lock(&self) -> MutexGuard<'_, HashMap<TwinKey, Option<ETag>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, key: &TwinKey, condition: Option<&ETag>) {
        self.lock().insert(key.clone(), condition.cloned());
    }

    /// Whether an unanswered write may still be performed over the document with this ETag, or in the absence of a document.
    fn may_come(&self, key: &TwinKey, etag: Option<&ETag>) -> bool {
        let mut unanswered = self.lock();
        let Some(condition) = unanswered.get(key) else { return false };
        let same = condition.as_ref() == etag;
        if !same {
            // The document is a later one, or the first one: the condition will never hold again.
            unanswered.remove(key);
        }
        same
    }

    fn forget(&self, key: &TwinKey) {
        self.lock().remove(key);
    }
}

/// The document under a twin's id.
struct Stored {
    document: Option<Arc<Document>>,
    etag: Option<ETag>,
    /// Set if the document belongs to another twin, or if no document can have this id. Holds the reason.
    foreign: Option<String>,
}

/// Result of reconciling one twin without its modules.
struct Done {
    verdict: Verdict,
    /// A device whose modules have to be reconciled.
    left: Option<(Arc<Document>, ETag)>,
}

impl Done {
    fn new(verdict: Verdict, stored: Stored) -> Self {
        Self { verdict, left: pending_cascade(stored) }
    }
}

impl Stored {
    fn is_damaged(&self) -> bool {
        self.document.is_none() && self.etag.is_some()
    }
}

impl TwinReconciler {
    /// A reconciler over the hubs of `registries`. Its writes also go into `cache`, for the next write of the streams.
    pub fn new(
        budgeted_store: BudgetedStore,
        registries: &[Arc<RateLimitedRegistry>],
        cache: DocumentCache,
        clock: Arc<dyn Clock>,
        rules: Rules,
    ) -> Self {
        let registries =
            registries.iter().map(|registry| (registry.hub().clone(), Arc::clone(registry))).collect();
        let audits = AuditRequests::nobodys();
        let (told, unanswered, begun) = (Mutex::default(), Unanswered::default(), Begun::default());
        Self {
            budgeted_store,
            registries,
            cache,
            clock,
            rules,
            audits,
            identity: false,
            told,
            unanswered,
            begun,
        }
    }

    /// Sets whether a document without identity fields counts as incomplete.
    #[must_use]
    pub fn with_identity(self, identity: bool) -> Self {
        Self { identity, ..self }
    }

    /// How a document differs from the twin, as far as it matters to this reconciler.
    pub fn drift(
        &self,
        document: Option<&Document>,
        twin: Option<(TwinVersion, &Sections)>,
        strictness: Strictness,
    ) -> Option<Drift> {
        drift(document, twin, strictness).filter(|found| self.identity || *found != Drift::Incomplete)
    }

    /// Requests an audit if a repair finds that a hub went back: nothing else shows the twins that have not changed since.
    #[must_use]
    pub fn asking(self, audits: AuditRequests) -> Self {
        Self { audits, ..self }
    }

    /// Where audits are requested.
    pub fn audits(&self) -> &AuditRequests {
        &self.audits
    }

    /// The store, within the cap on request units.
    pub fn budgeted_store(&self) -> &BudgetedStore {
        &self.budgeted_store
    }

    /// The id under which the document of a twin is created.
    pub fn document_id(&self, key: &TwinKey) -> String {
        self.rules.id_scheme.document_id(key)
    }

    /// The present time.
    pub fn now(&self) -> Ticks {
        self.clock.now()
    }

    /// The registry of a hub.
    pub fn registry(&self, hub: &HubName) -> Option<&Arc<RateLimitedRegistry>> {
        self.registries.get(hub)
    }

    /// The registries, in the order of their hubs' names.
    pub fn registries(&self) -> impl Iterator<Item = &Arc<RateLimitedRegistry>> {
        self.registries.values()
    }

    /// Reconciles one twin. If it is a device that has ended, its modules too.
    ///
    /// # Errors
    /// The store or the registry gave no answer, or the document kept changing. Nothing is worse than before, and the call can be repeated.
    pub async fn reconcile(&self, key: &TwinKey, task: &Task) -> Result<Verdict, StoreError> {
        let Done { verdict, left } = self.reconcile_alone(key, task).await?;
        if let Some((document, etag)) = left
            && task.mode == Mode::Correct
        {
            self.cascade(&document, &etag, task).await?;
        }
        Ok(verdict)
    }

    /// Reconciles a twin that most likely has no document: asks the hub at once and creates the document, without the read. If a document
    /// is there all the same, this costs one more call to the hub and one refused write than [`TwinReconciler::reconcile`]. If a document
    /// may exist under another id, nothing would refuse a second one. Then the twin is reconciled.
    ///
    /// SUBTLE: the proof holds without the read. A document that is still absent when it is created contained nothing while the hub was
    /// asked. If it was created meanwhile, this creation is refused, and the twin is reconciled.
    ///
    /// # Errors
    /// As for [`TwinReconciler::reconcile`].
    pub async fn bring_in(&self, key: &TwinKey, task: &Task) -> Result<Verdict, StoreError> {
        let may_create = task.mode == Mode::Correct && !self.rules.id_scheme.may_lie_elsewhere();
        if let Some(registry) = self.registry(&key.hub).filter(|_| may_create) {
            match registry.get(key, task.purpose).await {
                Got::Present(twin) => {
                    let nothing = Stored { document: None, etag: None, foreign: None };
                    if let Some(done) = self.there(key, nothing, *twin, task).await? {
                        self.follow_device(key, task).await?;
                        return Ok(done.verdict);
                    }
                }
                // Only a read can tell what its document says then.
                Got::Absent(_) => {}
                Got::Unknown(trouble) => return Err(trouble),
            }
        }
        self.reconcile(key, task).await
    }

    /// Reads the document and the twin, in this order. Writes nothing.
    ///
    /// # Errors
    /// The store, the registry, or both gave no answer, or there is no registry for this hub.
    pub async fn both(
        &self,
        key: &TwinKey,
        purpose: Purpose,
    ) -> Result<(Option<Arc<Document>>, Option<RegistryTwin>), StoreError> {
        let stored = self.read(key, purpose).await?;
        let registry = self.registry(&key.hub).ok_or_else(|| StoreError {
            kind: StoreErrorKind::Unavailable,
            code: TWIN_UNANSWERED,
            retry_after: None,
            message: format!("the hub {} is not configured in [iothub]", key.hub),
        })?;
        match registry.get(key, purpose).await {
            Got::Present(twin) => Ok((stored.document, Some(*twin))),
            Got::Absent(_) => Ok((stored.document, None)),
            Got::Unknown(trouble) => Err(trouble),
        }
    }

    /// Whether store and hub answer at all. If they do, a failure with one twin concerns that twin.
    pub async fn answers(&self, hub: &HubName, purpose: Purpose) -> bool {
        let Some(registry) = self.registry(hub) else {
            return false;
        };
        // No device can have this id, and any store accepts it in a read.
        let nobody = TwinKey::device(hub, "|");
        registry.device_count(purpose).await.is_ok()
            && !matches!(self.budgeted_store.read(&nobody, purpose).await, Read::Unknown(_))
    }

    /// Reconciles one twin without its modules. Also reads the device of a module that was begun, in this or an earlier try.
    async fn reconcile_alone(&self, key: &TwinKey, task: &Task) -> Result<Done, StoreError> {
        let done = self.compare_and_write(key, task).await?;
        self.follow_device(key, task).await?;
        Ok(done)
    }

    async fn compare_and_write(&self, key: &TwinKey, task: &Task) -> Result<Done, StoreError> {
        let Some(registry) = self.registry(&key.hub) else {
            return Ok(Done { verdict: Verdict::ForeignHub, left: None });
        };
        for _ in 0..CYCLES {
            let stored = self.read(key, task.purpose).await?;
            if let Some(reason) = stored.foreign {
                // Whatever the hub answers, the document cannot be stored.
                DocumentRejected { twin: key, reason: &reason }.emit(&self.budgeted_store.metrics);
                return Ok(Done { verdict: Verdict::Rejected(Drift::Missing, reason), left: None });
            }
            if spared(stored.document.as_deref(), task.unless)
                && !self.unanswered.may_come(key, stored.etag.as_ref())
            {
                return Ok(Done::new(Verdict::Spared, stored));
            }
            let done = match registry.get(key, task.purpose).await {
                Got::Present(twin) => self.there(key, stored, *twin, task).await?,
                Got::Absent(at) => self.gone(key, stored, at, task).await?,
                Got::Unknown(_) if planted!(SilenceIsAbsence) => {
                    self.gone(key, stored, self.clock.now(), task).await?
                }
                Got::Unknown(trouble) => return Err(trouble),
            };
            if let Some(done) = done {
                return Ok(done);
            }
        }
        Err(never_stood_still())
    }

    /// Reads the device of a module whose document was begun here. If the device has ended since the hub was asked, the module follows.
    ///
    /// SUBTLE: the device's end is written first, and then its modules are looked for. This module is written first, and then its device is
    /// read. Whatever the interleaving, one of the two sees the other.
    async fn follow_device(&self, key: &TwinKey, task: &Task) -> Result<(), StoreError> {
        let Some(until) = self.begun.get(key).filter(|_| task.mode == Mode::Correct) else { return Ok(()) };
        for _ in 0..CYCLES {
            let device = self.read(&key.parent(), task.purpose).await?;
            let ended = device.document.as_deref().and_then(Document::modules_dead_before);
            let Some(ended) = ended.filter(|ended| until < *ended) else {
                self.begun.forget(key);
                return Ok(());
            };
            let stored = self.read(key, task.purpose).await?;
            let mut document = stored.document.as_deref().cloned();
            // Without a document, nothing was begun, or the id belongs to another twin's document.
            if document.is_none() {
                self.begun.forget(key);
                return Ok(());
            }
            decide(
                &mut document,
                &follow(key.clone(), Cascade::Deleted(ended)),
                self.clock.now(),
                &self.rules,
            );
            let Some(document) = document.filter(|document| Some(document) != stored.document.as_deref())
            else {
                self.begun.forget(key);
                return Ok(());
            };
            match self.budgeted_store.write(key, &document, stored.etag.as_ref(), task.purpose).await {
                Write::Written(etag) => self.cache.insert(key.clone(), (Arc::new(document), etag)),
                Write::Conflict => {
                    self.cache.invalidate(key);
                    continue;
                }
                Write::Rejected(reason) => {
                    DocumentRejected { twin: key, reason: &reason }.emit(&self.budgeted_store.metrics);
                }
                Write::Unknown(trouble) => {
                    self.cache.invalidate(key);
                    return Err(trouble);
                }
            }
            self.begun.forget(key);
            return Ok(());
        }
        Err(never_stood_still())
    }

    async fn there(
        &self,
        key: &TwinKey,
        stored: Stored,
        twin: RegistryTwin,
        task: &Task,
    ) -> Result<Option<Done>, StoreError> {
        let found = match stored.is_damaged() {
            true => Some(Drift::Different(Part::Damaged)),
            false => {
                self.drift(stored.document.as_deref(), Some((twin.version, &twin.twin)), task.strictness)
            }
        };
        let change = Change::Snapshot { version: twin.version, twin: twin.twin };
        self.conclude(key, stored, found, TwinEvent { key: key.clone(), at: twin.at, change }, task).await
    }

    async fn gone(
        &self,
        key: &TwinKey,
        stored: Stored,
        at: Ticks,
        task: &Task,
    ) -> Result<Option<Done>, StoreError> {
        let comes = task.mode == Mode::Correct
            && stored.document.is_none()
            && self.unanswered.may_come(key, stored.etag.as_ref());
        let (found, change) = match stored.is_damaged() || comes {
            // A document that is unreadable, or may still be created, gets a tombstone.
            true => (Some(Drift::Extra), Change::Deleted),
            false => (drift(stored.document.as_deref(), None, task.strictness), Change::Gone),
        };
        if found.is_none() && stored.document.is_none() {
            return Ok(Some(Done::new(Verdict::Absent, stored)));
        }
        self.conclude(key, stored, found, TwinEvent { key: key.clone(), at, change }, task).await
    }

    /// Writes the result if something differs. `None`: another writer was faster.
    async fn conclude(
        &self,
        key: &TwinKey,
        stored: Stored,
        found: Option<Drift>,
        event: TwinEvent,
        task: &Task,
    ) -> Result<Option<Done>, StoreError> {
        let only_looks =
            task.mode == Mode::Compare || (task.purpose == Purpose::Audit && planted!(AuditOnlyLooks));
        let comes = !only_looks && self.unanswered.may_come(key, stored.etag.as_ref());
        match found {
            None if !comes => return Ok(Some(Done::new(Verdict::Equal, stored))),
            Some(found) if only_looks => {
                return Ok(Some(Done { verdict: Verdict::Differs(found), left: None }));
            }
            Some(_) | None => {}
        }
        let mut document = stored.document.as_deref().cloned();
        decide(&mut document, &event, self.clock.now(), &self.rules);
        if stored.document.is_none()
            && matches!(event.change, Change::Deleted)
            && let Some(document) = &mut document
        {
            // Whatever is stored, or will be, this is a repair: its modules are reconciled as in any repair.
            document.operation = Operation::Snapshot;
        }
        let Some(document) =
            document.filter(|document| comes || Some(document) != stored.document.as_deref())
        else {
            return Ok(Some(Done::new(Verdict::Equal, stored)));
        };
        let went_back = self.went_back(stored.document.as_deref(), &event);
        self.begun.note(&document, stored.document.as_deref());
        match self.budgeted_store.write(key, &document, stored.etag.as_ref(), task.purpose).await {
            Write::Written(etag) => {
                self.unanswered.forget(key);
                let document = Arc::new(document);
                self.cache.insert(key.clone(), (Arc::clone(&document), etag.clone()));
                let verdict = found.map_or(Verdict::Equal, Verdict::Corrected);
                if let Some(drift) = found {
                    TwinCorrected { twin: key, purpose: task.purpose.into(), drift }
                        .emit(&self.budgeted_store.metrics);
                }
                // An audit asks about every twin anyway.
                if went_back && task.purpose == Purpose::Repair {
                    self.tell_that_it_went_back(key);
                }
                let left = Stored { document: Some(document), etag: Some(etag), foreign: None };
                Ok(Some(Done::new(verdict, left)))
            }
            Write::Conflict => {
                self.cache.invalidate(key);
                Ok(None)
            }
            Write::Rejected(reason) => {
                DocumentRejected { twin: key, reason: &reason }.emit(&self.budgeted_store.metrics);
                let verdict = found.map_or(Verdict::Equal, |found| Verdict::Rejected(found, reason));
                Ok(Some(Done { verdict, left: None }))
            }
            Write::Unknown(trouble) => {
                self.unanswered.note(key, stored.etag.as_ref());
                self.cache.invalidate(key);
                Err(trouble)
            }
        }
    }

    fn went_back(&self, stored: Option<&Document>, answer: &TwinEvent) -> bool {
        match (stored, &answer.change) {
            (Some(stored), Change::Snapshot { version, twin }) => {
                went_back(stored, *version, twin, self.rules.clock_tolerance)
            }
            (Some(_) | None, _) => false,
        }
    }

    fn tell_that_it_went_back(&self, key: &TwinKey) {
        let now = self.clock.now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = told.is_none_or(|told| told.after(WENT_BACK_TOLD) <= now);
        if is_due {
            *told = Some(now);
        }
        drop(told);
        let audit = is_due.then(|| self.audits.ask());
        TwinWentBack { twin: key, audit }.emit(&self.budgeted_store.metrics);
    }

    async fn read(&self, key: &TwinKey, purpose: Purpose) -> Result<Stored, StoreError> {
        match self.budgeted_store.read(key, purpose).await {
            Read::Present(document, etag) => {
                Ok(Stored { document: Some(document), etag: Some(etag), foreign: None })
            }
            Read::Absent => Ok(Stored { document: None, etag: None, foreign: None }),
            Read::Foreign(reason) | Read::Refused(reason) => {
                Ok(Stored { document: None, etag: None, foreign: Some(reason) })
            }
            Read::Damaged(etag, _) => Ok(Stored { document: None, etag: Some(etag), foreign: None }),
            Read::Unknown(trouble) => Err(trouble),
        }
    }

    /// Reconciles the modules of a device that ended, or may have ended in between. Then clears the cascade.
    ///
    /// The cascade stays in the document until then, so that a crash cannot lose it. Its time does not matter here: the hub is asked
    /// whether a module exists.
    async fn cascade(&self, device: &Document, etag: &ETag, task: &Task) -> Result<(), StoreError> {
        let task = Task { unless: Unless::Never, ..*task };
        for module in self.budgeted_store.modules(&device.key, task.purpose).await? {
            self.reconcile_alone(&module, &task).await?;
        }
        let done = Document { cascade: None, ..device.clone() };
        match self.budgeted_store.write(&device.key, &done, Some(etag), task.purpose).await {
            Write::Written(etag) => self.cache.insert(device.key.clone(), (Arc::new(done), etag)),
            // The other writer has kept the cascade, so it will be found again.
            Write::Conflict => self.cache.invalidate(&device.key),
            Write::Rejected(reason) => {
                DocumentRejected { twin: &device.key, reason: &reason }.emit(&self.budgeted_store.metrics);
            }
            Write::Unknown(trouble) => {
                self.cache.invalidate(&device.key);
                return Err(trouble);
            }
        }
        Ok(())
    }
}

fn spared(document: Option<&Document>, unless: Unless) -> bool {
    match (unless, document) {
        (Unless::Never, _) => false,
        (Unless::Unflagged | Unless::Complete, None) => true,
        (Unless::Complete, Some(document)) => !document.lacks_identity(),
        (Unless::Holds(_), None) => false,
        (Unless::Unflagged, Some(document)) => !document.is_flagged(),
        (Unless::Holds(version), Some(document)) => {
            !document.is_flagged()
                && matches!(&document.state, State::Live { twin, .. } if twin.version >= version)
        }
    }
}

fn never_stood_still() -> StoreError {
    StoreError {
        kind: StoreErrorKind::Unavailable,
        code: TWIN_UNANSWERED,
        retry_after: None,
        message: format!("the document was written {CYCLES} times while the hub was asked"),
    }
}

/// A device whose modules have to be reconciled after a repair. After an event, the streams do that.
fn pending_cascade(stored: Stored) -> Option<(Arc<Document>, ETag)> {
    let (document, etag) = (stored.document?, stored.etag?);
    let pending = document.cascade.is_some() && document.operation == Operation::Snapshot;
    pending.then_some((document, etag))
}

#[cfg(test)]
mod tests;
