//! Quantities as text for people.

use std::time::Duration;

/// Units from the largest to the smallest, with their seconds.
const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)];

/// `8 d`, `1 h 30 min`, `25 s`: the two largest units; under a second, milliseconds.
pub(super) fn duration(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        return format!("{} ms", duration.as_millis());
    }
    let mut left = duration.as_secs();
    let mut parts = Vec::new();
    for (name, seconds) in UNITS {
        let count = left / seconds;
        left %= seconds;
        if count > 0 {
            parts.push(format!("{count} {name}"));
        }
        if count == 0 && !parts.is_empty() || parts.len() == 2 {
            break;
        }
    }
    parts.join(" ")
}

/// `1 partition`, `2 partitions`.
pub(super) fn count(count: usize, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

/// `512 MiB`, `3.4 GiB`.
pub(super) fn bytes(bytes: u64) -> String {
    const NAMES: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = bytes as f64;
    let mut name = 0;
    while size >= 1024.0 && name + 1 < NAMES.len() {
        size /= 1024.0;
        name += 1;
    }
    let digits = usize::from(name > 2 && size < 10.0);
    format!("{size:.digits$} {}", NAMES[name])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_short_and_exact_enough() {
        for (seconds, expected) in [
            (1, "1 s"),
            (25, "25 s"),
            (90, "1 min 30 s"),
            (5400, "1 h 30 min"),
            (3600, "1 h"),
            (86_400 * 8, "8 d"),
            (86_400 + 3700, "1 d 1 h"),
            (86_400 + 70, "1 d"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), expected);
        }
        assert_eq!(duration(Duration::from_millis(300)), "300 ms");
        assert_eq!(
            (count(1, "partition"), count(2, "partition")),
            ("1 partition".into(), "2 partitions".into())
        );
        assert_eq!(
            [0, 1023, 1 << 20, 3 << 30, 10 << 30, 20 << 30, u64::MAX].map(bytes),
            ["0 B", "1023 B", "1 MiB", "3.0 GiB", "10 GiB", "20 GiB", "16777216 TiB"]
        );
    }
}
