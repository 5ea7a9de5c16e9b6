//! What the routes do to the order and number of events.

#![expect(clippy::unwrap_used, reason = "a test fails by panic, in its helpers too")]

use std::sync::{Arc, Mutex};

use devkit::iothub::{
    DeliveryFaults, HubNames, Notification, Operation, Options, Route, RouteError, Service, TwinId,
};
use serde_json::{Value, json};

/// Takes note of (Event Hub, device, version in the body).
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
        // Each event follows its predecessor, or steps back; what was passed comes again before anything new.
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
