//! Checkpoints that do not match their partition, and those that do.

use std::process::Stdio;

use serde_json::json;

use crate::world::{World, create, report};

/// Runs the daemon until it ends by itself. Returns the exit code and the output.
async fn ends(world: &World) -> (Option<i32>, String) {
    let output = world.setup.command().stdout(Stdio::null()).stderr(Stdio::piped()).output();
    let output = tokio::time::timeout(crate::world::LIMIT, output).await.expect("ends").expect("runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

async fn recreated(more: &str) -> World {
    let world = World::with(Default::default(), more).await;
    let daemon = world.start().await;
    world.apply(create("pump"));
    for step in 0..10 {
        world.apply(report("pump", json!({"step": step})));
    }
    world.equal().await;
    daemon.stop().await.expect("exit code 0");
    let endpoints = world.stack.endpoints();
    world.stack.broker().faults().recreate(&endpoints.twin_changes_hub).expect("exists");
    world.apply(report("pump", json!({"step": "after"})));
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_beyond_the_partition_stops_with_a_code() {
    let world = recreated("").await;
    let (code, words) = ends(&world).await;
    assert_eq!(code, Some(1), "{words}");
    let last = words.lines().last().unwrap_or_default();
    assert!(last.starts_with("error: ") && last.contains("CHECKPOINT_INVALID"), "{words}");
    assert!(last.contains("checkpoint.on_invalid"), "the remedy is missing: {last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_checkpoint_restarts_at_the_oldest_event_if_configured() {
    let world = recreated("[checkpoint]\non_invalid = \"earliest\"\n").await;
    let daemon = world.start().await;
    world.equal().await;
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_expired_behind_a_checkpoint_stop_with_the_same_code() {
    let world = World::new().await;
    let daemon = world.start().await;
    world.apply(create("pump"));
    world.apply(report("pump", json!({"step": 0})));
    world.equal().await;
    daemon.stop().await.expect("exit code 0");
    for step in 1..10 {
        world.apply(report("pump", json!({"step": step})));
    }
    let hub = &world.stack.endpoints().twin_changes_hub;
    for partition in 0..2 {
        world.stack.broker().faults().expire_before(hub, partition, 5).expect("exists");
    }
    let (code, words) = ends(&world).await;
    let last = words.lines().last().unwrap_or_default();
    assert_eq!(code, Some(1), "{words}");
    assert!(last.contains("retention has passed") && last.contains("CHECKPOINT_INVALID"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_checkpoint_is_an_error_and_never_none() {
    let world = World::new().await;
    let daemon = world.start().await;
    world.apply(create("pump"));
    world.equal().await;
    daemon.stop().await.expect("exit code 0");
    let files = world.files("checkpoints");
    let damaged = files.iter().filter(|file| file.extension().is_some_and(|kind| kind == "json"));
    let mut count = 0;
    for file in damaged {
        std::fs::write(file, b"{\"sequence").expect("writable");
        count += 1;
    }
    assert!(count > 0, "{files:?}");
    let (code, words) = ends(&world).await;
    assert_eq!(code, Some(1), "{words}");
    let last = words.lines().last().unwrap_or_default();
    assert!(last.starts_with("error: ") && last.contains("checkpoint"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_daemons_cannot_share_one_directory() {
    let world = World::new().await;
    let daemon = world.start().await;
    let mut second = world.setup.command();
    second.env("TWINSYNC__HTTP__LISTEN", "off").stderr(Stdio::piped());
    let output =
        tokio::time::timeout(crate::world::LIMIT, second.output()).await.expect("ends").expect("runs");
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.lines().last().unwrap_or_default().contains("another"), "{words}");
    daemon.stop().await.expect("exit code 0");
}
