//! The API over HTTP, in front of a store in memory.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, task::JoinHandle};

use super::{
    access::{Access, Denied, Settings, entra, sas::Policy},
    *,
};
use crate::{
    config::Secret,
    domain::{
        document::{Document, Flag, State},
        id::HubName,
        query::Root,
        testing::document,
    },
    ports::{Charged, Cursor as Continuation, Documents, Filter, SelectError, Selected, TwinSelection},
    runtime::{
        budgeted_store::BudgetedStore,
        documents::document_cache,
        memory_store::MemoryStore,
        queries::{Limits, Queries},
        request_unit_budget::RequestUnitBudget,
        twins::{Access as TwinsAccess, Twins},
    },
    telemetry::Metrics,
};

/// A signature of Python's client (`access/sas/tests.rs`), valid until 2030.
const SIGNED: &str = "SharedAccessSignature sr=twins.contoso.example&sig=B3bIey8VXbfLsvzyHqV%2BQgPOgmhJaYbUMlBKa4O8BDE%3D&se=1900000000&skn=service";
const KEY: &str = "BwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAhIiMkJSY=";
const VERSION: &str = "api-version=2021-04-12";
const HOST: &str = "contoso.azure-devices.net";

/// All documents of a store in memory, on one page.
struct All {
    store: Arc<MemoryStore>,
    /// Each page takes one of these.
    pages: Semaphore,
    began: AtomicUsize,
}

#[async_trait]
impl TwinSelection for All {
    async fn select(
        &self,
        _: &Filter,
        from: Option<&Continuation>,
        _: NonZeroU32,
    ) -> Charged<Result<Selected<Documents>, SelectError>> {
        self.began.fetch_add(1, Ordering::SeqCst);
        self.pages.acquire().await.expect("open").forget();
        let documents = self.store.documents.lock().unwrap();
        let readable = documents.values().map(|(document, _)| document.clone()).collect();
        let content = Documents { readable, damaged: Vec::new() };
        // Two pages, to see whether the second one is begun.
        let next = from.is_none().then(|| Continuation("second".to_owned()));
        Charged { outcome: Ok(Selected { content, next }), request_units: 3.0 }
    }

    async fn count(
        &self,
        _: &Filter,
        _: Option<&Continuation>,
    ) -> Charged<Result<Selected<u64>, SelectError>> {
        let content = self.store.documents.lock().unwrap().len() as u64;
        Charged { outcome: Ok(Selected { content, next: None }), request_units: 2.5 }
    }
}

struct Bench {
    base: String,
    api: Api,
    callers: Callers,
    lag: Lag,
    twins: Twins,
    metrics: Metrics,
    store: Arc<MemoryStore>,
    selection: Arc<All>,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

struct Got {
    status: StatusCode,
    headers: reqwest::header::HeaderMap,
    body: String,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// Code and message of an error in IoT Hub's form.
    fn error(&self) -> (u16, String, String) {
        let message = self.json()["Message"].as_str().expect("a message").to_owned();
        let (code, message) =
            message.strip_prefix("ErrorCode:").and_then(|rest| rest.split_once(';')).unwrap();
        assert_eq!(self.header("iothub-errorcode"), Some(code));
        let id = self.header("x-ms-request-id").unwrap();
        assert!(self.json()["ExceptionMessage"].as_str().unwrap().contains(id));
        (self.status.as_u16(), code.to_owned(), message.to_owned())
    }
}

impl Bench {
    async fn start(request_units_per_second: Option<f64>) -> Self {
        let metrics = Metrics::new().unwrap();
        let served = ServeMetrics::new(&metrics, Denied::ALL.map(Denied::label));
        let policy =
            Policy { name: "service".to_owned(), primary_key: Secret::new(KEY), secondary_key: None };
        let settings = Settings {
            hosts: vec!["twins.contoso.example".to_owned()],
            policies: vec![policy],
            ..Settings::default()
        };
        let access = Access::new(&settings, Arc::new(entra::Http::new().unwrap()), Arc::new(|_| {}));
        let stop = CancellationToken::new();
        let twins = Twins::new(vec![HubName::new("h")], metrics.clone(), stop.clone());
        let (callers, lag) = (Callers::new(request_units_per_second), Lag::default());
        let api = Api::new(Parts {
            access: Arc::new(access.unwrap()),
            twins: twins.clone(),
            callers: callers.clone(),
            lag: lag.clone(),
            metrics: served.clone(),
            hub: Some(HubName::new("h")),
            hub_host: Some(HOST.to_owned()),
            most_queries: NonZeroU32::MIN,
            max_wait: Duration::from_millis(50),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let server = {
            let (api, stop) = (api.clone(), stop.clone());
            tokio::spawn(async move { serve(listener, None, &api, served, stop).await })
        };
        let store: Arc<MemoryStore> = Arc::default();
        let selection =
            All { store: Arc::clone(&store), pages: Semaphore::new(1_000), began: AtomicUsize::new(0) };
        let selection = Arc::new(selection);
        Self { base, api, callers, lag, twins, metrics, store, selection, stop, server }
    }

    /// A server with a connected store, and a twin of version 7.
    async fn open(request_units_per_second: Option<f64>) -> Self {
        let bench = Self::start(request_units_per_second).await;
        let budget = RequestUnitBudget::new(None);
        let metrics = bench.metrics.clone();
        let budgeted_store = BudgetedStore {
            store: Arc::clone(&bench.store) as _,
            budget: budget.clone(),
            metrics: metrics.clone(),
        };
        bench.twins.open(TwinsAccess {
            budgeted_store,
            documents: document_cache(0),
            registries: BTreeMap::new(),
            hub_limit: Duration::from_secs(1),
        });
        bench.api.open(Queries {
            selection: Arc::clone(&bench.selection) as Arc<dyn TwinSelection>,
            budget,
            metrics,
            limits: Limits { request_units: 1e6, time: Duration::from_secs(5), held: 10 },
            place: Root::place_kept_by_events,
        });
        bench.write(document(7), 1);
        bench
    }

    fn write(&self, document: Document, etag: u64) {
        self.store.documents.lock().unwrap().insert(document.key.clone(), (document, etag));
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Got {
        let answer = request.send().await.expect("an answer");
        let (status, headers) = (answer.status(), answer.headers().clone());
        Got { status, headers, body: answer.text().await.expect("a body") }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = reqwest::Client::new().request(method, format!("{}{path}", self.base));
        request.header("authorization", SIGNED)
    }

    async fn get(&self, path: &str) -> Got {
        self.send(self.request(Method::GET, path)).await
    }

    fn asking(&self, query: &str) -> reqwest::RequestBuilder {
        let request = self.request(Method::POST, &format!("/devices/query?{VERSION}"));
        request.json(&json!({ "query": query }))
    }

    async fn ask(&self, query: &str) -> Got {
        self.send(self.asking(query)).await
    }

    fn has(&self, line: &str) {
        let text = self.metrics.render();
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }

    async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let waited = async {
            while !condition() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), waited)
            .await
            .unwrap_or_else(|_| panic!("never: {what}"));
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(10), self.server).await.expect("stops").unwrap();
    }
}

#[tokio::test]
async fn every_request_without_authorization_gets_401() {
    let bench = Bench::open(None).await;
    bench.lag.found(MeasuredLag { events: 3, at_least: None });
    let wrong = SIGNED.replace("B3bI", "B3bJ");
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/twins/d?api-version=2021-04-12"),
        ("GET", "/twins/none"),
        ("PATCH", "/twins/d"),
        ("POST", "/devices/query"),
        ("GET", "/metrics"),
    ] {
        for authorization in [None, Some(&*wrong)] {
            let url = format!("{}{path}", bench.base);
            let mut request = reqwest::Client::new().request(method.parse().unwrap(), url);
            if let Some(value) = authorization {
                request = request.header("authorization", value);
            }
            let got = bench.send(request).await;
            let expected = (401, "IotHubUnauthorizedAccess".to_owned(), "Unauthorized".to_owned());
            assert_eq!(got.error(), expected, "{method} {path}");
            assert!(
                got.headers.keys().all(|name| !name.as_str().starts_with("x-twinsync")),
                "{:?}",
                got.headers
            );
        }
    }
    bench.has("twinsync_serve_unauthorized_total{reason=\"missing\"} 6");
    bench.has("twinsync_serve_unauthorized_total{reason=\"wrong_signature\"} 6");
    bench.has("twinsync_serve_requests_total{operation=\"twin\",outcome=\"ok\"} 0");
    bench.stop().await;
}

#[tokio::test]
async fn until_the_store_is_connected_everything_passes() {
    let bench = Bench::start(None).await;
    for got in [bench.get(&format!("/twins/d?{VERSION}")).await, bench.ask("SELECT * FROM devices").await] {
        let (status, code, message) = got.error();
        assert_eq!((status, &*code), (503, "ServiceUnavailable"), "{message}");
        assert!(message.contains("starting"), "{message}");
        assert_eq!(got.header("retry-after"), Some("1"));
    }
    bench.has("twinsync_serve_requests_total{operation=\"query\",outcome=\"unavailable\"} 1");
    bench.stop().await;
}

#[tokio::test]
async fn a_twin_says_how_fresh_it_is_and_is_not_sent_again_to_who_has_it() {
    let bench = Bench::open(None).await;
    let path = format!("/twins/d?{VERSION}");
    let got = bench.get(&path).await;
    assert_eq!((got.status, got.json()["version"].as_i64()), (StatusCode::OK, Some(7)));
    assert_eq!(got.json()["deviceId"], "d");
    assert_eq!(got.header("x-twinsync-version"), Some("7"));
    assert_eq!(got.header("x-twinsync-state"), Some("live"));
    assert_eq!((got.header("x-twinsync-flags"), got.header("x-twinsync-lag-events")), (None, None));
    let etag = got.header("etag").expect("an ETag").to_owned();

    let again = bench.request(Method::GET, &path).header("if-none-match", &etag);
    let got = bench.send(again).await;
    assert_eq!((got.status, &*got.body), (StatusCode::NOT_MODIFIED, ""));
    assert_eq!(got.header("x-twinsync-version"), Some("7"));

    bench.lag.found(MeasuredLag { events: 3, at_least: Some(Duration::from_secs(2)) });
    bench.write(Document { flags: [Flag::Gap].into(), ..document(8) }, 2);
    let again = bench.request(Method::GET, &path).header("if-none-match", &etag);
    let got = bench.send(again).await;
    assert_eq!((got.status, got.json()["version"].as_i64()), (StatusCode::OK, Some(8)));
    assert_eq!(got.header("x-twinsync-flags"), Some("gap"));
    assert_eq!(got.header("x-twinsync-lag-events"), Some("3"));
    assert_eq!(got.header("x-twinsync-lag-seconds"), Some("2"));

    let (status, _, message) = bench.get(&format!("/devices/d?{VERSION}")).await.error();
    assert_eq!(status, 501, "the copy does not know whether the device is enabled");
    assert!(message.contains("ask the IoT hub itself"), "{message}");
    let mut known = document(9);
    if let State::Live { twin, .. } = &mut known.state {
        twin.root.insert("status".to_owned(), json!("disabled"));
    }
    bench.write(known, 3);
    let identity = bench.get(&format!("/devices/d?{VERSION}")).await;
    assert_eq!(
        (identity.status, identity.json()),
        (StatusCode::OK, json!({"deviceId": "d", "status": "disabled"}))
    );
    bench.has("twinsync_serve_requests_total{operation=\"twin\",outcome=\"ok\"} 2");
    bench.has("twinsync_serve_requests_total{operation=\"twin\",outcome=\"not_modified\"} 1");
    bench.has("twinsync_serve_requests_total{operation=\"device\",outcome=\"ok\"} 1");
    bench.stop().await;
}

#[tokio::test]
async fn a_version_is_waited_for_and_what_is_there_instead_is_told() {
    let bench = Bench::open(None).await;
    let late = bench.get(&format!("/twins/d?{VERSION}&min_version=8&wait=0s")).await;
    let (status, code, message) = late.error();
    assert_eq!((status, &*code), (504, "GatewayTimeout"));
    assert!(message.contains("version 7"), "{message}");
    assert_eq!(late.header("x-twinsync-version"), Some("7"));

    let waiting = bench.request(Method::GET, &format!("/twins/d?{VERSION}"));
    let waiting = bench.send(waiting.header("x-twinsync-min-version", "8").header("x-twinsync-wait", "10s"));
    let write = async {
        bench.until("it waits", || bench.metrics.render().contains("twinsync_twin_waiters 1")).await;
        bench.write(document(8), 2);
    };
    let (got, ()) = tokio::join!(waiting, write);
    assert_eq!((got.status, got.json()["version"].as_i64()), (StatusCode::OK, Some(8)));
    bench.stop().await;
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_done_here_are_told_in_the_form_of_the_hub() {
    let bench = Bench::open(None).await;
    for (method, path, status, code) in [
        (Method::GET, format!("/twins/none?{VERSION}"), 404, "DeviceNotFound"),
        (Method::GET, format!("/twins/d/modules/none?{VERSION}"), 404, "ModuleNotFound"),
        (Method::GET, format!("/devices/none?{VERSION}"), 404, "DeviceNotFound"),
        (Method::GET, "/twins/d".to_owned(), 400, "InvalidProtocolVersion"),
        (Method::GET, format!("/twins/d?{VERSION}&min_version=x"), 400, "ArgumentInvalid"),
        (Method::PATCH, format!("/twins/d?{VERSION}"), 405, "MethodNotAllowed"),
        (Method::POST, format!("/twins/d/methods?{VERSION}"), 501, "NotImplemented"),
        (Method::GET, format!("/jobs/v2/query?{VERSION}"), 501, "NotImplemented"),
        (Method::GET, "/".to_owned(), 404, "ResourceNotFound"),
    ] {
        let got = bench.send(bench.request(method.clone(), &path)).await;
        let (found, found_code, message) = got.error();
        assert_eq!((found, &*found_code), (status, code), "{method} {path}: {message}");
        if [405, 501].contains(&status) {
            assert!(message.contains(HOST), "the hub's address is missing: {message}");
        }
    }
    bench.has("twinsync_serve_requests_total{operation=\"other\",outcome=\"unsupported\"} 4");
    bench.stop().await;
}

#[tokio::test]
async fn queries_give_pages_with_what_they_cost_and_errors_with_their_place() {
    let bench = Bench::open(None).await;
    bench.write(Document { flags: [Flag::Gap].into(), ..document(7) }, 2);
    let got = bench.ask("SELECT deviceId, version FROM devices").await;
    assert_eq!(got.status, StatusCode::OK, "{}", got.body);
    let row = json!({"deviceId": "d", "version": 7});
    assert_eq!(got.json(), json!([row, row]), "two pages of the store must be joined");
    assert_eq!((got.header("x-ms-item-type"), got.header("x-ms-continuation")), (Some("raw"), None));
    assert_eq!(got.header("x-ms-request-charge"), Some("6.00"));
    assert_eq!(got.header("x-twinsync-flagged"), Some("2"));

    let first = bench.send(bench.asking("SELECT * FROM devices").header("x-ms-max-item-count", "1")).await;
    assert_eq!(
        (first.header("x-ms-item-type"), first.json()[0]["version"].as_i64()),
        (Some("twin"), Some(7))
    );
    let next = first.header("x-ms-continuation").expect("another page").to_owned();
    let second = bench.asking("SELECT * FROM devices").header("x-ms-continuation", &next);
    let second = bench.send(second).await;
    assert_eq!(second.header("x-ms-continuation"), None, "{:?}", second.headers);

    assert_eq!(bench.ask("SELECT COUNT() AS n FROM devices").await.json(), json!([{"n": 1}]));
    for (query, hint) in [
        ("SELECT * FORM devices", "at character 9"),
        ("SELECT * FROM devices.jobs", "jobs"),
        ("SELECT * FROM devices WHERE capabilities.iotEdge = true", "capabilities is not in any event"),
        ("SELECT * FROM devices WHERE connectionState = 'Connected'", "connectionState is not in any event"),
    ] {
        let (status, code, message) = bench.ask(query).await.error();
        assert_eq!((status, &*code), (400, "ArgumentInvalid"), "{query}");
        assert!(message.contains(hint), "{query}: {message}");
    }
    bench.has("twinsync_serve_rows_total 5");
    bench.has("twinsync_serve_requests_total{operation=\"query\",outcome=\"invalid\"} 4");
    bench.stop().await;
}

#[tokio::test]
async fn who_has_spent_what_it_may_is_told_when_to_come_again() {
    let bench = Bench::open(Some(2.0)).await;
    assert_eq!(bench.ask("SELECT * FROM devices").await.status, StatusCode::OK);
    for got in [bench.ask("SELECT * FROM devices").await, bench.get(&format!("/twins/d?{VERSION}")).await] {
        let (status, code, message) = got.error();
        assert_eq!((status, &*code), (429, "ThrottlingException"));
        assert!(message.contains("serve.max_request_units_per_second"), "{message}");
        let seconds: u64 = got.header("retry-after").expect("a retry-after header").parse().unwrap();
        assert!((1..=2).contains(&seconds), "{seconds}");
    }
    bench.has("twinsync_serve_requests_total{operation=\"query\",outcome=\"throttled\"} 1");
    bench.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_away_before_its_twin_comes_pays_for_the_read() {
    let bench = Bench::open(Some(0.5)).await;
    let path = format!("/twins/d?{VERSION}&min_version=99&wait=30s");
    let asked = tokio::spawn(bench.request(Method::GET, &path).send());
    bench.until("it is looked for", || *bench.store.reads.lock().unwrap() >= 1).await;
    let caller = access::Caller { name: "service".into(), kind: access::Kind::Policy };
    assert!(bench.callers.admit(&caller).is_ok(), "no request units may be spent yet");
    asked.abort();
    bench.until("it has paid", || bench.callers.admit(&caller).is_err()).await;
    bench.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_away_pays_for_the_page_under_way_and_nothing_more_is_begun() {
    let bench = Bench::open(Some(1.0)).await;
    bench.selection.pages.forget_permits(1_000);
    let asked = tokio::spawn(bench.asking("SELECT * FROM devices").send());
    bench.until("a page is under way", || bench.selection.began.load(Ordering::SeqCst) == 1).await;
    // There is only one place for queries.
    let (status, _, message) = bench.ask("SELECT * FROM devices").await.error();
    assert_eq!(status, 429);
    assert!(message.contains("serve.max_concurrent_queries"), "{message}");
    asked.abort();
    let gone = "twinsync_serve_requests_total{operation=\"query\",outcome=\"gone\"} 1";
    bench.until("it is gone", || bench.metrics.render().contains(gone)).await;
    bench.selection.pages.add_permits(10);
    let caller = access::Caller { name: "service".into(), kind: access::Kind::Policy };
    bench.until("it has paid", || bench.callers.admit(&caller).is_err()).await;
    assert_eq!(bench.selection.began.load(Ordering::SeqCst), 1);
    bench.stop().await;
}
