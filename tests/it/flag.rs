//! Each event that becomes a dead letter flags its twin. With a registry the document becomes equal, without one it
//! stays flagged. Tested for each reason code, over sockets.

use std::time::{SystemTime, UNIX_EPOCH};

use devkit::{
    broker::{Event, Value},
    cosmos::{Fault, Faults, Operations},
    daemon::{Daemon, Signal},
    iothub::DeliveryFaults,
    metrics::Sample,
};
use serde_json::json;
use twinsync::domain::ticks::Ticks;

use crate::{
    poison::twin_change,
    registry::bench::{Bench, FAST},
    world::{World, create, report, until},
};

/// Small events, and audits that also compare recently changed twins.
const MORE: &str = "[document]\nmax_event_size = \"10KiB\"\n[audit]\ntolerance = \"0s\"\n";

/// Events with the current time that name their twin, by the reason why each cannot be applied.
fn about_its_twin(device: &str) -> Vec<(&'static str, Event)> {
    let deep = format!("{{\"version\":4,\"tags\":{}1{}}}", "{\"a\":".repeat(200), "}".repeat(200));
    let large = format!("{{\"version\":4,\"tags\":{{\"a\":\"{}\"}}}}", "x".repeat(20_000));
    [
        ("too_large", large.as_bytes()),
        ("not_utf8", b"{\"version\":4,\"tags\":{\"a\":\"\xff\"}}".as_slice()),
        ("too_deep", deep.as_bytes()),
        ("not_json", b"{\"version\":4,\"properties\":{\"reported\":{\"a\":1e400}}}"),
        ("not_json", b"{\"version\":4,\"tags\":{\"a\":\"\\ud800\"}}"),
        ("not_an_object", b"[1]"),
        ("section_not_an_object", b"{\"version\":4,\"tags\":1}"),
        ("no_version", b"{\"tags\":{}}"),
    ]
    .map(|(reason, body)| (reason, now(twin_change(device, body))))
    .into()
}

/// The same for events that do not name their twin.
fn about_nobody(device: &str) -> Vec<(&'static str, Event)> {
    let mut no_device = now(twin_change(device, b"{\"version\":4}"));
    no_device.application_properties.remove("deviceId");
    no_device.annotations.remove("iothub-connection-device-id");
    let mut no_hub = now(twin_change(device, b"{\"version\":4}"));
    no_hub.application_properties.remove("hubName");
    let mut no_module = now(twin_change(device, b"{}"));
    no_module.annotations.insert("iothub-message-source".into(), Value::from("deviceLifecycleEvents"));
    no_module.application_properties.insert("opType".into(), Value::from("deleteModuleIdentity"));
    let mut long = now(twin_change(device, b"{\"version\":4}"));
    long.application_properties.insert("deviceId".into(), Value::from("x".repeat(5_000).as_str()));
    vec![
        ("no_device_id", no_device),
        ("no_hub_name", no_hub),
        ("no_module_id", no_module),
        ("id_too_long", long),
    ]
}

pub(crate) fn now(mut event: Event) -> Event {
    let milliseconds = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis();
    let time = Ticks::from_unix_milliseconds(milliseconds as i64).expect("in the calendar").to_string();
    event.application_properties.insert("operationTimestamp".into(), Value::from(time.as_str()));
    event
}

/// A device at version 3 whose change to version 4 is lost. `instead` sends another event in its place.
async fn replaced(world: &World, device: &str, instead: impl FnOnce()) {
    world.apply(create(device));
    world.apply(report(device, json!({"step": 3})));
    world.equal_or_flagged(device).await;
    world.stack.hub().set_delivery_faults(DeliveryFaults { lose: 1.0, ..DeliveryFaults::default() });
    world.apply(report(device, json!({"step": 4})));
    world.stack.hub().set_delivery_faults(DeliveryFaults::default());
    instead();
}

fn append(world: &World, device: &str, event: Event) {
    let hub = &world.stack.endpoints().twin_changes_hub;
    world.stack.broker().append(hub, device, event).expect("appended");
}

async fn letters(daemon: &mut Daemon, reason: &str, count: u64) {
    let label = format!("reason=\"{reason}\"");
    let stored = |sample: &Sample| sample.count("twinsync_dead_letters_total", &label) >= count;
    until(daemon, &format!("the metric shows the dead letters with reason {reason}"), stored).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_can_never_be_applied_flags_its_twin_and_the_registry_makes_it_equal() {
    for with_registry in [false, true] {
        let bench =
            if with_registry { Bench::new(FAST, MORE).await } else { Bench::without_registry(MORE).await };
        let world = &bench.world;
        let mut daemon = world.start().await;
        let mut flagged = 0;
        for (number, (reason, event)) in about_its_twin("").into_iter().enumerate() {
            let device = format!("pump-{number}");
            let mut event = event;
            event.application_properties.insert("deviceId".into(), Value::from(device.as_str()));
            event.annotations.insert("iothub-connection-device-id".into(), Value::from(device.as_str()));
            replaced(world, &device, || append(world, &device, now(event))).await;
            letters(&mut daemon, reason, 1).await;
            flagged += 1;
            if !with_registry {
                let report = world.flagged(flagged).await;
                assert_eq!(report.different, flagged, "{reason}: another document differs: {report}");
            }
        }
        if with_registry {
            world.equal().await;
        }
        daemon.stop().await.expect("exit code 0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_twin_that_the_store_refuses_is_flagged_with_its_old_content_and_the_registry_makes_it_equal() {
    for with_registry in [false, true] {
        let bench =
            if with_registry { Bench::new(FAST, MORE).await } else { Bench::without_registry(MORE).await };
        let world = &bench.world;
        let mut daemon = world.start().await;
        for (number, status) in [413, 400].into_iter().enumerate() {
            let device = format!("pump-{status}");
            world.apply(create(&device));
            world.apply(report(&device, json!({"step": 3})));
            // The refused write must be that of the last change, so all earlier writes are awaited.
            bench.caught_up(&mut daemon).await;
            if with_registry {
                world.equal().await;
            }
            world.equal_or_flagged(&device).await;
            let fault = Fault { next: Some(1), ..Fault::about(status, &device) }.on(Operations::Writes);
            let answers = vec![fault];
            world.stack.cosmos().set_faults(Faults { answers, ..Faults::default() }).expect("valid");
            world.apply(report(&device, json!({"step": 4})));
            letters(&mut daemon, "rejected_by_store", number as u64 + 1).await;
            if !with_registry {
                let report = world.flagged(number as u64 + 1).await;
                assert_eq!(report.different, number as u64 + 1, "{status}: {report}");
            }
        }
        if with_registry {
            world.equal().await;
        }
        daemon.stop().await.expect("exit code 0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_without_a_twin_is_counted_and_requests_an_audit() {
    for with_registry in [false, true] {
        let bench =
            if with_registry { Bench::new(FAST, MORE).await } else { Bench::without_registry(MORE).await };
        let world = &bench.world;
        let mut daemon = world.start().await;
        // All changes are lost before the first dead letter, because one audit must find them all.
        let poison = about_nobody("pump");
        for (number, _) in poison.iter().enumerate() {
            replaced(world, &format!("pump-{number}"), || {}).await;
        }
        for (_, event) in &poison {
            append(world, "pump-0", event.clone());
        }
        let hub = world.stack.endpoints().twin_changes_hub.clone();
        world.stack.broker().faults().append_undecodable(&hub, 0).expect("appended");
        for reason in poison.iter().map(|(reason, _)| *reason).chain(["undecodable_amqp"]) {
            letters(&mut daemon, reason, 1).await;
        }
        let without_twin = poison.len() as u64 + 1;
        until(&mut daemon, "the metric shows the dead letters without a twin", |sample| {
            sample.count("twinsync_dead_letters_without_twin_total", "") == without_twin
        })
        .await;
        assert!(world.log().contains("the twin of a dead letter is not known"));
        if with_registry {
            world.equal().await;
        }
        daemon.stop().await.expect("exit code 0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_dead_letter_and_flag_leaves_the_twin_flagged_after_the_next_start() {
    let bench = Bench::without_registry(MORE).await;
    let world = &bench.world;
    let mut daemon = world.start().await;
    let event = || now(twin_change("pump", b"[1]"));
    replaced(world, "pump", || {
        world.cosmos_is_away(true);
        append(world, "pump", event());
    })
    .await;
    letters(&mut daemon, "not_an_object", 1).await;
    daemon.end(Signal::Kill).await.expect("it dies");
    world.cosmos_is_away(false);
    let daemon = world.start().await;
    let report = world.flagged(1).await;
    assert_eq!(report.different, 1, "{report}");
    assert_eq!(world.files("dead-letters").len(), 1, "the event must have a single dead letter");
    daemon.stop().await.expect("exit code 0");
}
