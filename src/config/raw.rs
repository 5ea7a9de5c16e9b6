//! The configuration as written: text per key, before anything is known about its meaning.
//!
//! Every field is text even where a number is meant, so that one wrong value does not hide the others: meaning is
//! given, and validated, in `validate`. The comments in `config/default.toml` are the reference for every key; an
//! empty text means "not set".

use serde::{Deserialize, Serialize};

use super::secret::Secret;

/// All sections.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key, in one place")]
pub struct Raw {
    pub eventhubs: EventHubs,
    pub start: Start,
    pub credential: Credential,
    pub cosmos: Cosmos,
    pub blob: Blob,
    pub document: Document,
    pub router: Router,
    pub cache: Cache,
    pub checkpoint: Checkpoint,
    pub lease: Lease,
    pub dead_letters: DeadLetters,
    pub iothub: IotHub,
    pub repair: Repair,
    pub backfill: Backfill,
    pub audit: Audit,
    pub http: Http,
    pub telemetry: Telemetry,
    pub otlp: Otlp,
    pub serve: Serve,
    pub counting: Counting,
    /// By place in the list. There is none by default, so the defaults do not name its keys.
    #[serde(skip)]
    pub counts: std::collections::BTreeMap<usize, Count>,
    pub shutdown: Shutdown,
}

/// `[eventhubs]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key, in one place")]
pub struct EventHubs {
    pub namespace: String,
    pub endpoint: String,
    pub consumer_group: String,
    pub prefetch: String,
    pub open_timeout: String,
    pub stall_timeout: String,
    pub retention: String,
    pub partition_discovery_interval: String,
    pub start: String,
    pub lifecycle: Stream,
    pub twin_changes: Stream,
}

/// `[eventhubs.lifecycle]`, `[eventhubs.twin_changes]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key, in one place")]
pub struct Stream {
    pub hub: String,
}

/// `[start]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key, in one place")]
pub struct Start {
    pub refused_grace: String,
}

/// `[credential]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key, in one place")]
pub struct Credential {
    pub kind: String,
    pub tenant_id: String,
    pub client_id: String,
    pub client_secret: Secret,
    pub token: Secret,
}

/// `[cosmos]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key, in one place")]
pub struct Cosmos {
    pub endpoint: String,
    pub database: String,
    pub container: String,
    pub key: Secret,
    pub application_region: String,
    pub write_region: String,
    pub binary_encoding: String,
    pub request_timeout: String,
    pub max_request_units_per_second: String,
    pub concurrency_max: String,
}

/// `[blob]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key, in one place")]
pub struct Blob {
    pub container_url: Secret,
    pub api_version: String,
}

/// `[document]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key, in one place")]
pub struct Document {
    pub id: String,
    pub tombstone_ttl: String,
    pub max_event_size: String,
}

/// `[router]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key, in one place")]
pub struct Router {
    pub max_in_flight_events: String,
    pub max_in_flight_bytes: String,
    pub linger: String,
    pub linger_behind: String,
    pub max_events_per_write: String,
    pub max_in_flight_events_per_twin: String,
    pub max_in_flight_bytes_per_twin: String,
    pub give_up_twin_after: String,
}

/// `[cache]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key, in one place")]
pub struct Cache {
    pub max_bytes: String,
}

/// `[checkpoint]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key, in one place")]
pub struct Checkpoint {
    pub store: String,
    pub path: String,
    pub interval: String,
    pub on_invalid: String,
}

/// `[lease]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key, in one place")]
pub struct Lease {
    pub duration: String,
    pub renew_interval: String,
}

/// `[dead_letters]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key, in one place")]
pub struct DeadLetters {
    pub store: String,
    pub path: String,
}

/// `[iothub]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key, in one place")]
pub struct IotHub {
    pub hosts: String,
    pub connection_strings: Secret,
    pub endpoint: String,
    pub tier: String,
    pub units: String,
    pub share: String,
    pub identity: String,
    pub request_timeout: String,
}

/// `[repair]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key, in one place")]
pub struct Repair {
    pub concurrency: String,
    pub scan_interval: String,
}

/// `[backfill]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key, in one place")]
pub struct Backfill {
    pub on_start: String,
    pub concurrency: String,
}

/// `[audit]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key, in one place")]
pub struct Audit {
    pub interval: String,
    pub tolerance: String,
    pub recent_checks: String,
    pub repair: String,
}

/// `[http]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key, in one place")]
pub struct Http {
    pub listen: String,
    pub token: Secret,
    pub token_file: String,
    pub blocked_after: String,
    pub idle_timeout: String,
}

/// `[telemetry]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key, in one place")]
pub struct Telemetry {
    pub log_format: String,
    pub log_filter: String,
}

/// `[otlp]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key, in one place")]
pub struct Otlp {
    pub endpoint: String,
    pub headers: Secret,
    pub sample_ratio: String,
    pub slow_after: String,
    pub service_name: String,
    pub resource_attributes: String,
    pub device_ids: String,
    pub timeout: String,
    pub max_queued_spans: String,
}

/// `[serve]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key, in one place")]
pub struct Serve {
    pub listen: String,
    pub tls: String,
    pub certificate_file: String,
    pub key_file: String,
    pub connection_strings: Secret,
    pub hosts: String,
    pub max_signature_lifetime: String,
    pub hub: String,
    pub identity_fields: String,
    pub entra_tenant: String,
    pub entra_roles: String,
    pub entra_principals: String,
    pub entra_audiences: String,
    pub entra_authority: String,
    pub max_request_units: String,
    pub max_query_time: String,
    pub max_rows_in_memory: String,
    pub max_concurrent_queries: String,
    pub max_request_units_per_second: String,
}

/// `[counting]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key, in one place")]
pub struct Counting {
    pub interval: String,
    pub recount_interval: String,
}

/// One of `[[counts]]`.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "config/default.toml documents every key, in one place")]
pub struct Count {
    pub name: String,
    pub from: String,
    pub condition: String,
    pub group_by: String,
}

/// The list of counts.
pub(super) const COUNTS: &str = "counts";

/// The keys of a count.
pub(super) const COUNT: [&str; 4] = ["name", "from", "where", "group_by"];

/// `[shutdown]`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config/default.toml documents every key, in one place")]
pub struct Shutdown {
    pub drain_timeout: String,
}

/// The one secret of which all but the signature may be shown, once it is known to be a URL.
pub(super) const CONTAINER_URL: &str = "blob.container_url";

/// Keys whose values are never shown. A test holds this list and the `Secret` fields above together.
pub(super) const SECRETS: [&str; 8] = [
    CONTAINER_URL,
    "credential.client_secret",
    "credential.token",
    "cosmos.key",
    "http.token",
    "iothub.connection_strings",
    "otlp.headers",
    "serve.connection_strings",
];

/// Keys whose values are taken as they are written: white space around a token that somebody has to repeat exactly is a slip
/// that would only show as a refusal much later.
pub(super) const VERBATIM: [&str; 1] = ["http.token"];
