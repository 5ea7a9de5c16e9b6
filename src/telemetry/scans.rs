//! Where the scans over the twins of each IoT hub show how far they are, and what the last ones came to.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::domain::ticks::Ticks;

/// A scan that can be asked at any time, from any thread.
pub trait ScanProgress: Send + Sync {
    /// What it is doing, in a few words.
    fn stage(&self) -> &'static str;
    /// Twins that it has dealt with.
    fn dealt_with(&self) -> u64;
    /// Out of how many, where that is known, and what says so.
    fn out_of(&self) -> Option<(u64, &'static str)>;
    /// What it waits for at this moment.
    fn waits_for(&self) -> Option<String>;
}

/// A scan that goes on.
#[derive(Clone)]
pub struct Scan {
    /// `backfill` or `audit`.
    pub what: &'static str,
    /// When it began, in this process.
    pub started: Ticks,
    /// How far it is.
    pub scanning: Arc<dyn ScanProgress>,
}

/// An audit that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Audited {
    /// When it ended.
    pub at: Ticks,
    /// Twins that were compared.
    pub twins: u64,
    /// Differences that it left.
    pub left: u64,
}

/// A backfill that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backfilled {
    /// When it ended.
    pub at: Ticks,
    /// Twins by outcome.
    pub twins: Vec<(&'static str, u64)>,
}

/// What is known of the scans of one hub.
#[derive(Clone, Default)]
pub struct HubScans {
    /// The one that goes on.
    pub scan: Option<Scan>,
    /// The last backfill.
    pub backfilled: Option<Backfilled>,
    /// The last audit.
    pub audited: Option<Audited>,
    /// The last audit that left no difference and could compare every twin.
    pub clean: Option<Audited>,
    /// When the next audit is due.
    pub next_audit: Option<Ticks>,
}

/// Shared by those who scan and those who look. Cheap to clone.
#[derive(Clone, Default)]
pub struct Scans(Arc<Mutex<BTreeMap<String, HubScans>>>);

impl std::fmt::Debug for Scans {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scans").finish_non_exhaustive()
    }
}

/// Takes a scan off when it is dropped, however it ends.
#[must_use]
pub struct Shown<'a> {
    scans: &'a Scans,
    hub: &'a str,
}

impl Scans {
    /// Shows a scan until what is returned is dropped.
    pub fn show<'a>(&'a self, hub: &'a str, scan: Scan) -> Shown<'a> {
        self.note(hub, |scans| scans.scan = Some(scan));
        Shown { scans: self, hub }
    }

    /// Notes something about the scans of a hub.
    pub fn note(&self, hub: &str, change: impl FnOnce(&mut HubScans)) {
        let mut hubs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(hubs.entry(hub.to_owned()).or_default());
    }

    /// What is known of the scans of a hub.
    pub fn of(&self, hub: &str) -> HubScans {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(hub).cloned().unwrap_or_default()
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.scans.note(self.hub, |scans| scans.scan = None);
    }
}
