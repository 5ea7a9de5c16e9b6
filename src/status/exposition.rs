//! Parses the output of `/metrics`, so that the status always agrees with the metrics.

use std::{collections::BTreeMap, time::Duration};

/// All samples at one moment, by the name of the metric.
#[derive(Debug, Default)]
pub(super) struct Exposition<'a>(BTreeMap<&'a str, Vec<(&'a str, f64)>>);

impl<'a> Exposition<'a> {
    /// Parses Prometheus' text format, as far as this program writes it.
    pub(super) fn read(text: &'a str) -> Self {
        let mut samples: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse() else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            samples.entry(name).or_default().push((labels, value));
        }
        Self(samples)
    }

    /// The sum over all series of a metric. 0 if there is none.
    pub(super) fn sum(&self, metric: &str) -> f64 {
        self.series(metric).map(|(_, value)| value).sum()
    }

    /// The sum over the series with this label.
    pub(super) fn sum_with(&self, metric: &str, label: &str, wanted: &str) -> f64 {
        let carries = |labels: &str| self::label(labels, label).is_some_and(|found| found == wanted);
        self.series(metric).filter(|(labels, _)| carries(labels)).map(|(_, value)| value).sum()
    }

    /// The sums by the value of a label.
    pub(super) fn by(&self, metric: &str, label: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for (labels, value) in self.series(metric) {
            if let Some(found) = self::label(labels, label) {
                *sums.entry(found).or_default() += value;
            }
        }
        sums
    }

    /// The sums by the value of `label`, over the series with another given label.
    pub(super) fn by_with(
        &self,
        metric: &str,
        label: &str,
        (other, wanted): (&str, &str),
    ) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for (labels, value) in self.series(metric) {
            if self::label(labels, other).is_some_and(|found| found == wanted)
                && let Some(found) = self::label(labels, label)
            {
                *sums.entry(found).or_default() += value;
            }
        }
        sums
    }

    /// The buckets of a histogram: upper bounds with cumulative counts, smallest bound first.
    pub(super) fn buckets(&self, metric: &str) -> Vec<(f64, f64)> {
        let series = self.series_of(&format!("{metric}_bucket"));
        let buckets = series.iter().filter_map(|(labels, count)| {
            let bound = label(labels, "le")?;
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
            Some((bound, *count))
        });
        buckets.collect()
    }

    fn series(&self, metric: &str) -> impl Iterator<Item = (&'a str, f64)> {
        self.series_of(metric).iter().copied()
    }

    fn series_of(&self, metric: &str) -> &[(&'a str, f64)] {
        self.0.get(metric).map_or(&[], Vec::as_slice)
    }
}

/// The value of one label in `name="value",other="value"}`.
fn label(labels: &str, wanted: &str) -> Option<String> {
    let mut rest = labels;
    loop {
        let (name, after) = rest.split_once("=\"")?;
        let (value, after) = quoted(after)?;
        if name == wanted {
            return Some(value);
        }
        rest = after.trim_start_matches(',');
    }
}

/// The text up to the closing quote, without escapes, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((place, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[place + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            plain => value.push(plain),
        }
    }
    None
}

/// A quantile of the values recorded between two states of a histogram, interpolated within its bucket. Beyond the last bound, it is that
/// bound. `None` if nothing was recorded.
pub(super) fn quantile(before: &[(f64, f64)], after: &[(f64, f64)], quantile: f64) -> Option<f64> {
    let earlier =
        |bound: f64| before.iter().find(|(other, _)| *other == bound).map_or(0.0, |(_, count)| *count);
    let recorded = |(bound, count): &(f64, f64)| (*bound, count - earlier(*bound));
    let total = after.last().map(recorded).map(|(_, count)| count).filter(|total| *total > 0.0)?;
    let wanted = quantile * total;
    let mut lower = (0.0, 0.0);
    for (bound, count) in after.iter().map(recorded) {
        if count >= wanted {
            if bound.is_infinite() {
                return Some(lower.0);
            }
            let share = (wanted - lower.1) / (count - lower.1).max(1.0);
            return Some(lower.0 + (bound - lower.0) * share);
        }
        lower = (bound, count);
    }
    None
}

/// Counters as integers.
pub(super) fn whole(sums: BTreeMap<String, f64>) -> BTreeMap<String, u64> {
    sums.into_iter().map(|(label, value)| (label, value as u64)).collect()
}

/// A gauge in seconds as a duration. A negative value becomes zero.
pub(super) fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP events what happened\n\
        events{stream=\"a\",decision=\"applied\"} 7\n\
        events{stream=\"b\",decision=\"applied\"} 2\n\
        events{stream=\"b\",decision=\"stale\"} 1\n\
        odd{name=\"a\\\"b\\\\c\\nd, e=\\\"f\\\"\",other=\"x\"} 3\n\
        plain 1.5\n\
        \n\
        broken line\n\
        seconds_bucket{le=\"0.1\"} 50\n\
        seconds_bucket{le=\"1\"} 100\n\
        seconds_bucket{le=\"+Inf\"} 101\n";

    #[test]
    fn samples_are_found_by_name_and_label() {
        let exposition = Exposition::read(TEXT);
        assert_eq!(exposition.sum("events"), 10.0);
        assert_eq!(exposition.sum_with("events", "decision", "applied"), 9.0);
        assert_eq!(
            exposition.sum_with("events", "decision", "appl"),
            0.0,
            "a part of a value must not match"
        );
        assert_eq!(exposition.sum("plain"), 1.5);
        assert_eq!(exposition.sum("nothing"), 0.0);
        let by_stream = exposition.by("events", "stream");
        assert_eq!(by_stream, BTreeMap::from([("a".to_owned(), 7.0), ("b".to_owned(), 3.0)]));
        let stale = exposition.by_with("events", "stream", ("decision", "stale"));
        assert_eq!(stale, BTreeMap::from([("b".to_owned(), 1.0)]));
        let odd = exposition.by("odd", "name");
        assert_eq!(odd.keys().collect::<Vec<_>>(), ["a\"b\\c\nd, e=\"f\""]);
        assert_eq!(exposition.sum_with("odd", "other", "x"), 3.0);
    }

    #[test]
    fn quantiles_are_of_what_was_recorded_in_between() {
        let after = Exposition::read(TEXT).buckets("seconds");
        assert_eq!(quantile(&[], &after, 0.25).map(|found| (found * 1e4).round()), Some(505.0));
        assert_eq!(quantile(&[], &after, 1.0), Some(1.0), "above the last bound the quantile is that bound");
        let before = [(0.1, 50.0), (1.0, 90.0), (f64::INFINITY, 91.0)];
        assert_eq!(quantile(&before, &after, 0.5).map(|found| (found * 1e2).round()), Some(55.0));
        assert_eq!(quantile(&after, &after, 0.5), None, "without values there is no quantile");
        assert_eq!(quantile(&[], &[], 0.5), None);
    }
}
