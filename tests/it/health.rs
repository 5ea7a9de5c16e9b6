//! Health and metrics over HTTP.

use serde_json::{Value, json};

use crate::world::{World, create, report, until};

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
    until(&mut daemon, "freshness was recorded", |sample| {
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
    until(&mut daemon, "lag is nought when idle", |sample| sample.sum("twinsync_lag_events", "") == 0.0)
        .await;
    let (_, text) = daemon.get("/metrics").await.expect("answers");
    assert!(!text.contains("pump"), "no device id is a label");
    daemon.stop().await.expect("exit code 0");
}
