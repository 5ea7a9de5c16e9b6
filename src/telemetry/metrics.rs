//! The metrics of one daemon, rendered for Prometheus.
//!
//! There is no global recorder: a [`Metrics`] owns its recorder, so several daemons in one process (demo, tests) count separately. Handles
//! are registered once. Counting is then an atomic addition, without formatting or lookup. Only reasons are looked up per call, in a map of
//! the few that occur.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
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

mod by_reason;
mod rare;
mod stream;
#[cfg(test)]
mod tests;

pub use self::stream::StreamMetrics;
use self::{
    by_reason::ByReason,
    rare::{DROPPED, EXPORTED, REFUSED},
};
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
    invariant::Invariant,
    ticks::Ticks,
    undeliverable::Undeliverable,
};

/// How often recorded latencies are moved into their buckets. Until then, each sample takes 8 bytes.
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
    /// By kind, then by outcome.
    writes: Vec<Vec<Counter>>,
    reads: Vec<Counter>,
    /// By call, outcome and purpose. Most combinations never occur, and few daemons have a hub to ask.
    registry_calls: Vec<OnceLock<Counter>>,
    /// The runtimes of the receive threads, separate from the common runtime.
    receiving: Mutex<Vec<RuntimeMetrics>>,
    /// `f64` bits, by purpose: the recorder's counters only hold integers, and request units have fractions.
    request_units: Vec<AtomicU64>,
    freshness: Histogram,
    hub_to_eventhub: Histogram,
    eventhub_to_received: Histogram,
    received_to_durable: Histogram,
    events_per_write: Histogram,
    in_flight_events: Gauge,
    in_flight_bytes: Gauge,
    cache_bytes: Gauge,
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

/// The parts of an event's latency, in seconds. Unknown parts are `None` and are not recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Latency {
    /// From the IoT hub's operation to its durable copy.
    pub freshness: Option<f64>,
    /// From the IoT hub's operation to its arrival in Event Hubs.
    pub hub_to_eventhub: Option<f64>,
    /// From there until this process received it.
    pub eventhub_to_received: Option<f64>,
    /// From there until its copy was durable.
    pub received_to_durable: Option<f64>,
}

impl Metrics {
    /// Creates a new set of metrics, all at zero.
    ///
    /// # Errors
    /// The bucket bounds are malformed. A test excludes this.
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
            cache_bytes: gauge(name::CACHE_BYTES),
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

    /// Registers the counters of one stream. Keep the result.
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

    /// Registers the counters of one IoT hub's registry at zero.
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
            // Registering makes it visible, so the first sample shows as an increase.
            let _ = self.0.recorder.register_histogram(&key, &METADATA);
        }
    }

    /// Counts an event that does not concern twinsync.
    pub fn event_ignored(&self, reason: &'static str) {
        self.0.ignored.count(&self.0.recorder, reason);
    }

    /// Counts a dead letter.
    pub fn event_dead_lettered(&self, reason: &'static str) {
        self.0.dead_letters.count(&self.0.recorder, reason);
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

    /// Adds to the request units that were spent. Values that are not positive numbers are ignored.
    pub fn request_units_spent(&self, purpose: Purpose, request_units: f64) {
        if !(request_units.is_finite() && request_units > 0.0) {
            return;
        }
        let add = |bits| Some((f64::from_bits(bits) + request_units).to_bits());
        // Relaxed: an independent sum. The closure always returns `Some`, so this cannot fail.
        let _ = self.0.request_units[purpose.index()].fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// The request units that were spent so far.
    pub fn request_units(&self, purpose: Purpose) -> f64 {
        f64::from_bits(self.0.request_units[purpose.index()].load(Ordering::Relaxed))
    }

    /// Records the latency of an event. Clocks of different machines differ: negative values count as zero.
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

    /// Records the result of an audit.
    pub fn audit_finished(&self, hub: &str, at: Ticks, left: u64, found: &BTreeMap<&'static str, u64>) {
        for (class, count) in found {
            let key = key(name::AUDIT_DIFFERENCES, &[("hub", hub), ("class", class)]);
            self.0.recorder.register_counter(&key, &METADATA).increment(*count);
        }
        let gauge = |name| self.0.recorder.register_gauge(&key(name, &[("hub", hub)]), &METADATA);
        gauge(name::AUDIT_DIFFERENCES_LEFT).set(left as f64);
        gauge(name::AUDIT_COMPLETED).set(at.seconds_since(Ticks::new(0)));
    }

    /// Counts a call to the registry of a hub, and records its duration.
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

    /// Sets how many partitions a stream has, and how many of them its Event Hub no longer lists.
    pub fn set_partitions(&self, stream: &str, known: usize, missing: usize) {
        for (name, partitions) in [(name::PARTITIONS, known), (name::PARTITIONS_MISSING, missing)] {
            let key = key(name, &[("stream", stream)]);
            self.0.recorder.register_gauge(&key, &METADATA).set(partitions as f64);
        }
    }

    /// Counts a request for a twin.
    pub fn twin_read(&self, read: TwinRead) {
        self.0.twin_reads[read.index()].increment(1);
    }

    /// Counts a request for a twin that was refused as unauthorized.
    pub fn twin_read_unauthorized(&self, reason: Unauthorized) {
        self.0.twin_reads_unauthorized[reason.index()].increment(1);
    }

    /// Adds `more`, which may be negative, to the number of requests that wait for a twin.
    pub fn twin_waiters(&self, more: f64) {
        self.0.twin_waiters.increment(more);
    }

    /// Registers a counter.
    pub(super) fn counter(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Counter {
        self.0.recorder.register_counter(&key(name, labels), &METADATA)
    }

    /// Registers a gauge without labels.
    pub(super) fn gauge(&self, name: &'static str) -> Gauge {
        self.0.recorder.register_gauge(&key(name, &[]), &METADATA)
    }

    /// Registers a histogram.
    pub(super) fn histogram(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Histogram {
        self.0.recorder.register_histogram(&key(name, labels), &METADATA)
    }

    /// Registers a counter at zero.
    fn zero(&self, name: &'static str, labels: &[(&'static str, &str)]) {
        self.0.recorder.register_counter(&key(name, labels), &METADATA).increment(0);
    }

    /// Sets the events and bytes that are received and not yet completed.
    pub fn set_in_flight(&self, events: usize, bytes: usize) {
        self.0.in_flight_events.set(events as f64);
        self.0.in_flight_bytes.set(bytes as f64);
    }

    /// Sets the bytes of the documents that are kept for the next write of their twin.
    pub fn set_cached(&self, bytes: u64) {
        self.0.cache_bytes.set(bytes as f64);
    }

    /// Sets how many requests to the store may be in flight.
    pub fn set_store_concurrency_limit(&self, requests: usize) {
        self.0.store_concurrency_limit.set(requests as f64);
    }

    /// Sets for how many twins the store gave no answer at its last call.
    pub fn set_twins_in_trouble(&self, twins: usize) {
        self.0.twins_in_trouble.set(twins as f64);
    }

    /// Sets for how many twins so many events wait that their partitions wait too.
    pub fn set_twins_full(&self, twins: usize) {
        self.0.twins_full.set(twins as f64);
    }

    /// Adds a thread that receives events.
    pub fn receives_on(&self, thread: RuntimeMetrics) {
        self.0.receiving.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
    }

    /// The runtimes of the threads that receive events.
    pub(super) fn receiving(&self) -> Vec<RuntimeMetrics> {
        self.0.receiving.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        let mut page = Page::default();
        // Rendered separately, since the recorder has no counters with fractions.
        let spent =
            |purpose: &Purpose| (labels(&[("purpose", purpose.label())]), self.request_units(*purpose));
        page.samples(name::REQUEST_UNITS, Purpose::ALL.iter().map(spent));
        self.0.handle.render() + &page.text()
    }

    /// Keeps memory bounded until `shutdown`. Run it as a task while metrics are recorded.
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

/// Reason codes of all dead letters.
fn dead_letter_reasons() -> impl Iterator<Item = &'static str> {
    Undeliverable::ALL.into_iter().map(Undeliverable::code).chain(reason::LETTERS)
}

fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
    let labels = labels.iter().map(|(label, value)| Label::new(*label, (*value).to_owned()));
    Key::from_parts(name, labels.collect::<Vec<_>>())
}
