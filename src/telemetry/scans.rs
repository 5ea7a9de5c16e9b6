//! The progress of the scans over the twins of each IoT hub, and the results of the last ones.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::domain::ticks::Ticks;

/// A scan whose progress can be read at any time, from any thread.
pub trait ScanProgress: Send + Sync {
    /// Its current stage, in a few words.
    fn stage(&self) -> &'static str;
    /// Number of twins that it has processed.
    fn dealt_with(&self) -> u64;
    /// The total, if it is known, and where it comes from.
    fn out_of(&self) -> Option<(u64, &'static str)>;
    /// The reason why it waits at this moment, if it does.
    fn waits_for(&self) -> Option<String>;
}

/// A scan in progress.
#[derive(Clone)]
pub struct Scan {
    /// `backfill` or `audit`.
    pub what: &'static str,
    /// When it began, in this process.
    pub started: Ticks,
    /// Its progress.
    pub scanning: Arc<dyn ScanProgress>,
}

/// A finished audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Audited {
    /// When it ended.
    pub at: Ticks,
    /// Number of twins that were compared.
    pub twins: u64,
    /// Number of differences that remain.
    pub left: u64,
}

/// A finished backfill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backfilled {
    /// When it ended.
    pub at: Ticks,
    /// Twins by outcome.
    pub twins: Vec<(&'static str, u64)>,
}

/// The scans of one hub.
#[derive(Clone, Default)]
pub struct HubScans {
    /// The scan in progress.
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

/// Shared by the scans and their readers. Cheap to clone.
#[derive(Clone, Default)]
pub struct Scans(Arc<Mutex<BTreeMap<String, HubScans>>>);

impl std::fmt::Debug for Scans {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scans").finish_non_exhaustive()
    }
}

/// Removes a scan when it is dropped, however the scan ends.
#[must_use]
pub struct Shown<'a> {
    scans: &'a Scans,
    hub: &'a str,
}

impl Scans {
    /// Shows a scan until the result is dropped.
    pub fn show<'a>(&'a self, hub: &'a str, scan: Scan) -> Shown<'a> {
        self.note(hub, |scans| scans.scan = Some(scan));
        Shown { scans: self, hub }
    }

    /// Changes the shown state of a hub's scans.
    pub fn note(&self, hub: &str, change: impl FnOnce(&mut HubScans)) {
        let mut hubs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(hubs.entry(hub.to_owned()).or_default());
    }

    /// The scans of a hub.
    pub fn of(&self, hub: &str) -> HubScans {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(hub).cloned().unwrap_or_default()
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.scans.note(self.hub, |scans| scans.scan = None);
    }
}
