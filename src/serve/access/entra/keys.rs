//! The keys of an issuer: kept, renewed, and kept on where they cannot be renewed.
//!
//! | What is looked for | Age of the set | What happens |
//! |---|---|---|
//! | a known key | under 1 h | it is used |
//! | a known key | 1 h to 24 h | it is used, and the set is renewed meanwhile |
//! | a key, known or not | over 24 h, or no set | the set is renewed first |
//! | an unknown key | any | the set is renewed first |
//!
//! The two ages are those that Microsoft advises (page "Signing key rollover in the Microsoft identity platform"): a key
//! that was withdrawn stops being good after an hour, and a key server may be away for a day.
//!
//! A set is renewed once at a time and once a minute at most, whoever asks how often. The minute counts from the beginning,
//! and failures count as well: whoever sends tokens with keys that do not exist must not make us a burden to the issuer.
//! Microsoft's own libraries wait for five minutes; a minute makes an emergency change of keys known sooner.

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

/// From this age on a set is renewed.
const RENEW_AFTER: Duration = Duration::from_secs(3600);
/// From this age on a set is not used any more.
const USE_FOR: Duration = Duration::from_secs(24 * 3600);
/// The time from the beginning of one renewal to the next.
const GAP: Duration = Duration::from_secs(60);
/// How long one document may take.
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
        /// Why.
        error: KeyError,
        /// How old the set is that is used on; `None`: there is none, and no token is admitted.
        age: Option<Duration>,
    },
}

/// Why there is no new set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A document could not be fetched.
    #[error("cannot fetch {url}")]
    Fetch {
        /// Which.
        url: String,
        /// Why.
        #[source]
        source: FetchError,
    },
    /// A document was fetched and is not good.
    #[error("cannot use {url}")]
    Document {
        /// Which.
        url: String,
        /// Why.
        #[source]
        source: DocumentError,
    },
    /// The renewal was given up, as at the end of the process.
    #[error("the renewal was given up")]
    GivenUp,
}

/// Takes note of what happens to the keys. It is called outside of all locks, and must not take long.
pub type Report = Arc<dyn Fn(KeyEvent) + Send + Sync>;

/// Where keys are from.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// Discovery documents that say where. Entra ID has one for tokens of version 1 and one for version 2, and both kinds
    /// may come (the page "Access tokens in the Microsoft identity platform", "v1.0 and v2.0 tokens").
    pub(super) discovery: Vec<String>,
    /// Key sets themselves.
    pub(super) key_sets: Vec<String>,
    /// The issuers whose keys count.
    pub(super) issuers: Vec<String>,
    /// What stands for `{tenantid}`.
    pub(super) tenant: String,
}

/// Why no key was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoKey {
    /// The issuer has no such key.
    Unknown,
    /// It cannot be told whether the issuer has such a key.
    Unavailable,
}

/// The keys of an issuer. When it is dropped, a renewal that is under way ends.
pub(super) struct KeyCache {
    shared: Arc<Shared>,
}

struct Shared {
    source: Source,
    fetch: Arc<dyn Fetch>,
    report: Report,
    state: Mutex<State>,
    /// Counts the renewals that have ended.
    ended: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    keys: key_set::Keys,
    /// When `keys` were asked for; `None`: never. Not when they came: a key that is withdrawn meanwhile may be among them.
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

    /// How old the set is; `None`: there is none.
    pub(super) fn age(&self) -> Option<Duration> {
        self.shared.state().age()
    }

    /// The key of this id. Waits for a renewal where one is needed, 20 s at most: 5 s for each of four documents.
    ///
    /// **Cancellation** is safe: the renewal goes on, so that clients that come and go cannot use up the one of the minute.
    ///
    /// # Errors
    /// There is no such key.
    pub(super) async fn get(&self, id: &str) -> Result<DecodingKey, NoKey> {
        let mut ended = self.shared.ended.subscribe();
        if let Some(key) = self.cached(id) {
            return Ok(key);
        }
        if self.shared.state().running.is_some() {
            // Ends as well where the sender is gone, which it cannot be before us.
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

    /// Begins a renewal, unless one is under way or was there just now.
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
    /// Nothing is done under this lock that could leave the state half changed.
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
        // All or nothing: a set that lacks what one document would have added would take keys away that are good.
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

/// A renewal under way. However it ends, the next one may begin and nobody waits on.
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
        // Before the report, so that a report that panics keeps nobody waiting.
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
