//! Computes from the facts of the components: is this process alive, and is it ready?
//!
//! *Live*: its loops run; if not, only a restart helps. External failures (the store, the broker) never make it not
//! live: a restart would not help and would cost a replay. *Ready*: it does its work, or is on standby for it. Both
//! answers come with reasons, because "no" alone is not helpful.

use std::collections::BTreeMap;

use super::{
    health::{Dependency, Facts, Failure, Outage, PartitionState, PartitionStatus, Phase, StoreState},
    id::PartitionId,
    obstacles::{self, is_obstacle, worries},
    token::worry,
    wait::Wait,
};

/// An answer: yes without reasons, no with at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The reasons for "no".
    pub reasons: Vec<String>,
}

impl Verdict {
    /// Whether the answer is yes.
    pub fn is_yes(&self) -> bool {
        self.reasons.is_empty()
    }
}

/// Both answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Do the loops run?
    pub live: Verdict,
    /// Do we have work, and do we do it?
    pub ready: Verdict,
    /// What is out of order without keeping us from our work.
    pub warnings: Vec<String>,
    /// What keeps us from our work, summarised for people; empty if only a loop does.
    pub obstacles: Vec<Wait>,
    /// The warnings, summarised for people.
    pub worries: Vec<Wait>,
}

/// Computes the report from the facts.
///
/// | phase | live | ready |
/// |---|---|---|
/// | starting | every loop within its limit | no, with the reason for the wait |
/// | running | every loop within its limit | every loop within its limit; the stores of documents, dead letters and checkpoints answer, and so do the Event Hubs; all partitions receive and none is blocked. Throttling is tolerated for as long as a blocked partition |
/// | stopping | yes: loops end one by one, the drain has a separate deadline | no |
pub fn assess(facts: &Facts) -> Report {
    let stalled: Vec<String> = match facts.phase {
        Phase::Stopping => Vec::new(),
        Phase::Starting | Phase::Running => facts
            .loops
            .iter()
            .filter(|(_, pulse)| pulse.silent_for > pulse.limit)
            .map(|(name, pulse)| {
                let (silent, limit) = (pulse.silent_for.as_secs(), pulse.limit.as_secs());
                format!("loop {name} has not run for {silent} s (limit {limit} s)")
            })
            .collect(),
    };
    let mut reasons = stalled.clone();
    match facts.phase {
        Phase::Starting => {
            reasons.push("starting".to_owned());
            reasons.extend(store_obstacle(facts).filter(|_| facts.store != StoreState::Unknown));
            reasons.extend(out_of_order(facts));
        }
        Phase::Stopping => reasons.push("stopping".to_owned()),
        Phase::Running => reasons.extend(reasons_of_running(facts)),
    }
    let waits = match facts.phase {
        Phase::Starting if facts.store == StoreState::Unknown => {
            obstacles::obstacles(&Facts { store: StoreState::Reachable, ..without_partitions(facts) })
        }
        Phase::Starting => obstacles::obstacles(&without_partitions(facts)),
        Phase::Running => obstacles::obstacles(facts),
        Phase::Stopping => Vec::new(),
    };
    Report {
        live: Verdict { reasons: stalled },
        ready: Verdict { reasons },
        warnings: warnings(facts),
        obstacles: waits,
        worries: worries(facts),
    }
}

/// At a start, connecting partitions are expected.
fn without_partitions(facts: &Facts) -> Facts {
    Facts { partitions: BTreeMap::new(), incomplete: BTreeMap::new(), ..facts.clone() }
}

/// What is out of order but does not keep us from our work, or not for long enough.
fn warnings(facts: &Facts) -> Vec<String> {
    let outages = facts.dependencies.iter().filter_map(|(dependency, outage)| {
        let outage = outage.as_ref()?;
        (!is_obstacle(facts, dependency, outage)).then(|| no_answer(dependency, outage))
    });
    let throttled = facts.partitions.iter().filter_map(|(partition, status)| match &status.state {
        PartitionState::Throttled { reason } if status.lasts <= facts.blocked_after => {
            Some(throttled(partition, status, reason))
        }
        PartitionState::Throttled { .. }
        | PartitionState::Connecting
        | PartitionState::Receiving
        | PartitionState::Waiting { .. } => None,
    });
    let tokens = facts.tokens.iter().filter_map(worry).map(|worry| match worry.reason {
        Some(reason) => format!("{}: {reason}", worry.what),
        None => worry.what,
    });
    outages.chain(throttled).chain(tokens).collect()
}

fn throttled(partition: &PartitionId, status: &PartitionStatus, reason: &str) -> String {
    format!("partition {partition} has been throttled for {} s: {reason}", status.lasts.as_secs())
}

fn no_answer(dependency: &Dependency, Outage { failure, reason, lasts, .. }: &Outage) -> String {
    let what = match failure {
        Failure::Silent => "not answered",
        Failure::Throttled => "throttled us",
    };
    format!("{dependency} has {what} for {} s: {reason}", lasts.as_secs())
}

fn store_obstacle(facts: &Facts) -> Option<String> {
    match &facts.store {
        StoreState::Unknown => Some("the document store has not been reached yet".to_owned()),
        StoreState::Reachable => None,
        StoreState::Unreachable { reason } => Some(format!("the document store does not answer: {reason}")),
    }
}

/// The required dependencies that do not answer.
fn out_of_order(facts: &Facts) -> impl Iterator<Item = String> {
    facts.dependencies.iter().filter_map(|(dependency, outage)| {
        let outage = outage.as_ref()?;
        is_obstacle(facts, dependency, outage).then(|| no_answer(dependency, outage))
    })
}

/// What keeps a running process from its work.
fn reasons_of_running(facts: &Facts) -> Vec<String> {
    let mut reasons: Vec<_> = store_obstacle(facts).into_iter().chain(out_of_order(facts)).collect();
    for (partition, incomplete) in &facts.incomplete {
        if incomplete.age > facts.blocked_after {
            let (number, age) = (incomplete.sequence_number, incomplete.age.as_secs());
            reasons.push(format!(
                "partition {partition} is blocked: its event {number} has not been completed for {age} s"
            ));
        }
    }
    // Having no partition is not an obstacle: if there are more replicas than partitions, some are on standby.
    for (partition, status) in &facts.partitions {
        match &status.state {
            PartitionState::Receiving => {}
            PartitionState::Connecting => reasons.push(format!("partition {partition} is connecting")),
            PartitionState::Waiting { reason } => {
                reasons.push(format!("partition {partition} waits: {reason}"))
            }
            PartitionState::Throttled { reason } => {
                if status.lasts > facts.blocked_after {
                    reasons.push(throttled(partition, status, reason));
                }
            }
        }
    }
    reasons
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use super::*;
    use crate::domain::{
        health::{Incomplete, Pulse},
        id::SequenceNumber,
    };

    fn partition(name: &str) -> PartitionId {
        PartitionId { stream: "twins".into(), partition: name.into() }
    }

    fn status(state: PartitionState, seconds: u64) -> PartitionStatus {
        PartitionStatus { state, lasts: Duration::from_secs(seconds), next_try: None }
    }

    fn healthy() -> Facts {
        let pulse = Pulse { silent_for: Duration::from_secs(1), limit: Duration::from_secs(30) };
        Facts {
            phase: Phase::Running,
            partitions: BTreeMap::from([(partition("0"), status(PartitionState::Receiving, 0))]),
            store: StoreState::Reachable,
            store_lasts: Duration::ZERO,
            store_next_try: None,
            waits_for_dead_letters: BTreeSet::new(),
            tokens: Vec::new(),
            loops: BTreeMap::from([("lanes".to_owned(), pulse)]),
            dependencies: BTreeMap::from([(Dependency::DeadLetters, None)]),
            incomplete: BTreeMap::new(),
            blocked_after: Duration::from_secs(60),
        }
    }

    fn outage() -> Option<Outage> {
        let lasts = Duration::from_secs(7);
        Some(Outage { failure: Failure::Silent, reason: "503".into(), lasts, next_try: None })
    }

    #[test]
    fn a_start_waits_for_what_fails_and_not_for_what_it_has_not_asked_yet() {
        let starting = Facts {
            phase: Phase::Starting,
            store: StoreState::Unknown,
            partitions: BTreeMap::from([(partition("0"), status(PartitionState::Connecting, 100))]),
            incomplete: BTreeMap::from([(
                partition("0"),
                Incomplete { sequence_number: SequenceNumber(1), age: Duration::from_secs(100) },
            )]),
            ..healthy()
        };
        let report = assess(&starting);
        assert!(!report.ready.is_yes() && report.live.is_yes());
        assert_eq!(report.obstacles, []);
        let unreachable = StoreState::Unreachable { reason: "503".into() };
        let failing = Facts { store: unreachable, ..starting };
        let obstacles = assess(&failing).obstacles;
        assert_eq!(obstacles.len(), 1, "{obstacles:?}");
        assert_eq!(obstacles[0].what, "the document store has not answered");
        assert!(assess(&healthy()).ready.is_yes());
    }

    #[test]
    fn throttling_is_a_warning_until_it_has_lasted_for_too_long() {
        let mut facts = healthy();
        for (seconds, ready) in [(59, true), (60, true), (61, false)] {
            let lasts = Duration::from_secs(seconds);
            let busy = Outage { failure: Failure::Throttled, reason: "busy".into(), lasts, next_try: None };
            facts.dependencies = BTreeMap::from([(Dependency::Checkpoints, Some(busy))]);
            facts.partitions = BTreeMap::from([(
                partition("0"),
                status(PartitionState::Throttled { reason: "busy".into() }, seconds),
            )]);
            let report = assess(&facts);
            let told = [
                format!("the checkpoint store has throttled us for {seconds} s: busy"),
                format!("partition twins/0 has been throttled for {seconds} s: busy"),
            ];
            let (reasons, warnings) = (report.ready.reasons, report.warnings);
            assert_eq!(if ready { &warnings } else { &reasons }, &told, "{seconds}");
            assert!(if ready { reasons.is_empty() } else { warnings.is_empty() }, "{seconds}");
        }
    }

    #[test]
    fn a_store_for_dead_letters_or_checkpoints_that_is_down_is_an_obstacle_and_a_registry_is_none() {
        let mut facts = healthy();
        facts.dependencies = BTreeMap::from([
            (Dependency::DeadLetters, outage()),
            (Dependency::Checkpoints, outage()),
            (Dependency::Leases, outage()),
            (Dependency::EventHub("twins".into()), outage()),
            (Dependency::Registry("contoso".into()), outage()),
        ]);
        let report = assess(&facts);
        assert_eq!(
            report.ready.reasons,
            [
                "the Event Hub twins has not answered for 7 s: 503",
                "the dead-letter store has not answered for 7 s: 503",
                "the checkpoint store has not answered for 7 s: 503",
                "the lease store has not answered for 7 s: 503"
            ]
        );
        assert_eq!(report.warnings, ["the registry of the IoT hub contoso has not answered for 7 s: 503"]);
        assert!(report.live.is_yes());
    }

    #[test]
    fn a_partition_is_blocked_when_its_oldest_event_is_older_than_the_limit() {
        let mut facts = healthy();
        let waits =
            |seconds| Incomplete { sequence_number: SequenceNumber(4711), age: Duration::from_secs(seconds) };
        facts.incomplete.insert(partition("0"), waits(60));
        assert!(assess(&facts).ready.is_yes(), "the limit itself is allowed");
        facts.incomplete.insert(partition("0"), waits(61));
        let report = assess(&facts);
        assert_eq!(
            report.ready.reasons,
            ["partition twins/0 is blocked: its event 4711 has not been completed for 61 s"]
        );
        assert!(report.live.is_yes(), "liveness must not fail: a restart would not help");
    }

    #[test]
    fn a_healthy_process_is_live_and_ready_without_reasons() {
        let report = assess(&healthy());
        assert!(report.live.is_yes() && report.ready.is_yes(), "{report:?}");
    }

    #[test]
    fn a_failed_dependency_ends_readiness_but_never_liveness() {
        let mut facts = healthy();
        facts.store = StoreState::Unreachable { reason: "503".into() };
        let refused = PartitionState::Waiting { reason: "refused".into() };
        facts.partitions.insert(partition("1"), status(refused, 1));
        facts.partitions.insert(partition("2"), status(PartitionState::Connecting, 1));
        let report = assess(&facts);
        assert!(report.live.is_yes());
        assert_eq!(
            report.ready.reasons,
            [
                "the document store does not answer: 503",
                "partition twins/1 waits: refused",
                "partition twins/2 is connecting"
            ]
        );
    }

    #[test]
    fn a_replica_that_stands_by_is_ready_once_the_store_answers() {
        let mut facts = Facts { partitions: BTreeMap::new(), store: StoreState::Unknown, ..healthy() };
        assert_eq!(assess(&facts).ready.reasons.len(), 1);
        facts.store = StoreState::Reachable;
        assert!(assess(&facts).ready.is_yes());
    }

    #[test]
    fn a_loop_that_stands_still_is_not_live_until_the_process_stops() {
        let mut facts = healthy();
        let limit = Duration::from_secs(30);
        facts.loops.insert("committer".into(), Pulse { silent_for: limit, limit });
        assert!(assess(&facts).live.is_yes(), "the limit itself is allowed");
        facts.loops.insert("committer".into(), Pulse { silent_for: Duration::from_secs(31), limit });
        for phase in [Phase::Starting, Phase::Running] {
            let report = assess(&Facts { phase, ..facts.clone() });
            assert_eq!(report.live.reasons, ["loop committer has not run for 31 s (limit 30 s)"]);
            assert!(report.ready.reasons.contains(&report.live.reasons[0]));
        }
        let report = assess(&Facts { phase: Phase::Stopping, ..facts });
        assert!(report.live.is_yes());
        assert_eq!(report.ready.reasons, ["stopping"]);
    }

    #[test]
    fn while_starting_it_is_live_and_not_ready() {
        let report = assess(&Facts { phase: Phase::Starting, ..healthy() });
        assert!(report.live.is_yes());
        assert_eq!(report.ready.reasons, ["starting"]);
    }

    #[test]
    fn while_starting_it_says_what_it_waits_for() {
        let facts = Facts {
            phase: Phase::Starting,
            store: StoreState::Unreachable { reason: "503".into() },
            dependencies: BTreeMap::from([
                (Dependency::EventHub("twins".into()), outage()),
                (Dependency::Credential, None),
                (Dependency::Checkpoints, outage()),
                (Dependency::Registry("contoso".into()), outage()),
            ]),
            ..healthy()
        };
        let report = assess(&facts);
        assert!(report.live.is_yes(), "liveness must not fail: a restart would not help");
        assert_eq!(
            report.ready.reasons,
            [
                "starting",
                "the document store does not answer: 503",
                "the Event Hub twins has not answered for 7 s: 503",
                "the checkpoint store has not answered for 7 s: 503"
            ]
        );
        let waiting = Facts { store: StoreState::Unknown, dependencies: BTreeMap::new(), ..facts };
        assert_eq!(
            assess(&waiting).ready.reasons,
            ["starting"],
            "a dependency that has not failed is no obstacle"
        );
    }
}
