//! The report of an audit, and how it is added up.

use std::collections::BTreeMap;

use serde::Serialize;

use super::check::Checked;
use crate::domain::{
    drift::{Drift, ORPHAN, Part},
    id::TwinKey,
    ticks::Ticks,
};

/// Maximum number of findings that a report lists individually.
const NAMED: usize = 1000;
/// The class of a finding whose class is unknown.
const UNKNOWN: &str = "unknown";

/// The findings of an audit of one hub.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The hub.
    pub hub: String,
    /// When the audit began.
    pub started_at: Ticks,
    /// When the audit ended.
    pub finished_at: Ticks,
    /// The fraction of the twins that was checked, 0 to 1.
    pub sample: f64,
    /// Whether the audit repairs differences.
    pub repairs: bool,
    /// Number of twins of the hub that were compared.
    pub twins: u64,
    /// Number of documents that were looked for among these twins.
    pub documents: u64,
    /// Number of candidates that changed too recently to be compared. The hub was not asked.
    pub recent: u64,
    /// Number of candidates that changed as recently, and for which the hub was asked all the same.
    pub recent_asked: u64,
    /// Where the next audit continues among these candidates.
    pub recent_next: u64,
    /// Number of candidates that were right when the hub was asked: the query lagged.
    pub cleared: u64,
    /// Number of differences that the hub confirmed, by class.
    pub found: BTreeMap<&'static str, u64>,
    /// Number of these that were repaired, by class.
    pub repaired: BTreeMap<&'static str, u64>,
    /// Number of twins for which the store or the registry gave no answer, and of rows that are not twins. Nothing is known about them, and
    /// nothing was changed.
    pub unknown: u64,
    /// Number of twins that differed again right after their repair: another program writes them, or this process has a defect.
    pub still_different: u64,
    /// Number of documents that lacked identity fields, such as `status`, and have them now.
    pub completed: u64,
    /// Number of documents that lack identity fields because nothing may be written. They do not count as differences.
    pub incomplete: u64,
    /// The first findings.
    pub findings: Vec<Finding>,
}

/// One twin that differs, or whose state is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Id of the device.
    pub device_id: String,
    /// Id of the module.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module_id: Option<String>,
    /// The class of the difference.
    pub class: &'static str,
    /// The first part that differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<&'static str>,
    /// The outcome.
    pub outcome: FindingOutcome,
    /// The reason, if it is not obvious.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The outcome of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingOutcome {
    /// The document now equals the hub's twin.
    Repaired,
    /// The difference stays, because nothing may be written.
    Found,
    /// The store will never take the hub's twin.
    Rejected,
    /// There was no answer.
    Unknown,
    /// A document that is never updated. Only a person should delete it.
    Orphaned,
    /// The twin differed again after its repair.
    StillDifferent,
}

impl Report {
    /// Number of differences that remain after the audit, including flags.
    pub fn left(&self) -> u64 {
        let sum = |classes: &BTreeMap<_, u64>| classes.values().sum::<u64>();
        sum(&self.found) - sum(&self.repaired) + self.still_different
    }

    /// Whether every twin that was to be checked was checked.
    pub fn is_complete(&self) -> bool {
        self.unknown == 0
    }
}

impl Report {
    /// Creates a report without findings.
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

    /// Adds the result of the check of one twin.
    pub(super) fn add(&mut self, key: &TwinKey, checked: Checked) {
        let (drift, outcome, reason) = match checked {
            // Whether the hub is asked about recent ones is decided at the end.
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
