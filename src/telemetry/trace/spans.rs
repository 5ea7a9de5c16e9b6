//! Spans in the data model of OpenTelemetry, with the attributes of its semantic conventions where they exist. The table in
//! `docs/tracing.md` lists all of them. A test compares it with this file.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::{Attempt, Ended, Options, WriteTrace};
use crate::{
    domain::ticks::Ticks,
    telemetry::{Decision, VERSION},
};

/// A span to be made.
pub(super) struct SpanOf {
    pub(super) trace: u128,
    pub(super) span: u64,
    pub(super) parent: Option<u64>,
    pub(super) name: Cow<'static, str>,
    pub(super) kind: SpanKind,
    pub(super) began: Ticks,
    pub(super) ended: Ticks,
    pub(super) attributes: Vec<KeyValue>,
    /// Trace and span ids of the linked spans.
    pub(super) links: Vec<(u128, u64)>,
    /// The error code, if it failed.
    pub(super) error: Option<&'static str>,
}

impl SpanOf {
    /// A span inside another one.
    pub(super) fn inside(trace: u128, parent: u64, name: &'static str, began: Ticks, ended: Ticks) -> Self {
        Self {
            trace,
            span: new_id(),
            parent: Some(parent),
            name: name.into(),
            kind: SpanKind::Internal,
            began,
            ended,
            attributes: Vec::new(),
            links: Vec::new(),
            error: None,
        }
    }
}

/// A new span id. 0 would mean no id.
pub(super) fn new_id() -> u64 {
    rand::random::<u64>().max(1)
}

/// The attributes that all spans share.
pub(super) struct Names {
    scope: InstrumentationScope,
}

impl Names {
    pub(super) fn new() -> Self {
        Self { scope: InstrumentationScope::builder("twinsync").with_version(VERSION).build() }
    }

    pub(super) fn span(&self, span: SpanOf) -> SpanData {
        let mut links = SpanLinks::default();
        links.links =
            span.links.into_iter().map(|(trace, span)| Link::with_context(context(trace, span))).collect();
        let mut attributes = span.attributes;
        let status = match span.error {
            Some(code) => {
                attributes.push(KeyValue::new("error.type", code));
                Status::error(code)
            }
            None => Status::Unset,
        };
        SpanData {
            span_context: context(span.trace, span.span),
            parent_span_id: span.parent.map_or(SpanId::INVALID, SpanId::from),
            parent_span_is_remote: false,
            span_kind: span.kind,
            name: span.name,
            start_time: time(span.began),
            end_time: time(span.ended),
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links,
            status,
            instrumentation_scope: self.scope.clone(),
        }
    }

    /// Attributes of the root of an event's trace.
    pub(super) fn of_message(
        &self,
        options: &Options,
        ended: &Ended<'_>,
        why: &'static str,
    ) -> Vec<KeyValue> {
        let mut attributes = vec![
            KeyValue::new("messaging.system", "eventhubs"),
            KeyValue::new("messaging.operation.name", "process"),
            KeyValue::new("messaging.operation.type", "process"),
            KeyValue::new("messaging.destination.name", ended.partition.stream.clone()),
            KeyValue::new("messaging.destination.partition.id", ended.partition.partition.clone()),
            KeyValue::new("messaging.consumer.group.name", options.consumer_group.clone()),
            KeyValue::new("server.address", options.namespace.clone()),
            KeyValue::new("twinsync.event.sequence_number", ended.message.position.sequence_number.0),
            KeyValue::new("twinsync.decision", decision(ended.decision)),
            KeyValue::new("twinsync.sampled", why),
        ];
        if let Some(enqueued) = ended.message.enqueued {
            let seconds = enqueued.seconds_since(Ticks::new(0)) as i64;
            attributes.push(KeyValue::new("messaging.eventhubs.message.enqueued_time", seconds));
        }
        if let Some(reason) = ended.reason {
            attributes.push(KeyValue::new("twinsync.dead_letter.reason", reason));
        }
        if let Some(twin) = ended.twin {
            attributes.push(KeyValue::new("twinsync.iothub", twin.hub.to_string()));
            if options.device_ids {
                attributes.push(KeyValue::new("twinsync.device.id", twin.device.to_string()));
                if let Some(module) = &twin.module {
                    attributes.push(KeyValue::new("twinsync.module.id", module.to_string()));
                }
            }
        }
        attributes
    }

    /// Attributes of the change at the hub.
    pub(super) fn of_change(
        &self,
        operation: Option<&'static str>,
        version: Option<i64>,
    ) -> impl Iterator<Item = KeyValue> {
        let operation = operation.map(|operation| KeyValue::new("twinsync.event.operation", operation));
        let version = version.map(|version| KeyValue::new("twinsync.twin.version", version));
        operation.into_iter().chain(version)
    }

    /// Attributes of a `write` span.
    pub(super) fn of_write(&self, write: &WriteTrace) -> Vec<KeyValue> {
        vec![
            KeyValue::new("twinsync.write.events", count(write.events)),
            KeyValue::new("twinsync.write.attempts", i64::from(write.attempted)),
            KeyValue::new("twinsync.write.conflicts", i64::from(write.conflicts)),
            KeyValue::new("twinsync.write.request_units", write.request_units),
        ]
    }

    /// Attributes of a request to Cosmos DB.
    pub(super) fn of_attempt(&self, options: &Options, attempt: &Attempt) -> Vec<KeyValue> {
        vec![
            KeyValue::new("db.system.name", "azure.cosmosdb"),
            KeyValue::new("db.namespace", options.database.clone()),
            KeyValue::new("db.collection.name", options.container.clone()),
            KeyValue::new("db.operation.name", attempt.operation),
            KeyValue::new("server.address", options.account.clone()),
            KeyValue::new("azure.cosmosdb.operation.request_charge", attempt.request_units),
            KeyValue::new("twinsync.outcome", attempt.outcome),
        ]
    }
}

fn decision(decision: Decision) -> &'static str {
    decision.label()
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn context(trace: u128, span: u64) -> SpanContext {
    let (trace, span) = (TraceId::from(trace), SpanId::from(span));
    SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::default())
}

fn time(at: Ticks) -> SystemTime {
    let nanoseconds = u64::try_from(at.get()).unwrap_or(0).saturating_mul(100);
    UNIX_EPOCH + Duration::from_nanos(nanoseconds)
}
