//! The target of a request, from its first line alone.

use std::{collections::BTreeMap, time::Duration};

use axum::http::{HeaderMap, Method};
use percent_encoding::percent_decode_str;
use url::form_urlencoded;

use super::refusal::Refusal;
use crate::{
    config::parse_duration,
    domain::{id::HubName, read_requirement::ReadRequirement},
    runtime::twins::{TwinRequest, WAIT_MAX},
    telemetry::ServedOperation,
};

/// How long a request waits if it has a read requirement but no wait time.
const WAIT_DEFAULT: Duration = Duration::from_secs(5);
/// Maximum length of an id at an IoT hub.
const ID_MAX: usize = 128;
/// Prefix of the headers for read requirements, with `-` for `_`: clients of IoT Hub can add headers more easily than parameters.
const HEADER: &str = "x-twinsync-";
/// Name of the parameter for the wait time.
const WAIT: &str = "wait";

/// The target of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// The twin of a device or module.
    Twin(Id),
    /// The identity of a device.
    Device(String),
    /// A page of a query.
    Query,
    /// A request that is not supported here, with its answer.
    Not(Refusal),
}

/// The id of a twin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Id {
    pub(super) device: String,
    pub(super) module: Option<String>,
}

impl Target {
    /// Parses a request. `path` is as it was sent, percent-encoded: an id may contain an encoded slash. `hub` is the host to name for
    /// requests that are not supported here.
    pub(super) fn of(method: &Method, path: &str, hub: Option<&str>) -> Self {
        let decode =
            |segment: &str| percent_decode_str(segment).decode_utf8().ok().map(|text| text.into_owned());
        let segments: Option<Vec<String>> = path.trim_start_matches('/').split('/').map(decode).collect();
        let Some(segments) = segments else {
            return Self::Not(Refusal::invalid("the path is not percent-encoded UTF-8"));
        };
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let reads = *method == Method::GET || *method == Method::HEAD;
        let id = |device: &str, module: Option<&str>| Id {
            device: device.to_owned(),
            module: module.map(str::to_owned),
        };
        match segments.as_slice() {
            ["twins", device] if reads => Self::Twin(id(device, None)),
            ["twins", device, "modules", module] if reads => Self::Twin(id(device, Some(module))),
            ["devices", "query"] if *method == Method::POST => Self::Query,
            ["devices", "query"] => Self::Not(not_allowed("POST", hub)),
            ["devices", device] if reads && !device.is_empty() => Self::Device((*device).to_owned()),
            ["twins", _] | ["twins", _, "modules", _] | ["devices", _] if !reads => {
                Self::Not(not_allowed("GET", hub))
            }
            [
                "twins" | "devices" | "modules" | "jobs" | "configurations" | "statistics" | "digitaltwins"
                | "messages" | "serviceEndpoint" | "exp",
                ..,
            ] => Self::Not(not_here(hub)),
            _ => Self::Not(Refusal::saying(
                404,
                "ResourceNotFound",
                "there is no such path; the paths are /twins/ID, /twins/ID/modules/ID, /devices/ID and /devices/query",
            )),
        }
    }

    /// The operation under which it is counted.
    pub(super) const fn operation(&self) -> ServedOperation {
        match self {
            Self::Twin(_) => ServedOperation::Twin,
            Self::Device(_) => ServedOperation::Device,
            Self::Query => ServedOperation::Query,
            Self::Not(_) => ServedOperation::Other,
        }
    }
}

/// 405: the hub supports this method on the path.
fn not_allowed(allowed: &str, hub: Option<&str>) -> Refusal {
    let message = format!("this is a read-only copy, which allows {allowed} only: {}", go_to(hub));
    Refusal::saying(405, "MethodNotAllowed", message)
}

/// 501: the hub supports this, and the copy does not.
fn not_here(hub: Option<&str>) -> Refusal {
    let message = format!(
        "this is a copy of twins, which serves /twins/ID, /twins/ID/modules/ID, /devices/ID and /devices/query: {}",
        go_to(hub)
    );
    Refusal::saying(501, "NotImplemented", message)
}

fn go_to(hub: Option<&str>) -> String {
    match hub {
        Some(host) => format!("send everything else to the IoT hub itself, {host}"),
        None => "send everything else to the IoT hub itself".to_owned(),
    }
}

/// The parameters of a request. Each occurs once.
#[derive(Debug)]
pub(super) struct Parameters(BTreeMap<String, String>);

impl Parameters {
    /// Reads them from the URL, and the read requirements also from the headers.
    ///
    /// # Errors
    /// A parameter occurs twice, or is unknown. A misspelled requirement must not become a request that does not wait.
    pub(super) fn read(query: Option<&str>, headers: &HeaderMap) -> Result<Self, Refusal> {
        let mut values = BTreeMap::new();
        let mut put = |name: String, value: String| match values.insert(name.clone(), value) {
            None => Ok(()),
            Some(_) => Err(Refusal::invalid(format!("{name} appears twice"))),
        };
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if name.starts_with("min") && !ReadRequirement::NAMES.contains(&&*name) {
                let known = ReadRequirement::NAMES.join(", ");
                return Err(Refusal::invalid(format!(
                    "there is an unknown condition; the known ones are {known}"
                )));
            }
            put(name.into_owned(), value.into_owned())?;
        }
        for name in ReadRequirement::NAMES.into_iter().chain([WAIT]) {
            let header = format!("{HEADER}{}", name.replace('_', "-"));
            for value in headers.get_all(&header) {
                let value =
                    value.to_str().map_err(|_| Refusal::invalid(format!("{header} is not plain text")))?;
                put(name.to_owned(), value.trim().to_owned())?;
            }
        }
        Ok(Self(values))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Checks that the API version is supported. The versions do not differ in what is read here.
    ///
    /// # Errors
    /// There is no version, or it is not a version.
    pub(super) fn check_api_version(&self) -> Result<(), Refusal> {
        let is_version = |text: &str| {
            let date = text.strip_suffix("-preview").unwrap_or(text);
            let is_date = date.len() == 10
                && date.bytes().enumerate().all(|(place, byte)| match place {
                    4 | 7 => byte == b'-',
                    _ => byte.is_ascii_digit(),
                });
            is_date && *date >= *"2016-11-14"
        };
        match self.get("api-version") {
            Some(text) if is_version(text) => Ok(()),
            Some(_) => Err(Refusal::saying(
                400,
                "InvalidProtocolVersion",
                "the api-version is not supported: write api-version=2021-04-12",
            )),
            None => Err(Refusal::saying(
                400,
                "InvalidProtocolVersion",
                "the request has no api-version: add api-version=2021-04-12",
            )),
        }
    }

    /// The request for a twin.
    ///
    /// # Errors
    /// The id is invalid, or a requirement cannot be parsed.
    pub(super) fn question(&self, id: Id, hub: Option<&HubName>) -> Result<TwinRequest, Refusal> {
        let Id { device, module } = id;
        for (what, id) in [("device id", Some(&device)), ("module id", module.as_ref())] {
            match id.map(|id| id.chars().count()) {
                Some(0) => return Err(Refusal::invalid(format!("the {what} is empty"))),
                Some(length) if length > ID_MAX => {
                    return Err(Refusal::invalid(format!(
                        "the {what} has {length} characters; IoT Hub allows at most {ID_MAX}"
                    )));
                }
                Some(_) | None => {}
            }
        }
        let requirement = ReadRequirement::read(|name| self.get(name)).map_err(Refusal::invalid)?;
        let wait = match self.get(WAIT) {
            Some(_) if !requirement.is_something() => {
                return Err(Refusal::invalid("wait needs something to wait for: add min_version=N"));
            }
            Some(text) => parse_duration(text).ok().filter(|wait| *wait <= WAIT_MAX).ok_or_else(|| {
                let most = WAIT_MAX.as_secs();
                Refusal::invalid(format!("wait is not a duration like 5s or 500ms of at most {most} s"))
            })?,
            None => WAIT_DEFAULT,
        };
        Ok(TwinRequest { hub: hub.cloned(), device, module, requirement, wait, compare: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::twin::TwinVersion;

    fn target(method: &str, path: &str) -> Target {
        Target::of(&method.parse().unwrap(), path, Some("contoso.azure-devices.net"))
    }

    fn twin(device: &str, module: Option<&str>) -> Target {
        Target::Twin(Id { device: device.to_owned(), module: module.map(str::to_owned) })
    }

    #[test]
    fn ids_are_taken_from_their_segment_and_decoded_once() {
        for (path, expected) in [
            ("/twins/odd%231", twin("odd#1", None)),
            ("/twins/odd%25231", twin("odd%231", None)),
            ("/twins/a+b", twin("a+b", None)),
            ("/twins/it's", twin("it's", None)),
            ("/twins/it%27s", twin("it's", None)),
            ("/twins/d/modules/%24edgeHub", twin("d", Some("$edgeHub"))),
            ("/twins/d%2Fmodules%2Fm", twin("d/modules/m", None)),
            ("/devices/d", Target::Device("d".to_owned())),
        ] {
            assert_eq!(target("GET", path), expected, "{path}");
            assert_eq!(target("HEAD", path), expected, "{path}");
        }
        assert_eq!(target("POST", "/devices/query"), Target::Query);
    }

    #[test]
    fn what_is_not_done_here_says_where_to_go() {
        for (method, path, status) in [
            ("PATCH", "/twins/d", 405),
            ("PUT", "/twins/d/modules/m", 405),
            ("DELETE", "/devices/d", 405),
            ("PUT", "/devices/d", 405),
            ("GET", "/devices/query", 405),
            ("POST", "/twins/d/methods", 501),
            ("GET", "/twins/d/desired", 501),
            ("GET", "/devices", 501),
            ("GET", "/devices/d/modules", 501),
            ("GET", "/devices/d/modules/m", 501),
            ("POST", "/devices", 501),
            ("GET", "/jobs/v2/query", 501),
            ("GET", "/statistics/devices", 501),
            ("PUT", "/configurations/c", 501),
        ] {
            match target(method, path) {
                Target::Not(refusal) => {
                    assert_eq!(refusal.status, status, "{method} {path}");
                    assert!(refusal.message.contains("contoso.azure-devices.net"), "{}", refusal.message);
                }
                other => panic!("{method} {path}: {other:?}"),
            }
        }
        for (path, status) in [("/", 404), ("/status", 404), ("/twins/%ff", 400)] {
            let Target::Not(refusal) = target("GET", path) else { panic!("{path}") };
            assert_eq!(refusal.status, status, "{path}");
        }
    }

    fn parameters(query: &str) -> Result<Parameters, Refusal> {
        Parameters::read(Some(query), &HeaderMap::new())
    }

    #[test]
    fn versions_of_the_api_are_dates_since_there_were_twins() {
        for version in ["2016-11-14", "2021-04-12", "2024-03-31", "2020-05-31-preview"] {
            parameters(&format!("api-version={version}")).unwrap().check_api_version().unwrap();
        }
        for query in ["", "api-version=", "api-version=1999-01-01", "api-version=2021-4-12", "api-version=x"]
        {
            let refusal = parameters(query).unwrap().check_api_version().unwrap_err();
            assert_eq!((refusal.status, refusal.code), (400, "InvalidProtocolVersion"), "{query}");
        }
    }

    #[test]
    fn conditions_come_by_parameters_or_headers_and_only_once() {
        let id = || Id { device: "d".to_owned(), module: None };
        let mut headers = HeaderMap::new();
        headers.insert("x-twinsync-min-version", "7".parse().unwrap());
        headers.insert("x-twinsync-wait", "1s".parse().unwrap());
        let by_headers = Parameters::read(Some("api-version=2021-04-12"), &headers).unwrap();
        let by_query = parameters("min_version=7&wait=1s").unwrap();
        for found in [by_headers, by_query] {
            let question = found.question(id(), None).unwrap();
            assert_eq!(question.requirement.version, Some(TwinVersion(7)));
            assert_eq!(question.wait, Duration::from_secs(1));
        }
        let twice = Parameters::read(Some("min_version=7"), &headers).unwrap_err();
        assert!(twice.message.contains("min_version appears twice"), "{}", twice.message);
        for (query, hint) in [
            ("min_verison=1", "the known ones are min_version"),
            ("min_version=x", "min_version is not a whole number"),
            ("wait=5s", "add min_version=N"),
            ("min_version=1&wait=31s", "at most 30 s"),
        ] {
            let error = parameters(query).and_then(|found| found.question(id(), None)).unwrap_err();
            assert!(error.status == 400 && error.message.contains(hint), "{query}: {}", error.message);
        }
        let long = Id { device: "x".repeat(129), module: None };
        let error = parameters("").unwrap().question(long, None).unwrap_err();
        assert!(error.message.contains("allows at most 128"), "{}", error.message);
    }
}
