//! When keys are fetched, and what happens while they cannot be fetched. Tokio's clock is paused.

use serde_json::{Value, json};
use tokio::{task::JoinSet, time::advance};

use super::{
    super::testing::{Does, Scripted, TENANT},
    *,
};

const URL: &str = "https://login.example/keys";

/// A key set with these ids. No signature is checked here, so any number is sufficient as a key.
fn set(ids: &[&str]) -> Does {
    let key = |id: &&str| json!({"kty": "RSA", "use": "sig", "kid": id, "n": "AQAB", "e": "AQAB"});
    Does::Answer(json!({"keys": ids.iter().map(key).collect::<Vec<_>>()}))
}

fn issuer() -> String {
    format!("https://sts.windows.net/{TENANT}/")
}

struct Test {
    cache: KeyCache,
    server: Arc<Scripted>,
    events: Arc<Mutex<Vec<KeyEvent>>>,
}

impl Test {
    fn with(discovery: &[&str], key_sets: &[&str]) -> Self {
        let owned = |urls: &[&str]| urls.iter().map(|url| (*url).to_owned()).collect();
        let source = Source {
            discovery: owned(discovery),
            key_sets: owned(key_sets),
            issuers: vec![issuer()],
            tenant: TENANT.to_owned(),
        };
        let (server, events) = (Arc::new(Scripted::default()), Arc::new(Mutex::new(vec![])));
        let log = Arc::clone(&events);
        let report: Report = Arc::new(move |event| log.lock().unwrap().push(event));
        Self { cache: KeyCache::new(source, Arc::clone(&server) as _, report), server, events }
    }

    fn new(does: Does) -> Self {
        let test = Self::with(&[], &[URL]);
        test.server.set(URL, does);
        test
    }

    async fn get(&self, id: &str) -> Result<(), NoKey> {
        self.cache.get(id).await.map(|_| ())
    }

    /// Lets a renewal in the background finish.
    async fn settle(&self) {
        while self.cache.shared.state().running.is_some() {
            tokio::task::yield_now().await;
        }
    }

    fn events(&self) -> Vec<KeyEvent> {
        std::mem::take(&mut self.events.lock().unwrap())
    }
}

async fn pass(seconds: u64) {
    advance(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn many_who_ask_at_once_are_served_by_one_fetch() {
    let test = Arc::new(Test::new(set(&["a", "b"])));
    let mut askers = JoinSet::new();
    for number in 0..50 {
        let test = Arc::clone(&test);
        askers.spawn(async move { test.get(if number % 2 == 0 { "a" } else { "b" }).await });
    }
    assert_eq!(askers.join_all().await, vec![Ok(()); 50]);
    assert_eq!(test.server.calls(), 1);
    assert_eq!(test.events(), [KeyEvent::Renewed { keys: 2 }]);
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_known_by_one_fetch() {
    let test = Test::new(set(&["old"]));
    assert_eq!(test.get("old").await, Ok(()));
    test.server.set(URL, set(&["old", "new"]));
    pass(60).await;
    for id in ["new", "new", "old"] {
        assert_eq!(test.get(id).await, Ok(()), "{id}");
    }
    assert_eq!(test.server.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_unknown_keys_is_one_fetch_a_minute() {
    let test = Test::new(set(&["a"]));
    for second in 0..600 {
        for flood in 0..5 {
            assert_eq!(test.get(&format!("{second}-{flood}")).await, Err(NoKey::Unknown));
        }
        assert_eq!(test.get("a").await, Ok(()));
        pass(1).await;
    }
    assert_eq!(test.server.calls(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_flood_while_the_server_is_away_is_one_fetch_a_minute_as_well() {
    let test = Test::new(Does::Fail);
    for second in 0..180 {
        assert_eq!(test.get(&second.to_string()).await, Err(NoKey::Unavailable));
        pass(1).await;
    }
    assert_eq!(test.server.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_withdrawn_key_is_good_for_an_hour() {
    let test = Test::new(set(&["old", "withdrawn"]));
    assert_eq!(test.get("withdrawn").await, Ok(()));
    test.server.set(URL, set(&["old"]));
    pass(3599).await;
    assert_eq!(test.get("withdrawn").await, Ok(()));
    assert_eq!(test.server.calls(), 1);
    pass(1).await;
    // The first request does not wait, and is the last one that uses the old key.
    assert_eq!(test.get("withdrawn").await, Ok(()));
    test.settle().await;
    assert_eq!(test.get("withdrawn").await, Err(NoKey::Unknown));
    assert_eq!(test.get("old").await, Ok(()));
    assert_eq!(test.server.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn keys_can_be_fetched_before_somebody_asks() {
    let test = Test::new(set(&["a"]));
    for (passed, calls) in [(0, 1), (0, 1), (3599, 1), (1, 2), (3600, 3)] {
        pass(passed).await;
        test.cache.refresh();
        test.settle().await;
        assert_eq!(test.server.calls(), calls);
    }
    assert_eq!(test.get("a").await, Ok(()));
    assert_eq!(test.server.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn keys_stay_for_a_day_while_the_server_is_away_and_this_is_told() {
    let test = Test::new(set(&["a"]));
    assert_eq!(test.get("a").await, Ok(()));
    test.events();
    test.server.set(URL, Does::Fail);
    pass(3600).await;
    assert_eq!(test.get("a").await, Ok(()));
    test.settle().await;
    let error = KeyError::Fetch { url: URL.to_owned(), source: FetchError::Status(500) };
    let age = Some(Duration::from_secs(3600));
    assert_eq!(test.events(), [KeyEvent::NotRenewed { error: error.clone(), age }]);
    // It is unknown whether there is another key.
    assert_eq!(test.get("b").await, Err(NoKey::Unavailable));
    pass(22 * 3600 + 3599).await;
    assert_eq!(test.get("a").await, Ok(()));
    test.settle().await;
    pass(1).await;
    assert_eq!(test.get("a").await, Err(NoKey::Unavailable));
    pass(60).await;
    assert_eq!(test.get("a").await, Err(NoKey::Unavailable));
    assert_eq!(test.events().pop(), Some(KeyEvent::NotRenewed { error, age: None }));
    // Everything works again when the server is back.
    test.server.set(URL, set(&["a"]));
    pass(60).await;
    assert_eq!(test.get("a").await, Ok(()));
    assert_eq!(test.get("b").await, Err(NoKey::Unknown));
    assert_eq!(test.events(), [KeyEvent::Renewed { keys: 1 }]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_given_up() {
    let test = Test::new(Does::Hang);
    let began = Instant::now();
    assert_eq!(test.get("a").await, Err(NoKey::Unavailable));
    assert_eq!(began.elapsed(), FETCH_TIMEOUT);
    let error = KeyError::Fetch { url: URL.to_owned(), source: FetchError::TimedOut(FETCH_TIMEOUT) };
    assert_eq!(test.events(), [KeyEvent::NotRenewed { error, age: None }]);
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_does_not_end_the_renewal() {
    let test = Test::new(set(&["a"]));
    {
        let mut asking = std::pin::pin!(test.cache.get("a"));
        assert!(poll_once(&mut asking).await.is_none());
    }
    test.settle().await;
    assert_eq!(test.get("a").await, Ok(()));
    assert_eq!(test.server.calls(), 1);
}

/// The result of a future after one poll.
async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_panics_is_one_that_failed() {
    let test = Test::new(Does::Panic);
    assert_eq!(test.get("a").await, Err(NoKey::Unavailable));
    assert_eq!(test.events(), [KeyEvent::NotRenewed { error: KeyError::GivenUp, age: None }]);
    test.server.set(URL, set(&["a"]));
    pass(60).await;
    assert_eq!(test.get("a").await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_ends_with_whom_it_is_for() {
    let Test { cache, events, .. } = Test::new(Does::Hang);
    let shared = Arc::downgrade(&cache.shared);
    {
        let mut asking = std::pin::pin!(cache.get("a"));
        assert!(poll_once(&mut asking).await.is_none());
    }
    drop(cache);
    while shared.strong_count() > 0 {
        tokio::task::yield_now().await;
    }
    let events = std::mem::take(&mut *events.lock().unwrap());
    assert_eq!(events, [KeyEvent::NotRenewed { error: KeyError::GivenUp, age: None }]);
}

#[tokio::test(start_paused = true)]
async fn discovery_finds_the_sets_and_all_of_them_count_or_none() {
    let [first, second] = ["https://login.example/1", "https://login.example/2"];
    let [keys_1, keys_2] = ["https://login.example/keys/1", "https://login.example/keys/2"];
    let document = |keys: &str| -> Value { json!({"issuer": issuer(), "jwks_uri": keys}) };
    let test = Test::with(&[first, second], &[]);
    test.server.set(first, Does::Answer(document(keys_1)));
    test.server.set(second, Does::Answer(document(keys_2)));
    test.server.set(keys_1, set(&["a", "both"]));
    test.server.set(keys_2, set(&["b", "both"]));
    for id in ["a", "b", "both"] {
        assert_eq!(test.get(id).await, Ok(()), "{id}");
    }
    assert_eq!(test.server.calls(), 4);
    // One of the documents fails: the present set stays unchanged.
    for does in [Does::Fail, set(&[])] {
        test.server.set(keys_1, set(&["c"]));
        test.server.set(keys_2, does);
        pass(60).await;
        assert_eq!(test.get("c").await, Err(NoKey::Unavailable));
        assert_eq!(test.get("b").await, Ok(()));
    }
    // One document is from another issuer.
    test.events();
    test.server.set(second, Does::Answer(json!({"issuer": "https://evil.example/", "jwks_uri": keys_2})));
    pass(60).await;
    assert_eq!(test.get("c").await, Err(NoKey::Unavailable));
    let source = DocumentError::Issuer("https://evil.example/".to_owned());
    let error = KeyError::Document { url: second.to_owned(), source };
    let found = test.events();
    assert!(
        matches!(&found[..], [KeyEvent::NotRenewed { error: found, .. }] if *found == error),
        "{found:?}"
    );
}
