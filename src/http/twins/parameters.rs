//! Parses a request for a twin: its path and its parameters.

use std::{collections::BTreeMap, time::Duration};

use url::form_urlencoded;

use crate::{
    config::parse_duration,
    domain::read_requirement::ReadRequirement,
    runtime::twins::{TwinRequest, WAIT_MAX},
};

/// All valid parameters.
const PARAMETERS: [&str; 8] = [
    "hub",
    "compare",
    "min_version",
    "min_desired_version",
    "min_reported_version",
    "min_time",
    "unflagged",
    "wait",
];
/// How long a request waits if it has a read requirement but no wait time.
const WAIT_DEFAULT: Duration = Duration::from_secs(5);
/// Maximum length of an id at an IoT hub.
const ID_MAX: usize = 128;

/// The id in the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Id {
    /// Id of a device.
    Device(String),
    /// Ids of a device and its module.
    Module(String, String),
    /// No id: it is in the parameters.
    InQuery,
    /// The path is not valid text.
    Unreadable,
}

/// Parses a request.
///
/// # Errors
/// One sentence that says what to write. It never contains a value, because a value may be a token that was put there by mistake.
pub(super) fn request(id: Id, query: &str) -> Result<TwinRequest, String> {
    let known = |name: &str| {
        PARAMETERS.contains(&name) || (id == Id::InQuery && ["device", "module"].contains(&name))
    };
    let mut values = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if !known(&name) {
            let what = match id {
                Id::InQuery => format!("device, module, {}", PARAMETERS.join(", ")),
                Id::Device(_) | Id::Module(..) | Id::Unreadable => PARAMETERS.join(", "),
            };
            return Err(format!("there is an unknown parameter; the known ones are {what}"));
        }
        if value.contains('\u{FFFD}') {
            return Err(format!("{name} is not percent-encoded UTF-8"));
        }
        if values.insert(name.clone().into_owned(), value.into_owned()).is_some() {
            return Err(format!("{name} appears twice"));
        }
    }
    let (device, module) = match id {
        Id::Device(device) => (device, None),
        Id::Module(device, module) => (device, Some(module)),
        Id::InQuery => {
            let device = values.remove("device");
            let which = "say which twin: /api/twins/DEVICE, /api/twins/DEVICE/modules/MODULE, or /api/twins?device=DEVICE";
            (device.ok_or(which)?, values.remove("module"))
        }
        Id::Unreadable => return Err("the id in the path is not percent-encoded UTF-8".to_owned()),
    };
    for (what, id) in [("the device id", Some(&device)), ("the module id", module.as_ref())] {
        match id.map(|id| id.chars().count()) {
            Some(0) => return Err(format!("{what} is empty")),
            Some(length) if length > ID_MAX => {
                return Err(format!("{what} has {length} characters; IoT Hub allows at most {ID_MAX}"));
            }
            Some(_) | None => {}
        }
    }
    let hub = match values.get("hub").map(|hub| hub.trim()) {
        Some("") => return Err("hub is empty: write the name of an IoT hub, or leave it out".to_owned()),
        // The first label of the host name is the name of the hub.
        Some(hub) => hub.split('.').next().map(Into::into),
        None => None,
    };
    let yes = |name: &str| match values.get(name).map(String::as_str) {
        Some("true") => Ok(true),
        Some("false") | None => Ok(false),
        Some(_) => Err(format!("{name} is neither true nor false")),
    };
    let requirement = ReadRequirement::read(|name| values.get(name).map(String::as_str))?;
    let compare = yes("compare")?;
    let wait = match values.get("wait") {
        Some(_) if !requirement.is_something() => {
            return Err("wait needs something to wait for: add min_version=N".to_owned());
        }
        Some(text) => parse_duration(text).ok().filter(|wait| *wait <= WAIT_MAX).ok_or_else(|| {
            format!("wait is not a duration like 5s or 500ms of at most {} s", WAIT_MAX.as_secs())
        })?,
        None => WAIT_DEFAULT,
    };
    Ok(TwinRequest { hub, device, module, requirement, wait, compare })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ticks::Ticks, twin::TwinVersion};

    fn asked(query: &str) -> TwinRequest {
        request(Id::Device("d".into()), query).unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    #[test]
    fn nothing_but_a_path_asks_for_the_document_as_it_is() {
        let TwinRequest { hub, device, module, requirement, compare, .. } = asked("");
        assert_eq!((hub, device.as_str(), module, compare), (None, "d", None, false));
        assert!(!requirement.is_something());
    }

    #[test]
    fn every_parameter_is_understood() {
        let query = "hub=Contoso.azure-devices.net&min_version=7&min_desired_version=3&min_reported_version=0\
                     &min_time=2031-01-31T08:00:00Z&unflagged=true&wait=500ms&compare=true";
        let TwinRequest { hub, requirement, wait, compare, .. } = asked(query);
        assert_eq!(hub.map(|hub| hub.to_string()).as_deref(), Some("contoso"));
        let expected = ReadRequirement {
            version: Some(TwinVersion(7)),
            desired: Some(TwinVersion(3)),
            reported: Some(TwinVersion(0)),
            changed: Ticks::parse("2031-01-31T08:00:00Z"),
            unflagged: true,
        };
        assert_eq!((requirement, wait, compare), (expected, Duration::from_millis(500), true));
        assert_eq!(asked("min_version=7").wait, WAIT_DEFAULT);
        assert_eq!(asked("min_version=7&wait=30s").wait, WAIT_MAX);
        assert_eq!(asked("min_version=7&wait=0s").wait, Duration::ZERO);
    }

    #[test]
    fn ids_come_from_the_path_or_from_parameters_with_all_their_characters() {
        let id = "a+b:c%d_e#f*g?h!i(j),k=l@m$n'o";
        let encoded: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
        let found = request(Id::InQuery, &format!("device={encoded}&module=..")).expect("understood");
        assert_eq!((found.device.as_str(), found.module.as_deref()), (id, Some("..")));
        let found = request(Id::Module("..".into(), id.into()), "").expect("understood");
        assert_eq!((found.device.as_str(), found.module.as_deref()), ("..", Some(id)));
    }

    #[test]
    fn what_is_not_understood_says_what_to_write_and_repeats_no_value() {
        let secret = "c2VjcmV0";
        let long = "x".repeat(129);
        for (id, query, hint) in [
            (
                Id::Device("d".into()),
                format!("min_verison={secret}"),
                "the known ones are hub, compare, min_version",
            ),
            (Id::Device("d".into()), format!("{secret}=1"), "unknown parameter"),
            (Id::Device("d".into()), format!("device={secret}"), "unknown parameter"),
            (Id::Device("d".into()), format!("min_version={secret}"), "min_version is not a whole number"),
            (Id::Device("d".into()), "min_version=-1".into(), "min_version is not a whole number"),
            (Id::Device("d".into()), "min_version=1&min_version=2".into(), "min_version appears twice"),
            (Id::Device("d".into()), format!("unflagged={secret}"), "neither true nor false"),
            (Id::Device("d".into()), format!("compare={secret}"), "neither true nor false"),
            (Id::Device("d".into()), format!("min_time={secret}"), "min_time is not a time"),
            (Id::Device("d".into()), "wait=5s".into(), "add min_version=N"),
            (Id::Device("d".into()), format!("min_version=1&wait={secret}"), "at most 30 s"),
            (Id::Device("d".into()), "min_version=1&wait=31s".into(), "at most 30 s"),
            (Id::Device("d".into()), "hub=".into(), "hub is empty"),
            (Id::Device("d".into()), "hub=%FF".into(), "hub is not percent-encoded UTF-8"),
            (Id::Device(long.clone()), String::new(), "allows at most 128"),
            (Id::Module("d".into(), long), String::new(), "the module id has 129"),
            (Id::Unreadable, String::new(), "not percent-encoded UTF-8"),
            (Id::InQuery, String::new(), "say which twin"),
            (Id::InQuery, "device=".into(), "the device id is empty"),
        ] {
            let error = request(id, &query).expect_err(&query);
            assert!(error.contains(hint) && !error.contains(secret), "{query}: {error}");
        }
    }
}
