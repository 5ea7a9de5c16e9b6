//! Durations, times and numbers as text for people.

use std::time::Duration;

use super::ticks::Ticks;

/// A duration as text for people, with two digits.
pub fn about(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        ..=0.0 => "0 s".to_owned(),
        ..0.0095 => format!("{:.1} ms", seconds * 1e3),
        ..0.9995 => format!("{:.0} ms", seconds * 1e3),
        ..9.95 => format!("{seconds:.1} s"),
        ..119.5 => format!("{seconds:.0} s"),
        ..7170.0 => format!("{:.0} min", seconds / 60.0),
        ..172_800.0 => format!("{:.0} h", seconds / 3600.0),
        _ => format!("{:.0} days", seconds / 86_400.0),
    }
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The time of day, with the date if it is not today.
pub(super) fn clock(at: Ticks, now: Ticks) -> String {
    let (at, now) = (at.to_string(), now.to_string());
    // `2026-01-31T08:00:00.1234567Z`
    match (at.get(..10), at.get(11..16), now.get(..10)) {
        (Some(date), Some(time), Some(today)) if date == today => format!("{time} UTC"),
        (Some(date), Some(time), _) => format!("{date} {time} UTC"),
        _ => at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_numbers_read_as_people_say_them() {
        let cases = [
            (0.0, "0 s"),
            (0.0012, "1.2 ms"),
            (0.012, "12 ms"),
            (0.9, "900 ms"),
            (1.26, "1.3 s"),
            (12.4, "12 s"),
            (119.0, "119 s"),
            (120.0, "2 min"),
            (7200.0, "2 h"),
            (172_800.0, "2 days"),
        ];
        for (seconds, text) in cases {
            assert_eq!(about(Duration::from_secs_f64(seconds)), text);
        }
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
