//! What an outage does to the log: few lines, each with what is being done, and nothing of it lost for the figures.

use std::time::Instant;

use devkit::stack::Options;
use serde_json::json;

use crate::world::{World, create, report, until};

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_event_hubs_is_one_line_per_hub_in_ten_seconds_however_often_it_is_tried() {
    let world = World::with(Options::default(), "").await;
    let mut daemon = world.start().await;
    world.apply(create("pump"));
    world.equal().await;
    let (began, broker) = (Instant::now(), world.stack.broker());
    broker.go_down().await;
    until(&mut daemon, "each partition has tried several times", |sample| {
        sample.count("twinsync_partition_rebuilds_total", "") >= 24
    })
    .await;
    let (log, lasted) = (world.log(), began.elapsed().as_secs() as usize);
    broker.come_back().await.expect("the port is free");
    world.apply(report("pump", json!({"on": true})));
    world.equal().await;
    daemon.stop().await.expect("exit code 0");
    let warnings: Vec<_> =
        log.lines().filter(|line| line.contains(" WARN ") && line.contains("partition=")).collect();
    let endpoints = world.stack.endpoints();
    let hubs = [&endpoints.lifecycle_hub, &endpoints.twin_changes_hub];
    // What broke and what cannot be opened are two codes at most.
    assert!((1..=4 * (lasted / 10 + 1)).contains(&warnings.len()), "{lasted} s: {warnings:#?}");
    for line in &warnings {
        let named = hubs.iter().any(|hub| line.contains(&format!("partition={hub}/")));
        assert!(named && line.contains("EVENTHUBS_UNAVAILABLE") && line.contains("retry_in="), "{line}");
    }
}
