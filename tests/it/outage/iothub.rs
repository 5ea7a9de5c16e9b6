//! The registry of the IoT hub out of order: repair waits, and the copy follows the streams.

use std::time::Duration;

use devkit::{
    iothub::api::{Fault, FaultKind, Faults},
    proxy::Proxy,
};

use super::{BLOCKED_AFTER, Ward, mean, rise};
use crate::{
    flag::now,
    poison::twin_change,
    registry::bench::{Bench, FAST},
    world::create,
};

/// Flagged twins at a time.
const DOUBTS: usize = 4;

/// A bench whose daemon asks the hub through a proxy.
async fn bench() -> (Bench, Proxy) {
    let mut bench = Bench::new(FAST, BLOCKED_AFTER).await;
    let address = bench.world.stack.registry().address();
    let proxy = Proxy::start(address).await.expect("a port");
    let endpoint = format!("http://{}", proxy.address());
    bench.world.setup = bench.world.setup.clone().with_variable("TWINSYNC__IOTHUB__ENDPOINT", endpoint);
    (bench, proxy)
}

/// A daemon that has the documents of some twins.
async fn start(bench: &Bench) -> Ward<'_> {
    let mut ward = Ward::start(&bench.world).await;
    for number in 0..DOUBTS {
        bench.world.apply(create(&format!("pump-{number}")));
    }
    ward.well().await;
    ward
}

/// They come flagged; nobody asks the hub for two seconds after that.
async fn flags(ward: &mut Ward<'_>) {
    let hub = ward.world.stack.endpoints().twin_changes_hub.clone();
    for number in 0..DOUBTS {
        let device = format!("pump-{number}");
        let poison = now(twin_change(&device, b"[1]"));
        ward.world.stack.broker().append(&hub, &device, poison).expect("appended");
    }
    ward.until("all are set aside", |now, before| {
        rise(now, before, "twinsync_dead_letters_total", "") == DOUBTS as f64
    })
    .await;
    ward.logged = ward.world.log().len(); // what follows is about the hub
}

/// Nothing is flagged any more.
async fn repaired(ward: &mut Ward<'_>) {
    ward.world.equal().await;
    ward.until("the hub answers", |now, _| {
        now.sum("twinsync_registry_up", "") == 1.0 && now.sum("twinsync_repairs_waiting", "") == 0.0
    })
    .await;
    ward.well().await;
}

async fn is_away(begin: impl Fn(&Proxy), end: impl Fn(&Proxy)) {
    let (bench, proxy) = bench().await;
    let mut ward = start(&bench).await;
    begin(&proxy);
    flags(&mut ward).await;
    ward.says(200, "the registry of the IoT hub devkit-hub has not answered").await;
    ward.until("it shows in figures", |now, before| {
        now.sum("twinsync_registry_up", "") == 0.0
            && now.sum("twinsync_ready", "") == 1.0
            && now.sum("twinsync_repairs_waiting", "") == DOUBTS as f64
            && rise(now, before, "twinsync_registry_calls_total", "outcome=\"unavailable\"") >= 3.0
    })
    .await;
    ward.told(1, &["replication goes on, repair, backfill and audit of its twins wait until it does"]);
    bench.world.apply(create("while-away"));
    bench.world.same().await;
    end(&proxy);
    repaired(&mut ward).await;
    assert!(bench.world.log().contains("the IoT hub answers again"));
    ward.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn that_refuses_connections_is_a_warning_and_no_obstacle() {
    is_away(Proxy::refuse, Proxy::admit).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn that_hangs_is_a_warning_and_no_obstacle() {
    is_away(Proxy::freeze, Proxy::thaw).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn that_is_slow_or_throttles_shows_in_figures_only() {
    let (bench, proxy) = bench().await;
    let mut ward = start(&bench).await;
    proxy.delay(Duration::from_millis(150));
    flags(&mut ward).await;
    ward.stays_ready(Duration::from_secs(2)).await;
    ward.until("it shows in the latency", |now, before| {
        mean(now, before, "twinsync_registry_call_seconds", DOUBTS as f64).is_some_and(|mean| mean > 0.3)
    })
    .await;
    ward.told(0, &[]);
    repaired(&mut ward).await;
    proxy.delay(Duration::ZERO);

    let throttle = FaultKind::Answer { status: 429, retry_after_seconds: Some(1) };
    let registry = bench.world.stack.registry();
    registry.set_faults(Faults::of([Fault::new(throttle)])).expect("valid");
    ward.well().await;
    flags(&mut ward).await;
    ward.stays_ready(Duration::from_secs(2)).await;
    ward.until("it is counted", |now, before| {
        rise(now, before, "twinsync_registry_calls_total", "outcome=\"throttled\"") >= 1.0
            && rise(now, before, "twinsync_registry_calls_total", "outcome=\"unavailable\"") == 0.0
            && now.sum("twinsync_registry_up", "") == 1.0
            && now.sum("twinsync_repairs_waiting", "") == DOUBTS as f64
    })
    .await;
    let said = ward.said().await;
    assert!(said.status == 200 && said.warnings.is_empty(), "{said:?}");
    ward.told(0, &[]);
    registry.set_faults(Faults::default()).expect("valid");
    repaired(&mut ward).await;
    ward.stop().await;
}
