//! The keys of an issuer: cached, renewed, and still used if they cannot be renewed.
//!
//! | Requested key | Age of the set | What happens |
//! |---|---|---|
//! | a known key | under 1 h | it is used |
//! | a known key | 1 h to 24 h | it is used, and the set is renewed in the background |
//! | a key, known or not | over 24 h, or no set | the set is renewed first |
//! | an unknown key | any | the set is renewed first |
//!
//! Microsoft advises both ages (page "Signing key rollover in the Microsoft identity platform"): a withdrawn key stops being accepted after
//! an hour, and a key server may be unavailable for a day.
//!
//! A set is renewed by one task at a time, and at most once per minute, however many requests ask. The minute counts from the start of a
//! renewal, and failures count too: clients that send tokens with unknown keys must not put load on the issuer. Microsoft's own libraries
//! wait for five minutes. With one minute, an emergency change of keys is known sooner.

#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jsonwebtoken::DecodingKey;
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{Instant, timeout},
};

use super::{
    Fetch, FetchError,
    key_set::{self, DocumentError},
};

/// A set of this age or older is renewed.
const RENEW_AFTER: Duration = Duration::from_secs(3600);
/// A set of this age or older is no longer used.
const USE_FOR: Duration = Duration::from_secs(24 * 3600);
/// Minimum time between the starts of two renewals.
const GAP: Duration = Duration::from_secs(60);
/// Time limit for one document.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// What happened to the keys, for logs and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyEvent {
    /// There is a new set.
    Renewed {
        /// How many keys it has.
        keys: usize,
    },
    /// The set could not be renewed.
    NotRenewed {
        /// The error.
        error: KeyError,
        /// The age of the set that remains in use. `None`: there is none, and no token is admitted.
        age: Option<Duration>,
    },
}

/// Why there is no new set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A document could not be fetched.
    #[error("cannot fetch {url}")]
    Fetch {
        /// The address of the document.
        url: String,
        /// The error.
        #[source]
        source: FetchError,
    },
    /// A document was fetched and cannot be used.
    #[error("cannot use {url}")]
    Document {
        /// The address of the document.
        url: String,
        /// The error.
        #[source]
        source: DocumentError,
    },
    /// The renewal was given up, for example at the end of the process.
    #[error("the renewal was cancelled")]
    GivenUp,
}

/// Receives what happens to the keys. It is called without any lock, and must not take long.
pub type Report = Arc<dyn Fn(KeyEvent) + Send + Sync>;

/// The sources of keys.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// Discovery documents that contain the address of the keys. Entra ID has one for tokens of version 1 and one for version 2, and both
    /// kinds may occur (the page "Access tokens in the Microsoft identity platform", "v1.0 and v2.0 tokens").
    pub(super) discovery: Vec<String>,
    /// Addresses of key sets.
    pub(super) key_sets: Vec<String>,
    /// The accepted issuers of keys.
    pub(super) issuers: Vec<String>,
    /// The value of `{tenantid}`.
    pub(super) tenant: String,
}

/// Why no key was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoKey {
    /// The issuer has no such key.
    Unknown,
    /// It is unknown whether the issuer has such a key.
    Unavailable,
}

/// The keys of an issuer. Dropping it ends a renewal in progress.
pub(super) struct KeyCache {
    shared: Arc<Shared>,
}

struct Shared {
    source: Source,
    fetch: Arc<dyn Fetch>,
    report: Report,
    state: Mutex<State>,
    /// Number of renewals that have ended.
    ended: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    keys: key_set::Keys,
    /// When `keys` were requested. `None`: never. Not when they arrived: a key that was withdrawn in between may be among them.
    since: Option<Instant>,
    began: Option<Instant>,
    running: Option<AbortHandle>,
    has_failed: bool,
}

impl State {
    fn age(&self) -> Option<Duration> {
        self.since.map(|since| since.elapsed())
    }

    /// A key that may still be used.
    fn find(&self, id: &str) -> Option<DecodingKey> {
        self.keys.get(id).filter(|_| self.age().is_some_and(|age| age < USE_FOR)).cloned()
    }

    fn is_fresh(&self) -> bool {
        self.age().is_some_and(|age| age < RENEW_AFTER)
    }

    fn may_begin(&self) -> bool {
        self.running.is_none() && self.began.is_none_or(|began| began.elapsed() >= GAP)
    }
}

impl fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyCache").field("source", &self.shared.source).finish_non_exhaustive()
    }
}

impl Drop for KeyCache {
    fn drop(&mut self) {
        let running = self.shared.state().running.take();
        if let Some(running) = running {
            running.abort();
        }
    }
}

impl KeyCache {
    pub(super) fn new(source: Source, fetch: Arc<dyn Fetch>, report: Report) -> Self {
        let (ended, _) = watch::channel(0);
        Self { shared: Arc::new(Shared { source, fetch, report, state: Mutex::default(), ended }) }
    }

    /// The age of the set. `None`: there is none.
    pub(super) fn age(&self) -> Option<Duration> {
        self.shared.state().age()
    }

    /// Returns the key with this id. Waits for a renewal if one is needed, for at most 20 s: 5 s for each of four documents.
    ///
    /// **Cancellation** is safe: the renewal continues, so that clients that disconnect cannot use up the one renewal per minute.
    ///
    /// # Errors
    /// There is no such key.
    pub(super) async fn get(&self, id: &str) -> Result<DecodingKey, NoKey> {
        let mut ended = self.shared.ended.subscribe();
        if let Some(key) = self.cached(id) {
            return Ok(key);
        }
        if self.shared.state().running.is_some() {
            // This also returns if the sender is gone, but `self` keeps it alive.
            let _ = ended.changed().await;
        }
        let state = self.shared.state();
        let is_usable = state.age().is_some_and(|age| age < USE_FOR);
        let otherwise = if state.has_failed || !is_usable { NoKey::Unavailable } else { NoKey::Unknown };
        state.find(id).ok_or(otherwise)
    }

    /// The key, if it is known. Begins a renewal if one is due.
    fn cached(&self, id: &str) -> Option<DecodingKey> {
        let mut state = self.shared.state();
        let key = state.find(id);
        if key.is_none() || !state.is_fresh() {
            self.begin(&mut state);
        }
        key
    }

    /// Begins a renewal if the set is missing or no longer fresh, and does not wait for it.
    pub(super) fn refresh(&self) {
        let mut state = self.shared.state();
        if !state.is_fresh() {
            self.begin(&mut state);
        }
    }

    /// Begins a renewal, unless one is in progress or began less than a minute ago.
    fn begin(&self, state: &mut State) {
        if state.may_begin() {
            let began = Instant::now();
            let renewal = Renewal { shared: Arc::clone(&self.shared), began, has_ended: false };
            state.began = Some(began);
            state.running = Some(tokio::spawn(renewal.run()).abort_handle());
        }
    }
}

impl Shared {
    /// No code under this lock can leave the state half changed.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn load(&self) -> Result<key_set::Keys, KeyError> {
        let Source { discovery, key_sets, issuers, tenant } = &self.source;
        let mut urls = key_sets.clone();
        for url in discovery {
            let document = self.get(url).await?;
            let keys_url = key_set::keys_url(&document, issuers);
            urls.push(keys_url.map_err(|source| KeyError::Document { url: url.clone(), source })?);
        }
        urls.sort_unstable();
        urls.dedup();
        // All or nothing: a set without the keys of one failed document would lack valid keys.
        let mut keys = key_set::Keys::new();
        for url in urls {
            let found = key_set::keys(&self.get(&url).await?, issuers, tenant);
            keys.extend(found.map_err(|source| KeyError::Document { url, source })?);
        }
        Ok(keys)
    }

    async fn get(&self, url: &str) -> Result<Vec<u8>, KeyError> {
        let found = timeout(FETCH_TIMEOUT, self.fetch.get(url)).await;
        let found = found.unwrap_or(Err(FetchError::TimedOut(FETCH_TIMEOUT)));
        found.map_err(|source| KeyError::Fetch { url: url.to_owned(), source })
    }
}

/// A renewal in progress. However it ends, the next one may begin and waiting tasks are woken.
struct Renewal {
    shared: Arc<Shared>,
    began: Instant,
    has_ended: bool,
}

impl Renewal {
    async fn run(mut self) {
        let found = self.shared.load().await;
        self.end(found);
    }

    fn end(&mut self, found: Result<key_set::Keys, KeyError>) {
        self.has_ended = true;
        let event = {
            let mut state = self.shared.state();
            state.running = None;
            state.has_failed = found.is_err();
            match found {
                Ok(keys) => {
                    state.since = Some(self.began);
                    state.keys = keys;
                    KeyEvent::Renewed { keys: state.keys.len() }
                }
                Err(error) => KeyEvent::NotRenewed { error, age: state.age().filter(|age| *age < USE_FOR) },
            }
        };
        // Before the report, so that a report that panics blocks no waiting task.
        self.shared.ended.send_modify(|ended| *ended += 1);
        (self.shared.report)(event);
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        if !self.has_ended {
            self.end(Err(KeyError::GivenUp));
        }
    }
}
