//! The command line: options and their output, and secrets that must never be printed.

use std::process::Command;

use crate::world::{PROGRAM, World, create};

#[tokio::test(flavor = "multi_thread")]
async fn print_config_shows_origins_and_no_secrets() {
    let world = World::new().await;
    let output = Command::new(PROGRAM)
        .arg("print-config")
        .arg("--config")
        .arg(world.directory.path().join("twinsync.toml"))
        .env("TWINSYNC__COSMOS__CONCURRENCY_MAX", "7")
        .output()
        .expect("runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    let line = |key: &str| {
        text.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("{key}: {text}"))
    };
    assert!(line("cosmos.concurrency_max").contains("TWINSYNC__COSMOS__CONCURRENCY_MAX"), "{text}");
    assert!(line("eventhubs.namespace").contains("twinsync.toml"), "{text}");
    let endpoints = world.stack.endpoints();
    for secret in [&endpoints.cosmos_key, &endpoints.token] {
        assert!(!line("cosmos.key").contains(secret) && !line("credential.token").contains(secret), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_reaches_the_log_at_any_level() {
    let token = "a-token-that-nobody-may-see";
    let options = devkit::stack::Options { token: Some(token.to_owned()), ..Default::default() };
    let world = World::with(options, "[telemetry]\nlog_filter = \"trace\"\n").await;
    let daemon = world.start().await;
    world.apply(create("pump"));
    world.equal().await;
    daemon.stop().await.expect("exit code 0");
    let log = std::fs::read(world.directory.path().join("log")).expect("a log");
    let log = String::from_utf8_lossy(&log);
    assert!(log.len() > 1000, "the log is too short for this test");
    for line in log.lines().filter(|line| line.contains("twinsync::")) {
        assert!(!line.contains(token) && !line.contains(&world.stack.endpoints().cosmos_key), "{line}");
    }
    let key = &world.stack.endpoints().cosmos_key;
    assert!(!log.contains(key.as_str()), "the account key is in the log");
}

#[test]
fn help_and_version_answer() {
    for argument in ["--help", "--version"] {
        let output = Command::new(PROGRAM).arg(argument).output().expect("runs");
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains("twinsync"));
    }
}
