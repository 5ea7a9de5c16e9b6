//! `twinsync serve` as a process, over TLS: the answers that clients of the IoT hub get from the copy, compared with the hub's
//! own answers.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use devkit::{
    daemon::{Daemon, Setup, free_port},
    iothub::{IdentityChange, Operation, Status, TwinId},
    stack::Options,
};
use hmac::{Hmac, Mac as _};
use rcgen::{CertificateParams, KeyPair};
use reqwest::{Certificate, Client, Method, StatusCode};
use serde_json::{Value, json};
use sha2::Sha256;
use tempfile::TempDir;

use crate::{
    registry::bench::{Bench, FAST},
    world::{LIMIT, PROGRAM, World, device, report},
};

pub(crate) const KEY: &str = "BwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAhIiMkJSY=";
const VERSION: &str = "api-version=2021-04-12";

/// The read API of a world, and a client that trusts its certificate.
pub(crate) struct ReadApi {
    pub(crate) process: Daemon,
    base: String,
    client: Client,
    directory: TempDir,
}

fn certificate(directory: &Path) -> (PathBuf, PathBuf, Certificate) {
    let key = KeyPair::generate().expect("a key");
    let made =
        CertificateParams::new(["localhost".to_owned()]).expect("a name").self_signed(&key).expect("signed");
    let files = (directory.join("tls.crt"), directory.join("tls.key"));
    fs::write(&files.0, made.pem()).expect("written");
    fs::write(&files.1, key.serialize_pem()).expect("written");
    (files.0, files.1, Certificate::from_pem(made.pem().as_bytes()).expect("a certificate"))
}

/// The shared access signature that clients of the hub send, valid for an hour.
fn signature(key: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let expiry = now + 3600;
    let key = STANDARD.decode(key).expect("base64");
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("any length");
    mac.update(format!("localhost\n{expiry}").as_bytes());
    let signature: String =
        url::form_urlencoded::byte_serialize(STANDARD.encode(mac.finalize().into_bytes()).as_bytes())
            .collect();
    format!("SharedAccessSignature sr=localhost&sig={signature}&se={expiry}&skn=dashboards")
}

impl ReadApi {
    pub(crate) async fn start(world: &World, more: &str) -> Self {
        Self::start_with(world, more, "").await
    }

    /// With `more` TOML before the section `[serve]`, and `serve` in that section.
    async fn start_with(world: &World, more: &str, serve: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (certificate_file, key_file, authority) = certificate(directory.path());
        let port = free_port().expect("a port");
        let serve = format!(
            "{more}\n[serve]\n{serve}listen = \"127.0.0.1:{port}\"\ncertificate_file = {certificate_file:?}\nkey_file = {key_file:?}\n\
             connection_strings = \"HostName=localhost;SharedAccessKeyName=dashboards;SharedAccessKey={KEY}\"\n"
        );
        let setup = Setup::new(Path::new(PROGRAM), directory.path(), world.stack.endpoints(), &serve);
        let process =
            setup.expect("configured").serving().start().await.unwrap_or_else(|error| panic!("{error}"));
        let client = Client::builder().add_root_certificate(authority).build().expect("a client");
        Self { process, base: format!("https://localhost:{port}"), client, directory }
    }

    /// The address that it listens on.
    pub(crate) fn address(&self) -> String {
        self.base.replace("https://localhost", "127.0.0.1")
    }

    /// The path of one of its files.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        request.header("authorization", signature(KEY))
    }

    async fn get(&self, path: &str) -> (StatusCode, reqwest::header::HeaderMap, Value) {
        answered(self.request(Method::GET, path)).await
    }

    async fn rows(&self, query: &str, page: u32) -> (Vec<Value>, usize) {
        let (mut rows, mut pages, mut from) = (Vec::new(), 0, None);
        loop {
            let request = self.request(Method::POST, &format!("/devices/query?{VERSION}"));
            let mut request =
                request.json(&json!({ "query": query })).header("x-ms-max-item-count", page.to_string());
            if let Some(from) = from {
                request = request.header("x-ms-continuation", from);
            }
            let (status, headers, body) = answered(request).await;
            assert_eq!(status, StatusCode::OK, "{query}: {body}");
            rows.extend(body.as_array().expect("rows").iter().cloned());
            pages += 1;
            from = headers.get("x-ms-continuation").cloned();
            if from.is_none() {
                return (rows, pages);
            }
        }
    }

    /// Makes one request of each kind, and one without authorization.
    pub(crate) async fn ask_everything(&self) {
        for path in ["/twins/pump", "/devices/pump"] {
            self.get(&format!("{path}?{VERSION}")).await;
        }
        self.rows("SELECT deviceId FROM devices", 100).await;
        let refused = self.client.get(&self.base).send().await.expect("an answer");
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

async fn answered(request: reqwest::RequestBuilder) -> (StatusCode, reqwest::header::HeaderMap, Value) {
    let answer = request.send().await.expect("an answer");
    let (status, headers) = (answer.status(), answer.headers().clone());
    let text = answer.text().await.expect("a body");
    (status, headers, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// The hub's own answer, without the fields that only the hub knows.
async fn of_the_hub(world: &World, path: &str) -> Value {
    let endpoints = world.stack.endpoints();
    let request = Client::new().get(format!("{}{path}", endpoints.iothub));
    let request = request.header("host", &endpoints.iothub_host_name).bearer_auth(&endpoints.token);
    let (_, _, mut twin) = answered(request).await;
    let fields = twin.as_object_mut().expect("a twin");
    let kept = ["deviceId", "moduleId", "version", "tags", "properties"];
    fields.retain(|name, _| kept.contains(&name.as_str()));
    twin
}

fn without_etag(mut twin: Value) -> Value {
    twin.as_object_mut().expect("a twin").remove("etag");
    twin
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_the_hub_get_from_the_copy_what_the_hub_gives_and_how_fresh_it_is() {
    let blobs = |world: &World| {
        let url = world.stack.endpoints().checkpoint_container_url.clone().expect("blobs");
        format!("[checkpoint]\nstore = \"blob\"\ninterval = \"500ms\"\n[blob]\ncontainer_url = {url:?}\n")
    };
    let mut world = World::with(Options { azurite: true, ..Options::default() }, "").await;
    let more = blobs(&world);
    world.configure(&more);
    let daemon = world.start().await;
    for number in 0..25 {
        let site = if number % 2 == 0 { "north" } else { "south" };
        let twin =
            json!({"tags": {"site": site, "n": number}, "properties": {"desired": {"interval": number % 3}}});
        world.apply(Operation::Create { id: device(&format!("pump-{number:02}")), twin: Some(twin) });
    }
    let module = TwinId::module("pump-00", "$edgeAgent").expect("a valid id");
    world.apply(Operation::Create { id: module, twin: Some(json!({"tags": {"of": "pump"}})) });
    world.apply(Operation::Create { id: device("odd#1?%'+"), twin: None });
    world.apply(report("pump-07", json!({"level": 61, "nested": {"on": true}})));
    world.apply(Operation::Delete { id: device("pump-24") });
    world.equal().await;
    let api = ReadApi::start(&world, &more).await;

    // The twins are equal to the hub's.
    for path in ["/twins/pump-07", "/twins/pump-00/modules/%24edgeAgent", "/twins/odd%231%3F%25'%2B"] {
        let path = format!("{path}?{VERSION}");
        let (status, headers, twin) = api.get(&path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {twin}");
        assert_eq!(without_etag(twin.clone()), of_the_hub(&world, &path).await, "{path}");
        assert_eq!(headers["x-twinsync-version"].to_str().ok(), Some(&*twin["version"].to_string()));
    }
    for (path, code) in [("/twins/pump-24", "DeviceNotFound"), ("/twins/pump-01/modules/m", "ModuleNotFound")]
    {
        let (status, headers, body) = api.get(&format!("{path}?{VERSION}")).await;
        assert_eq!(
            (status, headers["iothub-errorcode"].to_str().ok()),
            (StatusCode::NOT_FOUND, Some(code)),
            "{body}"
        );
    }

    // Queries, page by page.
    let (rows, pages) = api.rows("SELECT deviceId FROM devices WHERE tags.site = 'north'", 5).await;
    let mut ids: Vec<_> =
        rows.iter().map(|row| row["deviceId"].as_str().expect("an id").to_owned()).collect();
    ids.sort();
    let expected: Vec<_> = (0..24).step_by(2).map(|number| format!("pump-{number:02}")).collect();
    assert_eq!(ids, expected);
    assert!(pages >= 3, "{pages}");
    assert_eq!(api.rows("SELECT COUNT() AS n FROM devices", 100).await.0, [json!({"n": 25})]);
    let (groups, _) = api
        .rows("SELECT tags.site AS site, COUNT() AS n FROM devices WHERE is_defined(tags.site) GROUP BY tags.site", 100)
        .await;
    assert_eq!(groups, [json!({"site": "north", "n": 12}), json!({"site": "south", "n": 12})]);

    // A client that waits for its own change gets it.
    let before =
        api.get(&format!("/twins/pump-03?{VERSION}")).await.2["version"].as_i64().expect("a version");
    let path = format!("/twins/pump-03?{VERSION}&min_version={}&wait=30s", before + 1);
    let waiting = api.get(&path);
    let change = async { world.apply(report("pump-03", json!({"seen": true}))) };
    let ((status, _, twin), ()) = tokio::join!(waiting, change);
    assert_eq!((status, &twin["properties"]["reported"]["seen"]), (StatusCode::OK, &json!(true)), "{twin}");

    // The lag is known after the next poll of all replicas' checkpoints.
    let started = Instant::now();
    loop {
        let (_, headers, _) = api.get(&format!("/twins/pump-03?{VERSION}")).await;
        if headers.get("x-twinsync-lag-events").is_some_and(|events| events == "0") {
            break;
        }
        assert!(started.elapsed() < LIMIT, "{headers:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    // Other callers are refused, and nothing can be changed.
    let wrong = signature("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    let url = format!("{}/twins/pump-03?{VERSION}", api.base);
    let (status, _, body) = answered(api.client.get(&url).header("authorization", wrong)).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(!body.to_string().contains("pump"), "{body}");
    let patch =
        api.request(Method::PATCH, &format!("/twins/pump-03?{VERSION}")).json(&json!({"tags": {"x": 1}}));
    assert_eq!(answered(patch).await.0, StatusCode::METHOD_NOT_ALLOWED);
    let plain = Client::new().get(url.replace("https", "http")).send().await;
    assert!(plain.is_err(), "a request without TLS was answered: {plain:?}");

    // Health, metrics and log.
    let (status, ready) = api.process.get("/readyz").await.expect("it answers");
    assert_eq!(status, 200, "{ready}");
    let metrics = api.process.get("/metrics").await.expect("it answers").1;
    for line in [
        "twinsync_serve_unauthorized_total{reason=\"wrong_signature\"} 1",
        "twinsync_serve_requests_total{operation=\"other\",outcome=\"unsupported\"} 1",
        "twinsync_serve_handshake_failures_total 1",
        "twinsync_serve_lag_events 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in {metrics}");
    }
    assert!(metrics.contains("twinsync_token_expiry_timestamp_seconds{scope=\"certificate\"}"));
    world.equal().await;

    let ReadApi { process, directory, .. } = api;
    process.stop().await.expect("exit code 0");
    let log = fs::read_to_string(directory.path().join("log")).expect("a log");
    let audit = log.lines().find(|line| line.contains("twinsync::audit")).unwrap_or_else(|| panic!("{log}"));
    assert!(audit.contains("caller=\"dashboards\" kind=\"policy\""), "{audit}");
    assert!(log.contains("REQUEST_DENIED") && !log.contains(KEY) && !log.contains("pump-"), "{log}");
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_read_api_tells_that_the_store_is_away_and_goes_on_when_it_is_back() {
    let world = World::new().await;
    let api = ReadApi::start(&world, "").await;
    let path = format!("/twins/pump?{VERSION}");
    assert_eq!(api.get(&path).await.0, StatusCode::NOT_FOUND);
    world.cosmos_is_away(true);
    let (status, headers, body) = api.get(&path).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
    assert!(headers.contains_key("retry-after") && body.to_string().contains("COSMOS_UNAVAILABLE"), "{body}");
    for (away, expected) in [(true, 503), (false, 200)] {
        world.cosmos_is_away(away);
        let started = Instant::now();
        while api.process.get("/readyz").await.expect("it answers").0 != expected {
            assert!(started.elapsed() < LIMIT, "{}", api.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    assert_eq!(api.get(&path).await.0, StatusCode::NOT_FOUND);
    let log = api.log();
    assert!(log.contains("requests for twins are answered with 503"), "{log}");
    assert!(log.contains("the document store answers"), "{log}");
    api.process.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_api_that_nobody_could_use_does_not_start_and_says_what_to_do() {
    let world = World::new().await;
    let strings =
        format!("connection_strings = \"HostName=localhost;SharedAccessKeyName=p;SharedAccessKey={KEY}\"");
    for (serve, code, hint) in [
        (String::new(), 1, "SERVE_NOT_CONFIGURED"),
        (format!("[serve]\n{strings}\n"), 2, "serve.certificate_file"),
        (
            format!("[serve]\n{strings}\ncertificate_file = \"/nowhere.crt\"\nkey_file = \"/nowhere.key\"\n"),
            1,
            "cannot read /nowhere.crt",
        ),
        ("[serve]\nconection_strings = \"\"\n".to_owned(), 2, "did you mean serve.connection_strings?"),
        (
            "[serve]\nconnection_strings = \"HostName=localhost;SharedAccessKeyName=p;SharedAccessKey=c2hvcnQ=\"\n".to_owned(),
            2,
            "fewer than 16 bytes",
        ),
    ] {
        let directory = tempfile::tempdir().expect("a directory");
        let setup = Setup::new(Path::new(PROGRAM), directory.path(), world.stack.endpoints(), &serve);
        let output = setup.expect("configured").serving().command().output().await.expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{serve}: {said}");
        assert!(said.contains(hint) && !said.contains(KEY), "{serve}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_no_event_tells_come_from_the_hub_where_that_is_wanted() {
    let on = format!("{FAST}identity = \"on\"\n");
    let bench = Bench::new(&on, "[audit]\ninterval = \"off\"\n").await;
    let world = &bench.world;
    let daemon = bench.start().await;
    for id in ["pump-1", "pump-2"] {
        world.apply(Operation::Create { id: device(id), twin: Some(json!({"tags": {"site": "north"}})) });
    }
    let endpoints = world.stack.endpoints();
    let iothub = format!(
        "[iothub]\n{on}connection_strings = {:?}\nendpoint = {:?}\n",
        endpoints.iothub_connection_string, endpoints.iothub
    );
    let api = ReadApi::start_with(world, &iothub, "identity_fields = \"as_of_last_audit\"\n").await;
    let enabled = "SELECT deviceId FROM devices WHERE status = 'enabled' AND capabilities.iotEdge = false";
    let ids = async |query: &str| {
        let rows = api.rows(query, 100).await.0;
        let mut ids: Vec<_> =
            rows.iter().map(|row| row["deviceId"].as_str().expect("an id").to_owned()).collect();
        ids.sort();
        ids
    };
    // The fields appear seconds after the devices were created.
    let started = Instant::now();
    while ids(enabled).await != ["pump-1", "pump-2"] {
        assert!(started.elapsed() < LIMIT, "{}", world.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (status, _, identity) = api.get(&format!("/devices/pump-1?{VERSION}")).await;
    assert_eq!((status, &identity["status"]), (StatusCode::OK, &json!("enabled")), "{identity}");

    // No event reports a change of these fields, so an audit finds it.
    let change = IdentityChange { status: Some(Status::Disabled), ..IdentityChange::default() };
    world.stack.hub().change_identity(&device("pump-2"), &change).expect("it is there");
    let (code, report) = bench.audit(&["--repair"]).await;
    assert_eq!(code, 0, "{report}");
    assert_eq!(ids(enabled).await, ["pump-1"]);
    assert_eq!(ids("SELECT deviceId FROM devices WHERE status = 'disabled'").await, ["pump-2"]);
    world.equal().await;
    api.process.stop().await.expect("exit code 0");
    daemon.stop().await.expect("exit code 0");
}
