use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, task::JoinHandle};

use super::*;
use crate::domain::{
    health::{PartitionState, Phase, StoreState},
    id::PartitionId,
};

/// `http.idle_timeout` of tests that are not about it.
const IDLE: Duration = Duration::from_secs(5);

struct Server {
    base: String,
    state: State,
    shutdown: CancellationToken,
    task: JoinHandle<io::Result<()>>,
}

impl Server {
    async fn start() -> Self {
        Self::with_idle_timeout(IDLE).await
    }

    async fn with_idle_timeout(idle: Duration) -> Self {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (health, metrics) = (HealthState::new(), Metrics::new().unwrap());
        let observer = Observer::new(health.clone(), metrics.clone(), crate::status::About::default());
        let twins = Twins::new(Vec::new(), metrics.clone(), CancellationToken::new());
        let state = State { health, metrics, observer, bearer_auth: BearerAuth::new(None), twins };
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(serve(listener, state.clone(), idle, shutdown.clone()));
        Self { base, state, shutdown, task }
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let response = reqwest::get(format!("{}{path}", self.base)).await.unwrap();
        (response.status(), response.json().await.unwrap())
    }

    async fn stop(self) {
        self.shutdown.cancel();
        let stopped = tokio::time::timeout(Duration::from_secs(10), self.task).await;
        stopped.expect("stops").unwrap().unwrap();
    }
}

#[tokio::test]
async fn readiness_follows_the_health_state_and_says_why_not() {
    let server = Server::start().await;
    let (status, body) = server.get("/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body, json!({"status": "not ready", "reasons": ["starting"]}));
    let partition = PartitionId { stream: "twins".into(), partition: "0".into() };
    server.state.health.set_phase(Phase::Running);
    server.state.health.set_store(StoreState::Reachable);
    server.state.health.set_partition(&partition, PartitionState::Receiving);
    assert_eq!(server.get("/readyz").await, (StatusCode::OK, json!({"status": "ready", "reasons": []})));
    server.stop().await;
}

#[tokio::test]
async fn liveness_is_lost_when_a_loop_stands_still() {
    let server = Server::start().await;
    assert_eq!(server.get("/livez").await.0, StatusCode::OK);
    let _stuck = server.state.health.heartbeat("lanes", Duration::ZERO);
    let stalled = async {
        loop {
            let (status, body) = server.get("/livez").await;
            if status == StatusCode::SERVICE_UNAVAILABLE {
                return body;
            }
        }
    };
    let body = tokio::time::timeout(Duration::from_secs(10), stalled).await.expect("notices");
    assert_eq!(body["status"], "stalled");
    assert!(body["reasons"][0].as_str().unwrap().contains("loop lanes"), "{body}");
    server.stop().await;
}

#[tokio::test]
async fn metrics_and_version_are_served() {
    let server = Server::start().await;
    server.state.metrics.event_ignored("telemetry");
    let response = reqwest::get(format!("{}/metrics", server.base)).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = response.text().await.unwrap();
    assert!(text.contains("twinsync_events_ignored_total{reason=\"telemetry\"} 1"), "{text}");
    let (status, body) = server.get("/version").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(body["version"], env!("CARGO_PKG_VERSION"));
    server.stop().await;
}

#[tokio::test]
async fn everything_else_is_refused_as_json() {
    let server = Server::start().await;
    let (status, body) = server.get("/nope").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(body["error"].as_str().unwrap().contains("/readyz"), "{body}");
    let response = reqwest::Client::new().post(format!("{}/livez", server.base)).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert!(response.json::<Value>().await.unwrap()["error"].is_string());
    server.stop().await;
}

#[tokio::test]
async fn a_port_in_use_is_a_clear_error() {
    let taken = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = taken.local_addr().unwrap();
    let message = bind(address).await.expect_err("in use").to_string();
    assert_eq!(
        message,
        format!(
            "cannot listen on {address} for http.listen: another process uses it; stop that process or choose \
             another port (HTTP_ADDRESS_UNUSABLE)"
        )
    );
}

#[test]
fn the_error_code_has_a_page() {
    let page = format!("{}/docs/errors/{}.md", env!("CARGO_MANIFEST_DIR"), Error::CODE);
    assert!(std::path::Path::new(&page).exists(), "{page}");
}

#[tokio::test]
async fn a_client_that_never_finishes_does_not_hold_up_the_exit() {
    let server = Server::start().await;
    let address = server.base.strip_prefix("http://").unwrap();
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n").await.unwrap();
    // Answered requests show that the connection before them was accepted.
    server.get("/livez").await;
    server.stop().await;
}

#[tokio::test]
async fn half_sent_requests_take_no_room_from_others() {
    let server = Server::start().await;
    let address = server.base.trim_start_matches("http://").to_owned();
    let mut half_sent = Vec::new();
    for _ in 0..CONNECTIONS * 3 {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").await.unwrap();
        half_sent.push(stream);
    }
    // Long before the time limit of a header: a probe replaces the oldest connection.
    let probe = tokio::time::timeout(IDLE / 2, server.get("/livez"));
    assert_eq!(probe.await.expect("in time").0, StatusCode::OK);
    server.stop().await;
}

#[tokio::test]
async fn a_client_may_be_idle_for_as_long_as_is_set_within_a_header_and_between_two_requests() {
    use tokio::io::AsyncReadExt as _;
    let idle = Duration::from_millis(500);
    let server = Server::with_idle_timeout(idle).await;
    let address = server.base.trim_start_matches("http://").to_owned();
    for (sent, answered) in [
        ("GET /livez HTTP/1.1\r\nX-Slow: ", ""),
        ("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 200 OK"),
    ] {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let began = std::time::Instant::now();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // Long before the time that is set by default.
        let closed = tokio::time::timeout(IDLE / 2, stream.read_to_end(&mut answer)).await;
        closed.expect("the server closes it").unwrap();
        assert!(began.elapsed() >= idle / 2, "closed too early: {:?}", began.elapsed());
        assert!(answer.starts_with(answered.as_bytes()), "{sent:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_name_that_a_stranger_can_point_at_this_machine_is_refused_and_answers_say_little() {
    let server = Server::start().await;
    let client = reqwest::Client::new();
    let ask = |host: &'static str| client.get(format!("{}/metrics", server.base)).header("Host", host).send();
    assert_eq!(ask("evil.example").await.unwrap().status(), StatusCode::MISDIRECTED_REQUEST);
    let answer = ask("localhost").await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    for (name, value) in
        [("x-content-type-options", "nosniff"), ("x-frame-options", "DENY"), ("cache-control", "no-store")]
    {
        assert_eq!(answer.headers()[name], value);
    }
    assert!(answer.headers().contains_key("content-security-policy"));
    server.stop().await;
}

#[tokio::test]
async fn the_page_is_whole_and_may_use_only_what_is_its_own() {
    let server = Server::start().await;
    let response = reqwest::get(format!("{}/", server.base)).await.unwrap();
    let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
    let page = response.text().await.unwrap();
    for (path, kind) in
        [("/page.css", "text/css; charset=utf-8"), ("/page.js", "text/javascript; charset=utf-8")]
    {
        assert!(page.contains(path), "{path}");
        let response = reqwest::get(format!("{}{path}", server.base)).await.unwrap();
        assert_eq!(
            (response.status(), response.headers()["content-type"].to_str().unwrap()),
            (StatusCode::OK, kind)
        );
    }
    for elsewhere in ["http://", "https://", "style=", "onclick"] {
        assert!(!page.contains(elsewhere), "{elsewhere}");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_status_is_served_with_its_schema() {
    let server = Server::start().await;
    let (status, body) = server.get("/api/status").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(body["schema"], crate::status::schema::SCHEMA);
    assert_eq!(body["headline"]["level"], "attention", "{body}");
    assert_eq!(body["replica"]["phase"], "starting");
    server.stop().await;
}

#[tokio::test]
async fn events_carry_the_status_and_end_with_the_server() {
    let server = Server::start().await;
    let mut response = reqwest::get(format!("{}/api/events", server.base)).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut text = String::new();
    let shows = |text: &str, level: &str| text.contains(&format!("\"level\":\"{level}\""));
    while !shows(&text, "attention") {
        text.push_str(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
    }
    assert!(text.contains("event: status\n"), "{text}");
    server.state.health.set_phase(Phase::Running);
    while !shows(&text, "bad") {
        text.push_str(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
    }
    server.stop().await;
    while let Ok(Some(_)) = response.chunk().await {}
}

#[tokio::test]
async fn codes_have_their_pages() {
    let server = Server::start().await;
    let text =
        reqwest::get(format!("{}/errors/EVENTS_LOST", server.base)).await.unwrap().text().await.unwrap();
    assert!(text.starts_with("# EVENTS_LOST"), "{text}");
    let (status, body) = server.get("/errors/..%2FREADME").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(body["codes"].as_array().unwrap().iter().any(|code| code == "EVENTS_LOST"), "{body}");
    server.stop().await;
}

#[test]
fn what_listens_everywhere_is_reached_here() {
    for (listens, reached) in [
        ("0.0.0.0:1", "127.0.0.1:1"),
        ("[::]:1", "[::1]:1"),
        ("10.0.0.7:1", "10.0.0.7:1"),
        ("127.0.0.1:1", "127.0.0.1:1"),
    ] {
        let listens = listens.parse().expect("an address");
        assert_eq!(reachable(listens).to_string(), reached);
    }
}

/// A check whether an address is free must not be the reason why it is not.
#[tokio::test]
async fn asking_whether_an_address_is_free_keeps_nobody_from_it() {
    let free = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = free.local_addr().unwrap();
    let taken = try_bind(address).expect_err("the address is in use");
    assert!(taken.to_string().contains("HTTP_ADDRESS_UNUSABLE"), "{taken}");
    drop(free);
    try_bind(address).expect("free");
    let asking = TcpSocket::new_v4().unwrap();
    asking.set_reuseaddr(true).unwrap();
    asking.bind(address).expect("bound, as the check binds it");
    bind(address).await.expect("the address is free");
}

#[tokio::test]
async fn too_many_event_streams_are_refused_with_a_reason() {
    let server = Server::start().await;
    let url = format!("{}/api/events", server.base);
    let mut open = Vec::new();
    for _ in 0..events::MOST_STREAMS {
        let mut response = reqwest::get(&url).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert!(response.chunk().await.unwrap().is_some());
        open.push(response);
    }
    let refused = reqwest::get(&url).await.unwrap();
    assert_eq!(
        (refused.status(), &refused.headers()["retry-after"]),
        (StatusCode::SERVICE_UNAVAILABLE, &"60".parse().unwrap())
    );
    assert!(refused.json::<Value>().await.unwrap()["error"].as_str().unwrap().contains("/api/status"));
    // Any number of probes and scrapes is answered, and they displace no event stream.
    for _ in 0..CONNECTIONS * 2 {
        assert_eq!(server.get("/livez").await.0, StatusCode::OK);
        let client = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
        assert_eq!(
            client.get(format!("{}/api/status", server.base)).send().await.unwrap().status(),
            StatusCode::OK
        );
    }
    for stream in &mut open {
        assert!(stream.chunk().await.unwrap().is_some(), "the event stream must continue");
    }
    // A client that disconnects frees a place.
    open.pop();
    let room = async {
        while reqwest::get(&url).await.unwrap().status() != StatusCode::OK {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), room).await.expect("there is room again");
    drop(open);
    server.stop().await;
}
