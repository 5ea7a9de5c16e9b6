//! The description of each metric. The table in `docs/metrics.md` and the help that Prometheus shows are generated from it.

use super::*;

/// The kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only increases, from 0. A restart begins at 0 again.
    Counter,
    /// The present value.
    Gauge,
    /// Counts by upper bounds, with a sum and a total count.
    Histogram,
}

impl Kind {
    /// Prometheus' name of the kind.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric.
#[derive(Debug, Clone, Copy)]
pub struct Description {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// The names of its labels, without the bounds of a histogram.
    pub labels: &'static [&'static str],
    /// Its meaning, on one line.
    pub help: &'static str,
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Description {
    Description { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Description {
    Description { name, kind: Kind::Gauge, labels, help }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Description {
    Description { name, kind: Kind::Histogram, labels, help }
}

/// The description of a metric.
pub fn described(name: &str) -> Option<&'static Description> {
    DESCRIPTIONS.iter().find(|description| description.name == name)
}

/// Every metric that is served.
pub const DESCRIPTIONS: &[Description] = &[
    counter(EVENTS, &["stream", "decision"], "Events by decision"),
    counter(EVENTS_IGNORED, &["reason"], "Events that do not concern twins"),
    counter(DEAD_LETTERS, &["reason"], "Events that can never be applied"),
    counter(
        DEAD_LETTERS_WITHOUT_TWIN,
        &[],
        "Dead letters whose twin is not known, so that no document is flagged",
    ),
    counter(FLAGS_REJECTED, &[], "Flagged documents that the store refuses"),
    counter(WRITES, &["kind", "outcome"], "Attempts to write a document"),
    counter(READS, &["outcome"], "Attempts to read a document"),
    counter(REQUEST_UNITS, &["purpose"], "Request units charged by Cosmos DB, fractions included"),
    gauge(LAG_EVENTS, &["stream", "partition"], "Events in the partition that are not completed"),
    gauge(
        LAG_MEASURED,
        &["stream", "partition"],
        "When the lag was measured, in seconds since the Unix epoch",
    ),
    gauge(
        OLDEST_INCOMPLETE_AGE,
        &["stream", "partition"],
        "Time since the oldest event that is not completed was received",
    ),
    gauge(
        PARTITION_UP,
        &["stream", "partition"],
        "Whether this replica receives events from a partition that it owns",
    ),
    gauge(STORE_UP, &[], "Whether Cosmos DB answers"),
    gauge(
        DEAD_LETTER_STORE_UP,
        &[],
        "Whether the store for dead letters answers; absent until the first request",
    ),
    gauge(
        CHECKPOINT_STORE_UP,
        &[],
        "Whether the store for checkpoints and leases answers; absent until the first request",
    ),
    gauge(
        TOKEN_EXPIRY,
        &["scope"],
        "When the token for a service, the SAS of the storage account (`storage_sas`) or the certificate of the read API (`certificate`) expires, in seconds since the Unix epoch",
    ),
    gauge(
        REGISTRY_UP,
        &["hub"],
        "Whether the registry of an IoT hub answers; absent until the first request",
    ),
    gauge(
        EVENTHUB_UP,
        &["stream"],
        "Whether an Event Hub answers requests about its partitions; absent until the first request",
    ),
    histogram(
        REGISTRY_CALL_SECONDS,
        &["call"],
        "Duration of calls to the registries of IoT hubs, answered or not",
    ),
    gauge(READY, &[], "Whether the process does its work, as /readyz says"),
    histogram(FRESHNESS, &[], "From the hub's operation to its durable copy"),
    histogram(HUB_TO_EVENTHUB, &[], "From the hub's operation to its arrival in Event Hubs"),
    histogram(EVENTHUB_TO_RECEIVED, &[], "From the arrival in Event Hubs to the receipt by twinsync"),
    histogram(RECEIVED_TO_DURABLE, &[], "From the receipt by twinsync to the durable copy"),
    histogram(EVENTS_PER_WRITE, &[], "How many events one write carried"),
    gauge(IN_FLIGHT_EVENTS, &[], "Events received and not yet completed"),
    gauge(IN_FLIGHT_BYTES, &[], "Bytes of the events received and not yet completed"),
    gauge(
        CACHE_BYTES,
        &[],
        "Bytes of the documents kept for the next write of their twin, which `cache.max_bytes` limits",
    ),
    gauge(
        CHECKPOINT_AGE,
        &["stream", "partition"],
        "For how long the checkpoint has been behind what was received",
    ),
    counter(
        PARTITION_REBUILDS,
        &["stream", "reason"],
        "Connections to a partition that were closed and opened again",
    ),
    gauge(STORE_CONCURRENCY_LIMIT, &[], "Requests to the store that may be in flight at present"),
    gauge(
        TWINS_IN_TROUBLE,
        &[],
        "Twins about whose documents the store gave no answer when it was last asked",
    ),
    gauge(TWINS_FULL, &[], "Twins with so many waiting events that their partitions wait too"),
    counter(MODULE_QUERIES, &["outcome"], "Queries for the modules of a device"),
    counter(EVENTS_REPEATED, &["stream"], "Events received again on a new connection, and skipped"),
    counter(
        EVENTS_LOST,
        &["stream"],
        "Events that can never be received: retention has passed them, or the Event Hub was re-created",
    ),
    counter(MESSAGES_UNDECODABLE, &["stream"], "Messages that are not valid AMQP and were skipped"),
    counter(
        DEAD_LETTER_FAILURES,
        &["reason"],
        "Attempts to store a dead letter that failed: throttled or unavailable",
    ),
    counter(
        CHECKPOINT_FAILURES,
        &["stream", "reason"],
        "Checkpoints that could not be written: throttled or unavailable",
    ),
    counter(
        START_DELAYS,
        &["dependency"],
        "Failed attempts at start to reach a dependency: credential, cosmos, checkpoints, dead_letters or eventhubs",
    ),
    gauge(PARTITIONS, &["stream"], "Partitions that the Event Hub has, as far as this replica knows"),
    gauge(
        PARTITIONS_MISSING,
        &["stream"],
        "Partitions that the Event Hub does not list any more; twinsync keeps them",
    ),
    counter(PARTITION_DISCOVERY_FAILURES, &["stream"], "Discoveries of partitions that failed"),
    gauge(PARTITIONS_OWNED, &["stream"], "Partitions that this replica owns"),
    counter(
        TWINS_CORRECTED,
        &["purpose", "class"],
        "Documents that differed from the hub's twins and were corrected",
    ),
    counter(TWINS_REJECTED, &[], "Twins whose state in the hub the store refuses to store"),
    counter(
        TWINS_WENT_BACK,
        &[],
        "Repaired twins that the hub had in an earlier state than their documents, as after a failover",
    ),
    counter(
        REPAIRS_GIVEN_UP,
        &[],
        "Repairs postponed until the next scan for flagged documents: no answer about the twin, while others are answered",
    ),
    gauge(REPAIRS_WAITING, &[], "Flagged twins that wait for their repair in this replica"),
    counter(
        AUDIT_DIFFERENCES,
        &["hub", "class"],
        "Differences that audits found; an orphan is a document that nothing updates",
    ),
    gauge(AUDIT_DIFFERENCES_LEFT, &["hub"], "Differences that the last audit left"),
    gauge(REPLICAS_ALIVE, &[], "Replicas that are alive, this one included, as the leases show them"),
    gauge(
        REGISTRY_SHARE,
        &[],
        "Part of each IoT hub's quota for reads that this replica may use at present; absent without [iothub]",
    ),
    gauge(
        REQUEST_UNITS_LIMIT,
        &[],
        "Request units that this replica may spend per second at present; absent without a limit",
    ),
    gauge(
        AUDIT_UNDECIDED,
        &["hub", "reason"],
        "Twins that the last audit could not compare: they changed too recently, or there was no answer",
    ),
    gauge(AUDIT_COMPLETED, &["hub"], "When the last audit was done, in seconds since the Unix epoch"),
    gauge(BACKFILL_TWINS, &["hub", "outcome"], "Twins that the present or the last backfill has processed"),
    counter(INVARIANT_VIOLATIONS, &["invariant"], "Bugs of twinsync: invariants that did not hold"),
    counter(TWINS_STILL_DIFFERENT, &[], "Twins that were repaired and differed again at once"),
    counter(REGISTRY_CALLS, &["call", "outcome", "purpose"], "Calls to the registries of IoT hubs"),
    counter(
        TWIN_READS,
        &["outcome"],
        "Requests for single twins over HTTP; gone: the client closed the connection before the answer",
    ),
    gauge(TWIN_WAITERS, &[], "Requests over HTTP that wait for a twin to reach a version"),
    counter(
        TWIN_READS_UNAUTHORIZED,
        &["reason"],
        "Requests for twins that were refused: no_token, or wrong_token (an old or a guessed token)",
    ),
    counter(
        SERVE_REQUESTS,
        &["operation", "outcome"],
        "Authorized requests to IoT Hub's read API (twinsync serve)",
    ),
    histogram(
        SERVE_REQUEST_SECONDS,
        &["operation"],
        "Duration of requests to IoT Hub's read API, until the answer is ready",
    ),
    counter(
        SERVE_UNAUTHORIZED,
        &["reason"],
        "Requests to IoT Hub's read API that were refused as unauthorized",
    ),
    counter(SERVE_ROWS, &[], "Rows that IoT Hub's read API returned to queries"),
    counter(
        SERVE_RENEWAL_FAILURES,
        &["what"],
        "Failed renewals of what IoT Hub's read API needs: certificate, keys, or lag (how far behind the copy is)",
    ),
    counter(
        SERVE_HANDSHAKE_FAILURES,
        &[],
        "Connections to IoT Hub's read API whose TLS handshake failed or took too long",
    ),
    gauge(
        SERVE_LAG_EVENTS,
        &[],
        "Events that the copy is behind, as IoT Hub's read API reports it; NaN if it is not known",
    ),
    gauge(
        SERVE_KEYS_RENEWED,
        &[],
        "When the keys of Entra ID were last fetched, in seconds since the Unix epoch; absent until then",
    ),
    gauge(
        COUNTED_TWINS,
        &["name"],
        "Twins by declared count and group, over all replicas; one more label for each path that the count groups by; absent until the count is known",
    ),
    gauge(
        COUNTS_AGE,
        &[],
        "Time since the change feed was last read to its end for declared counts, or since the start; absent if no counts are declared",
    ),
    gauge(
        COUNTS_UNREADABLE,
        &[],
        "Documents that are missing from declared counts because they cannot be read; absent if no counts are declared",
    ),
    counter(COUNTS_CORRECTED, &[], "Twins that declared counts had counted wrongly, as a recount found"),
    counter(COUNTS_READ_FAILURES, &[], "Failed reads of the change feed for declared counts"),
    counter(
        OTLP_SPANS,
        &["outcome"],
        "Spans of traces: exported, dropped for lack of space or time, or refused by the receiver",
    ),
    counter(OTLP_EXPORT_FAILURES, &[], "Requests to the receiver of traces that failed"),
    gauge(BUILD_INFO, &["version", "revision"], "Always 1; the labels show which build runs"),
    gauge(RETENTION, &[], "For how long the Event Hubs keep an event, as eventhubs.retention says"),
    gauge(
        TIME_TO_LOSS,
        &["stream", "partition"],
        "Time until the oldest event that may not be completed is older than the retention; computed from the last known state, so it shrinks without answers",
    ),
    gauge(
        AUDIT_INTERVAL,
        &[],
        "Time from the beginning of an audit to the beginning of the next one, as audit.interval says; absent if no audits are planned",
    ),
    gauge(
        MEMORY_LIMIT,
        &[],
        "Memory that the control group (cgroup) of the process may use; absent if there is no limit",
    ),
    gauge(RUNTIME_WORKERS, &[], "Threads that run tasks"),
    gauge(RUNTIME_TASKS, &[], "Tasks that are alive"),
    gauge(
        RUNTIME_QUEUED,
        &[],
        "Tasks that are ready and wait for a thread, in the queue that all threads share",
    ),
    counter(RUNTIME_BUSY, &[], "Time for which the threads ran tasks, over all of them"),
    counter(
        RECEIVE_BUSY,
        &["thread"],
        "Time for which a thread that receives events ran tasks; close to one second per second, the thread is at its limit",
    ),
    counter(PROCESS_CPU, &[], "Processor time of the process, user and system"),
    gauge(PROCESS_RESIDENT_MEMORY, &[], "Resident memory of the process"),
    gauge(PROCESS_VIRTUAL_MEMORY, &[], "Address space of the process"),
    gauge(PROCESS_OPEN_FDS, &[], "Open file descriptors: files and connections"),
    gauge(PROCESS_MAX_FDS, &[], "File descriptors that may be open; absent if there is no limit"),
    gauge(PROCESS_START_TIME, &[], "When the process began, in seconds since the Unix epoch"),
    gauge(PROCESS_THREADS, &[], "Threads of the process"),
];
