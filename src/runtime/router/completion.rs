//! From a finished write to completed events. Everything that follows from the events has to be durable first.

use std::{sync::Arc, time::Duration};

use super::{
    Router,
    item::{Group, GroupId, Item},
};
use crate::{
    domain::{
        decide::Decision, document::Cascade, event::TwinEvent, id::TwinKey, invariant::Invariant,
        progress::Ticket, ticks::Ticks, upsert::EventOutcome,
    },
    runtime::{
        in_flight::Permit,
        intake::{Origin, Outcome, Watcher},
        progress::Progress,
        worker::Work,
    },
    telemetry::{
        Latency,
        event::EventDecided,
        reason::{FOREIGN_DOCUMENT, REJECTED_BY_STORE},
        trace::{Ended, Present, WriteTrace},
    },
};

/// Approximate size of a follow-up event, in bytes.
const FOLLOW_WEIGHT: usize = 128;

impl Router {
    pub(super) fn finished(&mut self, work: Work<Item>, follow: Vec<TwinEvent>, now: Duration) {
        let Work { key, upsert, items, trace, .. } = work;
        let write: Option<Arc<WriteTrace>> = trace.map(Arc::from);
        let mut traced = Vec::new();
        let (outcomes, stored) = upsert.finish();
        if outcomes.len() < items.len() {
            let detail = format!("{key}: {} of {} events were decided about", outcomes.len(), items.len());
            self.broken(Invariant::EveryEventIsDecided, &detail);
        }
        // Outcomes after those of the items belong to the deletion that a worker added to a module of a deleted device.
        for outcome in outcomes.iter().skip(items.len()) {
            if let EventOutcome::Rejected(reason) = outcome {
                self.flag_rejected(&key, reason);
            }
        }
        let cascade = stored.as_ref().and_then(|(document, _)| document.cascade);
        match stored {
            Some(stored) => {
                if stored.0.is_flagged() {
                    self.options.repair_queue.raise(&key);
                } else if stored.0.lacks_identity() && stored.0.is_new(self.tools.clock.now()) {
                    self.options.repair_queue.complete(&key);
                }
                self.cache.insert(key.clone(), stored);
            }
            None => self.cache.invalidate(&key),
        }
        self.lanes.done(&key, now);
        let present = self.tools.clock.now();
        let moment = Present::new(present);
        let mut decided = Vec::with_capacity(items.len());
        for (item, outcome) in items.into_iter().zip(outcomes) {
            match (item, outcome) {
                (Item::FromStream(mut origin, at), EventOutcome::Rejected(reason)) => {
                    origin.was_in(write.as_ref());
                    let twin = Some((key.clone(), Some(at)));
                    self.dead_letter(REJECTED_BY_STORE, reason, twin, origin);
                }
                (Item::FromStream(mut origin, at), EventOutcome::Foreign(reason)) => {
                    origin.was_in(write.as_ref());
                    let twin = Some((key.clone(), Some(at)));
                    self.dead_letter(FOREIGN_DOCUMENT, reason, twin, origin);
                }
                // This twin has no document that could carry the flag. The dead letter records it.
                (item @ (Item::OfDeadLetter(_) | Item::Follow(_)), EventOutcome::Foreign(_)) => {
                    decided.push(item)
                }
                (item @ Item::OfDeadLetter(_), EventOutcome::Decided(_)) => decided.push(item),
                (item @ Item::OfDeadLetter(_), EventOutcome::Rejected(reason)) => {
                    self.flag_rejected(&key, &reason);
                    decided.push(item);
                }
                (Item::FromStream(mut origin, at), EventOutcome::Decided(decision)) => {
                    origin.note(|| Outcome::Decided(decision));
                    EventDecided {
                        partition: origin.progress.id(),
                        sequence_number: origin.message.position.sequence_number,
                        twin: &key,
                        decision: decision.into(),
                    }
                    .emit(&origin.progress.stream_metrics);
                    // A replayed old event says nothing about freshness.
                    if !matches!(decision, Decision::Duplicate | Decision::Stale) {
                        self.tools.metrics.event_durable(latency(&origin, at, present));
                    }
                    if let Some(tracer) = &self.options.tracer {
                        traced.extend(tracer.ended(&Ended {
                            twin: Some(&key),
                            operation: Some(at),
                            write: write.as_deref(),
                            decision: decision.into(),
                            ..origin.ended(moment)
                        }));
                    }
                    decided.push(Item::FromStream(origin, at));
                }
                (item @ Item::Follow(_), EventOutcome::Decided(_)) => decided.push(item),
                (item @ Item::Follow(_), EventOutcome::Rejected(reason)) => {
                    // This event is not a message of the stream, so there is nothing to dead-letter.
                    self.flag_rejected(&key, &reason);
                    decided.push(item);
                }
            }
        }
        if let (Some(tracer), Some(write)) = (&self.options.tracer, &write) {
            tracer.shared_write(write, traced, moment);
        }
        if follow.is_empty() {
            self.complete_all(decided);
            return;
        }
        self.followed.extend(cascade.map(|cascade| (key.clone(), cascade)));
        let group = GroupId(self.next_group);
        self.next_group += 1;
        if planted!(ModulesNotAwaited) {
            self.complete_all(std::mem::take(&mut decided));
        }
        self.groups.insert(group, Group { open: follow.len(), items: decided, device: key, cascade });
        for event in follow {
            let key = event.key.clone();
            self.lanes.push(&key, (event, Item::Follow(group)), FOLLOW_WEIGHT, now, Duration::ZERO);
        }
    }

    pub(super) fn complete_all(&mut self, items: Vec<Item>) {
        let mut together = Together::default();
        // A loop instead of recursion: completing one group may complete the last member of another.
        let mut left = items;
        while let Some(item) = left.pop() {
            match item {
                Item::FromStream(origin, _) | Item::OfDeadLetter(origin) => together.add(*origin),
                Item::Follow(id) => {
                    let Some(group) = self.groups.get_mut(&id) else {
                        self.broken(
                            Invariant::EveryFollowerCompletes,
                            "nothing waits for an event that followed another",
                        );
                        continue;
                    };
                    group.open -= 1;
                    if group.open == 0
                        && let Some(group) = self.groups.remove(&id)
                    {
                        self.cascaded(&group.device, group.cascade);
                        left.extend(group.items);
                    }
                }
            }
        }
    }

    /// The modules of a device have followed it. The cached document now says so, and the next write of the device stores that. If the
    /// device is being written at this moment, or is no longer cached, its modules are looked up once more, which changes nothing.
    fn cascaded(&mut self, device: &TwinKey, cascade: Option<Cascade>) {
        if self.followed.get(device).copied() == cascade {
            self.followed.remove(device);
        }
        if let Some((mut document, etag)) = self.cache.remove(device) {
            if document.cascade == cascade {
                Arc::make_mut(&mut document).cascade = None;
            }
            self.cache.insert(device.clone(), (document, etag));
        }
    }

    pub(super) fn complete(&self, origin: Origin) {
        Together::default().add(origin);
    }
}

/// Events that are completed when this is dropped. Those of one partition are completed together, since the events of a batch mostly share
/// one.
#[derive(Default)]
struct Together {
    partition: Option<(Arc<Progress>, Vec<Ticket>)>,
    permit: Option<Permit>,
    watchers: Vec<Watcher>,
}

impl Together {
    fn add(&mut self, origin: Origin) {
        let Origin { progress, ticket, permit, watcher, .. } = origin;
        match &mut self.partition {
            Some((partition, tickets)) if Arc::ptr_eq(partition, &progress) => tickets.push(ticket),
            Some(_) | None => {
                self.complete();
                self.partition = Some((progress, vec![ticket]));
            }
        }
        match &mut self.permit {
            Some(held) => held.join(permit),
            None => self.permit = Some(permit),
        }
        self.watchers.extend(watcher.map(|watcher| *watcher));
    }

    fn complete(&mut self) {
        if let Some((progress, mut tickets)) = self.partition.take() {
            tickets.sort_unstable(); // so that few are remembered behind an open one
            progress.complete_all(tickets);
        }
    }
}

impl Drop for Together {
    fn drop(&mut self) {
        self.complete();
        self.permit = None;
        for watcher in self.watchers.drain(..) {
            if let Watcher { outcome: Some(outcome), tell } = watcher {
                let _ = tell.send(outcome); // the receiver may be gone
            }
        }
    }
}

/// Time that an event took from the hub's operation at `at` until now.
fn latency(origin: &Origin, at: Ticks, present: Ticks) -> Latency {
    let durable = origin.received.elapsed().as_secs_f64();
    let enqueued = origin.message.enqueued;
    Latency {
        freshness: Some(present.seconds_since(at)),
        hub_to_eventhub: enqueued.map(|enqueued| enqueued.seconds_since(at)),
        eventhub_to_received: enqueued.map(|enqueued| present.seconds_since(enqueued) - durable),
        received_to_durable: Some(durable),
    }
}
