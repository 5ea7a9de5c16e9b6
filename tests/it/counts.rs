//! Declared counts, compared with the hub's query engine on the hub's twins.

use std::time::{Duration, Instant};

use devkit::{
    daemon::{Daemon, Signal},
    iothub::{Operation, TwinId},
    verify::wrong_counts,
};
use serde_json::{Value, json};

use crate::world::{LIMIT, World, create, device, plan, report};

/// Counts by groups that each twin of a fleet leaves for another group when it changes.
pub(crate) const COUNTS: &str = r#"
[counting]
interval = "1s"

[[counts]]
name = "all"

[[counts]]
name = "by_version"
group_by = "properties.reported.$version"

[[counts]]
name = "some"
where = "properties.reported.$version > 3 AND properties.desired.$version NIN [2, 4]"
group_by = ["properties.desired.$version", "tags.site"]

[[counts]]
name = "modules"
from = "devices.modules"
group_by = "properties.reported.$version"
"#;

/// Waits until the daemon's counts equal the results of the hub's query engine.
pub(crate) async fn are_the_hubs(world: &World, daemon: &Daemon) -> Value {
    are_the_hubs_within(world, daemon, LIMIT).await
}

async fn are_the_hubs_within(world: &World, daemon: &Daemon, limit: Duration) -> Value {
    let started = Instant::now();
    loop {
        let (status, body) = daemon.get("/api/counts").await.expect("an answer");
        assert_eq!(status, 200, "{body}");
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        let wrong = wrong_counts(&answer, &world.stack.hub().page(None, 1_000_000).twins);
        if wrong.is_empty() {
            return answer;
        }
        assert!(started.elapsed() < limit, "{wrong:#?}\n{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn value(daemon_metrics: &str, sample: &str) -> Option<f64> {
    daemon_metrics.lines().find_map(|line| line.strip_prefix(sample)?.trim().parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_follow_whoever_writes_and_begin_anew_with_every_start() {
    let world = World::with(Default::default(), COUNTS).await;
    let daemon = world.start().await;
    world.fleet(plan(40, 1_200, 71)).await;
    are_the_hubs(&world, &daemon).await;
    // The same counts in the metrics, in the status and in the command's output.
    let (_, metrics) = daemon.get("/metrics").await.expect("metrics");
    let twins = world.stack.hub().page(None, 1_000_000).twins;
    let devices = twins.iter().filter(|twin| twin.get("moduleId").is_none()).count();
    assert_eq!(value(&metrics, "twinsync_counted_twins{name=\"all\"}"), Some(devices as f64), "{metrics}");
    assert!(value(&metrics, "twinsync_counts_age_seconds").expect("shown") < 30.0);
    assert!(value(&metrics, "twinsync_request_units_total{purpose=\"counts\"}").expect("charged") > 0.0);
    let (_, status) = daemon.get("/api/status").await.expect("the status");
    let status: Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(status["counts"]["counts"][0]["total"], devices, "{status}");
    let printed = world.setup.command_for(&["status"]).output().await.expect("it runs");
    let printed = String::from_utf8(printed.stdout).expect("text");
    let line =
        printed.lines().find(|line| line.starts_with("by_version")).unwrap_or_else(|| panic!("{printed}"));
    assert!(line.contains(&devices.to_string()) && line.contains("; ") && line.contains(" more"), "{line}");
    // The daemon is killed at any point. Meanwhile twins are created, changed and deleted.
    daemon.end(Signal::Kill).await.expect("killed");
    for number in 0..20 {
        world.apply(create(&format!("late{number}")));
        world.apply(report(&format!("late{number}"), json!({"n": number})));
    }
    world.apply(Operation::Delete { id: device("late3") });
    world.apply(Operation::Create { id: TwinId::module("late4", "m").expect("an id"), twin: None });
    let daemon = world.start().await;
    world.equal().await;
    are_the_hubs(&world, &daemon).await;
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_process_writes_is_counted_and_so_is_what_was_there_before() {
    let mut world = World::with(Default::default(), "").await;
    let before = world.start().await;
    for number in 0..30 {
        world.apply(create(&format!("d{number}")));
    }
    world.equal().await;
    before.stop().await.expect("exit code 0");
    world.configure(COUNTS);
    let daemon = world.start().await;
    are_the_hubs(&world, &daemon).await;
    // A second daemon with its own checkpoints writes the same events again.
    let mut other = World {
        stack: world.stack,
        directory: tempfile::tempdir().expect("a directory"),
        setup: world.setup,
    };
    other.configure(COUNTS);
    let second = other.start().await;
    for number in 0..30 {
        other.apply(report(&format!("d{number}"), json!({"n": number})));
    }
    other.apply(Operation::Delete { id: device("d7") });
    other.equal().await;
    are_the_hubs(&other, &daemon).await;
    are_the_hubs(&other, &second).await;
    for daemon in [daemon, second] {
        daemon.stop().await.expect("exit code 0");
    }
}
