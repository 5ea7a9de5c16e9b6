//! When a daemon backfills and audits.
//!
//! One replica does this: the owner of the first partition of the first stream, so no other agreement is needed. When that partition goes
//! to another replica, this one stops at once, and the other one continues: a backfill at its note, an audit from the beginning, because
//! its state is only in memory.
//! note, an audit from the beginning, since what it has seen is in its memory only.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    audit::{self, Report},
    backfill,
    reconciler::TwinReconciler,
    requests::last_request,
    scanning::{Auditing, Backfilling},
};
use crate::{
    domain::{audit::Met, retry::Backoff, ticks::Ticks},
    ports::NoteStore,
    runtime::{jitter::jitter, rate_limited_registry::RateLimitedRegistry, watch},
    telemetry::{
        Audited, Backfilled, HubScans, Scan, Scans,
        event::{NoteNotKept, ScanFailed},
    },
};

/// First and longest wait after a backfill or an audit that failed.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(600));

/// How often the note is read to see whether another replica has requested an audit.
const POLL: Duration = Duration::from_secs(30);
/// Time from the start of a requested audit to the start of the next one, at first and at most. Partitions find a loss one after the other,
/// and the cause of the requests may persist.
const REST: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(600));

/// Options of the schedule.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether twins that existed before the streams are brought in. An unfinished backfill is resumed in any case.
    pub backfill: bool,
    /// Number of twins that a backfill processes at the same time.
    pub backfill_concurrency: usize,
    /// Time from the start of an audit to the start of the next. `None`: only on request.
    pub audit_interval: Option<Duration>,
    /// Options of an audit.
    pub audit: audit::Options,
}

/// The schedule of one hub.
pub struct Schedule {
    /// Reconciles the twins.
    pub reconciler: Arc<TwinReconciler>,
    /// The registry of the hub.
    pub registry: Arc<RateLimitedRegistry>,
    /// The store of the notes.
    pub notes: Arc<dyn NoteStore>,
    /// The options.
    pub options: Options,
    /// Whether this replica does the backfills and audits.
    pub leads: watch::Receiver<bool>,
    /// When this process last requested an audit.
    pub audit_wanted: watch::Receiver<Option<Ticks>>,
    /// Where the progress of scans is shown.
    pub scans: Scans,
}

/// What an audit leaves for the next one beside its report. Parts of its note.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
struct LastAudit {
    started_at: Option<Ticks>,
    #[serde(default)]
    answered: Option<Ticks>,
    #[serde(default, alias = "settled")]
    closed: Option<Ticks>,
    #[serde(default)]
    recent_next: u64,
    /// The result of the last audit, for people.
    #[serde(default)]
    finished_at: Option<Ticks>,
    #[serde(default)]
    twins: u64,
    #[serde(default)]
    left: u64,
    /// The last audit that left no difference, if known.
    #[serde(default)]
    clean: Option<Clean>,
}

/// An audit that compared every twin and left no difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Clean {
    finished_at: Ticks,
    twins: u64,
}

impl LastAudit {
    const fn met(&self) -> Met {
        Met { began: self.started_at, answered: self.answered, closed: self.closed }
    }

    /// Adds the result of another audit.
    fn followed_by(self, met: Met, report: &Report) -> Self {
        let clean = Clean { finished_at: report.finished_at, twins: report.twins };
        // A sample shows nothing about the other twins.
        let is_clean = report.left() == 0 && report.is_complete() && report.sample >= 1.0;
        Self {
            started_at: met.began,
            answered: met.answered,
            closed: met.closed,
            recent_next: report.recent_next,
            finished_at: Some(report.finished_at),
            twins: report.twins,
            left: report.left(),
            clean: if is_clean { Some(clean) } else { self.clean },
        }
    }

    fn show(&self, hub: &str, scans: &Scans) {
        let audited = |at, twins, left| Audited { at, twins, left };
        scans.note(hub, |scans| {
            scans.audited = self.finished_at.map(|at| audited(at, self.twins, self.left));
            scans.clean = self.clean.map(|clean| audited(clean.finished_at, clean.twins, 0));
        });
    }
}

/// A report, as it is stored.
#[derive(Serialize)]
struct Kept<'a> {
    #[serde(flatten)]
    report: &'a Report,
    answered: Option<Ticks>,
    closed: Option<Ticks>,
    left: u64,
    clean: Option<Clean>,
}

/// The name of the note with a hub's last report.
pub fn report_name(hub: &str) -> String {
    format!("audit/{}", hub)
}

/// Stores a report as the hub's last one.
async fn keep(notes: &dyn NoteStore, report: &Report, last: &LastAudit) -> Result<(), String> {
    let LastAudit { answered, closed, left, clean, .. } = *last;
    let kept = Kept { report, answered, closed, left, clean };
    let note = serde_json::to_vec_pretty(&kept).map_err(|error| error.to_string())?;
    notes.save(&report_name(&report.hub), &note).await.map_err(|error| error.to_string())
}

impl Schedule {
    /// Backfills and audits until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let started = self.reconciler.now();
        let mut backfill_wanted = self.options.backfill;
        let mut audit_wanted = false;
        // Kept in memory too: even if no note can be stored, neither a backfill nor an audit may repeat at once.
        let (mut backfilled, mut last, mut asked) = (false, LastAudit::default(), None);
        let (mut rests_until, mut rest) = (Instant::now(), REST.0);
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        while !stop.is_cancelled() {
            if !self.begin_to_lead(&stop).await {
                return;
            }
            let backfill_is_due = match self.backfill_is_due(backfill_wanted).await {
                Ok(due) => due && !backfilled,
                Err(error) => {
                    self.failed("backfill", &error, &mut backoff, &stop).await;
                    continue;
                }
            };
            if backfill_is_due {
                last = self.last_audit(last).await; // updates the shown result meanwhile
                match self.leading(&stop, async |this, stop| this.backfill(stop).await).await {
                    Some(Ok(())) => {
                        (backfill_wanted, backfilled) = (false, true);
                        backoff.reset();
                    }
                    Some(Err(error)) => self.failed("backfill", &error, &mut backoff, &stop).await,
                    None => {}
                }
                continue;
            }
            if !audit_wanted {
                last = self.last_audit(last).await;
                match self.wait_for_audit(started, &last, &mut asked, rests_until, &stop).await {
                    None => continue,
                    Some(Why::Due) => rest = REST.0,
                    Some(Why::Asked) => {
                        rests_until = Instant::now() + rest;
                        rest = (rest * 2).min(REST.1);
                    }
                }
            }
            audit_wanted = true; // until the audit is finished, even if it is stopped
            let request = newest(self.notes.as_ref(), &mut self.audit_wanted, &mut asked, &last.met()).await;
            let met = last.met().by_audit(request, self.reconciler.now(), self.options.audit.tolerance);
            match self.leading(&stop, async |this, stop| this.audit(met, last, stop).await).await {
                Some(Ok(done)) => {
                    audit_wanted = false;
                    last = done;
                    backoff.reset();
                }
                Some(Err(error)) => self.failed("audit", &error, &mut backoff, &stop).await,
                None => {}
            }
        }
    }

    /// Waits until this replica leads. Returns `false` if it was stopped.
    async fn begin_to_lead(&mut self, stop: &CancellationToken) -> bool {
        if !*self.leads.borrow() {
            // The replica that leads shows the progress.
            self.scans.note(self.registry.hub(), |scans| *scans = HubScans::default());
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => false,
            led = self.leads.wait_for(|leads| *leads) => led.is_ok(),
        }
    }

    /// Runs a future while this replica leads. `None`: it no longer leads, or it was stopped.
    async fn leading<T>(
        &self,
        stop: &CancellationToken,
        act: impl AsyncFnOnce(&Self, &CancellationToken) -> Result<T, String>,
    ) -> Option<Result<T, String>> {
        let stop = stop.child_token();
        let mut leads = self.leads.clone();
        let mut act = std::pin::pin!(act(self, &stop));
        tokio::select! {
            biased;
            done = &mut act => return (!stop.is_cancelled()).then_some(done),
            _ = leads.wait_for(|leads| !*leads) => stop.cancel(),
        }
        let _ = act.await; // stores its progress; its error is known: it was stopped
        None
    }

    /// Reports the error, and waits before the next try.
    async fn failed(&self, what: &'static str, error: &str, backoff: &mut Backoff, stop: &CancellationToken) {
        let retry_in = backoff.next(jitter(), None);
        ScanFailed { what, hub: self.registry.hub(), error, retry_in }.emit();
        self.registry.asks_again(retry_in);
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = tokio::time::sleep(retry_in) => {}
        }
    }

    async fn backfill_is_due(&self, wanted: bool) -> Result<bool, String> {
        if wanted {
            return Ok(true);
        }
        let note = backfill::note(self.notes.as_ref(), self.registry.hub()).await;
        let note = note.map_err(|error| error.to_string())?;
        if let Some(backfill::Note { finished_at: Some(at), counts, .. }) = &note {
            self.show_backfilled(*at, counts);
        }
        Ok(note.is_some_and(|note| note.finished_at.is_none()))
    }

    fn show_backfilled(&self, at: Ticks, counts: &backfill::Counts) {
        let twins = counts.outcomes().to_vec();
        self.scans.note(self.registry.hub(), |scans| scans.backfilled = Some(Backfilled { at, twins }));
    }

    async fn backfill(&self, stop: &CancellationToken) -> Result<(), String> {
        let progress = Arc::new(backfill::Progress::default());
        let scanning = Backfilling { registry: Arc::clone(&self.registry), progress: Arc::clone(&progress) };
        let scan = Scan { what: "backfill", started: self.reconciler.now(), scanning: Arc::new(scanning) };
        let _shown = self.scans.show(self.registry.hub(), scan);
        let concurrency = self.options.backfill_concurrency;
        let run = backfill::run(
            &self.reconciler,
            &self.registry,
            self.notes.as_ref(),
            concurrency,
            &progress,
            stop,
        );
        let counts = Box::pin(run).await.map_err(|error| error.to_string())?;
        self.show_backfilled(self.reconciler.now(), &counts);
        Ok(())
    }

    /// Runs an audit, and returns what it leaves for the next one.
    async fn audit(&self, met: Met, last: LastAudit, stop: &CancellationToken) -> Result<LastAudit, String> {
        let progress = Arc::new(audit::Progress::default());
        let scanning = Auditing {
            registry: Arc::clone(&self.registry),
            progress: Arc::clone(&progress),
            last: last.finished_at.map(|_| last.twins),
        };
        let scan = Scan { what: "audit", started: self.reconciler.now(), scanning: Arc::new(scanning) };
        let _shown = self.scans.show(self.registry.hub(), scan);
        let options = &self.options.audit;
        let run = audit::run(&self.reconciler, &self.registry, options, last.recent_next, &progress, stop);
        let report = Box::pin(run).await.map_err(|error| error.to_string())?;
        let last = last.followed_by(met, &report);
        last.show(self.registry.hub(), &self.scans);
        if let Err(error) = keep(self.notes.as_ref(), &report, &last).await {
            NoteNotKept { error: &error }.emit();
        }
        Ok(last)
    }

    /// Waits until an audit is due or requested. `None`: this replica no longer leads, or it was stopped.
    async fn wait_for_audit(
        &mut self,
        started: Ticks,
        last: &LastAudit,
        asked: &mut Option<Ticks>,
        rests_until: Instant,
        stop: &CancellationToken,
    ) -> Option<Why> {
        let due = self.audit_due(started, last.started_at);
        let next = due.map(|due| self.reconciler.now().after(due.saturating_duration_since(Instant::now())));
        self.scans.note(self.registry.hub(), |scans| scans.next_audit = next);
        let timer = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let asked = async {
            tokio::time::sleep_until(rests_until).await;
            loop {
                let met = last.met();
                let request = newest(self.notes.as_ref(), &mut self.audit_wanted, asked, &met).await;
                let wait = met.wait_for(request, self.reconciler.now(), self.options.audit.tolerance);
                if wait == Some(Duration::ZERO) {
                    return;
                }
                tokio::select! {
                    biased;
                    Ok(()) = self.audit_wanted.changed() => self.audit_wanted.mark_changed(), // read above
                    () = tokio::time::sleep(wait.map_or(POLL, |wait| wait.min(POLL))) => {}
                }
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => None,
            () = asked => Some(Why::Asked),
            _ = self.leads.wait_for(|leads| !*leads) => None,
            () = timer => Some(Why::Due),
        }
    }

    /// The last audit with a note, or `known` if that is newer.
    async fn last_audit(&self, known: LastAudit) -> LastAudit {
        let note = match self.notes.load(&report_name(self.registry.hub())).await {
            Ok(note) => note.and_then(|note| serde_json::from_slice::<LastAudit>(&note).ok()),
            Err(error) => {
                NoteNotKept { error: &error.to_string() }.emit();
                None
            }
        };
        let last = note.filter(|note| note.started_at > known.started_at).unwrap_or(known);
        last.show(self.registry.hub(), &self.scans);
        last
    }

    /// When the next audit is due. Before the first audit, the streams get some time to catch up.
    fn audit_due(&self, started: Ticks, last: Option<Ticks>) -> Option<Instant> {
        let interval = self.options.audit_interval?;
        let (from, wait) = match last {
            Some(last) => (last, interval),
            None => (started, interval.min(self.options.audit.tolerance)),
        };
        let passed =
            Duration::try_from_secs_f64(self.reconciler.now().seconds_since(from)).unwrap_or_default();
        Some(Instant::now() + wait.saturating_sub(passed))
    }
}

/// Why an audit begins.
enum Why {
    /// The interval has passed.
    Due,
    /// It was requested.
    Asked,
}

/// The time of the newest request for an audit: a request of this process that has no note yet, or the one in the note, from any replica.
async fn newest(
    notes: &dyn NoteStore,
    own: &mut watch::Receiver<Option<Ticks>>,
    asked: &mut Option<Ticks>,
    met: &Met,
) -> Option<Ticks> {
    if own.has_changed() {
        *asked = *own.borrow_and_update();
    }
    let noted = last_request(notes).await.unwrap_or_else(|error| {
        NoteNotKept { error: &error.to_string() }.emit();
        None
    });
    if *asked == noted || *asked == met.closed {
        *asked = None;
    }
    asked.or(noted)
}

#[cfg(test)]
mod tests;
