//! The answer about a twin as JSON. `docs/twins.md` describes it. Within one `schema`, fields are only added.

use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::error;
use crate::{
    domain::{
        differences::Difference,
        document::{Document, ETag},
        id::HubName,
        read_requirement::Versions,
        registry::RegistryTwin,
        sync_status::{Presence, SyncStatus},
    },
    runtime::twins::{Answer, Compared, Comparison, Outcome, TwinRequest},
};

/// The schema version of this release.
const SCHEMA: u32 = 1;

/// An answer about a twin. It has the same fields for every outcome.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Twin {
    schema: u32,
    hub: Option<String>,
    device: String,
    module: Option<String>,
    state: State,
    version: Option<i64>,
    desired_version: Option<i64>,
    reported_version: Option<i64>,
    etag: Option<String>,
    waited_seconds: f64,
    error: Option<String>,
    /// Code of the error. `/errors/CODE` explains it.
    code: Option<&'static str>,
    /// The hubs that are possible.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hubs: Vec<String>,
    sync: Option<SyncStatus>,
    #[serde(serialize_with = "as_stored")]
    document: Option<Arc<Document>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comparison: Option<Beside>,
}

/// The state of the twin, in one word.
enum State {
    Known(Presence),
    Absent,
    Unknown,
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Known(presence) => presence.serialize(serializer),
            Self::Absent => serializer.serialize_str("absent"),
            Self::Unknown => serializer.serialize_str("unknown"),
        }
    }
}

/// The hub's twin, compared with the document.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Beside {
    /// `equal`, `missing`, `extra`, `different`, `not_configured` or `unknown`.
    outcome: &'static str,
    text: String,
    at: Option<String>,
    version: Option<i64>,
    twin: Option<Map<String, Value>>,
    differences: Vec<Difference>,
    more_differences: bool,
    retry_after_seconds: Option<f64>,
}

fn as_stored<S: Serializer>(document: &Option<Arc<Document>>, serializer: S) -> Result<S::Ok, S::Error> {
    document.as_deref().serialize(serializer)
}

impl Twin {
    pub(super) fn new(request: &TwinRequest, answer: Answer) -> Self {
        let Answer { hub, outcome, waited, comparison, mended, request_units: _ } = answer;
        let error = error(&outcome);
        let (state, stored) = match &outcome {
            Outcome::Found(stored) | Outcome::Deleted(stored) | Outcome::TimedOut(Some(stored)) => {
                (State::Known(Presence::of(&stored.0)), Some(stored))
            }
            Outcome::Absent(_) | Outcome::TimedOut(None) => (State::Absent, None),
            Outcome::Unavailable(_)
            | Outcome::Busy
            | Outcome::Starting
            | Outcome::Stopping
            | Outcome::WhichHub(_)
            | Outcome::Refused(_) => (State::Unknown, None),
        };
        let hubs = match &outcome {
            Outcome::WhichHub(hubs) => hubs.iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        };
        let document = stored.map(|(document, _)| Arc::clone(document));
        let versions = document.as_deref().and_then(Document::twin).map(Versions::of);
        Self {
            schema: SCHEMA,
            hub: hub.as_ref().map(ToString::to_string),
            device: request.device.clone(),
            module: request.module.clone(),
            state,
            version: versions.map(|versions| versions.twin.0),
            desired_version: versions.and_then(|versions| versions.desired).map(|version| version.0),
            reported_version: versions.and_then(|versions| versions.reported).map(|version| version.0),
            etag: stored.map(|(_, ETag(etag))| etag.clone()),
            waited_seconds: (waited.as_secs_f64() * 1e3).round() / 1e3,
            error,
            code: match &outcome {
                Outcome::Unavailable(trouble) => Some(trouble.code),
                _ => None,
            },
            hubs,
            sync: document.as_deref().map(|document| SyncStatus::of(document, mended)),
            comparison: comparison.map(|found| Beside::new(found, hub.as_ref(), document.as_deref())),
            document,
        }
    }
}

impl Beside {
    fn new(comparison: Comparison, hub: Option<&HubName>, document: Option<&Document>) -> Self {
        let Comparison { at, twin, found } = comparison;
        let version = twin.as_ref().map(|twin| twin.version.0);
        let held = document.and_then(Document::twin).map(|twin| twin.version.0);
        let (outcome, text) = match &found {
            Compared::Equal => ("equal", "The copy equals the twin at the hub.".to_owned()),
            Compared::Missing => (
                "missing",
                "The hub has this twin, and the copy has not: it may just have been created.".to_owned(),
            ),
            Compared::Extra => {
                ("extra", "The hub has no such twin: it may just have been deleted.".to_owned())
            }
            Compared::Different(_) => ("different", different(version, held)),
            Compared::NotConfigured => (
                "not_configured",
                match hub {
                    Some(hub) => format!(
                        "The hub {hub} is not named in [iothub], so it cannot be asked: set iothub.hosts or iothub.connection_strings."
                    ),
                    None => {
                        "No hub is known that could be asked: set iothub.hosts or iothub.connection_strings."
                            .to_owned()
                    }
                },
            ),
            Compared::Unknown { reason, .. } => ("unknown", format!("The hub gave no answer: {reason}.")),
        };
        let retry_after_seconds = match &found {
            Compared::Unknown { retry_after, .. } => retry_after.map(|hint| hint.as_secs_f64()),
            _ => None,
        };
        let differences = match found {
            Compared::Different(differences) => differences,
            _ => Default::default(),
        };
        Self {
            outcome,
            text,
            at: at.map(|at| at.to_string()),
            version,
            twin: twin.map(|twin| body(*twin)),
            differences: differences.found,
            more_differences: differences.more,
            retry_after_seconds,
        }
    }
}

fn different(hub: Option<i64>, held: Option<i64>) -> String {
    match (hub, held) {
        (Some(hub), Some(held)) if hub > held => format!(
            "The hub is at version {hub}, the copy at {held}: changes may be on their way. Ask again in a moment."
        ),
        (Some(hub), Some(held)) if hub < held => format!(
            "The hub is at version {hub}, the copy at {held}: the twin was created anew, or the hub went back after a failover."
        ),
        (Some(_) | None, _) => "The copy and the hub differ at the same version.".to_owned(),
    }
}

/// A twin in the form of the hub's service API.
fn body(twin: RegistryTwin) -> Map<String, Value> {
    let RegistryTwin { key, version, twin, .. } = twin;
    let mut body = Map::new();
    body.insert("deviceId".to_owned(), key.device.into());
    if let Some(module) = key.module {
        body.insert("moduleId".to_owned(), module.into());
    }
    body.extend(twin.root);
    body.insert("version".to_owned(), version.0.into());
    let section = |section: Option<Map<String, Value>>| section.map_or(Value::Null, Value::Object);
    body.insert("tags".to_owned(), section(twin.tags));
    let mut properties = Map::new();
    properties.insert("desired".to_owned(), section(twin.desired));
    properties.insert("reported".to_owned(), section(twin.reported));
    body.insert("properties".to_owned(), properties.into());
    body
}
