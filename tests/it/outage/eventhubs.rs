//! Outages of Event Hubs.

use std::time::Duration;

use devkit::proxy::Proxy;
use serde_json::json;

use super::{BLOCKED_AFTER, Ward, mean, rise};
use crate::world::{World, create, report};

/// A world with Event Hubs behind a proxy.
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
    ward.until("the metrics show the outage of Event Hubs", |now, before| {
        now.sum("twinsync_partition_up", "") == 0.0
            && now.sum("twinsync_eventhub_up", "") == 0.0
            && now.sum("twinsync_ready", "") == 0.0
            && rise(now, before, "twinsync_partition_rebuilds_total", "reason=\"lost\"") >= 4.0
    })
    .await;
    // One line per Event Hub in ten seconds for the attempts of all its partitions, which become rarer, and
    // one line for the Event Hub itself.
    ward.assert_logged(
        10,
        &["connecting again at the last event received", "retry_in=", "asked again until it answers"],
    );
    proxy.admit();
    ward.well().await;
    ward.stop().await;
}

/// No error is reported and no event arrives. Only a request shows that Event Hubs is down.
#[tokio::test(flavor = "multi_thread")]
async fn that_hang_are_down_although_no_connection_breaks() {
    let (world, proxy) = world().await;
    let mut ward = Ward::start(&world).await;
    proxy.freeze();
    world.apply(report("pump", json!({"while": "frozen"})));
    for hub in ["lifecycle", "twin-changes"] {
        ward.says(503, &format!("the Event Hub {hub} has not answered")).await;
    }
    ward.until("the metrics show the outage of Event Hubs", |now, _| {
        now.sum("twinsync_eventhub_up", "") == 0.0 && now.sum("twinsync_ready", "") == 0.0
    })
    .await;
    ward.assert_logged(2, &["asked again until it answers; received events are completed"]);
    proxy.thaw();
    ward.well().await;
    assert!(world.log().contains("a dependency answers again"));
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
    ward.until("the latency to received rises", |now, before| {
        mean(now, before, "twinsync_eventhub_to_received_seconds", 8.0).is_some_and(|mean| mean > 0.1)
    })
    .await;
    ward.assert_logged(0, &[]);
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
    ward.until("the metric shows throttled rebuilds", |now, before| {
        rise(now, before, "twinsync_partition_rebuilds_total", "reason=\"throttled\"") >= 4.0
            && now.sum("twinsync_partition_up", "") == 0.0
            && now.sum("twinsync_eventhub_up", "") == 2.0
    })
    .await;
    ward.says(503, "has been throttled for").await;
    ward.assert_logged(6, &["was throttled", "EVENTHUBS_THROTTLED", "retry_in=4."]);
    world.stack.broker().faults().throttle(false);
    ward.well().await;
    ward.stop().await;
}
