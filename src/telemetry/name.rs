//! Names of all metrics, in one place: dashboards and alerts refer to them.
//!
//! `twinsync_<noun>_<unit>[_total]`, and Prometheus' own names for what every process has. Labels have few values; never a
//! device id. What each of them is, for people and for Prometheus: [`DESCRIPTIONS`].

mod described;

pub use self::described::{DESCRIPTIONS, Description, Kind, described};

/// Events by what was decided about them. Labels: `stream`, `decision`.
pub const EVENTS: &str = "twinsync_events_total";
/// Events that do not concern us. Label: `reason`.
pub const EVENTS_IGNORED: &str = "twinsync_events_ignored_total";
/// Events that can never be applied. Label: `reason`.
pub const DEAD_LETTERS: &str = "twinsync_dead_letters_total";
/// Dead letters that do not tell which twin they are about, so that no document is flagged.
pub const DEAD_LETTERS_WITHOUT_TWIN: &str = "twinsync_dead_letters_without_twin_total";
/// Flagged documents that the store refuses to hold.
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
/// Since the oldest event was received that is not completed. Labels: `stream`, `partition`.
pub const OLDEST_INCOMPLETE_AGE: &str = "twinsync_oldest_incomplete_event_age_seconds";
/// Whether a partition of ours is being received from. Labels: `stream`, `partition`.
pub const PARTITION_UP: &str = "twinsync_partition_up";
/// Whether Cosmos DB answers.
pub const STORE_UP: &str = "twinsync_store_up";
/// Whether the store for dead letters answers; absent until it was asked.
pub const DEAD_LETTER_STORE_UP: &str = "twinsync_dead_letter_store_up";
/// Whether the store for checkpoints answers; absent until it was asked.
pub const CHECKPOINT_STORE_UP: &str = "twinsync_checkpoint_store_up";
/// When what shows a service who we are ends, in seconds since the Unix epoch. Label: `scope`.
pub const TOKEN_EXPIRY: &str = "twinsync_token_expiry_timestamp_seconds";
/// Whether the registry of an IoT hub answers; absent until it was asked. Label: `hub`.
pub const REGISTRY_UP: &str = "twinsync_registry_up";
/// Whether an Event Hub answers how much waits in its partitions; absent until it was asked. Label: `stream`.
pub const EVENTHUB_UP: &str = "twinsync_eventhub_up";
/// How long calls to the registries of IoT hubs took, until an answer or its absence. Label: `call`.
pub const REGISTRY_CALL_SECONDS: &str = "twinsync_registry_call_seconds";
/// Whether the process does its work, as `/readyz` says.
pub const READY: &str = "twinsync_ready";
/// From the hub's operation to its durable copy.
pub const FRESHNESS: &str = "twinsync_freshness_seconds";
/// From the hub's operation to its arrival in Event Hubs.
pub const HUB_TO_EVENTHUB: &str = "twinsync_hub_to_eventhub_seconds";
/// From the arrival in Event Hubs to our receiving it.
pub const EVENTHUB_TO_RECEIVED: &str = "twinsync_eventhub_to_received_seconds";
/// From our receiving it to its durable copy.
pub const RECEIVED_TO_DURABLE: &str = "twinsync_received_to_durable_seconds";
/// How many events one write carried.
pub const EVENTS_PER_WRITE: &str = "twinsync_events_per_write";
/// Events received and not yet completed.
pub const IN_FLIGHT_EVENTS: &str = "twinsync_in_flight_events";
/// Their bytes.
pub const IN_FLIGHT_BYTES: &str = "twinsync_in_flight_bytes";
/// For how long the checkpoint has been behind what was received. Labels: `stream`, `partition`.
pub const CHECKPOINT_AGE: &str = "twinsync_checkpoint_age_seconds";
/// Connections to a partition that were given up and built anew. Labels: `stream`, `reason`.
pub const PARTITION_REBUILDS: &str = "twinsync_partition_rebuilds_total";
/// Requests to the store that may be in flight at present.
pub const STORE_CONCURRENCY_LIMIT: &str = "twinsync_store_concurrency_limit";
/// Twins about whose documents the store gave no answer when it was last asked.
pub const TWINS_IN_TROUBLE: &str = "twinsync_twins_in_trouble";
/// Twins of which so much waits that the partitions that feed them wait too.
pub const TWINS_FULL: &str = "twinsync_twins_full";
/// Queries for the modules of a device. Label: `outcome`, as of reads.
pub const MODULE_QUERIES: &str = "twinsync_module_queries_total";
/// Events received again on a new connection, and passed over. Label: `stream`.
pub const EVENTS_REPEATED: &str = "twinsync_events_repeated_total";
/// Events that can never be received: retention has passed them, or the Event Hub was re-created. Label: `stream`.
pub const EVENTS_LOST: &str = "twinsync_events_lost_total";
/// Messages that are no valid AMQP, skipped. Label: `stream`.
pub const MESSAGES_UNDECODABLE: &str = "twinsync_messages_undecodable_total";
/// Attempts to store a dead letter that failed. Label: `reason`.
pub const DEAD_LETTER_FAILURES: &str = "twinsync_dead_letter_failures_total";
/// Checkpoints that could not be written. Labels: `stream`, `reason`.
pub const CHECKPOINT_FAILURES: &str = "twinsync_checkpoint_failures_total";
/// Failed tries of a start to reach what it needs. Label: `dependency`.
pub const START_DELAYS: &str = "twinsync_start_delays_total";
/// Partitions that the Event Hub has, as far as this replica knows. Label: `stream`.
pub const PARTITIONS: &str = "twinsync_partitions";
/// Partitions that the Event Hub does not name any more. Label: `stream`.
pub const PARTITIONS_MISSING: &str = "twinsync_partitions_missing";
/// Looks for new partitions that failed. Label: `stream`.
pub const PARTITION_DISCOVERY_FAILURES: &str = "twinsync_partition_discovery_failures_total";
/// Partitions that this replica owns. Label: `stream`.
pub const PARTITIONS_OWNED: &str = "twinsync_partitions_owned";
/// Documents that differed and say now what the hub says. Labels: `purpose`, `class`.
pub const TWINS_CORRECTED: &str = "twinsync_twins_corrected_total";
/// Twins that the store refuses as the hub has them.
pub const TWINS_REJECTED: &str = "twinsync_twins_rejected_total";
/// Repaired twins that the hub had in an earlier state than their documents had seen, as after a failover.
pub const TWINS_WENT_BACK: &str = "twinsync_twins_went_back_total";
/// Repairs given up until the next look for flagged documents: no answer about the twin, while others are answered.
pub const REPAIRS_GIVEN_UP: &str = "twinsync_repairs_given_up_total";
/// Flagged twins that wait for their repair in this replica.
pub const REPAIRS_WAITING: &str = "twinsync_repairs_waiting";
/// Differences that audits found. Labels: `hub`, `class`.
pub const AUDIT_DIFFERENCES: &str = "twinsync_audit_differences_total";
/// Differences that the last audit left. Label: `hub`.
pub const AUDIT_DIFFERENCES_LEFT: &str = "twinsync_audit_differences_left";
/// Replicas that are alive, as far as this one sees.
pub const REPLICAS_ALIVE: &str = "twinsync_replicas_alive";
/// The part of each hub's quota for reads that this replica may use.
pub const REGISTRY_SHARE: &str = "twinsync_registry_share";
/// Request units that this replica may spend per second.
pub const REQUEST_UNITS_LIMIT: &str = "twinsync_request_units_per_second_limit";
/// Twins that the last audit could not compare. Labels: `hub`, `reason` (`recent`, `unknown`).
pub const AUDIT_UNDECIDED: &str = "twinsync_audit_undecided_twins";
/// When the last audit was done, in seconds since the Unix epoch. Label: `hub`.
pub const AUDIT_COMPLETED: &str = "twinsync_audit_completed_timestamp_seconds";
/// Twins that the present backfill, or the last one, has dealt with. Labels: `hub`, `outcome`.
pub const BACKFILL_TWINS: &str = "twinsync_backfill_twins";
/// What holds at every moment, and did not. Label: `invariant`.
pub const INVARIANT_VIOLATIONS: &str = "twinsync_invariant_violations_total";
/// Twins that were repaired and differed again at once.
pub const TWINS_STILL_DIFFERENT: &str = "twinsync_twins_still_different_total";
/// Calls to the registries of IoT hubs. Labels: `call`, `outcome`, `purpose`.
pub const REGISTRY_CALLS: &str = "twinsync_registry_calls_total";
/// Requests for single twins over HTTP. Label: `outcome`.
pub const TWIN_READS: &str = "twinsync_twin_reads_total";
/// Requests that wait for a twin at present.
pub const TWIN_WAITERS: &str = "twinsync_twin_waiters";
/// Requests for twins that show no right to them. Label: `reason`.
pub const TWIN_READS_UNAUTHORIZED: &str = "twinsync_twin_reads_unauthorized_total";
/// Requests to IoT Hub's read API that showed a right to it. Labels: `operation`, `outcome`.
pub const SERVE_REQUESTS: &str = "twinsync_serve_requests_total";
/// How long they took, until their answer was made. Label: `operation`.
pub const SERVE_REQUEST_SECONDS: &str = "twinsync_serve_request_seconds";
/// Requests to it that showed none. Label: `reason`.
pub const SERVE_UNAUTHORIZED: &str = "twinsync_serve_unauthorized_total";
/// Rows of queries that were given.
pub const SERVE_ROWS: &str = "twinsync_serve_rows_total";
/// Renewals of what it works with that failed. Label: `what`.
pub const SERVE_RENEWAL_FAILURES: &str = "twinsync_serve_renewal_failures_total";
/// Connections to it that did not come to be.
pub const SERVE_HANDSHAKE_FAILURES: &str = "twinsync_serve_handshake_failures_total";
/// Events that the copy is behind; NaN where that is not known.
pub const SERVE_LAG_EVENTS: &str = "twinsync_serve_lag_events";
/// When the keys of Entra ID were fetched last, in seconds since the Unix epoch.
pub const SERVE_KEYS_RENEWED: &str = "twinsync_serve_keys_renewed_timestamp_seconds";
/// Twins by declared count and group. Labels: `name`, and one for each path that the count groups by.
pub const COUNTED_TWINS: &str = "twinsync_counted_twins";
/// Since the changes of the container were last read to their end; absent where no counts are declared.
pub const COUNTS_AGE: &str = "twinsync_counts_age_seconds";
/// Documents that count for nothing, since nobody can read them.
pub const COUNTS_UNREADABLE: &str = "twinsync_counts_unreadable_documents";
/// Twins that a recount has found to be counted wrongly.
pub const COUNTS_CORRECTED: &str = "twinsync_counts_corrected_twins_total";
/// Looks at the changes of the container that failed.
pub const COUNTS_READ_FAILURES: &str = "twinsync_counts_read_failures_total";
/// Spans of traces by what became of them. Labels: `outcome`.
pub const OTLP_SPANS: &str = "twinsync_otlp_spans_total";
/// Requests to the receiver of traces that failed.
pub const OTLP_EXPORT_FAILURES: &str = "twinsync_otlp_export_failures_total";
/// Always 1. Labels: `version`, `revision`.
pub const BUILD_INFO: &str = "twinsync_build_info";
/// For how long the Event Hubs keep an event, as eventhubs.retention says.
pub const RETENTION: &str = "twinsync_retention_seconds";
/// Until the oldest event that may not be completed is older than the retention; counted from what is known, so it shrinks while nobody answers. Labels: `stream`, `partition`.
pub const TIME_TO_LOSS: &str = "twinsync_time_to_loss_seconds";
/// From the beginning of an audit to that of the next, as audit.interval says; absent where no audits are due.
pub const AUDIT_INTERVAL: &str = "twinsync_audit_interval_seconds";
/// Memory that the control group of the process may use; absent where there is no limit.
pub const MEMORY_LIMIT: &str = "twinsync_memory_limit_bytes";
/// Threads that run tasks.
pub const RUNTIME_WORKERS: &str = "twinsync_runtime_workers";
/// Tasks that are alive.
pub const RUNTIME_TASKS: &str = "twinsync_runtime_tasks";
/// Tasks that are ready and wait for a thread, in the queue that all threads share.
pub const RUNTIME_QUEUED: &str = "twinsync_runtime_queued_tasks";
/// Time for which the threads ran tasks, over all of them.
pub const RUNTIME_BUSY: &str = "twinsync_runtime_busy_seconds_total";
/// Time for which a thread that receives events ran tasks; close to one second per second, it is the limit. Labels: `thread`.
pub const RECEIVE_BUSY: &str = "twinsync_receive_thread_busy_seconds_total";
/// Processor time of the process, user and system.
pub const PROCESS_CPU: &str = "process_cpu_seconds_total";
/// Memory of the process that is in use.
pub const PROCESS_RESIDENT_MEMORY: &str = "process_resident_memory_bytes";
/// Address space of the process.
pub const PROCESS_VIRTUAL_MEMORY: &str = "process_virtual_memory_bytes";
/// Open file descriptors: files and connections.
pub const PROCESS_OPEN_FDS: &str = "process_open_fds";
/// File descriptors that may be open; absent where there is no limit.
pub const PROCESS_MAX_FDS: &str = "process_max_fds";
/// When the process began, in seconds since the Unix epoch.
pub const PROCESS_START_TIME: &str = "process_start_time_seconds";
/// Threads of the process.
pub const PROCESS_THREADS: &str = "process_threads";

/// Upper bounds of the latency buckets in seconds: fine below 100 ms, where the goals lie, coarse up to an hour,
/// where backlogs lie.
pub(super) const LATENCY_BUCKETS: [f64; 25] = [
    0.001, 0.002, 0.003, 0.005, 0.007, 0.010, 0.015, 0.020, 0.030, 0.050, 0.070, 0.100, 0.150, 0.200, 0.300,
    0.500, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0,
];

/// Upper bounds of the buckets for events per write.
pub(super) const COUNT_BUCKETS: [f64; 12] =
    [1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 5000.0];
