//! Metrics that change so rarely that their counter or gauge may be looked up each time, as a table.

use std::time::Duration;

use super::{METADATA, Metrics, key};
use crate::{
    domain::{health::Failure, invariant::Invariant},
    telemetry::{
        label::{Purpose, ReadOutcome},
        name, reason,
    },
};
use metrics::Recorder;

/// Outcomes of spans.
pub(super) const EXPORTED: &str = "exported";
pub(super) const DROPPED: &str = "dropped";
pub(super) const REFUSED: &str = "refused";

/// One line per method: its doc, its arguments, the metric, its labels, and the increment or the value.
macro_rules! rare {
    ($(
        $(#[$documentation:meta])*
        $verb:ident fn $method:ident($($argument:ident: $type:ty),*) of $metric:ident [$($label:ident: $value:expr),*]$(, by $step:expr)? $(, to $amount:expr)?;
    )*) => {
        impl Metrics {$(
            $(#[$documentation])*
            pub fn $method(&self, $($argument: $type),*) {
                let key = key(name::$metric, &[$((stringify!($label), $value)),*]);
                rare!(@$verb self, &key, $($step)? $($amount)?);
            }
        )*}
    };
    (@count $metrics:ident, $key:expr,) => {
        $metrics.0.recorder.register_counter($key, &METADATA).increment(1)
    };
    (@count $metrics:ident, $key:expr, $step:expr) => {
        $metrics.0.recorder.register_counter($key, &METADATA).increment($step)
    };
    (@set $metrics:ident, $key:expr, $amount:expr) => {
        $metrics.0.recorder.register_gauge($key, &METADATA).set($amount)
    };
}

rare! {
    /// Counts a failed try of a start to reach what it needs.
    count fn start_delayed(dependency: &'static str) of START_DELAYS [dependency: dependency];

    /// Counts a dead letter whose twin is unknown.
    count fn dead_letter_without_twin() of DEAD_LETTERS_WITHOUT_TWIN [];

    /// Counts a failed attempt to store a dead letter.
    count fn dead_letter_failed(failure: Failure) of DEAD_LETTER_FAILURES [reason: reason::of_failure(failure)];

    /// Counts a connection to a partition that was given up.
    count fn partition_rebuilt(stream: &str, reason: &'static str) of PARTITION_REBUILDS [stream: stream, reason: reason];

    /// Counts a partition discovery that failed.
    count fn partition_discovery_failed(stream: &str) of PARTITION_DISCOVERY_FAILURES [stream: stream];

    /// Counts an event that was received before.
    count fn event_repeated(stream: &str) of EVENTS_REPEATED [stream: stream];

    /// Counts a message that is not valid AMQP.
    count fn message_undecodable(stream: &str) of MESSAGES_UNDECODABLE [stream: stream];

    /// Counts a checkpoint that could not be written.
    count fn checkpoint_failed(stream: &str, failure: Failure) of CHECKPOINT_FAILURES [stream: stream, reason: reason::of_failure(failure)];

    /// Counts a query for the modules of a device.
    count fn modules_queried(outcome: ReadOutcome) of MODULE_QUERIES [outcome: outcome.label()];

    /// Counts a flagged document that the store refuses.
    count fn flag_rejected() of FLAGS_REJECTED [];

    /// Counts a document that differed and was corrected.
    count fn twin_corrected(purpose: Purpose, class: &'static str) of TWINS_CORRECTED [purpose: purpose.label(), class: class];

    /// Counts a twin that the store refuses.
    count fn twin_rejected() of TWINS_REJECTED [];

    /// Counts a twin that differed again right after its repair.
    count fn twin_still_different() of TWINS_STILL_DIFFERENT [];

    /// Counts a repaired twin that the hub has in an earlier state.
    count fn twin_went_back() of TWINS_WENT_BACK [];

    /// Counts a repair that was given up until the next scan for flagged documents.
    count fn repair_given_up() of REPAIRS_GIVEN_UP [];

    /// Counts an invariant that did not hold.
    count fn invariant_broken(invariant: Invariant) of INVARIANT_VIOLATIONS [invariant: invariant.id()];

    /// Counts twins that were counted wrongly, as a recount shows.
    count fn counts_corrected(twins: usize) of COUNTS_CORRECTED [], by twins as u64;

    /// Counts a failed read of the change feed.
    count fn counts_read_failed() of COUNTS_READ_FAILURES [];

    /// Counts spans that the receiver has accepted.
    count fn spans_exported(spans: usize) of OTLP_SPANS [outcome: EXPORTED], by spans as u64;

    /// Counts spans that were dropped because the queue was full, or because the shutdown left no time.
    count fn spans_dropped(spans: usize) of OTLP_SPANS [outcome: DROPPED], by spans as u64;

    /// Counts spans that the receiver has refused.
    count fn spans_refused(spans: usize) of OTLP_SPANS [outcome: REFUSED], by spans as u64;

    /// Counts a failed request to the receiver of traces.
    count fn span_export_failed() of OTLP_EXPORT_FAILURES [];

    /// Sets how many twins wait for their repair.
    set fn set_repairs_waiting(twins: usize) of REPAIRS_WAITING [], to twins as f64;

    /// Sets how many twins of a hub a backfill has processed.
    set fn set_backfill_twins(hub: &str, outcome: &'static str, twins: u64) of BACKFILL_TWINS [hub: hub, outcome: outcome], to twins as f64;

    /// Sets how many twins the last audit could not compare, by reason.
    set fn set_audit_undecided(hub: &str, reason: &'static str, twins: u64) of AUDIT_UNDECIDED [hub: hub, reason: reason], to twins as f64;

    /// Sets the interval of audits.
    set fn set_audit_interval(interval: Duration) of AUDIT_INTERVAL [], to interval.as_secs_f64();

    /// Sets how many partitions of a stream this replica owns.
    set fn set_partitions_owned(stream: &str, partitions: usize) of PARTITIONS_OWNED [stream: stream], to partitions as f64;

    /// Sets how many replicas are alive, including this one.
    set fn set_replicas_alive(replicas: usize) of REPLICAS_ALIVE [], to replicas as f64;

    /// Sets the part of each hub's quota that this replica may use.
    set fn set_registry_share(share: f64) of REGISTRY_SHARE [], to share;

    /// Sets how many request units this replica may spend per second.
    set fn set_request_units_limit(request_units_per_second: f64) of REQUEST_UNITS_LIMIT [], to request_units_per_second;
}
