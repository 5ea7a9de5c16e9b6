//! The answer of `/api/status`: what the page shows, what `twinsync status` prints, what scripts read.
//!
//! Times are RFC 3339 in UTC, durations are seconds, rates are per second. What is not known is `null` and never 0. Fields
//! are only added within one [`SCHEMA`]; a field that changes its meaning or goes away raises it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::{
    headline::Headline,
    query::{Declared, Row},
    ticks::Ticks,
};

/// The version of this answer.
pub const SCHEMA: u32 = 1;

/// What one replica knows about itself at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// [`SCHEMA`].
    pub schema: u32,
    /// When this was asked.
    pub at: Ticks,
    /// Who answers.
    pub replica: Replica,
    /// How it is and why, in one sentence.
    pub headline: Headline,
    /// Whether its loops turn, as `/livez` says.
    pub live: bool,
    /// Whether it does its work, as `/readyz` says.
    pub ready: bool,
    /// Why not.
    pub reasons: Vec<String>,
    /// What is out of order without keeping it from its work.
    pub warnings: Vec<String>,
    /// How far behind the copy is.
    pub freshness: Freshness,
    /// The partition that loses events first if nothing moves any more.
    pub loss: Option<Loss>,
    /// Partitions: this replica's, then those of others; the one that is furthest behind first.
    pub partitions: Vec<Partition>,
    /// What it needs to do its work.
    pub dependencies: Vec<Dependency>,
    /// Tokens and signatures that show services who it is.
    #[serde(default)]
    pub tokens: Vec<Token>,
    /// What flows.
    pub flow: Flow,
    /// What Cosmos DB is asked for.
    pub store: Store,
    /// Events by what was decided about them, since the start.
    pub decisions: BTreeMap<String, u64>,
    /// Twins that are not as they should be.
    pub twins: Twins,
    /// Declared counts.
    #[serde(default)]
    pub counts: Counts,
    /// Events that can never be applied.
    pub dead_letters: DeadLetters,
    /// The scans over all twins of each IoT hub.
    pub hubs: Vec<Hub>,
    /// Warnings and errors that were logged, one entry per kind, the latest first.
    pub log: Vec<Logged>,
    /// The last minutes.
    pub history: History,
}

impl Status {
    /// Whether something is being asked for the first time since somebody looks: a moment later, more is known.
    pub fn is_asking(&self) -> bool {
        let stored = &self.dead_letters.stored;
        let unknown = |partition: &Partition| {
            partition.basis.as_deref() == Some("checkpoint")
                && partition.lag_measured.is_none()
                && partition.reason.is_none()
        };
        let asking = stored.asked.is_none() || self.partitions.iter().any(unknown);
        self.replica.phase == "running" && asking
    }
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replica {
    /// Its name among the replicas, as leases carry it.
    pub name: String,
    /// Version of the build.
    pub version: String,
    /// Source revision of the build.
    pub revision: String,
    /// When the process began.
    pub started: Ticks,
    /// `starting`, `running` or `stopping`.
    pub phase: String,
}

/// How far behind the copy is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Freshness {
    /// Since the oldest event was received that is not completed; 0 where there is none.
    pub oldest_incomplete_seconds: f64,
    /// Median time from the hub's operation to its durable copy in the last minute; `null` without changes.
    pub p50_seconds: Option<f64>,
    /// The same for 99 of 100.
    pub p99_seconds: Option<f64>,
}

/// Declared counts, as `/api/counts` answers them as well.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// When the changes of the container were last read to their end, by the replica's clock: the counts are of this moment or later;
    /// `null`: not all documents have been read yet, or nothing is declared.
    pub as_of: Option<Ticks>,
    /// Documents that have been read since counting began anew.
    pub documents: u64,
    /// Documents that count for nothing, since nobody can read them.
    pub unreadable: u64,
    /// The counts, in the order of the configuration.
    pub counts: Vec<Count>,
}

/// A declared count.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Count {
    /// Its name.
    pub name: String,
    /// The query whose rows it keeps.
    pub query: String,
    /// Twins over all groups; `null`: not known yet.
    pub total: Option<u64>,
    /// The rows that the query would give; `null`: not known yet, or more than are told apart. In the status, the largest of them, the
    /// largest first.
    pub rows: Option<Vec<serde_json::Value>>,
    /// Rows that are left out.
    pub omitted: u64,
}

/// Rows of a count in the status, which is sent every other second.
const LARGEST: usize = 12;

impl Counts {
    /// What is shown at this moment.
    pub fn of(counts: &crate::telemetry::Counts) -> Self {
        let Some(shown) = counts.get() else { return Self::default() };
        let count = |(place, declared): (usize, &Declared)| {
            let counted = shown.counted.as_ref().and_then(|counted| counted.get(place));
            Count {
                name: declared.name().to_owned(),
                query: declared.query().to_string(),
                total: counted.map(|counted| counted.total),
                rows: counted
                    .and_then(|counted| Some(counted.rows.as_ref()?.iter().map(Row::json).collect())),
                omitted: 0,
            }
        };
        Self {
            as_of: shown.as_of,
            documents: shown.documents,
            unreadable: shown.unreadable as u64,
            counts: shown.declared.iter().enumerate().map(count).collect(),
        }
    }

    /// The same with the largest groups only.
    #[must_use]
    pub fn largest(mut self) -> Self {
        for count in &mut self.counts {
            if let Some(rows) = &mut count.rows {
                rows.sort_by_key(|row| std::cmp::Reverse(row["twins"].as_u64()));
                count.omitted = rows.len().saturating_sub(LARGEST) as u64;
                rows.truncate(LARGEST);
            }
        }
        self
    }
}

/// When events are lost if nothing moves any more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Loss {
    /// Retention minus the age of the oldest event that is not completed.
    pub seconds: f64,
    /// Its Event Hub.
    pub stream: String,
    /// The partition.
    pub partition: String,
    /// `eventhubs.retention`.
    pub retention_seconds: f64,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Partition {
    /// The Event Hub.
    pub stream: String,
    /// Its id there.
    pub partition: String,
    /// Whether this replica owns it. What is known of others comes from the shared leases and checkpoints.
    pub ours: bool,
    /// What its figures come from: `own`, or `checkpoint` where they are computed from the shared checkpoint and what the
    /// partition holds.
    pub basis: Option<String>,
    /// The replica that owns it; `null`: nobody.
    pub owner: Option<String>,
    /// `connecting`, `receiving`, `waiting`, `throttled`; `elsewhere` at another replica, `unread` where nobody owns it.
    pub state: String,
    /// Why it waits, or why nothing is known of it.
    pub reason: Option<String>,
    /// When it is connected to again; `null`: it is connected, or a try is under way.
    pub next_try: Option<Ticks>,
    /// Events in it that are not completed.
    pub lag_events: Option<u64>,
    /// When that was measured.
    pub lag_measured: Option<Ticks>,
    /// At most so old is what waits: since the newest event that was received had arrived, or since nothing was left to do;
    /// at least for as long as the oldest event has been received that is not completed.
    pub lag_seconds: Option<f64>,
    /// The part of what the partition holds that is not completed, 0 to 1. At 1, retention takes events that were not read.
    pub retention_used: Option<f64>,
    /// The event that its progress waits for.
    pub oldest_incomplete: Option<i64>,
    /// For how long that has been received.
    pub oldest_incomplete_seconds: f64,
    /// For how long the checkpoint has been behind what was received.
    pub checkpoint_age_seconds: Option<f64>,
}

/// Something outside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Dependency {
    /// What it is.
    pub name: String,
    /// `up`, `down`, or `unknown` before it was asked.
    pub state: String,
    /// What it said last.
    pub reason: Option<String>,
    /// Since when it does not answer.
    pub down_since: Option<Ticks>,
    /// When it was asked last: what is said of it is as of then. `null`: not yet.
    pub asked: Option<Ticks>,
    /// When it is tried again; `null`: it answers, or a try is under way.
    pub next_try: Option<Ticks>,
    /// Whether the copy stands still without it. Repair and audits wait for the others.
    pub needed: bool,
}

/// What shows a service who we are. Never the token itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// `eventhubs`, `cosmos`, `storage`, `iothub`, `other`, or `storage_sas` for the signature in `blob.container_url`.
    pub scope: String,
    /// When the present one was given; `null`: there was none yet, or it comes from the configuration.
    pub obtained: Option<Ticks>,
    /// When it ends. A new one is asked for with the first request in the last minutes before.
    pub expires: Option<Ticks>,
    /// When there was none last, unless one was given since.
    pub failed: Option<Ticks>,
    /// Why.
    pub reason: Option<String>,
}

/// What flows, over the last minute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Flow {
    /// Events completed, per second.
    pub completed_per_second: Option<f64>,
    /// Events that arrived in the partitions of this replica, per second.
    pub arrived_per_second: Option<f64>,
    /// Events in these partitions that are not completed; `null`: not measured.
    pub lag_events: Option<u64>,
    /// Time until the lag is worked off at these rates; `null`: no lag, or it does not shrink.
    pub caught_up_in_seconds: Option<f64>,
    /// Events received and not completed.
    pub in_flight_events: u64,
    /// Their bytes.
    pub in_flight_bytes: u64,
}

/// What Cosmos DB is asked for, over the last minute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Store {
    /// Request units per second by purpose.
    pub request_units_per_second: BTreeMap<String, f64>,
    /// The part of reads and writes that were throttled, 0 to 1; `null` without any.
    pub throttled_share: Option<f64>,
    /// Writes per second.
    pub writes_per_second: Option<f64>,
    /// Requests that may be in flight at present.
    pub concurrency_limit: u64,
}

/// Twins that are not as they should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Twins {
    /// Twins about whose documents Cosmos DB gave no answer when it was last asked.
    pub in_trouble: u64,
    /// Twins of which so much waits that their partitions wait too.
    pub full: u64,
    /// Flagged twins that wait for their repair in this replica.
    pub repairs_waiting: u64,
    /// Twins that the store refuses as the hub has them, since the start.
    pub rejected: u64,
    /// Twins that were repaired and differed again at once, since the start.
    pub still_different: u64,
    /// Events that can never be received, since the start.
    pub events_lost: u64,
}

/// Events that can never be applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetters {
    /// Put aside since the start.
    pub since_start: u64,
    /// The same by reason.
    pub by_reason: BTreeMap<String, u64>,
    /// The command that shows what is stored.
    pub command: String,
    /// What is stored. It is asked at most once a minute, and only while somebody looks at the status.
    #[serde(default)]
    pub stored: StoredDeadLetters,
}

/// Dead letters that are stored, whichever replica has stored them and when.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredDeadLetters {
    /// How many; `null`: not known.
    pub count: Option<u64>,
    /// Whether there are more than that: no more are counted.
    pub more: bool,
    /// When the oldest of those was stored.
    pub oldest: Option<Ticks>,
    /// By reason, of those that were read.
    pub by_reason: BTreeMap<String, u64>,
    /// How many were read for their reason; each look reads a few more.
    pub read: u64,
    /// As of when; `null`: it is being asked.
    pub asked: Option<Ticks>,
    /// Why it is not known.
    pub reason: Option<String>,
}

/// The scans over all twins of one IoT hub. They are done by one replica, and shown there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hub {
    /// The hub.
    pub hub: String,
    /// The replica that does its scans; `null`: nobody, or not known.
    pub done_by: Option<String>,
    /// The scan that goes on.
    pub scan: Option<Scan>,
    /// Twins that the present backfill, or the last one, has dealt with, by outcome.
    pub backfill: BTreeMap<String, u64>,
    /// When the last backfill was done.
    pub backfill_completed: Option<Ticks>,
    /// When the last audit was done.
    pub audit_completed: Option<Ticks>,
    /// Twins that it compared.
    pub audit_twins: Option<u64>,
    /// Differences that it left.
    pub audit_differences_left: Option<u64>,
    /// Differences that audits found since the start, by class.
    pub audit_differences: BTreeMap<String, u64>,
    /// When the last audit was done that could compare all twins and left no difference.
    pub clean_audit: Option<Ticks>,
    /// Twins that it compared.
    pub clean_audit_twins: Option<u64>,
    /// When the next audit is due; `null`: one goes on, or none is planned.
    pub next_audit: Option<Ticks>,
}

/// A scan over all twins of a hub that goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scan {
    /// `backfill` or `audit`.
    pub what: String,
    /// What it is doing.
    pub stage: String,
    /// When it began, or went on in this process.
    pub started: Ticks,
    /// Twins that it has dealt with.
    pub dealt_with: u64,
    /// Out of how many; `null`: not known.
    pub out_of: Option<u64>,
    /// What says so.
    pub out_of_is: Option<String>,
    /// Twins per second in the last two minutes.
    pub per_second: Option<f64>,
    /// Until it is done at that rate; `null`: not known.
    pub done_in_seconds: Option<f64>,
    /// What it waits for at this moment.
    pub waits_for: Option<String>,
}

/// Warnings or errors of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Logged {
    /// `warn` or `error`.
    pub level: String,
    /// The stable code, where it has one; `/errors/CODE` explains it.
    pub code: Option<String>,
    /// What to do first: how the page about the code begins to say it.
    pub hint: Option<String>,
    /// The latest line.
    pub message: String,
    /// How many there were.
    pub count: u64,
    /// The first one.
    pub first: Ticks,
    /// The latest one.
    pub last: Ticks,
}

/// The last minutes, the oldest value first; `null` where nothing is known.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct History {
    /// Time between two values.
    pub interval_seconds: f64,
    /// Events that were not completed.
    pub lag_events: Vec<Option<f64>>,
    /// Events completed per second.
    pub completed_per_second: Vec<Option<f64>>,
    /// Time from the hub's operation to its durable copy, for 99 of 100 changes.
    pub freshness_p99_seconds: Vec<Option<f64>>,
    /// Request units per second.
    pub request_units_per_second: Vec<Option<f64>>,
}

#[cfg(test)]
mod tests;
