//! Problems of Event Hubs.

use std::time::{Duration, Instant};

use devkit::proxy::Proxy;
use serde_json::json;

use super::{check, check_with, right};
use crate::{
    registry::bench::Bench,
    world::{create, report},
};

const GROUP: &str = "TWINSYNC__EVENTHUBS__CONSUMER_GROUP";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_named_and_what_needs_it_is_skipped() {
    let bench = right().await;
    let found =
        check_with(&bench, &[("TWINSYNC__EVENTHUBS__TWIN_CHANGES__HUB", "nowhere")], &["--connect"]).await;
    assert_eq!(found.code, 2);
    found.says("eventhubs.hub", "fail", "EVENTHUBS_NOT_FOUND", "eventhubs.namespace");
    found.says("eventhubs.hub", "ok", "", "2 partitions");
    found.says("eventhubs.group", "skipped", "", "eventhubs.hub (nowhere)");
    assert_eq!(found.wrong().len(), 1, "{:?}", found.wrong());
    let found = check_with(&bench, &[(GROUP, "nobody")], &["--connect"]).await;
    assert_eq!(found.code, 2);
    found.says("eventhubs.hub", "ok", "", "2 partitions");
    found.says("eventhubs.group", "fail", "EVENTHUBS_NOT_FOUND", "eventhubs.consumer_group");
    found.says("eventhubs.oldest", "skipped", "", "eventhubs.group");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_away_refuses_throttles_or_hangs_fails_in_seconds() {
    let bench = right().await;
    let broker = bench.world.stack.broker();
    broker.faults().refuse_tokens_for(Duration::from_secs(600));
    let found = check(&bench, &["--connect"]).await;
    found.says("eventhubs.hub", "fail", "EVENTHUBS_REFUSED", "Azure Event Hubs Data Receiver");
    broker.faults().refuse_tokens_for(Duration::ZERO);
    broker.faults().throttle(true);
    let found = check(&bench, &["--connect"]).await;
    found.says("eventhubs.group", "fail", "EVENTHUBS_THROTTLED", "throughput units");
    broker.faults().throttle(false);
    let proxy = Proxy::start(broker.address()).await.expect("a port");
    proxy.freeze();
    let endpoint = format!("amqp://{}", proxy.address());
    let started = Instant::now();
    let found = check_with(&bench, &[("TWINSYNC__EVENTHUBS__ENDPOINT", &endpoint)], &["--connect"]).await;
    assert!(started.elapsed() < Duration::from_secs(15), "took {:?}", started.elapsed());
    found.says("eventhubs.hub", "fail", "EVENTHUBS_UNAVAILABLE", "no answer within 5 s");
    broker.go_down().await;
    let found = check(&bench, &["--connect"]).await;
    found.says("eventhubs.hub", "fail", "EVENTHUBS_UNAVAILABLE", "port 5671");
    found.says("iothub.names", "skipped", "", "eventhubs.hub");
    found.says("cosmos.write", "ok", "", "removed again");
}

/// Runs a daemon until both Event Hubs have checkpoints.
async fn handled(bench: &Bench) {
    let mut daemon = bench.start().await;
    for number in 0..20 {
        bench.world.apply(create(&format!("pump-{number}")));
        bench.world.apply(report(&format!("pump-{number}"), json!({"step": 1})));
    }
    bench.world.equal().await;
    bench.caught_up(&mut daemon).await;
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_behind_the_beginning_and_past_the_end_are_told_before_a_start_meets_them() {
    let bench = right().await;
    handled(&bench).await;
    let found = check(&bench, &["--connect"]).await;
    assert_eq!(found.code, 0, "{:?}", found.wrong());
    found.says("eventhubs.checkpoints", "ok", "", "all fit their partitions; 0 events to receive");
    found.says("eventhubs.group", "ok", "", "an event was received");
    found.says("eventhubs.oldest", "ok", "", "fits eventhubs.retention");
    found.says("iothub.names", "ok", "", "come from configured hubs");
    let (broker, endpoints) = (bench.world.stack.broker(), bench.world.stack.endpoints());
    for number in 0..20 {
        bench.world.apply(report(&format!("pump-{number}"), json!({"step": 2})));
    }
    for partition in broker.partitions(&endpoints.twin_changes_hub).expect("exists") {
        let next = partition.last_sequence_number + 1;
        broker.faults().expire_before(&endpoints.twin_changes_hub, partition.id, next).expect("exists");
    }
    broker.faults().recreate(&endpoints.lifecycle_hub).expect("exists");
    let found = check(&bench, &["--connect"]).await;
    assert_eq!(found.code, 2);
    found.says("eventhubs.checkpoints", "fail", "CHECKPOINT_INVALID", "retention has passed the checkpoint");
    found.says("eventhubs.checkpoints", "fail", "CHECKPOINT_INVALID", "was re-created");
    let goes_on = [("TWINSYNC__CHECKPOINT__ON_INVALID", "earliest_and_audit")];
    let found = check_with(&bench, &goes_on, &["--connect"]).await;
    assert_eq!(found.code, 1);
    found.says("eventhubs.checkpoints", "warn", "CHECKPOINT_INVALID", "and begins an audit");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_keep_others_out_are_told() {
    let bench = right().await;
    let endpoints = bench.world.stack.endpoints();
    let (hub, namespace) = (endpoints.lifecycle_hub.clone(), endpoints.namespace.clone());
    let source = || {
        twinsync::adapters::eventhubs::EventHub::new(
            twinsync::adapters::eventhubs::Options {
                namespace: namespace.clone(),
                hub: hub.clone(),
                consumer_group: "$Default".to_owned(),
                endpoint: Some(endpoints.eventhubs.clone()),
                prefetch: 10,
                open_timeout: Duration::from_secs(10),
            },
            credential(),
        )
    };
    bench.world.apply(create("pump"));
    let attaches = bench.world.stack.broker().faults().counters().attaches;
    let mut readers = Vec::new();
    for _ in 0..5 {
        for partition in ["0", "1"] {
            use twinsync::ports::{EventSource as _, Start};
            readers.push(source().open(partition, Start::Earliest).await.expect("opens"));
        }
    }
    let started = Instant::now();
    while bench.world.stack.broker().faults().counters().attaches < attaches + 10 {
        assert!(started.elapsed() < crate::world::LIMIT, "not all readers attached in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let found = check(&bench, &["--connect"]).await;
    found.says("eventhubs.group", "fail", "EVENTHUBS_LIMIT", "consumer group of its own");
    assert_eq!(found.wrong().len(), 1, "{:?}", found.wrong());
    for reader in readers {
        reader.close().await;
    }
    let found = check(&bench, &["--connect"]).await;
    assert_eq!(found.code, 0, "{:?}", found.wrong());
}

fn credential() -> std::sync::Arc<dyn azure_core::credentials::TokenCredential> {
    let identity = twinsync::config::Identity::Emulator { token: twinsync::config::Secret::new("devkit") };
    twinsync::adapters::credential::connect(&identity).expect("an emulator's")
}

#[tokio::test(flavor = "multi_thread")]
async fn events_older_than_the_configured_retention_are_reported() {
    const HOUR: Duration = Duration::from_secs(3600);
    let bench = right().await;
    let hub = bench.world.stack.endpoints().lifecycle_hub.clone();
    let faults = bench.world.stack.broker().faults();
    for partition in 0..2 {
        faults.stamp_earlier(&hub, partition, HOUR * 50).expect("exists");
    }
    bench.world.apply(create("pump"));
    let found = check(&bench, &["--connect"]).await;
    found.says("eventhubs.oldest", "warn", "EVENTHUBS_RETENTION", "2 d 2 h old");
    assert_eq!((found.code, found.wrong().len()), (1, 1), "{:?}", found.wrong());
    let retention = [("TWINSYNC__EVENTHUBS__RETENTION", "3d")];
    assert_eq!(check_with(&bench, &retention, &["--connect"]).await.code, 0);
    let tombstones = [("TWINSYNC__DOCUMENT__TOMBSTONE_TTL", "49h")];
    let found = check_with(&bench, &tombstones, &["--connect"]).await;
    found.says("eventhubs.oldest", "fail", "EVENTHUBS_RETENTION", "bring deleted twins back");
    let found = check_with(&bench, &[("TWINSYNC__DOCUMENT__TOMBSTONE_TTL", "25h")], &[]).await;
    found.says("eventhubs.retention", "warn", "EVENTHUBS_RETENTION", "document.tombstone_ttl");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_with_an_owner_level_is_reported() {
    let bench = right().await;
    let hub = bench.world.stack.endpoints().twin_changes_hub.clone();
    let faults = bench.world.stack.broker().faults();
    let occupied = faults.occupy(&hub, 1, "$Default").expect("free");
    let found = check(&bench, &["--connect"]).await;
    found.says("eventhubs.group", "fail", "EVENTHUBS_FOREIGN_READER", "owner level");
    found.says("eventhubs.group", "fail", "EVENTHUBS_FOREIGN_READER", "partition 1 only");
    assert_eq!(found.wrong().len(), 1, "{:?}", found.wrong());
    drop(occupied);
    assert_eq!(check(&bench, &["--connect"]).await.code, 0);
}
