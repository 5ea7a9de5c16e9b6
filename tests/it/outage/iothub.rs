//! Outages of the IoT hub's registry: repairs wait, and the copy follows the streams.

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

/// Number of twins that are flagged at the same time.
const FLAGGED: usize = 4;

/// A bench whose daemon reaches the hub through a proxy.
async fn bench() -> (Bench, Proxy) {
    let mut bench = Bench::new(FAST, BLOCKED_AFTER).await;
    let address = bench.world.stack.registry().address();
    let proxy = Proxy::start(address).await.expect("a port");
    let endpoint = format!("http://{}", proxy.address());
    bench.world.setup = bench.world.setup.clone().with_variable("TWINSYNC__IOTHUB__ENDPOINT", endpoint);
    (bench, proxy)
}

/// A daemon that has documents of some devices.
async fn start(bench: &Bench) -> Ward<'_> {
    let mut ward = Ward::start(&bench.world).await;
    for number in 0..FLAGGED {
        bench.world.apply(create(&format!("pump-{number}")));
    }
    ward.well().await;
    ward
}

/// Flags the twins. Their repairs start two seconds later.
async fn flags(ward: &mut Ward<'_>) {
    let hub = ward.world.stack.endpoints().twin_changes_hub.clone();
    for number in 0..FLAGGED {
        let device = format!("pump-{number}");
        let poison = now(twin_change(&device, b"[1]"));
        ward.world.stack.broker().append(&hub, &device, poison).expect("appended");
    }
    ward.until("the metric shows all dead letters", |now, before| {
        rise(now, before, "twinsync_dead_letters_total", "") == FLAGGED as f64
    })
    .await;
    ward.logged = ward.world.log().len(); // later lines are about the hub
}

/// Waits until no document is flagged.
async fn repaired(ward: &mut Ward<'_>) {
    ward.world.equal().await;
    ward.until("the registry is up, and the repair queue is empty", |now, _| {
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
    ward.until("the metrics show the outage of the IoT hub", |now, before| {
        now.sum("twinsync_registry_up", "") == 0.0
            && now.sum("twinsync_ready", "") == 1.0
            && now.sum("twinsync_repairs_waiting", "") == FLAGGED as f64
            && rise(now, before, "twinsync_registry_calls_total", "outcome=\"unavailable\"") >= 3.0
    })
    .await;
    ward.assert_logged(
        1,
        &["replication continues, repair, backfill and audit of its twins wait until it does"],
    );
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
    ward.until("the latency of registry calls rises", |now, before| {
        mean(now, before, "twinsync_registry_call_seconds", FLAGGED as f64).is_some_and(|mean| mean > 0.3)
    })
    .await;
    ward.assert_logged(0, &[]);
    repaired(&mut ward).await;
    proxy.delay(Duration::ZERO);

    let throttle = FaultKind::Answer { status: 429, retry_after_seconds: Some(1) };
    let registry = bench.world.stack.registry();
    registry.set_faults(Faults::of([Fault::new(throttle)])).expect("valid");
    ward.well().await;
    flags(&mut ward).await;
    ward.stays_ready(Duration::from_secs(2)).await;
    ward.until("the metric shows throttled registry calls", |now, before| {
        rise(now, before, "twinsync_registry_calls_total", "outcome=\"throttled\"") >= 1.0
            && rise(now, before, "twinsync_registry_calls_total", "outcome=\"unavailable\"") == 0.0
            && now.sum("twinsync_registry_up", "") == 1.0
            && now.sum("twinsync_repairs_waiting", "") == FLAGGED as f64
    })
    .await;
    let said = ward.said().await;
    assert!(said.status == 200 && said.warnings.is_empty(), "{said:?}");
    ward.assert_logged(0, &[]);
    registry.set_faults(Faults::default()).expect("valid");
    repaired(&mut ward).await;
    ward.stop().await;
}
