//! Log lines that repeat: one per place and class in ten seconds, with a count of those that were held back, and one when it
//! is over. Metrics count all of them.
//!
//! | line | class |
//! |---|---|
//! | below WARN | not limited: normal operation is quiet by itself |
//! | something that is tried again (fields `retry_in`, `again`) | its `code` or reason, and the Event Hub of its partition |
//! | any other WARN or ERROR | its `code` or reason, and its whole partition: each is news by itself |
//!
//! The place is where in the program the line is written, so that lines of the SDKs are limited, too. Twins are no class:
//! there are too many of them.
//!
//! A line that says that an outage is over (`outage = "over"`) re-arms the lines about what it names, so that the first line of
//! a second outage is written, however soon that follows.

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

/// One line in this time.
const WINDOW: Duration = Duration::from_secs(10);
/// After so long without one, it is over. Longer than the waits between two tries.
const QUIET: Duration = Duration::from_secs(60);
/// The value of the field `outage` where something that is needed has gone.
pub(super) const BEGAN: &str = "began";
/// The value of the field `outage` where it is there again: the first line of what begins after it is not held back.
pub(super) const OVER: &str = "over";

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// It is written, with the number of those held back since the last one.
    Written(u64),
    /// It is held back.
    HeldBack,
}

/// Lines that have come to an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Over {
    /// What they said.
    message: String,
    class: String,
    /// How many there were.
    lines: u64,
    /// Those of them that are in nobody's count yet.
    held_back: u64,
    /// From the first one to the last one.
    lasted: Duration,
}

/// Place and class.
type Key = (&'static str, u32, String);

/// What a line about an outage is about: the parts that it has.
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

    /// Whether what has recovered is this, or a part of it.
    fn is_over_with(&self, recovered: &Self) -> bool {
        let mut pairs = self.parts().into_iter().zip(recovered.parts());
        *self != Self::default() && pairs.all(|(part, recovered)| part.is_none() || part == recovered)
    }
}

#[derive(Debug)]
struct Entry {
    message: String,
    /// Empty where no recovery is told.
    subject: Subject,
    first: Duration,
    last: Duration,
    /// `None`: an outage has passed since, and the next line is written.
    written: Option<Duration>,
    lines: u64,
    held_back: u64,
}

/// Remembers the lines that repeat. Times are since any fixed start.
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

    /// What has recovered may fail anew, and that is news.
    pub(super) fn rearm(&mut self, recovered: &Subject) {
        for entry in self.0.values_mut().filter(|entry| entry.subject.is_over_with(recovered)) {
            entry.written = None;
        }
    }

    /// Takes off what has not been written for a while, and tells what of it was more than a single line.
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

/// What of an event decides.
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
            // Codes only: text would make each line a class of its own.
            "reason" if is_code(&value) => self.reason = Some(value),
            "retry_in" | "again" => self.again = true,
            "outage" => self.outage = Some(value),
            _ => {}
        }
    }

    /// Its class, and what it is about where the end of that is told.
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

/// How a line ends, where a field is added to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// `… name=value`
    Text,
    /// `{…}`
    Json,
}

/// Tells the time; tests have their own.
type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// What the formatter and the look for what is over share.
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
        // Every change is a whole one.
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

/// Re-arms what is held back, where an outage is over. Sees such lines whatever the filter of the log says.
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

/// Of the process, once it logs.
static LINES: OnceLock<Lines> = OnceLock::new();

/// Those of the process.
pub(super) fn lines() -> Lines {
    LINES.get_or_init(Lines::new).clone()
}

/// Writes a line about each kind of line that has come to an end. Call it now and then.
pub(super) fn tell_what_is_over() {
    if let Some(lines) = LINES.get() {
        lines.tell_what_is_over();
    }
}

/// Formats what is not held back, and adds which replica it is about.
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

/// Writes a formatted line with what is added to it: the replica, and how many were held back before it.
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
