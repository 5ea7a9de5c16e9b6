//! Finds differences that are not flagged.
//!
//! ```text
//! pages of the query ─► document ─► differs? ─► changed lately: put aside ─► GET: still differs? ─► repair
//! documents          ─► not among the rows?  ─► changed lately: put aside ─► GET: not found?     ─► tombstone
//!                    ─► under another id, and not the one that is read for its twin? ─► an orphan, which is reported
//! put aside          ─► a limited number of them, others each time        ─► GET, as above
//! repaired ones      ─► checked again at the end: one that still differs is an alarm
//! ```
//!
//! Rows are up to 30 minutes old. So no difference is accepted before the hub itself was asked, and for most twins that changed within the
//! tolerance the hub is not even asked. Two contents of one version contradict each other whenever they changed, so for them the hub is
//! asked at once. Without an answer nothing is changed, and the audit reports that it is incomplete.

mod check;
mod report;

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;

use self::check::{ATTEMPTS, BACKOFF, Check, Checked};
pub use self::report::{Finding, FindingOutcome, Report};
use super::{
    candidates::{CandidatePages, Ended, Kind},
    reconciler::{Mode, TwinReconciler},
};
use crate::{
    domain::{
        audit::{Rotation, place},
        drift::{Drift, Strictness},
        id::TwinKey,
        quota::Purpose,
        retry::Backoff,
    },
    ports::{Scanned, Which},
    runtime::{jitter::jitter, rate_limited_registry::RateLimitedRegistry},
    telemetry::event::{AuditFinished, StillDifferent},
};

/// Maximum number of repaired twins that are checked again.
const RECHECKED: usize = 10_000;
/// How many times a repaired twin that differs is checked again before it is an alarm, and how long between the checks: an event may be on
/// its way.
const LOOKS: u32 = 3;
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// After this many twins in a row without an answer, an audit is given up: it would only count failures.
const GIVE_UP: u64 = 50;

/// Options of an audit.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The fraction of the twins that is checked, 0 to 1. Each audit checks other twins.
    pub sample: f64,
    /// Whether differences are repaired.
    pub mode: Mode,
    /// How closely to compare.
    pub strictness: Strictness,
    /// Twins that changed more recently than this are skipped, except for a limited number of them.
    pub tolerance: Duration,
    /// The number of twins that changed within the tolerance for which the hub is asked all the same.
    pub recent_checks: usize,
    /// Number of twins that are checked at the same time.
    pub concurrency: usize,
}

/// Progress of an audit. Can be read while it runs.
#[derive(Debug, Default)]
pub struct Progress {
    /// Number of registered devices, as the hub estimates. 0: unknown.
    pub devices: AtomicU64,
    /// Number of twins and documents that were checked.
    pub already_checked: AtomicU64,
    /// Index of the current stage in [`STAGES`].
    pub stage: AtomicUsize,
}

/// The stages of an audit, in order.
pub const STAGES: [&str; 4] = [
    "twins against documents",
    "documents without twins",
    "twins that changed recently",
    "repaired twins, once more",
];

impl Progress {
    fn add(&self) {
        self.already_checked.fetch_add(1, Ordering::Relaxed); // an independent counter
    }
}

/// Audits one hub. `from` is where the last scan stopped among the twins that changed within the tolerance ([`Report::recent_next`]).
///
/// # Errors
/// `stop` was cancelled, the hub refuses a query, or the store or the hub gives no answers at all.
pub async fn run(
    reconciler: &TwinReconciler,
    registry: &Arc<RateLimitedRegistry>,
    options: &Options,
    from: u64,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<Report, Ended> {
    let hub = registry.hub();
    let report = Report::new(hub, reconciler.now(), options.sample, options.mode == Mode::Correct);
    let check = Check { reconciler, options, progress, stop };
    let recent = Rotation::new(from, options.recent_checks);
    let found = Found { report, recent, repaired: Vec::new(), silent: 0 };
    let mut audit = Audit { check, registry, hasher: RandomState::new(), seen: HashSet::new(), found };
    if let Ok(devices) = registry.device_count(Purpose::Audit).await {
        progress.devices.store(devices, Ordering::Relaxed);
    }
    audit.compare_twins().await?;
    progress.stage.store(1, Ordering::Relaxed);
    audit.look_for_extra_documents().await?;
    progress.stage.store(2, Ordering::Relaxed);
    audit.look_at_recent(from).await?;
    if options.mode == Mode::Correct {
        progress.stage.store(3, Ordering::Relaxed);
        audit.look_again().await?;
    }
    let mut report = audit.found.report;
    report.finished_at = reconciler.now();
    AuditFinished {
        hub: &report.hub,
        at: report.finished_at,
        twins: report.twins,
        found: &report.found,
        repaired: &report.repaired,
        left: report.left(),
        unknown: report.unknown,
        recent: report.recent,
    }
    .emit(&reconciler.budgeted_store().metrics);
    Ok(report)
}

struct Audit<'a> {
    check: Check<'a>,
    registry: &'a Arc<RateLimitedRegistry>,
    /// A new hasher for each audit, so that samples differ.
    hasher: RandomState,
    /// Hashes of the twins that the query showed: 8 bytes each, for at most a million twins of a hub.
    seen: HashSet<u64>,
    found: Found,
}

/// The findings so far.
struct Found {
    report: Report,
    /// Of the twins that changed within the tolerance, those to ask the hub about.
    recent: Rotation<(TwinKey, Drift)>,
    repaired: Vec<TwinKey>,
    /// Number of twins in a row without an answer.
    silent: u64,
}

impl Audit<'_> {
    fn hash(&self, key: &TwinKey) -> u64 {
        self.hasher.hash_one(key)
    }

    fn is_sampled(&self, hash: u64) -> bool {
        let sample = self.check.options.sample;
        sample >= 1.0 || (hash as f64) < sample * u64::MAX as f64
    }

    async fn compare_twins(&mut self) -> Result<(), Ended> {
        for kind in Kind::ALL {
            let mut pages = CandidatePages::whole_twins(Arc::clone(self.registry), kind, Purpose::Audit);
            while let Some(page) = pages.next(self.check.stop).await? {
                self.found.report.unknown += page.odd as u64;
                let mut rows = Vec::new();
                for row in page.rows {
                    let hash = self.hash(&row.key);
                    // A scan that had to begin again shows twins twice.
                    if self.is_sampled(hash) && self.seen.insert(hash) {
                        rows.push(row);
                    }
                }
                self.found.report.twins += rows.len() as u64;
                let check = &self.check;
                let turns: Vec<_> = rows.into_iter().map(|row| Box::pin(check.row(row))).collect();
                take(check, turns, &mut self.found).await?;
            }
        }
        Ok(())
    }

    async fn look_for_extra_documents(&mut self) -> Result<(), Ended> {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        let mut already_checked = HashSet::new();
        let budgeted_store = self.check.reconciler.budgeted_store().clone();
        'scan: loop {
            let mut pages = pin!(budgeted_store.scan(Which::Present, Purpose::Audit));
            while let Some(page) = pages.next().await {
                let page = match page {
                    Ok(page) => page,
                    Err(trouble) if backoff.attempts() < ATTEMPTS => {
                        if !self.check.pause(backoff.next(jitter(), trouble.retry_after)).await {
                            return Err(Ended::Stopped);
                        }
                        continue 'scan; // from the beginning: twins that were already checked are skipped
                    }
                    Err(trouble) => {
                        return Err(Ended::Silent {
                            hub: self.registry.hub().to_string(),
                            reason: format!("the scan over the documents stopped: {}", trouble.message),
                        });
                    }
                };
                let strangers = self.strangers(&page, &mut already_checked);
                let candidates = self.unseen(page, &mut already_checked);
                let check = &self.check;
                let turns: Vec<_> =
                    strangers.into_iter().map(|scanned| Box::pin(check.stranger(scanned))).collect();
                take(check, turns, &mut self.found).await?;
                let turns: Vec<_> =
                    candidates.into_iter().map(|scanned| Box::pin(check.document(scanned))).collect();
                take(check, turns, &mut self.found).await?;
            }
            return Ok(());
        }
    }

    /// Documents of this hub under other ids than today's ids.
    fn strangers(&self, page: &[Scanned], already_checked: &mut HashSet<u64>) -> Vec<Scanned> {
        let is_strange = |scanned: &&Scanned| {
            scanned.key.hub == *self.registry.hub()
                && self.is_sampled(self.hash(&scanned.key))
                && scanned.id != self.check.reconciler.document_id(&scanned.key)
                && already_checked.insert(self.hasher.hash_one((&scanned.id, &scanned.key)))
        };
        page.iter().filter(is_strange).cloned().collect()
    }

    /// Documents of this hub whose twins the query did not show.
    fn unseen(&mut self, page: Vec<Scanned>, already_checked: &mut HashSet<u64>) -> Vec<Scanned> {
        let mut unseen = Vec::new();
        for scanned in page {
            let hash = self.hash(&scanned.key);
            let ours = scanned.key.hub == *self.registry.hub();
            if ours && self.is_sampled(hash) && already_checked.insert(hash) {
                self.found.report.documents += 1;
                if !self.seen.contains(&hash) {
                    unseen.push(scanned);
                }
            }
        }
        unseen
    }

    /// Asks the hub about the chosen twins that changed within the tolerance.
    async fn look_at_recent(&mut self, from: u64) -> Result<(), Ended> {
        let recent = std::mem::replace(&mut self.found.recent, Rotation::new(from, 0));
        self.found.report.recent = recent.passed_over();
        let (chosen, next) = recent.end();
        self.found.report.recent_asked = chosen.len() as u64;
        self.found.report.recent_next = next;
        let check = &self.check;
        let turns: Vec<_> =
            chosen.into_iter().map(|(key, candidate)| Box::pin(check.recent(key, candidate))).collect();
        take(check, turns, &mut self.found).await
    }

    /// Checks the repaired twins once more. If one differs again at once, another repair would not help.
    async fn look_again(&mut self) -> Result<(), Ended> {
        let mut suspects = std::mem::take(&mut self.found.repaired);
        for _ in 0..LOOKS {
            if suspects.is_empty() {
                return Ok(());
            }
            if !self.check.pause(LOOK_PAUSE).await {
                return Err(Ended::Stopped);
            }
            let check = &self.check;
            let turns: Vec<_> = suspects.into_iter().map(|key| Box::pin(check.differs_still(key))).collect();
            let checked: Vec<_> = at_once(check, turns).collect().await;
            if check.stop.is_cancelled() {
                return Err(Ended::Stopped);
            }
            self.found.report.unknown +=
                checked.iter().filter(|(_, differs)| differs.is_none()).count() as u64;
            suspects = checked
                .into_iter()
                .filter(|(_, differs)| *differs == Some(true))
                .map(|(key, _)| key)
                .collect();
        }
        for key in suspects {
            StillDifferent { twin: &key }.emit(&self.check.reconciler.budgeted_store().metrics);
            self.found.report.add_still_different(&key);
        }
        Ok(())
    }
}

/// Runs the checks, as many at the same time as allowed.
fn at_once<F: Future>(check: &Check<'_>, turns: Vec<F>) -> impl Stream<Item = F::Output> {
    futures::stream::iter(turns).buffer_unordered(check.options.concurrency.max(1))
}

/// Adds the results of the checks.
async fn take<F>(check: &Check<'_>, turns: Vec<F>, found: &mut Found) -> Result<(), Ended>
where
    F: Future<Output = (TwinKey, Checked)>,
{
    let mut turns = pin!(at_once(check, turns));
    while let Some((key, checked)) = turns.next().await {
        // A check that the stop interrupted has no result. No report is better than a wrong one.
        if check.stop.is_cancelled() {
            return Err(Ended::Stopped);
        }
        found.silent = match &checked {
            Checked::Unknown(_, reason) if found.silent + 1 >= GIVE_UP => {
                return Err(Ended::Silent { hub: key.hub.to_string(), reason: reason.clone() });
            }
            Checked::Unknown(..) => found.silent + 1,
            Checked::Equal
            | Checked::Recent(_)
            | Checked::Cleared
            | Checked::Completed
            | Checked::Orphan(_)
            | Checked::Confirmed(..) => 0,
            // This does not show whether there was an answer.
            Checked::Incomplete => found.silent,
        };
        if let Checked::Confirmed(_, FindingOutcome::Repaired, _) = checked
            && found.repaired.len() < RECHECKED
        {
            found.repaired.push(key.clone());
        }
        match checked {
            Checked::Recent(candidate) => found.recent.offer(place(&key), (key, candidate)),
            checked => found.report.add(&key, checked),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
