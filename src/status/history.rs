//! The metrics of the last 15 minutes that rates and curves need.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use super::{
    exposition::{Exposition, quantile},
    schema,
};
use crate::{
    domain::id::PartitionId,
    telemetry::{ReadOutcome, WriteOutcome, name},
};

/// Time between two samples.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);
/// Number of samples that are kept: 15 minutes.
const KEPT: usize = 180;
/// Rates are computed over this time.
const WINDOW: Duration = Duration::from_secs(60);
/// An older sample is not used for comparison: the sampling was interrupted.
const OLDEST: Duration = Duration::from_secs(90);

/// Newest sequence numbers.
pub(super) type Ends = BTreeMap<PartitionId, i64>;

/// Counters at one moment.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) completed: f64,
    /// The newest sequence number in each partition of this replica, if it was measured.
    pub(super) ends: Ends,
    pub(super) lag: Option<f64>,
    pub(super) requests: f64,
    pub(super) throttled: f64,
    pub(super) written: f64,
    pub(super) request_units: Vec<(String, f64)>,
    pub(super) freshness: Vec<(f64, f64)>,
}

impl Sample {
    /// A sample of the present metrics.
    pub(super) fn of(metrics: &Exposition<'_>, at: Instant, ends: Ends, lag: Option<f64>) -> Self {
        let outcome = |metric, outcome| metrics.sum_with(metric, "outcome", outcome);
        Self {
            at,
            completed: metrics.sum(name::EVENTS),
            ends,
            lag,
            requests: metrics.sum(name::READS) + metrics.sum(name::WRITES),
            throttled: outcome(name::READS, ReadOutcome::Throttled.label())
                + outcome(name::WRITES, WriteOutcome::Throttled.label()),
            written: outcome(name::WRITES, WriteOutcome::Written.label()),
            request_units: metrics.by(name::REQUEST_UNITS, "purpose").into_iter().collect(),
            freshness: metrics.buckets(name::FRESHNESS),
        }
    }

    fn all_request_units(&self) -> f64 {
        self.request_units.iter().map(|(_, units)| units).sum()
    }
}

/// The changes between two samples.
pub(super) struct Between<'a> {
    earlier: &'a Sample,
    later: &'a Sample,
    /// The earliest sample that knows the ends of all partitions that this replica owns now.
    known_ends: Option<&'a Sample>,
}

impl Between<'_> {
    fn per_second(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        ((of(self.later) - of(self.earlier)) / seconds(self.earlier, self.later)).max(0.0)
    }

    /// Events that were completed per second.
    pub(super) fn completed(&self) -> f64 {
        self.per_second(|sample| sample.completed)
    }

    /// Events that arrived per second, since this replica has owned all its partitions. `None` without partitions.
    pub(super) fn arrived(&self) -> Option<f64> {
        let earlier = self.known_ends?;
        let grown = self.later.ends.iter().filter_map(|(id, end)| Some(end - earlier.ends.get(id)?));
        // A re-created partition begins again.
        let events: i64 = grown.map(|events| events.max(0)).sum();
        Some(events as f64 / seconds(earlier, self.later))
    }

    /// Writes per second.
    pub(super) fn written(&self) -> f64 {
        self.per_second(|sample| sample.written)
    }

    /// The fraction of reads and writes that were throttled.
    pub(super) fn throttled_share(&self) -> Option<f64> {
        let requests = self.later.requests - self.earlier.requests;
        (requests > 0.0).then(|| ((self.later.throttled - self.earlier.throttled) / requests).clamp(0.0, 1.0))
    }

    /// Request units per second by purpose.
    pub(super) fn request_units(&self) -> Vec<(String, f64)> {
        let of = |sample: &Sample, purpose: &str| {
            let found = sample.request_units.iter().find(|(other, _)| other == purpose);
            found.map_or(0.0, |(_, units)| *units)
        };
        let purposes = self.later.request_units.iter().map(|(purpose, _)| purpose);
        purposes.map(|purpose| (purpose.clone(), self.per_second(|sample| of(sample, purpose)))).collect()
    }

    /// A quantile of freshness, in seconds.
    pub(super) fn freshness(&self, wanted: f64) -> Option<f64> {
        quantile(&self.earlier.freshness, &self.later.freshness, wanted)
    }
}

fn seconds(earlier: &Sample, later: &Sample) -> f64 {
    later.at.duration_since(earlier.at).as_secs_f64().max(f64::MIN_POSITIVE)
}

/// Samples, oldest first.
#[derive(Debug, Default)]
pub(super) struct History(VecDeque<Sample>);

impl History {
    /// Adds a sample.
    pub(super) fn push(&mut self, sample: Sample) {
        if self.0.len() > KEPT {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }

    /// The changes from about a minute ago until `now`. `None` if there is no sample to compare with.
    pub(super) fn until<'a>(&'a self, now: &'a Sample) -> Option<Between<'a>> {
        let age = |sample: &Sample| now.at.saturating_duration_since(sample.at);
        let newest = self.0.back().filter(|newest| age(newest) <= OLDEST)?;
        let within = || self.0.iter().filter(|sample| age(sample) <= WINDOW);
        let earlier = within().next().unwrap_or(newest);
        let knows = |sample: &&Sample| now.ends.keys().all(|id| sample.ends.contains_key(id));
        let known_ends = within().find(knows).filter(|sample| !now.ends.is_empty() && now.at > sample.at);
        (now.at > earlier.at).then_some(Between { earlier, later: now, known_ends })
    }

    /// The curves.
    pub(super) fn curves(&self) -> schema::History {
        let pairs = || {
            self.0.iter().zip(self.0.iter().skip(1)).map(|(earlier, later)| {
                // After a pause, one value would represent many.
                let usual = later.at.duration_since(earlier.at) < INTERVAL * 3;
                usual.then_some(Between { earlier, later, known_ends: None })
            })
        };
        let curve = |of: fn(&Between<'_>) -> Option<f64>| {
            pairs().map(|between| between.as_ref().and_then(of).map(rounded)).collect()
        };
        schema::History {
            interval_seconds: INTERVAL.as_secs_f64(),
            lag_events: curve(|between| between.later.lag),
            completed_per_second: curve(|between| Some(between.completed())),
            freshness_p99_seconds: curve(|between| between.freshness(0.99)),
            request_units_per_second: curve(|between| Some(between.per_second(Sample::all_request_units))),
        }
    }
}

/// Curves need no more digits, and the answer is sent every two seconds.
fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(name: &str) -> PartitionId {
        PartitionId { stream: "twins".into(), partition: name.into() }
    }

    fn sample(at: Instant, completed: f64) -> Sample {
        Sample {
            at,
            completed,
            ends: Ends::from([(partition("0"), completed as i64 * 2)]),
            lag: Some(completed),
            requests: completed,
            throttled: completed / 4.0,
            written: completed / 2.0,
            request_units: vec![("live".to_owned(), completed * 6.0)],
            freshness: vec![(0.01, completed), (f64::INFINITY, completed)],
        }
    }

    fn filled(samples: u32) -> (History, Instant) {
        let start = Instant::now();
        let mut history = History::default();
        for number in 0..samples {
            history.push(sample(start + INTERVAL * number, f64::from(number) * 50.0));
        }
        (history, start)
    }

    #[test]
    fn rates_are_over_the_last_minute() {
        let (history, start) = filled(100);
        let now = sample(start + INTERVAL * 100, 5000.0);
        let between = history.until(&now).expect("known");
        assert_eq!(between.earlier.at, start + INTERVAL * 88, "the sample of a minute ago");
        assert_eq!(between.completed().round(), 10.0);
        assert_eq!(between.arrived().map(f64::round), Some(20.0));
        assert_eq!(between.written().round(), 5.0);
        assert_eq!(between.throttled_share(), Some(0.25));
        assert_eq!(between.request_units()[0].1.round(), 60.0);
        assert!(between.freshness(0.99).is_some_and(|seconds| seconds < 0.01));
    }

    #[test]
    fn nothing_is_claimed_where_nobody_took_samples() {
        let (history, start) = filled(2);
        let late = sample(start + INTERVAL + OLDEST + Duration::from_millis(1), 100.0);
        assert!(history.until(&late).is_none());
        assert!(History::default().until(&late).is_none());
    }

    #[test]
    fn partitions_that_come_go_or_begin_again_are_no_arrivals() {
        let (history, start) = filled(2);
        let mut now = sample(start + INTERVAL * 2, 100.0);
        now.ends.insert(partition("1"), 1_000_000);
        assert_eq!(history.until(&now).expect("known").arrived(), None, "one partition is new");
        let mut history = history;
        let mut both = sample(start + INTERVAL, 50.0);
        both.ends.insert(partition("1"), 999_990);
        history.push(both);
        assert_eq!(
            history.until(&now).expect("known").arrived(),
            Some(22.0),
            "since both partitions were known"
        );
        now.ends.insert(partition("0"), 3);
        assert_eq!(history.until(&now).expect("known").arrived(), Some(2.0), "one partition started over");
        now.ends.remove(&partition("1"));
        assert!(history.until(&now).expect("known").arrived().is_some(), "one partition is gone");
        now.ends.clear();
        assert_eq!(history.until(&now).expect("known").arrived(), None, "no partition is known");
    }

    #[test]
    fn curves_are_bounded_and_a_pause_shows_as_a_hole() {
        let (mut history, start) = filled(500);
        assert_eq!(history.curves().lag_events.len(), KEPT);
        history.push(sample(start + INTERVAL * 600, 0.0));
        let curves = history.curves();
        assert_eq!(curves.completed_per_second.len(), KEPT);
        assert_eq!(curves.completed_per_second[0], Some(10.0));
        assert_eq!(curves.completed_per_second[KEPT - 1], None);
        assert_eq!(curves.request_units_per_second[0], Some(60.0));
    }
}
