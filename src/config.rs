//! Configuration: the written text, and its meaning.
//!
//! ```text
//! config/default.toml < --config files < environment      load      text per key, with its origin
//!                                            │            raw       the shape: unknown keys are refused
//!                                            ▼            validate  meaning, or all problems at once
//!                                        Settings
//! ```
//!
//! Loading reads the given files, the file of `http.token_file`, and nothing else: the environment is an argument. Values of secrets never
//! appear in problems, listings or debug output.
//!
//! A mistyped key is reported:
//!
//! ```
//! use twinsync::config::Settings;
//!
//! let environment = [("TWINSYNC__COSMOS__DATABSE".to_owned(), "twins".to_owned())];
//! let error = Settings::load(&[], environment.into_iter()).expect_err("there is no such key");
//! assert!(error.to_string().contains("cosmos.database"), "{error}");
//! ```

mod container;
mod hub;
mod human;
mod load;
mod problem;
pub mod raw;
mod secret;
mod settings;
mod validate;

use std::{net::SocketAddr, path::PathBuf};

use serde::Serialize;

pub use human::{is_guid, parse_duration, parse_size};
pub use problem::{Error, Origin, Problem};
pub use secret::{REDACTED, Secret};
pub use settings::{
    Audit, Backfill, BackfillOnStart, Blob, Cache, Checkpoint, CheckpointStore, Cosmos, Counting, Credential,
    DeadLetters, Document, Encryption, Entra, EventHubs, Http, Hub, HubAccess, Identity, IotHub, Lease,
    LogFormat, OnInvalid, Otlp, Policy, Repair, Router, Serve, Settings, Shutdown, Start, Starting,
    Telemetry,
};

/// The effective value of one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Effective {
    /// The key, e.g. `cosmos.endpoint`.
    pub key: String,
    /// The value as written, or [`REDACTED`] for a secret that is set.
    pub value: String,
    /// Where the value came from.
    #[serde(serialize_with = "as_text")]
    pub origin: Origin,
}

fn as_text<S: serde::Serializer>(origin: &Origin, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(origin)
}

impl Settings {
    /// Merges the defaults, `files` in their order and `environment`, and checks the result.
    ///
    /// Blocks while it reads these files and the file of `http.token_file`. It has no other outside input.
    ///
    /// # Errors
    /// All problems that can be found in one run.
    pub fn load(
        files: &[PathBuf],
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Error> {
        let layers = load::Layers::read(files, environment);
        let mut problems = layers.problems.clone();
        let raw = layers.raw().map_err(|error| {
            // Each key was already checked. So this is a mistake in the defaults, which a test excludes.
            problems.push(Problem {
                key: None,
                origin: Origin::Default,
                message: format!("cannot be read: {error}"),
            });
            Error { problems: problems.clone(), log_format: log_format(&layers) }
        })?;
        let (settings, found) = validate::settings(&raw, &layers);
        problems.extend(found);
        match settings {
            Some(settings) if problems.is_empty() => Ok(Self { effective: effective(&layers), ..settings }),
            Some(_) | None => Err(Error { problems, log_format: log_format(&layers) }),
        }
    }

    /// Every key with its effective value and origin, in the order of the keys. Secrets are redacted.
    pub fn effective(&self) -> &[Effective] {
        &self.effective
    }
}

/// Reads only `http.listen` of a configuration, whether or not the rest is valid: a request to a running daemon needs nothing else. `None`:
/// off.
///
/// # Errors
/// A file cannot be read, or the value is invalid.
pub fn listen_address(
    files: &[PathBuf],
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Option<SocketAddr>, Error> {
    const KEY: &str = "http.listen";
    let layers = load::Layers::read(files, environment);
    let concerns = |problem: &&Problem| problem.key.as_deref().is_none_or(|key| key == KEY);
    let mut problems: Vec<_> = layers.problems.iter().filter(concerns).cloned().collect();
    let written = layers.values.get(KEY);
    let origin = written.map_or(Origin::Default, |written| written.origin.clone());
    match validate::listen(written.map_or("", |written| &written.text)) {
        Ok(address) if problems.is_empty() => return Ok(address),
        Ok(_) => {}
        Err(message) => problems.push(Problem { key: Some(KEY.to_owned()), origin, message }),
    }
    Err(Error { problems, log_format: log_format(&layers) })
}

/// Reads only `telemetry.log_format` of a configuration, whether or not the rest is valid. Text if the format is unknown. For messages
/// before the configuration is loaded.
pub fn log_format_of(files: &[PathBuf], environment: impl Iterator<Item = (String, String)>) -> LogFormat {
    log_format(&load::Layers::read(files, environment))
}

/// The format for errors in the rest of the configuration.
fn log_format(layers: &load::Layers) -> LogFormat {
    let json = layers.values.get("telemetry.log_format").is_some_and(|format| format.text == "json");
    if json { LogFormat::Json } else { LogFormat::Text }
}

fn effective(layers: &load::Layers) -> Vec<Effective> {
    layers
        .values
        .iter()
        .map(|(key, value)| Effective {
            key: key.clone(),
            value: shown(key, &value.text),
            origin: value.origin.clone(),
        })
        .collect()
}

/// A value as it may be shown.
fn shown(key: &str, text: &str) -> String {
    if key == raw::CONTAINER_URL {
        // The container has to be visible. Only its signature is secret.
        match text.split_once('?') {
            Some((address, _)) => format!("{address}?{REDACTED}"),
            None => text.to_owned(),
        }
    } else if raw::SECRETS.contains(&key) {
        Secret::new(text).to_string()
    } else {
        text.to_owned()
    }
}

/// The environment of this process, for [`Settings::load`].
///
/// Text that is not UTF-8 is replaced by U+FFFD. `load` then reports it if the variable belongs to twinsync.
pub fn process_environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().map(|(name, value)| {
        let text = |part: std::ffi::OsString| part.to_string_lossy().into_owned();
        (text(name), text(value))
    })
}

#[cfg(test)]
mod tests;
