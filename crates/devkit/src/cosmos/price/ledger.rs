//! The stored documents, as far as prices depend on them: sizes and index terms.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use axum::{
    body::Bytes,
    http::{HeaderMap, StatusCode},
};
use azure_data_cosmos_driver::binary_json;
use serde_json::Value;

use super::{
    super::{
        authorization::percent_decode,
        faults::Operation,
        headers::{PARTITION_KEY, places},
        reply::Reply,
    },
    Policy, create, query, read, replace,
};

/// Tracks every successful write, and prices every successful request.
#[derive(Debug)]
pub(in crate::cosmos) struct Ledger {
    policy: Policy,
    /// Number of physical partitions of the container.
    partitions: u32,
    documents: Mutex<Documents>,
}

/// A request.
#[derive(Debug, Clone, Copy)]
pub(in crate::cosmos) struct Asked<'a> {
    pub(in crate::cosmos) operation: Operation,
    pub(in crate::cosmos) path: &'a str,
    pub(in crate::cosmos) headers: &'a HeaderMap,
    pub(in crate::cosmos) body: &'a Bytes,
}

/// The price of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::cosmos) struct Charge {
    pub(in crate::cosmos) request_units: f64,
    /// Whether all documents in its scope were loaded.
    pub(in crate::cosmos) is_scan: bool,
}

#[derive(Debug, Default)]
struct Documents {
    /// By logical partition and id.
    places: HashMap<String, HashMap<String, Stored>>,
    bytes: usize,
    count: usize,
}

#[derive(Debug, Clone)]
struct Stored {
    bytes: usize,
    terms: Box<[u64]>,
    /// Sequence number of the write in its physical partition: answers may be recorded in another order.
    written: u64,
}

impl Ledger {
    pub(in crate::cosmos) fn new(policy: Policy, partitions: u32) -> Self {
        Self { policy, partitions: partitions.max(1), documents: Mutex::default() }
    }

    /// The logical partition of a request, or the partition key range of a query over all of them.
    pub(in crate::cosmos) fn place(headers: &HeaderMap) -> String {
        let of = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        match of(PARTITION_KEY) {
            // Normalized, because clients write the JSON differently.
            Some(key) => {
                serde_json::from_str::<Value>(key).map_or_else(|_| key.to_owned(), |key| key.to_string())
            }
            None => of("x-ms-documentdb-partitionkeyrangeid").unwrap_or_default().to_owned(),
        }
    }

    /// The price of a request with this answer. `None`: the emulator's price applies.
    pub(in crate::cosmos) fn charge(&self, asked: Asked<'_>, reply: &Reply) -> Option<Charge> {
        if !reply.status.is_success() {
            return None;
        }
        let request_units = match asked.operation {
            Operation::Read => {
                let known =
                    self.documents().find(&Self::place(asked.headers), &id(asked.path)).map(|at| at.bytes);
                read(known.unwrap_or(reply.body.len()))
            }
            Operation::Create | Operation::Replace | Operation::Upsert => self.written(asked, reply)?,
            Operation::Delete => {
                let gone = self.documents().take(&Self::place(asked.headers), &id(asked.path))?;
                create(gone.bytes, gone.terms.len())
            }
            Operation::Query => return self.queried(asked, reply),
            Operation::Patch | Operation::Batch | Operation::Feed | Operation::Metadata => return None,
        };
        Some(Charge { request_units, is_scan: false })
    }

    fn written(&self, asked: Asked<'_>, reply: &Reply) -> Option<f64> {
        let text = binary_json::transcode_to_text(asked.body).ok()?;
        let document: Value = serde_json::from_slice(&text).ok()?;
        let id = document.get("id")?.as_str()?.to_owned();
        let terms = self.policy.terms(&document);
        let written = places(&reply.headers).first().map_or(0, |place| place.number);
        let stored = Stored { bytes: text.len(), terms, written };
        let mut documents = self.documents();
        let place = Self::place(asked.headers);
        let price = match documents.find(&place, &id) {
            Some(old) if reply.status != StatusCode::CREATED => {
                let (removed, added) = differences(&old.terms, &stored.terms);
                replace(old.bytes, stored.bytes, removed, added)
            }
            Some(_) | None => create(stored.bytes, stored.terms.len()),
        };
        documents.put(place, id, stored);
        Some(price)
    }

    /// A scan is charged with its first page, because it is not known how far each page gets.
    fn queried(&self, asked: Asked<'_>, reply: &Reply) -> Option<Charge> {
        let text = binary_json::transcode_to_text(asked.body).ok()?;
        let body: Value = serde_json::from_slice(&text).ok()?;
        let is_scan = !query::is_served(body.get("query")?.as_str()?, &self.policy);
        let is_first = !asked.headers.contains_key("x-ms-continuation");
        let bytes = match (is_scan, is_first) {
            (true, true) => self.scope(asked.headers),
            (true, false) => 0.0,
            (false, _) => rows(&reply.body)? as f64 * self.documents().mean(),
        };
        Some(Charge { request_units: query(bytes), is_scan: is_scan && is_first })
    }

    /// Size in bytes of the documents in a query's scope: those of a logical partition, or of a physical one.
    fn scope(&self, headers: &HeaderMap) -> f64 {
        let documents = self.documents();
        match headers.contains_key(PARTITION_KEY) {
            true => {
                let place = documents.places.get(&Self::place(headers));
                place.map_or(0.0, |place| place.values().map(|stored| stored.bytes as f64).sum())
            }
            false => documents.bytes as f64 / f64::from(self.partitions),
        }
    }

    fn documents(&self) -> MutexGuard<'_, Documents> {
        self.documents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Documents {
    fn find(&self, place: &str, id: &str) -> Option<&Stored> {
        self.places.get(place)?.get(id)
    }

    fn put(&mut self, place: String, id: String, stored: Stored) {
        if self.find(&place, &id).is_some_and(|known| known.written > stored.written) {
            return;
        }
        self.take(&place, &id);
        self.bytes += stored.bytes;
        self.count += 1;
        self.places.entry(place).or_default().insert(id, stored);
    }

    fn take(&mut self, place: &str, id: &str) -> Option<Stored> {
        let of_place = self.places.get_mut(place)?;
        let gone = of_place.remove(id)?;
        if of_place.is_empty() {
            self.places.remove(place);
        }
        self.bytes -= gone.bytes;
        self.count -= 1;
        Some(gone)
    }

    fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.bytes as f64 / self.count as f64 }
    }
}

/// The number of old terms that are removed, and of new terms that are added. Both lists are in ascending
/// order.
fn differences(old: &[u64], new: &[u64]) -> (usize, usize) {
    let common = old.iter().filter(|term| new.binary_search(term).is_ok()).count();
    (old.len() - common, new.len() - common)
}

/// The id of a document from its path.
fn id(path: &str) -> String {
    percent_decode(path.rsplit('/').next().unwrap_or_default())
}

fn rows(body: &Bytes) -> Option<usize> {
    let text = binary_json::transcode_to_text(body).ok()?;
    let page: Value = serde_json::from_slice(&text).ok()?;
    Some(page.get("Documents")?.as_array()?.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(bytes: usize, written: u64) -> Stored {
        Stored { bytes, terms: Box::default(), written }
    }

    #[test]
    fn terms_of_both_cost_nothing() {
        assert_eq!(differences(&[1, 2, 3], &[2, 3, 4, 5]), (1, 2));
        assert_eq!(differences(&[], &[1]), (0, 1));
        assert_eq!(differences(&[1, 2], &[1, 2]), (0, 0));
    }

    #[test]
    fn an_answer_that_was_overtaken_changes_nothing() {
        let mut documents = Documents::default();
        documents.put("p".into(), "a".into(), stored(10, 2));
        documents.put("p".into(), "a".into(), stored(99, 1));
        documents.put("p".into(), "b".into(), stored(30, 3));
        assert_eq!((documents.bytes, documents.count, documents.mean()), (40, 2, 20.0));
        assert_eq!(documents.take("p", "a").map(|gone| gone.bytes), Some(10));
        assert!(documents.take("p", "a").is_none());
        documents.take("p", "b");
        assert_eq!(
            (documents.bytes, documents.count, documents.places.len(), documents.mean()),
            (0, 0, 0, 0.0)
        );
    }
}
