//! Documents that the daemon must not overwrite: those of another twin, and those of a newer release.

use serde_json::{Value, json};

use crate::{
    registry::bench::{Bench, FAST},
    world::{create, report, until},
};

async fn document(bench: &Bench, device: &str) -> Value {
    let container = bench.container().await;
    let response = container.read_item(device.to_owned(), device, None).await.expect("it is there");
    let mut document: Value = response.into_model().expect("JSON");
    document.as_object_mut().expect("an object").retain(|name, _| !name.starts_with('_'));
    document
}

/// A device with a correct document; the daemon has stopped.
async fn repaired(bench: &Bench) {
    let mut daemon = bench.start().await;
    bench.world.apply(create("pump"));
    bench.world.apply(report("pump", json!({"step": 1})));
    bench.world.equal().await;
    // The document may come from an audit. Its events must be received before the daemon stops, or the next
    // start receives them.
    bench.caught_up(&mut daemon).await;
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_of_another_hubs_device_is_never_written_over() {
    let bench = Bench::new(FAST, "[audit]\ntolerance = \"0s\"\n").await;
    repaired(&bench).await;
    bench.alter("pump", |document| document["hubName"] = json!("fabrikam")).await;
    let theirs = document(&bench, "pump").await;
    let mut daemon = bench.start().await;
    bench.world.apply(report("pump", json!({"step": 2})));
    until(&mut daemon, "the metric shows the dead letter", |sample| {
        sample.count("twinsync_dead_letters_total", "reason=\"foreign_document\"") == 1
    })
    .await;
    bench.world.apply(create("other"));
    bench.world.equal_or_flagged("other").await;
    daemon.stop().await.expect("exit code 0");
    let letter = std::fs::read_to_string(&bench.world.files("dead-letters")[0]).expect("a dead letter");
    assert!(letter.contains("fabrikam/pump") && letter.contains("DOCUMENT_FOREIGN"), "{letter}");
    let (code, audit) = bench.audit(&["--repair"]).await;
    assert_ne!(code, 0, "the twin has no document and none can be written: {audit:#}");
    assert_eq!(document(&bench, "pump").await, theirs);
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_of_a_newer_release_wait_for_a_replica_that_can_read_them_and_are_no_outage() {
    // So many documents without any answer of the store would count as an outage.
    const DEVICES: [&str; 4] = ["pump", "valve", "fan", "lamp"];
    let bench = Bench::without_registry("[http]\nblocked_after = \"1s\"\n").await;
    repaired(&bench).await;
    let daemon = bench.start().await;
    for device in &DEVICES[1..] {
        bench.world.apply(create(device));
    }
    bench.world.equal().await;
    daemon.stop().await.expect("exit code 0");
    for device in DEVICES {
        bench.alter(device, |document| document["sync"]["format"] = json!(2)).await;
    }
    let newer = document(&bench, "pump").await;
    let mut daemon = bench.start().await;
    for device in DEVICES {
        bench.world.apply(report(device, json!({"step": 2})));
    }
    until(&mut daemon, "the metric shows refused reads, and the store is up", |sample| {
        sample.count("twinsync_reads_total", "outcome=\"newer\"") > 8
            && sample.count("twinsync_twins_in_trouble", "") == 4
            && sample.count("twinsync_store_up", "") == 1
            && sample.count("twinsync_reads_total", "outcome=\"unavailable\"") == 0
    })
    .await;
    until(&mut daemon, "the oldest incomplete events are 4 s old", |sample| {
        // The sum over two partitions.
        sample.sum("twinsync_oldest_incomplete_event_age_seconds", "") > 4.0
    })
    .await;
    let (status, reasons) = daemon.get("/readyz").await.expect("answers");
    assert!(status == 503 && reasons.contains("is blocked: its event"), "{reasons}");
    let log = bench.world.log();
    assert!(
        !reasons.contains("document store") && !log.contains("the document store does not answer"),
        "{reasons}"
    );
    let warnings =
        log.lines().filter(|line| line.contains(" WARN ") && line.contains("DOCUMENT_NEWER")).count();
    assert!(
        (1..=DEVICES.len()).contains(&warnings),
        "one line for each document, or fewer for documents at the same time: {log}"
    );
    assert_eq!(document(&bench, "pump").await, newer);
    for device in DEVICES {
        bench.alter(device, |document| document["sync"]["format"] = json!(1)).await;
    }
    bench.world.equal().await;
    daemon.stop().await.expect("exit code 0");
    assert!(bench.world.files("dead-letters").is_empty(), "there is a dead letter");
}
