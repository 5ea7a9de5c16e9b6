//! Single twins over HTTP: a change can be read right after it was made, from every replica, and only with the token.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use devkit::{
    daemon::Daemon,
    iothub::{
        DeliveryFaults, Operation, TwinId,
        api::{Fault, FaultKind, Faults},
    },
    stack::Options,
};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    hubs,
    registry::bench::{Bench, FAST},
    replicas,
    world::{LIMIT, World, create, device, report, until},
};

/// The token of the requests.
pub(crate) const TOKEN: &str = "5f4dcc3b5aa765d61d8327deb882cf99-integration";

/// TOML that switches on reading.
pub(crate) fn with_token() -> String {
    format!("[http]\ntoken = \"{TOKEN}\"\n")
}

/// All characters that IoT Hub allows in an id.
const ODD: &str = "A-z0.9:+%_#*?!(),=@$'";
/// The same in a path.
const ODD_ENCODED: &str = "A-z0.9:+%25_%23*%3F!(),=@$'";

async fn ask(daemon: &Daemon, path: &str) -> (u16, Value) {
    let url = format!("http://{}/api/twins{path}", daemon.address());
    let answer = Client::new().get(url).bearer_auth(TOKEN).send().await.expect("answers");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

/// The body of a request for a twin that must be found.
pub(crate) async fn found(daemon: &Daemon, path: &str) -> Value {
    let (status, body) = ask(daemon, path).await;
    assert_eq!(status, 200, "{path}: {body:#}");
    body
}

/// Performs an operation and returns the twin's version after it.
fn apply(world: &World, operation: Operation) -> u64 {
    let applied =
        world.stack.hub().apply(&operation).unwrap_or_else(|error| panic!("{operation:?}: {error:?}"));
    applied.version.unwrap_or_default()
}

async fn units(daemon: &mut Daemon) -> f64 {
    let sample = daemon.sample().await.expect("metrics");
    sample.sum("twinsync_request_units_total", "purpose=\"request\"")
}

async fn waits(daemon: &mut Daemon, waiters: u64) {
    until(daemon, &format!("{waiters} requests wait"), |sample| {
        sample.count("twinsync_twin_waiters", "") == waiters
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_read_right_after_it_was_made_whatever_the_ids() {
    let world = World::with(Options::default(), &with_token()).await;
    let mut daemon = world.start().await;
    let (odd, module) = (device(ODD), TwinId::module(ODD, ODD).expect("a valid id"));
    for (id, path) in
        [(&odd, format!("/{ODD_ENCODED}")), (&module, format!("/{ODD_ENCODED}/modules/{ODD_ENCODED}"))]
    {
        let mut version = apply(&world, Operation::Create { id: id.clone(), twin: None });
        let mut slowest = Duration::ZERO;
        for step in 0..20 {
            let asked = Instant::now();
            let body = found(&daemon, &format!("{path}?min_version={version}&wait=20s")).await;
            slowest = slowest.max(asked.elapsed());
            assert!(body["version"].as_u64() >= Some(version), "{body:#}");
            if step > 0 {
                assert_eq!(body["document"]["properties"]["reported"]["step"], step - 1, "{body:#}");
            }
            assert_eq!(
                (&body["state"], &body["sync"]["flagged"]),
                (&json!("present"), &json!(false)),
                "{body:#}"
            );
            version = apply(&world, Operation::Report { id: id.clone(), patch: json!({"step": step}) });
        }
        println!("{path}: read within {slowest:?}");
        // By the version of a section, which devices know.
        let body = found(&daemon, &format!("{path}?min_reported_version=21&wait=20s")).await;
        assert_eq!((&body["reportedVersion"], &body["desiredVersion"]), (&json!(21), &json!(1)), "{body:#}");
        let twin = world.stack.hub().twin(id).expect("there");
        assert_eq!(body["document"]["properties"]["reported"], twin["properties"]["reported"], "{body:#}");
        assert_eq!(
            (&body["device"], &body["hub"]),
            (&json!(ODD), &json!("devkit-hub")),
            "the only hub must be the default"
        );
    }
    let spent = units(&mut daemon).await;
    println!("request units for 42 reads: {spent}");
    assert!(
        spent > 42.0 && spent < 42.0 * 12.0,
        "a write of the same replica must not cost repeated reads: {spent}"
    );
    let sample = daemon.sample().await.expect("metrics");
    assert_eq!(sample.count("twinsync_twin_reads_total", "outcome=\"found\""), 42);
    assert!(!world.log().contains(TOKEN));
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_told_from_what_is_late_deleted_or_created_anew() {
    let world = World::with(Options::default(), &with_token()).await;
    let daemon = world.start().await;
    assert_eq!(ask(&daemon, "/nobody").await.0, 404);
    let began = Instant::now();
    let (status, body) = ask(&daemon, "/nobody?min_version=1&wait=500ms").await;
    assert_eq!((status, &body["state"]), (504, &json!("absent")), "{body:#}");
    assert!((500..5_000).contains(&began.elapsed().as_millis()), "took {:?}", began.elapsed());

    let version = apply(&world, create("pump"));
    found(&daemon, &format!("/pump?min_version={version}&wait=20s")).await;
    let (status, body) = ask(&daemon, "/pump?min_version=1000&wait=300ms").await;
    assert_eq!(
        (status, &body["version"]),
        (504, &json!(version)),
        "the answer must contain the present version: {body:#}"
    );
    assert_eq!(body["document"]["deviceId"], "pump");
    assert!(body["waitedSeconds"].as_f64().is_some_and(|waited| (0.3..5.0).contains(&waited)), "{body:#}");

    apply(&world, Operation::Delete { id: device("pump") });
    let started = Instant::now();
    let deleted = loop {
        let (status, body) = ask(&daemon, "/pump").await;
        if status == 404 {
            break body;
        }
        assert!(started.elapsed() < LIMIT, "{body:#}");
    };
    assert_eq!((&deleted["state"], &deleted["version"]), (&json!("deleted"), &Value::Null), "{deleted:#}");
    let ended = deleted["sync"]["incarnation"]["ended"].as_str().expect("a time").to_owned();
    assert!(deleted["sync"]["summary"].as_str().is_some_and(|text| text.contains(&ended)), "{deleted:#}");
    let (status, body) = ask(&daemon, "/pump?min_version=1&wait=300ms").await;
    assert_eq!(
        (status, &body["state"]),
        (504, &json!("deleted")),
        "a deleted twin may be created again: {body:#}"
    );

    // The twin is created again while a request waits, so its versions start again. `min_time` says which incarnation is meant.
    let path = format!("/pump?min_version=2&min_time={ended}&wait=20s");
    let waiting = async { found(&daemon, &path).await };
    let creating = async { apply(&world, create("pump")) };
    let (body, version) = tokio::join!(waiting, creating);
    assert_eq!((&body["state"], &body["version"]), (&json!("present"), &json!(version)), "{body:#}");
    assert!(body["sync"]["incarnation"]["began"].as_str() > Some(ended.as_str()), "{body:#}");
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reads_without_the_token_and_guesses_are_noticed() {
    let mut world = World::new().await;
    let off = world.start().await;
    let (status, text) = off.get("/api/twins/pump").await.expect("answers");
    assert!(status == 403 && text.contains("set http.token"), "{status} {text}");
    off.stop().await.expect("exit code 0");

    world.configure("");
    let file = world.directory.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).expect("written");
    world.setup = world.setup.clone().with_variable("TWINSYNC__HTTP__TOKEN_FILE", file.as_os_str());
    let mut daemon = world.start().await;
    apply(&world, create("pump"));
    world.equal().await;
    let (status, text) = daemon.get("/api/twins/pump").await.expect("answers");
    assert!(status == 401 && text.contains("Authorization: Bearer TOKEN"), "{status} {text}");
    let url = format!("http://{}/api/twins/pump", daemon.address());
    for guess in 0..50 {
        let answer =
            Client::new().get(&url).bearer_auth(format!("guess-{guess}")).send().await.expect("answers");
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(answer.headers()["www-authenticate"], "Bearer");
        assert!(!answer.text().await.expect("a text").contains("pump"));
    }
    let head = Client::new().request(Method::HEAD, &url).bearer_auth(TOKEN).send().await.expect("answers");
    assert_eq!(head.status(), StatusCode::OK);
    found(&daemon, "/pump").await;
    let sample = daemon.sample().await.expect("metrics");
    assert_eq!(sample.count("twinsync_twin_reads_unauthorized_total", "reason=\"wrong_token\""), 50);
    assert_eq!(sample.count("twinsync_twin_reads_unauthorized_total", "reason=\"no_token\""), 1);
    let log = world.log();
    let lines = log.lines().filter(|line| line.contains("its token is not that of http.token")).count();
    assert!((1..10).contains(&lines), "not one to nine lines: {lines}");
    assert!(log.contains("127.0.0.1") && !log.contains("guess-") && !log.contains(TOKEN), "{log}");
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_replica_answers_for_what_any_of_them_writes() {
    let world = World::with(Options { azurite: true, ..Options::default() }, "").await;
    let (first, second) =
        (replicas::replica(&world, &with_token()), replicas::replica(&world, &with_token()));
    let mut a = replicas::start(&first).await;
    let mut b = replicas::start(&second).await;
    for daemon in [&mut a, &mut b] {
        until(daemon, "each replica owns two partitions", |sample| {
            sample.count("twinsync_partitions_owned", "") == 2
        })
        .await;
    }
    for number in 0..12 {
        let id = format!("pump-{number}");
        let mut version = apply(&world, create(&id));
        for step in 0..2 {
            let path = format!("/{id}?min_version={version}&wait=20s");
            let (here, there) = tokio::join!(found(&a, &path), found(&b, &path));
            for body in [here, there] {
                assert!(body["version"].as_u64() >= Some(version), "{body:#}");
            }
            version = apply(&world, report(&id, json!({"step": step})));
        }
    }
    for daemon in [&mut a, &mut b] {
        let sample = daemon.sample().await.expect("metrics");
        assert!(sample.count("twinsync_writes_total", "outcome=\"written\"") > 0, "a replica wrote nothing");
        assert_eq!(sample.count("twinsync_twin_reads_total", "outcome=\"found\""), 24);
        println!("request units: {}", units(daemon).await);
    }
    a.stop().await.expect("exit code 0");
    b.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_is_told_and_comes_back_to_those_who_wait() {
    let world = World::with(Options::default(), &with_token()).await;
    world.cosmos_is_away(true);
    let mut daemon = world.setup.spawn().expect("starts");
    let started = Instant::now();
    while daemon.get("/livez").await.is_err() {
        assert!(started.elapsed() < LIMIT, "{}", daemon.log());
    }
    let (status, body) = ask(&daemon, "/pump").await;
    assert!(
        status == 503 && body["error"].as_str().is_some_and(|error| error.starts_with("starting")),
        "{body:#}"
    );
    world.cosmos_is_away(false);
    daemon.ready().await.expect("ready");
    let version = apply(&world, create("pump"));
    found(&daemon, &format!("/pump?min_version={version}&wait=20s")).await;

    world.cosmos_is_away(true);
    for path in ["/pump", "/pump?min_version=1000&wait=1s"] {
        let asked = Instant::now();
        let (status, body) = ask(&daemon, path).await;
        assert_eq!((status, &body["state"]), (503, &json!("unknown")), "{body:#}");
        assert!(
            body["error"].as_str().is_some_and(|error| error.contains("503")),
            "the store's reason is missing: {body:#}"
        );
        assert!(asked.elapsed() < Duration::from_secs(8), "took {:?}", asked.elapsed());
    }
    let version = apply(&world, report("pump", json!({"step": 1})));
    let path = format!("/pump?min_version={version}&wait=30s");
    let url = format!("http://{}/api/twins{path}", daemon.address());
    let waiter = tokio::spawn(Client::new().get(url).bearer_auth(TOKEN).send());
    waits(&mut daemon, 1).await;
    world.cosmos_is_away(false);
    let body: Value = waiter.await.expect("runs").expect("an answer").json().await.expect("JSON");
    assert_eq!(body["document"]["properties"]["reported"]["step"], 1, "{body:#}");
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_connection_ends_its_wait_and_a_stop_ends_every_wait() {
    let world = World::with(Options::default(), &with_token()).await;
    let mut daemon = world.start().await;
    let url = format!("http://{}/api/twins/nobody?min_version=1&wait=30s", daemon.address());
    let waiter = || tokio::spawn(Client::new().get(&url).bearer_auth(TOKEN).send());
    let gone: Vec<_> = (0..64).map(|_| waiter()).collect();
    waits(&mut daemon, 64).await;
    let (status, body) = ask(&daemon, "/nobody?min_version=1").await;
    assert!(
        status == 503 && body["error"].as_str().is_some_and(|error| error.contains("try again")),
        "{body:#}"
    );
    for path in ["/livez", "/readyz", "/"] {
        assert_eq!(daemon.get(path).await.expect("answers").0, 200, "{path}");
    }
    gone.iter().for_each(tokio::task::JoinHandle::abort);
    waits(&mut daemon, 0).await;

    let waiting: Vec<_> = (0..3).map(|_| waiter()).collect();
    waits(&mut daemon, 3).await;
    let asked = Instant::now();
    daemon.signal().await.expect("signalled");
    for waiter in waiting {
        let answer = waiter.await.expect("runs").expect("an answer, not a broken connection");
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.text().await.expect("a text").contains("stopping"));
    }
    assert!(asked.elapsed() < Duration::from_secs(5), "took {:?}", asked.elapsed());
    assert!(daemon.ended().await.expect("ends").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hubs_twin_is_compared_where_somebody_asks_for_it() {
    let bench = Bench::new(FAST, &format!("[audit]\ninterval = \"off\"\n{}", with_token())).await;
    let mut daemon = bench.start().await;
    let version = apply(&bench.world, create("pump"));
    let path = format!("/pump?min_version={version}&wait=20s&compare=true");
    let body = found(&daemon, &path).await;
    assert_eq!(body["comparison"]["outcome"], "equal", "{body:#}");
    assert_eq!(body["comparison"]["twin"]["deviceId"], "pump");
    assert!(found(&daemon, "/pump").await["comparison"].is_null(), "the hub must only be asked on request");
    bench.alter("pump", |document| document["tags"]["<script>"] = json!("by hand")).await;
    let body = found(&daemon, "/pump?compare=true").await;
    assert_eq!(body["comparison"]["outcome"], "different", "{body:#}");
    let expected = json!([{"path": "/tags/<script>", "stored": "by hand", "hub": null}]);
    assert_eq!(body["comparison"]["differences"], expected, "{body:#}");
    let (status, body) = ask(&daemon, "/nobody?compare=true").await;
    assert_eq!(
        (status, &body["comparison"]["outcome"]),
        (404, &json!("equal")),
        "neither the hub nor the copy has the twin: {body:#}"
    );
    bench.were_there(&[create("older")]);
    let (status, body) = ask(&daemon, "/older?compare=true").await;
    assert_eq!((status, &body["comparison"]["outcome"]), (404, &json!("missing")), "{body:#}");
    let sample = daemon.sample().await.expect("metrics");
    assert_eq!(sample.count("twinsync_registry_calls_total", "purpose=\"request\""), 4);

    // If the hub throttles or hangs, the answer comes in time without a comparison.
    for (trouble, hint) in [
        (FaultKind::Answer { status: 429, retry_after_seconds: Some(2) }, "429"),
        (FaultKind::Hang, "no answer"),
    ] {
        bench.world.stack.registry().set_faults(Faults::of([Fault::new(trouble)])).expect("valid");
        let asked = Instant::now();
        let body = found(&daemon, "/pump?compare=true").await;
        let comparison = &body["comparison"];
        assert_eq!(comparison["outcome"], "unknown", "{body:#}");
        assert!(comparison["text"].as_str().is_some_and(|text| text.contains(hint)), "{comparison:#}");
        assert!(asked.elapsed() < Duration::from_secs(12), "took {:?}", asked.elapsed());
        bench.world.stack.registry().set_faults(Faults::default()).expect("valid");
    }
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flag_is_explained_and_repaired_for_whoever_waits_for_that() {
    let bench = Bench::new(FAST, &format!("[audit]\ninterval = \"off\"\n{}", with_token())).await;
    let daemon = bench.start().await;
    let version = apply(&bench.world, create("pump"));
    found(&daemon, &format!("/pump?min_version={version}&wait=20s")).await;
    let lossy = DeliveryFaults { lose: 1.0, ..DeliveryFaults::default() };
    bench.world.stack.hub().set_delivery_faults(lossy);
    apply(&bench.world, report("pump", json!({"lost": 1})));
    bench.world.stack.hub().set_delivery_faults(DeliveryFaults::default());
    let version = apply(&bench.world, report("pump", json!({"seen": 2})));
    // A repair starts after two seconds, so the first answer is flagged.
    let body = found(&daemon, &format!("/pump?min_version={version}&wait=20s")).await;
    assert_eq!(
        (&body["sync"]["flagged"], &body["sync"]["reasons"][0]["kind"]),
        (&json!(true), &json!("gap")),
        "{body:#}"
    );
    assert!(body["document"]["properties"]["reported"]["lost"].is_null(), "{body:#}");
    let body = found(&daemon, &format!("/pump?min_version={version}&unflagged=true&wait=20s")).await;
    assert_eq!(body["sync"]["flagged"], false, "{body:#}");
    assert_eq!(body["document"]["properties"]["reported"]["lost"], 1, "{body:#}");
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_hub_is_configured_it_says_so_and_what_is_asked_wrongly_is_explained() {
    let world = World::with(Options::default(), &with_token()).await;
    let daemon = world.start().await;
    let version = apply(&world, create("pump"));
    let body = found(&daemon, &format!("/pump?min_version={version}&wait=20s&compare=true")).await;
    assert_eq!(body["comparison"]["outcome"], "not_configured", "{body:#}");
    assert!(
        body["comparison"]["text"].as_str().is_some_and(|text| text.contains("iothub.hosts")),
        "{body:#}"
    );
    assert_eq!(ask(&daemon, "/pump?hub=DevKit-Hub").await.0, 200);
    let (status, body) = ask(&daemon, "/pump?hub=elsewhere").await;
    assert_eq!((status, &body["state"]), (404, &json!("absent")), "{body:#}");
    let asked_wrongly: BTreeSet<_> =
        ["/pump?min_verison=2", "/pump?min_version=x", "/pump?min_version=1&wait=1h", "", "/%FF"].into();
    for path in asked_wrongly {
        let (status, body) = ask(&daemon, path).await;
        assert!(status == 400 && body["error"].is_string(), "{path}: {body:#}");
    }
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_several_hubs_the_one_that_is_meant_is_named() {
    let mut bench = hubs::two_hubs("hub_device").await;
    bench.world.setup = bench.world.setup.clone().with_variable("TWINSYNC__HTTP__TOKEN", TOKEN);
    let daemon = bench.start().await;
    let (status, body) = ask(&daemon, "/pump?min_version=1&wait=20s").await;
    assert_eq!((status, &body["hubs"]), (400, &json!(["devkit-hub", "fabrikam"])), "{body:#}");
    let hubs = bench.world.stack.iothubs();
    for (hub, name) in hubs.iter().zip(["devkit-hub", "Fabrikam"]) {
        let twin = Some(json!({"tags": {"of": name}}));
        let applied = hub.service().apply(&Operation::Create { id: device("pump"), twin }).expect("valid");
        let version = applied.version.expect("there");
        let path = format!("/pump?hub={name}&min_version={version}&wait=20s&compare=true");
        let body = found(&daemon, &path).await;
        assert_eq!(body["document"]["tags"]["of"], name, "{body:#}");
        assert_eq!(body["hub"], name.to_lowercase());
        assert_eq!(
            body["comparison"]["outcome"], "equal",
            "the twin must be compared with its own hub: {body:#}"
        );
    }
    daemon.stop().await.expect("exit code 0");
}
