//! When a daemon backfills and audits.
//!
//! One replica does it: the one that owns the first partition of the first stream, so that there is nothing more to
//! agree on. It stops where it stands when that partition goes to another replica, which then goes on: a backfill at its
//! bookmark, an audit from the beginning, since what it has seen is in its memory only.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    audit::{self, Report},
    backfill,
    judge::Judge,
    requests::last_request,
};
use crate::{
    domain::{retry::Backoff, ticks::Ticks},
    ports::Bookmarks,
    runtime::metered::Metered,
    telemetry::event::{NoteNotKept, WalkFailed},
};

/// First and longest wait after a backfill or audit that failed.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(600));

/// How often it is looked whether another replica has asked for an audit.
const LOOK: Duration = Duration::from_secs(30);
/// From the beginning of an audit that was asked for to that of the next one, at first and at most: partitions notice a loss
/// one after the other, and what asks for audits may go on asking.
const REST: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(600));

/// What is done when.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether twins are filled in that were there before us; an unfinished backfill goes on in any case.
    pub backfill: bool,
    /// Twins that a backfill deals with at the same time.
    pub backfill_concurrency: usize,
    /// From the beginning of an audit to that of the next; `None`: only on request.
    pub audit_interval: Option<Duration>,
    /// How an audit is done.
    pub audit: audit::Options,
}

/// What belongs to one hub.
pub struct Schedule {
    /// Settles twins.
    pub judge: Arc<Judge>,
    /// The hub.
    pub registry: Arc<Metered>,
    /// Where notes are kept.
    pub bookmarks: Arc<dyn Bookmarks>,
    /// What is done when.
    pub options: Options,
    /// Whether this replica is the one.
    pub leads: watch::Receiver<bool>,
    /// Asks for an audit now.
    pub audit_wanted: watch::Receiver<()>,
}

/// The note that the last audit has left; all that the schedule needs of it.
#[derive(Debug, Deserialize)]
struct LastAudit {
    started_at: Ticks,
}

/// The name of the note with a hub's last report.
pub fn report_name(hub: &str) -> String {
    format!("audit/{}", hub)
}

/// Keeps a report as the hub's last one.
///
/// # Errors
/// It could not be written.
pub async fn keep(bookmarks: &dyn Bookmarks, report: &Report) -> Result<(), String> {
    let note = serde_json::to_vec_pretty(report).map_err(|error| error.to_string())?;
    bookmarks.save(&report_name(&report.hub), &note).await.map_err(|error| error.to_string())
}

impl Schedule {
    /// Backfills and audits until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let started = self.judge.now();
        let mut backfill_wanted = self.options.backfill;
        let mut audit_wanted = false;
        // Also where no note can be kept: neither must follow the other at once.
        let (mut backfilled, mut last_audit) = (false, None);
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
                match self.wait_for_audit(started, last_audit, rests_until, &stop).await {
                    None => continue,
                    Some(Why::Due) => rest = REST.0,
                    Some(Why::Asked) => {
                        rests_until = Instant::now() + rest;
                        rest = (rest * 2).min(REST.1);
                    }
                }
            }
            audit_wanted = true; // until it is done, whoever stops it
            let begins = self.judge.now();
            match self.leading(&stop, async |this, stop| this.audit(stop).await).await {
                Some(Ok(())) => {
                    audit_wanted = false;
                    last_audit = Some(begins);
                    backoff.reset();
                }
                Some(Err(error)) => self.failed("audit", &error, &mut backoff, &stop).await,
                None => {}
            }
        }
    }

    /// Waits until this replica is the one; `false`: stopped.
    async fn begin_to_lead(&mut self, stop: &CancellationToken) -> bool {
        tokio::select! {
            biased;
            () = stop.cancelled() => false,
            led = self.leads.wait_for(|leads| *leads) => led.is_ok(),
        }
    }

    /// Does something for as long as this replica is the one; `None`: it no longer is, or is stopped.
    async fn leading(
        &self,
        stop: &CancellationToken,
        act: impl AsyncFnOnce(&Self, &CancellationToken) -> Result<(), String>,
    ) -> Option<Result<(), String>> {
        let stop = stop.child_token();
        let mut leads = self.leads.clone();
        let mut act = std::pin::pin!(act(self, &stop));
        tokio::select! {
            biased;
            done = &mut act => return (!stop.is_cancelled()).then_some(done),
            _ = leads.wait_for(|leads| !*leads) => stop.cancel(),
        }
        let _ = act.await; // notes where it stands; that it stopped is known
        None
    }

    /// Tells why, and waits before the next try.
    async fn failed(&self, what: &'static str, error: &str, backoff: &mut Backoff, stop: &CancellationToken) {
        let retry_in = backoff.next(rand::random(), None);
        WalkFailed { what, hub: self.registry.hub(), error, retry_in }.emit();
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
        let bookmark = backfill::bookmark(self.bookmarks.as_ref(), self.registry.hub()).await;
        let bookmark = bookmark.map_err(|error| error.to_string())?;
        Ok(bookmark.is_some_and(|bookmark| bookmark.finished_at.is_none()))
    }

    async fn backfill(&self, stop: &CancellationToken) -> Result<(), String> {
        let progress = backfill::Progress::default();
        let concurrency = self.options.backfill_concurrency;
        let run =
            backfill::run(&self.judge, &self.registry, self.bookmarks.as_ref(), concurrency, &progress, stop);
        Box::pin(run).await.map(drop).map_err(|error| error.to_string())
    }

    async fn audit(&self, stop: &CancellationToken) -> Result<(), String> {
        let progress = audit::Progress::default();
        let run = audit::run(&self.judge, &self.registry, &self.options.audit, &progress, stop);
        let report = Box::pin(run).await.map_err(|error| error.to_string())?;
        if let Err(error) = keep(self.bookmarks.as_ref(), &report).await {
            NoteNotKept { error: &error }.emit();
        }
        Ok(())
    }

    /// Waits until an audit is due or asked for; `None`: this replica is no longer the one, or is stopped.
    async fn wait_for_audit(
        &mut self,
        started: Ticks,
        last: Option<Ticks>,
        rests_until: Instant,
        stop: &CancellationToken,
    ) -> Option<Why> {
        let last = last.max(self.last_audit().await);
        let due = self.audit_due(started, last);
        let timer = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let bookmarks = Arc::clone(&self.bookmarks);
        let asked = async {
            tokio::time::sleep_until(rests_until).await;
            tokio::select! {
                biased;
                Ok(()) = self.audit_wanted.changed() => {}
                () = asked_elsewhere(bookmarks.as_ref(), last) => {}
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

    /// When the last audit began that left a note.
    async fn last_audit(&self) -> Option<Ticks> {
        match self.bookmarks.load(&report_name(self.registry.hub())).await {
            Ok(note) => {
                let note = note.and_then(|note| serde_json::from_slice::<LastAudit>(&note).ok());
                note.map(|note| note.started_at)
            }
            Err(error) => {
                NoteNotKept { error: &error.to_string() }.emit();
                None
            }
        }
    }

    /// When the next audit is due. Without any before, the streams get some time to catch up first.
    fn audit_due(&self, started: Ticks, last: Option<Ticks>) -> Option<Instant> {
        let interval = self.options.audit_interval?;
        let (from, wait) = match last {
            Some(last) => (last, interval),
            None => (started, interval.min(self.options.audit.tolerance)),
        };
        let passed = Duration::try_from_secs_f64(self.judge.now().seconds_since(from)).unwrap_or_default();
        Some(Instant::now() + wait.saturating_sub(passed))
    }
}

/// Why an audit begins.
enum Why {
    /// Its time has come.
    Due,
    /// Somebody asked for it.
    Asked,
}

/// Waits until a request is found that is newer than the last audit. Where there was none yet, one that a process before us
/// has left counts as well.
async fn asked_elsewhere(bookmarks: &dyn Bookmarks, last: Option<Ticks>) {
    loop {
        match last_request(bookmarks).await {
            Ok(wanted_at) if wanted_at.is_some() && wanted_at > last => return,
            Ok(_) => {}
            Err(error) => NoteNotKept { error: &error.to_string() }.emit(),
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests;
