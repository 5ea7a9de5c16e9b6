//! What a run came to: a line for each kind of fault, and the comparison in the end.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use serde::Serialize;

use crate::fault::Fault;

/// One fault, from its beginning until everything was in order again.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Injection {
    pub(crate) fault: Fault,
    /// From the first step of it to the last.
    pub(crate) held: Duration,
    /// Until `/readyz` of a struck replica said 503 or nothing; `None`: it never did.
    pub(crate) told: Option<Duration>,
    /// From its end until all replicas were ready, all partitions owned, and fresh changes in their documents.
    pub(crate) recovery: Duration,
    /// What was not in order last.
    pub(crate) last: String,
    /// Events that were handed to a receiver beyond one time each.
    pub(crate) repeated: u64,
}

/// The line of one kind.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Line {
    pub(crate) fault: Fault,
    pub(crate) count: usize,
    pub(crate) held: Spread,
    /// How often it was told, and after how long.
    pub(crate) told: usize,
    pub(crate) told_after: Option<Spread>,
    pub(crate) recovery: Spread,
    pub(crate) repeated: u64,
}

/// Median and largest, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) largest: f64,
}

impl Spread {
    /// `None`: there is no value.
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

/// A line for each kind that struck, in the order of the kinds.
pub(crate) fn lines(injections: &[Injection]) -> Vec<Line> {
    let mut kinds: BTreeMap<Fault, Vec<&Injection>> = BTreeMap::new();
    for inject in injections {
        kinds.entry(inject.fault).or_default().push(inject);
    }
    let line = |(fault, injections): (Fault, Vec<&Injection>)| {
        Some(Line {
            fault,
            count: injections.len(),
            held: Spread::of(injections.iter().map(|inject| inject.held))?,
            told: injections.iter().filter(|inject| inject.told.is_some()).count(),
            told_after: Spread::of(injections.iter().filter_map(|inject| inject.told)),
            recovery: Spread::of(injections.iter().map(|inject| inject.recovery))?,
            repeated: injections.iter().map(|inject| inject.repeated).sum(),
        })
    };
    kinds.into_iter().filter_map(line).collect()
}

/// Faults that had to be told, and were not.
pub(crate) fn untold(injections: &[Injection]) -> usize {
    injections.iter().filter(|inject| inject.told.is_none() && inject.fault.has_to_be_told()).count()
}

/// The lines as a table in Markdown, numbered.
pub(crate) fn table(lines: &[Line]) -> String {
    let mut text = String::from(
        "| no. | fault | times | held, s | told by `/readyz` | after, s | recovered, s | events again |\n\
         |---:|---|---:|---:|---:|---:|---:|---:|\n",
    );
    for (number, line) in (1..).zip(lines) {
        let told = match (line.told, line.fault.has_to_be_told()) {
            (0, false) => "–".to_owned(),
            (told, _) => format!("{told} of {}", line.count),
        };
        let after = line.told_after.map_or_else(|| "–".to_owned(), Spread::shown);
        let _ = writeln!(
            text,
            "| {number} | `{}`: {} | {} | {} | {told} | {after} | {} | {} |",
            line.fault.name(),
            line.fault.meaning(),
            line.count,
            line.held.shown(),
            line.recovery.shown(),
            line.repeated,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inject(fault: Fault, held: u64, told: Option<u64>, recovery: u64) -> Injection {
        let seconds = Duration::from_secs;
        let (held, told, recovery) = (seconds(held), told.map(seconds), seconds(recovery));
        Injection { fault, held, told, recovery, last: String::new(), repeated: 5 }
    }

    #[test]
    fn strikes_of_a_kind_share_a_line() {
        let injections = [
            inject(Fault::Replays, 4, None, 0),
            inject(Fault::Kill, 1, Some(0), 3),
            inject(Fault::Kill, 2, None, 9),
            inject(Fault::Kill, 3, Some(1), 4),
        ];
        let lines = lines(&injections);
        assert_eq!(lines.iter().map(|line| line.fault).collect::<Vec<_>>(), [Fault::Kill, Fault::Replays]);
        let Line { count, held, told, recovery, repeated, .. } = &lines[0];
        assert_eq!((*count, *told, *repeated), (3, 2, 15));
        assert_eq!(*held, Spread { median: 2.0, largest: 3.0 });
        assert_eq!(*recovery, Spread { median: 4.0, largest: 9.0 });
        assert_eq!(untold(&injections), 1, "replays need not be told");
        let table = table(&lines);
        assert!(table.contains("| 1 | `kill`: `kill -9` of one replica"), "{table}");
        assert!(table.contains("| 3 | 2.0 (3.0) | 2 of 3 | 1.0 (1.0) | 4.0 (9.0) | 15 |"), "{table}");
        assert!(table.contains("| – | – | 0.0 (0.0) | 5 |"), "{table}");
    }
}
