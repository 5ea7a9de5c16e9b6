//! Dead letters: each one is stored, however long that takes. Then its twin is flagged.

use std::{pin::pin, sync::Arc, time::Duration};

use super::{
    Router,
    item::{Item, StoredDeadLetter},
};
use crate::{
    domain::{
        event::{Change, TwinEvent},
        health::{Dependency, Failure},
        id::TwinKey,
        ticks::Ticks,
    },
    ports::DeadLetter,
    runtime::{
        intake::{Origin, Outcome},
        jitter::jitter,
    },
    telemetry::{
        HealthState, Metrics,
        event::{
            DeadLetterDelayed, DeadLetterWithoutTwin, DependencyChanged, EventDeadLettered, Fault,
            FlagRejected,
        },
        trace::{Ended, Present},
    },
};

/// Each time this passes without an answer, the attempt counts as failed. It continues all the same: another attempt would hang too, and
/// would hold one more thread.
const SILENT_AFTER: Duration = Duration::from_secs(4);

/// While fewer dead letters than this wait, each is retried this often: one dead letter holds the checkpoint of a partition.
const FEW: usize = 50;
const SOON: Duration = Duration::from_secs(5);

/// When the store answers again, the retries of waiting dead letters are spread over this time per dead letter, so that the store does not
/// get all of them at once.
const APART: Duration = Duration::from_millis(1);

impl Router {
    /// Called when a dead letter is durable. Its change is missing from its twin, so the twin is flagged, durably, before the event counts
    /// as completed.
    pub(super) fn dead_letter_stored(&mut self, dead_letter_stored: StoredDeadLetter) {
        let StoredDeadLetter { origin, twin, reason } = dead_letter_stored;
        if let Some(tracer) = &self.options.tracer {
            let (key, operation) =
                twin.as_ref().map_or((None, None), |(key, operation)| (Some(key), *operation));
            let present = Present::new(self.tools.clock.now());
            tracer.ended(&Ended { twin: key, operation, reason: Some(reason), ..origin.ended(present) });
        }
        match twin {
            Some(_) if planted!(DeadLetterWithoutFlag) => self.complete(*origin),
            Some((key, at)) => {
                // If no time is known, it may have happened at any time until now.
                let at = at.unwrap_or_else(|| self.tools.clock.now());
                self.flag_twin(key, at, origin);
            }
            None => {
                let (partition, sequence_number) =
                    (origin.progress.id(), origin.message.position.sequence_number);
                let audit = self.options.audits.ask();
                DeadLetterWithoutTwin { partition, sequence_number, reason, audit }.emit(&self.tools.metrics);
                self.complete(*origin);
            }
        }
    }

    /// Flags a twin, in its turn. One waiting flag is enough for all dead letters of a partition. The event of the first of them stays open
    /// and holds the checkpoint for the others, so the others can be completed. Memory stays constant, however long the store fails for
    /// this twin and however many events arrive for it.
    fn flag_twin(&mut self, key: TwinKey, at: Ticks, mut origin: Box<Origin>) {
        let same = |first: &Origin| Arc::ptr_eq(&first.progress, &origin.progress);
        let waiting = self.lanes.waiting_mut(&key).find_map(|(event, item)| match item {
            Item::OfDeadLetter(first) if same(first) => Some((event, first)),
            Item::OfDeadLetter(_) | Item::FromStream(..) | Item::Follow(_) => None,
        });
        if let Some((event, first)) = waiting {
            if origin.ticket < first.ticket {
                std::mem::swap(first, &mut origin);
            }
            event.at = event.at.max(at);
            self.complete(*origin);
            return;
        }
        let (now, weight) = (self.now(), origin.permit.bytes());
        let event = TwinEvent { key: key.clone(), at, change: Change::Unapplied };
        self.lanes.push(&key, (event, Item::OfDeadLetter(origin)), weight, now, Duration::ZERO);
    }

    /// The store refuses to record that a twin is flagged, or that a module ended. The hub is asked, if that is allowed. In any case a
    /// person has to investigate.
    pub(super) fn flag_rejected(&self, key: &TwinKey, reason: &str) {
        self.options.repair_queue.raise(key);
        FlagRejected { twin: key, reason }.emit(&self.tools.metrics);
    }

    /// Stores a dead letter, however long it takes.
    pub(super) fn dead_letter(
        &mut self,
        reason: &'static str,
        detail: String,
        twin: Option<(TwinKey, Option<Ticks>)>,
        mut origin: Box<Origin>,
    ) {
        origin.note(|| Outcome::DeadLettered { reason, detail: detail.clone() });
        if planted!(DeadLetterNotAwaited) {
            self.complete(*origin);
            return;
        }
        let dead_letters = Arc::clone(&self.dead_letters);
        let mut backoff = self.options.backoff.clone();
        let (metrics, health) = (self.tools.metrics.clone(), self.health.clone());
        let stored_one = Arc::clone(&self.dead_letter_was_stored);
        let waiting = self.storing.len();
        self.storing.spawn(async move {
            let mut others = stored_one.subscribe();
            // A try that fails although other dead letters are stored has its own cause, so it waits for its full delay.
            let mut woken = false;
            loop {
                drop(others.borrow_and_update());
                let letter = DeadLetter {
                    partition: origin.progress.id(),
                    message: &origin.message,
                    reason,
                    detail: detail.clone(),
                };
                let mut storing = pin!(dead_letters.store(letter));
                let stored = loop {
                    tokio::select! {
                        biased;
                        stored = &mut storing => break stored,
                        () = tokio::time::sleep(SILENT_AFTER) => {
                            let error = format!("no answer within {} s", SILENT_AFTER.as_secs());
                            let fault =
                                Fault { failure: Failure::Silent, code: "DEAD_LETTER_NOT_STORED", reason: &error };
                            delayed(&origin, fault, None, &health, &metrics);
                        }
                    }
                };
                match stored {
                    Ok(()) => {
                        DependencyChanged::post(&health, &Dependency::DeadLetters, None);
                        stored_one.send_if_modified(|times| {
                            *times += 1;
                            true
                        });
                        break;
                    }
                    Err(error) => {
                        let retry_in = backoff.next(jitter(), None);
                        let retry_in = if waiting < FEW { retry_in.min(SOON) } else { retry_in };
                        let text = format!("{error}: {}", error.source);
                        let fault = Fault { failure: error.failure(), code: error.code, reason: &text };
                        delayed(&origin, fault, Some(retry_in), &health, &metrics);
                        tokio::select! {
                            biased;
                            Ok(()) = others.changed(), if !woken => {
                                woken = true;
                                let spread = APART * u32::try_from(waiting).unwrap_or(u32::MAX);
                                tokio::time::sleep(spread.mul_f64(jitter())).await;
                            }
                            () = tokio::time::sleep(retry_in) => woken = false,
                        }
                    }
                }
            }
            EventDeadLettered {
                partition: origin.progress.id(),
                sequence_number: origin.message.position.sequence_number,
                reason,
                detail: &detail,
            }
            .emit(&metrics, &origin.progress.stream_metrics);
            StoredDeadLetter { origin, twin, reason }
        });
    }
}

/// Reports that a dead letter is not stored yet.
fn delayed(
    origin: &Origin,
    fault: Fault<'_>,
    retry_in: Option<Duration>,
    health: &HealthState,
    metrics: &Metrics,
) {
    let sequence_number = origin.message.position.sequence_number;
    DeadLetterDelayed { partition: origin.progress.id(), sequence_number, fault, retry_in }.emit(metrics);
    health.waits_for_dead_letter(origin.progress.id());
    DependencyChanged::post(health, &Dependency::DeadLetters, Some(fault));
    if let Some(retry_in) = retry_in {
        health.tries_again(&Dependency::DeadLetters, retry_in);
    }
}
