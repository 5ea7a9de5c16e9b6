//! Outages of Cosmos DB.

use std::time::Duration;

use devkit::{
    cosmos::{Fault, Faults, Operations},
    proxy::Proxy,
    stack::Options,
};

use super::{BLOCKED_AFTER, Ward, mean, rise};
use crate::world::{World, create};

async fn world() -> World {
    let options = Options { cosmos_proxy: true, ..Options::default() };
    World::with(options, &format!("[cosmos]\nrequest_timeout = \"1s\"\n{BLOCKED_AFTER}")).await
}

fn devices(world: &World, name: &str) {
    for number in 0..8 {
        world.apply(create(&format!("{name}-{number}")));
    }
}

/// Number of writes and reads with this outcome since the fault began.
fn requests(now: &devkit::metrics::Sample, before: &devkit::metrics::Sample, outcome: &str) -> f64 {
    let label = format!("outcome=\"{outcome}\"");
    let rises = ["twinsync_writes_total", "twinsync_reads_total"];
    rises.iter().map(|metric| rise(now, before, metric, &label)).sum()
}

/// No request is answered: not ready, the store is down, the partition is blocked, and one line says so.
async fn is_away(begin: impl Fn(&World, &Proxy), end: impl Fn(&World, &Proxy)) {
    let world = world().await;
    let mut ward = Ward::start(&world).await;
    let proxy = world.stack.cosmos_proxy().expect("a proxy");
    begin(&world, proxy);
    devices(&world, "pump");
    ward.says(503, "the document store does not answer").await;
    ward.says(503, "is blocked: its event").await;
    ward.until("the metrics show the outage of the document store", |now, before| {
        now.sum("twinsync_store_up", "") == 0.0
            && now.sum("twinsync_ready", "") == 0.0
            && now.sum("twinsync_oldest_incomplete_event_age_seconds", "") > 1.0
            && now.sum("twinsync_checkpoint_age_seconds", "") > 1.0
            && requests(now, before, "unavailable") > 3.0
            && requests(now, before, "throttled") == 0.0
    })
    .await;
    ward.assert_logged(
        1,
        &["the document store does not answer: writes are tried again until it does, nothing is lost"],
    );
    end(&world, proxy);
    ward.well().await;
    assert!(world.log().contains("the document store answers"), "the end of the outage is not logged");
    assert!(world.files("dead-letters").is_empty());
    ward.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn that_refuses_connections_is_down_and_named() {
    is_away(|_, proxy| proxy.refuse(), |_, proxy| proxy.admit()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn that_hangs_is_down_after_the_time_of_a_request() {
    is_away(|_, proxy| proxy.freeze(), |_, proxy| proxy.thaw()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn that_answers_503_is_down() {
    is_away(|world, _| world.cosmos_is_away(true), |world, _| world.cosmos_is_away(false)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn that_is_slow_or_throttles_is_up_and_shows_in_figures() {
    let world = world().await;
    let mut ward = Ward::start(&world).await;
    let faults = |faults| world.stack.cosmos().set_faults(faults).expect("valid");
    faults(Faults { latency_ms: 300, ..Faults::default() });
    devices(&world, "pump");
    ward.stays_ready(Duration::from_secs(2)).await;
    ward.until("the latency to durable rises", |now, before| {
        // One read and one write for each device.
        mean(now, before, "twinsync_received_to_durable_seconds", 8.0).is_some_and(|mean| mean > 0.5)
    })
    .await;
    ward.assert_logged(0, &[]);
    faults(Faults::default());
    ward.well().await;

    let throttle = Fault { next: None, retry_after_ms: 200, ..Fault::next(429, 1) };
    faults(Faults { answers: vec![throttle.on(Operations::Documents)], ..Faults::default() });
    devices(&world, "valve");
    ward.stays_ready(Duration::from_secs(2)).await;
    ward.until("the metrics show throttled requests", |now, before| {
        requests(now, before, "throttled") > 3.0
            && requests(now, before, "unavailable") == 0.0
            && now.sum("twinsync_store_up", "") == 1.0
            && now.sum("twinsync_store_concurrency_limit", "")
                < before.sum("twinsync_store_concurrency_limit", "")
    })
    .await;
    ward.says(503, "is blocked: its event").await;
    ward.assert_logged(0, &[]);
    faults(Faults::default());
    ward.well().await;
    ward.stop().await;
}
