//! How the routes change the order and number of events.

#![expect(clippy::unwrap_used, reason = "a test fails by panic, in its helpers too")]

use std::sync::{Arc, Mutex};

use iothub_emulator::{
    DeliveryFaults, HubNames, Loss, Notification, Operation, Options, Route, RouteError, Service, Skew,
    Source, TwinId,
};
use serde_json::{Value, json};

/// Records (Event Hub, device, version in the body).
#[derive(Default)]
struct Log(Mutex<Vec<(String, String, Value)>>);

impl Route for Log {
    fn append(&self, hub: &str, partition_key: &str, notification: &Notification) -> Result<(), RouteError> {
        let entry = (hub.to_owned(), partition_key.to_owned(), notification.body["version"].clone());
        self.0.lock().unwrap().push(entry);
        Ok(())
    }
}

fn service(names: HubNames) -> (Service, Arc<Log>) {
    let log = Arc::new(Log::default());
    (Service::new(Options::default(), names, log.clone()), log)
}

fn versions(log: &Log, hub: &str, device: &str) -> Vec<u64> {
    let log = log.0.lock().unwrap();
    log.iter().filter(|(h, d, _)| h == hub && d == device).filter_map(|(_, _, v)| v.as_u64()).collect()
}

fn run(service: &Service, devices: usize, reports: usize) {
    for device in 0..devices {
        let id = TwinId::device(format!("d{device}")).unwrap();
        service.apply(&Operation::Create { id, twin: None }).unwrap();
    }
    for report in 0..reports {
        let id = TwinId::device(format!("d{}", report % devices)).unwrap();
        service.apply(&Operation::Report { id, patch: json!({ "n": report }) }).unwrap();
    }
}

#[test]
fn lifecycle_and_twin_changes_go_to_their_event_hubs_with_the_device_as_key() {
    let (service, log) = service(HubNames::default());
    run(&service, 1, 2);
    let module = TwinId::module("d0", "m").unwrap();
    service.apply(&Operation::Create { id: module, twin: None }).unwrap();
    let log = log.0.lock().unwrap();
    let hubs: Vec<_> = log.iter().map(|(hub, key, _)| (hub.as_str(), key.as_str())).collect();
    assert_eq!(
        hubs,
        [("lifecycle", "d0"), ("twin-changes", "d0"), ("twin-changes", "d0"), ("lifecycle", "d0")]
    );
}

#[test]
fn one_event_hub_may_carry_both_sources() {
    let both = HubNames { lifecycle: "all".to_owned(), twin_changes: "all".to_owned() };
    let (service, log) = service(both);
    run(&service, 1, 3);
    assert_eq!(versions(&log, "all", "d0"), [2, 3, 4, 5]);
}

#[test]
fn a_replay_goes_back_and_then_forward_in_order() {
    let (service, log) = service(HubNames::default());
    service.set_delivery_faults(DeliveryFaults { replay: 0.3, ..DeliveryFaults::default() });
    run(&service, 3, 300);
    let counts = service.delivery_counts();
    assert!(counts.replayed > 50, "{counts:?}");
    for device in 0..3 {
        let seen = versions(&log, "twin-changes", &format!("d{device}"));
        // Each event follows its predecessor or goes back. After going back, events are repeated before any
        // new one.
        for pair in seen.windows(2) {
            assert!(pair[1] <= pair[0] + 1, "{seen:?}");
        }
        assert!(seen.windows(2).any(|pair| pair[1] < pair[0]), "no replay of more than one event");
        assert_eq!(*seen.last().unwrap(), 102);
    }
}

#[test]
fn duplicates_follow_their_original_at_once() {
    let (service, log) = service(HubNames::default());
    service.set_delivery_faults(DeliveryFaults { duplicate: 1.0, ..DeliveryFaults::default() });
    run(&service, 1, 2);
    assert_eq!(versions(&log, "twin-changes", "d0"), [3, 3, 4, 4]);
    assert_eq!(service.delivery_counts().duplicates, 3);
}

#[test]
fn coalesced_updates_arrive_as_one_event_with_the_last_version() {
    let (service, log) = service(HubNames::default());
    service.set_delivery_faults(DeliveryFaults { coalesce: 1.0, ..DeliveryFaults::default() });
    run(&service, 1, 4);
    assert_eq!(versions(&log, "twin-changes", "d0"), [0; 0]);
    service.flush().unwrap();
    assert_eq!(versions(&log, "twin-changes", "d0"), [6]);
    assert_eq!(service.delivery_counts().coalesced, 3);
}

#[test]
fn a_deletion_is_not_delivered_before_the_updates_held_back() {
    let both = HubNames { lifecycle: "all".to_owned(), twin_changes: "all".to_owned() };
    let (service, log) = service(both);
    service.set_delivery_faults(DeliveryFaults { coalesce: 1.0, ..DeliveryFaults::default() });
    run(&service, 1, 2);
    service.apply(&Operation::Delete { id: TwinId::device("d0").unwrap() }).unwrap();
    assert_eq!(versions(&log, "all", "d0"), [2, 4, 4]);
}

#[test]
fn coalescing_takes_every_twin_and_stays_within_one_life() {
    let (service, log) = service(HubNames::default());
    service.set_delivery_faults(DeliveryFaults { coalesce: 1.0, ..DeliveryFaults::default() });
    let twins = [TwinId::device("d").unwrap(), TwinId::module("d", "m").unwrap()];
    for life in 0..2 {
        for id in &twins {
            service.apply(&Operation::Create { id: id.clone(), twin: None }).unwrap();
        }
        for step in 0..3 {
            for id in &twins {
                let patch = json!({ "life": life, format!("step{step}"): true });
                service.apply(&Operation::Report { id: id.clone(), patch }).unwrap();
            }
        }
        service.apply(&Operation::Delete { id: twins[0].clone() }).unwrap();
    }
    // Two incarnations of two twins: each has one event with three updates, before the deletion.
    assert_eq!(versions(&log, "twin-changes", "d"), [5, 5, 5, 5]);
    assert_eq!(service.delivery_counts().coalesced, 8);
}

#[test]
fn loss_takes_events_of_every_kind_of_twin_and_change() {
    let (service, log) = service(HubNames::default());
    service.set_delivery_faults(DeliveryFaults { lose: 1.0, ..DeliveryFaults::default() });
    let module = TwinId::module("d0", "m").unwrap();
    run(&service, 1, 1);
    life(&service, &module);
    assert_eq!((service.delivery_counts().lost, log.0.lock().unwrap().len()), (5, 0));
}

#[test]
fn a_failover_does_not_mix_updates_from_before_and_after() {
    let (service, log) = service(HubNames::default());
    service.keep_history(10);
    service.set_delivery_faults(DeliveryFaults { coalesce: 1.0, ..DeliveryFaults::default() });
    run(&service, 1, 2);
    assert_eq!(service.failover(Loss::Operations(1)).unwrap(), 1);
    let id = TwinId::device("d0").unwrap();
    service.apply(&Operation::Report { id, patch: json!({ "after": true }) }).unwrap();
    service.flush().unwrap();
    assert_eq!(versions(&log, "twin-changes", "d0"), [4, 4]);
}

#[test]
fn lost_events_never_arrive_and_are_counted() {
    let (service, log) = service(HubNames::default());
    service.set_delivery_faults(DeliveryFaults { lose: 0.5, ..DeliveryFaults::default() });
    run(&service, 1, 200);
    let lost = service.delivery_counts().lost;
    assert!((50..150).contains(&lost), "{lost}");
    assert_eq!(log.0.lock().unwrap().len() as u64, 201 - lost);
}

#[test]
fn the_same_seed_gives_the_same_deliveries() {
    let faults = DeliveryFaults {
        seed: 7,
        duplicate: 0.2,
        replay: 0.2,
        coalesce: 0.2,
        lose: 0.1,
        ..DeliveryFaults::default()
    };
    let logs: Vec<_> = (0..2)
        .map(|_| {
            let (service, log) = service(HubNames::default());
            service.set_delivery_faults(faults.clone());
            run(&service, 5, 300);
            service.flush().unwrap();
            log.0.lock().unwrap().clone()
        })
        .collect();
    assert_eq!(logs[0], logs[1]);
}

/// `L` and `T` in the order in which they were appended.
fn streams(log: &Log) -> String {
    let log = log.0.lock().unwrap();
    log.iter().map(|(hub, _, _)| if hub == "lifecycle" { 'L' } else { 'T' }).collect()
}

fn life(service: &Service, id: &TwinId) {
    service.apply(&Operation::Create { id: id.clone(), twin: None }).unwrap();
    service.apply(&Operation::Report { id: id.clone(), patch: json!({ "n": 1 }) }).unwrap();
    service.apply(&Operation::Delete { id: id.clone() }).unwrap();
}

fn late(late: Source, notifications: Option<u64>, ms: u64) -> DeliveryFaults {
    DeliveryFaults { skew: Some(Skew { late, notifications, ms }), ..DeliveryFaults::default() }
}

#[test]
fn a_late_stream_arrives_after_the_updates_of_the_next_life_and_in_its_own_order() {
    let id = TwinId::device("d0").unwrap();
    for (source, expected) in [
        // Each event is held back until three more notifications of the hub were delivered.
        (Source::DeviceLifecycle, "TLTLL"),
        (Source::TwinChange, "LLLTL"),
    ] {
        let (service, log) = service(HubNames::default());
        service.set_delivery_faults(late(source, Some(3), 3_600_000));
        life(&service, &id);
        life(&service, &id);
        assert_eq!(streams(&log), expected[..streams(&log).len()], "{source:?}");
        service.flush().unwrap();
        let all = streams(&log);
        assert_eq!((all.len(), all.matches('T').count()), (6, 2), "{all}");
        let held = if source == Source::DeviceLifecycle { 4 } else { 2 };
        assert_eq!(service.delivery_counts().late, held);
        assert_eq!(versions(&log, "twin-changes", "d0"), [3, 3]);
        assert_eq!(versions(&log, "lifecycle", "d0"), [2, 3, 2, 3], "created and deleted, twice");
    }
}

#[test]
fn a_late_event_goes_out_when_its_time_has_come_or_its_stream_is_no_longer_late() {
    let (service, log) = service(HubNames::default());
    let id = TwinId::device("d0").unwrap();
    service.set_delivery_faults(late(Source::DeviceLifecycle, None, 1));
    service.apply(&Operation::Create { id: id.clone(), twin: None }).unwrap();
    assert_eq!(streams(&log), "");
    std::thread::sleep(std::time::Duration::from_millis(2));
    service.release_late().unwrap();
    assert_eq!(streams(&log), "L");
    service.set_delivery_faults(late(Source::DeviceLifecycle, None, 3_600_000));
    service.apply(&Operation::Delete { id: id.clone() }).unwrap();
    service.release_late().unwrap();
    assert_eq!(streams(&log), "L");
    service.set_delivery_faults(late(Source::TwinChange, None, 3_600_000));
    life(&service, &id);
    assert_eq!(streams(&log), "LLLL", "the deletion goes first, the update is late");
}

#[test]
fn two_sources_in_one_event_hub_have_no_skew() {
    let both = HubNames { lifecycle: "all".to_owned(), twin_changes: "all".to_owned() };
    let (service, log) = service(both);
    service.set_delivery_faults(late(Source::DeviceLifecycle, None, 3_600_000));
    life(&service, &TwinId::device("d0").unwrap());
    assert_eq!(versions(&log, "all", "d0"), [2, 3, 3]);
}
