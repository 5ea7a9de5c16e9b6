//! The answer of `/api/status`. The page shows it, `twinsync status` prints it, and scripts read it.
//!
//! Times are RFC 3339 in UTC, durations are in seconds, and rates are per second. An unknown value is `null` and never 0. Within one
//! [`SCHEMA`], fields are only added. Removing a field, or changing its meaning, raises it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::{
    headline::Headline,
    query::{Declared, Row},
    ticks::Ticks,
};

/// The version of this answer.
pub const SCHEMA: u32 = 1;

/// The state of one replica at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// [`SCHEMA`].
    pub schema: u32,
    /// When the status was requested.
    pub at: Ticks,
    /// The replica.
    pub replica: Replica,
    /// The state and its cause, in one sentence.
    pub headline: Headline,
    /// Whether its loops run, as `/livez` says.
    pub live: bool,
    /// Whether it is ready, as `/readyz` says.
    pub ready: bool,
    /// Why it is not ready.
    pub reasons: Vec<String>,
    /// Problems that do not prevent it from being ready.
    pub warnings: Vec<String>,
    /// The lag of the copy.
    pub freshness: Freshness,
    /// The partition that loses events first if progress stops.
    pub loss: Option<Loss>,
    /// Partitions: this replica's first, then those of others. Within each, the largest lag first.
    pub partitions: Vec<Partition>,
    /// Its dependencies.
    pub dependencies: Vec<Dependency>,
    /// Its credentials for services: tokens and signatures.
    #[serde(default)]
    pub tokens: Vec<Token>,
    /// The flow of events.
    pub flow: Flow,
    /// The requests to Cosmos DB.
    pub store: Store,
    /// Events by decision, since the start.
    pub decisions: BTreeMap<String, u64>,
    /// Twins with problems.
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
    /// The curves of the last minutes.
    pub history: History,
}

impl Status {
    /// Whether something is being requested for the first time since the status is being viewed: a moment later, more is known.
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

/// The replica.
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

/// The lag of the copy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Freshness {
    /// Time since the oldest event that is not completed was received. 0 if there is none.
    pub oldest_incomplete_seconds: f64,
    /// Median time from the hub's operation to its durable copy in the last minute. `null` without changes.
    pub p50_seconds: Option<f64>,
    /// The same for the 99th percentile.
    pub p99_seconds: Option<f64>,
}

/// Declared counts, as in the answer of `/api/counts`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// When the change feed was last read to its end, by the replica's clock. The counts are of this moment or later. `null`: not all
    /// documents have been read yet, or no counts are declared.
    pub as_of: Option<Ticks>,
    /// Documents that were read since counting last began.
    pub documents: u64,
    /// Documents that are not counted because they are unreadable.
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
    /// Twins over all groups. `null`: not known yet.
    pub total: Option<u64>,
    /// The rows that the query would give. `null`: not known yet, or more groups than the limit. In the status, only the largest rows,
    /// largest first.
    pub rows: Option<Vec<serde_json::Value>>,
    /// Number of rows that are left out.
    pub omitted: u64,
}

/// Maximum number of rows of a count in the status, which is sent every two seconds.
const LARGEST: usize = 12;

impl Counts {
    /// The counts at this moment.
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

    /// The same counts with only the largest groups.
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

/// When events will be lost if progress stops.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Loss {
    /// Seconds until then: retention minus the age of the oldest event that is not completed.
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
    /// Its id in the Event Hub.
    pub partition: String,
    /// Whether this replica owns it. For other partitions, the figures come from the shared leases and checkpoints.
    pub ours: bool,
    /// The source of its figures: `own`, or `checkpoint` if they are computed from the shared checkpoint and the extent of the partition.
    pub basis: Option<String>,
    /// The replica that owns it. `null`: no replica.
    pub owner: Option<String>,
    /// `connecting`, `receiving`, `waiting`, `throttled`; `elsewhere` at another replica, `unread` without an owner.
    pub state: String,
    /// Why it waits, or why its state is unknown.
    pub reason: Option<String>,
    /// When the next connection is tried. `null`: it is connected, or a try is in progress.
    pub next_try: Option<Ticks>,
    /// Events in it that are not completed.
    pub lag_events: Option<u64>,
    /// When that was measured.
    pub lag_measured: Option<Ticks>,
    /// Upper bound for the age of the waiting events: since the newest received event had arrived, or since there were no open events; and
    /// at least the time since the oldest event that is not completed was received.
    pub lag_seconds: Option<f64>,
    /// The fraction of the partition's events that are not completed, 0 to 1. At 1, retention removes events that were not read.
    pub retention_used: Option<f64>,
    /// The sequence number of the event that its progress waits for.
    pub oldest_incomplete: Option<i64>,
    /// Time since that event was received.
    pub oldest_incomplete_seconds: f64,
    /// How long the checkpoint has lagged behind the completed events.
    pub checkpoint_age_seconds: Option<f64>,
}

/// A dependency.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Dependency {
    /// Its name.
    pub name: String,
    /// `up`, `down`, or `unknown` before it was asked.
    pub state: String,
    /// Its last error.
    pub reason: Option<String>,
    /// Since when it has not answered.
    pub down_since: Option<Ticks>,
    /// When it was last asked. Its state is of that time. `null`: not yet.
    pub asked: Option<Ticks>,
    /// When it is tried again. `null`: it answers, or a try is in progress.
    pub next_try: Option<Ticks>,
    /// Whether the copy stops without it. The others only delay repair and audits.
    pub needed: bool,
}

/// A credential for a service. Never the token itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// `eventhubs`, `cosmos`, `storage`, `iothub`, `other`, or `storage_sas` for the signature in `blob.container_url`.
    pub scope: String,
    /// When the present one was given. `null`: there was none yet, or it comes from the configuration.
    pub obtained: Option<Ticks>,
    /// When it ends. The first request in the last minutes before that asks for a new one.
    pub expires: Option<Ticks>,
    /// When a request for it last failed, unless it was given since.
    pub failed: Option<Ticks>,
    /// The reason.
    pub reason: Option<String>,
}

/// The flow of events over the last minute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Flow {
    /// Events completed, per second.
    pub completed_per_second: Option<f64>,
    /// Events that arrived in the partitions of this replica, per second.
    pub arrived_per_second: Option<f64>,
    /// Events in these partitions that are not completed. `null`: not measured.
    pub lag_events: Option<u64>,
    /// Time until the lag is zero at these rates. `null`: no lag, or it does not shrink.
    pub caught_up_in_seconds: Option<f64>,
    /// Events received and not completed.
    pub in_flight_events: u64,
    /// Bytes of these events.
    pub in_flight_bytes: u64,
}

/// The requests to Cosmos DB over the last minute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Store {
    /// Request units per second by purpose.
    pub request_units_per_second: BTreeMap<String, f64>,
    /// The fraction of reads and writes that were throttled, 0 to 1. `null` without any.
    pub throttled_share: Option<f64>,
    /// Writes per second.
    pub writes_per_second: Option<f64>,
    /// Requests that may be in flight at present.
    pub concurrency_limit: u64,
}

/// Twins with problems.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Twins {
    /// Twins for which Cosmos DB gave no answer at its last call.
    pub in_trouble: u64,
    /// Twins with so many waiting events that their partitions wait too.
    pub full: u64,
    /// Flagged twins that wait for their repair in this replica.
    pub repairs_waiting: u64,
    /// Twins that the store refuses in the state that the hub has, since the start.
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
    /// Stored since the start.
    pub since_start: u64,
    /// The same by reason.
    pub by_reason: BTreeMap<String, u64>,
    /// The command that lists the stored dead letters.
    pub command: String,
    /// The stored dead letters. They are counted at most once a minute, and only while the status is being viewed.
    #[serde(default)]
    pub stored: StoredDeadLetters,
}

/// The stored dead letters, of all replicas and all times.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredDeadLetters {
    /// Their number. `null`: unknown.
    pub count: Option<u64>,
    /// Whether there are more than that. Counting stops at a limit.
    pub more: bool,
    /// When the oldest of the counted ones was stored.
    pub oldest: Option<Ticks>,
    /// Their number by reason, of those that were read.
    pub by_reason: BTreeMap<String, u64>,
    /// How many were read for their reason. Each count reads a few more.
    pub read: u64,
    /// When they were counted. `null`: the count is running.
    pub asked: Option<Ticks>,
    /// Why the number is unknown.
    pub reason: Option<String>,
}

/// The scans over all twins of one IoT hub. One replica does them, and shows them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hub {
    /// The hub.
    pub hub: String,
    /// The replica that does its scans. `null`: none, or unknown.
    pub done_by: Option<String>,
    /// The scan in progress.
    pub scan: Option<Scan>,
    /// Twins that the present backfill, or the last one, has processed, by outcome.
    pub backfill: BTreeMap<String, u64>,
    /// When the last backfill finished.
    pub backfill_completed: Option<Ticks>,
    /// When the last audit finished.
    pub audit_completed: Option<Ticks>,
    /// Twins that it compared.
    pub audit_twins: Option<u64>,
    /// Differences that it left.
    pub audit_differences_left: Option<u64>,
    /// Differences that audits found since the start, by class.
    pub audit_differences: BTreeMap<String, u64>,
    /// When the last audit finished that could compare all twins and left no difference.
    pub clean_audit: Option<Ticks>,
    /// Twins that it compared.
    pub clean_audit_twins: Option<u64>,
    /// When the next audit is due. `null`: one is in progress, or none is planned.
    pub next_audit: Option<Ticks>,
}

/// A scan over all twins of a hub, in progress.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scan {
    /// `backfill` or `audit`.
    pub what: String,
    /// Its current stage.
    pub stage: String,
    /// When it began, or was resumed in this process.
    pub started: Ticks,
    /// Number of twins that it has processed.
    pub dealt_with: u64,
    /// The total number. `null`: unknown.
    pub out_of: Option<u64>,
    /// The source of the total.
    pub out_of_is: Option<String>,
    /// Twins per second in the last two minutes.
    pub per_second: Option<f64>,
    /// Time until it finishes at that rate. `null`: unknown.
    pub done_in_seconds: Option<f64>,
    /// The reason why it waits at this moment, if it does.
    pub waits_for: Option<String>,
}

/// Warnings or errors of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Logged {
    /// `warn` or `error`.
    pub level: String,
    /// The stable code, if it has one. `/errors/CODE` explains it.
    pub code: Option<String>,
    /// The first thing to do, from the beginning of the page about the code.
    pub hint: Option<String>,
    /// The latest line.
    pub message: String,
    /// Number of lines.
    pub count: u64,
    /// Time of the first line.
    pub first: Ticks,
    /// Time of the latest line.
    pub last: Ticks,
}

/// The last minutes, oldest value first. `null` if a value is unknown.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct History {
    /// Time between two values.
    pub interval_seconds: f64,
    /// Events that were not completed.
    pub lag_events: Vec<Option<f64>>,
    /// Events completed per second.
    pub completed_per_second: Vec<Option<f64>>,
    /// 99th percentile of the time from the hub's operation to its durable copy.
    pub freshness_p99_seconds: Vec<Option<f64>>,
    /// Request units per second.
    pub request_units_per_second: Vec<Option<f64>>,
}

#[cfg(test)]
mod tests;
