//! Lines that are always written: why the process ends, and that a part of it panicked. They depend neither on the filter nor on any lock.

use std::{io::Write as _, panic::PanicHookInfo};

use tracing_subscriber::fmt::{
    format::Writer,
    time::{FormatTime as _, SystemTime},
};

use super::replica::replica;
use crate::config::LogFormat;

/// Code of a panic.
pub const PANICKED: &str = "PANICKED";

/// The last line of a process, in JSON. It does not depend on the filter: a reader of the log must see why the log ends.
pub fn final_line(code: Option<&str>, message: &str) -> String {
    json(&Line { code, message, ..Line::now(&now()) })
}

/// Writes panics as lines of the log, with their place but without their message, which may contain outside input.
pub(super) fn log_panics(format: LogFormat) {
    std::panic::set_hook(Box::new(move |panic| {
        // If standard error is closed, there is no place left to report that.
        let _ = writeln!(std::io::stderr().lock(), "{}", panicked(panic, format));
    }));
}

fn panicked(panic: &PanicHookInfo<'_>, format: LogFormat) -> String {
    const MESSAGE: &str = "twinsync has a bug: a part of it panicked, and the process ends; events that are not completed are received again after the next start";
    let place = panic.location().map(ToString::to_string);
    let thread = std::thread::current();
    let (timestamp, location, thread) = (now(), place.as_deref().unwrap_or("unknown"), thread.name());
    match format {
        LogFormat::Json => json(&Line {
            code: Some(PANICKED),
            message: MESSAGE,
            location: Some(location),
            thread,
            ..Line::now(&timestamp)
        }),
        LogFormat::Text => format!(
            "{timestamp} ERROR {TARGET}: {MESSAGE} code=\"{PANICKED}\" location={location} thread={} replica={}",
            thread.unwrap_or("unnamed"),
            replica()
        ),
    }
}

const TARGET: &str = env!("CARGO_PKG_NAME");

fn now() -> String {
    let mut timestamp = String::new();
    // Without a time it is still useful as the last line.
    let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
    timestamp
}

fn json(line: &Line<'_>) -> String {
    serde_json::to_string(line).unwrap_or_else(|_| line.message.to_owned())
}

#[derive(serde::Serialize)]
struct Line<'a> {
    timestamp: &'a str,
    level: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread: Option<&'a str>,
    target: &'a str,
    replica: &'a str,
}

impl<'a> Line<'a> {
    fn now(timestamp: &'a str) -> Self {
        Self {
            timestamp,
            level: "ERROR",
            message: "",
            code: None,
            location: None,
            thread: None,
            target: TARGET,
            replica: replica(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    #[test]
    fn a_panic_is_one_line_with_its_place_and_without_what_it_says() {
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&lines);
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // The hook is shared by the whole process: other tests may panic meanwhile.
            if panic.payload_as_str().is_some_and(|said| said.contains("device-7")) {
                let said = [LogFormat::Json, LogFormat::Text].map(|format| panicked(panic, format));
                seen.lock().unwrap_or_else(PoisonError::into_inner).extend(said);
            }
        }));
        let thread = std::thread::Builder::new().name("worker".into());
        let ended = thread.spawn(|| panic!("unexpected {}", "device-7")).expect("a thread").join();
        std::panic::set_hook(before);
        assert!(ended.is_err());
        let lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        let json: serde_json::Value = serde_json::from_str(&lines[0]).expect("JSON");
        assert!(json["location"].as_str().is_some_and(|place| place.contains("final_line.rs:")), "{json}");
        assert_eq!(
            (&json["code"], &json["thread"], &json["level"]),
            (&"PANICKED".into(), &"worker".into(), &"ERROR".into())
        );
        assert_eq!(json["replica"], replica());
        assert!(lines[1].contains("final_line.rs:") && lines[1].ends_with(replica()), "{}", lines[1]);
        assert!(
            lines.iter().all(|line| !line.contains("device-7") && line.lines().count() == 1),
            "{lines:?}"
        );
    }

    #[test]
    fn the_final_line_has_the_fields_of_every_line() {
        let line: serde_json::Value = serde_json::from_str(&final_line(Some("A"), "b\nc")).expect("JSON");
        assert_eq!(
            (&line["code"], &line["message"], &line["replica"]),
            (&"A".into(), &"b\nc".into(), &replica().into())
        );
        assert!(line["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
        assert_eq!(line.get("location"), None);
    }
}
