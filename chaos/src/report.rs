//! The results of a run: one line per kind of fault, and the comparison at the end.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use serde::Serialize;

use crate::fault::Fault;

/// One fault, from its beginning until the cluster had recovered.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Injection {
    pub(crate) fault: Fault,
    /// From the first step of the fault to the last.
    pub(crate) duration: Duration,
    /// Until `/readyz` of an affected replica answered 503, or not at all. `None`: that never happened.
    pub(crate) reported_after: Option<Duration>,
    /// From the end of the fault until all replicas were ready, all partitions owned, and new changes in their
    /// documents.
    pub(crate) recovery: Duration,
    /// The last condition that was not met yet.
    pub(crate) last: String,
    /// Number of deliveries of events that repeated an earlier delivery.
    pub(crate) repeated: u64,
}

/// The line of one kind of fault.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Line {
    pub(crate) fault: Fault,
    pub(crate) count: usize,
    pub(crate) duration: Spread,
    /// How often it was reported, and after what time.
    pub(crate) reported: usize,
    pub(crate) reported_after: Option<Spread>,
    pub(crate) recovery: Spread,
    pub(crate) repeated: u64,
}

/// Median and largest value, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) largest: f64,
}

impl Spread {
    /// `None` if there are no values.
    fn of(values: impl Iterator<Item = Duration>) -> Option<Self> {
        let mut seconds: Vec<_> = values.map(|value| value.as_secs_f64()).collect();
        seconds.sort_by(f64::total_cmp);
        let (largest, median) = (*seconds.last()?, seconds[seconds.len() / 2]);
        Some(Self { median, largest })
    }

    fn shown(self) -> String {
        format!("{:.1} ({:.1})", self.median, self.largest)
    }
}

/// One line per kind that occurred, in the order of the kinds.
pub(crate) fn lines(injections: &[Injection]) -> Vec<Line> {
    let mut kinds: BTreeMap<Fault, Vec<&Injection>> = BTreeMap::new();
    for inject in injections {
        kinds.entry(inject.fault).or_default().push(inject);
    }
    let line = |(fault, injections): (Fault, Vec<&Injection>)| {
        Some(Line {
            fault,
            count: injections.len(),
            duration: Spread::of(injections.iter().map(|inject| inject.duration))?,
            reported: injections.iter().filter(|inject| inject.reported_after.is_some()).count(),
            reported_after: Spread::of(injections.iter().filter_map(|inject| inject.reported_after)),
            recovery: Spread::of(injections.iter().map(|inject| inject.recovery))?,
            repeated: injections.iter().map(|inject| inject.repeated).sum(),
        })
    };
    kinds.into_iter().filter_map(line).collect()
}

/// Number of faults that had to be reported, and were not.
pub(crate) fn not_reported(injections: &[Injection]) -> usize {
    injections
        .iter()
        .filter(|inject| inject.reported_after.is_none() && inject.fault.must_be_reported())
        .count()
}

/// The lines as a Markdown table, numbered.
pub(crate) fn table(lines: &[Line]) -> String {
    let mut text = String::from(
        "| no. | fault | count | duration, s | reported by `/readyz` | after, s | recovery, s | repeated events |\n\
         |---:|---|---:|---:|---:|---:|---:|---:|\n",
    );
    for (number, line) in (1..).zip(lines) {
        let reported = match (line.reported, line.fault.must_be_reported()) {
            (0, false) => "–".to_owned(),
            (reported, _) => format!("{reported} of {}", line.count),
        };
        let after = line.reported_after.map_or_else(|| "–".to_owned(), Spread::shown);
        let _ = writeln!(
            text,
            "| {number} | `{}`: {} | {} | {} | {reported} | {after} | {} | {} |",
            line.fault.name(),
            line.fault.meaning(),
            line.count,
            line.duration.shown(),
            line.recovery.shown(),
            line.repeated,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inject(fault: Fault, duration: u64, reported_after: Option<u64>, recovery: u64) -> Injection {
        let seconds = Duration::from_secs;
        let (duration, reported_after, recovery) =
            (seconds(duration), reported_after.map(seconds), seconds(recovery));
        Injection { fault, duration, reported_after, recovery, last: String::new(), repeated: 5 }
    }

    #[test]
    fn faults_of_a_kind_share_a_line() {
        let injections = [
            inject(Fault::Replays, 4, None, 0),
            inject(Fault::Kill, 1, Some(0), 3),
            inject(Fault::Kill, 2, None, 9),
            inject(Fault::Kill, 3, Some(1), 4),
        ];
        let lines = lines(&injections);
        assert_eq!(lines.iter().map(|line| line.fault).collect::<Vec<_>>(), [Fault::Kill, Fault::Replays]);
        let Line { count, duration, reported, recovery, repeated, .. } = &lines[0];
        assert_eq!((*count, *reported, *repeated), (3, 2, 15));
        assert_eq!(*duration, Spread { median: 2.0, largest: 3.0 });
        assert_eq!(*recovery, Spread { median: 4.0, largest: 9.0 });
        assert_eq!(not_reported(&injections), 1, "replays need not be reported");
        let table = table(&lines);
        assert!(table.contains("| 1 | `kill`: `kill -9` of one replica"), "{table}");
        assert!(table.contains("| 3 | 2.0 (3.0) | 2 of 3 | 1.0 (1.0) | 4.0 (9.0) | 15 |"), "{table}");
        assert!(table.contains("| – | – | 0.0 (0.0) | 5 |"), "{table}");
    }
}
