//! The log of an outage: few lines, each with what the daemon does about it, while the metrics count every failure.

use std::{collections::BTreeSet, time::Instant};

use devkit::stack::Options;
use serde_json::{Value, json};

use crate::world::{PROGRAM, World, create, report, until};

const JSON: &str = "[telemetry]\nlog_format = \"json\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_event_hubs_is_one_line_per_hub_in_ten_seconds_however_often_it_is_tried() {
    let world = World::with(Options::default(), "").await;
    let mut daemon = world.start().await;
    world.apply(create("pump"));
    world.equal().await;
    let (began, broker) = (Instant::now(), world.stack.broker());
    broker.go_down().await;
    until(&mut daemon, "24 rebuilds are counted", |sample| {
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
    // There are at most two codes: one for links that broke, one for links that cannot be opened.
    assert!((1..=4 * (lasted / 10 + 1)).contains(&warnings.len()), "{lasted} s: {warnings:#?}");
    for line in &warnings {
        let named = hubs.iter().any(|hub| line.contains(&format!("stream={hub} partition=")));
        assert!(named && line.contains("EVENTHUBS_UNAVAILABLE") && line.contains("retry_in="), "{line}");
    }
}

/// The lines of a JSON log.
fn parsed(log: &str) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    log.lines().map(parse).collect()
}

/// Asserts what every line of a log must have.
fn has_the_shape(line: &Value, world: &World) {
    let text = |name: &str| line.get(name).and_then(Value::as_str);
    for field in ["timestamp", "level", "target", "message", "replica"] {
        assert!(text(field).is_some_and(|text| !text.is_empty()), "{field} is missing: {line}");
    }
    if text("target").is_some_and(|target| target.starts_with("twinsync"))
        && text("level").is_some_and(|level| ["WARN", "ERROR"].contains(&level))
    {
        let code = text("code").unwrap_or_else(|| panic!("it has no code: {line}"));
        let page = format!("{}/docs/errors/{code}.md", env!("CARGO_MANIFEST_DIR"));
        assert!(std::fs::exists(&page).expect("readable"), "{page}: {line}");
    }
    let endpoints = world.stack.endpoints();
    let streams = [endpoints.lifecycle_hub.as_str(), endpoints.twin_changes_hub.as_str()];
    if let Some(partition) = text("partition") {
        assert!(partition.parse::<u32>().is_ok(), "{line}");
        assert!(text("stream").is_some(), "a partition without its stream: {line}");
    }
    assert!(text("stream").is_none_or(|stream| streams.contains(&stream)), "{line}");
    assert!(text("hub").is_none_or(|hub| !streams.contains(&hub)), "`hub` names an Event Hub: {line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_two_outages_is_json_to_its_last_line_and_tells_of_both() {
    let mut world = World::with(Options::default(), JSON).await;
    let mut daemon = world.start().await;
    world.apply(create("pump"));
    world.equal().await;
    for round in 0..2 {
        world.cosmos_is_away(true);
        world.apply(report("pump", json!({"round": round})));
        until(&mut daemon, "the metric shows that the store is down", |sample| {
            sample.count("twinsync_store_up", "") == 0
        })
        .await;
        world.cosmos_is_away(false);
        until(&mut daemon, "the metric shows that the store is up", |sample| {
            sample.count("twinsync_store_up", "") == 1
        })
        .await;
    }
    world.stack.broker().go_down().await;
    until(&mut daemon, "a rebuild is counted", |sample| {
        sample.count("twinsync_partition_rebuilds_total", "") > 0
    })
    .await;
    world.stack.broker().come_back().await.expect("the port is free");
    world.apply(report("pump", json!({"on": true})));
    world.equal().await;
    daemon.stop().await.expect("exit code 0");
    let lines = parsed(&world.log());
    for line in &lines {
        has_the_shape(line, &world);
    }
    let of_the_store = |outage: &str| {
        let about = |line: &&Value| line["what"] == "the document store" && line["outage"] == outage;
        lines.iter().filter(about).count()
    };
    assert_eq!((of_the_store("began"), of_the_store("over")), (2, 2), "{lines:#?}");
    let again = lines.iter().filter(|line| line["outage"] == "over" && line.get("partition").is_some());
    assert!(again.count() > 0, "no partition is received from again: {lines:#?}");
    let replicas: BTreeSet<_> = lines.iter().map(|line| line["replica"].to_string()).collect();
    assert_eq!(replicas.len(), 1, "{replicas:?}");

    // The reason of a failed start is the last line, in the same format.
    world.configure(&format!("{JSON}[http]\nlisten = \"192.0.2.1:1\"\n"));
    let before = lines.len();
    world.setup.start().await.expect_err("the address is not this machine's");
    let last = parsed(&world.log()).split_off(before).pop().expect("a last line");
    has_the_shape(&last, &world);
    assert_eq!(last["code"], "HTTP_ADDRESS_UNUSABLE", "{last}");
}

#[test]
fn errors_before_the_configuration_is_read_are_json_if_the_log_would_be() {
    let said = |arguments: &[&str], format: Option<&str>| {
        let mut command = std::process::Command::new(PROGRAM);
        command.args(arguments).env_remove("TWINSYNC__TELEMETRY__LOG_FORMAT");
        command.envs(format.map(|format| ("TWINSYNC__TELEMETRY__LOG_FORMAT", format)));
        let output = command.output().expect("it runs");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    };
    let (code, log) = said(&["run", "--cofnig", "x.toml"], Some("json"));
    let line: Value = serde_json::from_str(&log).unwrap_or_else(|error| panic!("{error}: {log}"));
    assert_eq!((code, &line["code"]), (Some(2), &"ARGUMENTS_INVALID".into()), "{line}");
    assert!(line["message"].as_str().is_some_and(|text| text.contains("--cofnig")), "{line}");

    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("json.toml");
    std::fs::write(&file, "[telemetry]\nlog_format = \"json\"\n").expect("written");
    let file = file.to_str().expect("text");
    let (code, log) = said(&["run", "--config", file, "--bogus"], None);
    assert!(code == Some(2) && log.starts_with('{') && log.lines().count() == 1, "{log}");

    for (arguments, format) in [(&["run", "--bogus"][..], None), (&["audit", "--bogus"], Some("json"))] {
        let (code, log) = said(arguments, format);
        assert!(code == Some(2) && log.starts_with("error: "), "not in the text format: {log}");
    }
}
