//! The status of a replica, over HTTP and on the command line.

use std::{
    process::{Command, Output},
    time::{Duration, Instant},
};

use devkit::daemon::Daemon;
use serde_json::{Value, json};

use crate::{
    flag::now,
    poison::twin_change,
    world::{LIMIT, PROGRAM, World, create, report},
};

fn ask(daemon: &Daemon, arguments: &[&str]) -> Output {
    let address = format!("http://{}", daemon.address());
    Command::new(PROGRAM).args(arguments).args(["--address", &address]).output().expect("runs")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

async fn status(daemon: &Daemon) -> Value {
    let (code, text) = daemon.get("/api/status").await.expect("answers");
    assert_eq!(code, 200, "{text}");
    serde_json::from_str(&text).expect("JSON")
}

/// Waits until the status satisfies `wanted`.
pub(crate) async fn until(daemon: &Daemon, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let started = Instant::now();
    loop {
        let found = status(daemon).await;
        if wanted(&found) {
            return found;
        }
        assert!(started.elapsed() < LIMIT, "timed out waiting until {what}: {found:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn page_command_and_probe_agree_before_during_and_after_an_outage() {
    let world = World::new().await;
    let daemon = world.start().await;
    for number in 0..20 {
        world.apply(create(&format!("pump-{number}")));
    }
    world.equal().await;
    let in_step = |partition: &Value| {
        partition["ours"] == true && partition["lagEvents"] == 0 && partition["state"] == "receiving"
    };
    let found = until(&daemon, "the headline is good, and no partition has lag", |found| {
        let partitions = found["partitions"].as_array().expect("a list");
        found["headline"]["level"] == "good"
            && found["freshness"]["p99Seconds"].is_f64()
            && partitions.len() == 4
            && partitions.iter().all(in_step)
    })
    .await;
    assert!(found["decisions"]["applied"].as_u64().is_some_and(|applied| applied >= 20), "{found:#}");
    assert_eq!(found["loss"]["seconds"], 86_400.0, "without lag the whole retention must be left");
    let token = &found["tokens"][0];
    assert!(
        token["scope"] == "eventhubs" && token["expires"].is_string() && token["failed"].is_null(),
        "{found:#}"
    );
    let shown = ask(&daemon, &["status"]);
    assert!(shown.status.success() && text(&shown).starts_with("GOOD  In step"), "{}", text(&shown));
    let printed = ask(&daemon, &["status", "--json"]);
    let printed: Value = serde_json::from_slice(&printed.stdout).expect("one JSON object");
    assert_eq!((&printed["schema"], &printed["ready"]), (&json!(1), &json!(true)));
    assert!(ask(&daemon, &["healthcheck"]).status.success());
    assert!(ask(&daemon, &["healthcheck", "--ready"]).status.success());

    world.cosmos_is_away(true);
    for number in 0..8 {
        world.apply(report(&format!("pump-{number}"), json!({"step": 1})));
    }
    let found = until(&daemon, "the headline is bad", |found| found["headline"]["level"] == "bad").await;
    let headline = found["headline"]["text"].as_str().expect("a text");
    assert!(headline.starts_with("Blocked: the document store has not answered since "), "{headline}");
    let cosmos =
        found["dependencies"].as_array().expect("a list").iter().find(|found| found["name"] == "Cosmos DB");
    assert!(
        cosmos.is_some_and(|cosmos| cosmos["state"] == "down" && cosmos["downSince"].is_string()),
        "{found:#}"
    );
    assert!(!found["log"].as_array().expect("a list").is_empty(), "{found:#}");
    let shown = ask(&daemon, &["status"]);
    assert_eq!(shown.status.code(), Some(1));
    assert!(text(&shown).starts_with("BAD  Blocked"), "{}", text(&shown));
    let probe = ask(&daemon, &["healthcheck", "--ready"]);
    assert_eq!(probe.status.code(), Some(1));
    assert!(text(&probe).contains("the document store does not answer"), "{}", text(&probe));
    assert!(
        ask(&daemon, &["healthcheck"]).status.success(),
        "liveness must not fail: a restart would not help"
    );

    world.cosmos_is_away(false);
    world.equal().await;
    until(&daemon, "the headline is good again", |found| found["headline"]["level"] == "good").await;
    assert!(ask(&daemon, &["status"]).status.success());
    let address = format!("http://{}", daemon.address());
    daemon.stop().await.expect("exit code 0");
    let gone = Command::new(PROGRAM).args(["status", "--address", &address]).output().expect("runs");
    assert_eq!(gone.status.code(), Some(1));
    assert!(text(&gone).contains("is the replica running"), "{}", text(&gone));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_says_where_the_replica_listens() {
    let world = World::new().await;
    let daemon = world.start().await;
    let file = world.directory.path().join("twinsync.toml");
    let probe = Command::new(PROGRAM).arg("healthcheck").arg("--config").arg(&file).output().expect("runs");
    assert!(probe.status.success(), "{}", text(&probe));
    let off = Command::new(PROGRAM)
        .args(["status", "--config"])
        .arg(&file)
        .env("TWINSYNC__HTTP__LISTEN", "off")
        .output()
        .expect("runs");
    assert_eq!(off.status.code(), Some(2));
    assert!(text(&off).contains("--address"), "{}", text(&off));
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_counted_where_they_are_stored_also_after_a_restart() {
    let world = World::new().await;
    let mut daemon = world.start().await;
    let hub = world.stack.endpoints().twin_changes_hub.clone();
    for body in [&b"[1]"[..], b"[2]", b"{"] {
        world.stack.broker().append(&hub, "pump", now(twin_change("pump", body))).expect("appended");
    }
    crate::world::until(&mut daemon, "the metric shows three dead letters", |now| {
        now.sum("twinsync_dead_letters_total", "") == 3.0
    })
    .await;
    let stored = |found: &Value| found["deadLetters"]["stored"].clone();
    let found =
        until(&daemon, "the status shows three stored dead letters", |found| stored(found)["count"] == 3)
            .await;
    let stored_now = stored(&found);
    assert_eq!((&stored_now["more"], &stored_now["read"]), (&json!(false), &json!(3)), "{stored_now:#}");
    let by_reason = stored_now["byReason"].as_object().expect("reasons");
    assert_eq!(by_reason.values().filter_map(Value::as_u64).sum::<u64>(), 3, "{stored_now:#}");
    assert!(stored_now["oldest"].is_string() && stored_now["asked"].is_string(), "{stored_now:#}");
    daemon.stop().await.expect("exit code 0");

    let daemon = world.start().await;
    // A single call waits until the dead letters are counted.
    let shown = text(&ask(&daemon, &["status"]));
    assert!(shown.contains("3 stored, the oldest ") && shown.contains("0 since the start"), "{shown}");
    daemon.stop().await.expect("exit code 0");
}
