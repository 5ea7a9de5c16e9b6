//! A hub in memory with scripted answers, and everything that a reconciler needs.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{
    reconciler::{Mode, Task, TwinReconciler, Unless},
    requests::AuditRequests,
};
use crate::{
    adapters::notes::MemoryNotes,
    domain::{
        decide::{Rules, decide},
        document::Document,
        drift::Strictness,
        event::{Change, TwinEvent},
        id::{DocumentIdScheme, HubName, TwinKey},
        quota::{Purpose, Tier},
        registry::{RegistryTwin, Row, TwinReference},
        ticks::Ticks,
        twin::{Sections, TwinVersion},
    },
    ports::{Clock, Continuation, Got, Page, QueryError, StoreError, StoreErrorKind, TwinRegistry},
    runtime::{
        budgeted_store::BudgetedStore,
        documents::{DocumentCache, document_cache},
        memory_store::MemoryStore,
        quota::RateLimiter,
        rate_limited_registry::RateLimitedRegistry,
        request_unit_budget::RequestUnitBudget,
    },
    telemetry::Metrics,
};

/// The hub's name.
pub(super) const HUB: &str = "h";

/// Rules in which clocks agree to the tick.
pub(super) const RULES: Rules = Rules {
    id_scheme: DocumentIdScheme::Device,
    tombstone_ttl_seconds: 60,
    clock_tolerance: Duration::ZERO,
    forgets_after: None,
};

/// The task in most tests.
pub(super) const CORRECT: Task = Task {
    purpose: Purpose::Repair,
    strictness: Strictness::Content,
    mode: Mode::Correct,
    unless: Unless::Never,
};

pub(super) fn device(id: &str) -> TwinKey {
    TwinKey::device(HUB, id)
}

pub(super) fn module(device: &str, id: &str) -> TwinKey {
    TwinKey::module(HUB, device, id)
}

pub(super) fn trouble(kind: StoreErrorKind, retry_after: Option<Duration>) -> StoreError {
    StoreError { kind, code: "COSMOS_UNAVAILABLE", retry_after, message: "scripted".into() }
}

/// An error: unavailable, without a hint.
pub(super) fn away() -> StoreError {
    trouble(StoreErrorKind::Unavailable, None)
}

type Twins = BTreeMap<TwinKey, (i64, Value)>;
type Hook = Box<dyn FnMut(&TwinKey) + Send>;

/// How a hub answers a query for some columns of its twins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum References {
    #[default]
    Given,
    Refused,
    /// Rows without a version.
    Unreadable,
    /// Modules without their names.
    Nameless,
}

/// The hub.
pub(super) struct ScriptedRegistry {
    hub: HubName,
    pub(super) twins: Mutex<Twins>,
    /// The twins that queries show, if that is not the present state.
    pub(super) view: Mutex<Option<Twins>>,
    /// Answers of the next point reads.
    pub(super) gets: Mutex<VecDeque<StoreError>>,
    /// Answers of the next queries.
    pub(super) queries: Mutex<VecDeque<QueryError>>,
    /// Whether every point read fails.
    pub(super) silent: Mutex<bool>,
    /// Twins whose point reads always fail.
    pub(super) mute: Mutex<BTreeSet<TwinKey>>,
    /// Whether the continuation of each page is its own.
    pub(super) stuck: Mutex<bool>,
    /// Number of rows per page that are not twins.
    pub(super) odd: AtomicUsize,
    /// How it answers queries for references.
    pub(super) references: Mutex<References>,
    /// Whether twins have fields that no event contains.
    pub(super) identity: AtomicBool,
    /// The queries that it received.
    pub(super) asked_for: Mutex<Vec<String>>,
    /// Called within a point read: after the document was read, before it can be written.
    pub(super) hook: Mutex<Option<Hook>>,
    pub(super) asked: Mutex<Vec<TwinKey>>,
    pub(super) pages: AtomicU64,
    rows: usize,
    clock: Arc<TestClock>,
}

impl ScriptedRegistry {
    pub(super) fn set(&self, key: &TwinKey, version: i64, tags: Value) {
        self.twins.lock().unwrap().insert(key.clone(), (version, tags));
    }

    fn has_identity(&self) -> bool {
        self.identity.load(Ordering::Relaxed)
    }

    pub(super) fn remove(&self, key: &TwinKey) {
        self.twins.lock().unwrap().remove(key);
    }

    /// From now on, queries show the twins that exist now.
    pub(super) fn hold_view(&self) {
        *self.view.lock().unwrap() = Some(self.twins.lock().unwrap().clone());
    }

    pub(super) fn on_get(&self, hook: impl FnMut(&TwinKey) + Send + 'static) {
        *self.hook.lock().unwrap() = Some(Box::new(hook));
    }

    /// Twins that were asked for, in order.
    pub(super) fn asked(&self) -> Vec<TwinKey> {
        self.asked.lock().unwrap().clone()
    }
}

fn body(key: &TwinKey, version: i64, tags: &Value, identity: bool) -> Value {
    let mut body = json!({
        "deviceId": key.device, "version": version, "tags": tags,
        "properties": {"desired": {"$version": 1}, "reported": {"$version": 1}}
    });
    if identity {
        body["status"] = json!("enabled");
    }
    if let Some(module) = &key.module {
        body["moduleId"] = json!(module);
    }
    body
}

#[async_trait]
impl TwinRegistry for ScriptedRegistry {
    fn hub(&self) -> &HubName {
        &self.hub
    }

    async fn get(&self, key: &TwinKey) -> Got {
        self.asked.lock().unwrap().push(key.clone());
        if *self.silent.lock().unwrap() || self.mute.lock().unwrap().contains(key) {
            return Got::Unknown(away());
        }
        if let Some(trouble) = self.gets.lock().unwrap().pop_front() {
            return Got::Unknown(trouble);
        }
        let found = self.twins.lock().unwrap().get(key).cloned();
        let at = self.clock.now();
        // The answer is on its way. The hook runs meanwhile.
        if let Some(hook) = self.hook.lock().unwrap().as_mut() {
            hook(key);
        }
        match found {
            None => Got::Absent(at),
            Some((version, tags)) => {
                let twin = RegistryTwin::read(key, body(key, version, &tags, self.has_identity()), at);
                Got::Present(Box::new(twin.expect("a twin")))
            }
        }
    }

    async fn query(
        &self,
        query: &str,
        from: Option<&Continuation>,
        _most_rows: u32,
    ) -> Result<Page, QueryError> {
        self.pages.fetch_add(1, Ordering::Relaxed);
        self.asked_for.lock().unwrap().push(query.to_owned());
        if let Some(error) = self.queries.lock().unwrap().pop_front() {
            return Err(error);
        }
        let modules = query.contains("devices.modules");
        let view = self.view.lock().unwrap().clone();
        let twins = view.unwrap_or_else(|| self.twins.lock().unwrap().clone());
        let mut twins: Vec<_> = twins.into_iter().filter(|(key, _)| key.is_module() == modules).collect();
        let begin: usize = from.map_or(0, |from| from.0.parse().expect("one of ours"));
        let end = (begin + self.rows).min(twins.len());
        let next = (end < twins.len()).then(|| Continuation(end.to_string()));
        let next = if *self.stuck.lock().unwrap() { from.cloned().or(next) } else { next };
        let rows = twins.drain(begin.min(end)..end);
        let rows = rows.map(|(key, (version, tags))| {
            Row::read(&self.hub, body(&key, version, &tags, self.has_identity())).expect("a row")
        });
        let odd = self.odd.load(Ordering::Relaxed);
        Ok(Page { rows: rows.collect(), odd, next, at: self.clock.now() })
    }

    async fn references(
        &self,
        query: &str,
        from: Option<&Continuation>,
        most_rows: u32,
    ) -> Result<Page<TwinReference>, QueryError> {
        let Page { rows, odd, next, at } = self.query(query, from, most_rows).await?;
        let mut page =
            Page { rows: rows.into_iter().map(TwinReference::from).collect::<Vec<_>>(), odd, next, at };
        match *self.references.lock().unwrap() {
            _ if query.starts_with("SELECT *") => {}
            References::Given => {}
            References::Refused => return Err(QueryError::Refused("only * is selected".into())),
            References::Unreadable => page.odd += std::mem::take(&mut page.rows).len(),
            References::Nameless => page.rows.iter_mut().for_each(|row| row.key.module = None),
        }
        Ok(page)
    }

    async fn device_count(&self) -> Result<u64, QueryError> {
        if *self.silent.lock().unwrap() {
            return Err(QueryError::StoreError(away()));
        }
        Ok(self.twins.lock().unwrap().keys().filter(|key| !key.is_module()).count() as u64)
    }
}

/// A clock that advances only when a test moves it.
#[derive(Debug)]
pub(super) struct TestClock(AtomicI64);

impl TestClock {
    pub(super) fn pass(&self, time: Duration) {
        let ticks = i64::try_from(time.as_nanos() / 100).expect("not that long");
        self.0.fetch_add(ticks, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Ticks {
        Ticks::new(self.0.load(Ordering::Relaxed))
    }
}

/// A reconciler, its hub and its store.
pub(super) struct Bench {
    pub(super) store: Arc<MemoryStore>,
    pub(super) registry: Arc<ScriptedRegistry>,
    pub(super) rate_limited: Arc<RateLimitedRegistry>,
    pub(super) reconciler: Arc<TwinReconciler>,
    pub(super) cache: DocumentCache,
    pub(super) clock: Arc<TestClock>,
    pub(super) metrics: Metrics,
    pub(super) notes: Arc<MemoryNotes>,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with_pages_of(3)
    }

    pub(super) fn with_pages_of(rows: usize) -> Self {
        let clock = Arc::new(TestClock(AtomicI64::new(20_000_000_000_000_000)));
        let registry = Arc::new(ScriptedRegistry {
            hub: HUB.into(),
            twins: Mutex::default(),
            view: Mutex::default(),
            gets: Mutex::default(),
            queries: Mutex::default(),
            silent: Mutex::default(),
            mute: Mutex::default(),
            stuck: Mutex::default(),
            odd: AtomicUsize::new(0),
            references: Mutex::default(),
            identity: AtomicBool::new(false),
            asked_for: Mutex::default(),
            hook: Mutex::default(),
            asked: Mutex::default(),
            pages: AtomicU64::new(0),
            rows,
            clock: Arc::clone(&clock),
        });
        let metrics = Metrics::new().expect("buckets");
        let rate_limiter = RateLimiter::new(Tier::S3, 10, 1.0);
        let port: Arc<dyn TwinRegistry> = Arc::clone(&registry) as _;
        let rate_limited = Arc::new(RateLimitedRegistry::new(port, rate_limiter, metrics.clone()));
        let store = Arc::new(MemoryStore::default());
        let budgeted_store = BudgetedStore {
            store: Arc::clone(&store) as _,
            budget: RequestUnitBudget::new(None),
            metrics: metrics.clone(),
        };
        let cache = document_cache(1 << 20);
        let registries = [Arc::clone(&rate_limited)];
        let reconciler =
            TwinReconciler::new(budgeted_store, &registries, cache.clone(), Arc::clone(&clock) as _, RULES)
                .with_identity(true);
        let notes = Arc::new(MemoryNotes::default());
        Self { store, registry, rate_limited, reconciler: Arc::new(reconciler), cache, clock, metrics, notes }
    }

    /// A second reconciler over the same hub and store, which requests audits.
    pub(super) fn reconciler_over(&self, audits: AuditRequests) -> TwinReconciler {
        let budgeted_store = BudgetedStore {
            store: Arc::clone(&self.store) as _,
            budget: RequestUnitBudget::new(None),
            metrics: self.metrics.clone(),
        };
        let registries = [Arc::clone(&self.rate_limited)];
        TwinReconciler::new(
            budgeted_store,
            &registries,
            self.cache.clone(),
            Arc::clone(&self.clock) as _,
            RULES,
        )
        .asking(audits)
    }

    /// Applies an event, as the streams do.
    pub(super) fn event(&self, key: &TwinKey, change: Change) {
        stream(&self.store, key, self.clock.now(), change);
    }

    /// A twin that is equal in the hub and the document. It was created and read some time ago.
    pub(super) fn agreed(&self, key: &TwinKey, version: i64, tags: Value) {
        self.event(key, created(version, tags.clone()));
        self.registry.set(key, version, tags);
    }

    pub(super) fn document(&self, key: &TwinKey) -> Option<Document> {
        self.store.document(key)
    }

    /// Version and tags of a live document.
    pub(super) fn says(&self, key: &TwinKey) -> Option<(i64, Value)> {
        let document = self.document(key)?;
        let twin = document.twin()?;
        Some((twin.version.0, Value::Object(twin.tags.clone())))
    }

    pub(super) fn writes(&self) -> usize {
        *self.store.writes.lock().unwrap()
    }

    pub(super) fn pass(&self, seconds: u64) {
        self.clock.pass(Duration::from_secs(seconds));
    }
}

/// A write of a stream, as another writer of the same store.
pub(super) fn stream(store: &MemoryStore, key: &TwinKey, at: Ticks, change: Change) {
    let mut documents = store.documents.lock().unwrap();
    let (stored, etag) = documents.remove(key).map_or((None, 0), |(document, etag)| (Some(document), etag));
    let mut document = stored;
    decide(&mut document, &TwinEvent { key: key.clone(), at, change }, at, &RULES);
    if let Some(document) = document {
        documents.insert(key.clone(), (document, etag + 1));
    }
}

fn sections(tags: Value) -> Sections {
    let map = |value: Value| value.as_object().expect("an object").clone();
    Sections {
        tags: Some(map(tags)),
        desired: Some(map(json!({"$version": 1}))),
        reported: Some(map(json!({"$version": 1}))),
        ..Sections::default()
    }
}

pub(super) fn created(version: i64, tags: Value) -> Change {
    Change::Created { version: TwinVersion(version), twin: sections(tags) }
}

pub(super) fn updated(version: i64, tags: Value) -> Change {
    let map = tags.as_object().expect("an object").clone();
    Change::Updated {
        version: TwinVersion(version),
        patch: Sections { tags: Some(map), ..Sections::default() }.into(),
    }
}
