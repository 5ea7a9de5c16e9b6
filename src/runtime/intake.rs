//! The input of the router: events, and messages that can never be applied, each with its origin.

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

/// One item that a partition dispatches.
pub enum Intake {
    /// An event, for the lane of its twin.
    Event(TwinEvent, Origin),
    /// A message that can never be applied.
    DeadLetter {
        /// Stable reason code.
        reason: &'static str,
        /// One sentence for people.
        detail: String,
        /// The twin of the message and the time of its operation, if they are known. The twin is flagged.
        twin: Option<(TwinKey, Option<Ticks>)>,
        /// The origin of the message.
        origin: Origin,
    },
}

/// The origin of an event, and everything that its completion releases.
pub struct Origin {
    /// Progress of its partition.
    pub progress: Arc<Progress>,
    /// Its place in the partition's progress.
    pub ticket: Ticket,
    /// The message, in case it becomes a dead letter.
    pub message: Message,
    /// Its part of the in-flight limits, held while this lives.
    pub permit: Permit,
    /// When it was received.
    pub received: Instant,
    /// The trace, if the event is sampled.
    pub trace: Option<Box<EventTrace>>,
    /// Receives the outcome of the event. Events of streams have no watcher.
    pub watcher: Option<Box<Watcher>>,
}

/// The outcome of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The event is decided, and everything that follows from it is durable.
    Decided(Decision),
    /// The event can never be applied, and is durable as a dead letter.
    DeadLettered {
        /// Stable reason code.
        reason: &'static str,
        /// One sentence for people.
        detail: String,
    },
}

/// Sends the outcome of one event when it is completed, not before.
#[derive(Debug)]
pub struct Watcher {
    pub(super) outcome: Option<Outcome>,
    pub(super) tell: oneshot::Sender<Outcome>,
}

impl Watcher {
    /// Creates a watcher, and the channel on which its outcome arrives. Nothing arrives if the router ends before the event is completed.
    pub fn new() -> (Box<Self>, oneshot::Receiver<Outcome>) {
        let (tell, told) = oneshot::channel();
        (Box::new(Self { outcome: None, tell }), told)
    }
}

impl Origin {
    /// The event was in this write, and the write had no effect for it.
    pub(super) fn was_in(&mut self, write: Option<&Arc<WriteTrace>>) {
        if let (Some(trace), Some(write)) = (&mut self.trace, write) {
            trace.was_in(write);
        }
    }

    /// For a trace: the end of the event as a dead letter at this time. The caller replaces the fields that it knows better.
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
