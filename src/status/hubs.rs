//! The scans over the twins of each IoT hub, as the status shows them.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{
    exposition::{Exposition, seconds, whole},
    schema,
};
use crate::{
    domain::{
        scan_rate::{ScanRate, done_in},
        ticks::Ticks,
    },
    telemetry::{HubScans, Scan, Scans, name},
};

/// The rates of the scans in progress.
#[derive(Debug)]
pub(super) struct ScanRates {
    began: Instant,
    rates: Mutex<BTreeMap<String, (Ticks, ScanRate)>>,
}

impl Default for ScanRates {
    fn default() -> Self {
        Self { began: Instant::now(), rates: Mutex::default() }
    }
}

impl ScanRates {
    /// Records the progress of the scans of these hubs.
    pub(super) fn note(&self, hubs: &[String], scans: &Scans) {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        for hub in hubs {
            match scans.of(hub).scan {
                Some(Scan { started, scanning, .. }) => {
                    let (since, rate) = rates.entry(hub.clone()).or_insert((started, ScanRate::default()));
                    if *since != started {
                        (*since, *rate) = (started, ScanRate::default());
                    }
                    rate.note(self.began.elapsed(), scanning.dealt_with());
                }
                None => {
                    rates.remove(hub);
                }
            }
        }
    }

    fn per_second(&self, hub: &str, scan: &Scan, dealt_with: u64) -> Option<f64> {
        let rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, rate) = rates.get(hub).filter(|(started, _)| *started == scan.started)?;
        rate.per_second(self.began.elapsed(), dealt_with)
    }

    fn scan(&self, hub: &str, scan: &Scan, hub_is_silent: bool) -> schema::Scan {
        let (dealt_with, out_of) = (scan.scanning.dealt_with(), scan.scanning.out_of());
        let per_second = self.per_second(hub, scan, dealt_with);
        schema::Scan {
            what: scan.what.to_owned(),
            stage: scan.scanning.stage().to_owned(),
            started: scan.started,
            dealt_with,
            out_of: out_of.map(|(twins, _)| twins),
            out_of_is: out_of.map(|(_, says)| says.to_owned()),
            per_second,
            done_in_seconds: done_in(dealt_with, out_of.map(|(twins, _)| twins), per_second)
                .as_ref()
                .map(Duration::as_secs_f64),
            waits_for: match hub_is_silent {
                true => Some("an answer of the hub".to_owned()),
                false => scan.scanning.waits_for(),
            },
        }
    }

    /// The status of a hub. `done_by`: the replica that does its scans.
    pub(super) fn hub(
        &self,
        hub: &str,
        scans: &HubScans,
        done_by: Option<String>,
        hub_is_silent: bool,
        metrics: &Exposition<'_>,
    ) -> schema::Hub {
        let completed = metrics.sum_with(name::AUDIT_COMPLETED, "hub", hub);
        let completed = (completed > 0.0).then(|| Ticks::new(0).after(seconds(completed)));
        let left = || metrics.sum_with(name::AUDIT_DIFFERENCES_LEFT, "hub", hub) as u64;
        let mut backfill = whole(metrics.by_with(name::BACKFILL_TWINS, "outcome", ("hub", hub)));
        if let (true, Some(backfilled)) = (backfill.is_empty(), &scans.backfilled) {
            backfill =
                backfilled.twins.iter().map(|(outcome, twins)| ((*outcome).to_owned(), *twins)).collect();
        }
        schema::Hub {
            hub: hub.to_owned(),
            done_by,
            scan: scans.scan.as_ref().map(|scan| self.scan(hub, scan, hub_is_silent)),
            backfill,
            backfill_completed: scans.backfilled.as_ref().map(|backfilled| backfilled.at),
            audit_completed: scans.audited.map(|audited| audited.at).or(completed),
            audit_twins: scans.audited.map(|audited| audited.twins),
            audit_differences_left: scans.audited.map(|audited| audited.left).or(completed.map(|_| left())),
            audit_differences: whole(metrics.by_with(name::AUDIT_DIFFERENCES, "class", ("hub", hub))),
            clean_audit: scans.clean.map(|clean| clean.at),
            clean_audit_twins: scans.clean.map(|clean| clean.twins),
            next_audit: scans.next_audit.filter(|_| scans.scan.is_none()),
        }
    }
}
