//! Documents that this process has just written or read. They are kept for the next write of their twin, and sent to readers that wait for
//! them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use lru::LruCache;
use tokio::sync::watch;

use crate::domain::{
    document::{Document, ETag},
    id::TwinKey,
};

/// A document and its ETag.
pub type Stored = (Arc<Document>, ETag);

/// The cache keeps one part in this many as parsed documents. A parsed document takes several times as many bytes as its text, and only
/// twins that change all the time benefit from it.
const AT_HAND: u64 = 2;
/// Approximate number of bytes of an entry beside its text and key.
const ENTRY_BYTES: usize = 256;

/// Recently written documents, shared by the router and the reconcilers. Cheap to clone.
///
/// The newest documents are kept parsed, and older ones as text. Parsing the text again takes some microseconds. Reading the document from
/// the store takes a round trip and request units.
#[derive(Clone)]
pub struct DocumentCache {
    /// The lock is also held for every change of `texts`, so that no twin is in both.
    at_hand: Arc<Mutex<AtHand>>,
    texts: moka::sync::Cache<TwinKey, Text>,
    arrivals: Arc<Arrivals>,
}

/// A document's text in JSON, and its ETag.
#[derive(Clone)]
struct Text {
    json: Arc<[u8]>,
    etag: ETag,
}

/// Creates a cache for documents of `bytes` bytes in total. With 0 bytes it keeps nothing.
pub fn document_cache(bytes: u64) -> DocumentCache {
    let at_hand = bytes / AT_HAND;
    let weight =
        |key: &TwinKey, text: &Text| text.json.len() + text.etag.0.len() + key_bytes(key) + ENTRY_BYTES;
    let texts = moka::sync::Cache::builder()
        .max_capacity(bytes - at_hand)
        .weigher(move |key, text| u32::try_from(weight(key, text)).unwrap_or(u32::MAX))
        .build();
    let at_hand = AtHand {
        documents: LruCache::unbounded(),
        bytes: 0,
        most: usize::try_from(at_hand).unwrap_or(usize::MAX),
    };
    DocumentCache { at_hand: Arc::new(Mutex::new(at_hand)), texts, arrivals: Arc::default() }
}

fn key_bytes(key: &TwinKey) -> usize {
    key.device.len() + key.module.as_ref().map_or(0, |module| module.len())
}

impl DocumentCache {
    /// The document of a twin, if it is cached.
    pub fn get(&self, key: &TwinKey) -> Option<Stored> {
        let text = {
            let at_hand = lock(&self.at_hand);
            if let Some((stored, _)) = at_hand.documents.peek(key) {
                return Some(stored.clone());
            }
            self.texts.get(key)
        };
        text?.read()
    }

    /// Removes and returns the document of a twin, so that nothing else holds it.
    pub fn remove(&self, key: &TwinKey) -> Option<Stored> {
        let text = {
            let mut at_hand = lock(&self.at_hand);
            if let Some(stored) = at_hand.remove(key) {
                return Some(stored);
            }
            self.texts.remove(key)
        };
        text?.read()
    }

    /// Caches a document that is in the store, and sends it to the readers that wait for it.
    pub fn insert(&self, key: TwinKey, stored: Stored) {
        self.arrivals.tell(&key, &stored);
        let mut at_hand = lock(&self.at_hand);
        if self.texts.contains_key(&key) {
            self.texts.invalidate(&key);
        }
        for (key, stored) in at_hand.insert(key, stored) {
            if let Some(text) = Text::of(&stored) {
                self.texts.insert(key, text);
            }
        }
    }

    /// Removes the document of a twin.
    pub fn invalidate(&self, key: &TwinKey) {
        let mut at_hand = lock(&self.at_hand);
        at_hand.remove(key);
        self.texts.invalidate(key);
    }

    /// Approximate number of bytes of all documents, which `cache.max_bytes` limits. A change of the documents that are kept as text shows
    /// some time after it.
    pub fn bytes(&self) -> u64 {
        let at_hand = lock(&self.at_hand).bytes as u64;
        at_hand + self.texts.weighted_size()
    }

    /// Begins to listen for documents of a twin, of any hub. A caller that reads the store after this misses no write of this process: it
    /// reads the earlier writes, and receives the later ones.
    pub fn expect(&self, device: &str, module: Option<&str>) -> Expected {
        let twin = (device.to_owned(), module.map(str::to_owned));
        let mut expected = lock(&self.arrivals.expected);
        let news = expected.entry(twin.clone()).or_insert_with(|| watch::channel(None).0).subscribe();
        self.arrivals.twins.store(expected.len(), Ordering::SeqCst);
        drop(expected);
        Expected { twin, news, arrivals: Arc::clone(&self.arrivals) }
    }
}

/// Parsed documents. The last one was written most recently.
struct AtHand {
    documents: LruCache<TwinKey, (Stored, usize)>,
    bytes: usize,
    most: usize,
}

impl AtHand {
    fn remove(&mut self, key: &TwinKey) -> Option<Stored> {
        let (stored, bytes) = self.documents.pop(key)?;
        self.bytes -= bytes;
        Some(stored)
    }

    /// Adds a document, and returns those that no longer fit.
    fn insert(&mut self, key: TwinKey, stored: Stored) -> Vec<(TwinKey, Stored)> {
        let bytes = stored.0.weight() + key_bytes(&key) + ENTRY_BYTES;
        if let Some((_, before)) = self.documents.put(key, (stored, bytes)) {
            self.bytes -= before;
        }
        self.bytes += bytes;
        let mut left = Vec::new();
        while self.bytes > self.most
            && let Some((key, (stored, bytes))) = self.documents.pop_lru()
        {
            self.bytes -= bytes;
            left.push((key, stored));
        }
        left
    }
}

impl Text {
    /// `None` for text that is not JSON. The store would not have taken it.
    fn of((document, etag): &Stored) -> Option<Self> {
        let json = serde_json::to_vec(&**document).ok()?;
        Some(Self { json: json.into(), etag: etag.clone() })
    }

    fn read(&self) -> Option<Stored> {
        let document = serde_json::from_slice(&self.json).ok()?;
        Some((Arc::new(document), self.etag.clone()))
    }
}

/// Device and module. Waiting readers may not know the hub. Two hubs seldom have a twin of the same name, and each reader checks the hub
/// itself.
type Twin = (String, Option<String>);

/// Which twins have waiting readers.
#[derive(Default)]
struct Arrivals {
    /// Number of twins with waiting readers. It is nearly always 0, and then a write costs one load of this.
    ///
    /// SUBTLE: a write is in the store before this is loaded, and a waiting reader counts itself before it reads the store. So either the
    /// write sees the reader, or the reader's read sees the write.
    twins: AtomicUsize,
    expected: Mutex<HashMap<Twin, watch::Sender<Option<Stored>>>>,
}

impl Arrivals {
    fn tell(&self, key: &TwinKey, stored: &Stored) {
        if self.twins.load(Ordering::SeqCst) == 0 {
            return;
        }
        let twin = (key.device.clone(), key.module.clone());
        if let Some(waiters) = lock(&self.expected).get(&twin) {
            waiters.send_replace(Some(stored.clone()));
        }
    }
}

/// Listens for documents of one twin until it is dropped.
pub struct Expected {
    twin: Twin,
    news: watch::Receiver<Option<Stored>>,
    arrivals: Arc<Arrivals>,
}

impl Expected {
    /// Waits for the newest document that this process has written since the last call. May be dropped at any time.
    pub async fn next(&mut self) -> Stored {
        loop {
            if self.news.changed().await.is_err() {
                // The sender lives while there is a receiver.
                return std::future::pending().await;
            }
            if let Some(stored) = self.news.borrow_and_update().clone() {
                return stored;
            }
        }
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        let mut expected = lock(&self.arrivals.expected);
        // The receiver of this listener is still counted.
        if expected.get(&self.twin).is_some_and(|waiters| waiters.receiver_count() <= 1) {
            expected.remove(&self.twin);
            self.arrivals.twins.store(expected.len(), Ordering::SeqCst);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::domain::{document::State, testing::document};

    fn stored(version: i64) -> Stored {
        (Arc::new(document(version)), ETag(version.to_string()))
    }

    fn with_text(version: i64, bytes: usize) -> Stored {
        let mut document = document(version);
        if let State::Live { twin, .. } = &mut document.state {
            twin.tags.insert("text".into(), "x".repeat(bytes).into());
        }
        (Arc::new(document), ETag(version.to_string()))
    }

    #[test]
    fn documents_beyond_half_of_the_memory_are_kept_as_text_and_come_back_equal() {
        let cache = document_cache(1 << 20);
        let key = |number: i64| TwinKey::device("h", format!("d{number}"));
        for number in 0..100 {
            cache.insert(key(number), with_text(number, 5_000));
        }
        assert!(lock(&cache.at_hand).documents.len() < 90, "half of the memory cannot hold all documents");
        for number in 0..100 {
            let (document, etag) = cache.remove(&key(number)).expect("kept");
            assert_eq!((&*document, etag.0), (&*with_text(number, 5_000).0, number.to_string()));
            assert!(cache.get(&key(number)).is_none(), "the document must have been taken out");
        }
        assert_eq!(lock(&cache.at_hand).bytes, 0);
    }

    #[test]
    fn its_bytes_are_those_of_parsed_documents_and_texts_and_stay_below_the_limit() {
        const LIMIT: u64 = 1 << 20;
        let cache = document_cache(LIMIT);
        let key = |number: i64| TwinKey::device("h", format!("d{number}"));
        assert_eq!(cache.bytes(), 0);
        cache.insert(key(0), with_text(0, 5_000));
        assert!((5_000..10_000).contains(&cache.bytes()), "{}", cache.bytes());
        for number in 0..400 {
            cache.insert(key(number), with_text(number, 5_000));
        }
        cache.texts.run_pending_tasks();
        assert!((LIMIT * 9 / 10..=LIMIT).contains(&cache.bytes()), "{}", cache.bytes());
        for number in 0..400 {
            cache.invalidate(&key(number));
        }
        cache.texts.run_pending_tasks();
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn a_document_taken_from_the_cache_has_no_other_owner() {
        let cache = document_cache(1 << 20);
        let key = TwinKey::device("h", "d");
        cache.insert(key.clone(), stored(1));
        let (mut document, _) = cache.remove(&key).expect("kept");
        assert!(Arc::get_mut(&mut document).is_some());
    }

    #[test]
    fn only_the_newest_counts_wherever_an_older_one_is_kept() {
        let cache = document_cache(1 << 20);
        let key = |number: i64| TwinKey::device("h", format!("d{number}"));
        for number in 0..100 {
            cache.insert(key(number), with_text(1, 5_000));
        }
        cache.insert(key(0), stored(2));
        assert_eq!(cache.get(&key(0)).expect("kept").1.0, "2");
        assert_eq!(cache.remove(&key(0)).expect("kept").1.0, "2");
        assert!(cache.get(&key(0)).is_none(), "the older document must be dropped");
        cache.insert(key(1), stored(3));
        cache.invalidate(&key(1));
        assert!(cache.get(&key(1)).is_none());
    }

    #[test]
    fn without_memory_nothing_is_kept() {
        let cache = document_cache(0);
        cache.insert(TwinKey::device("h", "d"), stored(1));
        cache.texts.run_pending_tasks();
        assert!(cache.get(&TwinKey::device("h", "d")).is_none());
    }

    #[tokio::test]
    async fn every_waiter_of_a_twin_gets_the_newest_document() {
        let cache = document_cache(1 << 20);
        let key = TwinKey::module("h", "d", "m");
        let mut waiters = [cache.expect("d", Some("m")), cache.expect("d", Some("m"))];
        let mut others = [cache.expect("d", None), cache.expect("D", Some("m"))];
        for version in [1, 2] {
            cache.insert(key.clone(), stored(version));
        }
        for waiter in &mut waiters {
            let (document, etag) = waiter.next().now_or_never().expect("known");
            assert_eq!((document.twin().expect("a twin").version.0, etag.0.as_str()), (2, "2"));
            assert!(waiter.next().now_or_never().is_none(), "a waiter must be notified once");
        }
        assert!(others.iter_mut().all(|waiter| waiter.next().now_or_never().is_none()));
    }

    #[tokio::test]
    async fn a_dropped_waiter_leaves_no_entry_and_affects_no_other() {
        let cache = document_cache(1 << 20);
        let (first, mut second) = (cache.expect("d", None), cache.expect("d", None));
        drop(first);
        cache.insert(TwinKey::device("h", "d"), stored(1));
        assert!(second.next().now_or_never().is_some());
        drop(second);
        assert!(lock(&cache.arrivals.expected).is_empty());
        assert_eq!(cache.arrivals.twins.load(Ordering::SeqCst), 0);
    }
}
