//! Events that can never be applied, among valid ones.

use std::collections::BTreeMap;

use devkit::broker::{Event, Value};
use serde_json::json;

use crate::world::{World, create, report, until};

/// An event as IoT Hub sends it, with any body.
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
        // The same partition key as the valid events around it.
        world.stack.broker().append(&twins, "pump", event.clone()).expect("appended");
        world.apply(report("pump", json!({"step": step})));
    }
    world.same().await;
    until(&mut daemon, "the metric shows all dead letters", |sample| {
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
        let letter = letter.unwrap_or_else(|| panic!("no dead letter for {reason}: {letters:?}"));
        assert!(
            letter.to_string().contains("updateTwin"),
            "the dead letter must keep the properties: {letter}"
        );
        if let Ok(text) = std::str::from_utf8(&event.body) {
            assert!(
                letter.to_string().contains(&json!(text).to_string()),
                "the dead letter must keep the body: {letter}"
            );
        }
    }
    assert_eq!(letters.len(), poison.len());
    daemon.stop().await.expect("exit code 0");
}

/// Number of valid events around an event that cannot be applied.
const GOOD: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn one_poison_event_leaves_one_dead_letter_in_every_position() {
    // With a prefetch of 2 and one event per write, every position is also at the border of some batch.
    for settings in ["", "[eventhubs]\nprefetch = 2\n[router]\nmax_events_per_write = 1\n"] {
        for position in 0..=GOOD {
            let world = World::with(Default::default(), settings).await;
            poison_at(&world, position, GOOD).await;
        }
        let world = World::with(Default::default(), settings).await;
        poison_at(&world, 0, 0).await; // alone in its partition
    }
}

/// Appends one event that cannot be applied before the valid event number `position`, or after all of them.
async fn poison_at(world: &World, position: usize, good: usize) {
    let mut daemon = world.start().await;
    let twins = world.stack.endpoints().twin_changes_hub.clone();
    world.apply(create("pump"));
    for step in 0..=good {
        if step == position {
            let poison = twin_change("pump", b"{\"version\":");
            let appended = world.stack.broker().append(&twins, "pump", poison).expect("appended");
            assert_eq!(appended.sequence_number, position as i64, "the event has another position");
        }
        if step < good {
            world.apply(report("pump", json!({"step": step})));
        }
    }
    world.same().await;
    until(&mut daemon, "the metric shows one dead letter", |sample| {
        sample.count("twinsync_dead_letters_total", "") == 1
    })
    .await;
    until(&mut daemon, "all events are counted", |sample| {
        sample.count("twinsync_events_total", "") == world.appended()
    })
    .await;
    let letters = world.files("dead-letters");
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert!(letters[0].ends_with(format!("{position}.json")), "{letters:?}");
    daemon.stop().await.expect("exit code 0");
    // The checkpoint is after the dead letter's event, so the event is not received again.
    let mut daemon = world.start().await;
    world.apply(report("pump", json!({"after": "restart"})));
    world.same().await;
    let sample = daemon.sample().await.expect("metrics");
    assert_eq!(sample.count("twinsync_dead_letters_total", ""), 0);
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
        // Has the same operation type as twin changes, but its body is a JSON Patch.
        source("digitalTwinChangeEvents", b"[{\"op\":\"add\",\"path\":\"/a\",\"value\":1}]"),
        source("deviceJobLifecycleEvents", b"{}"),
        Event { body: b"anything".to_vec(), ..Event::default() },
    ];
    world.apply(create("pump"));
    for event in &others {
        world.stack.broker().append(&twins, "pump", event.clone()).expect("appended");
    }
    world.apply(report("pump", json!({"still": "here"})));
    world.same().await;
    until(&mut daemon, "the metric shows the ignored events", |sample| {
        sample.count("twinsync_events_ignored_total", "") == others.len() as u64
    })
    .await;
    assert!(world.files("dead-letters").is_empty());
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_no_amqp_is_skipped_once_and_leaves_a_dead_letter() {
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
    world.same().await;
    until(&mut daemon, "the metric shows the undecodable messages", |sample| {
        sample.count("twinsync_messages_undecodable_total", "") == 6
    })
    .await;
    let sample = daemon.sample().await.expect("metrics");
    assert_eq!(sample.count("twinsync_partition_rebuilds_total", ""), 0, "the client must not be rebuilt");
    until(&mut daemon, "the metric shows one dead letter for each message", |sample| {
        sample.count("twinsync_dead_letters_total", "reason=\"undecodable_amqp\"") == 6
    })
    .await;
    assert_eq!(world.files("dead-letters").len(), 6, "each dead letter has its own position");
    daemon.stop().await.expect("exit code 0");
}
