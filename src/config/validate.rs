//! Gives meaning to the written values, or reports everything that is wrong with them.
//!
//! Each section is parsed to its end before a missing value makes it fail, so that one run reports all problems. Rules that span several
//! keys are at the end of the section that they restrict.

mod counts;
mod credential;
mod eventhubs;
mod http;
mod otlp;
mod registry;
mod serve;
mod storage;
mod values;

use std::{collections::BTreeMap, time::Duration};

use base64::Engine as _;
use url::Url;

pub(super) use self::http::listen;
use self::values::{
    bounded_duration, choice, cosmos_endpoint, cosmos_name, count, grace, is_loopback, positive_duration,
    positive_size, time_to_live,
};
use super::{
    human,
    load::{Layers, Sourced},
    problem::{Origin, Problem},
    raw::{self, Raw},
    settings::{
        Cache, Cosmos, Document, EventHubs, Identity, LogFormat, Router, Settings, Shutdown, Starting,
        Telemetry,
    },
};
use crate::domain::{id::DocumentIdScheme, lane::Linger};

/// Cosmos DB's SDK refuses a shorter end-to-end limit (azure_data_cosmos_driver 1.0.0).
const REQUEST_TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// More concurrent requests than this only queue inside the SDK's connections.
const CONCURRENCY_MAX: u32 = 1024;

/// The settings without their listing, or the problems.
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

/// Collects the problems that are found while parsing.
struct Check<'a> {
    layers: &'a Layers,
    problems: Vec<Problem>,
}

impl Check<'_> {
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
                "is needed: this account does not accept the emulator's fixed token. Set a key, or another \
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

    /// Parses an optional value: `Some(None)` if it is missing, `None` if it is wrong.
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

    /// Requires a value that another choice makes necessary.
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
