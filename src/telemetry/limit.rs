//! Limits repeated log lines: one line per place and class in ten seconds, with the number of suppressed lines, and one line when it is
//! over. Metrics count all of them.
//!
//! | line | class |
//! |---|---|
//! | below WARN | not limited: normal operation logs little |
//! | something that is tried again (fields `retry_in`, `again`) | its `code` or reason, and the Event Hub of its partition |
//! | any other WARN or ERROR | its `code` or reason, and its whole partition: each one is a separate fact |
//!
//! The place is the position in the source where the line is written, so lines of the SDKs are limited too. Twins are not part of the
//! class: there are too many of them.
//!
//! A line that reports the end of an outage (`outage = "over"`) re-arms the lines about the same subject. So the first line of a second
//! outage is always written, however soon it follows.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use tracing::{Event, Level, Subscriber, field::Field};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    layer::{Context, Layer},
    registry::LookupSpan,
};

use super::replica::replica;

/// At most one line is written in this time.
const WINDOW: Duration = Duration::from_secs(10);
/// After this long without a line, it is over. Longer than the waits between two tries.
const QUIET: Duration = Duration::from_secs(60);
/// The value of the field `outage` when a dependency begins to fail.
pub(super) const BEGAN: &str = "began";
/// The value of the field `outage` when a dependency answers again. The first line of the next outage is not suppressed.
pub(super) const OVER: &str = "over";

/// The decision on a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// It is written, with the number of lines suppressed since the last one.
    Written(u64),
    /// It is suppressed.
    HeldBack,
}

/// A kind of line that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Over {
    /// Message of these lines.
    message: String,
    class: String,
    /// Number of these lines.
    lines: u64,
    /// Number of suppressed lines that no written line has counted yet.
    held_back: u64,
    /// Time from the first line to the last one.
    lasted: Duration,
}

/// Place and class.
type Key = (&'static str, u32, String);

/// The subject of a line about an outage: the parts that are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Subject {
    what: Option<String>,
    hub: Option<String>,
    stream: Option<String>,
    partition: Option<String>,
}

impl Subject {
    fn parts(&self) -> [&Option<String>; 4] {
        [&self.what, &self.hub, &self.stream, &self.partition]
    }

    /// Whether this is the recovered subject, or a part of it.
    fn is_over_with(&self, recovered: &Self) -> bool {
        let mut pairs = self.parts().into_iter().zip(recovered.parts());
        *self != Self::default() && pairs.all(|(part, recovered)| part.is_none() || part == recovered)
    }
}

#[derive(Debug)]
struct Entry {
    message: String,
    /// Empty if no recovery is ever reported.
    subject: Subject,
    first: Duration,
    last: Duration,
    /// `None`: an outage has ended since, so the next line is written.
    written: Option<Duration>,
    lines: u64,
    held_back: u64,
}

/// State of the lines that repeat. Times are measured from any fixed start.
#[derive(Debug, Default)]
pub(super) struct Limiter(BTreeMap<Key, Entry>);

impl Limiter {
    pub(super) fn admit(&mut self, now: Duration, key: Key, subject: Subject, message: &str) -> Line {
        let Some(entry) = self.0.get_mut(&key) else {
            let message = message.to_owned();
            let written = Some(now);
            self.0.insert(
                key,
                Entry { message, subject, first: now, last: now, written, lines: 1, held_back: 0 },
            );
            return Line::Written(0);
        };
        entry.last = now;
        entry.lines += 1;
        if entry.written.is_some_and(|written| now.saturating_sub(written) < WINDOW) {
            entry.held_back += 1;
            return Line::HeldBack;
        }
        entry.written = Some(now);
        Line::Written(std::mem::take(&mut entry.held_back))
    }

    /// After a recovery, the next failure is a new fact. Its lines are written.
    pub(super) fn rearm(&mut self, recovered: &Subject) {
        for entry in self.0.values_mut().filter(|entry| entry.subject.is_over_with(recovered)) {
            entry.written = None;
        }
    }

    /// Removes kinds of lines that have not occurred for a while, and returns those with more than one line.
    pub(super) fn over(&mut self, now: Duration) -> Vec<Over> {
        let (over, going_on) = std::mem::take(&mut self.0)
            .into_iter()
            .partition(|(_, entry): &(Key, Entry)| now.saturating_sub(entry.last) >= QUIET);
        self.0 = going_on;
        let over: BTreeMap<Key, Entry> = over;
        let repeated = over.into_iter().filter(|(_, entry)| entry.lines > 1);
        let told = repeated.map(|((_, _, class), entry)| Over {
            message: entry.message,
            class,
            lines: entry.lines,
            held_back: entry.held_back,
            lasted: entry.last.saturating_sub(entry.first),
        });
        told.collect()
    }
}

/// The fields of an event that decide.
#[derive(Debug, Default)]
struct Seen {
    message: String,
    subject: Subject,
    code: Option<String>,
    reason: Option<String>,
    again: bool,
    outage: Option<String>,
}

impl Seen {
    fn of(event: &Event<'_>) -> Self {
        let mut seen = Self::default();
        event.record(&mut seen);
        seen
    }

    fn note(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.message = value,
            "stream" => self.subject.stream = Some(value),
            "partition" => self.subject.partition = Some(value),
            "hub" => self.subject.hub = Some(value),
            "what" => self.subject.what = Some(value),
            "code" => self.code = Some(value),
            // Only codes count: free text would make each line a separate class.
            "reason" if is_code(&value) => self.reason = Some(value),
            "retry_in" | "again" => self.again = true,
            "outage" => self.outage = Some(value),
            _ => {}
        }
    }

    /// The class, and the subject if its recovery is reported.
    fn class(mut self) -> (String, Subject) {
        if self.again && self.subject.stream.is_some() {
            self.subject.partition = None;
        }
        let Self { subject, code, reason, again, outage, .. } = self;
        let parts = [&code, &reason].into_iter().chain(subject.parts());
        let parts: Vec<_> = parts.flatten().map(String::as_str).filter(|part| !part.is_empty()).collect();
        let class = parts.join(" ");
        let passes = again || outage.is_some();
        (class, if passes { subject } else { Subject::default() })
    }
}

impl tracing::field::Visit for Seen {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.note(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.note(field, format!("{value:?}"));
    }
}

fn is_code(text: &str) -> bool {
    text.len() <= 40 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// How a line ends when a field is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// `… name=value`
    Text,
    /// `{…}`
    Json,
}

/// The clock. Tests use their own.
type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// State that the formatter and the periodic check share.
#[derive(Clone)]
pub(super) struct Lines {
    limiter: Arc<Mutex<Limiter>>,
    clock: Clock,
}

impl Lines {
    fn new() -> Self {
        let began = Instant::now();
        Self::with_clock(Arc::new(move || began.elapsed()))
    }

    fn with_clock(clock: Clock) -> Self {
        Self { limiter: Arc::default(), clock }
    }

    fn limiter(&self) -> MutexGuard<'_, Limiter> {
        // Every change is complete, so the state is consistent even after a panic.
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_what_is_over(&self) {
        let over = self.limiter().over((self.clock)());
        for Over { message, class, lines, held_back, lasted } in over {
            tracing::info!(
                line = message,
                class,
                lines,
                held_back,
                seconds = lasted.as_secs(),
                "over: no more of these lines for a while"
            );
        }
    }
}

/// Re-arms suppressed lines when an outage is over. It sees these lines whatever the filter of the log is.
pub(super) struct Recoveries(pub(super) Lines);

impl<S: Subscriber> Layer<S> for Recoveries {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().fields().field("outage").is_none() {
            return;
        }
        let seen = Seen::of(event);
        if seen.outage.as_deref() == Some(OVER) {
            self.0.limiter().rearm(&seen.subject);
        }
    }
}

/// The lines of this process, once it logs.
static LINES: OnceLock<Lines> = OnceLock::new();

/// The shared lines of this process.
pub(super) fn lines() -> Lines {
    LINES.get_or_init(Lines::new).clone()
}

/// Writes one line for each kind of line that is over. Must be called periodically.
pub(super) fn tell_what_is_over() {
    if let Some(lines) = LINES.get() {
        lines.tell_what_is_over();
    }
}

/// Formats the lines that are not suppressed, and adds the name of the replica.
pub(super) struct Limited<F> {
    pub(super) inner: F,
    pub(super) shape: Shape,
    pub(super) lines: Lines,
}

impl<S, N, F> FormatEvent<S, N> for Limited<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let held_back = if *metadata.level() > Level::WARN {
            0
        } else {
            let mut seen = Seen::of(event);
            let message = std::mem::take(&mut seen.message);
            let (class, subject) = seen.class();
            let key = (metadata.file().unwrap_or(metadata.name()), metadata.line().unwrap_or(0), class);
            match self.lines.limiter().admit((self.lines.clock)(), key, subject, &message) {
                Line::HeldBack => return Ok(()),
                Line::Written(held_back) => held_back,
            }
        };
        let mut text = String::new();
        self.inner.format_event(context, Writer::new(&mut text), event)?;
        finish(writer, &text, self.shape, held_back)
    }
}

/// Writes a formatted line with two additions: the replica, and the number of lines suppressed before it.
fn finish(mut writer: Writer<'_>, line: &str, shape: Shape, held_back: u64) -> fmt::Result {
    let line = line.trim_end_matches('\n');
    match (shape, line.strip_suffix('}')) {
        (Shape::Json, Some(open)) => {
            write!(writer, "{open},\"replica\":\"{}\"", replica())?;
            if held_back > 0 {
                write!(writer, ",\"held_back\":{held_back}")?;
            }
            writer.write_str("}\n")
        }
        (Shape::Json, None) | (Shape::Text, _) => {
            write!(writer, "{line} replica={}", replica())?;
            if held_back > 0 {
                write!(writer, " held_back={held_back}")?;
            }
            writer.write_char('\n')
        }
    }
}

#[cfg(test)]
mod tests;
