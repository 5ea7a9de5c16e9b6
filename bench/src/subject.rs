//! What can be measured, by name: workloads, and series of growth.

use clap::{ValueEnum, builder::PossibleValue};

use crate::{growth::Series, workload::Workload};

/// One thing to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    Workload(Workload),
    Series(Series),
}

/// A value of `--only`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    One(Subject),
    /// All series.
    Growth,
}

impl Subject {
    /// The things to measure, in the order of `asked`. Everything, if `asked` is empty.
    pub(crate) fn wanted(asked: &[Asked]) -> Vec<Self> {
        let series = || Series::value_variants().iter().copied().map(Self::Series);
        if asked.is_empty() {
            let workloads = Workload::value_variants().iter().copied().map(Self::Workload);
            return workloads.chain(series()).collect();
        }
        let mut wanted = Vec::new();
        for asked in asked {
            match asked {
                Asked::One(subject) => wanted.push(*subject),
                Asked::Growth => wanted.extend(series()),
            }
        }
        wanted
    }

    /// Its name.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Workload(workload) => workload.name(),
            Self::Series(series) => series.name(),
        }
    }

    /// Whether the usual way is measured as well.
    pub(crate) fn has_usual(self) -> bool {
        matches!(self, Self::Workload(workload) if workload.has_usual())
    }
}

impl ValueEnum for Asked {
    fn value_variants<'a>() -> &'a [Self] {
        const WORKLOADS: [Workload; 11] = [
            Workload::Hot,
            Workload::Warm,
            Workload::Wide,
            Workload::Distant,
            Workload::Duplicates,
            Workload::Steady500,
            Workload::Steady2000,
            Workload::Start,
            Workload::Backlog,
            Workload::Backfill,
            Workload::Audit,
        ];
        const SERIES: [Series; 4] = [Series::Partitions, Series::Twins, Series::Documents, Series::Replicas];
        const ALL: [Asked; WORKLOADS.len() + SERIES.len() + 1] = {
            let mut all = [Asked::Growth; WORKLOADS.len() + SERIES.len() + 1];
            let mut place = 0;
            while place < WORKLOADS.len() {
                all[place] = Asked::One(Subject::Workload(WORKLOADS[place]));
                place += 1;
            }
            while place < WORKLOADS.len() + SERIES.len() {
                all[place] = Asked::One(Subject::Series(SERIES[place - WORKLOADS.len()]));
                place += 1;
            }
            all
        };
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Self::One(Subject::Workload(workload)) => workload.to_possible_value(),
            Self::One(Subject::Series(series)) => series.to_possible_value(),
            Self::Growth => Some(PossibleValue::new("growth").help("All series of growth")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_can_be_asked_for_by_its_name() {
        let all = Subject::wanted(&[]);
        assert_eq!(all.len(), Workload::value_variants().len() + Series::value_variants().len());
        for subject in all {
            let asked = Asked::from_str(&subject.name(), false).expect("has a name");
            assert_eq!(Subject::wanted(&[asked]), [subject]);
        }
        let growth = Asked::from_str("growth", false).expect("has a name");
        assert_eq!(Subject::wanted(&[growth]).len(), Series::value_variants().len());
    }
}
