//! Finds the operation of a request and performs it on the hub.

use axum::http::{HeaderMap, Method, StatusCode, header};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::{
    answer::{Answer, twin_id},
    faults::Injector,
    kind::Kind,
    pages,
};
use crate::{Operation, Service, ServiceError, TwinId};

/// The API versions that clients are known to use.
const API_VERSIONS: [&str; 3] = ["2020-09-30", "2021-04-12", "2024-03-31"];

/// The operation that a request asks for.
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

/// A parsed request.
#[derive(Debug)]
pub(super) struct Call {
    target: Target,
    api_version: Option<String>,
}

impl Call {
    /// Parses the request line. `path` is still percent-encoded, because an id may contain an encoded slash.
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

    /// Returns the answer for a request whose path, method or API version is not supported.
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
            Target::Query => pages::query(hub, injector, headers, body).await,
            Target::Statistics => Ok(statistics(hub)),
            Target::WrongMethod | Target::Unknown => Err(Answer::bad_request("there is no such operation")),
        };
        performed.unwrap_or_else(|refusal| refusal)
    }
}

fn read(hub: &Service, device: String, module: Option<String>) -> Result<Answer, Answer> {
    let id = twin_id(device, module)?;
    let reading = hub.read(&id);
    let answer = match reading.twin {
        Some((etag, twin)) => Answer::ok(twin).with("etag", format!("\"{etag}\"")),
        None => Answer::refused(&crate::Error::NotFound(id)),
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
        // The twin is written. The writer gets the normal answer even if the route failed.
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
}
