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

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use tracing::{Event, Level, Subscriber, field::Field};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

/// One line in this time.
const WINDOW: Duration = Duration::from_secs(10);
/// After so long without one, it is over. Longer than the waits between two tries.
const QUIET: Duration = Duration::from_secs(60);

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

#[derive(Debug)]
struct Entry {
    message: String,
    first: Duration,
    last: Duration,
    written: Duration,
    lines: u64,
    held_back: u64,
}

/// Remembers the lines that repeat. Times are since any fixed start.
#[derive(Debug, Default)]
pub(super) struct Limiter(BTreeMap<Key, Entry>);

impl Limiter {
    pub(super) fn admit(&mut self, now: Duration, key: Key, message: &str) -> Line {
        let Some(entry) = self.0.get_mut(&key) else {
            let message = message.to_owned();
            self.0
                .insert(key, Entry { message, first: now, last: now, written: now, lines: 1, held_back: 0 });
            return Line::Written(0);
        };
        entry.last = now;
        entry.lines += 1;
        if now.saturating_sub(entry.written) < WINDOW {
            entry.held_back += 1;
            return Line::HeldBack;
        }
        entry.written = now;
        Line::Written(std::mem::take(&mut entry.held_back))
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
    partition: Option<String>,
    hub: Option<String>,
    what: Option<String>,
    code: Option<String>,
    reason: Option<String>,
    again: bool,
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
            "partition" => self.partition = Some(value),
            "hub" => self.hub = Some(value),
            "what" => self.what = Some(value),
            "code" => self.code = Some(value),
            // Codes only: text would make each line a class of its own.
            "reason" if is_code(&value) => self.reason = Some(value),
            "retry_in" | "again" => self.again = true,
            _ => {}
        }
    }

    fn class(self) -> String {
        let partition = match self.partition {
            Some(partition) if self.again => {
                partition.rsplit_once('/').map(|(stream, _)| stream.to_owned()).or(Some(partition))
            }
            partition => partition,
        };
        let parts = [self.code, self.reason, self.what, self.hub, partition];
        parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
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
                message,
                class,
                lines,
                held_back,
                seconds = lasted.as_secs(),
                "over: no more of these lines for a while"
            );
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

/// Formats what is not held back.
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
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        if *metadata.level() > Level::WARN {
            return self.inner.format_event(context, writer, event);
        }
        let mut seen = Seen::of(event);
        let message = std::mem::take(&mut seen.message);
        let key = (metadata.file().unwrap_or(metadata.name()), metadata.line().unwrap_or(0), seen.class());
        let line = self.lines.limiter().admit((self.lines.clock)(), key, &message);
        match line {
            Line::HeldBack => Ok(()),
            Line::Written(0) => self.inner.format_event(context, writer, event),
            Line::Written(held_back) => {
                let mut text = String::new();
                // Without colours: only a line of the SDK's own writer has them.
                self.inner.format_event(context, Writer::new(&mut text), event)?;
                writer.write_str(&with_count(&text, self.shape, held_back))
            }
        }
    }
}

fn with_count(line: &str, shape: Shape, held_back: u64) -> String {
    let line = line.trim_end_matches('\n');
    match (shape, line.strip_suffix('}')) {
        (Shape::Json, Some(open)) => format!("{open},\"held_back\":{held_back}}}\n"),
        (Shape::Json, None) | (Shape::Text, _) => format!("{line} held_back={held_back}\n"),
    }
}

#[cfg(test)]
mod tests;
