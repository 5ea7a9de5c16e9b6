//! Parses Prometheus' text format, as far as tests and the demo need it.

/// The metrics of a program at one moment.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    series: Vec<(String, f64)>,
}

impl Sample {
    /// Parses the answer of a `/metrics` endpoint. Lines that are no samples are ignored.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let series = lines.filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        });
        Self { series: series.collect() }
    }

    /// The sum of a metric over all its series with `label`, e.g. `decision="applied"`. With an empty label, the
    /// sum over all series.
    pub fn sum(&self, metric: &str, label: &str) -> f64 {
        let series = self.series.iter().filter(|(series, _)| {
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            name == metric && labels.contains(label)
        });
        series.map(|(_, value)| value).sum()
    }

    /// The series of a metric: their labels in text form, and their values.
    pub fn series<'a>(&'a self, metric: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.series.iter().filter_map(move |(series, value)| {
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            (name == metric).then_some((labels.trim_end_matches('}'), *value))
        })
    }

    /// The same as [`Sample::sum`] for an integer metric.
    pub fn count(&self, metric: &str, label: &str) -> u64 {
        self.sum(metric, label) as u64
    }

    /// A quantile of a histogram over the observations between `earlier` and this sample, interpolated within its
    /// bucket. Above the last bound, it is that bound. `None` if there are no observations.
    pub fn quantile(&self, earlier: &Self, metric: &str, quantile: f64) -> Option<f64> {
        let (before, after) = (earlier.buckets(metric), self.buckets(metric));
        let count = |buckets: &[(f64, f64)], bound: f64| {
            buckets.iter().find(|(other, _)| *other == bound).map_or(0.0, |(_, count)| *count)
        };
        let counts: Vec<_> =
            after.iter().map(|(bound, count_after)| (*bound, count_after - count(&before, *bound))).collect();
        let total = counts.last().map(|(_, count)| *count).filter(|total| *total > 0.0)?;
        let wanted = quantile * total;
        let mut lower = (0.0, 0.0);
        for (bound, count) in counts {
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

    /// Upper bounds with cumulative counts.
    fn buckets(&self, metric: &str) -> Vec<(f64, f64)> {
        let prefix = format!("{metric}_bucket{{");
        let buckets = self.series.iter().filter_map(|(series, count)| {
            let (_, bound) = series.strip_prefix(&prefix)?.split_once("le=\"")?;
            let bound = bound.split('"').next()?;
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
            Some((bound, *count))
        });
        buckets.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# HELP events what happened
events{stream="a",decision="applied"} 7
events{stream="b",decision="applied"} 2
events{stream="b",decision="duplicate"} 1
open 3
delay_bucket{le="0.01"} 50
delay_bucket{le="0.02"} 90
delay_bucket{le="+Inf"} 100
"#;

    #[test]
    fn series_are_summed_by_label() {
        let sample = Sample::parse(TEXT);
        assert_eq!(sample.count("events", ""), 10);
        assert_eq!(sample.count("events", "decision=\"applied\""), 9);
        assert_eq!(sample.count("open", ""), 3);
        assert_eq!(sample.count("event", ""), 0, "a name is not a prefix");
    }

    #[test]
    fn quantiles_are_interpolated_between_two_samples() {
        let (empty, sample) = (Sample::default(), Sample::parse(TEXT));
        let quantile = |quantile| sample.quantile(&empty, "delay", quantile).expect("has samples");
        assert!((quantile(0.5) - 0.01).abs() < 1e-9);
        assert!((quantile(0.7) - 0.015).abs() < 1e-9);
        assert!((quantile(0.99) - 0.02).abs() < 1e-9, "beyond the last bound: at least that");
        assert_eq!(sample.quantile(&sample, "delay", 0.5), None, "nothing happened in between");
    }
}
