//! Names of metrics. Prometheus style: `twinsync_<noun>_<unit>[_total]`; few label values, never a device id.

/// Events by what was decided. Labels: `stream`, `decision`.
pub const EVENTS: &str = "twinsync_events_total";
/// Messages that are not ours. Labels: `stream`, `reason`.
pub const IGNORED: &str = "twinsync_events_ignored_total";
/// Messages received. Label: `stream`.
pub const RECEIVED: &str = "twinsync_events_received_total";
/// Messages received again on a new link. Label: `stream`.
pub const REPEATED: &str = "twinsync_events_repeated_total";
/// Messages that the AMQP layer could not decode. Label: `stream`.
pub const UNDECODABLE: &str = "twinsync_events_undecodable_total";
/// Dead letters stored. Label: `reason`.
pub const DEAD_LETTERS: &str = "twinsync_dead_letters_total";
/// Failed attempts to store a dead letter.
pub const DEAD_LETTER_FAILURES: &str = "twinsync_dead_letter_failures_total";
/// Conditional writes by outcome. Labels: `kind`, `outcome`.
pub const WRITES: &str = "twinsync_writes_total";
/// Point reads by outcome. Label: `outcome`.
pub const READS: &str = "twinsync_reads_total";
/// Queries for the modules of a device. Label: `outcome`.
pub const QUERIES: &str = "twinsync_queries_total";
/// Thousandths of request units, since counters are whole. Labels: `purpose`, `operation`.
pub const REQUEST_UNITS: &str = "twinsync_request_milliunits_total";
/// Events per batch of one twin.
pub const EVENTS_PER_BATCH: &str = "twinsync_events_per_batch";
/// Operation in the hub → durable in Cosmos DB.
pub const FRESHNESS: &str = "twinsync_freshness_seconds";
/// Operation in the hub → stored in Event Hubs.
pub const HUB_TO_EVENT_HUB: &str = "twinsync_hub_to_eventhub_seconds";
/// Stored in Event Hubs → received.
pub const EVENT_HUB_TO_RECEIVED: &str = "twinsync_eventhub_to_received_seconds";
/// Received → durable.
pub const RECEIVED_TO_DURABLE: &str = "twinsync_received_to_durable_seconds";
/// Events in the partition that are not durable yet. Labels: `stream`, `partition`.
pub const LAG: &str = "twinsync_lag_events";
/// Time since everything durable was in the checkpoint. Labels: `stream`, `partition`.
pub const CHECKPOINT_AGE: &str = "twinsync_checkpoint_age_seconds";
/// Checkpoints that could not be written. Label: `stream`.
pub const CHECKPOINT_FAILURES: &str = "twinsync_checkpoint_failures_total";
/// Clients rebuilt. Labels: `stream`, `reason`.
pub const REBUILDS: &str = "twinsync_partition_rebuilds_total";
/// Operations on the store allowed at once.
pub const CONCURRENCY: &str = "twinsync_store_concurrency_limit";
/// Attempts put off by the store. Label: `reason`.
pub const STORE_TROUBLE: &str = "twinsync_store_trouble_total";
/// Documents found that are none of ours.
pub const DAMAGED: &str = "twinsync_damaged_documents_total";
/// Events between intake and completion.
pub const IN_FLIGHT_EVENTS: &str = "twinsync_in_flight_events";
/// Bytes between intake and completion.
pub const IN_FLIGHT_BYTES: &str = "twinsync_in_flight_bytes";
