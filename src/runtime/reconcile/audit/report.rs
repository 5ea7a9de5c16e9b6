//! What an audit found, and how it is added up.

use std::collections::BTreeMap;

use serde::Serialize;

use super::check::Checked;
use crate::domain::{
    drift::{Drift, ORPHAN, Part},
    id::TwinKey,
    ticks::Ticks,
};

/// Findings that a report names one by one.
const NAMED: usize = 1000;
/// The class of findings that have none.
const UNKNOWN: &str = "unknown";

/// What an audit of one hub found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The hub.
    pub hub: String,
    /// When it began.
    pub started_at: Ticks,
    /// When it ended.
    pub finished_at: Ticks,
    /// The part of the twins that was looked at, 0 to 1.
    pub sample: f64,
    /// Whether differences were to be repaired.
    pub repairs: bool,
    /// Twins of the hub that were compared.
    pub twins: u64,
    /// Documents that were looked for among them.
    pub documents: u64,
    /// A candidate that changed too recently to be compared: nobody was asked.
    pub recent: u64,
    /// A candidate that changed as recently, and was asked about all the same.
    pub recent_asked: u64,
    /// Where the next scan goes on among these.
    pub recent_next: u64,
    /// A candidate that was right when the hub was asked: the query was behind.
    pub cleared: u64,
    /// Differences that the hub confirmed, by class.
    pub found: BTreeMap<&'static str, u64>,
    /// Of these, the repaired ones by class.
    pub repaired: BTreeMap<&'static str, u64>,
    /// Twins about which store or registry gave no answer, and rows that are no twins: nothing is known, nothing was changed.
    pub unknown: u64,
    /// Repaired, and different again at once: somebody else writes, or something is wrong with us.
    pub still_different: u64,
    /// Documents that lacked fields of the identity, such as `status`, and have them now.
    pub completed: u64,
    /// Documents that lack fields of the identity: nothing was to be written. They are no difference.
    pub incomplete: u64,
    /// The first findings.
    pub findings: Vec<Finding>,
}

/// One twin that differs, or that is not known about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The device.
    pub device_id: String,
    /// The module.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module_id: Option<String>,
    /// The class.
    pub class: &'static str,
    /// The first part that differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<&'static str>,
    /// What became of it.
    pub outcome: FindingOutcome,
    /// Why, where that is not plain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What became of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingOutcome {
    /// It says now what the hub says.
    Repaired,
    /// Nothing was to be written.
    Found,
    /// The store will never take it.
    Rejected,
    /// Nobody answered.
    Unknown,
    /// A document that nobody updates, which only a person should delete.
    Orphaned,
    /// Different again after its repair.
    StillDifferent,
}

impl Report {
    /// Differences that are there after the audit, flags among them.
    pub fn left(&self) -> u64 {
        let sum = |classes: &BTreeMap<_, u64>| classes.values().sum::<u64>();
        sum(&self.found) - sum(&self.repaired) + self.still_different
    }

    /// Whether every twin that was to be looked at was.
    pub fn is_complete(&self) -> bool {
        self.unknown == 0
    }
}

impl Report {
    /// Nothing found yet.
    pub(in crate::runtime::reconcile) fn new(hub: &str, now: Ticks, sample: f64, repairs: bool) -> Self {
        let none = || Drift::CLASSES.into_iter().map(|class| (class, 0)).collect::<BTreeMap<_, _>>();
        let mut found = none();
        found.insert(ORPHAN, 0);
        Self {
            hub: hub.to_owned(),
            started_at: now,
            finished_at: now,
            sample,
            repairs,
            twins: 0,
            documents: 0,
            recent: 0,
            recent_asked: 0,
            recent_next: 0,
            cleared: 0,
            found,
            repaired: none(),
            unknown: 0,
            still_different: 0,
            completed: 0,
            incomplete: 0,
            findings: Vec::new(),
        }
    }

    /// Adds what one twin's turn came to.
    pub(super) fn add(&mut self, key: &TwinKey, checked: Checked) {
        let (drift, outcome, reason) = match checked {
            // Whether the recent ones are asked about is decided in the end.
            Checked::Equal | Checked::Recent(_) => return,
            Checked::Cleared => {
                self.cleared += 1;
                return;
            }
            Checked::Completed => {
                self.completed += 1;
                return;
            }
            Checked::Incomplete => {
                self.incomplete += 1;
                return;
            }
            Checked::Orphan(reason) => {
                *self.found.entry(ORPHAN).or_default() += 1;
                self.name(key, ORPHAN, None, FindingOutcome::Orphaned, Some(reason));
                return;
            }
            Checked::Confirmed(drift, outcome, reason) => {
                *self.found.entry(drift.class()).or_default() += 1;
                if outcome == FindingOutcome::Repaired {
                    *self.repaired.entry(drift.class()).or_default() += 1;
                }
                (Some(drift), outcome, reason)
            }
            Checked::Unknown(candidate, reason) => {
                self.unknown += 1;
                (candidate, FindingOutcome::Unknown, Some(reason))
            }
        };
        self.name(key, drift.map_or(UNKNOWN, Drift::class), drift, outcome, reason);
    }

    /// Adds a twin that differs again right after its repair.
    pub(super) fn add_still_different(&mut self, key: &TwinKey) {
        self.still_different += 1;
        self.name(key, UNKNOWN, None, FindingOutcome::StillDifferent, None);
    }

    fn name(
        &mut self,
        key: &TwinKey,
        class: &'static str,
        drift: Option<Drift>,
        outcome: FindingOutcome,
        reason: Option<String>,
    ) {
        if self.findings.len() >= NAMED {
            return;
        }
        let part = match drift {
            Some(Drift::Different(part)) => Some(Part::name(part)),
            Some(Drift::Missing | Drift::Extra | Drift::Flagged | Drift::Incomplete) | None => None,
        };
        self.findings.push(Finding {
            device_id: key.device.clone(),
            module_id: key.module.clone(),
            class,
            part,
            outcome,
            reason,
        });
    }
}
