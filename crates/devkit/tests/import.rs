//! Devices that existed before the routes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use devkit::{
    fleet::{Import, ImportError, import},
    iothub::{HubNames, Notification, Options, Route, RouteError, Service},
};

/// Counts notifications.
#[derive(Default)]
struct NotificationCounter(AtomicUsize);

impl Route for NotificationCounter {
    fn append(
        &self,
        _hub: &str,
        _partition_key: &str,
        _notification: &Notification,
    ) -> Result<(), RouteError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn hub() -> (Service, Arc<NotificationCounter>) {
    let notifications = Arc::new(NotificationCounter::default());
    (Service::new(Options::default(), HubNames::default(), notifications.clone()), notifications)
}

#[test]
fn imported_devices_have_modules_and_a_history_without_notifications() {
    let (hub, notifications) = hub();
    let plan = Import { devices: 500, modules: 0.3, ..Import::default() };
    let imported = import(&hub, &plan).unwrap();
    assert_eq!((imported.devices, imported.devices + imported.modules), (500, hub.len()));
    assert!((100..300).contains(&imported.modules) && imported.writes > 500, "{imported:?}");
    assert_eq!(notifications.0.load(Ordering::Relaxed), 0);
    assert!(matches!(import(&hub, &plan), Err(ImportError::Refused(_))), "they exist already");
}

#[test]
fn a_hundred_thousand_twins_are_imported_in_seconds() {
    let (hub, _notifications) = hub();
    let started = Instant::now();
    let plan = Import { devices: 100_000, modules: 0.0, ..Import::default() };
    assert_eq!(import(&hub, &plan).unwrap().devices, 100_000);
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
}
