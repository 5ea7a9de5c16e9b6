//! Traces: what is recorded of an event on its way, and the spans that are created from it at its end.
//!
//! [`Sampler`] decides when an event is received whether it is sampled. An event that is not sampled carries an empty `Option` and costs
//! nothing else. A sampled event records times. When it is completed, spans are created from them and put into a bounded queue. Nothing
//! here waits.
//!
//! ```text
//! process twin-changes               CONSUMER  the hub's operation → durable
//! ├ hub to Event Hubs                INTERNAL
//! ├ Event Hubs to received           INTERNAL
//! ├ waiting for room                 INTERNAL  decoded, within the limits of what is in flight
//! ├ waiting in the lane              INTERNAL  behind the twin's earlier events
//! └ write                            INTERNAL  taken into a write → durable
//!   ├ read_item twins                CLIENT    each attempt against Cosmos DB
//!   └ replace_item twins             CLIENT
//! ```
//!
//! If several events shared a write, the write is a separate trace: its root and the `write` spans of the events' traces are linked in both
//! directions.

mod spans;

#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use opentelemetry_sdk::trace::SpanData;
use tokio::{sync::mpsc, time::Instant};

use self::spans::{Names, SpanOf};
use super::{label::Decision, metrics::Metrics};
use crate::domain::{
    event::{Change, TwinEvent},
    id::{PartitionId, SequenceNumber, TwinKey},
    message::Message,
    sampling::{Ratio, Remote, Sampler, Way},
    ticks::Ticks,
};

/// Maximum number of attempts of one write that get a span. The others are only counted.
const MOST_ATTEMPTS: usize = 32;
/// Maximum number of traces per second for events that were not sampled but are traced because of their outcome. After an outage, all
/// events of the backlog are slow.
const MOST_REMARKABLE: u32 = 20;
/// Properties of messages that may carry a trace context: W3C's name, and the name in the Azure SDKs.
const CONTEXTS: [&str; 2] = ["traceparent", "Diagnostic-Id"];

/// Options of the tracer.
#[derive(Debug, Clone)]
pub struct Options {
    /// The Event Hubs namespace.
    pub namespace: String,
    /// The consumer group.
    pub consumer_group: String,
    /// The database of the documents.
    pub database: String,
    /// The container of the documents.
    pub container: String,
    /// The host of the Cosmos DB account.
    pub account: String,
    /// The fraction of all events that is sampled.
    pub ratio: Ratio,
    /// Events that took longer than this after they were received are traced too.
    pub slow_after: Option<Duration>,
    /// Whether spans contain the device id.
    pub device_ids: bool,
}

/// Makes traces. Cheap to clone.
#[derive(Clone)]
pub struct Tracer(Arc<Inner>);

struct Inner {
    names: Names,
    options: Options,
    sink: mpsc::Sender<SpanData>,
    metrics: Metrics,
    /// The current second, and the number of traces of remarkable events in it.
    remarkable: Mutex<(u64, u32)>,
    began: Instant,
}

impl std::fmt::Debug for Tracer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracer").finish_non_exhaustive()
    }
}

/// What is recorded of a sampled event.
#[derive(Debug, Clone)]
pub struct EventTrace {
    id: u128,
    dispatched: Option<Instant>,
    operation: Option<&'static str>,
    version: Option<i64>,
    /// The write of this event, if that ended with a dead letter.
    write: Option<Arc<WriteTrace>>,
}

impl EventTrace {
    /// Records that the event joins the lane of its twin.
    pub fn dispatched(&mut self, event: &TwinEvent) {
        self.dispatched = Some(Instant::now());
        let (operation, version) = match &event.change {
            Change::Created { version, .. } => ("create", Some(*version)),
            Change::Updated { version, .. } => ("update", Some(*version)),
            Change::Replaced { version, .. } => ("replace", Some(*version)),
            Change::Deleted => ("delete", None),
            Change::Snapshot { .. } | Change::Gone | Change::Unapplied | Change::ParentReborn => return,
        };
        (self.operation, self.version) = (Some(operation), version.map(|version| version.0));
    }

    /// The event was in this write, and the write had no effect for it.
    pub fn was_in(&mut self, write: &Arc<WriteTrace>) {
        self.write = Some(Arc::clone(write));
    }
}

/// What is recorded of a write that contains a sampled event.
#[derive(Debug, Clone)]
pub struct WriteTrace {
    taken: Instant,
    /// Number of events in the write.
    events: usize,
    attempts: Vec<Attempt>,
    /// Number of all attempts, with or without a span.
    attempted: u32,
    conflicts: u32,
    request_units: f64,
    /// Ids of the separate trace and its root span, if the write is shared.
    shared: Option<(u128, u64)>,
}

/// One request to Cosmos DB.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    operation: &'static str,
    began: Instant,
    ended: Instant,
    outcome: &'static str,
    failed: bool,
    request_units: f64,
}

impl WriteTrace {
    fn new(events: usize) -> Self {
        let shared = (events > 1).then(|| (rand::random::<u128>().max(1), spans::new_id()));
        Self {
            taken: Instant::now(),
            events,
            attempts: Vec::new(),
            attempted: 0,
            conflicts: 0,
            request_units: 0.0,
            shared,
        }
    }

    /// Records the end of a request. `outcome` is the label in metrics.
    pub fn attempted(
        &mut self,
        operation: &'static str,
        began: Instant,
        outcome: &'static str,
        failed: bool,
        request_units: f64,
    ) {
        self.attempted = self.attempted.saturating_add(1);
        self.conflicts += u32::from(outcome == "conflict");
        self.request_units += request_units;
        if self.attempts.len() < MOST_ATTEMPTS {
            let ended = Instant::now();
            self.attempts.push(Attempt { operation, began, ended, outcome, failed, request_units });
        }
    }
}

/// A completed event.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    /// Its partition.
    pub partition: &'a PartitionId,
    /// The message.
    pub message: &'a Message,
    /// Its twin, if it is known.
    pub twin: Option<&'a TwinKey>,
    /// When the hub performed the operation, if that is known.
    pub operation: Option<Ticks>,
    /// When it was received.
    pub received: Instant,
    /// What is recorded of it.
    pub trace: Option<&'a EventTrace>,
    /// The write of this event, if that was recorded.
    pub write: Option<&'a WriteTrace>,
    /// The decision.
    pub decision: Decision,
    /// Reason code of a dead letter.
    pub reason: Option<&'static str>,
    /// The present moment.
    pub present: Present,
}

/// One moment by both clocks, so that all times of a trace have the same reference.
#[derive(Debug, Clone, Copy)]
pub struct Present {
    at: Ticks,
    instant: Instant,
}

impl Present {
    /// This moment, with its time of day.
    pub fn new(at: Ticks) -> Self {
        Self { at, instant: Instant::now() }
    }

    /// The time of day of an earlier instant.
    fn moment(&self, then: Instant) -> Ticks {
        self.at.before(self.instant.saturating_duration_since(then))
    }
}

impl Tracer {
    /// Creates a tracer and the receiver of its spans. At most `most_waiting` spans wait in the channel.
    pub fn new(options: Options, metrics: Metrics, most_waiting: usize) -> (Self, mpsc::Receiver<SpanData>) {
        let (sink, spans) = mpsc::channel(most_waiting);
        let names = Names::new();
        let (remarkable, began) = (Mutex::new((0, 0)), Instant::now());
        (Self(Arc::new(Inner { names, options, sink, metrics, remarkable, began })), spans)
    }

    /// The sampler for the events of a partition.
    pub fn sampler(&self, partition: &PartitionId) -> Sampler {
        Sampler::new(&self.0.options.namespace, partition, self.0.options.ratio)
    }

    /// Begins to record an event, if it is sampled.
    pub fn begin(
        sampler: Option<&Sampler>,
        number: SequenceNumber,
        enqueued: Option<Ticks>,
    ) -> Option<Box<EventTrace>> {
        let sampler = sampler.filter(|sampler| sampler.samples(number))?;
        let id = sampler.trace_id(number, enqueued);
        Some(Box::new(EventTrace { id, dispatched: None, operation: None, version: None, write: None }))
    }

    /// Begins to record a write of this many events.
    pub fn write(events: usize) -> Box<WriteTrace> {
        Box::new(WriteTrace::new(events))
    }

    /// Emits the spans of a completed event, if it is sampled or remarkable. Returns their ids, for links.
    pub fn ended(&self, ended: &Ended<'_>) -> Option<(u128, u64)> {
        let why = match ended.trace {
            Some(_) => "ratio",
            None => self.remarkable(ended)?,
        };
        let id = match ended.trace {
            Some(trace) => trace.id,
            None => {
                let (number, enqueued) = (ended.message.position.sequence_number, ended.message.enqueued);
                self.sampler(ended.partition).trace_id(number, enqueued)
            }
        };
        let write = ended.write.or_else(|| ended.trace?.write.as_deref());
        let way = self.way(ended, write);
        let root = spans::new_id();
        let mut spans = Vec::with_capacity(8);
        let names = &self.0.names;
        let mut attributes = names.of_message(&self.0.options, ended, why);
        if let Some(trace) = ended.trace {
            attributes.extend(names.of_change(trace.operation, trace.version));
        }
        let links = CONTEXTS.iter().filter_map(|name| {
            let text = ended.message.application_properties.get(name)?.as_text()?;
            Remote::parse(&text)
        });
        spans.push(names.span(SpanOf {
            trace: id,
            span: root,
            parent: None,
            name: format!("process {}", ended.partition.stream).into(),
            kind: opentelemetry::trace::SpanKind::Consumer,
            began: way.operation,
            ended: way.ended,
            attributes,
            links: links.map(|remote| (remote.trace, remote.span)).collect(),
            error: ended.reason,
        }));
        let part = |name: &'static str, began: Ticks, ended: Ticks| {
            names.span(SpanOf::inside(id, root, name, began, ended))
        };
        if let Some(enqueued) = way.enqueued {
            spans.push(part("hub to Event Hubs", way.operation, enqueued));
            spans.push(part("Event Hubs to received", enqueued, way.received));
        }
        if let Some(dispatched) = way.dispatched {
            spans.push(part("waiting for room", way.received, dispatched));
            if let Some(taken) = way.taken {
                spans.push(part("waiting in the lane", dispatched, taken));
            }
        }
        if let (Some(write), Some(taken)) = (write, way.taken) {
            let mut span = SpanOf::inside(id, root, "write", taken, way.ended);
            let own = span.span;
            span.attributes = names.of_write(write);
            span.links.extend(write.shared);
            spans.push(names.span(span));
            if write.shared.is_none() {
                spans.extend(self.attempts(write, id, own, ended.present));
            }
        }
        self.dispatch(spans);
        Some((id, root))
    }

    /// Emits the trace of a write that several events shared. `of` are the traces of the events that were emitted.
    pub fn shared_write(&self, write: &WriteTrace, of: Vec<(u128, u64)>, present: Present) {
        let Some((trace, root)) = write.shared.filter(|_| !of.is_empty()) else { return };
        let names = &self.0.names;
        let mut spans = vec![names.span(SpanOf {
            trace,
            span: root,
            parent: None,
            name: "write".into(),
            kind: opentelemetry::trace::SpanKind::Internal,
            began: present.moment(write.taken),
            ended: present.at,
            attributes: names.of_write(write),
            links: of,
            error: None,
        })];
        spans.extend(self.attempts(write, trace, root, present));
        self.dispatch(spans);
    }

    fn attempts(&self, write: &WriteTrace, trace: u128, parent: u64, present: Present) -> Vec<SpanData> {
        let span = |attempt: &Attempt| {
            let name = format!("{} {}", attempt.operation, self.0.options.container).into();
            self.0.names.span(SpanOf {
                kind: opentelemetry::trace::SpanKind::Client,
                attributes: self.0.names.of_attempt(&self.0.options, attempt),
                error: attempt.failed.then_some(attempt.outcome),
                name,
                ..SpanOf::inside(
                    trace,
                    parent,
                    "",
                    present.moment(attempt.began),
                    present.moment(attempt.ended),
                )
            })
        };
        write.attempts.iter().map(span).collect()
    }

    /// Why an event that is not sampled is traced all the same.
    fn remarkable(&self, ended: &Ended<'_>) -> Option<&'static str> {
        let why = match ended.decision {
            Decision::DeadLettered => "dead_letter",
            Decision::Gap | Decision::Partial | Decision::Regression | Decision::Suspect => "flagged",
            Decision::Applied | Decision::Duplicate | Decision::Stale | Decision::Ignored => {
                self.0.options.slow_after.filter(|limit| ended.received.elapsed() > *limit)?;
                "slow"
            }
        };
        let second = self.0.began.elapsed().as_secs();
        let mut told = self.0.remarkable.lock().unwrap_or_else(PoisonError::into_inner);
        if told.0 != second {
            *told = (second, 0);
        }
        told.1 += 1;
        (told.1 <= MOST_REMARKABLE).then_some(why)
    }

    fn way(&self, ended: &Ended<'_>, write: Option<&WriteTrace>) -> Way {
        let (present, received) = (ended.present, ended.present.moment(ended.received));
        let way = Way {
            operation: ended.operation.or(ended.message.enqueued).unwrap_or(received),
            enqueued: ended.message.enqueued,
            received,
            dispatched: ended.trace.and_then(|trace| trace.dispatched).map(|at| present.moment(at)),
            taken: write.map(|write| present.moment(write.taken)),
            ended: present.at,
        };
        way.in_order()
    }

    /// A trace is queued completely or not at all: an incomplete trace would mislead.
    fn dispatch(&self, spans: Vec<SpanData>) {
        match self.0.sink.try_reserve_many(spans.len()) {
            Ok(places) => {
                for (place, span) in places.zip(spans) {
                    place.send(span);
                }
            }
            Err(_) => self.0.metrics.spans_dropped(spans.len()),
        }
    }
}
