//! Problems of a configuration. All of them are reported at once.

use std::{fmt, path::PathBuf};

use super::LogFormat;

/// Where the effective value of a key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The built-in defaults.
    Default,
    /// A file given with `--config`.
    File(PathBuf),
    /// An environment variable, by name.
    Environment(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// One problem to fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key with the problem, e.g. `cosmos.endpoint`. `None` if the problem concerns a whole file.
    pub key: Option<String>,
    /// The origin of the value.
    pub origin: Origin,
    /// What is wrong and what to do. Never contains the value of a secret.
    pub message: String,
}

impl fmt::Display for Problem {
    /// One line: `cosmos.endpoint (file a.toml): is not https: …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "{key} ({}): {}", self.origin, self.message),
            None => write!(f, "{}: {}", self.origin, self.message),
        }
    }
}

/// The configuration cannot be used. Lists every problem, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// At least one.
    pub problems: Vec<Problem>,
    /// The format in which to report them, as far as it is known.
    pub log_format: LogFormat,
}

impl Error {
    /// Stable code; `docs/errors/CONFIG_INVALID.md` explains it.
    pub const CODE: &'static str = "CONFIG_INVALID";
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        let noun = if count == 1 { "problem" } else { "problems" };
        write!(f, "the configuration has {count} {noun} ({})", Self::CODE)?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for Error {}
