//! What partitions give the router: events and what can never be applied, each with where it came from.

use std::sync::Arc;

use tokio::{sync::oneshot, time::Instant};

use crate::{
    domain::{
        decide::Decision, event::TwinEvent, id::TwinKey, message::Message, progress::Ticket, ticks::Ticks,
    },
    runtime::{in_flight::Permit, progress::Progress},
    telemetry::{
        self,
        trace::{Ended, EventTrace, Present, WriteTrace},
    },
};

/// What partitions dispatch.
pub enum Intake {
    /// An event for its twin's lane.
    Event(TwinEvent, Origin),
    /// A message that can never be applied.
    DeadLetter {
        /// Stable reason code.
        reason: &'static str,
        /// One sentence for people.
        detail: String,
        /// The twin that it is about and the time of its operation, as far as they can be told: what is flagged from
        /// here on.
        twin: Option<(TwinKey, Option<Ticks>)>,
        /// The message.
        origin: Origin,
    },
}

/// Where an event came from, and what its completion releases.
pub struct Origin {
    /// Its partition.
    pub progress: Arc<Progress>,
    /// Its place in the partition's progress.
    pub ticket: Ticket,
    /// The message, for the case that it becomes a dead letter.
    pub message: Message,
    /// What it holds of the in-flight limits, for as long as this lives.
    pub permit: Permit,
    /// When it was received.
    pub received: Instant,
    /// What is recorded of it, where it is sampled.
    pub trace: Option<Box<EventTrace>>,
    /// Who waits to hear what became of it; streams do not ask.
    pub watcher: Option<Box<Watcher>>,
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Decided, and everything that follows from it is durable.
    Decided(Decision),
    /// It can never be applied, and is durably kept aside.
    DeadLettered {
        /// Stable reason code.
        reason: &'static str,
        /// One sentence for people.
        detail: String,
    },
}

/// Tells what became of one event when it is completed, not before.
#[derive(Debug)]
pub struct Watcher {
    pub(super) outcome: Option<Outcome>,
    pub(super) tell: oneshot::Sender<Outcome>,
}

impl Watcher {
    /// A watcher, and where its word arrives; nothing arrives where the router ends before the event is completed.
    pub fn new() -> (Box<Self>, oneshot::Receiver<Outcome>) {
        let (tell, told) = oneshot::channel();
        (Box::new(Self { outcome: None, tell }), told)
    }
}

impl Origin {
    /// The write that it was in has come to nothing for it.
    pub(super) fn was_in(&mut self, write: Option<&Arc<WriteTrace>>) {
        if let (Some(trace), Some(write)) = (&mut self.trace, write) {
            trace.was_in(write);
        }
    }

    /// Its end as a dead letter at this time, for a trace; what is known better is put in.
    pub(super) fn ended(&self, present: Present) -> Ended<'_> {
        Ended {
            partition: self.progress.id(),
            message: &self.message,
            twin: None,
            operation: None,
            received: self.received,
            trace: self.trace.as_deref(),
            write: None,
            decision: telemetry::Decision::DeadLettered,
            reason: None,
            present,
        }
    }

    pub(super) fn note(&mut self, outcome: impl FnOnce() -> Outcome) {
        if let Some(watcher) = &mut self.watcher {
            watcher.outcome = Some(outcome());
        }
    }
}
