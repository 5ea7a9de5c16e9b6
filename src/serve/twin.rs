//! Answers requests for single twins, and for the identity fields in them.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use serde_json::{Map, Value};

use super::refusal::Refusal;
use crate::{
    domain::{
        document::{Document, ETag, Flag},
        rest,
        sync_status::Presence,
    },
    runtime::twins::{Outcome, TwinRequest},
    telemetry::ServedOutcome,
};

/// The part of a document that is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// The twin.
    Twin,
    /// The identity, as far as the twin contains it.
    Identity,
}

/// Turns the outcome of a read into an answer. `headers` are those of the request.
///
/// # Errors
/// There is nothing to show. Holds the answer to send instead and, if a requirement was not met, the present document.
pub(super) fn answer(
    outcome: &Outcome,
    question: &TwinRequest,
    shown: Shown,
    headers: &HeaderMap,
) -> Result<(Response, ServedOutcome), Refused> {
    let (document, etag) = match outcome {
        Outcome::Found((document, etag)) => (document, etag),
        _ => return Err(Refused::new(outcome, question)),
    };
    let twin = rest::twin(document).ok_or_else(|| Refused::not_found(question))?;
    let etag = quoted(etag);
    if is_known(headers, &etag) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        describe(&mut response, document, Some(&etag));
        return Ok((response, ServedOutcome::NotModified));
    }
    let body = match shown {
        Shown::Twin => as_the_hub_shows(twin),
        Shown::Identity => identity(&twin).ok_or_else(Refused::no_identity)?,
    };
    let mut response = json(&body);
    describe(&mut response, document, Some(&etag));
    Ok((response, ServedOutcome::Ok))
}

/// A refused request.
pub(super) struct Refused {
    pub(super) refusal: Refusal,
    pub(super) outcome: ServedOutcome,
    /// The present document, which does not meet the requirement.
    pub(super) present: Option<Arc<Document>>,
}

impl Refused {
    fn not_found(question: &TwinRequest) -> Self {
        let (code, id) = match &question.module {
            None => ("DeviceNotFound", question.device.clone()),
            Some(module) => ("ModuleNotFound", format!("{}/{module}", question.device)),
        };
        let refusal = Refusal::saying(404, code, format!("the copy has no twin of {id}"));
        Self { refusal, outcome: ServedOutcome::NotFound, present: None }
    }

    /// A client would fill in missing fields: Node's client uses `enabled` for a device without a status.
    fn no_identity() -> Self {
        let message = "the copy does not know the identity of this device: no event contains it, and the hub was not \
                       asked about it (twinsync backfill, or audit --repair); ask the IoT hub itself";
        let refusal = Refusal::new(501, "NotImplemented", message);
        Self { refusal, outcome: ServedOutcome::Unsupported, present: None }
    }

    fn new(found: &Outcome, question: &TwinRequest) -> Self {
        let refused = |refusal, outcome| Self { refusal, outcome, present: None };
        match found {
            Outcome::Found(_) | Outcome::Absent(_) | Outcome::Deleted(_) => Self::not_found(question),
            Outcome::TimedOut(present) => {
                let present = present.as_ref().map(|(document, _)| Arc::clone(document));
                let version =
                    present.as_ref().and_then(|document| document.twin()).map(|twin| twin.version.0);
                let has = match version {
                    Some(version) => format!("the copy has version {version} of the twin"),
                    None => "the copy has no such twin yet".to_owned(),
                };
                let message = format!("{has}, and did not reach the requested version in time: ask again");
                let refusal = Refusal::saying(504, "GatewayTimeout", message);
                Self { refusal, outcome: ServedOutcome::TimedOut, present }
            }
            Outcome::Unavailable(trouble) => {
                let (refusal, outcome) = super::trouble(trouble);
                refused(refusal, outcome)
            }
            Outcome::Busy => refused(
                Refusal::throttled(1, "too many requests for twins at the same time: try again"),
                ServedOutcome::Throttled,
            ),
            Outcome::Starting => refused(starting(), ServedOutcome::Unavailable),
            Outcome::Stopping => refused(
                Refusal::unavailable(
                    1,
                    "stopping: another replica answers, or this one when it has started again",
                ),
                ServedOutcome::Unavailable,
            ),
            Outcome::WhichHub(_) => refused(
                Refusal::invalid(
                    "the copy has twins of several IoT hubs with this id: serve.hub must name the hub whose twins are shown",
                ),
                ServedOutcome::Invalid,
            ),
            Outcome::Refused(reason) => refused(
                Refusal::invalid(format!("no twin can have this id: {reason}")),
                ServedOutcome::Invalid,
            ),
        }
    }
}

/// A whole twin in the form of the hub: without `tags` if there are none. Documents always have the field, and conditions are evaluated on
/// the fields of the documents.
pub(super) fn as_the_hub_shows(mut twin: Value) -> Value {
    let has_none = twin.get("tags").and_then(Value::as_object).is_some_and(Map::is_empty);
    if let Some(fields) = twin.as_object_mut().filter(|_| has_none) {
        fields.remove("tags");
    }
    twin
}

/// The answer until the store is connected.
pub(super) fn starting() -> Refusal {
    Refusal::unavailable(1, "starting: the document store is not connected yet")
}

/// A JSON body.
pub(super) fn json(body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// Adds headers about the document itself.
pub(super) fn describe(response: &mut Response, document: &Document, etag: Option<&str>) {
    let state = match Presence::of(document) {
        Presence::Present => "live",
        Presence::Partial => "partial",
        Presence::Deleted => "deleted",
    };
    let flag = |flag: &Flag| match flag {
        Flag::Gap => "gap",
        Flag::Suspect => "suspect",
    };
    let flags = document.flags.iter().map(flag).collect::<Vec<_>>().join(", ");
    let version = document.twin().map(|twin| twin.version.0.to_string());
    let all = [
        ("etag", etag.map(str::to_owned)),
        ("x-twinsync-version", version),
        ("x-twinsync-state", Some(state.to_owned())),
        ("x-twinsync-flags", Some(flags).filter(|flags| !flags.is_empty())),
        ("x-twinsync-changed", Some(document.last.to_string())),
        ("x-twinsync-applied", Some(document.applied_at.to_string())),
        ("x-twinsync-confirmed", document.confirmed_until.map(|until| until.to_string())),
    ];
    for (name, value) in all {
        // None of these values can contain a character that is invalid in a header.
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
}

/// The identity of a device in the form of `GET /devices/{id}`, as far as its twin contains it. `None`: the twin does not even contain
/// whether the device is enabled.
///
/// Names differ from those of the twin where the hub's names do (the `Device` and `Twin` definitions of `api-version=2021-04-12`). Twins
/// contain no keys, so neither does the answer.
fn identity(twin: &Value) -> Option<Value> {
    twin.get("status")?;
    let mut identity = Map::new();
    for (name, field) in [
        ("deviceId", "deviceId"),
        ("etag", "deviceEtag"),
        ("status", "status"),
        ("statusReason", "statusReason"),
        ("statusUpdatedTime", "statusUpdateTime"),
        ("capabilities", "capabilities"),
        ("deviceScope", "deviceScope"),
        ("parentScopes", "parentScopes"),
    ] {
        if let Some(value) = twin.get(field) {
            identity.insert(name.to_owned(), value.clone());
        }
    }
    if let Some(kind) = twin.get("authenticationType") {
        let mut authentication = Map::from_iter([("type".to_owned(), kind.clone())]);
        if let Some(thumbprint) = twin.get("x509Thumbprint") {
            authentication.insert("x509Thumbprint".to_owned(), thumbprint.clone());
        }
        identity.insert("authentication".to_owned(), Value::Object(authentication));
    }
    Some(Value::Object(identity))
}

/// An ETag in the form of a header value.
fn quoted(etag: &ETag) -> String {
    let bare = etag.0.trim_matches('"');
    format!("\"{bare}\"")
}

/// Whether the client already has this version, according to the request. Weak and strong ETags are compared alike (RFC 9110, 13.1.2).
fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut known = values.flat_map(|value| value.split(',')).map(str::trim);
    known.any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == etag)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_etag_is_known_whole_weak_or_in_a_list_and_not_in_part() {
        let etag = quoted(&ETag("\"0a-1\"".to_owned()));
        assert_eq!(etag, quoted(&ETag("0a-1".to_owned())));
        for (value, expected) in [
            ("\"0a-1\"", true),
            ("W/\"0a-1\"", true),
            ("\"x\", \"0a-1\"", true),
            ("*", true),
            ("\"0a-12\"", false),
            ("0a-1", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, value.parse().unwrap());
            assert_eq!(is_known(&headers, &etag), expected, "{value}");
        }
        assert!(!is_known(&HeaderMap::new(), &etag));
    }

    #[test]
    fn empty_tags_are_left_out() {
        let twin = json!({"deviceId": "d", "tags": {}});
        assert_eq!(as_the_hub_shows(twin), json!({"deviceId": "d"}));
        let twin = json!({"deviceId": "d", "tags": {"a": {}}});
        assert_eq!(as_the_hub_shows(twin.clone()), twin);
    }

    #[test]
    fn an_identity_has_what_the_twin_knows_under_the_names_of_identities_and_nothing_else() {
        let twin = json!({
            "deviceId": "d", "etag": "twin's", "deviceEtag": "its own", "status": "disabled", "statusUpdateTime": "2031-01-01T00:00:00Z",
            "authenticationType": "selfSigned", "x509Thumbprint": {"primaryThumbprint": "AB", "secondaryThumbprint": null},
            "capabilities": {"iotEdge": true}, "version": 7, "tags": {"a": 1}, "properties": {},
        });
        assert_eq!(
            identity(&twin),
            Some(json!({
                "deviceId": "d", "etag": "its own", "status": "disabled", "statusUpdatedTime": "2031-01-01T00:00:00Z",
                "authentication": {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": "AB", "secondaryThumbprint": null}},
                "capabilities": {"iotEdge": true},
            }))
        );
        assert_eq!(identity(&json!({"deviceId": "d", "version": 1})), None);
    }
}
