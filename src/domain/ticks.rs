//! Points in time as IoT Hub counts them: ticks of 100 nanoseconds.
//!
//! The hub's timestamps have seven fraction digits. Trailing zeros are trimmed in bodies and kept in properties, and
//! milliseconds are too coarse to order two writes of one twin. So times are compared as ticks, never as text.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

/// Ticks of 100 ns since the Unix epoch; negative before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticks(i64);

/// First and last tick that can be written as text with a four-digit year, and so can be stored.
const CALENDAR: std::ops::RangeInclusive<i64> = -621_672_192_000_000_000..=2_534_023_007_999_999_999;

/// Ticks in one second.
const PER_SECOND: i64 = 10_000_000;

impl Ticks {
    /// From a count of 100-ns ticks since the Unix epoch.
    pub const fn new(ticks: i64) -> Self {
        Self(ticks)
    }

    /// From Unix milliseconds, as in AMQP timestamps. `None` outside the years 0000 to 9999: a time that can be written
    /// but not read back would damage the document.
    pub fn from_unix_milliseconds(milliseconds: i64) -> Option<Self> {
        milliseconds.checked_mul(PER_SECOND / 1000).and_then(Self::in_calendar)
    }

    fn in_calendar(ticks: i64) -> Option<Self> {
        CALENDAR.contains(&ticks).then_some(Self(ticks))
    }

    /// Parses ISO 8601 with 0–9 fraction digits; digits after the seventh are cut. A time without `Z` or a numeric
    /// offset is UTC, like every time that IoT Hub writes. `None` if it is not such a time.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let moment = OffsetDateTime::parse(text, &Rfc3339)
            .or_else(|_| OffsetDateTime::parse(&format!("{text}Z"), &Rfc3339))
            .ok()?;
        let ticks = moment.unix_timestamp_nanos().div_euclid(100);
        i64::try_from(ticks).ok().and_then(Self::in_calendar)
    }

    /// Ticks since the Unix epoch.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The time that is earlier by `duration`.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(ticks(duration)))
    }

    /// The time that is later by `duration`.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(ticks(duration)))
    }

    /// How long after `earlier` this is; zero if it is before.
    pub fn duration_since(self, earlier: Self) -> Duration {
        let ticks = u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0);
        Duration::from_nanos(ticks.saturating_mul(100))
    }

    /// How long after `earlier` this is, in seconds; negative if it is before.
    pub fn seconds_since(self, earlier: Self) -> f64 {
        self.0.saturating_sub(earlier.0) as f64 / PER_SECOND as f64
    }
}

fn ticks(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos() / 100).unwrap_or(i64::MAX)
}

impl fmt::Display for Ticks {
    /// Always UTC with seven digits, e.g. `2026-01-31T08:00:00.1234567Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanoseconds = i128::from(self.0) * 100;
        let Ok(moment) = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds) else {
            return write!(f, "{}t", self.0); // outside the years that a text can show
        };
        let moment = moment.to_offset(UtcOffset::UTC);
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:07}Z",
            moment.year(),
            u8::from(moment.month()),
            moment.day(),
            moment.hour(),
            moment.minute(),
            moment.second(),
            moment.nanosecond() / 100
        )
    }
}

impl Serialize for Ticks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Ticks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("not an ISO 8601 time"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_ticks_of_100_nanoseconds_and_never_negative() {
        let (early, late) = (Ticks::new(10), Ticks::new(25));
        assert_eq!(late.duration_since(early), Duration::from_nanos(1_500));
        assert_eq!(early.duration_since(late), Duration::ZERO);
    }

    #[test]
    fn fraction_digits_and_offsets_do_not_change_the_moment() {
        let parse = |text| Ticks::parse(text).expect("a valid time");
        assert_eq!(parse("2031-05-04T10:00:00.12345Z"), parse("2031-05-04T10:00:00.1234500+00:00"));
        assert_eq!(parse("2031-05-04T10:00:00Z"), parse("2031-05-04T12:30:00.0000000+02:30"));
        assert_eq!(
            parse("2031-05-04T10:00:00.12345"),
            parse("2031-05-04T10:00:00.12345Z"),
            "a time without offset is UTC"
        );
        assert_eq!(parse("2031-05-04T10:00:00.123456789Z"), parse("2031-05-04T10:00:00.1234567Z"));
        assert!(parse("2031-05-04T10:00:00.1234567Z") < parse("2031-05-04T10:00:00.1234568Z"));
    }

    #[test]
    fn text_is_always_seven_digits_and_parses_back() {
        for text in
            ["1969-12-31T23:59:59.9999999Z", "0001-01-01T00:00:00.0000000Z", "2031-05-04T10:00:00.0000001Z"]
        {
            assert_eq!(Ticks::parse(text).expect("valid").to_string(), text);
        }
    }

    #[test]
    fn a_time_that_could_not_be_read_back_is_refused() {
        for text in ["0000-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01"] {
            assert_eq!(Ticks::parse(text), None, "{text}");
        }
        for milliseconds in [i64::MAX, i64::MIN, 253_402_300_800_000, -62_167_219_200_001] {
            assert_eq!(Ticks::from_unix_milliseconds(milliseconds), None);
        }
        for milliseconds in [253_402_300_799_999, -62_167_219_200_000] {
            let time = Ticks::from_unix_milliseconds(milliseconds).expect("in the calendar");
            assert_eq!(Ticks::parse(&time.to_string()), Some(time));
        }
    }

    #[test]
    fn what_is_not_a_time_is_refused() {
        for text in
            ["", "yesterday", "2031-05-04", "2031-13-04T10:00:00Z", "2031-05-04T10:00:00ZZ", "1700000000"]
        {
            assert_eq!(Ticks::parse(text), None, "{text}");
        }
    }
}
