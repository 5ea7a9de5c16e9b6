//! Outages of the blob storage with checkpoints and leases. `replicas` has outages that are longer than a lease.

use std::{net::SocketAddr, time::Duration};

use devkit::{azurite::Busy, proxy::Proxy, stack::Options};
use serde_json::json;

use super::{BLOCKED_LATER, Ward, rise};
use crate::world::{World, report};

/// A world with blob storage behind a proxy, and `more` TOML.
pub(super) async fn world(more: &str) -> (World, Proxy) {
    proxied(&format!("{BLOCKED_LATER}{more}")).await
}

/// The same with the default limits.
pub(crate) async fn proxied(more: &str) -> (World, Proxy) {
    let mut world = World::with(Options { azurite: true, ..Options::default() }, "").await;
    let storage = storage(&world);
    let proxy = Proxy::start(storage).await.expect("a port");
    let url = world.stack.endpoints().checkpoint_container_url.clone().expect("Azurite runs");
    let url = url.replace(&storage.to_string(), &proxy.address().to_string());
    world.configure(&format!("[blob]\ncontainer_url = \"{url}\"\n{more}"));
    (world, proxy)
}

pub(super) fn storage(world: &World) -> SocketAddr {
    world.stack.azurite().expect("Azurite runs").address()
}

/// Events are handled while the leases last. No checkpoint is stored.
async fn is_away(begin: impl Fn(&Proxy), end: impl Fn(&Proxy)) {
    let (world, proxy) = world("[checkpoint]\ninterval = \"500ms\"\n").await;
    let mut ward = Ward::start(&world).await;
    begin(&proxy);
    world.apply(report("pump", json!({"while": "away"})));
    world.same().await;
    ward.says(503, "the checkpoint store has not answered").await;
    ward.says(503, "the lease store has not answered").await;
    ward.until("the metrics show the outage of the checkpoint store", |now, before| {
        now.sum("twinsync_checkpoint_store_up", "") == 0.0
            && now.sum("twinsync_ready", "") == 0.0
            && now.sum("twinsync_checkpoint_age_seconds", "") > 1.0
            && rise(now, before, "twinsync_checkpoint_failures_total", "reason=\"unavailable\"") >= 2.0
            && rise(now, before, "twinsync_checkpoint_failures_total", "reason=\"throttled\"") == 0.0
            && now.sum("twinsync_partition_up", "") == 4.0
    })
    .await;
    let leases = "tried again until it answers; partitions are kept while their leases last";
    ward.assert_logged(2, &["checkpoints are tried again until they are written", leases]);
    end(&proxy);
    ward.well().await;
    assert!(world.log().contains("a dependency answers again"));
    ward.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn that_refuse_connections_are_down_while_events_go_on() {
    is_away(Proxy::refuse, Proxy::admit).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn that_hang_are_down_while_events_go_on() {
    is_away(Proxy::freeze, Proxy::thaw).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn that_are_slow_show_in_the_age_and_that_throttle_are_borne_for_a_while() {
    let (world, proxy) = world("[checkpoint]\ninterval = \"500ms\"\n").await;
    let mut ward = Ward::start(&world).await;
    proxy.delay(Duration::from_millis(150));
    world.apply(report("pump", json!({"while": "slow"})));
    ward.until("the age of the checkpoints rises", |now, _| {
        now.sum("twinsync_checkpoint_age_seconds", "") > 0.2
            && now.sum("twinsync_oldest_incomplete_event_age_seconds", "") == 0.0
    })
    .await;
    ward.stays_ready(Duration::from_secs(3)).await;
    ward.assert_logged(0, &[]);
    proxy.delay(Duration::ZERO);
    ward.well().await;

    let busy = Busy::start().await.expect("a port");
    proxy.lead_to(busy.address());
    world.apply(report("pump", json!({"while": "throttled"})));
    world.same().await;
    ward.says(200, "the checkpoint store has throttled us").await;
    ward.until("the metric shows throttled checkpoint writes", |now, before| {
        rise(now, before, "twinsync_checkpoint_failures_total", "reason=\"throttled\"") >= 2.0
            && now.sum("twinsync_checkpoint_store_up", "") == 1.0
    })
    .await;
    ward.says(503, "the checkpoint store has throttled us").await;
    ward.assert_logged(
        2,
        &["a dependency throttles requests", "checkpoints are tried again until they are written"],
    );
    proxy.lead_to(storage(&world));
    ward.well().await;
    ward.stop().await;
}
