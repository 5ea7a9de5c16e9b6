//! Names of all metrics, in one place: dashboards and alerts refer to them.
//!
//! `twinsync_<noun>_<unit>[_total]`, and Prometheus' own names for the metrics of every process. Labels have few values, and never a device
//! id. [`DESCRIPTIONS`] has the meaning of each metric, for people and for Prometheus.

mod described;

pub use self::described::{DESCRIPTIONS, Description, Kind, described};

/// Events by decision. Labels: `stream`, `decision`.
pub const EVENTS: &str = "twinsync_events_total";
/// Events that do not concern twinsync. Label: `reason`.
pub const EVENTS_IGNORED: &str = "twinsync_events_ignored_total";
/// Events that can never be applied. Label: `reason`.
pub const DEAD_LETTERS: &str = "twinsync_dead_letters_total";
/// Dead letters whose twin is unknown, so that no document is flagged.
pub const DEAD_LETTERS_WITHOUT_TWIN: &str = "twinsync_dead_letters_without_twin_total";
/// Flagged documents that the store refuses.
pub const FLAGS_REJECTED: &str = "twinsync_flags_rejected_total";
/// Attempts to write a document. Labels: `kind`, `outcome`.
pub const WRITES: &str = "twinsync_writes_total";
/// Attempts to read a document. Label: `outcome`.
pub const READS: &str = "twinsync_reads_total";
/// Request units charged by Cosmos DB, fractions included. Label: `purpose`.
pub const REQUEST_UNITS: &str = "twinsync_request_units_total";
/// Events in the partition that are not completed. Labels: `stream`, `partition`.
pub const LAG_EVENTS: &str = "twinsync_lag_events";
/// When the lag was measured, in seconds since the Unix epoch. Labels: `stream`, `partition`.
pub const LAG_MEASURED: &str = "twinsync_lag_measured_timestamp_seconds";
/// Time since the oldest event that is not completed was received. Labels: `stream`, `partition`.
pub const OLDEST_INCOMPLETE_AGE: &str = "twinsync_oldest_incomplete_event_age_seconds";
/// Whether events are received from a partition that this replica owns. Labels: `stream`, `partition`.
pub const PARTITION_UP: &str = "twinsync_partition_up";
/// Whether Cosmos DB answers.
pub const STORE_UP: &str = "twinsync_store_up";
/// Whether the store for dead letters answers. Absent until it was asked.
pub const DEAD_LETTER_STORE_UP: &str = "twinsync_dead_letter_store_up";
/// Whether the store for checkpoints answers. Absent until it was asked.
pub const CHECKPOINT_STORE_UP: &str = "twinsync_checkpoint_store_up";
/// When a credential for a service ends, in seconds since the Unix epoch. Label: `scope`.
pub const TOKEN_EXPIRY: &str = "twinsync_token_expiry_timestamp_seconds";
/// Whether the registry of an IoT hub answers. Absent until it was asked. Label: `hub`.
pub const REGISTRY_UP: &str = "twinsync_registry_up";
/// Whether an Event Hub answers the measurement of its lag. Absent until it was asked. Label: `stream`.
pub const EVENTHUB_UP: &str = "twinsync_eventhub_up";
/// How long calls to the registries of IoT hubs took, until an answer or a timeout. Label: `call`.
pub const REGISTRY_CALL_SECONDS: &str = "twinsync_registry_call_seconds";
/// Whether the process is ready, as `/readyz` says.
pub const READY: &str = "twinsync_ready";
/// Seconds from the hub's operation to its durable copy.
pub const FRESHNESS: &str = "twinsync_freshness_seconds";
/// Seconds from the hub's operation to its arrival in Event Hubs.
pub const HUB_TO_EVENTHUB: &str = "twinsync_hub_to_eventhub_seconds";
/// Seconds from the arrival in Event Hubs until this process received it.
pub const EVENTHUB_TO_RECEIVED: &str = "twinsync_eventhub_to_received_seconds";
/// Seconds from receiving an event to its durable copy.
pub const RECEIVED_TO_DURABLE: &str = "twinsync_received_to_durable_seconds";
/// How many events one write carried.
pub const EVENTS_PER_WRITE: &str = "twinsync_events_per_write";
/// Events that are received and not yet completed.
pub const IN_FLIGHT_EVENTS: &str = "twinsync_in_flight_events";
/// Bytes of these events.
pub const IN_FLIGHT_BYTES: &str = "twinsync_in_flight_bytes";
/// Bytes of the documents that are kept for the next write of their twin.
pub const CACHE_BYTES: &str = "twinsync_cache_bytes";
/// How long the checkpoint has lagged behind the completed events. Labels: `stream`, `partition`.
pub const CHECKPOINT_AGE: &str = "twinsync_checkpoint_age_seconds";
/// Connections to a partition that were given up and rebuilt. Labels: `stream`, `reason`.
pub const PARTITION_REBUILDS: &str = "twinsync_partition_rebuilds_total";
/// Requests to the store that may be in flight at present.
pub const STORE_CONCURRENCY_LIMIT: &str = "twinsync_store_concurrency_limit";
/// Twins for which the store gave no answer at its last call.
pub const TWINS_IN_TROUBLE: &str = "twinsync_twins_in_trouble";
/// Twins with so many waiting events that the partitions that deliver them wait too.
pub const TWINS_FULL: &str = "twinsync_twins_full";
/// Queries for the modules of a device. Label: `outcome`, as of reads.
pub const MODULE_QUERIES: &str = "twinsync_module_queries_total";
/// Events that were received again on a new connection, and skipped. Label: `stream`.
pub const EVENTS_REPEATED: &str = "twinsync_events_repeated_total";
/// Events that can never be received: retention has passed them, or the Event Hub was re-created. Label: `stream`.
pub const EVENTS_LOST: &str = "twinsync_events_lost_total";
/// Messages that are not valid AMQP, skipped. Label: `stream`.
pub const MESSAGES_UNDECODABLE: &str = "twinsync_messages_undecodable_total";
/// Attempts to store a dead letter that failed. Label: `reason`.
pub const DEAD_LETTER_FAILURES: &str = "twinsync_dead_letter_failures_total";
/// Checkpoints that could not be written. Labels: `stream`, `reason`.
pub const CHECKPOINT_FAILURES: &str = "twinsync_checkpoint_failures_total";
/// Failed tries of a start to reach what it needs. Label: `dependency`.
pub const START_DELAYS: &str = "twinsync_start_delays_total";
/// Partitions that the Event Hub has, as far as this replica knows. Label: `stream`.
pub const PARTITIONS: &str = "twinsync_partitions";
/// Partitions that the Event Hub no longer lists. Label: `stream`.
pub const PARTITIONS_MISSING: &str = "twinsync_partitions_missing";
/// Partition discoveries that failed. Label: `stream`.
pub const PARTITION_DISCOVERY_FAILURES: &str = "twinsync_partition_discovery_failures_total";
/// Partitions that this replica owns. Label: `stream`.
pub const PARTITIONS_OWNED: &str = "twinsync_partitions_owned";
/// Documents that differed and were corrected. Labels: `purpose`, `class`.
pub const TWINS_CORRECTED: &str = "twinsync_twins_corrected_total";
/// Twins that the store refuses in the state that the hub has.
pub const TWINS_REJECTED: &str = "twinsync_twins_rejected_total";
/// Repaired twins that the hub had in an earlier state than their documents, as after a failover.
pub const TWINS_WENT_BACK: &str = "twinsync_twins_went_back_total";
/// Repairs that were given up until the next scan for flagged documents: no answer about the twin, while others are answered.
pub const REPAIRS_GIVEN_UP: &str = "twinsync_repairs_given_up_total";
/// Flagged twins that wait for their repair in this replica.
pub const REPAIRS_WAITING: &str = "twinsync_repairs_waiting";
/// Differences that audits found. Labels: `hub`, `class`.
pub const AUDIT_DIFFERENCES: &str = "twinsync_audit_differences_total";
/// Differences that the last audit left. Label: `hub`.
pub const AUDIT_DIFFERENCES_LEFT: &str = "twinsync_audit_differences_left";
/// Replicas that are alive, as far as this replica knows.
pub const REPLICAS_ALIVE: &str = "twinsync_replicas_alive";
/// The part of each hub's quota for reads that this replica may use.
pub const REGISTRY_SHARE: &str = "twinsync_registry_share";
/// Request units that this replica may spend per second.
pub const REQUEST_UNITS_LIMIT: &str = "twinsync_request_units_per_second_limit";
/// Twins that the last audit could not compare. Labels: `hub`, `reason` (`recent`, `unknown`).
pub const AUDIT_UNDECIDED: &str = "twinsync_audit_undecided_twins";
/// When the last audit was done, in seconds since the Unix epoch. Label: `hub`.
pub const AUDIT_COMPLETED: &str = "twinsync_audit_completed_timestamp_seconds";
/// Twins that the present backfill, or the last one, has processed. Labels: `hub`, `outcome`.
pub const BACKFILL_TWINS: &str = "twinsync_backfill_twins";
/// Invariants that did not hold. Label: `invariant`.
pub const INVARIANT_VIOLATIONS: &str = "twinsync_invariant_violations_total";
/// Twins that were repaired and differed again at once.
pub const TWINS_STILL_DIFFERENT: &str = "twinsync_twins_still_different_total";
/// Calls to the registries of IoT hubs. Labels: `call`, `outcome`, `purpose`.
pub const REGISTRY_CALLS: &str = "twinsync_registry_calls_total";
/// Requests for single twins over HTTP. Label: `outcome`.
pub const TWIN_READS: &str = "twinsync_twin_reads_total";
/// Requests that wait for a twin at present.
pub const TWIN_WAITERS: &str = "twinsync_twin_waiters";
/// Requests for twins that were refused as unauthorized. Label: `reason`.
pub const TWIN_READS_UNAUTHORIZED: &str = "twinsync_twin_reads_unauthorized_total";
/// Authorized requests to IoT Hub's read API. Labels: `operation`, `outcome`.
pub const SERVE_REQUESTS: &str = "twinsync_serve_requests_total";
/// How long these requests took, until the answer was ready. Label: `operation`.
pub const SERVE_REQUEST_SECONDS: &str = "twinsync_serve_request_seconds";
/// Unauthorized requests to IoT Hub's read API. Label: `reason`.
pub const SERVE_UNAUTHORIZED: &str = "twinsync_serve_unauthorized_total";
/// Rows of queries that were returned.
pub const SERVE_ROWS: &str = "twinsync_serve_rows_total";
/// Failed renewals of the certificate, the keys or the measured lag. Label: `what`.
pub const SERVE_RENEWAL_FAILURES: &str = "twinsync_serve_renewal_failures_total";
/// Connections whose TLS handshake failed.
pub const SERVE_HANDSHAKE_FAILURES: &str = "twinsync_serve_handshake_failures_total";
/// Lag of the copy in events. NaN if it is unknown.
pub const SERVE_LAG_EVENTS: &str = "twinsync_serve_lag_events";
/// When the keys of Entra ID were last fetched, in seconds since the Unix epoch.
pub const SERVE_KEYS_RENEWED: &str = "twinsync_serve_keys_renewed_timestamp_seconds";
/// Twins by declared count and group. Labels: `name`, and one for each path that the count groups by.
pub const COUNTED_TWINS: &str = "twinsync_counted_twins";
/// Time since the change feed was last read to its end. Absent if no counts are declared.
pub const COUNTS_AGE: &str = "twinsync_counts_age_seconds";
/// Documents that are not counted because they are unreadable.
pub const COUNTS_UNREADABLE: &str = "twinsync_counts_unreadable_documents";
/// Twins that were counted wrongly, as a recount shows.
pub const COUNTS_CORRECTED: &str = "twinsync_counts_corrected_twins_total";
/// Failed reads of the change feed.
pub const COUNTS_READ_FAILURES: &str = "twinsync_counts_read_failures_total";
/// Spans of traces by outcome. Labels: `outcome`.
pub const OTLP_SPANS: &str = "twinsync_otlp_spans_total";
/// Requests to the receiver of traces that failed.
pub const OTLP_EXPORT_FAILURES: &str = "twinsync_otlp_export_failures_total";
/// Always 1. Labels: `version`, `revision`.
pub const BUILD_INFO: &str = "twinsync_build_info";
/// Retention of the Event Hubs, from eventhubs.retention.
pub const RETENTION: &str = "twinsync_retention_seconds";
/// Time until the oldest event that may not be completed is older than the retention. Computed from the last known state, so it shrinks
/// while there is no answer. Labels: `stream`, `partition`.
pub const TIME_TO_LOSS: &str = "twinsync_time_to_loss_seconds";
/// Time from the start of an audit to the start of the next, from audit.interval. Absent if no audits are due.
pub const AUDIT_INTERVAL: &str = "twinsync_audit_interval_seconds";
/// Memory limit of the control group of the process. Absent if there is no limit.
pub const MEMORY_LIMIT: &str = "twinsync_memory_limit_bytes";
/// Threads that run tasks.
pub const RUNTIME_WORKERS: &str = "twinsync_runtime_workers";
/// Tasks that are alive.
pub const RUNTIME_TASKS: &str = "twinsync_runtime_tasks";
/// Tasks that are ready and wait for a thread, in the queue that all threads share.
pub const RUNTIME_QUEUED: &str = "twinsync_runtime_queued_tasks";
/// Time during which the threads ran tasks, summed over all threads.
pub const RUNTIME_BUSY: &str = "twinsync_runtime_busy_seconds_total";
/// Time during which a thread that receives events ran tasks. Close to one second per second, the thread is at its limit. Labels: `thread`.
pub const RECEIVE_BUSY: &str = "twinsync_receive_thread_busy_seconds_total";
/// Processor time of the process, user and system.
pub const PROCESS_CPU: &str = "process_cpu_seconds_total";
/// Memory of the process that is in use.
pub const PROCESS_RESIDENT_MEMORY: &str = "process_resident_memory_bytes";
/// Address space of the process.
pub const PROCESS_VIRTUAL_MEMORY: &str = "process_virtual_memory_bytes";
/// Open file descriptors: files and connections.
pub const PROCESS_OPEN_FDS: &str = "process_open_fds";
/// Maximum number of open file descriptors. Absent if there is no limit.
pub const PROCESS_MAX_FDS: &str = "process_max_fds";
/// When the process began, in seconds since the Unix epoch.
pub const PROCESS_START_TIME: &str = "process_start_time_seconds";
/// Threads of the process.
pub const PROCESS_THREADS: &str = "process_threads";

/// Upper bounds of the latency buckets, in seconds: fine below 100 ms, for the targets, and coarse up to an hour, for backlogs.
pub(super) const LATENCY_BUCKETS: [f64; 25] = [
    0.001, 0.002, 0.003, 0.005, 0.007, 0.010, 0.015, 0.020, 0.030, 0.050, 0.070, 0.100, 0.150, 0.200, 0.300,
    0.500, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0,
];

/// Upper bounds of the buckets for events per write.
pub(super) const COUNT_BUCKETS: [f64; 12] =
    [1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 5000.0];
