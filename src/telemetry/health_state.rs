//! The state that components report about themselves. The health endpoints read it.
//!
//! Posting is cheap and never waits for readers. [`readiness::assess`] decides what follows from the facts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{counts::Counts, gauges::render, partition::Watched, scans::Scans, tokens::Tokens};
use crate::domain::{
    health::{
        Dependency, Facts, Failure, Incomplete, Outage, PartitionState, PartitionStatus, Phase, Pulse,
        StoreState,
    },
    id::PartitionId,
    readiness,
    readiness::Report,
    wait::NextTries,
};

/// Default time for which an event may be incomplete before its partition counts as blocked.
const BLOCKED_AFTER: Duration = Duration::from_secs(60);

/// Default retention of the Event Hubs.
const RETENTION: Duration = Duration::from_secs(24 * 3600);

/// Shared state of one daemon. Cheap to clone.
#[derive(Clone)]
pub struct HealthState(Arc<Inner>);

impl std::fmt::Debug for HealthState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HealthState").finish_non_exhaustive()
    }
}

struct Inner {
    /// Heartbeats are measured from this instant.
    began: Instant,
    posted: Mutex<Posted>,
    blocked_after: Duration,
    retention: Duration,
    scans: Scans,
    counts: Counts,
    tokens: Tokens,
}

struct Posted {
    phase: Phase,
    /// The state of each partition, and the instant since which it has received nothing.
    partitions: BTreeMap<PartitionId, (PartitionState, Instant)>,
    /// The instant since which each partition's consumer has been in its state.
    partitions_since: BTreeMap<PartitionId, Instant>,
    owners: BTreeMap<PartitionId, Option<String>>,
    /// The instant since which a partition has had no owner.
    unowned: BTreeMap<PartitionId, Instant>,
    store: StoreState,
    store_since: Instant,
    /// When the document store was last asked.
    store_asked: Option<Instant>,
    store_tries: NextTries,
    partition_tries: BTreeMap<PartitionId, NextTries>,
    /// When each partition's consumer last posted.
    partitions_told: BTreeMap<PartitionId, Instant>,
    /// Partitions with a dead letter that could not be stored, since the store failed.
    waits_for_dead_letters: BTreeSet<PartitionId>,
    loops: BTreeMap<String, Loop>,
    dependencies: BTreeMap<Dependency, Asked>,
    watched: BTreeMap<PartitionId, Weak<dyn Watched>>,
}

/// The last known state of a dependency.
#[derive(Debug)]
struct Asked {
    at: Instant,
    down: Option<Down>,
    tries: NextTries,
}

impl Default for Asked {
    fn default() -> Self {
        Self { at: Instant::now(), down: None, tries: NextTries::default() }
    }
}

/// Failures in a row. They may be too few for an outage.
#[derive(Debug)]
struct Down {
    failures: u32,
    failure: Failure,
    reason: String,
    since: Instant,
}

impl Down {
    /// Whether the failures count as an outage. At the start, every failed dependency does.
    fn counts(&self, dependency: &Dependency, phase: Phase) -> bool {
        phase == Phase::Starting || self.failures >= dependency.failures_until_outage()
    }
}

#[derive(Debug)]
struct Loop {
    last: Arc<AtomicU64>,
    limit: Duration,
}

/// What is in the health state at one moment.
pub struct View {
    /// The posted facts.
    pub facts: Facts,
    /// What follows from them.
    pub report: Report,
    /// Live figures of each partition that this replica owns.
    pub watched: Vec<(PartitionId, Arc<dyn Watched>)>,
    /// The owner of each partition, from the shared leases.
    pub owners: BTreeMap<PartitionId, Option<String>>,
    /// How long each partition without an owner has had none.
    pub unowned: BTreeMap<PartitionId, Duration>,
    /// How long each partition's consumer has been in its state.
    pub waiting_for: BTreeMap<PartitionId, Duration>,
    /// How long ago each partition's consumer last posted.
    pub told: BTreeMap<PartitionId, Duration>,
    /// How long ago the document store was last asked, if it was.
    pub store_asked: Option<Duration>,
    /// How long ago each dependency was last asked.
    pub asked: BTreeMap<Dependency, Duration>,
}

/// The heartbeat of one loop: call [`Heartbeat::beat`] in each iteration, also when idle. Dropping it removes the loop from the health
/// state.
#[derive(Debug)]
pub struct Heartbeat {
    health: HealthState,
    name: String,
    last: Arc<AtomicU64>,
}

impl Default for HealthState {
    fn default() -> Self {
        Self::new()
    }
}

impl HealthState {
    /// The state of a process that is starting.
    pub fn new() -> Self {
        Self::with_limits(BLOCKED_AFTER, RETENTION)
    }

    /// The same, with other limits: a partition counts as blocked when an event has been incomplete for longer than `blocked_after`, and
    /// the Event Hubs keep an event for `retention`.
    pub fn with_limits(blocked_after: Duration, retention: Duration) -> Self {
        Self(Arc::new(Inner {
            blocked_after,
            scans: Scans::default(),
            counts: Counts::default(),
            tokens: Tokens::default(),
            retention,
            began: Instant::now(),
            posted: Mutex::new(Posted {
                phase: Phase::Starting,
                partitions: BTreeMap::new(),
                partitions_since: BTreeMap::new(),
                owners: BTreeMap::new(),
                unowned: BTreeMap::new(),
                store: StoreState::Unknown,
                store_since: Instant::now(),
                store_asked: None,
                store_tries: NextTries::default(),
                partition_tries: BTreeMap::new(),
                partitions_told: BTreeMap::new(),
                waits_for_dead_letters: BTreeSet::new(),
                loops: BTreeMap::new(),
                dependencies: BTreeMap::new(),
                watched: BTreeMap::new(),
            }),
        }))
    }

    /// Where scans over the twins of a hub show their progress.
    pub fn scans(&self) -> &Scans {
        &self.0.scans
    }

    /// Where the declared counts are shown.
    pub fn counts(&self) -> &Counts {
        &self.0.counts
    }

    /// Where the credential records its tokens.
    pub fn tokens(&self) -> &Tokens {
        &self.0.tokens
    }

    /// Posts the phase of the process.
    pub fn set_phase(&self, phase: Phase) {
        self.post(|posted| posted.phase = phase);
    }

    /// Posts the state of a partition's consumer.
    pub fn set_partition(&self, partition: &PartitionId, state: PartitionState) {
        self.post(|posted| {
            let kind = std::mem::discriminant(&state);
            let before = posted.partitions.get(partition);
            if before.is_none_or(|(before, _)| std::mem::discriminant(before) != kind) {
                posted.partitions_since.insert(partition.clone(), Instant::now());
            }
            posted.partition_tries.remove(partition);
            posted.partitions_told.insert(partition.clone(), Instant::now());
            let silent_since = match before {
                Some((before, since)) if *before != PartitionState::Receiving => *since,
                Some(_) | None => Instant::now(),
            };
            posted.partitions.insert(partition.clone(), (state, silent_since));
        });
    }

    /// Posts the owners of a stream's partitions, from the shared leases. `None`: no owner.
    pub fn set_owners(&self, stream: &str, owners: impl IntoIterator<Item = (String, Option<String>)>) {
        self.post(|posted| {
            posted.owners.retain(|id, _| id.stream != stream);
            let owners = owners
                .into_iter()
                .map(|(partition, owner)| (PartitionId { stream: stream.to_owned(), partition }, owner));
            posted.owners.extend(owners);
            let Posted { owners, unowned, .. } = posted;
            unowned.retain(|id, _| matches!(owners.get(id), Some(None)));
            for (id, _) in owners.iter().filter(|(_, owner)| owner.is_none()) {
                unowned.entry(id.clone()).or_insert_with(Instant::now);
            }
        });
    }

    /// Shows the figures of a partition that this replica owns, until `watched` is dropped or the partition is removed.
    pub fn watch_partition(&self, partition: &PartitionId, watched: Weak<dyn Watched>) {
        self.post(|posted| posted.watched.insert(partition.clone(), watched));
    }

    /// Removes a partition that this replica no longer owns, with all its figures.
    pub fn remove_partition(&self, partition: &PartitionId) {
        self.post(|posted| {
            posted.partitions.remove(partition);
            posted.partitions_since.remove(partition);
            posted.partition_tries.remove(partition);
            posted.partitions_told.remove(partition);
            posted.waits_for_dead_letters.remove(partition);
            posted.watched.remove(partition);
        });
    }

    /// Posts that a dependency answers. Returns the duration of the outage that this ends, for the log.
    pub fn is_up(&self, dependency: Dependency) -> Option<Duration> {
        let (before, phase) = self.post(|posted| {
            if dependency == Dependency::DeadLetters {
                posted.waits_for_dead_letters.clear();
            }
            let before = posted.dependencies.insert(dependency.clone(), Asked::default());
            (before.and_then(|before| before.down), posted.phase)
        });
        before.filter(|down| down.counts(&dependency, phase)).map(|down| down.since.elapsed())
    }

    /// Posts that a dependency failed: how, and why, on one line without secrets. After [`Dependency::failures_until_outage`] failures in a
    /// row, this is an outage. Returns whether an outage has just begun.
    pub fn is_down(&self, dependency: Dependency, failure: Failure, reason: &str) -> bool {
        self.post(|posted| {
            let phase = posted.phase;
            let asked = posted.dependencies.entry(dependency.clone()).or_default();
            asked.at = Instant::now();
            let before = asked
                .down
                .as_ref()
                .is_some_and(|down| down.counts(&dependency, phase) && down.failure == failure);
            let (failures, since) =
                asked.down.as_ref().map_or_else(|| (0, Instant::now()), |down| (down.failures, down.since));
            let down =
                Down { failures: failures.saturating_add(1), failure, reason: reason.to_owned(), since };
            let counts = down.counts(&dependency, phase);
            asked.down = Some(down);
            counts && !before
        })
    }

    /// Posts after how long a failed dependency is tried again. Several tasks may try it, and the earliest try counts.
    pub fn tries_again(&self, dependency: &Dependency, after: Duration) {
        let now = self.0.began.elapsed();
        self.post(|posted| {
            if let Some(asked) = posted.dependencies.get_mut(dependency) {
                asked.tries.plan(now + after, now);
            }
        });
    }

    /// Posts after how long the document store is tried again.
    pub fn tries_store_again(&self, after: Duration) {
        let now = self.0.began.elapsed();
        self.post(|posted| posted.store_tries.plan(now + after, now));
    }

    /// Posts after how long the connection to a partition is tried again. Its next state clears that.
    pub fn tries_partition_again(&self, partition: &PartitionId, after: Duration) {
        let now = self.0.began.elapsed();
        self.post(|posted| {
            posted.partition_tries.entry(partition.clone()).or_default().plan(now + after, now);
        });
    }

    /// Posts that the progress of a partition waits for a dead letter that could not be stored.
    pub fn waits_for_dead_letter(&self, partition: &PartitionId) {
        self.post(|posted| {
            if !posted.waits_for_dead_letters.contains(partition) {
                posted.waits_for_dead_letters.insert(partition.clone());
            }
        });
    }

    /// The live figures of each partition that this replica owns.
    fn watched(&self) -> Vec<(PartitionId, Arc<dyn Watched>)> {
        // Called without the lock, because the callee may post.
        self.post(|posted| {
            posted.watched.retain(|_, watched| watched.strong_count() > 0);
            let alive =
                posted.watched.iter().filter_map(|(id, watched)| Some((id.clone(), watched.upgrade()?)));
            alive.collect()
        })
    }

    /// Posts whether the store answers. Returns whether that is a change, for the log.
    pub fn set_store(&self, state: StoreState) -> bool {
        self.post(|posted| {
            let news = std::mem::discriminant(&posted.store) != std::mem::discriminant(&state);
            posted.store_asked = Some(Instant::now());
            if state == StoreState::Reachable {
                posted.store_tries.clear();
            }
            posted.store = state;
            if news {
                posted.store_since = Instant::now();
            }
            news
        })
    }

    /// Adds a loop that must send a heartbeat at least once per `limit`. Names are unique: a second heartbeat of the same name replaces the
    /// first.
    pub fn heartbeat(&self, name: &str, limit: Duration) -> Heartbeat {
        let last = Arc::new(AtomicU64::new(self.now()));
        let entry = Loop { last: Arc::clone(&last), limit };
        self.post(|posted| posted.loops.insert(name.to_owned(), entry));
        Heartbeat { health: self.clone(), name: name.to_owned(), last }
    }

    /// All facts in the health state.
    pub fn facts(&self) -> Facts {
        let (now, elapsed) = (self.now(), self.0.began.elapsed());
        let incomplete = self.watched().into_iter().filter_map(|(id, watched)| {
            let (sequence_number, age) = watched.oldest_incomplete()?;
            Some((id, Incomplete { sequence_number, age }))
        });
        let incomplete = incomplete.collect();
        self.post(|posted| Facts {
            incomplete,
            blocked_after: self.0.blocked_after,
            dependencies: posted
                .dependencies
                .iter()
                .map(|(dependency, asked)| {
                    let outage = asked.down.as_ref().filter(|down| down.counts(dependency, posted.phase));
                    let outage = outage.map(|down| Outage {
                        failure: down.failure,
                        reason: down.reason.clone(),
                        lasts: down.since.elapsed(),
                        next_try: asked.tries.next(elapsed),
                    });
                    (dependency.clone(), outage)
                })
                .collect(),
            phase: posted.phase,
            partitions: posted
                .partitions
                .iter()
                .map(|(id, (state, since))| {
                    let lasts = match state {
                        PartitionState::Receiving => Duration::ZERO,
                        _ => since.elapsed(),
                    };
                    let next_try = posted.partition_tries.get(id).and_then(|tries| tries.next(elapsed));
                    (id.clone(), PartitionStatus { state: state.clone(), lasts, next_try })
                })
                .collect(),
            store: posted.store.clone(),
            store_lasts: posted.store_since.elapsed(),
            store_next_try: posted.store_tries.next(elapsed),
            waits_for_dead_letters: posted.waits_for_dead_letters.clone(),
            tokens: self.0.tokens.facts(),
            loops: posted
                .loops
                .iter()
                .map(|(name, turning)| {
                    let last = turning.last.load(Ordering::Relaxed);
                    let silent_for = Duration::from_millis(now.saturating_sub(last));
                    (name.clone(), Pulse { silent_for, limit: turning.limit })
                })
                .collect(),
        })
    }

    /// The report that follows from the facts.
    pub fn report(&self) -> Report {
        readiness::assess(&self.facts())
    }

    /// All facts in the health state and their report, at this moment.
    pub fn view(&self) -> View {
        let (facts, watched) = (self.facts(), self.watched());
        self.post(|posted| View {
            report: readiness::assess(&facts),
            watched,
            owners: posted.owners.clone(),
            unowned: posted.unowned.iter().map(|(id, since)| (id.clone(), since.elapsed())).collect(),
            waiting_for: posted
                .partitions_since
                .iter()
                .map(|(id, since)| (id.clone(), since.elapsed()))
                .collect(),
            told: posted.partitions_told.iter().map(|(id, at)| (id.clone(), at.elapsed())).collect(),
            store_asked: posted.store_asked.map(|at| at.elapsed()),
            asked: posted
                .dependencies
                .iter()
                .map(|(dependency, asked)| (dependency.clone(), asked.at.elapsed()))
                .collect(),
            facts,
        })
    }

    /// Gauges of the health state at this moment, in Prometheus' text format.
    pub fn render(&self) -> String {
        render(&self.facts(), &self.watched(), self.0.retention, &self.0.tokens.all(), &self.0.counts)
    }

    fn post<T>(&self, change: impl FnOnce(&mut Posted) -> T) -> T {
        // Each change is complete, so the state is consistent even after a panic.
        change(&mut self.0.posted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Milliseconds since `began`.
    fn now(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Heartbeat {
    /// Records a heartbeat of the loop.
    pub fn beat(&self) {
        self.last.store(self.health.now(), Ordering::Relaxed);
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.health.post(|posted| {
            if posted.loops.get(&self.name).is_some_and(|turning| Arc::ptr_eq(&turning.last, &self.last)) {
                posted.loops.remove(&self.name);
            }
        });
    }
}

#[cfg(test)]
mod tests;
