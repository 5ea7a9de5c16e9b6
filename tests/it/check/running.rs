//! Checks beside a running daemon, under load, and interrupted.

use std::time::{Duration, Instant};

use devkit::{
    cosmos::{Fault, Faults, Operations},
    fleet::{Pace, Plan},
    proxy::Proxy,
    stack::Options,
};

use super::{check, right};
use crate::{
    blob::listing,
    registry::bench::{Bench, FAST},
    world::{LIMIT, create, until},
};

/// Short leases, so that a lost lease is noticed.
const MORE: &str = "[dead_letters]\nstore = \"blob\"\n[checkpoint]\nstore = \"blob\"\n[lease]\nduration = \"3s\"\n\
                    renew_interval = \"600ms\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_under_load_is_not_disturbed() {
    let bench = Bench::over(Options { azurite: true, ..Options::default() }, FAST, MORE).await;
    let mut daemon = bench.start().await;
    let plan = Plan { devices: 60, events: 4_000, seed: 71, phases: 1, ..Plan::default() };
    bench.world.replays(71);
    bench.world.stack.fleet().start(plan, Pace::Rate(250.0)).expect("the fleet starts");
    until(&mut daemon, "more than 200 events are counted", |sample| {
        sample.count("twinsync_events_total", "") > 200
    })
    .await;
    let mut checks = 0;
    while bench.world.stack.fleet().progress().state == devkit::fleet::State::Running || checks == 0 {
        let found = check(&bench, &["--connect"]).await;
        // The daemon's share is the whole quota in this setup.
        assert_eq!(found.wrong().into_iter().collect::<Vec<_>>(), ["iothub.quota"]);
        found.says("http.listen", "ok", "", "in use by a running twinsync");
        found.says("eventhubs.owners", "ok", "", "2 partitions owned by 1 running replica");
        found.says("eventhubs.group", "ok", "", "can be read");
        checks += 1;
        let sample = daemon.sample().await.expect("metrics");
        assert_eq!(sample.count("twinsync_partitions_owned", ""), 4, "a lease was lost");
        assert_eq!(sample.count("twinsync_partition_rebuilds_total", ""), 0, "a client was rebuilt");
    }
    bench.world.stack.fleet().phase_end().await;
    bench.world.stack.hub().flush().expect("delivered");
    bench.caught_up(&mut daemon).await;
    let report = bench.world.equal().await;
    println!("{checks} checks beside {} events: {report}", bench.world.appended());
    assert!(checks >= 2, "only {checks} checks ran");
    let sample = daemon.sample().await.expect("metrics");
    assert_eq!(sample.count("twinsync_dead_letters_total", ""), 0);
    daemon.stop().await.expect("exit code 0");
    let log = bench.world.log();
    assert!(!log.contains(" ERROR ") && !log.contains("LEASE_"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_and_an_address_in_use_are_notes() {
    let bench = Bench::without_registry("").await;
    let daemon = bench.start().await;
    let found = check(&bench, &["--connect"]).await;
    let held = found.about("directory.checkpoints")[0]["text"].as_str().expect("text").to_owned();
    assert!(held.contains("in use by a running twinsync (process "), "{held}");
    found.says("http.listen", "ok", "", "in use by a running twinsync");
    assert!(found.code < 2, "{:?}", found.wrong());
    bench.world.apply(create("pump"));
    bench.world.equal().await;
    daemon.stop().await.expect("exit code 0");
    bench.start().await.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_throttles_now_and_then_is_no_failure() {
    let bench = right().await;
    let busy = Fault { next: None, probability: 0.4, ..Fault::next(429, 1) }.on(Operations::Documents);
    let faults = Faults { answers: vec![busy], seed: 5, ..Faults::default() };
    bench.world.stack.cosmos().set_faults(faults).expect("valid");
    let found = check(&bench, &["--connect"]).await;
    assert_eq!(found.code, 0, "{:?}", found.wrong());
    let busy = Fault { next: None, ..Fault::next(429, 1) }.on(Operations::Documents);
    let faults = Faults { answers: vec![busy], ..Faults::default() };
    bench.world.stack.cosmos().set_faults(faults).expect("valid");
    let found = check(&bench, &["--connect"]).await;
    found.says("cosmos.query", "warn", "COSMOS_THROTTLED", "throughput");
}

async fn until_true(what: &str, condition: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < LIMIT, "timed out waiting until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Starts a check, interrupts it when `midway` is true, and returns its exit code and output.
async fn interrupted(
    bench: &Bench,
    variables: &[(&str, &str)],
    midway: impl AsyncFn() -> bool,
) -> (Option<i32>, String) {
    let child = bench.spawn_with(variables, &["check", "--connect", "--json"]);
    until_true("the check is in progress", midway).await;
    let id = child.id().expect("it runs").to_string();
    let kill = tokio::process::Command::new("kill").args(["-INT", &id]).status().await.expect("runs");
    assert!(kill.success());
    let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await.expect("ends").expect("ran");
    (output.status.code(), String::from_utf8(output.stdout).expect("text"))
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_leaves_no_document_behind() {
    let bench = right().await;
    let cosmos = bench.world.stack.cosmos();
    cosmos.set_faults(Faults { latency_ms: 700, ..Faults::default() }).expect("valid");
    let created = async || cosmos.counters().get("create").is_some_and(|count| count.requests > 0);
    let (code, out) = interrupted(&bench, &[], created).await;
    assert_eq!(code, Some(130), "{out}");
    let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&json["complete"], &json["exitCode"]), (&false.into(), &130.into()), "{json:#}");
    cosmos.set_faults(Faults::default()).expect("valid");
    assert!(cosmos.counters()["delete"].requests > 0);
    assert_eq!(bench.report().await.documents, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_leaves_no_blob_behind() {
    let bench = right().await;
    assert_eq!(check(&bench, &["--connect"]).await.code, 0, "the container was created");
    let azurite = bench.world.stack.azurite().expect("it runs");
    let proxy = Proxy::start(azurite.address()).await.expect("a port");
    proxy.delay(Duration::from_millis(300));
    let url = bench.world.stack.endpoints().checkpoint_container_url.clone().expect("Azurite runs");
    let slow = url.replace(&azurite.address().to_string(), &proxy.address().to_string());
    let there = async || listing(&url).await.contains("check/probe-");
    let (code, out) = interrupted(&bench, &[("TWINSYNC__BLOB__CONTAINER_URL", &slow)], there).await;
    assert_eq!(code, Some(130), "{out}");
    let listed = listing(&url).await;
    assert!(!listed.contains("probe"), "{listed}");
}
