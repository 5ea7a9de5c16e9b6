//! How a backfill or an audit reports its progress.

use std::sync::{Arc, atomic::Ordering};

use super::{audit, backfill};
use crate::{
    domain::quota::Purpose, runtime::rate_limited_registry::RateLimitedRegistry, telemetry::ScanProgress,
};

/// The unit of a total that the hub estimates.
const REGISTERED: &str = "devices registered, as the hub estimates";
/// The unit of a total that the last audit counted.
const AUDITED: &str = "twins in the last audit";

/// A backfill in progress.
pub(super) struct Backfilling {
    pub(super) registry: Arc<RateLimitedRegistry>,
    pub(super) progress: Arc<backfill::Progress>,
}

/// An audit in progress.
pub(super) struct Auditing {
    pub(super) registry: Arc<RateLimitedRegistry>,
    pub(super) progress: Arc<audit::Progress>,
    /// Number of twins that the last audit compared.
    pub(super) last: Option<u64>,
}

impl ScanProgress for Backfilling {
    fn stage(&self) -> &'static str {
        match self.progress.modules.load(Ordering::Relaxed) {
            false => "devices",
            true => "modules",
        }
    }

    fn dealt_with(&self) -> u64 {
        self.progress.counts().listed
    }

    /// The hub counts devices. The number of modules is unknown.
    fn out_of(&self) -> Option<(u64, &'static str)> {
        let devices = self.progress.devices.load(Ordering::Relaxed);
        (devices > 0 && !self.progress.modules.load(Ordering::Relaxed)).then_some((devices, REGISTERED))
    }

    fn waits_for(&self) -> Option<String> {
        waits_for(&self.registry, Purpose::Backfill)
    }
}

impl ScanProgress for Auditing {
    fn stage(&self) -> &'static str {
        audit::STAGES.get(self.progress.stage.load(Ordering::Relaxed)).copied().unwrap_or_default()
    }

    fn dealt_with(&self) -> u64 {
        self.progress.already_checked.load(Ordering::Relaxed)
    }

    fn out_of(&self) -> Option<(u64, &'static str)> {
        let devices = Some(self.progress.devices.load(Ordering::Relaxed)).filter(|devices| *devices > 0);
        let last = self.last.filter(|twins| *twins > 0).map(|twins| (twins, AUDITED));
        last.or(devices.map(|devices| (devices, REGISTERED)))
    }

    fn waits_for(&self) -> Option<String> {
        waits_for(&self.registry, Purpose::Audit)
    }
}

fn waits_for(registry: &RateLimitedRegistry, purpose: Purpose) -> Option<String> {
    let (reads, pages) = registry.rate_limiter().waits(purpose);
    let rates = registry.rate_limiter().rates();
    match (reads, pages) {
        (true, _) => Some(format!("its share of the hub's quota: {:.1} reads of twins per second", rates.0)),
        (false, true) => Some(format!("its share of the hub's quota: {:.2} pages per second", rates.1)),
        (false, false) => None,
    }
}
