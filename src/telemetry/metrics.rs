//! The metrics of one daemon, rendered for Prometheus.
//!
//! No global recorder: a [`Metrics`] owns its recorder, so that several daemons in one process (demo, tests)
//! count apart. Handles are registered once; counting is then an atomic addition, without formatting or lookup.
//! Only reasons are looked up per call, in a map of the few that occur.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use tokio::runtime::RuntimeMetrics;
use tokio_util::sync::CancellationToken;

use super::{
    label::{
        Decision, Purpose, ReadOutcome, RegistryCall, RegistryOutcome, TwinRead, Unauthorized, WriteKind,
        WriteOutcome,
    },
    name::{self, Description, Kind},
    reason,
    text::{Page, labels},
};
use crate::domain::{
    decode::Ignored,
    drift::{Drift, INCOMPLETE, ORPHAN},
    health::Failure,
    invariant::Invariant,
    ticks::Ticks,
    undeliverable::Undeliverable,
};

/// How often recorded latencies are moved into their buckets. Between two moves each sample takes 8 bytes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

const METADATA: Metadata<'static> = Metadata::new("twinsync", Level::INFO, None);

/// All metrics of one daemon. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    ignored: ByReason,
    dead_letters: ByReason,
    /// By kind, then outcome.
    writes: Vec<Vec<Counter>>,
    reads: Vec<Counter>,
    /// By call, outcome and purpose. Most of them never occur, and few daemons have a hub to ask.
    registry_calls: Vec<OnceLock<Counter>>,
    /// Of the threads that receive, beside the runtime of everything else.
    receiving: Mutex<Vec<RuntimeMetrics>>,
    /// `f64` bits by purpose: the recorder's counters know whole numbers only, and request units have fractions.
    request_units: Vec<AtomicU64>,
    freshness: Histogram,
    hub_to_eventhub: Histogram,
    eventhub_to_received: Histogram,
    received_to_durable: Histogram,
    events_per_write: Histogram,
    in_flight_events: Gauge,
    in_flight_bytes: Gauge,
    store_concurrency_limit: Gauge,
    twins_in_trouble: Gauge,
    twins_full: Gauge,
    twin_reads: Vec<Counter>,
    twin_reads_unauthorized: Vec<Counter>,
    twin_waiters: Gauge,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Outcomes of spans.
const EXPORTED: &str = "exported";
const DROPPED: &str = "dropped";
const REFUSED: &str = "refused";

/// The parts of the way of an event, in seconds. What is not known is `None` and not recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Latency {
    /// From the IoT hub's operation to its durable copy.
    pub freshness: Option<f64>,
    /// From the IoT hub's operation to its arrival in Event Hubs.
    pub hub_to_eventhub: Option<f64>,
    /// From there to our receiving it.
    pub eventhub_to_received: Option<f64>,
    /// From there to its durable copy.
    pub received_to_durable: Option<f64>,
}

impl Metrics {
    /// A new set, all at zero.
    ///
    /// # Errors
    /// The bucket bounds are malformed, which a test excludes.
    pub fn new() -> Result<Self, BuildError> {
        let mut builder = PrometheusBuilder::new();
        for latency in [
            name::FRESHNESS,
            name::HUB_TO_EVENTHUB,
            name::EVENTHUB_TO_RECEIVED,
            name::RECEIVED_TO_DURABLE,
            name::REGISTRY_CALL_SECONDS,
            name::SERVE_REQUEST_SECONDS,
        ] {
            builder =
                builder.set_buckets_for_metric(Matcher::Full(latency.to_owned()), &name::LATENCY_BUCKETS)?;
        }
        let counts = Matcher::Full(name::EVENTS_PER_WRITE.to_owned());
        let recorder = builder.set_buckets_for_metric(counts, &name::COUNT_BUCKETS)?.build_recorder();
        for &Description { name, kind, help, .. } in name::DESCRIPTIONS {
            match kind {
                Kind::Counter => recorder.describe_counter(name.into(), None, help.into()),
                Kind::Gauge => recorder.describe_gauge(name.into(), None, help.into()),
                Kind::Histogram => recorder.describe_histogram(name.into(), None, help.into()),
            }
        }
        let counter =
            |name, labels: &[(&'static str, &str)]| recorder.register_counter(&key(name, labels), &METADATA);
        let gauge = |name| recorder.register_gauge(&key(name, &[]), &METADATA);
        let histogram = |name| recorder.register_histogram(&key(name, &[]), &METADATA);
        let build = [("version", super::VERSION), ("revision", super::REVISION)];
        recorder.register_gauge(&key(name::BUILD_INFO, &build), &METADATA).set(1.0);
        let write = |kind: &WriteKind| {
            let counters = WriteOutcome::ALL.iter().map(|outcome| {
                counter(name::WRITES, &[("kind", kind.label()), ("outcome", outcome.label())])
            });
            counters.collect()
        };
        for name in [
            name::TWINS_REJECTED,
            name::TWINS_STILL_DIFFERENT,
            name::DEAD_LETTERS_WITHOUT_TWIN,
            name::FLAGS_REJECTED,
            name::REPAIRS_GIVEN_UP,
            name::TWINS_WENT_BACK,
            name::COUNTS_CORRECTED,
            name::COUNTS_READ_FAILURES,
        ] {
            counter(name, &[]).increment(0);
        }
        counter(name::OTLP_EXPORT_FAILURES, &[]).increment(0);
        for outcome in [EXPORTED, DROPPED, REFUSED] {
            counter(name::OTLP_SPANS, &[("outcome", outcome)]).increment(0);
        }
        for reason in reason::FAILURES {
            counter(name::DEAD_LETTER_FAILURES, &[("reason", reason)]).increment(0);
        }
        for outcome in ReadOutcome::ALL {
            counter(name::MODULE_QUERIES, &[("outcome", outcome.label())]).increment(0);
        }
        for invariant in Invariant::ALL {
            counter(name::INVARIANT_VIOLATIONS, &[("invariant", invariant.id())]).increment(0);
        }
        for dependency in reason::NEEDED {
            counter(name::START_DELAYS, &[("dependency", dependency)]).increment(0);
        }
        gauge(name::REPAIRS_WAITING).set(0.0);
        let read = |outcome: &ReadOutcome| counter(name::READS, &[("outcome", outcome.label())]);
        Ok(Self(Arc::new(Inner {
            handle: recorder.handle(),
            ignored: ByReason::new(&recorder, name::EVENTS_IGNORED, Ignored::ALL.map(Ignored::name)),
            dead_letters: ByReason::new(&recorder, name::DEAD_LETTERS, dead_letter_reasons()),
            writes: WriteKind::ALL.iter().map(write).collect(),
            reads: ReadOutcome::ALL.iter().map(read).collect(),
            registry_calls: {
                let places = RegistryCall::ALL.len() * RegistryOutcome::ALL.len() * Purpose::ALL.len();
                (0..places).map(|_| OnceLock::new()).collect()
            },
            receiving: Mutex::default(),
            request_units: Purpose::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
            freshness: histogram(name::FRESHNESS),
            hub_to_eventhub: histogram(name::HUB_TO_EVENTHUB),
            eventhub_to_received: histogram(name::EVENTHUB_TO_RECEIVED),
            received_to_durable: histogram(name::RECEIVED_TO_DURABLE),
            events_per_write: histogram(name::EVENTS_PER_WRITE),
            in_flight_events: gauge(name::IN_FLIGHT_EVENTS),
            in_flight_bytes: gauge(name::IN_FLIGHT_BYTES),
            store_concurrency_limit: gauge(name::STORE_CONCURRENCY_LIMIT),
            twins_in_trouble: gauge(name::TWINS_IN_TROUBLE),
            twins_full: gauge(name::TWINS_FULL),
            twin_reads: TwinRead::ALL
                .iter()
                .map(|outcome| counter(name::TWIN_READS, &[("outcome", outcome.label())]))
                .collect(),
            twin_reads_unauthorized: Unauthorized::ALL
                .iter()
                .map(|reason| counter(name::TWIN_READS_UNAUTHORIZED, &[("reason", reason.label())]))
                .collect(),
            twin_waiters: gauge(name::TWIN_WAITERS),
            recorder,
        })))
    }

    /// The counters of one stream. Keep them.
    pub fn stream(&self, stream: &str) -> StreamMetrics {
        let counter = |decision: &Decision| {
            let key = key(name::EVENTS, &[("stream", stream), ("decision", decision.label())]);
            self.0.recorder.register_counter(&key, &METADATA)
        };
        for name in [name::EVENTS_REPEATED, name::MESSAGES_UNDECODABLE, name::PARTITION_DISCOVERY_FAILURES] {
            self.zero(name, &[("stream", stream)]);
        }
        for reason in reason::FAILURES {
            self.zero(name::CHECKPOINT_FAILURES, &[("stream", stream), ("reason", reason)]);
        }
        for reason in reason::REBUILDS {
            self.zero(name::PARTITION_REBUILDS, &[("stream", stream), ("reason", reason)]);
        }
        let lost =
            self.0.recorder.register_counter(&key(name::EVENTS_LOST, &[("stream", stream)]), &METADATA);
        StreamMetrics { decisions: Decision::ALL.iter().map(counter).collect(), lost }
    }

    /// Puts the counters of one IoT hub's registry at zero.
    pub fn registry(&self, hub: &str) {
        for call in RegistryCall::ALL {
            for outcome in RegistryOutcome::ALL {
                for purpose in Purpose::ALL {
                    self.registry_calls(*call, *outcome, *purpose).increment(0);
                }
            }
        }
        for class in Drift::CLASSES.into_iter().chain([INCOMPLETE]) {
            for purpose in Purpose::ALL {
                self.zero(name::TWINS_CORRECTED, &[("purpose", purpose.label()), ("class", class)]);
            }
        }
        for class in Drift::CLASSES {
            self.zero(name::AUDIT_DIFFERENCES, &[("hub", hub), ("class", class)]);
        }
        self.zero(name::AUDIT_DIFFERENCES, &[("hub", hub), ("class", ORPHAN)]);
        for call in RegistryCall::ALL {
            let key = key(name::REGISTRY_CALL_SECONDS, &[("call", call.label())]);
            // Registering shows it: what comes first is then a rise.
            let _ = self.0.recorder.register_histogram(&key, &METADATA);
        }
    }

    /// Counts a failed try of a start to reach what it needs.
    pub fn start_delayed(&self, dependency: &'static str) {
        let key = key(name::START_DELAYS, &[("dependency", dependency)]);
        self.0.recorder.register_counter(&key, &METADATA).increment(1);
    }

    /// Counts an event that does not concern us.
    pub fn event_ignored(&self, reason: &'static str) {
        self.0.ignored.count(&self.0.recorder, reason);
    }

    /// Counts a dead letter.
    pub fn event_dead_lettered(&self, reason: &'static str) {
        self.0.dead_letters.count(&self.0.recorder, reason);
    }

    /// Counts a dead letter that does not tell which twin it is about.
    pub fn dead_letter_without_twin(&self) {
        self.count(name::DEAD_LETTERS_WITHOUT_TWIN, &[]);
    }

    /// Counts spans that the receiver has taken.
    pub fn spans_exported(&self, spans: usize) {
        self.spans(EXPORTED, spans);
    }

    /// Counts spans for which there was no room, or no time in the end.
    pub fn spans_dropped(&self, spans: usize) {
        self.spans(DROPPED, spans);
    }

    /// Counts spans that the receiver does not take.
    pub fn spans_refused(&self, spans: usize) {
        self.spans(REFUSED, spans);
    }

    fn spans(&self, outcome: &'static str, spans: usize) {
        let key = key(name::OTLP_SPANS, &[("outcome", outcome)]);
        self.0.recorder.register_counter(&key, &METADATA).increment(spans as u64);
    }

    /// Counts a request to the receiver of traces that failed.
    pub fn span_export_failed(&self) {
        self.count(name::OTLP_EXPORT_FAILURES, &[]);
    }

    /// Counts a flagged document that the store refuses.
    pub fn flag_rejected(&self) {
        self.count(name::FLAGS_REJECTED, &[]);
    }

    /// Counts a repaired twin that the hub had in an earlier state.
    pub fn twin_went_back(&self) {
        self.count(name::TWINS_WENT_BACK, &[]);
    }

    /// Counts a repair that was given up until the next look for flagged documents.
    pub fn repair_given_up(&self) {
        self.count(name::REPAIRS_GIVEN_UP, &[]);
    }

    /// Counts an attempt to write.
    pub fn write_finished(&self, kind: WriteKind, outcome: WriteOutcome) {
        self.0.writes[kind.index()][outcome.index()].increment(1);
    }

    /// Records how many events a durable write carried.
    pub fn events_written(&self, events: usize) {
        self.0.events_per_write.record(events as f64);
    }

    /// Counts an attempt to read.
    pub fn read_finished(&self, outcome: ReadOutcome) {
        self.0.reads[outcome.index()].increment(1);
    }

    /// Adds to the request units spent. What is not a positive number is left out.
    pub fn request_units_spent(&self, purpose: Purpose, request_units: f64) {
        if !(request_units.is_finite() && request_units > 0.0) {
            return;
        }
        let add = |bits| Some((f64::from_bits(bits) + request_units).to_bits());
        // Relaxed: a sum on its own. The closure always returns Some, so this cannot fail.
        let _ = self.0.request_units[purpose.index()].fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// The request units spent so far.
    pub fn request_units(&self, purpose: Purpose) -> f64 {
        f64::from_bits(self.0.request_units[purpose.index()].load(Ordering::Relaxed))
    }

    /// Records how long an event was on its way. Clocks of different machines differ: what would be negative
    /// counts as zero.
    pub fn event_durable(&self, latency: Latency) {
        let parts = [
            (&self.0.freshness, latency.freshness),
            (&self.0.hub_to_eventhub, latency.hub_to_eventhub),
            (&self.0.eventhub_to_received, latency.eventhub_to_received),
            (&self.0.received_to_durable, latency.received_to_durable),
        ];
        for (histogram, seconds) in parts {
            if let Some(seconds) = seconds.filter(|seconds| seconds.is_finite()) {
                histogram.record(seconds.max(0.0));
            }
        }
    }

    /// Counts a connection to a partition that was given up.
    pub fn partition_rebuilt(&self, stream: &str, reason: &'static str) {
        self.count(name::PARTITION_REBUILDS, &[("stream", stream), ("reason", reason)]);
    }

    /// Counts a query for the modules of a device.
    pub fn modules_queried(&self, outcome: ReadOutcome) {
        self.count(name::MODULE_QUERIES, &[("outcome", outcome.label())]);
    }

    /// Counts an event that was received before.
    pub fn event_repeated(&self, stream: &str) {
        self.count(name::EVENTS_REPEATED, &[("stream", stream)]);
    }

    /// Counts a message that is no valid AMQP.
    pub fn message_undecodable(&self, stream: &str) {
        self.count(name::MESSAGES_UNDECODABLE, &[("stream", stream)]);
    }

    /// Counts a checkpoint that could not be written.
    pub fn checkpoint_failed(&self, stream: &str, failure: Failure) {
        let reason = reason::of_failure(failure);
        self.count(name::CHECKPOINT_FAILURES, &[("stream", stream), ("reason", reason)]);
    }

    /// Counts an attempt to store a dead letter that failed.
    pub fn dead_letter_failed(&self, failure: Failure) {
        self.count(name::DEAD_LETTER_FAILURES, &[("reason", reason::of_failure(failure))]);
    }

    /// Counts a document that differed and says now what the hub says.
    pub fn twin_corrected(&self, purpose: Purpose, class: &'static str) {
        self.count(name::TWINS_CORRECTED, &[("purpose", purpose.label()), ("class", class)]);
    }

    /// Counts a twin that the store refuses.
    pub fn twin_rejected(&self) {
        self.count(name::TWINS_REJECTED, &[]);
    }

    /// Counts what holds at every moment, and did not.
    pub fn invariant_broken(&self, invariant: Invariant) {
        self.count(name::INVARIANT_VIOLATIONS, &[("invariant", invariant.id())]);
    }

    /// Counts a twin that differed again right after its repair.
    pub fn twin_still_different(&self) {
        self.count(name::TWINS_STILL_DIFFERENT, &[]);
    }

    /// Counts twins that a recount has found to be counted wrongly.
    pub fn counts_corrected(&self, twins: usize) {
        self.counter(name::COUNTS_CORRECTED, &[]).increment(twins as u64);
    }

    /// Counts a look at the changes of the container that failed.
    pub fn counts_read_failed(&self) {
        self.count(name::COUNTS_READ_FAILURES, &[]);
    }

    /// Sets how many twins wait for their repair.
    pub fn set_repairs_waiting(&self, twins: usize) {
        self.0.recorder.register_gauge(&key(name::REPAIRS_WAITING, &[]), &METADATA).set(twins as f64);
    }

    /// Sets how many twins of a hub a backfill has dealt with.
    pub fn set_backfill_twins(&self, hub: &str, outcome: &'static str, twins: u64) {
        let key = key(name::BACKFILL_TWINS, &[("hub", hub), ("outcome", outcome)]);
        self.0.recorder.register_gauge(&key, &METADATA).set(twins as f64);
    }

    /// Notes what an audit found.
    pub fn audit_finished(&self, hub: &str, at: Ticks, left: u64, found: &BTreeMap<&'static str, u64>) {
        for (class, count) in found {
            let key = key(name::AUDIT_DIFFERENCES, &[("hub", hub), ("class", class)]);
            self.0.recorder.register_counter(&key, &METADATA).increment(*count);
        }
        let gauge = |name| self.0.recorder.register_gauge(&key(name, &[("hub", hub)]), &METADATA);
        gauge(name::AUDIT_DIFFERENCES_LEFT).set(left as f64);
        gauge(name::AUDIT_COMPLETED).set(at.seconds_since(Ticks::new(0)));
    }

    /// Notes how many twins the last audit could not compare, and why.
    pub fn set_audit_undecided(&self, hub: &str, reason: &'static str, twins: u64) {
        let key = key(name::AUDIT_UNDECIDED, &[("hub", hub), ("reason", reason)]);
        self.0.recorder.register_gauge(&key, &METADATA).set(twins as f64);
    }

    /// Counts a call to the registry of a hub, and how long it took.
    pub fn registry_asked(
        &self,
        call: RegistryCall,
        outcome: RegistryOutcome,
        purpose: Purpose,
        took: Duration,
    ) {
        self.registry_calls(call, outcome, purpose).increment(1);
        let key = key(name::REGISTRY_CALL_SECONDS, &[("call", call.label())]);
        self.0.recorder.register_histogram(&key, &METADATA).record(took.as_secs_f64());
    }

    fn registry_calls(&self, call: RegistryCall, outcome: RegistryOutcome, purpose: Purpose) -> &Counter {
        let place = (call.index() * RegistryOutcome::ALL.len() + outcome.index()) * Purpose::ALL.len();
        self.0.registry_calls[place + purpose.index()].get_or_init(|| {
            let labels = [("call", call.label()), ("outcome", outcome.label()), ("purpose", purpose.label())];
            self.0.recorder.register_counter(&key(name::REGISTRY_CALLS, &labels), &METADATA)
        })
    }

    /// Sets how many partitions a stream has, and how many of them its Event Hub does not name any more.
    pub fn set_partitions(&self, stream: &str, known: usize, missing: usize) {
        for (name, partitions) in [(name::PARTITIONS, known), (name::PARTITIONS_MISSING, missing)] {
            let key = key(name, &[("stream", stream)]);
            self.0.recorder.register_gauge(&key, &METADATA).set(partitions as f64);
        }
    }

    /// Counts a look for new partitions that failed.
    pub fn partition_discovery_failed(&self, stream: &str) {
        self.count(name::PARTITION_DISCOVERY_FAILURES, &[("stream", stream)]);
    }

    /// Sets how many partitions of a stream are ours.
    pub fn set_partitions_owned(&self, stream: &str, partitions: usize) {
        let key = key(name::PARTITIONS_OWNED, &[("stream", stream)]);
        self.0.recorder.register_gauge(&key, &METADATA).set(partitions as f64);
    }

    /// Shows how many replicas are alive, this one included.
    pub fn set_replicas_alive(&self, replicas: usize) {
        self.0.recorder.register_gauge(&key(name::REPLICAS_ALIVE, &[]), &METADATA).set(replicas as f64);
    }

    /// Shows the part of each hub's quota that this replica may use.
    pub fn set_registry_share(&self, share: f64) {
        self.0.recorder.register_gauge(&key(name::REGISTRY_SHARE, &[]), &METADATA).set(share);
    }

    /// Shows how many request units this replica may spend per second.
    pub fn set_request_units_limit(&self, request_units_per_second: f64) {
        let key = key(name::REQUEST_UNITS_LIMIT, &[]);
        self.0.recorder.register_gauge(&key, &METADATA).set(request_units_per_second);
    }

    /// Shows how often an audit is due.
    pub fn set_audit_interval(&self, interval: Duration) {
        let key = key(name::AUDIT_INTERVAL, &[]);
        self.0.recorder.register_gauge(&key, &METADATA).set(interval.as_secs_f64());
    }

    /// Counts a request for a twin.
    pub fn twin_read(&self, read: TwinRead) {
        self.0.twin_reads[read.index()].increment(1);
    }

    /// Counts a request for a twin that shows no right to it.
    pub fn twin_read_unauthorized(&self, reason: Unauthorized) {
        self.0.twin_reads_unauthorized[reason.index()].increment(1);
    }

    /// Adds to the requests that wait for a twin.
    pub fn twin_waiters(&self, more: f64) {
        self.0.twin_waiters.increment(more);
    }

    /// A counter to keep.
    pub(super) fn counter(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Counter {
        self.0.recorder.register_counter(&key(name, labels), &METADATA)
    }

    /// A gauge without labels to keep.
    pub(super) fn gauge(&self, name: &'static str) -> Gauge {
        self.0.recorder.register_gauge(&key(name, &[]), &METADATA)
    }

    /// A histogram to keep.
    pub(super) fn histogram(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Histogram {
        self.0.recorder.register_histogram(&key(name, labels), &METADATA)
    }

    /// Shows a counter before it counts.
    fn zero(&self, name: &'static str, labels: &[(&'static str, &str)]) {
        self.0.recorder.register_counter(&key(name, labels), &METADATA).increment(0);
    }

    /// For what is rare: looks the counter up each time.
    fn count(&self, name: &'static str, labels: &[(&'static str, &str)]) {
        self.0.recorder.register_counter(&key(name, labels), &METADATA).increment(1);
    }

    /// Sets what has been received and is not yet completed.
    pub fn set_in_flight(&self, events: usize, bytes: usize) {
        self.0.in_flight_events.set(events as f64);
        self.0.in_flight_bytes.set(bytes as f64);
    }

    /// Sets how many requests to the store may be in flight.
    pub fn set_store_concurrency_limit(&self, requests: usize) {
        self.0.store_concurrency_limit.set(requests as f64);
    }

    /// Sets about how many twins the store gave no answer when it was last asked.
    pub fn set_twins_in_trouble(&self, twins: usize) {
        self.0.twins_in_trouble.set(twins as f64);
    }

    /// Sets of how many twins so much waits that their partitions wait too.
    pub fn set_twins_full(&self, twins: usize) {
        self.0.twins_full.set(twins as f64);
    }

    /// One more thread receives events.
    pub fn receives_on(&self, thread: RuntimeMetrics) {
        self.0.receiving.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
    }

    /// The threads that receive events.
    pub(super) fn receiving(&self) -> Vec<RuntimeMetrics> {
        self.0.receiving.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        let mut page = Page::default();
        // Apart, since the recorder has no counters with fractions.
        let spent =
            |purpose: &Purpose| (labels(&[("purpose", purpose.label())]), self.request_units(*purpose));
        page.samples(name::REQUEST_UNITS, Purpose::ALL.iter().map(spent));
        self.0.handle.render() + &page.text()
    }

    /// Keeps memory bounded until `shutdown`: run it as a task for as long as anything is recorded.
    pub async fn run_upkeep(self, shutdown: CancellationToken) {
        let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                _ = interval.tick() => {
                    self.0.handle.run_upkeep();
                    super::limit::tell_what_is_over();
                }
            }
        }
    }
}

/// Counters of one stream, one per decision.
#[derive(Clone)]
pub struct StreamMetrics {
    decisions: Vec<Counter>,
    lost: Counter,
}

impl StreamMetrics {
    /// Counts one event.
    pub fn decided(&self, decision: Decision) {
        self.decided_many(decision, 1);
    }

    /// Counts events that can never be received.
    pub fn lost(&self, events: u64) {
        self.lost.increment(events);
    }

    /// Counts several events that were decided alike.
    pub fn decided_many(&self, decision: Decision, events: u64) {
        self.decisions[decision.index()].increment(events);
    }
}

impl std::fmt::Debug for StreamMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamMetrics").finish_non_exhaustive()
    }
}

/// Counters by reason. Reasons are `'static`, so outside input cannot make new ones.
struct ByReason {
    name: &'static str,
    counters: RwLock<BTreeMap<&'static str, Counter>>,
}

impl ByReason {
    /// All at zero: an alert on an increase must not miss the first of its kind.
    fn new(
        recorder: &PrometheusRecorder,
        name: &'static str,
        reasons: impl IntoIterator<Item = &'static str>,
    ) -> Self {
        let counter =
            |reason| (reason, recorder.register_counter(&key(name, &[("reason", reason)]), &METADATA));
        Self { name, counters: RwLock::new(reasons.into_iter().map(counter).collect()) }
    }

    fn count(&self, recorder: &PrometheusRecorder, reason: &'static str) {
        let counters = self.counters.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(counter) = counters.get(reason) {
            counter.increment(1);
            return;
        }
        drop(counters);
        let key = key(self.name, &[("reason", reason)]);
        let counter = recorder.register_counter(&key, &METADATA);
        counter.increment(1);
        let mut counters = self.counters.write().unwrap_or_else(PoisonError::into_inner);
        counters.insert(reason, counter);
    }
}

/// Reason codes of all dead letters.
fn dead_letter_reasons() -> impl Iterator<Item = &'static str> {
    Undeliverable::ALL.into_iter().map(Undeliverable::code).chain(reason::LETTERS)
}

fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
    let labels = labels.iter().map(|(label, value)| Label::new(*label, (*value).to_owned()));
    Key::from_parts(name, labels.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::ServeMetrics;

    fn has_line(metrics: &Metrics, line: &str) {
        let text = metrics.render();
        assert!(text.lines().any(|found| found == line), "{line}\nnot in\n{text}");
    }

    #[test]
    fn what_is_counted_is_rendered_with_its_labels() {
        let metrics = Metrics::new().unwrap();
        let stream = metrics.stream("twins");
        stream.decided(Decision::Applied);
        stream.decided_many(Decision::Duplicate, 3);
        metrics.event_ignored("telemetry");
        metrics.event_ignored("telemetry");
        metrics.event_dead_lettered("body_not_json");
        metrics.write_finished(WriteKind::Replace, WriteOutcome::Conflict);
        metrics.read_finished(ReadOutcome::Absent);
        metrics.partition_rebuilt("twins", "stolen");
        metrics.set_in_flight(2, 700);
        metrics.set_store_concurrency_limit(64);
        for line in [
            "twinsync_events_total{stream=\"twins\",decision=\"applied\"} 1",
            "twinsync_events_total{stream=\"twins\",decision=\"duplicate\"} 3",
            "twinsync_events_total{stream=\"twins\",decision=\"gap\"} 0",
            "twinsync_events_ignored_total{reason=\"telemetry\"} 2",
            "twinsync_dead_letters_total{reason=\"body_not_json\"} 1",
            "twinsync_writes_total{kind=\"replace\",outcome=\"conflict\"} 1",
            "twinsync_writes_total{kind=\"create\",outcome=\"written\"} 0",
            "twinsync_reads_total{outcome=\"absent\"} 1",
            "twinsync_partition_rebuilds_total{stream=\"twins\",reason=\"stolen\"} 1",
            "twinsync_in_flight_events 2",
            "twinsync_in_flight_bytes 700",
            "twinsync_store_concurrency_limit 64",
        ] {
            has_line(&metrics, line);
        }
        assert!(metrics.render().contains("twinsync_build_info{version="));
    }

    #[test]
    fn request_units_are_a_counter_with_fractions() {
        let metrics = Metrics::new().unwrap();
        for charge in [1.5, 5.81, 0.0, -1.0, f64::NAN, f64::INFINITY] {
            metrics.request_units_spent(Purpose::Live, charge);
        }
        has_line(&metrics, "# TYPE twinsync_request_units_total counter");
        has_line(&metrics, "twinsync_request_units_total{purpose=\"live\"} 7.31");
    }

    #[test]
    fn no_request_unit_is_lost_between_threads() {
        let metrics = Metrics::new().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| metrics.request_units_spent(Purpose::Live, 0.5)));
            }
        });
        assert_eq!(metrics.request_units(Purpose::Live), 20_000.0);
    }

    #[test]
    fn latencies_fall_into_buckets_and_negative_ones_count_as_zero() {
        let metrics = Metrics::new().unwrap();
        for freshness in [Some(-5.0), Some(0.012), Some(f64::NAN), None] {
            metrics.event_durable(Latency { freshness, ..Latency::default() });
        }
        metrics.events_written(4);
        for line in [
            "# TYPE twinsync_freshness_seconds histogram",
            "twinsync_freshness_seconds_bucket{le=\"0.001\"} 1",
            "twinsync_freshness_seconds_bucket{le=\"0.015\"} 2",
            "twinsync_freshness_seconds_bucket{le=\"3600\"} 2",
            "twinsync_freshness_seconds_count 2",
            "twinsync_events_per_write_bucket{le=\"5\"} 1",
        ] {
            has_line(&metrics, line);
        }
        let text = metrics.render();
        assert!(!text.contains("twinsync_hub_to_eventhub_seconds_count 1"), "{text}");
    }

    #[test]
    fn every_rendered_metric_is_described() {
        let metrics = Metrics::new().unwrap();
        let _ = metrics.stream("s");
        metrics.event_durable(Latency {
            freshness: Some(1.0),
            hub_to_eventhub: Some(1.0),
            eventhub_to_received: Some(1.0),
            received_to_durable: Some(1.0),
        });
        let text = metrics.render();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let name = line.split(' ').next().unwrap();
            assert!(text.contains(&format!("# HELP {name} ")), "{name}");
        }
    }

    #[test]
    fn every_counter_is_there_before_it_counts() {
        let metrics = Metrics::new().unwrap();
        let _ = metrics.stream("s");
        metrics.registry("h");
        let _ = ServeMetrics::new(&metrics, ["missing"]);
        let text = metrics.render();
        for &Description { name, kind, .. } in name::DESCRIPTIONS {
            // The process and its runtime are not at zero, and not kept here.
            if [name::PROCESS_CPU, name::RUNTIME_BUSY, name::RECEIVE_BUSY].contains(&name) {
                continue;
            }
            let sample =
                |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
            if kind == Kind::Histogram {
                let empty = |line: &str| line.starts_with(&format!("{name}_count")) && line.ends_with(" 0");
                assert!(text.lines().any(empty), "{name}: the first ones would be missed");
            }
            if matches!(kind, Kind::Counter) {
                let found: Vec<_> = text.lines().filter(sample).collect();
                assert!(!found.is_empty(), "{name}: an alert on its increase would miss the first one");
                assert!(found.iter().all(|line| line.ends_with(" 0")), "{found:?}");
            }
        }
        for line in [
            "twinsync_dead_letters_total{reason=\"rejected_by_store\"} 0",
            "twinsync_dead_letters_total{reason=\"not_json\"} 0",
            "twinsync_partition_rebuilds_total{stream=\"s\",reason=\"stalled\"} 0",
            "twinsync_events_lost_total{stream=\"s\"} 0",
        ] {
            has_line(&metrics, line);
        }
    }

    #[test]
    fn two_daemons_in_one_process_count_apart() {
        let (one, other) = (Metrics::new().unwrap(), Metrics::new().unwrap());
        one.event_ignored("telemetry");
        has_line(&one, "twinsync_events_ignored_total{reason=\"telemetry\"} 1");
        has_line(&other, "twinsync_events_ignored_total{reason=\"telemetry\"} 0");
    }

    #[tokio::test]
    async fn upkeep_ends_with_the_daemon() {
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(Metrics::new().unwrap().run_upkeep(shutdown.clone()));
        shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(5), task).await.expect("ends").unwrap();
    }
}
