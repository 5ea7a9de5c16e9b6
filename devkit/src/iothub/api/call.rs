//! Which operation a request asks for, and performing it on the hub.

use axum::http::{HeaderMap, Method, StatusCode, header};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use url::form_urlencoded;

use super::{
    answer::Answer,
    faults::Injector,
    query::{Collection, Query, Selection},
};
use crate::iothub::{Operation, Service, ServiceError, TwinId};

/// The versions of the API that clients are known to use.
const API_VERSIONS: [&str; 3] = ["2020-09-30", "2021-04-12", "2024-03-31"];
const DEFAULT_PAGE: usize = 100;
const LARGEST_PAGE: usize = 1_000;
/// Twins that are looked at while the hub is locked.
const CHUNK: usize = 250;

/// Kinds of requests: what is counted, limited and made to fail apart from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    ReadTwin,
    WriteTwin,
    Query,
    Statistics,
    Other,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::ReadTwin => "readTwin",
            Self::WriteTwin => "writeTwin",
            Self::Query => "query",
            Self::Statistics => "statistics",
            Self::Other => "other",
        }
    }
}

/// A request's target, understood.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Read(String, Option<String>),
    Merge(String, Option<String>),
    Replace(String, Option<String>),
    Query,
    Statistics,
    WrongMethod,
    Unknown,
}

/// A request that may be performed.
#[derive(Debug)]
pub(super) struct Call {
    target: Target,
    api_version: Option<String>,
}

impl Call {
    /// `path` as it came, percent-encoded: an id may hold an encoded slash.
    pub(super) fn of(method: &Method, path: &str, query: Option<&str>) -> Self {
        let segments: Vec<String> = path
            .trim_start_matches('/')
            .split('/')
            .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
            .collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let twin = |device: &str, module: Option<&str>| {
            let (device, module) = (device.to_owned(), module.map(str::to_owned));
            match method.as_str() {
                "GET" => Target::Read(device, module),
                "PATCH" => Target::Merge(device, module),
                "PUT" => Target::Replace(device, module),
                _ => Target::WrongMethod,
            }
        };
        let target = match segments.as_slice() {
            ["twins", device] => twin(device, None),
            ["twins", device, "modules", module] => twin(device, Some(module)),
            ["devices", "query"] if *method == Method::POST => Target::Query,
            ["statistics", "devices"] if *method == Method::GET => Target::Statistics,
            ["devices", "query"] | ["statistics", "devices"] => Target::WrongMethod,
            _ => Target::Unknown,
        };
        let parameters = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        let api_version = parameters
            .into_iter()
            .find(|(name, _)| name == "api-version")
            .map(|(_, value)| value.into_owned());
        Self { target, api_version }
    }

    pub(super) fn kind(&self) -> Kind {
        match &self.target {
            Target::Read(..) => Kind::ReadTwin,
            Target::Merge(..) | Target::Replace(..) => Kind::WriteTwin,
            Target::Query => Kind::Query,
            Target::Statistics => Kind::Statistics,
            Target::WrongMethod | Target::Unknown => Kind::Other,
        }
    }

    /// What is wrong with the request's first line, if something is.
    pub(super) fn refusal(&self) -> Option<Answer> {
        match &self.target {
            Target::Unknown => {
                return Some(Answer::problem(
                    StatusCode::NOT_FOUND,
                    "ResourceNotFound",
                    "there is no such path",
                ));
            }
            Target::WrongMethod => {
                let message = "the path does not take this method";
                return Some(Answer::problem(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message));
            }
            Target::Read(..)
            | Target::Merge(..)
            | Target::Replace(..)
            | Target::Query
            | Target::Statistics => {}
        }
        let message = match self.api_version.as_deref() {
            Some(version) if API_VERSIONS.contains(&version) => return None,
            Some(_) => "the api-version is not supported",
            None => "the request has no api-version",
        };
        Some(Answer::problem(StatusCode::BAD_REQUEST, "InvalidProtocolVersion", message))
    }

    pub(super) async fn perform(
        self,
        hub: &Service,
        injector: &Injector,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Answer {
        let performed = match self.target {
            Target::Read(device, module) => read(hub, device, module),
            Target::Merge(device, module) => {
                write(hub, device, module, headers, body, |id, patch| Operation::Patch { id, patch })
            }
            Target::Replace(device, module) => {
                write(hub, device, module, headers, body, |id, twin| Operation::Replace { id, twin })
            }
            Target::Query => query(hub, injector, headers, body).await,
            Target::Statistics => Ok(statistics(hub)),
            Target::WrongMethod | Target::Unknown => Err(Answer::bad_request("there is no such operation")),
        };
        performed.unwrap_or_else(|refusal| refusal)
    }
}

fn twin_id(device: String, module: Option<String>) -> Result<TwinId, Answer> {
    let id = match module {
        None => TwinId::device(device),
        Some(module) => TwinId::module(device, module),
    };
    id.map_err(|error| Answer::refused(&error))
}

fn read(hub: &Service, device: String, module: Option<String>) -> Result<Answer, Answer> {
    let id = twin_id(device, module)?;
    let reading = hub.read(&id);
    let answer = match reading.twin {
        Some((etag, twin)) => Answer::ok(twin).with("etag", format!("\"{etag}\"")),
        None => Answer::refused(&crate::iothub::Error::NotFound(id)),
    };
    Ok(Answer { at: Some(reading.at), ..answer })
}

fn write(
    hub: &Service,
    device: String,
    module: Option<String>,
    headers: &HeaderMap,
    body: &[u8],
    operation: fn(TwinId, Value) -> Operation,
) -> Result<Answer, Answer> {
    let id = twin_id(device.clone(), module.clone())?;
    let body = serde_json::from_slice(body).map_err(|error| Answer::bad_request(&error.to_string()))?;
    let etag = match headers.get(header::IF_MATCH).map(|value| value.to_str()) {
        None | Some(Ok("*")) => None,
        Some(Ok(etag)) => Some(etag.trim_matches('"')),
        Some(Err(_)) => return Err(Answer::bad_request("If-Match is not an etag")),
    };
    match hub.apply_if(&operation(id, body), etag) {
        Ok(_) => read(hub, device, module),
        Err(ServiceError::Refused(error)) => Err(Answer::refused(&error)),
        // The twin is written: what its route says is no concern of the writer.
        Err(ServiceError::NotDelivered(error)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "a twin change could not be delivered");
            read(hub, device, module)
        }
    }
}

fn statistics(hub: &Service) -> Answer {
    let (enabled, disabled) = hub.device_counts();
    Answer::ok(json!({
        "totalDeviceCount": enabled + disabled,
        "enabledDeviceCount": enabled,
        "disabledDeviceCount": disabled,
    }))
}

#[derive(Deserialize)]
struct QueryBody {
    query: String,
}

async fn query(
    hub: &Service,
    injector: &Injector,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Answer, Answer> {
    let QueryBody { query: text } =
        serde_json::from_slice(body).map_err(|error| Answer::bad_request(&error.to_string()))?;
    let query = Query::parse(&text).map_err(|error| Answer::bad_request(&error.to_string()))?;
    let after = match header_text(headers, "x-ms-continuation")? {
        Some(token) => Some(Continuation::decode(token, &text)?),
        None => None,
    };
    let size = page_size(headers)?.min(injector.largest_page());
    match &query.selection {
        selection @ (Selection::Twins | Selection::Columns(_)) => {
            let (twins, last) = matches(hub, injector, &query, after, size).await;
            let answer = match selection {
                Selection::Twins => Answer::ok(Value::Array(twins)).with("x-ms-item-type", "Twin"),
                _ => {
                    let rows = twins.iter().map(|twin| selection.row(twin)).collect();
                    Answer::ok(Value::Array(rows)).with("x-ms-item-type", "Raw")
                }
            };
            Ok(match last {
                Some(last) => answer.with("x-ms-continuation", Continuation::encode(&last, &text)),
                None => answer,
            })
        }
        Selection::Count(name) => {
            let (twins, _) = matches(hub, injector, &query, None, usize::MAX - 1).await;
            Ok(Answer::ok(json!([{ name: twins.len() }])).with("x-ms-item-type", "Raw"))
        }
    }
}

/// Up to `size` twins after `after`, and the last of them if there are more.
async fn matches(
    hub: &Service,
    injector: &Injector,
    query: &Query,
    mut after: Option<TwinId>,
    size: usize,
) -> (Vec<Value>, Option<TwinId>) {
    let wanted = |id: &TwinId| match query.collection {
        Collection::Devices => id.module_id().is_none(),
        Collection::Modules => id.module_id().is_some(),
    };
    let mut found: Vec<Value> = Vec::new();
    let mut last = None;
    loop {
        // One more than the page holds tells whether there is another page.
        let chunk = if query.selects_all() { CHUNK.min(size + 1 - found.len()) } else { CHUNK };
        let view = hub.look(after.as_ref(), chunk, injector.stale_by(), wanted);
        for (id, twin) in view.twins {
            if !query.selects(&twin) {
                continue;
            }
            if found.len() == size {
                return (found, last);
            }
            found.push(twin);
            last = Some(id);
        }
        after = match view.next {
            Some(next) => Some(next),
            None => return (found, None),
        };
        tokio::task::yield_now().await;
    }
}

fn page_size(headers: &HeaderMap) -> Result<usize, Answer> {
    let Some(text) = header_text(headers, "x-ms-max-item-count")? else {
        return Ok(DEFAULT_PAGE);
    };
    match text.parse() {
        Ok(size @ 1..=LARGEST_PAGE) => Ok(size),
        Ok(_) | Err(_) => {
            Err(Answer::bad_request(&format!("x-ms-max-item-count is between 1 and {LARGEST_PAGE}")))
        }
    }
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Answer> {
    let text = headers.get(name).map(|value| value.to_str()).transpose();
    text.map_err(|_| Answer::bad_request(&format!("{name} is not text")))
}

/// Where a walk by id goes on. It names the query that it belongs to.
#[derive(Serialize, Deserialize)]
struct Continuation {
    query: String,
    device: String,
    module: Option<String>,
}

impl Continuation {
    fn encode(last: &TwinId, query: &str) -> String {
        let continuation = Self {
            query: fingerprint(query),
            device: last.device_id().to_owned(),
            module: last.module_id().map(str::to_owned),
        };
        URL_SAFE_NO_PAD.encode(json!(continuation).to_string())
    }

    fn decode(token: &str, query: &str) -> Result<TwinId, Answer> {
        let continuation: Option<Self> =
            URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        match continuation {
            Some(Self { query: of, device, module }) if of == fingerprint(query) => twin_id(device, module),
            Some(_) => Err(Answer::bad_request("the continuation belongs to another query")),
            None => Err(Answer::bad_request("the continuation is not one that the service gave out")),
        }
    }
}

fn fingerprint(query: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(query))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(method: &str, path: &str) -> Target {
        Call::of(&method.parse().unwrap(), path, None).target
    }

    #[test]
    fn ids_are_taken_from_their_segment_and_decoded_once() {
        let read =
            |device: &str, module: Option<&str>| Target::Read(device.to_owned(), module.map(str::to_owned));
        assert_eq!(target("GET", "/twins/odd%231"), read("odd#1", None));
        assert_eq!(target("GET", "/twins/odd%25231"), read("odd%231", None));
        assert_eq!(target("GET", "/twins/a+b"), read("a+b", None));
        assert_eq!(target("GET", "/twins/d/modules/%24edgeHub"), read("d", Some("$edgeHub")));
        assert_eq!(target("GET", "/twins/d%2Fmodules%2Fm"), read("d/modules/m", None));
        assert_eq!(target("DELETE", "/twins/d"), Target::WrongMethod);
        assert_eq!(target("GET", "/devices/query"), Target::WrongMethod);
        assert_eq!(target("GET", "/twins"), Target::Unknown);
    }

    #[test]
    fn a_call_needs_an_api_version_that_is_known() {
        let status =
            |query| Call::of(&Method::GET, "/twins/d", query).refusal().map(|answer| answer.status.as_u16());
        assert_eq!(status(None), Some(400));
        assert_eq!(status(Some("api-version=1999-01-01")), Some(400));
        assert_eq!(status(Some("a=b&api-version=2021-04-12")), None);
    }

    #[test]
    fn a_continuation_goes_on_with_its_own_query_only() {
        let id = TwinId::module("odd#1", "$edgeHub").unwrap();
        let token = Continuation::encode(&id, "SELECT * FROM devices");
        assert_eq!(Continuation::decode(&token, "SELECT * FROM devices").unwrap(), id);
        assert_eq!(Continuation::decode(&token, "SELECT * FROM devices.modules").unwrap_err().status, 400);
        assert_eq!(Continuation::decode("nonsense", "SELECT * FROM devices").unwrap_err().status, 400);
    }
}
