//! Event Hubs out of order.

use std::time::Duration;

use devkit::proxy::Proxy;
use serde_json::json;

use super::{BLOCKED_AFTER, Ward, mean, rise};
use crate::world::{World, create, report};

/// A world, and the way to its Event Hubs.
async fn world() -> (World, Proxy) {
    let mut world = World::new().await;
    let proxy = Proxy::start(world.stack.broker().address()).await.expect("a port");
    world.configure(&format!(
        "[eventhubs]\nendpoint = \"amqp://{}\"\nstall_timeout = \"2s\"\nopen_timeout = \"2s\"\n{BLOCKED_AFTER}",
        proxy.address()
    ));
    (world, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn that_refuse_connections_are_down_and_every_partition_says_that_it_waits() {
    let (world, proxy) = world().await;
    let mut ward = Ward::start(&world).await;
    proxy.refuse();
    world.apply(report("pump", json!({"while": "away"})));
    ward.says(503, "waits:").await;
    ward.says(503, "the Event Hub twin-changes has not answered").await;
    ward.until("it shows in figures", |now, before| {
        now.sum("twinsync_partition_up", "") == 0.0
            && now.sum("twinsync_eventhub_up", "") == 0.0
            && now.sum("twinsync_ready", "") == 0.0
            && rise(now, before, "twinsync_partition_rebuilds_total", "reason=\"lost\"") >= 4.0
    })
    .await;
    // Each partition tells each of its tries; they become rarer.
    // One line per Event Hub in ten seconds for the tries, and one for the Event Hub itself.
    ward.told(
        10,
        &["connecting again at the last event received", "retry_in=", "asked again until it answers"],
    );
    proxy.admit();
    ward.well().await;
    ward.stop().await;
}

/// No error tells, and no event comes: only who asks notices.
#[tokio::test(flavor = "multi_thread")]
async fn that_hang_are_down_although_no_connection_breaks() {
    let (world, proxy) = world().await;
    let mut ward = Ward::start(&world).await;
    proxy.freeze();
    world.apply(report("pump", json!({"while": "frozen"})));
    for hub in ["lifecycle", "twin-changes"] {
        ward.says(503, &format!("the Event Hub {hub} has not answered")).await;
    }
    ward.until("it shows in figures", |now, _| {
        now.sum("twinsync_eventhub_up", "") == 0.0 && now.sum("twinsync_ready", "") == 0.0
    })
    .await;
    ward.told(2, &["asked again until it answers; what arrives is worked off"]);
    proxy.thaw();
    ward.well().await;
    assert!(world.log().contains("what did not answer answers again"));
    ward.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn that_are_slow_show_in_the_latency() {
    let (world, proxy) = world().await;
    let mut ward = Ward::start(&world).await;
    proxy.delay(Duration::from_millis(150));
    for number in 0..8 {
        world.apply(create(&format!("pump-{number}")));
    }
    ward.stays_ready(Duration::from_secs(3)).await;
    ward.until("it shows in the latency", |now, before| {
        mean(now, before, "twinsync_eventhub_to_received_seconds", 8.0).is_some_and(|mean| mean > 0.1)
    })
    .await;
    ward.told(0, &[]);
    proxy.delay(Duration::ZERO);
    ward.well().await;
    ward.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn that_throttle_are_borne_for_a_while_and_counted() {
    let (world, _proxy) = world().await;
    let mut ward = Ward::start(&world).await;
    world.stack.broker().faults().throttle(true);
    world.apply(report("pump", json!({"while": "throttled"})));
    ward.says(200, "has been throttled for").await;
    ward.until("it is counted", |now, before| {
        rise(now, before, "twinsync_partition_rebuilds_total", "reason=\"throttled\"") >= 4.0
            && now.sum("twinsync_partition_up", "") == 0.0
            && now.sum("twinsync_eventhub_up", "") == 2.0
    })
    .await;
    ward.says(503, "has been throttled for").await;
    ward.told(6, &["was throttled", "EVENTHUBS_THROTTLED", "retry_in=4."]);
    world.stack.broker().faults().throttle(false);
    ward.well().await;
    ward.stop().await;
}
