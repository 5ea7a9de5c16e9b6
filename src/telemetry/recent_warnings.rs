//! Warnings and errors that were logged, one entry per kind, for people who look at the status and not at the logs.
//!
//! It records every warning, whatever `telemetry.log_filter` lets through. An entry is a place in the source with the `code` of its line.
//! So the number of entries is bounded by the source, not by events.

use std::{
    collections::HashMap,
    fmt::{self, Write as _},
    sync::{Arc, Mutex, PoisonError},
};

use tracing::{
    Event, Level, Subscriber,
    callsite::Identifier,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Layer};

use crate::{
    domain::ticks::Ticks,
    ports::{Clock, SystemClock},
};

/// Maximum number of entries. The entry that has been quiet for longest makes room.
const MOST_ENTRIES: usize = 100;
/// Maximum length of a stored line, in characters.
const MOST_CHARACTERS: usize = 400;

/// What has been logged so far. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct RecentWarnings(Arc<Mutex<HashMap<Kind, Entry>>>);

/// A place in the source, and the code of its line.
type Kind = (Identifier, Option<String>);

/// Lines of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Whether it is an error.
    pub is_error: bool,
    /// The stable code, if it has one.
    pub code: Option<String>,
    /// The latest line.
    pub message: String,
    /// Number of lines.
    pub count: u64,
    /// Time of the first line.
    pub first: Ticks,
    /// Time of the latest line.
    pub last: Ticks,
}

impl RecentWarnings {
    /// All entries, latest first.
    pub fn entries(&self) -> Vec<Entry> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entries: Vec<_> = entries.values().cloned().collect();
        entries.sort_by_key(|entry| std::cmp::Reverse((entry.last, entry.count)));
        entries
    }

    fn note(&self, callsite: Identifier, is_error: bool, line: Line, now: Ticks) {
        let Line { message, code, .. } = line;
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (callsite, code);
        if !entries.contains_key(&key)
            && entries.len() >= MOST_ENTRIES
            && let Some(quiet) =
                entries.iter().min_by_key(|(_, entry)| entry.last).map(|(key, _)| key.clone())
        {
            entries.remove(&quiet);
        }
        let code = key.1.clone();
        let entry = entries.entry(key).or_insert_with(|| Entry {
            is_error,
            code,
            message: String::new(),
            count: 0,
            first: now,
            last: now,
        });
        entry.count += 1;
        entry.last = now;
        entry.message = message;
    }
}

impl<S: Subscriber> Layer<S> for RecentWarnings {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        // A more severe level compares as less.
        if *metadata.level() > Level::WARN {
            return;
        }
        let mut line = Line::default();
        event.record(&mut line);
        line.message = match line.fields.is_empty() {
            true => line.message,
            false => format!("{}: {}", line.message, line.fields),
        };
        if line.message.chars().count() > MOST_CHARACTERS {
            line.message = line.message.chars().take(MOST_CHARACTERS).chain(['…']).collect();
        }
        let is_error = *metadata.level() == Level::ERROR;
        self.note(metadata.callsite(), is_error, line, SystemClock.now());
    }
}

/// The content of a line.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
    code: Option<String>,
}

impl Line {
    fn field(&mut self, name: &str, value: fmt::Arguments<'_>) {
        let between = if self.fields.is_empty() { "" } else { ", " };
        // Writing to a String cannot fail.
        let _ = write!(self.fields, "{between}{name} {value}");
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            "code" => self.code = Some(value.to_owned()),
            name => self.field(name, format_args!("{value}")),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "code" => self.code = Some(format!("{value:?}")),
            name => self.field(name, format_args!("{value:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    fn logged(act: impl FnOnce()) -> Vec<Entry> {
        let recent_warnings = RecentWarnings::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(recent_warnings.clone()), act);
        recent_warnings.entries()
    }

    #[test]
    fn lines_of_one_place_are_one_entry_that_shows_the_latest() {
        let entries = logged(|| {
            for number in 0..3 {
                tracing::warn!(partition = number, error = "refused", "cannot be read");
            }
            tracing::error!(code = "EVENTS_LOST", "events are lost");
            tracing::info!("all is well");
        });
        assert_eq!(entries.len(), 2, "{entries:?}");
        let lost = entries.iter().find(|entry| entry.is_error).expect("kept");
        assert_eq!((lost.code.as_deref(), lost.message.as_str()), (Some("EVENTS_LOST"), "events are lost"));
        let refused = entries.iter().find(|entry| !entry.is_error).expect("kept");
        assert_eq!(refused.count, 3);
        assert_eq!(refused.message, "cannot be read: partition 2, error refused");
        assert!(refused.first <= refused.last);
    }

    #[test]
    fn codes_of_one_place_are_told_apart_and_long_lines_are_cut() {
        let entries = logged(|| {
            for code in ["A", "B", "A"] {
                tracing::warn!(code, error = "x".repeat(5000), "failed");
            }
        });
        assert_eq!(entries.len(), 2);
        let a = entries.iter().find(|entry| entry.code.as_deref() == Some("A")).expect("kept");
        assert_eq!(a.count, 2);
        assert_eq!(a.message.chars().count(), MOST_CHARACTERS + 1);
    }

    #[test]
    fn the_number_of_entries_is_bounded_and_the_quietest_goes() {
        let entries = logged(|| {
            for number in 0..MOST_ENTRIES + 5 {
                let code = format!("CODE_{number}");
                tracing::warn!(code, "failed");
                std::thread::sleep(std::time::Duration::from_micros(1));
            }
        });
        assert_eq!(entries.len(), MOST_ENTRIES);
        assert!(!entries.iter().any(|entry| entry.code.as_deref() == Some("CODE_0")), "{entries:?}");
    }
}
