//! Requests over sockets, with a store in memory.

use std::{collections::BTreeMap, io, time::Duration};

use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    config::Secret,
    domain::{
        document::{Document, ETag},
        testing::document,
    },
    http::{BearerAuth, CONNECTIONS, bind, serve},
    runtime::{
        budgeted_store::BudgetedStore,
        documents::{DocumentCache, document_cache},
        memory_store::MemoryStore,
        request_unit_budget::RequestUnitBudget,
        twins::{Access, Twins},
    },
    status::{About, Observer},
    telemetry::{HealthState, Metrics},
};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

struct Server {
    base: String,
    client: Client,
    metrics: Metrics,
    twins: Twins,
    store: Arc<MemoryStore>,
    documents: DocumentCache,
    stop: CancellationToken,
    served: CancellationToken,
    task: JoinHandle<io::Result<()>>,
}

impl Server {
    /// A server that is not connected to its store.
    async fn starting(token: Option<&str>) -> Self {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (health, metrics) = (HealthState::new(), Metrics::new().unwrap());
        let observer = Observer::new(health.clone(), metrics.clone(), About::default());
        let (stop, served) = (CancellationToken::new(), CancellationToken::new());
        let twins = Twins::new(vec!["h".into()], metrics.clone(), stop.clone());
        let bearer_auth = BearerAuth::new(token.map(Secret::new).as_ref());
        let state = crate::http::State {
            health,
            metrics: metrics.clone(),
            observer,
            bearer_auth,
            twins: twins.clone(),
        };
        let task = tokio::spawn(serve(listener, state, Duration::from_secs(5), served.clone()));
        let (store, documents) = (Arc::default(), document_cache(1 << 20));
        Self { base, client: Client::new(), metrics, twins, store, documents, stop, served, task }
    }

    async fn start() -> Self {
        let server = Self::starting(Some(TOKEN)).await;
        let budgeted_store = BudgetedStore {
            store: Arc::clone(&server.store) as _,
            budget: RequestUnitBudget::new(None),
            metrics: server.metrics.clone(),
        };
        let (documents, registries) = (server.documents.clone(), BTreeMap::new());
        server.twins.open(Access {
            budgeted_store,
            documents,
            registries,
            hub_limit: Duration::from_secs(1),
        });
        server
    }

    fn write(&self, document: Document) {
        let key = document.key.clone();
        self.store.documents.lock().unwrap().insert(key.clone(), (document.clone(), 1));
        self.documents.insert(key, (Arc::new(document), ETag("1".into())));
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    /// Sends a request with the token.
    async fn get(&self, path: &str) -> (u16, Value) {
        let response = self.request(Method::GET, path).bearer_auth(TOKEN).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    fn shows(&self, line: &str) -> bool {
        self.metrics.render().lines().any(|found| found == line)
    }

    async fn until(&self, line: &str) {
        let shown = async {
            while !self.shows(line) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(20), shown).await;
        in_time.unwrap_or_else(|_| panic!("never: {line}\n{}", self.metrics.render()));
    }

    async fn stop(self) {
        self.served.cancel();
        tokio::time::timeout(Duration::from_secs(10), self.task).await.expect("stops").unwrap().unwrap();
    }
}

#[tokio::test]
async fn twins_are_shown_to_whoever_shows_the_token_in_its_header() {
    let server = Server::start().await;
    server.write(document(7));
    let paths = [
        "/api/twins/d",
        "/api/twins/d/modules/m",
        "/api/twins?device=d",
        "/api/twins/d?min_version=9&wait=30s",
    ];
    for path in paths {
        let get = || server.request(Method::GET, path);
        let in_url = format!("{path}{}token={TOKEN}", if path.contains('?') { '&' } else { '?' });
        for (request, hint) in [
            (get(), "Authorization: Bearer TOKEN"),
            (get().header("Cookie", format!("token={TOKEN}")), "Authorization: Bearer TOKEN"),
            (get().basic_auth("me", Some(TOKEN)), "Authorization: Bearer TOKEN"),
            (get().bearer_auth(&TOKEN[1..]), "is not that of http.token"),
            (server.request(Method::HEAD, path), ""),
            (server.request(Method::GET, &in_url), "Authorization: Bearer TOKEN"),
        ] {
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path}");
            assert_eq!(response.headers()["www-authenticate"], "Bearer");
            assert_eq!(response.headers()["cache-control"], "no-store");
            let body = response.text().await.unwrap();
            assert!(body.contains(hint) && !body.contains(TOKEN), "{body}");
        }
    }
    assert!(server.shows("twinsync_twin_reads_unauthorized_total{reason=\"no_token\"} 20"));
    assert!(server.shows("twinsync_twin_reads_unauthorized_total{reason=\"wrong_token\"} 4"));
    assert!(server.shows("twinsync_twin_reads_total{outcome=\"found\"} 0"), "no twin may be read");
    let (status, body) = server.get("/api/twins/d").await;
    assert_eq!((status, &body["version"]), (200, &json!(7)), "{body}");
    server.stop().await;
}

#[tokio::test]
async fn without_a_token_in_the_configuration_nobody_reads_and_is_told_how_to() {
    let server = Server::starting(None).await;
    for request in [
        server.request(Method::GET, "/api/twins/d"),
        server.request(Method::GET, "/api/twins/d").bearer_auth(TOKEN),
        server.request(Method::GET, "/api/twins/d").bearer_auth(""),
    ] {
        let response = request.send().await.unwrap();
        assert_eq!(
            response.status(),
            StatusCode::FORBIDDEN,
            "the status must differ from that of a missing twin"
        );
        let body: Value = response.json().await.unwrap();
        assert!(body["error"].as_str().unwrap().contains("set http.token or http.token_file"), "{body}");
    }
    assert!(
        server.shows("twinsync_twin_reads_unauthorized_total{reason=\"wrong_token\"} 0"),
        "these requests are no guesses of a token"
    );
    server.stop().await;
}

#[tokio::test]
async fn head_is_answered_like_get_and_nothing_else_is() {
    let server = Server::start().await;
    server.write(document(7));
    for path in ["/api/twins/d", "/api/twins/x", "/api/twins/d?wait=x"] {
        let get = server.request(Method::GET, path).bearer_auth(TOKEN).send().await.unwrap();
        let head = server.request(Method::HEAD, path).bearer_auth(TOKEN).send().await.unwrap();
        assert_eq!(head.status(), get.status(), "{path}");
        assert_eq!(head.headers().get("content-type"), get.headers().get("content-type"));
        assert_eq!(head.text().await.unwrap(), "");
    }
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
        let response = server.request(method, "/api/twins/d").bearer_auth(TOKEN).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
    server.stop().await;
}

#[tokio::test]
async fn every_answer_about_a_twin_has_the_same_fields() {
    let server = Server::start().await;
    server.write(document(7));
    let fields = |body: &Value| body.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let (status, found) = server.get("/api/twins/d").await;
    assert_eq!(status, 200);
    assert_eq!(
        (
            &found["schema"],
            &found["hub"],
            &found["device"],
            &found["module"],
            &found["state"],
            &found["etag"]
        ),
        (&json!(1), &json!("h"), &json!("d"), &Value::Null, &json!("present"), &json!("1"))
    );
    assert_eq!(found["document"]["sync"]["state"], "live", "the document must be as stored: {found}");
    assert_eq!(found["sync"]["flagged"], false);
    for (path, status, state, hint) in [
        ("/api/twins/x", 404, "absent", "no such twin"),
        ("/api/twins/d?min_version=8&wait=0s", 504, "present", "did not reach"),
        ("/api/twins/x?min_version=1&wait=0s", 504, "absent", "no such twin yet"),
    ] {
        let (found_status, body) = server.get(path).await;
        assert_eq!((found_status, &body["state"]), (status, &json!(state)), "{body}");
        assert!(body["error"].as_str().unwrap().contains(hint), "{body}");
        assert_eq!(fields(&body), fields(&found), "{path}");
    }
    *server.store.away.lock().unwrap() = true;
    let response = server.request(Method::GET, "/api/twins/d").bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "1");
    let body: Value = response.json().await.unwrap();
    assert_eq!((&body["state"], fields(&body)), (&json!("unknown"), fields(&found)));
    assert!(body["error"].as_str().unwrap().contains("scripted"), "the store's reason is missing: {body}");
    server.stop().await;
}

#[tokio::test]
async fn ids_reach_the_store_as_they_are() {
    let server = Server::start().await;
    let odd = "a+b:c%d_e#f*g?h!i(j),k=l@m$n'o";
    let encoded = "a+b:c%25d_e%23f*g%3Fh!i(j),k=l@m$n'o";
    for id in [odd, "..", "%2F", "<script>alert(1)</script>"] {
        let key = crate::domain::id::TwinKey::module("h", id, id);
        server.write(Document { key, ..document(3) });
    }
    let (status, body) = server.get(&format!("/api/twins/{encoded}/modules/{encoded}")).await;
    assert_eq!((status, &body["device"], &body["module"]), (200, &json!(odd), &json!(odd)), "{body}");
    let (status, body) = server.get("/api/twins?device=%2E%2E&module=..").await;
    assert_eq!((status, &body["device"]), (200, &json!("..")), "{body}");
    let (status, body) = server.get("/api/twins/%252F/modules/%252F").await;
    assert_eq!((status, &body["device"]), (200, &json!("%2F")), "the id must be decoded once: {body}");
    let script = "/api/twins/%3Cscript%3Ealert(1)%3C%2Fscript%3E/modules/%3Cscript%3Ealert(1)%3C%2Fscript%3E";
    let response = server.request(Method::GET, script).bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(
        (response.status(), &response.headers()["content-type"]),
        (StatusCode::OK, &HeaderValue::from_static("application/json"))
    );
    for path in ["/api/twins/%FF", "/api/twins/a/modules/%FF"] {
        let (status, body) = server.get(path).await;
        assert_eq!(status, 400);
        assert!(body["error"].as_str().unwrap().contains("UTF-8"), "{body}");
    }
    assert!(server.shows("twinsync_twin_reads_total{outcome=\"invalid\"} 2"));
    server.stop().await;
}

#[tokio::test]
async fn before_the_store_is_connected_it_says_so() {
    let server = Server::starting(Some(TOKEN)).await;
    for path in ["/api/twins/d", "/api/twins/d?min_version=1&wait=30s"] {
        let response = server.request(Method::GET, path).bearer_auth(TOKEN).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()["retry-after"], "1");
        let body: Value = response.json().await.unwrap();
        assert!(body["error"].as_str().unwrap().starts_with("starting"), "{body}");
    }
    server.stop().await;
}

/// Requests that wait, each on its own connection.
async fn waiters(server: &Server, number: usize) -> Vec<JoinHandle<u16>> {
    let waiting = (0..number).map(|_| {
        let request = server.request(Method::GET, "/api/twins/d?min_version=2&wait=30s").bearer_auth(TOKEN);
        tokio::spawn(async move { request.send().await.unwrap().status().as_u16() })
    });
    let waiting = waiting.collect();
    server.until(&format!("twinsync_twin_waiters {number}")).await;
    waiting
}

#[tokio::test]
async fn waiting_requests_displace_no_probe_and_are_not_displaced() {
    let server = Server::start().await;
    let waiting = waiters(&server, MOST_WAITERS).await;
    let address = server.base.trim_start_matches("http://").to_owned();
    let mut half_sent = Vec::new();
    for _ in 0..CONNECTIONS * 2 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").await.unwrap();
        half_sent.push(stream);
        let probe =
            tokio::time::timeout(Duration::from_secs(2), reqwest::get(format!("{}/livez", server.base)));
        assert_eq!(probe.await.expect("in time").unwrap().status(), StatusCode::OK);
    }
    let response =
        server.request(Method::GET, "/api/twins/d?min_version=2").bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(
        response.status(),
        StatusCode::SERVICE_UNAVAILABLE,
        "the number of waiting requests is limited"
    );
    assert_eq!(response.headers()["retry-after"], "1");
    assert!(server.shows(&format!("twinsync_twin_waiters {MOST_WAITERS}")), "all of them must still wait");
    server.write(document(2));
    for waiter in waiting {
        assert_eq!(waiter.await.unwrap(), 200);
    }
    assert!(server.shows("twinsync_twin_waiters 0"));
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing_behind() {
    let server = Server::start().await;
    for waiter in waiters(&server, 8).await {
        waiter.abort();
    }
    server.until("twinsync_twin_waiters 0").await;
    server.until("twinsync_twin_reads_total{outcome=\"gone\"} 8").await;
    // Their places can be taken again.
    let waiting = waiters(&server, MOST_WAITERS).await;
    server.write(document(2));
    for waiter in waiting {
        assert_eq!(waiter.await.unwrap(), 200);
    }
    server.stop().await;
}

#[tokio::test]
async fn the_end_of_the_process_answers_those_who_wait() {
    let server = Server::start().await;
    let waiting = waiters(&server, 3).await;
    server.stop.cancel();
    for waiter in waiting {
        assert_eq!(waiter.await.unwrap(), 503);
    }
    server.stop().await;
}

#[tokio::test]
async fn the_page_about_a_twin_is_the_same_for_all_and_holds_none() {
    let server = Server::start().await;
    server.write(document(7));
    let mut pages = Vec::new();
    for path in ["/twins", "/twins/d", "/twins/d/modules/m", "/twins/%3Cscript%3E", "/twins?device=%2E%2E"] {
        let response = server.request(Method::GET, path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let policy = response.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert!(!response.headers().contains_key("set-cookie"));
        pages.push(response.text().await.unwrap());
    }
    assert!(pages.windows(2).all(|pair| pair[0] == pair[1]), "the page must not depend on the id");
    for (path, kind) in
        [("/twin.css", "text/css"), ("/twin.js", "text/javascript"), ("/page.css", "text/css")]
    {
        assert!(pages[0].contains(path), "{path}");
        let response = server.request(Method::GET, path).send().await.unwrap();
        assert!(response.headers()["content-type"].to_str().unwrap().starts_with(kind), "{path}");
    }
    for elsewhere in ["http://", "https://", "style=", "onclick"] {
        assert!(!pages[0].contains(elsewhere), "{elsewhere}");
    }
    let script = server.request(Method::GET, "/twin.js").send().await.unwrap().text().await.unwrap();
    for unsafe_way in [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "localStorage.",
        "document.cookie",
        "eval(",
    ] {
        assert!(!script.contains(unsafe_way), "{unsafe_way}");
    }
    assert!(server.shows("twinsync_twin_reads_unauthorized_total{reason=\"no_token\"} 0"));
    server.stop().await;
}
