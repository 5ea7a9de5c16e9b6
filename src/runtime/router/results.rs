//! Results of workers, and what a failure for one twin means for all others.

use std::{sync::Arc, time::Duration};

use super::{Router, item::Item};
use crate::{
    domain::{
        decide::decide,
        document::Document,
        event::{Change, TwinEvent},
        health::StoreState,
        id::TwinKey,
        lane::Bound,
        outage::Cause,
    },
    ports::{Charged, StoreError, StoreErrorKind},
    runtime::{
        jitter::jitter,
        worker::{self, Work, WorkResult},
    },
    telemetry::{
        event::{StoreChanged, TwinUnanswered},
        reason::STORE_SILENT,
    },
};

/// Id of the device whose document a probe would write. The write never succeeds.
const NOBODY: &str = "twinsync-probe";

/// Result of a probe.
pub(super) type Probed = Charged<Result<(), StoreError>>;

impl Router {
    pub(super) fn work_returned(&mut self, result: WorkResult<Item>) {
        let now = self.now();
        match result {
            WorkResult::Finished { mut work, follow } => {
                self.charge(&mut work);
                self.concurrency.success();
                if work.asked {
                    if let Some(after) = self.outage.succeeded(&work.key, now) {
                        TwinUnanswered::Over { twin: &work.key, after }.emit();
                    }
                    self.store_answers();
                }
                self.finished(*work, follow, now);
            }
            WorkResult::Unanswered { mut work, trouble } => {
                self.charge(&mut work);
                let delay = work.backoff.next(jitter(), trouble.retry_after);
                match trouble.kind {
                    StoreErrorKind::Throttled => {
                        self.concurrency.throttled(now);
                        self.options.budget.streams_are_throttled();
                    }
                    StoreErrorKind::Unavailable => self.unanswered(&work.key, trouble, now),
                    StoreErrorKind::Contradictory => {
                        // The failure concerns this twin alone, however many others fail in the same way.
                        self.outage.answered(now);
                        self.store_answers();
                        self.unanswered(&work.key, trouble, now);
                    }
                    StoreErrorKind::Newer => {
                        if self.outage.unusable(&work.key, now) {
                            TwinUnanswered::Newer { twin: &work.key, reason: &trouble.message }.emit();
                        }
                        self.store_answers();
                    }
                }
                work.asked = false;
                if let Some(work) = self.give_up(work, now) {
                    self.health.tries_store_again(delay);
                    self.parked.insert(work, delay);
                }
            }
        }
    }

    /// If the store has answered about others for long enough but not about this twin, the waiting events of this twin become dead letters,
    /// so that they no longer block others. The rest of the work continues to be tried: the flags that follow from the dead letters.
    fn give_up(&mut self, work: Box<Work<Item>>, now: Duration) -> Option<Box<Work<Item>>> {
        let alone = self.outage.alone_for(&work.key, now);
        if self.options.give_up_after.is_none_or(|limit| alone < limit) {
            return Some(work);
        }
        let from_stream = |item: &Item| matches!(item, Item::FromStream(..));
        let waiting = self.lanes.withdraw(&work.key, |(_, item)| from_stream(item));
        if waiting.is_empty() && !work.items.iter().any(from_stream) {
            return Some(work);
        }
        let Work { key, upsert, items, backoff, trace, .. } = *work;
        let trace = trace.map(Arc::from);
        // The outcome of the last write is unknown.
        self.cache.invalidate(&key);
        let (mut given_up, mut kept) = (Vec::new(), Vec::new());
        let mut part = Bound { items: 0, weight: 0 };
        for (event, item) in upsert.give_up().into_iter().zip(items) {
            match item {
                Item::FromStream(mut origin, at) => {
                    origin.was_in(trace.as_ref());
                    part = Bound { items: part.items + 1, weight: part.weight + origin.permit.bytes() };
                    given_up.push((origin, at));
                }
                Item::OfDeadLetter(_) | Item::Follow(_) => kept.push((event, item)),
            }
        }
        for (_, item) in waiting {
            if let Item::FromStream(origin, at) = item {
                given_up.push((origin, at));
            }
        }
        TwinUnanswered::GivenUp { twin: &key, since: alone, events: given_up.len() }.emit();
        for (origin, at) in given_up {
            let detail =
                format!("the store has answered others for {} s, and not about this twin", alone.as_secs());
            self.dead_letter(STORE_SILENT, detail, Some((key.clone(), Some(at))), origin);
        }
        if kept.is_empty() {
            self.lanes.done(&key, now);
            return None;
        }
        self.lanes.partly_done(&key, part);
        Some(Box::new(Work { backoff, ..*self.work(key, kept) }))
    }

    /// Handles that the store gave no answer about a twin.
    fn unanswered(&mut self, key: &TwinKey, trouble: StoreError, now: Duration) {
        match self.outage.failed(key, now) {
            Cause::Store => self.store_is_out(trouble, now),
            Cause::Twin => {
                if let Some(since) = self.outage.worth_telling(key, now) {
                    TwinUnanswered::Alone { twin: key, since, reason: &trouble.message }.emit();
                }
            }
        }
    }

    /// An unreachable store is handled like one that throttles: its load is reduced.
    fn store_is_out(&mut self, StoreError { code, message, .. }: StoreError, now: Duration) {
        self.concurrency.throttled(now);
        if self.health.set_store(StoreState::Unreachable { reason: message.clone() }) {
            StoreChanged::Unreachable { code, reason: &message }.emit();
        }
    }

    /// Sends a probe if it is unknown whether a failure is the store's or one twin's. The probe concerns no existing twin.
    pub(super) fn probe(&mut self) {
        let now = self.now();
        let Some(key) = self.outage.probe(now) else {
            return;
        };
        let nobody = TwinKey::device(key.hub.clone(), NOBODY);
        let present = self.tools.clock.now();
        let mut document: Option<Document> = None;
        let deleted = TwinEvent { key: nobody, at: present, change: Change::Deleted };
        decide(&mut document, &deleted, present, &self.options.rules);
        if let Some(document) = document {
            self.probes.spawn(worker::probe(Arc::clone(&self.tools), document));
        }
    }

    pub(super) fn probed(&mut self, probed: Probed) {
        let now = self.now();
        self.options.budget.spend(probed.request_units);
        match probed.outcome {
            Ok(()) | Err(StoreError { kind: StoreErrorKind::Newer | StoreErrorKind::Contradictory, .. }) => {
                self.outage.answered(now);
                self.store_answers();
            }
            Err(StoreError { kind: StoreErrorKind::Throttled, .. }) => self.concurrency.throttled(now),
            Err(trouble @ StoreError { kind: StoreErrorKind::Unavailable, .. }) => {
                self.outage.probe_failed();
                self.store_is_out(trouble, now);
            }
        }
    }

    fn store_answers(&mut self) {
        if self.health.set_store(StoreState::Reachable) {
            StoreChanged::Reachable.emit();
        }
        if self.outage.take_ended() {
            // Each one waits for up to 30 s by now. Resuming all at once is no burst: the concurrency limit still applies.
            while let Some(next) = self.parked.peek() {
                self.resumed.push(self.parked.remove(&next).into_inner());
            }
        }
    }

    fn charge(&self, work: &mut Work<Item>) {
        self.options.budget.spend(std::mem::take(&mut work.request_units));
    }
}
