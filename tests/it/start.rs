//! Starts while dependencies are down or misconfigured. The daemon waits for what may recover, and ends with a code if a
//! person has to act.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use devkit::{
    azurite::{Permissions, Validity},
    daemon::Daemon,
    stack::Options,
};
use serde_json::json;

use crate::{
    outage::{alive, readiness},
    world::{LIMIT, World, create, report, until},
};

/// A grace period longer than any test. A daemon that ends because of it fails the test.
const LONG_GRACE_PERIOD: &str = "[start]\nrefused_grace = \"10m\"\n";

/// Starts a daemon whose `dependency` is down, checks what it reports while it waits, and then calls `back`.
async fn waits<F: Future<Output = ()>>(
    world: &World,
    dependency: &str,
    words: &str,
    back: impl FnOnce() -> F,
) {
    let mut daemon = world.setup.spawn().expect("starts");
    // HTTP is available before the first connection to a dependency.
    until_it_listens(&daemon).await;
    let reasons = readiness(&daemon, 503, words).await;
    assert_eq!(reasons[0], "starting", "{reasons:?}");
    alive(&daemon).await;
    let label = format!("dependency=\"{dependency}\"");
    until(&mut daemon, "two start delays are counted, and the daemon is not ready", |sample| {
        sample.count("twinsync_start_delays_total", &label) >= 2 && sample.sum("twinsync_ready", "") == 0.0
    })
    .await;
    world.apply(create("pump"));
    alive(&daemon).await;
    back().await;
    readiness(&daemon, 200, "").await;
    world.apply(report("pump", json!({"on": true})));
    world.equal().await;
    daemon.stop().await.expect("exit code 0");
    let log = world.log();
    let waiting = log.lines().filter(|line| line.contains("the start waits for a temporary error to end"));
    assert!(waiting.clone().all(|line| line.contains(" WARN ")) && waiting.count() >= 1, "{log}");
    assert!(log.contains("the start continues") && !log.contains(" ERROR "), "{log}");
}

async fn until_it_listens(daemon: &Daemon) {
    let started = Instant::now();
    while daemon.get("/livez").await.is_err() {
        assert!(started.elapsed() < LIMIT, "timed out waiting until the daemon listens: {}", daemon.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn event_hubs_that_is_away_is_waited_for() {
    let world = World::with(Options::default(), LONG_GRACE_PERIOD).await;
    let broker = world.stack.broker();
    broker.go_down().await;
    let back = || async { broker.come_back().await.expect("the port is free") };
    waits(&world, "eventhubs", "EVENTHUBS_UNAVAILABLE", back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn event_hubs_that_hangs_is_waited_for() {
    let world = World::with(Options::default(), "[eventhubs]\nopen_timeout = \"300ms\"\n").await;
    let proxy = devkit::proxy::Proxy::start(world.stack.broker().address()).await.expect("a port");
    proxy.freeze();
    let world = World {
        setup: world
            .setup
            .clone()
            .with_variable("TWINSYNC__EVENTHUBS__ENDPOINT", format!("amqp://{}", proxy.address())),
        ..world
    };
    waits(&world, "eventhubs", "no answer within", || async { proxy.thaw() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cosmos_db_that_is_away_is_waited_for() {
    let world = World::with(Options::default(), LONG_GRACE_PERIOD).await;
    world.cosmos_is_away(true);
    waits(&world, "cosmos", "COSMOS_UNAVAILABLE", || async { world.cosmos_is_away(false) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blob_storage_that_is_away_is_waited_for() {
    let world = World::with(Options { azurite: true, ..Options::default() }, LONG_GRACE_PERIOD).await;
    let azurite = world.stack.azurite().expect("there is blob storage");
    azurite.stop().await.expect("stops");
    let back = || async { azurite.restart().await.expect("starts again") };
    waits(&world, "checkpoints", "BLOB_UNAVAILABLE", back).await;
    assert!(!world.log().contains("sig="), "a signature is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_dependencies_that_are_down_are_reported() {
    let world = World::with(Options { azurite: true, ..Options::default() }, LONG_GRACE_PERIOD).await;
    let azurite = world.stack.azurite().expect("there is blob storage");
    azurite.stop().await.expect("stops");
    world.cosmos_is_away(true);
    let daemon = world.setup.spawn().expect("starts");
    until_it_listens(&daemon).await;
    readiness(&daemon, 503, "BLOB_UNAVAILABLE").await;
    readiness(&daemon, 503, "COSMOS_UNAVAILABLE").await;
    azurite.restart().await.expect("starts again");
    world.cosmos_is_away(false);
    readiness(&daemon, 200, "").await;
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_iot_hub_that_is_away_keeps_nobody_from_starting() {
    let mut world = World::new().await;
    // The port is bound and released, so nothing listens on it.
    let address = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port");
    let endpoints = world.stack.endpoints();
    let settings = format!(
        "[iothub]\nendpoint = \"http://{address}\"\nconnection_strings = \"{}\"\n[backfill]\non_start = \"if_empty\"\n",
        endpoints.iothub_connection_string
    );
    world.configure(&settings);
    let daemon = world.start().await;
    world.apply(create("pump"));
    world.equal().await;
    alive(&daemon).await;
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_takes_a_while_to_take_effect_is_waited_for() {
    let world = World::with(Options::default(), LONG_GRACE_PERIOD).await;
    let faults = world.stack.broker().faults();
    faults.refuse_tokens_for(LIMIT);
    let daemon = world.setup.spawn().expect("starts");
    until_it_listens(&daemon).await;
    readiness(&daemon, 503, "EVENTHUBS_REFUSED").await;
    alive(&daemon).await;
    faults.refuse_tokens_for(Duration::ZERO);
    readiness(&daemon, 200, "").await;
    world.apply(create("pump"));
    world.equal().await;
    daemon.stop().await.expect("exit code 0");
    let log = world.log();
    assert!(log.contains("ERROR") && log.contains("gives_up_in_seconds"), "{log}");
}

/// Runs the daemon with these settings until it ends by itself. It must not end before the grace period, and its last line
/// must contain `code`.
async fn given_up(world: &World, variables: &[(&str, &str)], code: &str) {
    const GRACE: Duration = Duration::from_secs(2);
    let mut command = world.setup.command();
    command.env("TWINSYNC__START__REFUSED_GRACE", "2s").envs(variables.iter().copied());
    let started = Instant::now();
    let output = command.stdout(Stdio::null()).stderr(Stdio::piped()).output();
    let output = tokio::time::timeout(LIMIT, output).await.expect("it ends").expect("runs");
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(started.elapsed() >= GRACE, "{code}: ended after {:?}\n{words}", started.elapsed());
    let last = words.lines().last().unwrap_or_default();
    assert!(last.starts_with("error: ") && last.contains(code), "{code}: {words}");
    assert!(words.contains("ERROR") && !words.contains("panicked"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_has_to_mend_ends_it_with_a_code_after_the_grace() {
    let options = Options { token: Some("the right one".to_owned()), ..Options::default() };
    let world = World::with(options, "").await;
    for (variable, value, code) in [
        ("TWINSYNC__EVENTHUBS__TWIN_CHANGES__HUB", "nowhere", "EVENTHUBS_NOT_FOUND"),
        ("TWINSYNC__EVENTHUBS__CONSUMER_GROUP", "nobody", "EVENTHUBS_NOT_FOUND"),
        ("TWINSYNC__CREDENTIAL__TOKEN", "the wrong one", "EVENTHUBS_REFUSED"),
        ("TWINSYNC__COSMOS__DATABASE", "elsewhere", "COSMOS_NOT_FOUND"),
        ("TWINSYNC__COSMOS__CONTAINER", "twinz", "COSMOS_NOT_FOUND"),
        ("TWINSYNC__COSMOS__KEY", "d3Jvbmc=", "COSMOS_REFUSED"),
    ] {
        given_up(&world, &[(variable, value)], code).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_that_refuses_or_lacks_the_container_ends_it_after_the_grace() {
    let world = World::with(Options { azurite: true, ..Options::default() }, "").await;
    let azurite = world.stack.azurite().expect("there is blob storage");
    for (url, code) in [
        (azurite.container_url("nowhere", Permissions::All, Validity::Good), "BLOB_CONTAINER_MISSING"),
        (azurite.account_url("twinsync", Validity::Expired), "BLOB_REFUSED"),
    ] {
        given_up(&world, &[("TWINSYNC__BLOB__CONTAINER_URL", &url)], code).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_to_stop_ends_the_waiting_at_once() {
    let world = World::with(Options::default(), LONG_GRACE_PERIOD).await;
    world.cosmos_is_away(true);
    let daemon = world.setup.spawn().expect("starts");
    until_it_listens(&daemon).await;
    readiness(&daemon, 503, "COSMOS_UNAVAILABLE").await;
    let asked = Instant::now();
    daemon.stop().await.expect("exit code 0");
    assert!(asked.elapsed() < Duration::from_secs(3), "took {:?}", asked.elapsed());
}

const GROUP: &str = "twinsync";

/// A world with a consumer group that can be deleted, and a daemon that reads from it.
async fn with_group(grace: &str) -> (World, Daemon) {
    let options = Options { consumer_groups: vec![GROUP.to_owned()], ..Options::default() };
    let settings =
        format!("[eventhubs]\nconsumer_group = \"{GROUP}\"\n[start]\nrefused_grace = \"{grace}\"\n");
    let world = World::with(options, &settings).await;
    let daemon = world.start().await;
    world.apply(create("pump"));
    world.equal().await;
    (world, daemon)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_group_that_is_deleted_while_running_is_loud_and_ends_it_with_a_code() {
    let (world, mut daemon) = with_group("4s").await;
    let hub = world.stack.endpoints().twin_changes_hub.clone();
    let deleted = Instant::now();
    world.stack.broker().faults().delete_group(&hub, GROUP).expect("exists");
    readiness(&daemon, 503, "EVENTHUBS_NOT_FOUND").await;
    alive(&daemon).await;
    until(&mut daemon, "the metrics show partitions that are down", |sample| {
        sample.sum("twinsync_partition_up", "") < 4.0
            && sample.count("twinsync_partition_rebuilds_total", "reason=\"not_found\"") >= 2
    })
    .await;
    let status = tokio::time::timeout(LIMIT, daemon.ended()).await.expect("it ends").expect("it ran");
    assert_eq!(status.code(), Some(1), "{}", world.log());
    assert!(deleted.elapsed() >= Duration::from_secs(4), "ended too early: {:?}", deleted.elapsed());
    let log = world.log();
    let last = log.lines().last().unwrap_or_default();
    assert!(last.starts_with("error: ") && last.contains("EVENTHUBS_NOT_FOUND"), "{log}");
    assert!(last.contains("eventhubs.consumer_group"), "{log}");
    let loud = log.lines().find(|line| line.contains(" ERROR "));
    assert!(loud.is_some_and(|line| line.contains("EVENTHUBS_NOT_FOUND") && line.contains(&hub)), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_group_that_comes_back_in_time_is_read_on() {
    let (world, daemon) = with_group("10m").await;
    let hub = world.stack.endpoints().twin_changes_hub.clone();
    let faults = world.stack.broker().faults();
    faults.delete_group(&hub, GROUP).expect("exists");
    readiness(&daemon, 503, "EVENTHUBS_NOT_FOUND").await;
    world.apply(report("pump", json!({"on": true})));
    faults.create_group(&hub, GROUP).expect("exists");
    readiness(&daemon, 200, "").await;
    world.equal().await;
    daemon.stop().await.expect("exit code 0");
}

/// The filesystem of a directory, by `stat`.
fn filesystem(directory: &std::path::Path) -> String {
    let output = std::process::Command::new("stat").args(["-f", "-c", "%T"]).arg(directory).output();
    String::from_utf8_lossy(&output.expect("stat runs").stdout).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_that_are_gone_with_the_container_are_warned_about_once_each() {
    let world = World::new().await;
    world.start().await.stop().await.expect("exit code 0");
    let log = world.log();
    let warnings = log.lines().filter(|line| line.contains("STORAGE_EPHEMERAL")).collect::<Vec<_>>();
    match filesystem(world.directory.path()).as_str() {
        "overlayfs" | "tmpfs" | "ramfs" => {
            assert_eq!(warnings.len(), 2, "{log}");
            assert!(warnings.iter().any(|line| line.contains("checkpoint.store = \"blob\"")), "{log}");
        }
        // Every other filesystem is taken for a disk, which survives a restart.
        _ => assert_eq!(warnings.len(), 0, "{log}"),
    }
    // `/dev/shm` exists on every Linux and does not survive a restart.
    let memory = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let setup =
        world.setup.clone().with_variable("TWINSYNC__DEAD_LETTERS__PATH", memory.path().join("letters"));
    setup.start().await.unwrap_or_else(|error| panic!("{error}")).stop().await.expect("exit code 0");
    let log = world.log();
    assert!(log.contains("dead_letters.store = \"blob\"") && log.contains("memory, which is lost"), "{log}");
}

/// The last output line, which must be JSON.
async fn final_line(world: &World, variables: &[(&str, &str)]) -> serde_json::Value {
    let mut command = world.setup.command();
    command.env("TWINSYNC__TELEMETRY__LOG_FORMAT", "json").env("TWINSYNC__START__REFUSED_GRACE", "0s");
    let output =
        command.envs(variables.iter().copied()).stdout(Stdio::null()).stderr(Stdio::piped()).output();
    let output = tokio::time::timeout(LIMIT, output).await.expect("it ends").expect("runs");
    assert!(!output.status.success());
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines: Vec<serde_json::Value> = words
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}\n{words}")))
        .collect();
    lines.last().expect("a last line").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_final_line_of_a_json_log_is_json() {
    let world = World::new().await;
    for (variable, value, code) in [
        ("TWINSYNC__COSMOS__CONTAINER", "twinz", "COSMOS_NOT_FOUND"),
        ("TWINSYNC__EVENTHUBS__CONSUMER_GROUP", "nobody", "EVENTHUBS_NOT_FOUND"),
        ("TWINSYNC__CACHE__MAX_BYTES", "much", "CONFIG_INVALID"),
    ] {
        let last = final_line(&world, &[(variable, value)]).await;
        assert_eq!((&last["code"], &last["level"]), (&json!(code), &json!("ERROR")), "{last}");
        assert!(last["message"].as_str().is_some_and(|message| message.contains(code)), "{last}");
        assert!(last["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{last}");
    }
    // Log filters must not suppress it.
    let variables = [("TWINSYNC__TELEMETRY__LOG_FILTER", "off"), ("TWINSYNC__COSMOS__DATABASE", "elsewhere")];
    assert_eq!(final_line(&world, &variables).await["code"], "COSMOS_NOT_FOUND");
}
