//! What a `RateLimitedRegistry` reports to its rate limiter, the metrics and the log.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use futures::FutureExt as _;
use tokio::time::Instant;

use super::*;
use crate::domain::{quota::Tier, ticks::Ticks};

/// A registry with scripted answers.
struct Scripted(HubName, Mutex<VecDeque<Result<(), QueryError>>>);

impl Scripted {
    fn next(&self) -> Result<(), QueryError> {
        self.1.lock().unwrap().pop_front().expect("no more calls than scripted")
    }
}

#[async_trait]
impl TwinRegistry for Scripted {
    fn hub(&self) -> &HubName {
        &self.0
    }

    fn unaskable(&self, key: &TwinKey) -> Option<String> {
        (key.device == ".").then(|| "no URL can hold it".to_owned())
    }

    async fn get(&self, _key: &TwinKey) -> Got {
        match self.next() {
            Ok(()) => Got::Absent(Ticks::new(0)),
            Err(QueryError::StoreError(trouble)) => Got::Unknown(trouble),
            Err(other) => panic!("no answer to a point read: {other}"),
        }
    }

    async fn query(
        &self,
        _query: &str,
        _from: Option<&Continuation>,
        _most_rows: u32,
    ) -> Result<Page, QueryError> {
        self.next().map(|()| Page { rows: Vec::new(), odd: 0, next: None, at: Ticks::new(0) })
    }

    async fn device_count(&self) -> Result<u64, QueryError> {
        self.next().map(|()| 7)
    }
}

fn trouble(kind: StoreErrorKind, retry_after: Option<Duration>) -> Result<(), QueryError> {
    Err(QueryError::StoreError(StoreError {
        kind,
        code: "IOTHUB_UNAVAILABLE",
        retry_after,
        message: "it said no".to_owned(),
    }))
}

fn rate_limited(script: impl IntoIterator<Item = Result<(), QueryError>>) -> (RateLimitedRegistry, Metrics) {
    let metrics = Metrics::new().unwrap();
    let registry = Arc::new(Scripted("contoso".into(), Mutex::new(script.into_iter().collect())));
    (RateLimitedRegistry::new(registry, RateLimiter::new(Tier::S3, 1, 1.0), metrics.clone()), metrics)
}

fn key() -> TwinKey {
    TwinKey::device("contoso", "d")
}

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    fn taken(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_throttled_call_makes_the_next_of_its_kind_wait() {
    let hint = Some(Duration::from_millis(50));
    let (rate_limited, _) = rate_limited([trouble(StoreErrorKind::Throttled, hint), Ok(()), Ok(())]);
    rate_limited.get(&key(), Purpose::Repair).await;
    let begin = Instant::now();
    rate_limited.query("SELECT * FROM devices", None, 10, Purpose::Audit).now_or_never().unwrap().unwrap();
    rate_limited.get(&key(), Purpose::Repair).await;
    assert!(begin.elapsed() >= Duration::from_millis(50), "{:?}", begin.elapsed());
    assert_eq!(rate_limited.rate_limiter().calls(Call::Get), 2);
}

#[tokio::test]
async fn a_twin_that_cannot_be_asked_about_takes_no_quota_and_says_nothing_about_the_hub() {
    let (rate_limited, metrics) = rate_limited([Ok(())]);
    let health = HealthState::new();
    let rate_limited = rate_limited.shown_on(&health);
    for _ in 0..FAILURES_UNREACHABLE * 2 {
        let got = rate_limited.get(&TwinKey::device("contoso", "."), Purpose::Repair).await;
        assert!(matches!(got, Got::Unknown(trouble) if trouble.message.contains("no URL")));
    }
    assert_eq!(rate_limited.rate_limiter().calls(Call::Get), 0);
    assert!(!metrics.render().contains("outcome=\"unavailable\",purpose=\"repair\"} 1"));
    assert!(health.facts().dependencies.is_empty(), "the state of the hub must be unknown");
    rate_limited.get(&key(), Purpose::Repair).await;
    assert_eq!(rate_limited.rate_limiter().calls(Call::Get), 1);
}

#[tokio::test]
async fn every_call_is_counted_by_what_became_of_it() {
    let (rate_limited, metrics) = rate_limited([
        Ok(()),
        trouble(StoreErrorKind::Unavailable, None),
        Ok(()),
        Err(QueryError::Expired),
        Err(QueryError::Refused("no".to_owned())),
        Ok(()),
        trouble(StoreErrorKind::Throttled, None),
    ]);
    for _ in 0..2 {
        rate_limited.get(&key(), Purpose::Repair).await;
    }
    for _ in 0..3 {
        let _ = rate_limited.query("q", None, 1, Purpose::Backfill).await;
    }
    assert_eq!(rate_limited.device_count(Purpose::Audit).await.unwrap(), 7);
    rate_limited.device_count(Purpose::Audit).await.expect_err("throttled");
    let text = metrics.render();
    for labels in [
        r#"call="get",outcome="absent",purpose="repair""#,
        r#"call="get",outcome="unavailable",purpose="repair""#,
        r#"call="query",outcome="ok",purpose="backfill""#,
        r#"call="query",outcome="expired",purpose="backfill""#,
        r#"call="query",outcome="refused",purpose="backfill""#,
        r#"call="count",outcome="ok",purpose="audit""#,
        r#"call="count",outcome="throttled",purpose="audit""#,
    ] {
        let line = format!("twinsync_registry_calls_total{{{labels}}} 1");
        assert!(text.lines().any(|found| found == line), "{line}\nnot in\n{text}");
    }
}

#[tokio::test]
async fn a_hub_that_goes_and_comes_is_told_once_each() {
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let down = || trouble(StoreErrorKind::Unavailable, None);
    let (rate_limited, _) = rate_limited([
        down(),
        Ok(()),
        down(),
        down(),
        down(),
        down(),
        Ok(()),
        Ok(()),
        down(),
        down(),
        Ok(()),
    ]);
    let mut logs = Vec::new();
    for _ in 0..11 {
        rate_limited.get(&key(), Purpose::Repair).await;
        logs.push(captured.taken());
    }
    let told: Vec<_> = logs.iter().enumerate().filter(|(_, log)| !log.is_empty()).map(|(at, _)| at).collect();
    assert_eq!(told, [4, 6], "single and repeated failures must not be logged: {logs:?}");
    assert!(logs[4].contains("WARN") && logs[4].contains("contoso") && logs[4].contains("it said no"));
    assert!(logs[6].contains("INFO") && logs[6].contains("answers again"));
}
