//! Documents as this process has just written or read them: kept for the next write of their twin, and told to whoever waits
//! for one.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::watch;

use crate::domain::{
    document::{Document, ETag},
    id::TwinKey,
};

/// A document and its version in the store.
pub type Stored = (Arc<Document>, ETag);

/// Recently written documents, shared by the router and whoever repairs. Cheap to clone.
#[derive(Clone)]
pub struct DocumentCache {
    recent: moka::sync::Cache<TwinKey, Stored>,
    arrivals: Arc<Arrivals>,
}

/// A cache for documents of so many bytes together.
pub fn document_cache(bytes: u64) -> DocumentCache {
    let recent = moka::sync::Cache::builder()
        .max_capacity(bytes)
        .weigher(|_: &TwinKey, (document, _): &Stored| u32::try_from(document.weight()).unwrap_or(u32::MAX))
        .build();
    DocumentCache { recent, arrivals: Arc::default() }
}

impl DocumentCache {
    /// The document of a twin, where it is kept.
    pub fn get(&self, key: &TwinKey) -> Option<Stored> {
        self.recent.get(key)
    }

    /// Takes the document of a twin out, so that nobody else holds it.
    pub fn remove(&self, key: &TwinKey) -> Option<Stored> {
        self.recent.remove(key)
    }

    /// Keeps a document that is in the store, and tells it to whoever expects it.
    pub fn insert(&self, key: TwinKey, stored: Stored) {
        self.arrivals.tell(&key, &stored);
        self.recent.insert(key, stored);
    }

    /// Forgets the document of a twin.
    pub fn invalidate(&self, key: &TwinKey) {
        self.recent.invalidate(key);
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
    use crate::domain::testing::document;

    fn stored(version: i64) -> Stored {
        (Arc::new(document(version)), ETag(version.to_string()))
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
