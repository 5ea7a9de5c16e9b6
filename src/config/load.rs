//! Finds the effective value of every key, and records its origin.
//!
//! Layers in rising order: the embedded `default.toml`, the given files, the environment. The defaults determine which keys exist, so there
//! is no second list to keep in step. This module does not know the meaning of values.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use ::config::{File, FileFormat, Map, Source, Value, ValueKind};

use super::{
    problem::{Origin, Problem},
    raw::{self, Raw},
};

/// The built-in defaults, and the list of all keys.
pub(super) const DEFAULTS: &str = include_str!("../../config/default.toml");

/// Prefix of twinsync's environment variables.
const PREFIX: &str = "TWINSYNC__";

/// Environment variables of other programs that influence the meaning of twinsync's own, by name.
const FOREIGN: [&str; 12] = [
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_SDK_DISABLED",
    "OTEL_SERVICE_NAME",
    "PORT",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_COSMOS_EMULATOR_HOST",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_TENANT_ID",
];

/// OpenTelemetry's variables, and the keys that they set if no other layer does.
const OTEL: [(&str, &str); 4] = [
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "otlp.endpoint"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "otlp.headers"),
    ("OTEL_RESOURCE_ATTRIBUTES", "otlp.resource_attributes"),
    ("OTEL_SERVICE_NAME", "otlp.service_name"),
];

/// The text of a value and where it came from.
#[derive(Debug, Clone)]
pub(super) struct Sourced {
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// All layers merged.
#[derive(Debug)]
pub(super) struct Layers {
    /// Every known key, in order.
    pub(super) values: BTreeMap<String, Sourced>,
    /// Those of [`FOREIGN`] that are set and not empty.
    pub(super) foreign: BTreeMap<&'static str, String>,
    /// Problems that were found while merging.
    pub(super) problems: Vec<Problem>,
}

impl Layers {
    /// Reads and merges all layers.
    pub(super) fn read(files: &[PathBuf], environment: impl Iterator<Item = (String, String)>) -> Self {
        let mut layers = Self { values: BTreeMap::new(), foreign: BTreeMap::new(), problems: Vec::new() };
        match leaves(DEFAULTS) {
            Ok(leaves) => {
                for (key, leaf) in leaves {
                    let text = leaf.unwrap_or_default();
                    layers.values.insert(key, Sourced { text, origin: Origin::Default });
                }
            }
            Err(message) => layers.problem(None, &Origin::Default, message),
        }
        for file in files {
            layers.add_file(file);
        }
        layers.add_environment(environment);
        layers.apply_port();
        layers.apply_otel();
        layers
    }

    /// The merged values in the form of [`Raw`].
    pub(super) fn raw(&self) -> Result<Raw, ::config::ConfigError> {
        let mut builder = ::config::Config::builder();
        let mut counts = BTreeMap::<usize, raw::Count>::new();
        for (key, value) in &self.values {
            let Some((place, name)) = of_count(key) else {
                builder = builder.set_override(key, value.text.clone())?;
                continue;
            };
            let (count, text) = (counts.entry(place).or_default(), value.text.clone());
            match name {
                "name" => count.name = text,
                "from" => count.from = text,
                "where" => count.condition = text,
                _ => count.group_by = text,
            }
        }
        let raw: Raw = builder.build()?.try_deserialize()?;
        Ok(Raw { counts, ..raw })
    }

    fn problem(&mut self, key: Option<&str>, origin: &Origin, message: impl Into<String>) {
        self.problems.push(Problem {
            key: key.map(str::to_owned),
            origin: origin.clone(),
            message: message.into(),
        });
    }

    fn add_file(&mut self, path: &Path) {
        let origin = Origin::File(path.to_owned());
        let read = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot be read: {error}"))
            .and_then(|text| leaves(&text));
        match read {
            Ok(leaves) => {
                // A list replaces the earlier one completely. A mix of two lists would be neither of them.
                if leaves.iter().any(|(key, _)| of_count(key).is_some()) {
                    self.values.retain(|key, _| of_count(key).is_none());
                }
                for (key, leaf) in leaves {
                    self.set(key, leaf, &origin);
                }
            }
            Err(message) => self.problem(None, &origin, message),
        }
    }

    fn add_environment(&mut self, environment: impl Iterator<Item = (String, String)>) {
        // Sorted, so that the same environment always gives the same report.
        let environment: BTreeMap<String, String> = environment.collect();
        for (name, value) in environment {
            if let Some(foreign) = FOREIGN.into_iter().find(|foreign| *foreign == name) {
                if !value.is_empty() {
                    self.foreign.insert(foreign, value);
                }
                continue;
            }
            let origin = Origin::Environment(name.clone());
            let upper = name.to_ascii_uppercase();
            if let Some(rest) = upper.strip_prefix(PREFIX) {
                let key = rest.to_ascii_lowercase().replace("__", ".");
                self.set(key, Ok(value), &origin);
            } else if let Some(meant) = self.written_with_single_underscores(&upper) {
                let right = format!("{PREFIX}{}", meant.to_ascii_uppercase().replace('.', "__"));
                self.problem(
                    None,
                    &origin,
                    format!("sections are separated by two underscores: use {right}"),
                );
            }
        }
    }

    /// The key that `TWINSYNC_SECTION_KEY` was probably meant to set. Other names with single underscores are ignored: Kubernetes sets
    /// `TWINSYNC_PORT` and similar variables for a service named twinsync.
    fn written_with_single_underscores(&self, upper: &str) -> Option<&str> {
        let squeeze = |text: &str| text.replace(['_', '.'], "").to_ascii_lowercase();
        let meant = squeeze(upper.strip_prefix("TWINSYNC_")?);
        self.values.keys().find(|key| squeeze(key) == meant).map(String::as_str)
    }

    /// Sets one key, or records why not.
    fn set(&mut self, key: String, leaf: Result<String, String>, origin: &Origin) {
        let text = match leaf {
            Ok(text) if text.contains('\u{FFFD}') => Err("is not valid UTF-8".to_owned()),
            other => other,
        };
        match text {
            _ if !self.values.contains_key(&key) && of_count(&key).is_none() => {
                let message = self.unknown(&key);
                self.problem(Some(&key), origin, message);
            }
            Ok(text) => {
                let verbatim = raw::VERBATIM.contains(&key.as_str());
                let text = if verbatim { text } else { text.trim().to_owned() };
                self.values.insert(key, Sourced { text, origin: origin.clone() });
            }
            Err(message) => self.problem(Some(&key), origin, message),
        }
    }

    /// The message about a key that does not exist.
    fn unknown(&self, key: &str) -> String {
        if key == raw::COUNTS || key.strip_prefix("counts.").is_some_and(|rest| !starts_with_digit(rest)) {
            return "is a list: write [[counts]], in double brackets, before the keys of each count"
                .to_owned();
        }
        if let Some((place, _)) = key.strip_prefix("counts.").and_then(|rest| rest.split_once('.')) {
            let known = raw::COUNT.map(|name| format!("counts.{place}.{name}"));
            return match nearest(key, known.iter().map(String::as_str)) {
                Some(known) => format!("unknown key: did you mean {known}?"),
                None => format!("unknown key: a count has {}", raw::COUNT.join(", ")),
            };
        }
        let section = format!("{key}.");
        if self.values.keys().any(|known| known.starts_with(&section)) {
            return format!("is a section, not a value: write its keys below [{key}]");
        }
        match nearest(key, self.values.keys().map(String::as_str)) {
            Some(known) => format!("unknown key: did you mean {known}?"),
            None => "unknown key: remove it; config/default.toml lists all keys".to_owned(),
        }
    }

    /// Applies `PORT` if no other layer sets the port. App Service sets this variable to the port that it will connect to.
    fn apply_port(&mut self) {
        let Some(port) = self.foreign.get("PORT").cloned() else {
            return;
        };
        if self.values.get("http.listen").is_some_and(|listen| listen.origin != Origin::Default) {
            return;
        }
        let origin = Origin::Environment("PORT".to_owned());
        match port.trim().parse::<u16>() {
            Ok(port) => {
                let text = format!("0.0.0.0:{port}");
                self.values.insert("http.listen".to_owned(), Sourced { text, origin });
            }
            Err(_) => {
                let message = format!("{port:?} is not a port: give a number from 0 to 65535, or unset it");
                self.problem(Some("http.listen"), &origin, message);
            }
        }
    }
}

impl Layers {
    /// Applies OpenTelemetry's variables if twinsync's own keys are not set. An address for another protocol is ignored: platforms set it
    /// for all their programs.
    fn apply_otel(&mut self) {
        let is = |name: &str, other: fn(&str) -> bool| {
            self.foreign.get(name).is_some_and(|text| other(text.trim()))
        };
        let unusable = is("OTEL_EXPORTER_OTLP_PROTOCOL", |protocol| protocol != "http/protobuf")
            || is("OTEL_SDK_DISABLED", |disabled| disabled.eq_ignore_ascii_case("true"));
        for (variable, key) in OTEL {
            let Some(text) = self.foreign.get(variable) else { continue };
            let Some(value) = self.values.get_mut(key) else { continue };
            if value.origin != Origin::Default || (key == "otlp.endpoint" && unusable) {
                continue;
            }
            let (text, origin) = (text.trim().to_owned(), Origin::Environment(variable.to_owned()));
            *value = Sourced { text, origin };
        }
    }
}

fn starts_with_digit(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit())
}

/// The index of a count in the list, and its key there. In the environment, the first one is
/// `TWINSYNC__COUNTS__0__NAME`.
fn of_count(key: &str) -> Option<(usize, &str)> {
    let (place, name) = key.strip_prefix(raw::COUNTS)?.strip_prefix('.')?.split_once('.')?;
    let place = place.parse().ok().filter(|_| starts_with_digit(place))?;
    raw::COUNT.contains(&name).then_some((place, name))
}

/// The known key that is most similar to `key`, if any is similar enough.
fn nearest<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// Below this similarity (1 = equal), a suggestion misleads more often than it helps.
    const ALIKE: f64 = 0.6;
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let likeness = |candidate: &str| {
        // The right name in the wrong section is as common as a typing error.
        let whole = strsim::normalized_damerau_levenshtein(key, candidate);
        let name = strsim::normalized_damerau_levenshtein(&last(key), &last(candidate));
        whole.max(0.9 * name)
    };
    known
        .map(|candidate| (likeness(candidate), candidate))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate)
}

/// A key with the text of its value, or with the error in it.
type Leaf = (String, Result<String, String>);

/// Parses TOML into keys like `cosmos.endpoint`.
fn leaves(text: &str) -> Result<Vec<Leaf>, String> {
    let table = File::from_str(text, FileFormat::Toml)
        .collect()
        .map_err(|error| without_excerpt(&error.to_string()))?;
    let mut leaves = Vec::new();
    flatten(&mut leaves, "", table);
    leaves.sort();
    Ok(leaves)
}

/// The place and the error, without the excerpt in between: the offending line may contain a secret.
fn without_excerpt(message: &str) -> String {
    let mut lines = message.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or("is not valid TOML");
    let reason = lines.rfind(|line| !line.contains('|'));
    match reason {
        Some(reason) => format!("{first}: {reason}"),
        None => first.to_owned(),
    }
}

fn flatten(leaves: &mut Vec<Leaf>, prefix: &str, table: Map<String, Value>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        let text = match value.kind {
            ValueKind::Table(inner) if !inner.is_empty() => {
                flatten(leaves, &key, inner);
                continue;
            }
            ValueKind::Array(items) if key == raw::COUNTS => {
                for (place, item) in items.into_iter().enumerate() {
                    match item.kind {
                        ValueKind::Table(count) => flatten(leaves, &format!("{key}.{place}"), count),
                        _ => leaves.push((key.clone(), Ok(String::new()))),
                    }
                }
                continue;
            }
            ValueKind::Array(items) if matches!(of_count(&key), Some((_, "group_by"))) => {
                let text = |item: Value| match item.kind {
                    ValueKind::String(text) => Ok(text),
                    _ => Err("must be a path, or a list of paths, as text".to_owned()),
                };
                items.into_iter().map(text).collect::<Result<Vec<_>, _>>().map(|paths| paths.join(", "))
            }
            ValueKind::Table(_) if DEFAULTS.contains(&format!("[{key}]")) => continue,
            ValueKind::Table(_) | ValueKind::Array(_) => Err("must be a single value".to_owned()),
            ValueKind::Nil => Ok(String::new()),
            ValueKind::String(text) => Ok(text),
            ValueKind::Boolean(value) => Ok(value.to_string()),
            ValueKind::I64(number) => Ok(number.to_string()),
            ValueKind::I128(number) => Ok(number.to_string()),
            ValueKind::U64(number) => Ok(number.to_string()),
            ValueKind::U128(number) => Ok(number.to_string()),
            ValueKind::Float(number) => Ok(number.to_string()),
        };
        leaves.push((key, text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_file_is_reported_without_the_offending_line() {
        let message = leaves("[cosmos]\nkey = \"c2VjcmV0\n").expect_err("unterminated string");
        assert!(message.contains("line 2"), "{message}");
        assert!(!message.contains("c2VjcmV0"), "{message}");
    }

    #[test]
    fn the_nearest_key_is_found_across_sections_and_slips() {
        let known = ["cosmos.endpoint", "router.linger", "checkpoint.path", "dead_letters.path"];
        let nearest = |key| nearest(key, known.into_iter());
        assert_eq!(nearest("cosmos.endpont"), Some("cosmos.endpoint"));
        assert_eq!(nearest("cosmos.linger"), Some("router.linger"));
        assert_eq!(nearest("checkpoints.path"), Some("checkpoint.path"));
        assert_eq!(nearest("zzz.qqqqqqqq"), None);
    }
}
