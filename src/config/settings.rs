//! The configuration as meant: durations, sizes, addresses and choices that have been checked.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use url::Url;

use super::{Effective, secret::Secret};
use crate::domain::{
    checks::Signature,
    id::{DocumentIdScheme, HubName},
    lane::Linger,
    query::Declared,
    quota::Tier,
    sampling::Ratio,
    ticks::Ticks,
};

/// Everything the daemon needs to know before it starts. Made by [`Settings::load`] only.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where events come from.
    pub eventhubs: EventHubs,
    /// How patient a start is.
    pub start: Starting,
    /// Who we are towards Azure.
    pub credential: Credential,
    /// Where documents go.
    pub cosmos: Cosmos,
    /// How documents look.
    pub document: Document,
    /// Limits of what is under way.
    pub router: Router,
    /// Memory for recently written documents.
    pub cache: Cache,
    /// Where progress is kept.
    pub checkpoint: Checkpoint,
    /// How replicas share the partitions.
    pub lease: Lease,
    /// Where events go that can never be applied.
    pub dead_letters: DeadLetters,
    /// The IoT hubs that may be asked about their twins.
    pub iothub: IotHub,
    /// How flagged documents are repaired.
    pub repair: Repair,
    /// How twins are copied that were there before the streams.
    pub backfill: Backfill,
    /// How the replica is compared with the hubs.
    pub audit: Audit,
    /// Health and metrics over HTTP.
    pub http: Http,
    /// Logs.
    pub telemetry: Telemetry,
    /// Traces; `None`: off.
    pub otlp: Option<Otlp>,
    /// IoT Hub's read API from the copy; `None`: nobody is allowed to ask.
    pub serve: Option<Serve>,
    /// Counts of twins that are kept.
    pub counting: Counting,
    /// How to stop.
    pub shutdown: Shutdown,
    pub(super) effective: Vec<Effective>,
}

/// Counts of twins that are kept.
#[derive(Debug, Clone)]
pub struct Counting {
    /// What is counted; nothing where it is empty.
    pub declared: Vec<Declared>,
    /// From one look at the changes of the container to the next.
    pub interval: Duration,
    /// How often everything is counted again; `None`: after a start only.
    pub recount_interval: Option<Duration>,
}

/// The Event Hubs namespace and its two streams.
#[derive(Debug, Clone)]
pub struct EventHubs {
    /// Host name of the namespace.
    pub namespace: String,
    /// What to dial instead of the namespace; `amqp` or `amqps`.
    pub endpoint: Option<Url>,
    /// The consumer group.
    pub consumer_group: String,
    /// Events requested ahead per partition.
    pub prefetch: NonZeroU32,
    /// Limit of connecting.
    pub open_timeout: Duration,
    /// How long waiting events may fail to arrive before a connection is built anew.
    pub stall_timeout: Duration,
    /// For how long the Event Hubs keep an event, as far as we were told.
    pub retention: Duration,
    /// How often it is looked whether an Event Hub has got more partitions.
    pub partition_discovery_interval: Duration,
    /// Where to begin without a checkpoint.
    pub start: Start,
    /// The Event Hub with device lifecycle events.
    pub lifecycle_hub: String,
    /// The Event Hub with twin change events; may be the same.
    pub twin_changes_hub: String,
}

impl EventHubs {
    /// The distinct Event Hubs to consume, one or two. Event Hubs compares their names without case.
    pub fn hubs(&self) -> Vec<&str> {
        let mut hubs = vec![self.lifecycle_hub.as_str()];
        if !self.twin_changes_hub.eq_ignore_ascii_case(&self.lifecycle_hub) {
            hubs.push(&self.twin_changes_hub);
        }
        hubs
    }
}

/// How patient a start is.
#[derive(Debug, Clone)]
pub struct Starting {
    /// How long it is endured that we are refused, or that something does not exist.
    pub refused_grace: Duration,
}

/// Where to begin on a partition that has no checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the oldest event still retained.
    Earliest,
    /// After the newest event at the time of the first look.
    Latest,
}

/// The identity, and whether it was chosen by `auto`.
#[derive(Debug, Clone)]
pub struct Credential {
    /// `credential.kind` was `auto`.
    pub chosen_automatically: bool,
    /// Who we are.
    pub identity: Identity,
}

/// Who we are towards Azure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// Kubernetes workload identity.
    Workload {
        /// Directory.
        tenant_id: String,
        /// Application.
        client_id: String,
        /// File with the projected service account token.
        token_file: PathBuf,
    },
    /// Managed identity, a user-assigned one where the client id is given.
    Managed {
        /// The user-assigned identity.
        client_id: Option<String>,
    },
    /// Service principal.
    ClientSecret {
        /// Directory.
        tenant_id: String,
        /// Application.
        client_id: String,
        /// Its secret.
        client_secret: Secret,
    },
    /// Whoever is logged in with the Azure CLI.
    Cli {
        /// Directory, where not the CLI's own default.
        tenant_id: Option<String>,
    },
    /// A fixed text in place of a token.
    Emulator {
        /// The text.
        token: Secret,
    },
}

impl Identity {
    /// Its name, as `credential.kind` has it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Workload { .. } => "workload",
            Self::Managed { .. } => "managed",
            Self::ClientSecret { .. } => "client_secret",
            Self::Cli { .. } => "cli",
            Self::Emulator { .. } => "emulator",
        }
    }
}

/// The Cosmos DB container.
#[derive(Debug, Clone)]
pub struct Cosmos {
    /// Account endpoint.
    pub endpoint: Url,
    /// Database name.
    pub database: String,
    /// Container name.
    pub container: String,
    /// Account key; `None`: the credential.
    pub key: Option<Secret>,
    /// The region we run in.
    pub application_region: Option<String>,
    /// The region that is read and written in, where the account takes writes in several.
    pub write_region: Option<String>,
    /// Whether to use the binary form; `auto` is already resolved.
    pub binary_encoding: bool,
    /// Limit of one operation, at least a second.
    pub request_timeout: Duration,
    /// Cap of our spending, request units per second.
    pub max_request_units_per_second: Option<NonZeroU32>,
    /// Upper bound of requests in flight.
    pub concurrency_max: NonZeroU32,
}

/// How documents look.
#[derive(Debug, Clone)]
pub struct Document {
    /// How ids are made.
    pub id: DocumentIdScheme,
    /// How long tombstones stay; whole seconds that fit Cosmos DB's `ttl`.
    pub tombstone_ttl: Duration,
    /// Largest event body in bytes.
    pub max_event_size: usize,
}

/// Limits of what has been received and is not yet durable.
#[derive(Debug, Clone)]
pub struct Router {
    /// Events.
    pub max_in_flight_events: NonZeroU32,
    /// Bytes; at least one event of the largest size fits.
    pub max_in_flight_bytes: usize,
    /// How long an event waits for more of its twin.
    pub linger: Linger,
    /// Events per write.
    pub max_events_per_write: NonZeroU32,
    /// Events of one twin.
    pub max_in_flight_events_per_twin: NonZeroU32,
    /// Bytes of the events of one twin.
    pub max_in_flight_bytes_per_twin: usize,
    /// How long a twin may be in trouble on its own before its events become dead letters; `None`: for ever.
    pub give_up_twin_after: Option<Duration>,
}

/// Memory for recently written documents.
#[derive(Debug, Clone)]
pub struct Cache {
    /// Bytes; zero: no cache.
    pub max_bytes: usize,
}

/// Where and how often progress is kept.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The store.
    pub store: CheckpointStore,
    /// Shortest time between two writes of one partition.
    pub interval: Duration,
    /// What to do with a checkpoint that does not fit its partition.
    pub on_invalid: OnInvalid,
}

/// A place for progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckpointStore {
    /// Nowhere durable.
    Memory,
    /// A directory that belongs to this process.
    File {
        /// The directory.
        path: PathBuf,
    },
    /// A blob container, for any number of replicas.
    Blob(Blob),
}

/// A container of Azure Blob Storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// The container's URL, without a slash at its end; with a signature (SAS) as its query, which takes the place of
    /// the credential.
    pub container_url: Secret,
    /// Version of the service's API; `None`: the SDK's.
    pub api_version: Option<String>,
}

impl Blob {
    /// When the signature in the URL ends; `None`: there is none, or a stored access policy says when.
    pub fn signature_ends(&self) -> Option<Ticks> {
        let (_, query) = self.container_url.expose().split_once('?')?;
        Signature::of(url::form_urlencoded::parse(query.as_bytes())).ends
    }
}

/// How replicas share the partitions.
#[derive(Debug, Clone)]
pub struct Lease {
    /// How long an ownership lasts that is not renewed; at least three times the interval.
    pub duration: Duration,
    /// How often ownerships are renewed and looked at.
    pub renew_interval: Duration,
}

/// What to do with a checkpoint that does not fit its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnInvalid {
    /// Stop with an error.
    Stop,
    /// Begin again at the oldest retained event.
    Earliest,
    /// The same, and then an audit: what passed unseen is found in the hubs themselves.
    EarliestAndAudit,
}

/// Where dead letters go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadLetters {
    /// One file per dead letter below a directory.
    File {
        /// The directory.
        path: PathBuf,
    },
    /// One blob per dead letter in a container, which may be that of the checkpoints.
    Blob(Blob),
}

/// The IoT hubs that may be asked about their twins, and how much.
#[derive(Debug, Clone)]
pub struct IotHub {
    /// The hubs, each once. None: there is no repair, backfill or audit.
    pub hubs: Vec<Hub>,
    /// The tier of each hub.
    pub tier: Tier,
    /// The units of each hub.
    pub units: NonZeroU32,
    /// The part of each hub's quota for reads that this process may use; more than 0, at most 1.
    pub share: f64,
    /// Whether documents also hold fields of which no event tells.
    pub identity: bool,
    /// Limit of one call.
    pub request_timeout: Duration,
}

impl IotHub {
    /// Whether there is any hub to ask.
    pub fn is_configured(&self) -> bool {
        !self.hubs.is_empty()
    }
}

/// An IoT hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hub {
    /// Its name: the first label of its host.
    pub name: HubName,
    /// Its host name, in lower case.
    pub host: String,
    /// What to dial instead of it; `http` or `https`.
    pub endpoint: Option<Url>,
    /// Who we are towards it.
    pub access: HubAccess,
}

/// Who we are towards an IoT hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HubAccess {
    /// The identity of the process.
    Credential,
    /// A shared access policy of the hub.
    Policy {
        /// Its name.
        name: String,
        /// Its key, in base64.
        key: Secret,
    },
}

/// How flagged documents are repaired. Repair is on wherever a hub is configured.
#[derive(Debug, Clone)]
pub struct Repair {
    /// Repairs under way at most.
    pub concurrency: NonZeroU32,
    /// How often flagged documents are looked for in the store.
    pub scan_interval: Duration,
}

/// How twins are copied that were there before the streams.
#[derive(Debug, Clone)]
pub struct Backfill {
    /// Whether a start begins with it.
    pub on_start: BackfillOnStart,
    /// Twins under way at most.
    pub concurrency: NonZeroU32,
}

/// Whether a start begins with a backfill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackfillOnStart {
    /// On request only.
    Never,
    /// Where the container holds no document.
    IfEmpty,
}

/// How the replica is compared with the hubs.
#[derive(Debug, Clone)]
pub struct Audit {
    /// From the begin of one audit to that of the next; `None`: on request only.
    pub interval: Option<Duration>,
    /// What changed within this time is left alone, but for a part of it.
    pub tolerance: Duration,
    /// Of what changed within the tolerance, so many are asked about in each audit.
    pub recent_checks: NonZeroU32,
    /// Whether differences are repaired, or only reported.
    pub repair: bool,
}

/// Status, health, metrics and twins over HTTP.
#[derive(Debug, Clone)]
pub struct Http {
    /// Address to listen on; `None`: off.
    pub listen: Option<SocketAddr>,
    /// What requests about single twins have to show; `None`: they are all refused.
    pub token: Option<Secret>,
    /// For how long an event may be incomplete before its partition counts as blocked.
    pub blocked_after: Duration,
    /// How long a client may take for the header of a request, and between two requests on one connection.
    pub idle_timeout: Duration,
}

/// Logs.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// Text or JSON.
    pub log_format: LogFormat,
    /// Levels by module, in the notation of [`Targets`](tracing_subscriber::filter::Targets); it has been parsed once.
    pub log_filter: String,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Traces to an OpenTelemetry receiver.
#[derive(Debug, Clone)]
pub struct Otlp {
    /// Where spans are posted, as protobuf.
    pub endpoint: Url,
    /// Sent with each request.
    pub headers: Vec<(String, Secret)>,
    /// The part of all events that is traced whatever becomes of them.
    pub sample_ratio: Ratio,
    /// Events that took longer are traced, too; `None`: how long they took does not matter.
    pub slow_after: Option<Duration>,
    /// What traces call us.
    pub service_name: String,
    /// What else they say of us.
    pub resource_attributes: Vec<(String, String)>,
    /// Whether spans name the device.
    pub device_ids: bool,
    /// Limit of one request, and of the last ones at the end.
    pub timeout: Duration,
    /// Spans that may wait to be sent.
    pub max_queued_spans: NonZeroU32,
}

/// How to stop.
#[derive(Debug, Clone)]
pub struct Shutdown {
    /// Limit of finishing what has been received.
    pub drain_timeout: Duration,
}

/// IoT Hub's service REST API, read only, from the copy.
#[derive(Debug, Clone)]
pub struct Serve {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Who speaks TLS.
    pub encryption: Encryption,
    /// The names by which clients know us, without ports. One at least where there is a policy.
    pub hosts: Vec<String>,
    /// The policies that may read, each once.
    pub policies: Vec<Policy>,
    /// How far ahead the end of a signature may be; `None`: as far as it likes.
    pub max_signature_lifetime: Option<Duration>,
    /// Tokens of Entra ID; `None`: none are accepted.
    pub entra: Option<Entra>,
    /// Whose twins are shown; `None`: those of all hubs in the container.
    pub hub: Option<HubName>,
    /// The host name of that hub, where it is known: what cannot be answered here is asked there.
    pub hub_host: Option<String>,
    /// Whether queries may name fields of which no event tells.
    pub identity_fields: bool,
    /// What one query may take.
    pub max_request_units: NonZeroU32,
    /// How long one query may take.
    pub max_query_time: Duration,
    /// Rows that one query may hold to group or sort them.
    pub max_rows_in_memory: NonZeroU32,
    /// Queries at the same time.
    pub max_concurrent_queries: NonZeroU32,
    /// Request units per second of one caller; `None`: as many as it likes.
    pub max_request_units_per_second: Option<NonZeroU32>,
}

/// Who speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encryption {
    /// We do, by files in PEM.
    Files {
        /// The certificate and what leads to its authority.
        certificate: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
    /// Something in front.
    Ingress,
}

/// A shared access policy that may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// A key, in base64.
    pub primary_key: Secret,
    /// Another one that is good as well.
    pub secondary_key: Option<Secret>,
}

/// Which tokens of Entra ID are accepted, and whom they let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entra {
    /// The tenant's id.
    pub tenant: String,
    /// Where Entra ID is.
    pub authority: Url,
    /// Whom tokens must be for; one at least.
    pub audiences: Vec<String>,
    /// Roles, of which a token must have one.
    pub roles: Vec<String>,
    /// Object ids that need no role.
    pub principals: Vec<String>,
}
