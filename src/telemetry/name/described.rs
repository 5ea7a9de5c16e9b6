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
    counter(EVENTS, &["stream", "decision"], "Events by what was decided about them"),
    counter(EVENTS_IGNORED, &["reason"], "Events that do not concern us"),
    counter(DEAD_LETTERS, &["reason"], "Events that can never be applied"),
    counter(
        DEAD_LETTERS_WITHOUT_TWIN,
        &[],
        "Dead letters that do not tell which twin they are about, so that no document is flagged",
    ),
    counter(FLAGS_REJECTED, &[], "Flagged documents that the store refuses to hold"),
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
        "Since the oldest event was received that is not completed",
    ),
    gauge(PARTITION_UP, &["stream", "partition"], "Whether a partition of ours is being received from"),
    gauge(STORE_UP, &[], "Whether Cosmos DB answers"),
    gauge(DEAD_LETTER_STORE_UP, &[], "Whether the store for dead letters answers; absent until it was asked"),
    gauge(
        CHECKPOINT_STORE_UP,
        &[],
        "Whether the store for checkpoints and leases answers; absent until it was asked",
    ),
    gauge(
        TOKEN_EXPIRY,
        &["scope"],
        "When the token for a service ends, or the SAS of the storage account (`storage_sas`), or the certificate of the read API (`certificate`), in seconds since the Unix epoch",
    ),
    gauge(REGISTRY_UP, &["hub"], "Whether the registry of an IoT hub answers; absent until it was asked"),
    gauge(
        EVENTHUB_UP,
        &["stream"],
        "Whether an Event Hub answers how much waits in its partitions; absent until it was asked",
    ),
    histogram(
        REGISTRY_CALL_SECONDS,
        &["call"],
        "How long calls to the registries of IoT hubs took, answered or not",
    ),
    gauge(READY, &[], "Whether the process does its work, as /readyz says"),
    histogram(FRESHNESS, &[], "From the hub's operation to its durable copy"),
    histogram(HUB_TO_EVENTHUB, &[], "From the hub's operation to its arrival in Event Hubs"),
    histogram(EVENTHUB_TO_RECEIVED, &[], "From the arrival in Event Hubs to our receiving it"),
    histogram(RECEIVED_TO_DURABLE, &[], "From our receiving it to its durable copy"),
    histogram(EVENTS_PER_WRITE, &[], "How many events one write carried"),
    gauge(IN_FLIGHT_EVENTS, &[], "Events received and not yet completed"),
    gauge(IN_FLIGHT_BYTES, &[], "Bytes of the events received and not yet completed"),
    gauge(
        CHECKPOINT_AGE,
        &["stream", "partition"],
        "For how long the checkpoint has been behind what was received",
    ),
    counter(
        PARTITION_REBUILDS,
        &["stream", "reason"],
        "Connections to a partition that were given up and built anew",
    ),
    gauge(STORE_CONCURRENCY_LIMIT, &[], "Requests to the store that may be in flight at present"),
    gauge(
        TWINS_IN_TROUBLE,
        &[],
        "Twins about whose documents the store gave no answer when it was last asked",
    ),
    gauge(TWINS_FULL, &[], "Twins of which so much waits that the partitions that feed them wait too"),
    counter(MODULE_QUERIES, &["outcome"], "Queries for the modules of a device"),
    counter(EVENTS_REPEATED, &["stream"], "Events received again on a new connection, and passed over"),
    counter(
        EVENTS_LOST,
        &["stream"],
        "Events that can never be received: retention has passed them, or the Event Hub was re-created",
    ),
    counter(MESSAGES_UNDECODABLE, &["stream"], "Messages that are no valid AMQP, skipped"),
    counter(
        DEAD_LETTER_FAILURES,
        &["reason"],
        "Attempts to store a dead letter that failed: throttled or unavailable",
    ),
    counter(
        CHECKPOINT_FAILURES,
        &["stream", "reason"],
        "Checkpoints that could not be written: throttled, where the store asked for less, or unavailable",
    ),
    counter(
        START_DELAYS,
        &["dependency"],
        "Failed tries of a start to reach what it needs: credential, cosmos, checkpoints, dead_letters or eventhubs",
    ),
    gauge(PARTITIONS, &["stream"], "Partitions that the Event Hub has, as far as this replica knows"),
    gauge(
        PARTITIONS_MISSING,
        &["stream"],
        "Partitions that the Event Hub does not name any more; they are kept",
    ),
    counter(PARTITION_DISCOVERY_FAILURES, &["stream"], "Discoveries of partitions that failed"),
    gauge(PARTITIONS_OWNED, &["stream"], "Partitions that this replica owns"),
    counter(TWINS_CORRECTED, &["purpose", "class"], "Documents that differed and say now what the hub says"),
    counter(TWINS_REJECTED, &[], "Twins that the store refuses as the hub has them"),
    counter(
        TWINS_WENT_BACK,
        &[],
        "Repaired twins that the hub had in an earlier state than their documents had seen, as after a failover",
    ),
    counter(
        REPAIRS_GIVEN_UP,
        &[],
        "Repairs given up until the next look for flagged documents: no answer about the twin, while others are answered",
    ),
    gauge(REPAIRS_WAITING, &[], "Flagged twins that wait for their repair in this replica"),
    counter(
        AUDIT_DIFFERENCES,
        &["hub", "class"],
        "Differences that audits found; orphan are documents that nobody updates",
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
        "Request units that this replica may spend per second at present; absent without a cap",
    ),
    gauge(
        AUDIT_UNDECIDED,
        &["hub", "reason"],
        "Twins that the last audit could not compare: they changed too recently, or nobody answered",
    ),
    gauge(AUDIT_COMPLETED, &["hub"], "When the last audit was done, in seconds since the Unix epoch"),
    gauge(
        BACKFILL_TWINS,
        &["hub", "outcome"],
        "Twins that the present backfill, or the last one, has dealt with",
    ),
    counter(
        INVARIANT_VIOLATIONS,
        &["invariant"],
        "Bugs of twinsync: what holds at every moment, and did not",
    ),
    counter(TWINS_STILL_DIFFERENT, &[], "Twins that were repaired and differed again at once"),
    counter(REGISTRY_CALLS, &["call", "outcome", "purpose"], "Calls to the registries of IoT hubs"),
    counter(
        TWIN_READS,
        &["outcome"],
        "Requests for single twins over HTTP; gone are those whose client went away before the answer",
    ),
    gauge(TWIN_WAITERS, &[], "Requests over HTTP that wait for a twin to reach a version"),
    counter(
        TWIN_READS_UNAUTHORIZED,
        &["reason"],
        "Requests for twins that were refused: no_token, or wrong_token, where somebody guesses or has an old one",
    ),
    counter(
        SERVE_REQUESTS,
        &["operation", "outcome"],
        "Requests to IoT Hub's read API (twinsync serve) that showed a right to it",
    ),
    histogram(
        SERVE_REQUEST_SECONDS,
        &["operation"],
        "How long requests to IoT Hub's read API took, until their answer was made",
    ),
    counter(
        SERVE_UNAUTHORIZED,
        &["reason"],
        "Requests to IoT Hub's read API that were refused for want of a right to it",
    ),
    counter(SERVE_ROWS, &[], "Rows of queries that IoT Hub's read API gave"),
    counter(
        SERVE_RENEWAL_FAILURES,
        &["what"],
        "Renewals that failed of what IoT Hub's read API works with: certificate, keys, or lag, which is how far behind the copy is",
    ),
    counter(
        SERVE_HANDSHAKE_FAILURES,
        &[],
        "Connections to IoT Hub's read API that did not come to be: TLS was not agreed on, or took too long",
    ),
    gauge(
        SERVE_LAG_EVENTS,
        &[],
        "Events that the copy is behind, as IoT Hub's read API tells it; NaN where it is not known",
    ),
    gauge(
        SERVE_KEYS_RENEWED,
        &[],
        "When the keys of Entra ID were fetched last, in seconds since the Unix epoch; absent until then",
    ),
    gauge(
        COUNTED_TWINS,
        &["name"],
        "Twins by declared count and group, over all replicas; one label more for each path that the count groups by; absent until it is known",
    ),
    gauge(
        COUNTS_AGE,
        &[],
        "Since the changes of the container were last read to their end for declared counts, or since the start; absent where none are declared",
    ),
    gauge(
        COUNTS_UNREADABLE,
        &[],
        "Documents that count for nothing in declared counts, since nobody can read them; absent where none are declared",
    ),
    counter(COUNTS_CORRECTED, &[], "Twins that a recount has found to be counted wrongly by declared counts"),
    counter(
        COUNTS_READ_FAILURES,
        &[],
        "Looks at the changes of the container, for declared counts, that failed",
    ),
    counter(
        OTLP_SPANS,
        &["outcome"],
        "Spans of traces: exported, dropped for want of room or time, refused by the receiver",
    ),
    counter(OTLP_EXPORT_FAILURES, &[], "Requests to the receiver of traces that failed"),
    gauge(BUILD_INFO, &["version", "revision"], "Always 1; the labels tell which build runs"),
    gauge(RETENTION, &[], "For how long the Event Hubs keep an event, as eventhubs.retention says"),
    gauge(
        TIME_TO_LOSS,
        &["stream", "partition"],
        "Until the oldest event that may not be completed is older than the retention; counted from what is known, so it shrinks while nobody answers",
    ),
    gauge(
        AUDIT_INTERVAL,
        &[],
        "From the beginning of an audit to that of the next, as audit.interval says; absent where no audits are due",
    ),
    gauge(
        MEMORY_LIMIT,
        &[],
        "Memory that the control group (cgroup) of the process may use; absent where there is no limit",
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
        "Time for which a thread that receives events ran tasks; close to one second per second, it is the limit",
    ),
    counter(PROCESS_CPU, &[], "Processor time of the process, user and system"),
    gauge(PROCESS_RESIDENT_MEMORY, &[], "Memory of the process that is in use"),
    gauge(PROCESS_VIRTUAL_MEMORY, &[], "Address space of the process"),
    gauge(PROCESS_OPEN_FDS, &[], "Open file descriptors: files and connections"),
    gauge(PROCESS_MAX_FDS, &[], "File descriptors that may be open; absent where there is no limit"),
    gauge(PROCESS_START_TIME, &[], "When the process began, in seconds since the Unix epoch"),
    gauge(PROCESS_THREADS, &[], "Threads of the process"),
];
