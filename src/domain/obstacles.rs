//! What keeps a replica from its work, and what else is out of order, summarised for people.
//!
//! `/readyz` reports each reason separately ([`readiness`](super::readiness)). Here, partitions that wait for the same
//! thing are combined. If it is known which partitions wait for a failing store, they are named.

use std::collections::BTreeMap;

use super::{
    health::{Dependency, Facts, Failure, Outage, PartitionState, StoreState},
    id::PartitionId,
    token::worry,
    wait::Wait,
};

/// What keeps a process from its work, starting with the first reason of `/readyz`.
pub fn obstacles(facts: &Facts) -> Vec<Wait> {
    let mut waits: Vec<_> = store(facts).into_iter().chain(dependencies(facts, true)).collect();
    let dead_letters_fail = facts
        .dependencies
        .get(&Dependency::DeadLetters)
        .and_then(Option::as_ref)
        .is_some_and(|outage| is_obstacle(facts, &Dependency::DeadLetters, outage));
    for (partition, incomplete) in &facts.incomplete {
        // Partitions that wait for a dead letter are named above.
        let told = dead_letters_fail && facts.waits_for_dead_letters.contains(partition);
        if incomplete.age > facts.blocked_after && !told {
            waits.push(Wait {
                what: format!(
                    "partition {partition} is blocked: its event {} has not been completed",
                    incomplete.sequence_number
                ),
                lasts: Some(incomplete.age),
                ..Wait::default()
            });
        }
    }
    waits.extend(partitions(facts));
    waits
}

/// What is out of order but does not keep the process from its work, or not for long enough.
pub fn worries(facts: &Facts) -> Vec<Wait> {
    let throttled = facts.partitions.iter().filter_map(|(partition, status)| match &status.state {
        PartitionState::Throttled { reason } if status.lasts <= facts.blocked_after => Some(Wait {
            what: format!("partition {partition} has been throttled"),
            lasts: Some(status.lasts),
            next_try: status.next_try,
            reason: Some(reason.clone()),
        }),
        PartitionState::Throttled { .. }
        | PartitionState::Connecting
        | PartitionState::Receiving
        | PartitionState::Waiting { .. } => None,
    });
    dependencies(facts, false).chain(throttled).chain(facts.tokens.iter().filter_map(worry)).collect()
}

fn store(facts: &Facts) -> Option<Wait> {
    match &facts.store {
        StoreState::Unknown => {
            Some(Wait { what: "the document store has not been reached yet".to_owned(), ..Wait::default() })
        }
        StoreState::Reachable => None,
        StoreState::Unreachable { reason } => Some(Wait {
            what: "the document store has not answered".to_owned(),
            lasts: Some(facts.store_lasts),
            next_try: facts.store_next_try,
            reason: Some(reason.clone()),
        }),
    }
}

/// The dependencies that are obstacles, or the others.
fn dependencies(facts: &Facts, obstacles: bool) -> impl Iterator<Item = Wait> {
    facts.dependencies.iter().filter_map(move |(dependency, outage)| {
        let outage = outage.as_ref()?;
        (is_obstacle(facts, dependency, outage) == obstacles).then(|| no_answer(facts, dependency, outage))
    })
}

fn no_answer(facts: &Facts, dependency: &Dependency, outage: &Outage) -> Wait {
    let who = facts.waits_for_dead_letters.first().filter(|_| *dependency == Dependency::DeadLetters);
    let what = match (who, facts.waits_for_dead_letters.len(), outage.failure) {
        (Some(partition), 1, _) => format!("{partition} waits for {dependency}"),
        (Some(partition), 2, _) => format!("{partition} and one more partition wait for {dependency}"),
        (Some(partition), all, _) => {
            format!("{partition} and {} more partitions wait for {dependency}", all - 1)
        }
        (None, _, Failure::Silent) => format!("{dependency} has not answered"),
        (None, _, Failure::Throttled) => format!("{dependency} has throttled us"),
    };
    Wait { what, lasts: Some(outage.lasts), next_try: outage.next_try, reason: Some(outage.reason.clone()) }
}

/// Partitions that receive nothing. Partitions of one stream with the same problem are combined.
fn partitions(facts: &Facts) -> Vec<Wait> {
    let mut kinds: BTreeMap<(&str, u8), Vec<(&PartitionId, Wait)>> = BTreeMap::new();
    for (partition, status) in &facts.partitions {
        let (kind, reason) = match &status.state {
            PartitionState::Receiving => continue,
            PartitionState::Waiting { reason } => (0, Some(reason.clone())),
            PartitionState::Throttled { reason } if status.lasts > facts.blocked_after => {
                (1, Some(reason.clone()))
            }
            PartitionState::Throttled { .. } => continue,
            PartitionState::Connecting => (2, None),
        };
        let wait = Wait {
            what: String::new(),
            lasts: Some(status.lasts).filter(|lasts| kind < 2 || !lasts.is_zero()),
            next_try: status.next_try,
            reason,
        };
        kinds.entry((&partition.stream, kind)).or_default().push((partition, wait));
    }
    let told = kinds.into_iter().filter_map(|((stream, kind), mut waits)| {
        let next_try = waits.iter().filter_map(|(_, wait)| wait.next_try).min();
        waits.sort_by_key(|(_, wait)| std::cmp::Reverse(wait.lasts));
        let all = waits.len();
        let (partition, longest) = waits.into_iter().next()?;
        let what = match (all, kind) {
            (1, 0) => format!("partition {partition} cannot be read"),
            (1, 1) => format!("partition {partition} has been throttled"),
            (1, _) => format!("partition {partition} is connecting"),
            (all, 0) => format!("{all} partitions of {stream} cannot be read"),
            (all, 1) => format!("{all} partitions of {stream} have been throttled"),
            (all, _) => format!("{all} partitions of {stream} are connecting"),
        };
        Some((kind, Wait { what, next_try, ..longest }))
    });
    let mut told: Vec<_> = told.collect();
    told.sort_by_key(|(kind, _)| *kind);
    told.into_iter().map(|(_, wait)| wait).collect()
}

/// Repair and audits run in the background: the copy follows the streams without them. Without the keys of Entra ID,
/// twins can still be read with shared access signatures; they can also be read whatever the lag is. Declared counts
/// are separate from the copy. A service that throttles will answer later, so it is an obstacle only if that takes
/// long.
pub(super) fn is_obstacle(facts: &Facts, dependency: &Dependency, outage: &Outage) -> bool {
    match (dependency, outage.failure) {
        (
            Dependency::Registry(_)
            | Dependency::Traces
            | Dependency::EntraKeys
            | Dependency::Lag
            | Dependency::ChangeFeed,
            _,
        ) => false,
        (_, Failure::Silent) => true,
        (_, Failure::Throttled) => outage.lasts > facts.blocked_after,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use super::*;
    use crate::domain::{
        health::{Incomplete, PartitionStatus, Phase},
        id::SequenceNumber,
        ticks::Ticks,
    };

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn partition(name: &str) -> PartitionId {
        PartitionId { stream: "twins".into(), partition: name.into() }
    }

    fn facts() -> Facts {
        Facts {
            phase: Phase::Running,
            partitions: BTreeMap::new(),
            store: StoreState::Reachable,
            store_lasts: s(90),
            store_next_try: None,
            waits_for_dead_letters: BTreeSet::new(),
            tokens: Vec::new(),
            loops: BTreeMap::new(),
            dependencies: BTreeMap::new(),
            incomplete: BTreeMap::new(),
            blocked_after: s(60),
        }
    }

    fn outage(failure: Failure, lasts: u64, next_try: Option<u64>) -> Option<Outage> {
        Some(Outage { failure, reason: "503".into(), lasts: s(lasts), next_try: next_try.map(s) })
    }

    fn told(waits: &[Wait]) -> Vec<String> {
        let now = Ticks::parse("2026-11-28T14:03:30Z").expect("a time");
        waits.iter().map(|wait| wait.told(now)).collect()
    }

    #[test]
    fn throttling_and_an_incomplete_event_are_obstacles_after_their_limit() {
        for (seconds, is_obstacle) in [(59, false), (60, false), (61, true)] {
            let state = PartitionState::Throttled { reason: "busy".into() };
            let status = PartitionStatus { state, lasts: s(seconds), next_try: None };
            let throttled = Facts { partitions: BTreeMap::from([(partition("0"), status)]), ..facts() };
            let found = (obstacles(&throttled).len(), worries(&throttled).len());
            assert_eq!(found, if is_obstacle { (1, 0) } else { (0, 1) }, "throttled for {seconds} s");
            let incomplete = Incomplete { sequence_number: SequenceNumber(7), age: s(seconds) };
            let blocked = Facts { incomplete: BTreeMap::from([(partition("0"), incomplete)]), ..facts() };
            assert_eq!(obstacles(&blocked).len(), usize::from(is_obstacle), "incomplete for {seconds} s");
        }
    }

    #[test]
    fn a_store_that_was_not_reached_yet_is_named() {
        let waits = obstacles(&Facts { store: StoreState::Unknown, ..facts() });
        assert_eq!(waits[0].what, "the document store has not been reached yet");
    }

    #[test]
    fn what_is_out_of_order_is_told_with_when_it_began_and_when_it_is_tried_again() {
        let mut facts = facts();
        facts.store = StoreState::Unreachable { reason: "refused".into() };
        facts.store_next_try = Some(s(3));
        facts.dependencies = BTreeMap::from([
            (Dependency::Checkpoints, outage(Failure::Silent, 86_400, None)),
            (Dependency::Registry("contoso".into()), outage(Failure::Silent, 30, Some(12))),
            (Dependency::Leases, outage(Failure::Throttled, 61, None)),
        ]);
        assert_eq!(
            told(&obstacles(&facts)),
            [
                "the document store has not answered since 14:02 UTC, next try in 3.0 s: refused",
                "the checkpoint store has not answered since 2026-11-27 14:03 UTC: 503",
                "the lease store has throttled us since 14:02 UTC: 503",
            ]
        );
        assert_eq!(
            told(&worries(&facts)),
            ["the registry of the IoT hub contoso has not answered since 14:03 UTC, next try in 12 s: 503"]
        );
    }

    #[test]
    fn who_waits_for_a_dead_letter_is_named_and_told_once() {
        let mut facts = facts();
        facts.dependencies =
            BTreeMap::from([(Dependency::DeadLetters, outage(Failure::Silent, 90, Some(12)))]);
        let incomplete = |age| Incomplete { sequence_number: SequenceNumber(7), age: s(age) };
        facts.incomplete =
            BTreeMap::from([(partition("1"), incomplete(90)), (partition("2"), incomplete(61))]);
        let first = |facts: &Facts| told(&obstacles(facts))[0].clone();
        assert_eq!(
            first(&facts),
            "the dead-letter store has not answered since 14:02 UTC, next try in 12 s: 503"
        );
        facts.waits_for_dead_letters.insert(partition("1"));
        assert_eq!(
            told(&obstacles(&facts)),
            [
                "twins/1 waits for the dead-letter store since 14:02 UTC, next try in 12 s: 503",
                "partition twins/2 is blocked: its event 7 has not been completed since 14:02 UTC"
            ]
        );
        facts.waits_for_dead_letters.insert(partition("2"));
        assert!(first(&facts).starts_with("twins/1 and one more partition wait for the dead-letter store"));
        facts.waits_for_dead_letters.insert(partition("3"));
        assert!(first(&facts).starts_with("twins/1 and 2 more partitions wait for the dead-letter store"));
        facts.dependencies.insert(Dependency::DeadLetters, None);
        assert!(
            first(&facts).starts_with("partition twins/1 is blocked"),
            "the partition waits for something else"
        );
    }

    #[test]
    fn partitions_with_the_same_failure_are_one_wait_with_the_longest_time_and_the_nearest_try() {
        let mut facts = facts();
        let waits = |reason: &str, lasts, next_try| PartitionStatus {
            state: PartitionState::Waiting { reason: reason.into() },
            lasts: s(lasts),
            next_try: Some(s(next_try)),
        };
        facts.partitions.insert(partition("0"), waits("a", 10, 20));
        assert_eq!(
            told(&obstacles(&facts)),
            ["partition twins/0 cannot be read since 14:03 UTC, next try in 20 s: a"]
        );
        facts.partitions.insert(partition("0"), waits("a", 0, 20));
        assert_eq!(
            told(&obstacles(&facts)),
            ["partition twins/0 cannot be read since 14:03 UTC, next try in 20 s: a"],
            "a failure of this moment has a beginning too"
        );
        facts.partitions.insert(partition("1"), waits("b", 100, 30));
        facts.partitions.insert(
            partition("2"),
            PartitionStatus { state: PartitionState::Connecting, lasts: s(0), next_try: None },
        );
        assert_eq!(
            told(&obstacles(&facts)),
            [
                "2 partitions of twins cannot be read since 14:01 UTC, next try in 20 s: b",
                "partition twins/2 is connecting"
            ]
        );
        facts.partitions.get_mut(&partition("2")).expect("it was inserted").lasts = s(30);
        assert_eq!(told(&obstacles(&facts))[1], "partition twins/2 is connecting since 14:03 UTC");
    }
}
