//! The document store: a single order of writes, conditional writes, and reads that may be older, as far as
//! their session allows.

use std::{num::NonZeroU32, sync::Arc, sync::atomic::Ordering, time::Duration};

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde_json::Value;
use twinsync::{
    domain::{
        document::{Document, ETag, Item},
        id::{HubName, TwinKey},
        query::TwinPlace,
    },
    ports::{
        Change, Changed, Charged, Cursor, Read, Scanned, SelectError, StoreError, StoreErrorKind,
        TwinChanges, TwinStore, Which, Write,
    },
};

use crate::{
    link::Link,
    plan::Fault,
    world::{Inner, Service, Version, World},
};

/// Time limit of a request.
const LIMIT: Duration = Duration::from_secs(5);

pub(crate) struct Documents(pub(crate) Arc<Link>);

/// A write.
#[derive(Clone)]
struct Put {
    key: TwinKey,
    json: Arc<str>,
    /// The ETag that must be stored. `None`: no document may be stored.
    over: Option<String>,
}

fn trouble(kind: StoreErrorKind, message: &str) -> StoreError {
    let code = match kind {
        StoreErrorKind::Throttled => "COSMOS_THROTTLED",
        StoreErrorKind::Unavailable | StoreErrorKind::Contradictory | StoreErrorKind::Newer => {
            "COSMOS_UNAVAILABLE"
        }
    };
    StoreError { kind, code, retry_after: None, message: message.to_owned() }
}

fn charged<T>(outcome: T) -> Charged<T> {
    Charged { outcome, request_units: 1.0 }
}

fn etag(number: u64) -> String {
    format!("\"{number}\"")
}

/// Writes if the condition holds. Returns the number of writes so far and the outcome.
fn put(inner: &mut Inner, put: &Put, now: i64) -> (u64, Result<u64, ()>) {
    let newest = inner.documents.get(&put.key).and_then(|versions| versions.last());
    let present = newest.filter(|newest| !newest.has_expired(now)).map(|newest| newest.number);
    if present.map(etag) != put.over {
        return (inner.writes, Err(()));
    }
    inner.writes += 1;
    inner.outlived.remove(&put.key);
    let number = inner.writes;
    inner.documents.entry(put.key.clone()).or_default().push(Version {
        number,
        json: Arc::clone(&put.json),
        at: now,
    });
    (number, Ok(number))
}

impl Documents {
    /// Faults of a request before it is performed.
    async fn meets_trouble(&self) -> Option<StoreError> {
        let world = &self.0.world;
        if world.draws(Fault::StoreThrottles) {
            let mut throttled = trouble(StoreErrorKind::Throttled, "429");
            throttled.retry_after = (world.below(2) == 0).then(|| Duration::from_millis(world.below(500)));
            return Some(throttled);
        }
        if world.is_away(Service::Documents, &self.0.name) || world.draws(Fault::StoreRefuses) {
            if world.below(4) == 0 {
                tokio::time::sleep(LIMIT).await;
            }
            return Some(trouble(StoreErrorKind::Unavailable, "503"));
        }
        None
    }

    async fn write(
        &self,
        what: &str,
        key: &TwinKey,
        document: &Document,
        over: Option<&ETag>,
    ) -> Charged<Write> {
        let link = &self.0;
        let json: Arc<str> = serde_json::to_string(document).expect("a document").into();
        let step = link.begin(&format!("{what} {key} {json}")).await;
        if let Some(trouble) = self.meets_trouble().await {
            link.end(step).await;
            return charged(Write::Unknown(trouble));
        }
        let write = Put { key: key.clone(), json, over: over.map(|over| over.0.clone()) };
        if link.world.draws(Fault::StoreIsLate) {
            let after = LIMIT + link.world.span(Duration::ZERO, Duration::from_secs(20));
            let process = Arc::clone(link);
            link.later(after, move |world: &World| {
                let outcome = put(&mut world.lock(), &write, world.now());
                if outcome.1.is_ok() && write.over.is_none() && process.is_dead() && world.plan.registry {
                    world.lock().outlived.insert(write.key.clone());
                }
                world.tell(format!("late write of {}: {outcome:?}", write.key));
            });
            tokio::time::sleep(LIMIT).await;
            link.end(step).await;
            return charged(Write::Unknown(trouble(StoreErrorKind::Unavailable, "timeout")));
        }
        let (at, outcome) = put(&mut link.world.lock(), &write, link.world.now());
        link.world.tell(format!("{what} {key}: {outcome:?}"));
        let loses = link.world.draws(Fault::StoreLosesAnswers);
        link.end(step).await;
        if loses {
            return charged(Write::Unknown(trouble(StoreErrorKind::Unavailable, "the connection broke")));
        }
        link.has_seen(at);
        charged(match outcome {
            Ok(number) => Write::Written(ETag(etag(number))),
            Err(()) => Write::Conflict,
        })
    }

    /// The write up to which a read shows the store.
    fn view(&self) -> u64 {
        let link = &self.0;
        let newest = link.world.lock().writes;
        let seen = link.session.load(Ordering::Relaxed).min(newest);
        let behind = seen < newest && link.world.draws(Fault::StoreIsBehind);
        let at = if behind { seen + link.world.below(newest - seen) } else { newest };
        link.has_seen(at);
        at
    }
}

/// The newest version at that write, unless it has expired.
fn at(versions: &[Version], view: u64, now: i64) -> Option<&Version> {
    let newest = versions.iter().rev().find(|version| version.number <= view);
    newest.filter(|newest| !newest.has_expired(now))
}

/// The scanned fields of an item that belongs to the scan. The rest of the item may be unreadable.
fn scanned(which: Which, key: &TwinKey, json: &str) -> Option<Scanned> {
    let item: Value = serde_json::from_str(json).expect("what was written is JSON");
    let sync = &item["sync"];
    let state = sync["state"].as_str()?;
    let wanted = match which {
        Which::Present => matches!(state, "live" | "partial"),
        Which::Flagged => {
            sync.get("flags").is_some()
                || state == "partial"
                || (sync.get("cascade").is_some() && sync["op"] == "snapshot")
        }
    };
    let id = item["id"].as_str()?.to_owned();
    let applied_at = serde_json::from_value(sync["appliedAt"].clone()).ok()?;
    wanted.then(|| Scanned { id, key: key.clone(), applied_at })
}

#[async_trait]
impl TwinStore for Documents {
    async fn read(&self, key: &TwinKey) -> Charged<Read> {
        let link = &self.0;
        let step = link.begin(&format!("read {key}")).await;
        if let Some(trouble) = self.meets_trouble().await {
            link.end(step).await;
            return charged(Read::Unknown(trouble));
        }
        let view = self.view();
        let found = {
            let inner = link.world.lock();
            inner.documents.get(key).and_then(|versions| at(versions, view, link.world.now())).cloned()
        };
        link.world.tell(format!("read {key}: {:?}", found.as_ref().map(|version| version.number)));
        link.end(step).await;
        charged(match found {
            None => Read::Absent,
            Some(Version { number, json, .. }) => {
                let item = serde_json::from_str(&json).expect("what was written is JSON");
                match Item::of(item, key) {
                    Item::Document(document) => Read::Present(Arc::from(document), ETag(etag(number))),
                    Item::Damaged(reason) => Read::Damaged(ETag(etag(number)), reason),
                    other => panic!("a written document is read as {other:?}"),
                }
            }
        })
    }

    async fn create(&self, key: &TwinKey, document: &Document) -> Charged<Write> {
        self.write("create", key, document, None).await
    }

    async fn replace(&self, key: &TwinKey, document: &Document, etag: &ETag) -> Charged<Write> {
        self.write("replace", key, document, Some(etag)).await
    }

    async fn modules(&self, device: &TwinKey) -> Charged<Result<Vec<TwinKey>, StoreError>> {
        let link = &self.0;
        let step = link.begin(&format!("modules of {device}")).await;
        if let Some(trouble) = self.meets_trouble().await {
            link.end(step).await;
            return charged(Err(trouble));
        }
        let view = self.view();
        let modules: Vec<_> = {
            let inner = link.world.lock();
            let is_module = |key: &TwinKey| key.is_module() && key.parent() == *device;
            let there = inner
                .documents
                .iter()
                .filter(|(key, versions)| is_module(key) && at(versions, view, link.world.now()).is_some());
            there.map(|(key, _)| key.clone()).collect()
        };
        link.world.tell(format!("modules of {device}: {}", modules.len()));
        link.end(step).await;
        charged(Ok(modules))
    }

    async fn hubs(&self, _device: &str, _module: Option<&str>) -> Charged<Result<Vec<HubName>, StoreError>> {
        charged(Ok(vec!["hub".into()]))
    }

    fn scan(&self, which: Which) -> BoxStream<'_, Charged<Result<Vec<Scanned>, StoreError>>> {
        let page = async move {
            let link = &self.0;
            let step = link.begin(&format!("scan {which:?}")).await;
            if let Some(trouble) = self.meets_trouble().await {
                link.end(step).await;
                return charged(Err(trouble));
            }
            let (view, now) = (self.view(), link.world.now());
            let scanned: Vec<Scanned> = {
                let inner = link.world.lock();
                let newest = inner
                    .documents
                    .iter()
                    .filter_map(|(key, versions)| Some((key, at(versions, view, now)?)));
                newest.filter_map(|(key, version)| scanned(which, key, &version.json)).collect()
            };
            link.world.tell(format!("scan {which:?}: {}", scanned.len()));
            link.end(step).await;
            charged(Ok(scanned))
        };
        Box::pin(futures::stream::once(page))
    }
}

/// Documents per page, few enough that there are several pages.
const CHANGES: usize = 3;

impl Documents {
    /// A page of the writes after `behind`, and whether there were any.
    async fn changed(&self, behind: u64) -> Charged<Result<Changed, SelectError>> {
        let link = &self.0;
        let step = link.begin(&format!("changes behind {behind}")).await;
        if let Some(trouble) = self.meets_trouble().await {
            link.end(step).await;
            return charged(Err(SelectError::StoreError(trouble)));
        }
        let (view, now) = (self.view(), link.world.now());
        let mut found: Vec<(u64, Change)> = {
            let inner = link.world.lock();
            let newest = inner.documents.iter().filter_map(|(key, versions)| {
                let version = at(versions, view, now).filter(|version| version.number > behind)?;
                Some((version.number, change(key, &version.json)))
            });
            newest.collect()
        };
        found.sort_by_key(|(number, _)| *number);
        found.truncate(CHANGES);
        let next = found.last().map_or(behind, |(number, _)| *number);
        link.world.tell(format!("changes behind {behind}: {}", found.len()));
        link.end(step).await;
        let changes = found.into_iter().map(|(_, change)| change).collect();
        charged(Ok(Changed { changes, next: Cursor(next.to_string()) }))
    }
}

fn change(key: &TwinKey, json: &str) -> Change {
    let item: Value = serde_json::from_str(json).expect("what was written is JSON");
    let place = TwinPlace::of(&key.device, item["id"].as_str().unwrap_or_default());
    let document = match Item::of(item, key) {
        Item::Document(document) => Some(document),
        Item::Damaged(_) | Item::Foreign(_) | Item::Newer(_) => None,
    };
    Change { place, document }
}

impl TwinChanges for Documents {
    fn changes(
        &self,
        behind: Option<&Cursor>,
        _most: NonZeroU32,
    ) -> BoxStream<'_, Charged<Result<Changed, SelectError>>> {
        let begin = behind.map_or(0, |Cursor(number)| number.parse().expect("ours"));
        Box::pin(futures::stream::unfold(Some(begin), async move |behind| {
            let page = self.changed(behind?).await;
            let next = match &page.outcome {
                Ok(Changed { changes, next: Cursor(next) }) if !changes.is_empty() => {
                    Some(next.parse().expect("ours"))
                }
                Ok(_) | Err(_) => None,
            };
            Some((page, next))
        }))
    }
}
