//! Gives meaning to what was written, or says everything that is wrong with it.
//!
//! Each section is parsed to the end before the first missing value ends it, so that one run reports all
//! problems. Rules that span several keys stand at the end of the section that they restrict.

mod counts;
mod http;
mod otlp;
mod registry;
mod serve;

use std::{
    collections::BTreeMap, net::IpAddr, num::NonZeroU32, ops::RangeInclusive, path::PathBuf, time::Duration,
};

use base64::Engine as _;
use url::{Host, Url};

pub(super) use self::http::listen;
use super::{
    container, human,
    load::{Layers, Sourced},
    problem::{Origin, Problem},
    raw::{self, Raw},
    secret::Secret,
    settings::{
        Blob, Cache, Checkpoint, CheckpointStore, Cosmos, Credential, DeadLetters, Document, EventHubs,
        Identity, IotHub, Lease, LogFormat, OnInvalid, Router, Settings, Shutdown, Start, Starting,
        Telemetry,
    },
};
use crate::domain::{id::DocumentIdScheme, lane::Linger};

/// The most the SDK takes as link credit without the broker refusing it.
const PREFETCH_MAX: u32 = 50_000;

/// Cosmos DB's SDK refuses a shorter end-to-end limit (azure_data_cosmos_driver 1.0.0).
const REQUEST_TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// More than this many requests at once only queue inside the SDK's connections.
const CONCURRENCY_MAX: u32 = 1024;

/// A lease that lasts less than this many renewals is lost by a single slow answer.
const LEASE_INTERVALS_MIN: u32 = 3;

/// Settings without their listing, or the problems.
pub(super) fn settings(raw: &Raw, layers: &Layers) -> (Option<Settings>, Vec<Problem>) {
    let mut check = Check { layers, problems: Vec::new() };
    let refused_grace = check.parse("start.refused_grace", &raw.start.refused_grace, grace);
    let credential = check.credential(&raw.credential);
    let identity = credential.as_ref().map(|credential| &credential.identity);
    let eventhubs = check.eventhubs(&raw.eventhubs, identity);
    let cosmos = check.cosmos(&raw.cosmos, identity);
    let document = check.document(&raw.document, eventhubs.as_ref());
    let router = check.router(&raw.router, document.as_ref());
    let cache = check.parse("cache.max_bytes", &raw.cache.max_bytes, human::parse_size);
    let blob = check.blob(&raw.blob, identity);
    let iothub = check.iothub(&raw.iothub, identity);
    let checkpoint = check.checkpoint(&raw.checkpoint, blob.as_ref(), iothub.as_ref());
    let lease = check.lease(&raw.lease);
    let dead_letters = check.dead_letters(&raw.dead_letters, blob.as_ref());
    let repair = check.repair(&raw.repair);
    let backfill = check.backfill(&raw.backfill, iothub.as_ref());
    let audit = check.audit(&raw.audit);
    let http = check.http(&raw.http);
    let telemetry = check.telemetry(&raw.telemetry);
    let otlp = check.otlp(&raw.otlp);
    let serve = check.serve(&raw.serve, iothub.as_ref());
    let counting = check.counting(raw, iothub.as_ref());
    let drain = check.parse("shutdown.drain_timeout", &raw.shutdown.drain_timeout, bounded_duration);
    let problems = check.problems;
    let settings = (|| {
        Some(Settings {
            eventhubs: eventhubs?,
            start: Starting { refused_grace: refused_grace? },
            credential: credential?,
            cosmos: cosmos?,
            document: document?,
            router: router?,
            cache: Cache { max_bytes: cache? },
            checkpoint: checkpoint?,
            lease: lease?,
            dead_letters: dead_letters?,
            iothub: iothub?,
            repair: repair?,
            backfill: backfill?,
            audit: audit?,
            http: http?,
            telemetry: telemetry?,
            otlp: otlp?,
            serve: serve?,
            counting: counting?,
            shutdown: Shutdown { drain_timeout: drain? },
            effective: Vec::new(),
        })
    })();
    (settings, problems)
}

/// Shorter ones only load the namespace.
const PARTITION_DISCOVERY_INTERVALS: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(30 * 60);

/// The longest that a lease, its renewal or a shutdown may take: longer ones are slips of the finger.
const DURATION_MAX: Duration = Duration::from_secs(3600);

/// Event Hubs keeps events for a day where nobody says otherwise.
const TOMBSTONE_TTL_MIN: Duration = Duration::from_secs(86_400);

/// The retentions that Event Hubs knows: from an hour to the 90 days of Premium and Dedicated.
const RETENTION: RangeInclusive<Duration> = Duration::from_secs(3600)..=Duration::from_secs(90 * 86_400);

/// Collects problems while parsing.
struct Check<'a> {
    layers: &'a Layers,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn eventhubs(&mut self, raw: &raw::EventHubs, identity: Option<&Identity>) -> Option<EventHubs> {
        let namespace = self.parse("eventhubs.namespace", &raw.namespace, namespace);
        let endpoint = self.optional("eventhubs.endpoint", &raw.endpoint, amqp_endpoint);
        let consumer_group = self.parse("eventhubs.consumer_group", &raw.consumer_group, entity_name);
        let prefetch = self.parse("eventhubs.prefetch", &raw.prefetch, |text| count(text, PREFETCH_MAX));
        let open_timeout = self.parse("eventhubs.open_timeout", &raw.open_timeout, positive_duration);
        let stall_timeout = self.parse("eventhubs.stall_timeout", &raw.stall_timeout, positive_duration);
        let retention = self.parse("eventhubs.retention", &raw.retention, retention);
        let partition_discovery_interval = self.parse(
            "eventhubs.partition_discovery_interval",
            &raw.partition_discovery_interval,
            partition_discovery_interval,
        );
        let start = self.parse("eventhubs.start", &raw.start, |text| {
            choice(text, &[("earliest", Start::Earliest), ("latest", Start::Latest)])
        });
        let lifecycle_hub = self.parse("eventhubs.lifecycle.hub", &raw.lifecycle.hub, entity_name);
        let twin_changes_hub = self.parse("eventhubs.twin_changes.hub", &raw.twin_changes.hub, entity_name);

        let plain = endpoint.as_ref()?.as_ref().is_some_and(|endpoint| endpoint.scheme() == "amqp");
        match identity {
            Some(Identity::Emulator { .. }) if endpoint.as_ref()?.is_none() => self.problem(
                "credential.kind",
                "\"emulator\" needs eventhubs.endpoint, e.g. \"amqp://127.0.0.1:5672\": Azure accepts real \
                 identities only",
            ),
            Some(Identity::Emulator { .. }) | None => {}
            Some(_) if plain => self.problem(
                "eventhubs.endpoint",
                "amqp is plain text and would show a real token to the network: use amqps, or credential.kind = \
                 \"emulator\" for an emulator",
            ),
            Some(_) => {}
        }
        Some(EventHubs {
            namespace: namespace?,
            endpoint: endpoint?,
            consumer_group: consumer_group?,
            prefetch: prefetch?,
            open_timeout: open_timeout?,
            stall_timeout: stall_timeout?,
            retention: retention?,
            partition_discovery_interval: partition_discovery_interval?,
            start: start?,
            lifecycle_hub: lifecycle_hub?,
            twin_changes_hub: twin_changes_hub?,
        })
    }

    fn credential(&mut self, raw: &raw::Credential) -> Option<Credential> {
        #[derive(Clone, Copy, PartialEq)]
        enum Kind {
            Auto,
            Workload,
            Managed,
            ClientSecret,
            Cli,
            Emulator,
        }
        let kinds = [
            ("auto", Kind::Auto),
            ("workload", Kind::Workload),
            ("managed", Kind::Managed),
            ("client_secret", Kind::ClientSecret),
            ("cli", Kind::Cli),
            ("emulator", Kind::Emulator),
        ];
        let written = self.parse("credential.kind", &raw.kind, |text| choice(text, &kinds))?;
        let foreign = &self.layers.foreign;
        let or_variable = |text: &str, variable: &str| {
            Some(text.to_owned()).filter(|text| !text.is_empty()).or_else(|| foreign.get(variable).cloned())
        };
        let tenant_id = or_variable(&raw.tenant_id, "AZURE_TENANT_ID");
        let client_id = or_variable(&raw.client_id, "AZURE_CLIENT_ID");
        let client_secret = or_variable(raw.client_secret.expose(), "AZURE_CLIENT_SECRET");
        let token_file = foreign.get("AZURE_FEDERATED_TOKEN_FILE").cloned();
        let kind = match written {
            Kind::Auto if token_file.is_some() => Kind::Workload,
            Kind::Auto if client_secret.is_some() => Kind::ClientSecret,
            Kind::Auto => Kind::Managed,
            kind => kind,
        };
        let missing = |what| format!("is needed for this kind of credential: set it, or {what}");
        let identity = match kind {
            Kind::Auto | Kind::Managed => Identity::Managed { client_id },
            Kind::Workload => {
                let tenant_id = self.present("credential.tenant_id", tenant_id, missing("AZURE_TENANT_ID"));
                let client_id = self.present("credential.client_id", client_id, missing("AZURE_CLIENT_ID"));
                let token_file = self.present(
                    "credential.kind",
                    token_file,
                    "workload identity needs AZURE_FEDERATED_TOKEN_FILE: label the pod with \
                     azure.workload.identity/use: \"true\""
                        .to_owned(),
                );
                Identity::Workload {
                    tenant_id: tenant_id?,
                    client_id: client_id?,
                    token_file: token_file?.into(),
                }
            }
            Kind::ClientSecret => {
                let tenant_id = self.present("credential.tenant_id", tenant_id, missing("AZURE_TENANT_ID"));
                let client_id = self.present("credential.client_id", client_id, missing("AZURE_CLIENT_ID"));
                let client_secret =
                    self.present("credential.client_secret", client_secret, missing("AZURE_CLIENT_SECRET"));
                Identity::ClientSecret {
                    tenant_id: tenant_id?,
                    client_id: client_id?,
                    client_secret: Secret::new(client_secret?),
                }
            }
            Kind::Cli => Identity::Cli { tenant_id },
            Kind::Emulator => {
                let token = Some(raw.token.clone()).filter(|token| !token.is_empty());
                let token = self.present("credential.token", token, "is needed: any text will do".to_owned());
                Identity::Emulator { token: token? }
            }
        };
        Some(Credential { chosen_automatically: written == Kind::Auto, identity })
    }

    fn cosmos(&mut self, raw: &raw::Cosmos, identity: Option<&Identity>) -> Option<Cosmos> {
        let emulator_host = self.layers.foreign.get("AZURE_COSMOS_EMULATOR_HOST").map(String::as_str);
        let local = |endpoint: &Url| is_loopback(endpoint) || endpoint.host_str() == emulator_host;
        let endpoint = self.parse("cosmos.endpoint", &raw.endpoint, |text| cosmos_endpoint(text, local));
        let database = self.parse("cosmos.database", &raw.database, cosmos_name);
        let container = self.parse("cosmos.container", &raw.container, cosmos_name);
        let key = Some(raw.key.clone()).filter(|key| !key.is_empty());
        if let Some(key) = &key
            && base64::engine::general_purpose::STANDARD.decode(key.expose()).is_err()
        {
            self.problem("cosmos.key", "is not base64: copy the whole key from the account's keys page");
        }
        let encoding = self.parse("cosmos.binary_encoding", &raw.binary_encoding, |text| {
            choice(text, &[("auto", None), ("on", Some(true)), ("off", Some(false))])
        });
        let request_timeout = self.parse("cosmos.request_timeout", &raw.request_timeout, |text| {
            human::parse_duration(text).and_then(|limit| match limit >= REQUEST_TIMEOUT_MIN {
                true => Ok(limit),
                false => Err(format!("{text:?} is too short: the SDK's shortest limit is \"1s\"")),
            })
        });
        let max_request_units_per_second =
            self.optional("cosmos.max_request_units_per_second", &raw.max_request_units_per_second, |text| {
                count(text, u32::MAX)
            });
        let concurrency_max =
            self.parse("cosmos.concurrency_max", &raw.concurrency_max, |text| count(text, CONCURRENCY_MAX));

        let endpoint = endpoint?;
        match identity {
            Some(Identity::Emulator { .. }) if key.is_none() && !local(&endpoint) => self.problem(
                "cosmos.key",
                "is needed: the emulator's fixed token means nothing to this account. Set a key, or another \
                 credential.kind",
            ),
            Some(Identity::Emulator { .. }) | None => {}
            Some(_) if key.is_none() && endpoint.scheme() == "http" => self.problem(
                "cosmos.endpoint",
                "http would show a real token to the network: use https, set cosmos.key, or use credential.kind = \
                 \"emulator\"",
            ),
            Some(_) => {}
        }
        Some(Cosmos {
            binary_encoding: encoding?.unwrap_or(!local(&endpoint)),
            endpoint,
            database: database?,
            container: container?,
            key,
            application_region: Some(raw.application_region.clone()).filter(|region| !region.is_empty()),
            write_region: Some(raw.write_region.clone()).filter(|region| !region.is_empty()),
            request_timeout: request_timeout?,
            max_request_units_per_second: max_request_units_per_second?,
            concurrency_max: concurrency_max?,
        })
    }

    fn document(&mut self, raw: &raw::Document, eventhubs: Option<&EventHubs>) -> Option<Document> {
        let id = self.parse("document.id", &raw.id, |text| {
            choice(text, &[("device", DocumentIdScheme::Device), ("hub_device", DocumentIdScheme::HubDevice)])
        });
        let tombstone_ttl = self.parse("document.tombstone_ttl", &raw.tombstone_ttl, time_to_live);
        if let (Some(ttl), Some(eventhubs)) = (tombstone_ttl, eventhubs)
            && ttl <= eventhubs.retention
        {
            self.problem(
                "document.tombstone_ttl",
                format!(
                    "{:?} must be longer than eventhubs.retention, or events that are replayed late bring deleted twins back",
                    raw.tombstone_ttl
                ),
            );
        }
        let max_event_size = self.parse("document.max_event_size", &raw.max_event_size, positive_size);
        Some(Document { id: id?, tombstone_ttl: tombstone_ttl?, max_event_size: max_event_size? })
    }

    fn router(&mut self, raw: &raw::Router, document: Option<&Document>) -> Option<Router> {
        let unbounded = |text: &str| count(text, u32::MAX);
        let events = self.parse("router.max_in_flight_events", &raw.max_in_flight_events, unbounded);
        let bytes = self.parse("router.max_in_flight_bytes", &raw.max_in_flight_bytes, positive_size);
        let linger = self.parse("router.linger", &raw.linger, human::parse_duration);
        let behind = self.parse("router.linger_behind", &raw.linger_behind, human::parse_duration);
        let per_write = self.parse("router.max_events_per_write", &raw.max_events_per_write, unbounded);
        let (key, text) = ("router.max_in_flight_events_per_twin", &raw.max_in_flight_events_per_twin);
        let events_per_twin = self.parse(key, text, unbounded);
        let (key, text) = ("router.max_in_flight_bytes_per_twin", &raw.max_in_flight_bytes_per_twin);
        let bytes_per_twin = self.parse(key, text, positive_size);
        let give_up = self.parse("router.give_up_twin_after", &raw.give_up_twin_after, |text| match text {
            "off" => Ok(None),
            text => positive_duration(text).map(Some),
        });
        if let (Some(bytes), Some(document)) = (bytes, document)
            && bytes < document.max_event_size
        {
            self.problem(
                "router.max_in_flight_bytes",
                "is less than document.max_event_size, so that the largest event would wait for ever: raise it",
            );
        }
        Some(Router {
            max_in_flight_events: events?,
            max_in_flight_bytes: bytes?,
            linger: Linger { always: linger?, behind: behind? },
            max_events_per_write: per_write?,
            max_in_flight_events_per_twin: events_per_twin?,
            max_in_flight_bytes_per_twin: bytes_per_twin?,
            give_up_twin_after: give_up?,
        })
    }

    /// The container: `Some(None)` where none is named, `None` where it is wrong.
    fn blob(&mut self, raw: &raw::Blob, identity: Option<&Identity>) -> Option<Option<Blob>> {
        let api_version = self.optional("blob.api_version", &raw.api_version, container::api_version);
        let url = self.optional("blob.container_url", raw.container_url.expose(), container::url)?;
        let Some(url) = url else {
            return api_version.map(|_| None);
        };
        let signed = url.query().is_some();
        let emulated = matches!(identity, Some(Identity::Emulator { .. }));
        match url.scheme() {
            "http" if !is_loopback(&url) && !emulated => {
                self.problem(
                    "blob.container_url",
                    "http would show the signature to the network: use https; http is for loopback addresses and for \
                     credential.kind = \"emulator\"",
                );
                return None;
            }
            "http" if !signed => {
                self.problem(
                    "blob.container_url",
                    "has no signature, and http would show a real token to the network: append a SAS, or use https",
                );
                return None;
            }
            // An emulator on this machine may well know the text.
            _ if !signed && emulated && !is_loopback(&url) => {
                self.problem(
                    "blob.container_url",
                    "has no signature, and the emulator's fixed token means nothing to this account: append a SAS, or \
                     use another credential.kind",
                );
                return None;
            }
            _ => {}
        }
        Some(Some(Blob { container_url: Secret::new(url), api_version: api_version? }))
    }

    fn lease(&mut self, raw: &raw::Lease) -> Option<Lease> {
        let duration = self.parse("lease.duration", &raw.duration, bounded_duration);
        let renew_interval = self.parse("lease.renew_interval", &raw.renew_interval, bounded_duration);
        let (duration, renew_interval) = (duration?, renew_interval?);
        if duration < renew_interval.saturating_mul(LEASE_INTERVALS_MIN) {
            self.problem(
                "lease.duration",
                format!(
                    "is less than {LEASE_INTERVALS_MIN} times lease.renew_interval, so that one failed renewal could \
                     cost the partition: raise it, or lower the interval"
                ),
            );
            return None;
        }
        Some(Lease { duration, renew_interval })
    }

    fn checkpoint(
        &mut self,
        raw: &raw::Checkpoint,
        blob: Option<&Option<Blob>>,
        iothub: Option<&IotHub>,
    ) -> Option<Checkpoint> {
        #[derive(Clone, Copy)]
        enum Kind {
            Memory,
            File,
            Blob,
        }
        let kinds = [("file", Kind::File), ("memory", Kind::Memory), ("blob", Kind::Blob)];
        let kind = self.parse("checkpoint.store", &raw.store, |text| choice(text, &kinds));
        let interval = self.parse("checkpoint.interval", &raw.interval, positive_duration);
        let policies = [
            ("stop", OnInvalid::Stop),
            ("earliest", OnInvalid::Earliest),
            ("earliest_and_audit", OnInvalid::EarliestAndAudit),
        ];
        let on_invalid = self.parse("checkpoint.on_invalid", &raw.on_invalid, |text| choice(text, &policies));
        if on_invalid == Some(OnInvalid::EarliestAndAudit)
            && iothub.is_some_and(|iothub| !iothub.is_configured())
        {
            self.problem(
                "checkpoint.on_invalid",
                "\"earliest_and_audit\" needs a hub to compare with: set iothub.hosts or iothub.connection_strings, or use \
                 \"earliest\"",
            );
        }
        let store = match kind? {
            Kind::Memory => CheckpointStore::Memory,
            Kind::File => {
                CheckpointStore::File { path: self.parse("checkpoint.path", &raw.path, directory)? }
            }
            Kind::Blob => {
                let message = "is needed for checkpoint.store = \"blob\": write e.g. \
                               \"https://contoso.blob.core.windows.net/twinsync\"";
                CheckpointStore::Blob(self.present(
                    "blob.container_url",
                    blob?.clone(),
                    message.to_owned(),
                )?)
            }
        };
        Some(Checkpoint { store, interval: interval?, on_invalid: on_invalid? })
    }

    fn dead_letters(&mut self, raw: &raw::DeadLetters, blob: Option<&Option<Blob>>) -> Option<DeadLetters> {
        #[derive(Clone, Copy)]
        enum Kind {
            File,
            Blob,
        }
        let kinds = [("file", Kind::File), ("blob", Kind::Blob)];
        match self.parse("dead_letters.store", &raw.store, |text| choice(text, &kinds))? {
            Kind::File => {
                Some(DeadLetters::File { path: self.parse("dead_letters.path", &raw.path, directory)? })
            }
            Kind::Blob => {
                let message = "is needed for dead_letters.store = \"blob\": write e.g. \
                               \"https://contoso.blob.core.windows.net/twinsync\"";
                let blob = self.present("blob.container_url", blob?.clone(), message.to_owned())?;
                Some(DeadLetters::Blob(blob))
            }
        }
    }

    fn telemetry(&mut self, raw: &raw::Telemetry) -> Option<Telemetry> {
        let log_format = self.parse("telemetry.log_format", &raw.log_format, |text| {
            choice(text, &[("text", LogFormat::Text), ("json", LogFormat::Json)])
        });
        let log_filter = self.parse("telemetry.log_filter", &raw.log_filter, |text| {
            if text.trim().is_empty() {
                return Err(
                    "is empty, which would hide all but errors: write e.g. \"info\", or \"off\"".to_owned()
                );
            }
            text.parse::<tracing_subscriber::filter::Targets>()
                .map(|_| text.to_owned())
                .map_err(|error| format!("is not a log filter ({error}): write e.g. \"info,twinsync=debug\""))
        });
        Some(Telemetry { log_format: log_format?, log_filter: log_filter? })
    }

    /// Parses a mandatory value.
    fn parse<T>(
        &mut self,
        key: &str,
        text: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        match parse(text) {
            Ok(value) => Some(value),
            Err(message) => {
                self.problem(key, message);
                None
            }
        }
    }

    /// Parses a value that may be left out: `Some(None)` where it is, `None` where it is wrong.
    fn optional<T>(
        &mut self,
        key: &str,
        text: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Option<T>> {
        if text.is_empty() {
            return Some(None);
        }
        self.parse(key, text, parse).map(Some)
    }

    /// Insists on a value that another choice makes necessary.
    fn present<T>(&mut self, key: &str, value: Option<T>, message: String) -> Option<T> {
        if value.is_none() {
            self.problem(key, message);
        }
        value
    }

    fn problem(&mut self, key: &str, message: impl Into<String>) {
        let values: &BTreeMap<String, Sourced> = &self.layers.values;
        self.problems.push(Problem {
            key: Some(key.to_owned()),
            origin: values.get(key).map_or(Origin::Default, |value| value.origin.clone()),
            message: message.into(),
        });
    }
}

fn required(text: &str) -> Result<(), String> {
    if text.is_empty() { Err("is required and not set".to_owned()) } else { Ok(()) }
}

fn choice<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, String> {
    if let Some((_, value)) = choices.iter().find(|(name, _)| *name == text) {
        return Ok(*value);
    }
    let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    Err(format!("{text:?} is not one of the choices: use {}", names.join(", ")))
}

/// A whole number from 1 to `max`.
fn count(text: &str, max: u32) -> Result<NonZeroU32, String> {
    text.replace('_', "")
        .parse::<NonZeroU32>()
        .ok()
        .filter(|number| number.get() <= max)
        .ok_or_else(|| format!("{text:?} is out of range: give a whole number from 1 to {max}"))
}

fn positive_duration(text: &str) -> Result<Duration, String> {
    human::parse_duration(text).and_then(|duration| match duration.is_zero() {
        true => Err(format!("{text:?} must be longer than nothing")),
        false => Ok(duration),
    })
}

/// Event Hubs keeps events for an hour at least: what lies in a new partition must be found well before.
fn partition_discovery_interval(text: &str) -> Result<Duration, String> {
    human::parse_duration(text).and_then(|interval| match PARTITION_DISCOVERY_INTERVALS.contains(&interval) {
        true => Ok(interval),
        false => Err(format!("{text:?} is out of range: give \"1s\" to \"30m\"")),
    })
}

/// A duration that a person may have to wait for.
fn bounded_duration(text: &str) -> Result<Duration, String> {
    positive_duration(text).and_then(|duration| match duration > DURATION_MAX {
        true => Err(format!("{text:?} is too long: give at most \"1h\"")),
        false => Ok(duration),
    })
}

/// As [`bounded_duration`]; with none, the first refusal is the last.
fn grace(text: &str) -> Result<Duration, String> {
    human::parse_duration(text).and_then(|duration| match duration > DURATION_MAX {
        true => Err(format!("{text:?} is too long: give at most \"1h\"")),
        false => Ok(duration),
    })
}

fn positive_size(text: &str) -> Result<usize, String> {
    human::parse_size(text).and_then(|size| match size {
        0 => Err(format!("{text:?} must be more than nothing")),
        size => Ok(size),
    })
}

/// Cosmos DB's `ttl` is a positive 32-bit number of seconds.
/// From the shortest retention that Event Hubs knows to the longest.
fn retention(text: &str) -> Result<Duration, String> {
    let duration = human::parse_duration(text)?;
    match RETENTION.contains(&duration) {
        true => Ok(duration),
        false => Err(format!("{text:?} is none that Event Hubs knows: give \"1h\" to \"90d\"")),
    }
}

fn time_to_live(text: &str) -> Result<Duration, String> {
    let duration = human::parse_duration(text)?;
    let fits = duration.as_secs() <= i32::MAX as u64 && duration.subsec_nanos() == 0;
    if !fits {
        return Err(format!("{text:?} must be whole seconds, from \"1d\" to \"24855d\""));
    }
    if duration < TOMBSTONE_TTL_MIN {
        return Err(format!(
            "{text:?} is shorter than Event Hubs keeps events, so that late ones would bring deleted twins back: give at \
             least \"1d\", and more than the hub's retention"
        ));
    }
    Ok(duration)
}

fn namespace(text: &str) -> Result<String, String> {
    const EXAMPLE: &str = "write only the host name, e.g. \"contoso.servicebus.windows.net\"";
    required(text).map_err(|message| format!("{message}: {EXAMPLE}"))?;
    let lower = text.to_ascii_lowercase();
    if lower.contains("sharedaccesskey") || lower.starts_with("endpoint=") {
        // Not quoted: it holds a key.
        return Err(format!(
            "is a connection string, which this client cannot use: {EXAMPLE} and see [credential]"
        ));
    }
    if text.contains("://") || text.contains('/') {
        return Err(format!("{text:?} is a URL: {EXAMPLE}"));
    }
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if !text.split('.').all(label) {
        return Err(format!("{text:?} is not a host name: {EXAMPLE}"));
    }
    if !text.contains('.') && text != "localhost" {
        return Err(format!("{text:?} is not fully qualified: write e.g. \"{text}.servicebus.windows.net\""));
    }
    Ok(lower)
}

/// Names of Event Hubs and consumer groups: letters, digits, `.`, `-`, `_`, `$`; at most 256 (Azure resource naming).
fn entity_name(text: &str) -> Result<String, String> {
    required(text)?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_$".contains(&byte);
    if text.len() > 256 || !text.bytes().all(allowed) {
        return Err(format!(
            "{text:?} is not a name: use letters, digits, '.', '-', '_', at most 256 of them"
        ));
    }
    Ok(text.to_owned())
}

/// Names of Cosmos DB databases and containers: no `/ \ ? #`, at most 255.
fn cosmos_name(text: &str) -> Result<String, String> {
    required(text)?;
    if text.len() > 255 || text.contains(['/', '\\', '?', '#']) {
        return Err(format!(
            "{text:?} is not a name: it must have none of / \\ ? # and at most 255 characters"
        ));
    }
    Ok(text.to_owned())
}

fn amqp_endpoint(text: &str) -> Result<Url, String> {
    const EXAMPLE: &str = "write e.g. \"amqp://127.0.0.1:5672\"";
    let url = Url::parse(text).map_err(|error| format!("{text:?} is not a URL ({error}): {EXAMPLE}"))?;
    if !matches!(url.scheme(), "amqp" | "amqps") || url.host_str().is_none_or(str::is_empty) {
        return Err(format!("{text:?} is not an AMQP address: {EXAMPLE}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("holds a user or password: {EXAMPLE} and see [credential]"));
    }
    Ok(url)
}

fn cosmos_endpoint(text: &str, local: impl Fn(&Url) -> bool) -> Result<Url, String> {
    const EXAMPLE: &str = "write e.g. \"https://contoso.documents.azure.com\"";
    required(text).map_err(|message| format!("{message}: {EXAMPLE}"))?;
    if text.to_ascii_lowercase().contains("accountkey=") {
        return Err(format!("is a connection string: {EXAMPLE} and put a key into cosmos.key"));
    }
    // Nothing of the text is repeated before it is known to hold no secret: it may be any URL.
    let url = Url::parse(text).map_err(|error| format!("is not a URL ({error}): {EXAMPLE}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("holds a user or password: {EXAMPLE} and put a key into cosmos.key"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("holds a query or fragment, as a signature would be: {EXAMPLE}"));
    }
    if !matches!(url.path(), "" | "/") {
        return Err(format!("holds a path: {EXAMPLE}; database and container are keys of their own"));
    }
    match (url.scheme(), url.host_str()) {
        ("https" | "http", None | Some("")) => Err(format!("{text:?} names no host: {EXAMPLE}")),
        ("https", Some(_)) => Ok(url),
        ("http", Some(_)) if local(&url) => Ok(url),
        ("http", Some(host)) => Err(format!(
            "{text:?} is not https: {EXAMPLE}; for an emulator on another host set \
             AZURE_COSMOS_EMULATOR_HOST={host} as well"
        )),
        (_, _) => Err(format!("{text:?} is not an https address: {EXAMPLE}")),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    }
}

fn directory(text: &str) -> Result<PathBuf, String> {
    required(text)?;
    if text.contains('\0') { Err("is not a path".to_owned()) } else { Ok(PathBuf::from(text)) }
}
