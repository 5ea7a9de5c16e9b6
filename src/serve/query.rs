//! Answers queries, page by page.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, HeaderValue},
    response::Response,
};
use serde::Deserialize;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Duration, timeout},
};

use super::{access::Caller, callers::Callers, refusal::Refusal, twin};
use crate::{
    domain::{id::HubName, query::ItemType},
    ports::Charged,
    runtime::queries::{self, Ask, Client, Failure, Queries},
    telemetry::ServedOutcome,
};

/// Default number of rows per page, as at IoT Hub.
const PAGE: NonZeroU32 = NonZeroU32::new(100).expect("100 is not 0");
/// Maximum number of rows per page.
const PAGE_MAX: NonZeroU32 = NonZeroU32::new(1_000).expect("1,000 is not 0");
/// Maximum size of a request's body, in bytes: a query of 8,192 characters, of up to six bytes each in JSON, and the text around it.
const BODY_MAX: usize = 64 << 10;
/// Time limit for receiving the body.
const BODY_LIMIT: Duration = Duration::from_secs(10);
/// Maximum length of a continuation, in bytes. Those of this service have a few hundred bytes per physical partition.
const CONTINUATION_MAX: usize = 8 << 10;

/// A parsed query request.
#[derive(Debug)]
pub(super) struct Asked {
    query: String,
    from: Option<String>,
    most: NonZeroU32,
}

#[derive(Deserialize)]
struct Posted {
    query: String,
}

impl Asked {
    /// Parses a request.
    ///
    /// # Errors
    /// The request contains no valid query.
    pub(super) async fn read(headers: &HeaderMap, body: Body) -> Result<Self, Refusal> {
        let most = match text(headers, "x-ms-max-item-count")? {
            None | Some("-1") => PAGE,
            Some(count) => {
                let number = count.parse::<NonZeroU32>().map_err(|_| {
                    Refusal::invalid("x-ms-max-item-count is not a whole number of 1 or more")
                })?;
                number.min(PAGE_MAX)
            }
        };
        let from = text(headers, "x-ms-continuation")?.filter(|from| !from.is_empty());
        if from.is_some_and(|from| from.len() > CONTINUATION_MAX) {
            return Err(Refusal::invalid(Failure::Continuation.to_string()));
        }
        let body = timeout(BODY_LIMIT, to_bytes(body, BODY_MAX)).await;
        let body = body.map_err(|_| Refusal::invalid("the body did not come in time"))?.map_err(|_| {
            Refusal::invalid(format!("the body has more than {BODY_MAX} bytes, or is incomplete"))
        })?;
        let Posted { query } = serde_json::from_slice(&body).map_err(|_| {
            Refusal::invalid("the body is not of the form {\"query\": \"SELECT * FROM devices\"}")
        })?;
        Ok(Self { query, from: from.map(str::to_owned), most })
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Refusal> {
    let value = headers.get(name).map(HeaderValue::to_str).transpose();
    Ok(value.map_err(|_| Refusal::invalid(format!("{name} is not plain text")))?.map(str::trim))
}

/// Answers queries, a few at a time.
#[derive(Debug, Clone)]
pub(super) struct Desk {
    places: Arc<Semaphore>,
    /// How long a query waits for its turn.
    max_wait: Duration,
}

impl Desk {
    pub(super) fn new(places: NonZeroU32, max_wait: Duration) -> Self {
        Self { places: Arc::new(Semaphore::new(places.get() as usize)), max_wait }
    }

    /// Waits for a place.
    async fn place(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let place = timeout(self.max_wait, Arc::clone(&self.places).acquire_owned()).await;
        place.ok().and_then(Result::ok).ok_or_else(|| {
            Refusal::throttled(
                1,
                "too many queries at the same time (serve.max_concurrent_queries): try again",
            )
        })
    }

    /// Answers a query. The work runs in its own task. If the client disconnects, the caller is still charged for the page in progress, and
    /// nothing more is begun.
    ///
    /// # Errors
    /// There is no page.
    /// There is no page.
    pub(super) async fn answer(
        &self,
        queries: Queries,
        asked: Asked,
        hub: Option<HubName>,
        (caller, callers): (Caller, Callers),
    ) -> Result<(Response, ServedOutcome, usize), (Refusal, ServedOutcome)> {
        let place = self.place().await.map_err(|refusal| (refusal, ServedOutcome::Throttled))?;
        let waits = Waits(Arc::new(AtomicBool::new(true)));
        let client = Paying { caller, callers, waits: Arc::clone(&waits.0) };
        let work = tokio::spawn(async move {
            let _place = place;
            let Asked { query, from, most } = &asked;
            let ask = Ask { query, hub: hub.as_ref(), from: from.as_deref(), most: *most, client: &client };
            queries.answer(ask).await
        });
        match work.await {
            Ok(Charged { outcome: Ok(page), request_units }) => {
                let rows = page.rows.len();
                Ok((response(page, request_units), ServedOutcome::Ok, rows))
            }
            Ok(Charged { outcome: Err(failure), .. }) => Err(refusal(&failure)),
            // A panic, which was logged, or the end of the runtime.
            Err(_) => Err((
                Refusal::saying(500, "ServerError", "an unexpected error occurred"),
                ServedOutcome::Unavailable,
            )),
        }
    }
}

/// Dropping it tells the working task that the client has disconnected.
struct Waits(Arc<AtomicBool>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A caller, which is charged for its queries.
struct Paying {
    caller: Caller,
    callers: Callers,
    waits: Arc<AtomicBool>,
}

impl Client for Paying {
    fn paid(&self, request_units: f64) {
        self.callers.spend(&self.caller, request_units);
    }

    fn is_gone(&self) -> bool {
        !self.waits.load(Ordering::Acquire)
    }
}

fn response(page: queries::Answer, request_units: f64) -> Response {
    let queries::Answer { rows, item_type, next, passed_over, flagged } = page;
    let rows = match item_type {
        ItemType::Twin => rows.into_iter().map(twin::as_the_hub_shows).collect(),
        ItemType::Raw => rows,
    };
    let mut response = twin::json(&serde_json::Value::Array(rows));
    let some = |count: usize| (count > 0).then(|| count.to_string());
    for (name, value) in [
        ("x-ms-item-type", Some(item_type.name().to_owned())),
        // The last page has no such header: clients take an empty one for a further page.
        ("x-ms-continuation", next),
        ("x-ms-request-charge", Some(format!("{request_units:.2}"))),
        ("x-twinsync-passed-over", some(passed_over)),
        ("x-twinsync-flagged", some(flagged)),
    ] {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

fn refusal(failure: &Failure) -> (Refusal, ServedOutcome) {
    match failure {
        Failure::Query(_) | Failure::Continuation | Failure::Refused(_) => {
            (Refusal::invalid(failure.to_string()), ServedOutcome::Invalid)
        }
        Failure::TooExpensive(_) => (Refusal::invalid(failure.to_string()), ServedOutcome::TooExpensive),
        Failure::StoreError(trouble) => super::trouble(trouble),
        Failure::Gone => (Refusal::unavailable(1, failure.to_string()), ServedOutcome::Gone),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(headers: &[(&'static str, &str)], body: impl Into<Body>) -> Result<Asked, Refusal> {
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            all.insert(*name, value.parse().unwrap());
        }
        Asked::read(&all, body.into()).await
    }

    const BODY: &str = r#"{"query": "SELECT * FROM devices"}"#;

    #[tokio::test]
    async fn a_request_asks_for_a_page_of_a_size_that_may_be() {
        for (count, expected) in [(None, 100), (Some("-1"), 100), (Some("7"), 7), (Some("100000"), 1_000)] {
            let headers: Vec<_> = count.map(|count| ("x-ms-max-item-count", count)).into_iter().collect();
            let asked = read(&headers, BODY).await.unwrap();
            assert_eq!((asked.most.get(), asked.from.as_deref()), (expected, None), "{count:?}");
            assert_eq!(asked.query, "SELECT * FROM devices");
        }
        let asked = read(&[("x-ms-continuation", "abc")], BODY).await.unwrap();
        assert_eq!(asked.from.as_deref(), Some("abc"));
        // Clients send an empty header for the first page.
        assert_eq!(read(&[("x-ms-continuation", "")], BODY).await.unwrap().from, None);
    }

    #[tokio::test]
    async fn what_is_no_query_says_how_one_looks() {
        let long = "x".repeat(CONTINUATION_MAX + 1);
        let large = format!(r#"{{"query": "{}"}}"#, "x".repeat(BODY_MAX));
        for (headers, body, hint) in [
            (vec![], String::new(), "of the form"),
            (vec![], r#"{"query": 1}"#.to_owned(), "of the form"),
            (vec![], "SELECT * FROM devices".to_owned(), "of the form"),
            (vec![], large, "more than 65536 bytes"),
            (vec![("x-ms-max-item-count", "0")], BODY.to_owned(), "whole number of 1 or more"),
            (vec![("x-ms-max-item-count", "many")], BODY.to_owned(), "whole number of 1 or more"),
            (vec![("x-ms-continuation", &*long)], BODY.to_owned(), "begin with the first page"),
        ] {
            let refusal = read(&headers, body).await.unwrap_err();
            assert!(refusal.status == 400 && refusal.message.contains(hint), "{}", refusal.message);
        }
    }
}
