//! Documents as this process has just written or read them: kept for the next write of their twin, and told to whoever waits
//! for one.

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

/// A document and its version in the store.
pub type Stored = (Arc<Document>, ETag);

/// The part of the memory that holds documents as they are worked with. Those take several times as many bytes as their
/// text, and only twins that change all the time gain from it.
const AT_HAND: u64 = 2;
/// Bytes that an entry takes beside its text and key, roughly.
const ENTRY_BYTES: usize = 256;

/// Recently written documents, shared by the router and whoever repairs. Cheap to clone.
///
/// The newest are kept as they are worked with, and older ones as their text: to read that again costs some
/// microseconds, where to read the document from the store costs a round trip and request units.
#[derive(Clone)]
pub struct DocumentCache {
    /// Held for every change of `texts` too, so that no twin is in both.
    at_hand: Arc<Mutex<AtHand>>,
    texts: moka::sync::Cache<TwinKey, Text>,
    arrivals: Arc<Arrivals>,
}

/// A document's text in JSON, and its version in the store.
#[derive(Clone)]
struct Text {
    json: Arc<[u8]>,
    etag: ETag,
}

/// A cache for documents of so many bytes together. With none, nothing is kept.
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
    /// The document of a twin, where it is kept.
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

    /// Takes the document of a twin out, so that nobody else holds it.
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

    /// Keeps a document that is in the store, and tells it to whoever expects it.
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

    /// Forgets the document of a twin.
    pub fn invalidate(&self, key: &TwinKey) {
        let mut at_hand = lock(&self.at_hand);
        at_hand.remove(key);
        self.texts.invalidate(key);
    }

    /// Begins to listen for documents of a twin, of whichever hub. Whoever then reads the store misses nothing that this
    /// process writes: what was written before is read, what is written after is told.
    pub fn expect(&self, device: &str, module: Option<&str>) -> Expected {
        let twin = (device.to_owned(), module.map(str::to_owned));
        let mut expected = lock(&self.arrivals.expected);
        let news = expected.entry(twin.clone()).or_insert_with(|| watch::channel(None).0).subscribe();
        self.arrivals.twins.store(expected.len(), Ordering::SeqCst);
        drop(expected);
        Expected { twin, news, arrivals: Arc::clone(&self.arrivals) }
    }
}

/// Documents as they are worked with, the one that was written last at the end.
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

    /// Returns what there is no room for any more.
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
    /// `None` for what is no JSON; the store would not have taken it.
    fn of((document, etag): &Stored) -> Option<Self> {
        let json = serde_json::to_vec(&**document).ok()?;
        Some(Self { json: json.into(), etag: etag.clone() })
    }

    fn read(&self) -> Option<Stored> {
        let document = serde_json::from_slice(&self.json).ok()?;
        Some((Arc::new(document), self.etag.clone()))
    }
}

/// Device and module. Waiters may not know the hub; two hubs seldom have twins of one name, and each looks for itself.
type Twin = (String, Option<String>);

/// Who waits for which twin.
#[derive(Default)]
struct Arrivals {
    /// How many twins are expected. Nearly always none, and then a write costs one load of this.
    ///
    /// SUBTLE: a write is in the store before this is loaded, and a waiter counts itself before it reads the store. So
    /// either the write sees the waiter, or the waiter's read sees the write.
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

/// Listens for documents of one twin; ends with being dropped.
pub struct Expected {
    twin: Twin,
    news: watch::Receiver<Option<Stored>>,
    arrivals: Arc<Arrivals>,
}

impl Expected {
    /// The newest document that this process has written since it was last asked. May be dropped at any time.
    pub async fn next(&mut self) -> Stored {
        loop {
            if self.news.changed().await.is_err() {
                // The sender lives for as long as anybody listens.
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
        // Our own receiver is still counted.
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
    fn what_there_is_no_room_for_at_hand_is_kept_as_text_and_comes_back_equal() {
        let cache = document_cache(1 << 20);
        let key = |number: i64| TwinKey::device("h", format!("d{number}"));
        for number in 0..100 {
            cache.insert(key(number), with_text(number, 5_000));
        }
        assert!(lock(&cache.at_hand).documents.len() < 90, "half of the room does not hold all of them");
        for number in 0..100 {
            let (document, etag) = cache.remove(&key(number)).expect("kept");
            assert_eq!((&*document, etag.0), (&*with_text(number, 5_000).0, number.to_string()));
            assert!(cache.get(&key(number)).is_none(), "it was taken out");
        }
        assert_eq!(lock(&cache.at_hand).bytes, 0);
    }

    #[test]
    fn what_is_taken_out_is_held_by_nobody_else() {
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
        assert!(cache.get(&key(0)).is_none(), "the older one is forgotten");
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
    async fn everybody_who_expects_a_twin_is_told_the_newest_and_nobody_else() {
        let cache = document_cache(1 << 20);
        let key = TwinKey::module("h", "d", "m");
        let mut waiters = [cache.expect("d", Some("m")), cache.expect("d", Some("m"))];
        let mut others = [cache.expect("d", None), cache.expect("D", Some("m"))];
        for version in [1, 2] {
            cache.insert(key.clone(), stored(version));
        }
        for waiter in &mut waiters {
            let (document, etag) = waiter.next().now_or_never().expect("told");
            assert_eq!((document.twin().expect("a twin").version.0, etag.0.as_str()), (2, "2"));
            assert!(waiter.next().now_or_never().is_none(), "told once");
        }
        assert!(others.iter_mut().all(|waiter| waiter.next().now_or_never().is_none()));
    }

    #[tokio::test]
    async fn who_goes_away_leaves_nothing_behind_and_takes_nothing_from_others() {
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
