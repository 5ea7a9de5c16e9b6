//! Time as IoT Hub prints it: in ticks of 100 ns. Some fields have seven fraction digits, others omit
//! trailing zeros.

use std::time::{Duration, SystemTime};

use time::OffsetDateTime;

/// A point in time in ticks of 100 ns since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 0001-01-01, which IoT Hub prints for a section that was never written.
    pub const NEVER: Timestamp = Timestamp(-621_355_968_000_000_000);
    /// The last tick of the year 9999.
    const LAST: Timestamp = Timestamp(2_534_023_007_999_999_999);

    /// The time `ticks` × 100 ns after the Unix epoch, limited to the years 1 to 9999.
    pub const fn from_ticks(ticks: i64) -> Self {
        if ticks < Self::NEVER.0 {
            Self::NEVER
        } else if ticks > Self::LAST.0 {
            Self::LAST
        } else {
            Self(ticks)
        }
    }

    /// Ticks of 100 ns since the Unix epoch.
    pub const fn ticks(self) -> i64 {
        self.0
    }

    /// The next tick.
    pub const fn next(self) -> Self {
        Self::from_ticks(self.0.saturating_add(1))
    }

    /// Whole milliseconds since the Unix epoch.
    pub const fn unix_milliseconds(self) -> i64 {
        self.0.div_euclid(10_000)
    }

    /// Prints `2026-03-01T10:00:00.1234500` followed by `suffix`: always seven fraction digits, as in
    /// `operationTimestamp`.
    pub fn seven_digits(self, suffix: &str) -> String {
        let (date_time, fraction) = self.parts();
        format!("{date_time}.{fraction:07}{suffix}")
    }

    /// Prints `2026-03-01T10:00:00.12345Z`: without trailing zeros, as in `$metadata` of a twin.
    pub fn trimmed(self) -> String {
        let (mut text, fraction) = self.parts();
        if fraction != 0 {
            let digits = format!(".{fraction:07}");
            text.push_str(digits.trim_end_matches('0'));
        }
        text.push('Z');
        text
    }

    /// Prints `Mon, 02 Feb 2026 02:40:00 GMT`, as in HTTP's `Date`: in whole seconds, rounded down.
    pub fn http_date(self) -> String {
        let at = self.date_time();
        let (weekday, month) = (at.weekday().to_string(), at.month().to_string());
        format!(
            "{}, {:02} {} {:04} {:02}:{:02}:{:02} GMT",
            weekday.get(..3).unwrap_or_default(),
            at.day(),
            month.get(..3).unwrap_or_default(),
            at.year(),
            at.hour(),
            at.minute(),
            at.second()
        )
    }

    /// The time `duration` before this one.
    pub fn before(self, duration: Duration) -> Self {
        let ticks = i64::try_from(duration.as_nanos() / 100).unwrap_or(i64::MAX);
        Self::from_ticks(self.0.saturating_sub(ticks))
    }

    /// The time `duration` after this one.
    pub fn after(self, duration: Duration) -> Self {
        let ticks = i64::try_from(duration.as_nanos() / 100).unwrap_or(i64::MAX);
        Self::from_ticks(self.0.saturating_add(ticks))
    }

    /// In whole seconds. The constructors limit the year to 1 to 9999, which `time` can represent.
    fn date_time(self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(self.0.div_euclid(10_000_000))
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    fn parts(self) -> (String, i64) {
        let fraction = self.0.rem_euclid(10_000_000);
        let at = self.date_time();
        let text = format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second()
        );
        (text, fraction)
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let ticks = match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_nanos() / 100).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_nanos() / 100).unwrap_or(i64::MAX),
        };
        Self::from_ticks(ticks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operation_timestamps_keep_seven_digits_and_metadata_drops_trailing_zeros() {
        let at = Timestamp::from_ticks(17_700_000_001_234_500);
        assert_eq!(at.seven_digits("Z"), "2026-02-02T02:40:00.1234500Z");
        assert_eq!(at.seven_digits("+00:00"), "2026-02-02T02:40:00.1234500+00:00");
        assert_eq!(at.trimmed(), "2026-02-02T02:40:00.12345Z");
        assert_eq!(Timestamp::from_ticks(17_700_000_000_000_000).trimmed(), "2026-02-02T02:40:00Z");
    }

    #[test]
    fn http_dates_have_whole_seconds_never_later_than_the_time_itself() {
        assert_eq!(
            Timestamp::from_ticks(17_700_000_009_999_999).http_date(),
            "Mon, 02 Feb 2026 02:40:00 GMT"
        );
        assert_eq!(Timestamp::from_ticks(-1).http_date(), "Wed, 31 Dec 1969 23:59:59 GMT");
    }

    #[test]
    fn a_section_never_written_prints_the_first_of_january_of_year_one() {
        assert_eq!(Timestamp::NEVER.trimmed(), "0001-01-01T00:00:00Z");
        assert_eq!(Timestamp::from_ticks(i64::MIN), Timestamp::NEVER);
        assert_eq!(Timestamp::from_ticks(i64::MAX).trimmed(), "9999-12-31T23:59:59.9999999Z");
    }
}
