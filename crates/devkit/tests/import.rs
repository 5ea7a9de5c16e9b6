//! Devices that were there before anybody listened.

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

/// Counts what is told.
#[derive(Default)]
struct Told(AtomicUsize);

impl Route for Told {
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

fn hub() -> (Service, Arc<Told>) {
    let told = Arc::new(Told::default());
    (Service::new(Options::default(), HubNames::default(), told.clone()), told)
}

#[test]
fn imported_devices_have_modules_and_a_life_behind_them_that_nobody_was_told_of() {
    let (hub, told) = hub();
    let plan = Import { devices: 500, modules: 0.3, ..Import::default() };
    let imported = import(&hub, &plan).unwrap();
    assert_eq!((imported.devices, imported.devices + imported.modules), (500, hub.len()));
    assert!((100..300).contains(&imported.modules) && imported.writes > 500, "{imported:?}");
    assert_eq!(told.0.load(Ordering::Relaxed), 0);
    assert!(matches!(import(&hub, &plan), Err(ImportError::Refused(_))), "they exist already");
}

#[test]
fn a_hundred_thousand_twins_are_imported_in_seconds() {
    let (hub, _told) = hub();
    let started = Instant::now();
    let plan = Import { devices: 100_000, modules: 0.0, ..Import::default() };
    assert_eq!(import(&hub, &plan).unwrap().devices, 100_000);
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
}
