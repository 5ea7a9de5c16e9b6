//! A store in memory with scripted faults, for tests of the runtime.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::{
    domain::{
        document::{Document, ETag, Operation},
        id::{HubName, TwinKey},
    },
    ports::{Charged, Read, Scanned, StoreError, StoreErrorKind, TwinStore, Which, Write},
};

/// The effect on the next operation.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// The operation has no effect, and the store throttles.
    Throttle,
    /// The operation has no effect and gets no answer.
    Fail,
    /// The operation takes effect, and its answer is lost.
    ApplyThenFail,
    /// The operation gets no answer. It takes effect when [`MemoryStore::perform_late`] is called, under the same condition.
    ApplyLater,
    /// The store will never take this write. Like the fault above, it applies to the next write: reads do not use it up.
    Reject,
}

/// Documents in memory, with the conditions of the port.
#[derive(Default)]
pub(crate) struct MemoryStore {
    pub(crate) documents: Mutex<BTreeMap<TwinKey, (Document, u64)>>,
    pub(crate) script: Mutex<VecDeque<Fault>>,
    /// Twins whose operations always fail.
    pub(crate) broken: Mutex<Vec<TwinKey>>,
    /// Whether every operation fails.
    pub(crate) away: Mutex<bool>,
    pub(crate) writes: Mutex<usize>,
    pub(crate) reads: Mutex<usize>,
    /// Twins whose documents cannot be read, with the ETag of the stored document.
    pub(crate) damaged: Mutex<BTreeMap<TwinKey, u64>>,
    pub(crate) queries: Mutex<usize>,
    /// How many reads are still answered as if no document had been written.
    pub(crate) behind: Mutex<usize>,
    /// Twins whose ids no document can have.
    pub(crate) refused: Mutex<Vec<TwinKey>>,
    /// Twins whose writes conflict with something that no read shows.
    pub(crate) contradictory: Mutex<Vec<TwinKey>>,
    /// Request units that each read costs in addition to the one of a small document.
    pub(crate) dearer: Mutex<f64>,
    /// How many scans still fail at their beginning.
    pub(crate) broken_scans: Mutex<usize>,
    /// Writes without an answer that have not taken effect yet.
    late: Mutex<Vec<(TwinKey, Document, Option<u64>)>>,
}

impl MemoryStore {
    fn fault(&self, key: &TwinKey) -> Option<Fault> {
        if *self.away.lock().unwrap() || self.broken.lock().unwrap().contains(key) {
            return Some(Fault::Fail);
        }
        self.script.lock().unwrap().pop_front()
    }

    pub(crate) fn document(&self, key: &TwinKey) -> Option<Document> {
        self.documents.lock().unwrap().get(key).map(|(document, _)| document.clone())
    }

    /// Performs the late writes.
    pub(crate) fn perform_late(&self) -> Vec<Write> {
        let late = std::mem::take(&mut *self.late.lock().unwrap());
        late.iter().map(|(key, document, expected)| self.perform(key, document, *expected)).collect()
    }

    fn look(&self, key: &TwinKey) -> Charged<Read> {
        *self.reads.lock().unwrap() += 1;
        let mut behind = self.behind.lock().unwrap();
        if *behind > 0 {
            *behind -= 1;
            return charged(Read::Absent);
        }
        drop(behind);
        if self.refused.lock().unwrap().contains(key) {
            return charged(Read::Refused("scripted".into()));
        }
        let waits_for_a_write =
            matches!(self.script.lock().unwrap().front(), Some(Fault::Reject | Fault::ApplyLater));
        let fault = if waits_for_a_write && !self.broken.lock().unwrap().contains(key) {
            None
        } else {
            self.fault(key)
        };
        charged(match fault {
            Some(Fault::Throttle) => Read::Unknown(trouble(StoreErrorKind::Throttled)),
            Some(_) => Read::Unknown(trouble(StoreErrorKind::Unavailable)),
            None => match self.documents.lock().unwrap().get(key) {
                Some((document, etag)) => Read::Present(Arc::new(document.clone()), ETag(etag.to_string())),
                None => match self.damaged.lock().unwrap().get(key) {
                    Some(etag) => Read::Damaged(ETag(etag.to_string()), "scripted".into()),
                    None => Read::Absent,
                },
            },
        })
    }

    fn write(&self, key: &TwinKey, document: &Document, expected: Option<u64>) -> Write {
        *self.writes.lock().unwrap() += 1;
        if self.contradictory.lock().unwrap().contains(key) {
            return Write::Conflict;
        }
        let fault = self.fault(key);
        match fault {
            Some(Fault::Throttle) => return Write::Unknown(trouble(StoreErrorKind::Throttled)),
            Some(Fault::Fail) => return Write::Unknown(trouble(StoreErrorKind::Unavailable)),
            Some(Fault::Reject) => return Write::Rejected("too large".into()),
            Some(Fault::ApplyLater) => {
                self.late.lock().unwrap().push((key.clone(), document.clone(), expected));
                return Write::Unknown(trouble(StoreErrorKind::Unavailable));
            }
            Some(Fault::ApplyThenFail) | None => {}
        }
        match (fault, self.perform(key, document, expected)) {
            (Some(Fault::ApplyThenFail), Write::Written(_)) => {
                Write::Unknown(trouble(StoreErrorKind::Unavailable))
            }
            (_, outcome) => outcome,
        }
    }

    fn perform(&self, key: &TwinKey, document: &Document, expected: Option<u64>) -> Write {
        let mut documents = self.documents.lock().unwrap();
        let damaged = self.damaged.lock().unwrap().get(key).copied();
        let stored = documents.get(key).map(|(_, etag)| *etag).or(damaged);
        if stored != expected {
            return Write::Conflict;
        }
        let etag = stored.unwrap_or(0) + 1;
        documents.insert(key.clone(), (document.clone(), etag));
        self.damaged.lock().unwrap().remove(key);
        Write::Written(ETag(etag.to_string()))
    }
}

fn trouble(kind: StoreErrorKind) -> StoreError {
    StoreError { kind, code: "COSMOS_UNAVAILABLE", retry_after: None, message: "scripted".into() }
}

fn charged<T>(outcome: T) -> Charged<T> {
    Charged { outcome, request_units: 1.0 }
}

#[async_trait]
impl TwinStore for MemoryStore {
    async fn read(&self, key: &TwinKey) -> Charged<Read> {
        let Charged { outcome, request_units } = self.look(key);
        Charged { outcome, request_units: request_units + *self.dearer.lock().unwrap() }
    }

    async fn create(&self, key: &TwinKey, document: &Document) -> Charged<Write> {
        charged(self.write(key, document, None))
    }

    async fn replace(&self, key: &TwinKey, document: &Document, etag: &ETag) -> Charged<Write> {
        charged(self.write(key, document, Some(etag.0.parse().unwrap())))
    }

    async fn modules(&self, device: &TwinKey) -> Charged<Result<Vec<TwinKey>, StoreError>> {
        *self.queries.lock().unwrap() += 1;
        let modules = self
            .documents
            .lock()
            .unwrap()
            .keys()
            .filter(|key| key.is_module() && key.parent() == *device)
            .cloned()
            .collect();
        charged(match self.fault(device) {
            Some(_) => Err(trouble(StoreErrorKind::Unavailable)),
            None => Ok(modules),
        })
    }

    async fn hubs(&self, device: &str, module: Option<&str>) -> Charged<Result<Vec<HubName>, StoreError>> {
        *self.queries.lock().unwrap() += 1;
        let documents = self.documents.lock().unwrap();
        let of = |key: &&TwinKey| key.device == device && key.module.as_deref() == module;
        let hubs = documents.keys().filter(of).map(|key| key.hub.clone()).collect();
        charged(match *self.away.lock().unwrap() {
            true => Err(trouble(StoreErrorKind::Unavailable)),
            false => Ok(hubs),
        })
    }

    fn scan(&self, which: Which) -> BoxStream<'_, Charged<Result<Vec<Scanned>, StoreError>>> {
        let mut broken = self.broken_scans.lock().unwrap();
        if *broken > 0 {
            *broken -= 1;
            return Box::pin(futures::stream::iter([charged(Err(trouble(StoreErrorKind::Unavailable)))]));
        }
        let documents = self.documents.lock().unwrap();
        let wanted = documents.values().map(|(document, _)| document).filter(|document| match which {
            Which::Present => document.twin().is_some(),
            Which::Flagged => {
                document.is_flagged()
                    || (document.cascade.is_some() && document.operation == Operation::Snapshot)
            }
        });
        let scanned = |document: &Document| Scanned {
            id: document.id.clone(),
            key: document.key.clone(),
            applied_at: document.applied_at,
        };
        let page = wanted.map(scanned).collect();
        Box::pin(futures::stream::iter([charged(Ok(page))]))
    }
}
