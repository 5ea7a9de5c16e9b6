//! Reads Prometheus' text format, as far as the demo needs it.

use crate::telemetry::name;

/// The daemon's metrics at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Sample {
    series: Vec<(String, f64)>,
}

impl Sample {
    pub(super) fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let series = lines.filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        });
        Self {
            series: series.collect(),
        }
    }

    /// The sum of a metric over all its series that carry `label`.
    fn sum(&self, metric: &str, label: &str) -> f64 {
        let series = self.series.iter().filter(|(series, _)| {
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            name == metric && labels.contains(label)
        });
        series.map(|(_, value)| value).sum()
    }

    /// Events that were decided on, ignored or dead-lettered.
    pub(super) fn handled(&self) -> u64 {
        self.sum(name::EVENTS, "") as u64
    }

    /// Events that were decided in this way.
    pub(super) fn decided(&self, decision: &str) -> u64 {
        self.sum(name::EVENTS, &format!("decision=\"{decision}\"")) as u64
    }

    /// Events between intake and completion.
    pub(super) fn in_flight(&self) -> u64 {
        self.sum(name::IN_FLIGHT_EVENTS, "") as u64
    }

    /// Writes that became durable.
    pub(super) fn writes(&self) -> u64 {
        self.sum(name::WRITES, "outcome=\"written\"") as u64
    }

    /// Point reads.
    pub(super) fn reads(&self) -> u64 {
        self.sum(name::READS, "") as u64
    }

    /// Request units charged.
    pub(super) fn request_units(&self) -> f64 {
        self.sum(name::REQUEST_UNITS, "")
    }

    /// The quantile of freshness between `earlier` and this sample, in seconds, interpolated within its bucket.
    pub(super) fn freshness(&self, earlier: &Self, quantile: f64) -> Option<f64> {
        let (before, after) = (earlier.buckets(), self.buckets());
        let count = |buckets: &[(f64, f64)], bound: f64| {
            buckets
                .iter()
                .find(|(other, _)| *other == bound)
                .map_or(0.0, |(_, count)| *count)
        };
        let counts: Vec<_> = after
            .iter()
            .map(|(bound, count_after)| (*bound, count_after - count(&before, *bound)))
            .collect();
        let total = counts
            .last()
            .map(|(_, count)| *count)
            .filter(|total| *total > 0.0)?;
        let wanted = quantile * total;
        let mut lower = (0.0, 0.0);
        for (bound, count) in counts {
            if count >= wanted {
                if bound.is_infinite() {
                    return Some(lower.0); // at least
                }
                let share = (wanted - lower.1) / (count - lower.1).max(1.0);
                return Some(lower.0 + (bound - lower.0) * share);
            }
            lower = (bound, count);
        }
        None
    }

    /// Upper bounds with cumulative counts.
    fn buckets(&self) -> Vec<(f64, f64)> {
        let prefix = format!("{}_bucket{{", name::FRESHNESS);
        let buckets = self.series.iter().filter_map(|(series, count)| {
            let (_, bound) = series.strip_prefix(&prefix)?.split_once("le=\"")?;
            let bound = bound.split('"').next()?;
            Some((
                if bound == "+Inf" {
                    f64::INFINITY
                } else {
                    bound.parse().ok()?
                },
                *count,
            ))
        });
        buckets.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# HELP x
twinsync_events_total{stream="a",decision="applied"} 7
twinsync_events_total{stream="b",decision="applied"} 2
twinsync_events_total{stream="b",decision="duplicate"} 1
twinsync_in_flight_events 3
twinsync_freshness_seconds_bucket{le="0.01"} 50
twinsync_freshness_seconds_bucket{le="0.02"} 90
twinsync_freshness_seconds_bucket{le="+Inf"} 100
"#;

    #[test]
    fn series_are_summed_by_label() {
        let sample = Sample::parse(TEXT);
        assert_eq!(
            (sample.handled(), sample.decided("applied"), sample.in_flight()),
            (10, 9, 3)
        );
    }

    #[test]
    fn quantiles_are_interpolated_between_two_samples() {
        let (empty, sample) = (Sample::default(), Sample::parse(TEXT));
        let quantile = |quantile| sample.freshness(&empty, quantile).expect("has samples");
        assert!((quantile(0.5) - 0.01).abs() < 1e-9);
        assert!((quantile(0.7) - 0.015).abs() < 1e-9);
        assert!(
            (quantile(0.99) - 0.02).abs() < 1e-9,
            "beyond the last bound: at least that"
        );
        assert_eq!(
            sample.freshness(&sample, 0.5),
            None,
            "nothing happened in between"
        );
    }
}
