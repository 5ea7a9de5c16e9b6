//! Health and metrics over HTTP.

use std::{os::unix::fs::PermissionsExt as _, time::Duration};

use devkit::daemon::Setup;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::world::{PROGRAM, World, create, report, until};

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_metrics_answer() {
    let world = World::new().await;
    let mut daemon = world.start().await;
    world.apply(create("pump"));
    world.apply(report("pump", json!({"on": true})));
    world.equal().await;
    for path in ["/livez", "/readyz", "/version"] {
        let (status, text) = daemon.get(path).await.expect("answers");
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str::<Value>(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"));
    }
    let (status, _) = daemon.get("/nowhere").await.expect("answers");
    assert_eq!(status, 404);
    until(&mut daemon, "the freshness of both changes is recorded", |sample| {
        sample.count("twinsync_freshness_seconds_count", "") == 2
    })
    .await;
    let sample = daemon.sample().await.expect("metrics");
    assert_eq!(
        sample.count("twinsync_events_total", "decision=\"applied\"")
            + sample.count("twinsync_events_total", "decision=\"partial\""),
        2
    );
    assert!(sample.count("twinsync_writes_total", "outcome=\"written\"") >= 1);
    assert!(sample.sum("twinsync_request_units_total", "") > 0.0);
    until(&mut daemon, "the lag is 0 when idle", |sample| sample.sum("twinsync_lag_events", "") == 0.0).await;
    let (_, text) = daemon.get("/metrics").await.expect("answers");
    assert!(!text.contains("pump"), "a device id is a label");
    daemon.stop().await.expect("exit code 0");
}

/// More half-sent requests than the daemon may have file descriptors.
#[tokio::test(flavor = "multi_thread")]
async fn half_sent_requests_starve_neither_probes_nor_checkpoints() {
    let mut world = World::new().await;
    let few = world.directory.path().join("few-descriptors");
    std::fs::write(&few, format!("#!/bin/sh\nulimit -n 120\nexec {PROGRAM} \"$@\"\n")).expect("written");
    std::fs::set_permissions(&few, std::fs::Permissions::from_mode(0o755)).expect("permitted");
    let more = "[checkpoint]\ninterval = \"100ms\"\n";
    world.setup = Setup::new(&few, world.directory.path(), world.stack.endpoints(), more).expect("written");
    let mut daemon = world.start().await;
    let mut half_sent = Vec::new();
    for _ in 0..150 {
        let mut stream = tokio::net::TcpStream::connect(daemon.address()).await.expect("connects");
        // The write may fail, because the daemon closes the oldest connections when it has too many.
        let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").await;
        half_sent.push(stream);
    }
    let probe = tokio::time::timeout(Duration::from_secs(1), daemon.get("/livez"));
    assert_eq!(probe.await.expect("in time").expect("answers").0, 200);
    world.apply(create("pump"));
    world.equal().await;
    until(&mut daemon, "the checkpoints are written", |sample| {
        sample.sum("twinsync_checkpoint_age_seconds", "") == 0.0
            && sample.sum("twinsync_checkpoint_failures_total", "") == 0.0
    })
    .await;
    daemon.stop().await.expect("exit code 0");
}
