//! Faults of the API, as a client sees them over a socket.

use std::time::{Duration, Instant};

use iothub_emulator::api::{Fault, FaultKind, Faults, Operations, Quota, Tier};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::client::{World, signature};

const ALL: &str = "SELECT * FROM devices";

async fn one_device(faults: impl IntoIterator<Item = Fault>) -> World {
    let world = World::start().await;
    world.create("d", json!({"tags": {"a": "x".repeat(1_000)}}));
    world.server.set_faults(Faults::of(faults)).unwrap();
    world
}

#[tokio::test]
async fn a_hub_over_its_quota_answers_429_and_says_when_to_come_back() {
    let world = one_device([]).await;
    world.server.set_quota(Some(Quota { tier: Tier::S1, units: 1 })).unwrap();
    let mut refused = None;
    for _ in 0..25 {
        let response = world.query(ALL).send().await.unwrap();
        if response.status() == 429 {
            refused = Some(response);
            break;
        }
        assert_eq!(response.status(), 200);
    }
    let refused = refused.expect("20 queries per minute are allowed");
    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=3).contains(&wait), "a token every three seconds, not {wait}");
    let body: Value = refused.json().await.unwrap();
    assert!(body["Message"].as_str().unwrap().starts_with("ErrorCode:ThrottlingException;"), "{body}");
    assert_eq!(world.server.counters()["query"].answers["200"], 20);
    assert_eq!(world.get("/twins/d").await.status(), 200, "reads by id have their own limit");
    assert_eq!(world.server.quota().unwrap().tier, Tier::S1);
    world.server.set_quota(None).unwrap();
    assert_eq!(world.query(ALL).send().await.unwrap().status(), 200);
    assert!(world.server.set_quota(Some(Quota { tier: Tier::S3, units: 11 })).is_err());
    world.server.stop().await;
}

#[tokio::test]
async fn an_injected_answer_strikes_its_operations_and_tells_nothing_about_the_twin() {
    let throttled = FaultKind::Answer { status: 429, retry_after_seconds: Some(7) };
    let faults = [
        Fault::new(throttled).on(Operations::Reads).times(1),
        Fault::answer(500).on(Operations::Reads).times(1),
        Fault::answer(502).on(Operations::Reads).times(1),
        Fault::answer(503).on(Operations::Reads).times(1),
    ];
    let world = one_device(faults).await;
    assert_eq!(world.query(ALL).send().await.unwrap().status(), 200);
    let mut seen = Vec::new();
    for _ in 0..5 {
        let response = world.get("/twins/d").await;
        let wait = response.headers().get("retry-after").map(|wait| wait.to_str().unwrap().to_owned());
        seen.push((response.status().as_u16(), wait));
    }
    assert_eq!(seen[0], (429, Some("7".to_owned())));
    assert_eq!(seen[1..].iter().map(|(status, _)| *status).collect::<Vec<_>>(), [500, 502, 503, 200]);
    assert!(seen[1..].iter().all(|(_, wait)| wait.is_none()));
    let counters = world.server.counters();
    assert_eq!((counters["readTwin"].requests, counters["readTwin"].answers["503"]), (5, 1));
    world.server.reset_counters();
    assert!(world.server.counters().is_empty());
    world.server.stop().await;
}

#[tokio::test]
async fn a_share_of_requests_fails_for_a_while_and_then_none() {
    let fault = Fault::answer(503).with_probability(0.3).lasting(Duration::from_millis(300));
    let world = one_device([fault]).await;
    let started = Instant::now();
    let mut answers = Vec::new();
    while started.elapsed() < Duration::from_millis(290) {
        answers.push(world.get("/twins/d").await.status().as_u16());
    }
    let failed = answers.iter().filter(|status| **status == 503).count();
    assert!(failed > 0 && failed < answers.len(), "{failed} of {}", answers.len());
    while started.elapsed() < Duration::from_millis(310) {
        tokio::task::yield_now().await;
    }
    for _ in 0..30 {
        assert_eq!(world.get("/twins/d").await.status(), 200);
    }
    world.server.stop().await;
}

#[tokio::test]
async fn a_request_that_hangs_is_taken_and_never_answered_while_others_are() {
    let world = one_device([Fault::new(FaultKind::Hang).on(Operations::Reads).times(1)]).await;
    let request = world.request(Method::GET, "/twins/d").header("authorization", signature());
    let error = request.timeout(Duration::from_millis(200)).send().await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert_eq!(world.get("/twins/d").await.status(), 200);
    assert_eq!(world.server.counters()["readTwin"].answers["hang"], 1);
    // A request that hangs does not prevent the server from stopping.
    world.server.set_faults(Faults::of([Fault::new(FaultKind::Hang)])).unwrap();
    let mut hanging = JoinSet::new();
    hanging.spawn(world.request(Method::GET, "/twins/d").send());
    while world.server.counters()["readTwin"].answers["hang"] < 2 {
        tokio::task::yield_now().await;
    }
    tokio::time::timeout(Duration::from_secs(5), world.server.stop()).await.unwrap();
    assert!(hanging.join_next().await.unwrap().unwrap().is_err());
}

#[tokio::test]
async fn a_dropped_connection_has_no_answer_and_a_truncated_body_is_not_a_body() {
    let faults = [Fault::new(FaultKind::Drop).times(1), Fault::new(FaultKind::Truncate).times(2)];
    let world = one_device(faults).await;
    let request = || world.request(Method::GET, "/twins/d").header("authorization", signature());
    let error = request().send().await.unwrap_err();
    assert!(error.is_request() && !error.is_timeout(), "{error:?}");
    let response = request().send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.bytes().await.is_err());
    let response = world.query(ALL).send().await.unwrap();
    assert!(response.json::<Value>().await.is_err());
    assert_eq!(world.get("/twins/d").await.status(), 200);
    let counters = world.server.counters();
    assert_eq!((counters["readTwin"].answers["drop"], counters["readTwin"].answers["truncate"]), (1, 1));
    world.server.stop().await;
}

#[tokio::test]
async fn a_delay_comes_before_the_answer() {
    let world = one_device([Fault::new(FaultKind::Delay { ms: 150 }).on(Operations::Queries).times(1)]).await;
    let started = Instant::now();
    assert_eq!(world.query(ALL).send().await.unwrap().status(), 200);
    assert!(started.elapsed() >= Duration::from_millis(150));
    assert!(
        world.server.set_faults(Faults::of([Fault::answer(404)])).is_err(),
        "no fault invents an absence"
    );
    world.server.stop().await;
}
