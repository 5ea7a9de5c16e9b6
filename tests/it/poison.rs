//! Events that can never be applied, among good ones.

use std::collections::{BTreeMap, BTreeSet};

use devkit::broker::{Event, Value};
use serde_json::json;

use crate::{
    figures::Figures,
    world::{World, create, report, until},
};

/// An event as IoT Hub would send it, but for its body.
pub(crate) fn twin_change(device: &str, body: &[u8]) -> Event {
    let text = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Value::from(*value)))
            .collect::<BTreeMap<_, _>>()
    };
    Event {
        body: body.to_vec(),
        application_properties: text(&[
            ("hubName", "devkit-hub"),
            ("deviceId", device),
            ("opType", "updateTwin"),
            ("iothub-message-schema", "twinChangeNotification"),
            ("operationTimestamp", "2031-05-04T10:00:00.0000000Z"),
        ]),
        annotations: text(&[
            ("iothub-message-source", "twinChangeEvents"),
            ("iothub-connection-device-id", device),
        ]),
        user_id: Some(vec![b'h', 0x81, 0x0e]),
        ..Event::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_kept_with_its_own_bytes_and_its_partition_goes_on() {
    let world = World::new().await;
    let mut daemon = world.start().await;
    let twins = world.stack.endpoints().twin_changes_hub.clone();
    let deep = format!("{{\"version\":3,\"tags\":{}{}}}", "{\"a\":".repeat(200) + "1", "}".repeat(200));
    let mut no_device = twin_change("x", b"{\"version\":3}");
    no_device.application_properties.remove("deviceId");
    no_device.annotations.remove("iothub-connection-device-id");
    let poison = [
        ("not_json", twin_change("pump", b"{\"version\":")),
        ("not_utf8", twin_change("pump", b"{\"version\":3,\"tags\":{\"a\":\"\xff\"}}")),
        ("not_an_object", twin_change("pump", b"[1]")),
        ("too_deep", twin_change("pump", deep.as_bytes())),
        ("no_version", twin_change("pump", b"{\"tags\":{}}")),
        ("no_device_id", no_device),
    ];
    world.apply(create("pump"));
    for (step, (_, event)) in poison.iter().enumerate() {
        // The same partition key as the good events around it.
        world.stack.broker().append(&twins, "pump", event.clone()).expect("appended");
        world.apply(report("pump", json!({"step": step})));
    }
    world.equal().await;
    until(&mut daemon, "all are dead letters", |sample| {
        sample.count("twinsync_dead_letters_total", "") == poison.len() as u64
    })
    .await;
    let files = world.files("dead-letters");
    let letters: Vec<serde_json::Value> = files
        .iter()
        .map(|file| serde_json::from_slice(&std::fs::read(file).expect("readable")).expect("JSON"))
        .collect();
    for (reason, event) in &poison {
        let letter = letters.iter().find(|letter| letter["reason"] == *reason);
        let letter = letter.unwrap_or_else(|| panic!("no letter for {reason}: {letters:?}"));
        assert!(letter.to_string().contains("updateTwin"), "properties are kept: {letter}");
        if let Ok(text) = std::str::from_utf8(&event.body) {
            assert!(letter.to_string().contains(&json!(text).to_string()), "its own body is kept: {letter}");
        }
    }
    assert_eq!(letters.len(), poison.len());
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ours_is_counted_and_passed_over() {
    let world = World::new().await;
    let mut daemon = world.start().await;
    let twins = world.stack.endpoints().twin_changes_hub.clone();
    let source = |source: &str, body: &[u8]| {
        let mut event = twin_change("pump", body);
        event.annotations.insert("iothub-message-source".to_owned(), Value::from(source));
        event
    };
    let others = [
        source("Telemetry", b"21.5"),
        source("deviceConnectionStateEvents", b"{}"),
        // Shares its operation's name with twin changes; its body is a JSON Patch.
        source("digitalTwinChangeEvents", b"[{\"op\":\"add\",\"path\":\"/a\",\"value\":1}]"),
        source("deviceJobLifecycleEvents", b"{}"),
        Event { body: b"anything".to_vec(), ..Event::default() },
    ];
    world.apply(create("pump"));
    for event in &others {
        world.stack.broker().append(&twins, "pump", event.clone()).expect("appended");
    }
    world.apply(report("pump", json!({"still": "here"})));
    world.equal().await;
    until(&mut daemon, "all are counted", |sample| {
        sample.count("twinsync_events_ignored_total", "") == others.len() as u64
    })
    .await;
    assert!(world.files("dead-letters").is_empty());
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_no_amqp_is_skipped_once_and_leaves_a_letter() {
    let world = World::new().await;
    let mut daemon = world.start().await;
    let twins = world.stack.endpoints().twin_changes_hub.clone();
    world.apply(create("pump"));
    for step in 0..3 {
        for partition in 0..2 {
            world.stack.broker().faults().append_undecodable(&twins, partition).expect("appended");
        }
        world.apply(report("pump", json!({"step": step})));
    }
    world.equal().await;
    until(&mut daemon, "all are skipped", |sample| {
        sample.count("twinsync_messages_undecodable_total", "") == 6
    })
    .await;
    let sample = daemon.sample().await.expect("metrics");
    assert_eq!(sample.count("twinsync_partition_rebuilds_total", ""), 0, "the link stays");
    until(&mut daemon, "each has its dead letter", |sample| {
        sample.count("twinsync_dead_letters_total", "reason=\"undecodable_amqp\"") == 6
    })
    .await;
    assert_eq!(world.files("dead-letters").len(), 6, "each at a position of its own");
    daemon.stop().await.expect("exit code 0");
}

/// A key whose events go to another partition than those of `key`.
fn key_elsewhere(world: &World, key: &str) -> String {
    // Both hubs have as many partitions; what is not ours may lie there without harm.
    let hub = &world.stack.endpoints().lifecycle_hub;
    let partition = |key: &str| {
        let event = Event { body: b"anything".to_vec(), ..Event::default() };
        world.stack.broker().append(hub, key, event).expect("appended").partition
    };
    let taken = partition(key);
    (0..).map(|number| format!("key-{number}")).find(|key| partition(key) != taken).expect("there are two")
}

/// First, in the middle, last and alone in its partition, and on both sides of where the batches of a backlog end.
#[tokio::test(flavor = "multi_thread")]
async fn poison_leaves_one_letter_in_whatever_position_and_everything_else_is_applied() {
    const EVENTS: i64 = 700;
    const POISON: [i64; 8] = [0, 255, 256, 350, 511, 512, 513, EVENTS - 1];
    let world = World::new().await;
    let (broker, hub) = (world.stack.broker(), world.stack.endpoints().twin_changes_hub.clone());
    world.apply(create("pump"));
    let mut expected = BTreeSet::new();
    for number in 0..EVENTS {
        if POISON.contains(&number) {
            let at = broker.append(&hub, "pump", twin_change("pump", b"{\"version\":")).expect("appended");
            assert_eq!(at.sequence_number, number, "nothing else is in the partition");
            expected.insert((at.partition.to_string(), number));
        } else {
            world.apply(report("pump", json!({"step": number})));
        }
    }
    let elsewhere = key_elsewhere(&world, "pump");
    let alone = broker.append(&hub, &elsewhere, twin_change("other", b"[1]")).expect("appended");
    assert_eq!(alone.sequence_number, 0, "alone in its partition");
    expected.insert((alone.partition.to_string(), 0));
    let mut figures = Figures::of("poison first, in the middle, last, alone, at the borders of batches");

    figures.injected(expected.len());
    figures.over();
    let mut daemon = world.start().await; // a backlog comes in full batches
    figures.equal(&world).await;
    until(&mut daemon, "all are dead letters", |sample| {
        sample.count("twinsync_dead_letters_total", "") == expected.len() as u64
    })
    .await;
    let position = |file: &std::path::PathBuf| {
        let letter: serde_json::Value =
            serde_json::from_slice(&std::fs::read(file).expect("readable")).expect("JSON");
        let partition = letter["partition"].as_str().expect("a partition").to_owned();
        (partition, letter["sequence_number"].as_i64().expect("a number"))
    };
    let files = world.files("dead-letters");
    assert_eq!(files.len(), expected.len(), "one letter each");
    assert_eq!(files.iter().map(position).collect::<BTreeSet<_>>(), expected);
    // What follows the last one is applied as well.
    world.apply(report("pump", json!({"step": "after"})));
    world.equal().await;
    daemon.stop().await.expect("exit code 0");
}
