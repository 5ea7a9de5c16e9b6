//! Which replica should own which partition: cooperative; each replica decides for itself.
//!
//! A replica sees the ownerships of one Event Hub and decides which partitions to claim and which to give up. The
//! others see it only through the partitions that it owns. Fair shares are `floor(P/N)` to `ceil(P/N)` for P partitions
//! and N owners.
//!
//! | situation | what a replica does |
//! |---|---|
//! | a partition is free, or its owner has been silent for the lease's duration | claims it, up to `ceil` |
//! | it owns more than `ceil` | gives up the surplus; an owner with fewer partitions claims it |
//! | it owns `ceil`, another replica owns less than `floor` | the last owner in order of names gives up one |
//! | it owns nothing, and nothing is free | takes one from the owner with the most, if that has at least two |
//!
//! Only in the last row does a live owner lose a partition without giving it up itself. A new replica is invisible
//! until it owns a partition, so the others cannot give one up for it. After it owns its first partition, the others
//! give up theirs by the rules above. For a short time, two replicas then process one partition; versions and
//! conditional writes make that harmless.

use std::collections::{BTreeMap, BTreeSet};

/// The known owner of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder<'a> {
    /// No replica, or one that has been silent for too long.
    Nobody,
    /// This replica.
    Me,
    /// Another live replica.
    Other(&'a str),
}

/// What a replica should do next: partitions to claim and to give up, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Partitions to claim: free ones, or, for a new replica, one of another owner.
    pub claim: Vec<String>,
    /// Partitions to give up.
    pub release: Vec<String>,
}

/// Makes the plan for the replica `me`. `luck` in 0..1 chooses among equal candidates, so that two replicas rarely
/// choose the same one.
pub fn plan(me: &str, partitions: &BTreeMap<String, Holder<'_>>, luck: f64) -> Plan {
    let mut owned = BTreeMap::from([(me, 0_usize)]);
    for holder in partitions.values() {
        match holder {
            Holder::Me => *owned.entry(me).or_default() += 1,
            Holder::Other(other) => *owned.entry(other).or_default() += 1,
            Holder::Nobody => {}
        }
    }
    let (floor, ceiling) = (partitions.len() / owned.len(), partitions.len().div_ceil(owned.len()));
    let mine = owned.get(me).copied().unwrap_or(0);
    let of = |wanted: &dyn Fn(&Holder<'_>) -> bool| {
        let names = partitions.iter().filter(|(_, holder)| wanted(holder)).map(|(name, _)| name.clone());
        let mut names: Vec<_> = names.collect();
        let start = (luck.clamp(0.0, 1.0) * names.len() as f64) as usize;
        let middle = start.min(names.len().saturating_sub(1));
        names.rotate_left(middle);
        names
    };
    let mut plan = Plan::default();
    if mine > ceiling {
        plan.release = of(&|holder| *holder == Holder::Me);
        plan.release.truncate(mine - ceiling);
    } else if mine == ceiling && ceiling > floor && gives_way(me, &owned, floor, ceiling) {
        plan.release = of(&|holder| *holder == Holder::Me);
        plan.release.truncate(1);
    } else {
        plan.claim = of(&|holder| *holder == Holder::Nobody);
        plan.claim.truncate(ceiling - mine);
        if mine == 0 && plan.claim.is_empty() {
            let richest = owned.iter().max_by_key(|(_, count)| **count).filter(|(_, count)| **count >= 2);
            if let Some((richest, _)) = richest {
                plan.claim = of(&|holder| *holder == Holder::Other(richest));
                plan.claim.truncate(1);
            }
        }
    }
    plan
}

/// The other replicas that own a partition of one Event Hub.
pub fn others(partitions: &BTreeMap<String, Holder<'_>>) -> BTreeSet<String> {
    let other = |holder: &Holder<'_>| match holder {
        Holder::Other(other) => Some((*other).to_owned()),
        Holder::Nobody | Holder::Me => None,
    };
    partitions.values().filter_map(other).collect()
}

/// How many replicas are alive: this one, and each other one that owns a partition of any Event Hub. A replica that
/// owns nothing is not visible; it has no work either.
pub fn alive<'a>(others: impl IntoIterator<Item = &'a BTreeSet<String>>) -> usize {
    1 + others.into_iter().flatten().collect::<BTreeSet<_>>().len()
}

/// Whether `me` is the replica that gives up a partition for an owner below `floor`.
fn gives_way(me: &str, owned: &BTreeMap<&str, usize>, floor: usize, ceiling: usize) -> bool {
    let somebody_is_short = owned.values().any(|count| *count < floor);
    let last = owned.iter().rev().find(|(_, count)| **count == ceiling).map(|(name, _)| *name);
    somebody_is_short && last == Some(me)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ownerships as each replica sees them; names are indices.
    type Owners = Vec<Option<usize>>;

    fn view<'a>(owners: &Owners, names: &'a [String], me: usize) -> BTreeMap<String, Holder<'a>> {
        let holder = |owner: &Option<usize>| match owner {
            None => Holder::Nobody,
            Some(owner) if *owner == me => Holder::Me,
            Some(owner) => Holder::Other(&names[*owner]),
        };
        owners
            .iter()
            .enumerate()
            .map(|(partition, owner)| (format!("{partition:02}"), holder(owner)))
            .collect()
    }

    /// One round of one replica. Returns whether anything changed.
    fn round(owners: &mut Owners, names: &[String], me: usize, luck: f64) -> bool {
        let plan = plan(&names[me], &view(owners, names, me), luck);
        for partition in &plan.claim {
            owners[partition.parse::<usize>().expect("a number")] = Some(me);
        }
        for partition in &plan.release {
            let partition = partition.parse::<usize>().expect("a number");
            assert_eq!(owners[partition], Some(me), "a replica released a partition of another");
            owners[partition] = None;
        }
        !plan.claim.is_empty() || !plan.release.is_empty()
    }

    fn converge(
        owners: &mut Owners,
        names: &[String],
        alive: &[usize],
        luck: impl Fn(usize) -> f64,
    ) -> usize {
        for rounds in 0..200 {
            let mut changed = false;
            for me in alive {
                changed |= round(owners, names, *me, luck(rounds + me));
            }
            if !changed {
                return rounds;
            }
        }
        panic!("never converges: {owners:?}");
    }

    fn counts(owners: &Owners, alive: &[usize]) -> Vec<usize> {
        alive.iter().map(|me| owners.iter().filter(|owner| **owner == Some(*me)).count()).collect()
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|index| format!("replica-{index}")).collect()
    }

    #[test]
    fn a_single_replica_owns_everything() {
        let (mut owners, names) = (vec![None; 5], names(1));
        converge(&mut owners, &names, &[0], |_| 0.5);
        assert_eq!(counts(&owners, &[0]), [5]);
    }

    #[test]
    fn a_newcomer_takes_one_and_is_then_given_the_rest_of_its_share() {
        let (mut owners, names) = (vec![Some(0); 8], names(2));
        let first = plan("replica-1", &view(&owners, &names, 1), 0.0);
        assert_eq!((first.claim.len(), first.release.len()), (1, 0));
        converge(&mut owners, &names, &[1, 0], |_| 0.3);
        assert_eq!(counts(&owners, &[0, 1]), [4, 4]);
    }

    #[test]
    fn a_replica_more_than_there_are_partitions_stays_idle() {
        let (owners, names) = (vec![Some(0), Some(1)], names(3));
        assert_eq!(plan("replica-2", &view(&owners, &names, 2), 0.0), Plan::default());
    }

    #[test]
    fn everybody_who_owns_something_is_alive_and_counted_once() {
        let names = names(4);
        let of = |owners: Owners| others(&view(&owners, &names, 0));
        let (lifecycle, changes) = (of(vec![Some(0), Some(1), Some(1)]), of(vec![Some(1), Some(2), None]));
        assert_eq!(alive([&lifecycle]), 2);
        assert_eq!(alive([&lifecycle, &changes]), 3);
        assert_eq!(alive([&of(vec![None, Some(0)])]), 1, "a single replica");
        assert_eq!(alive([]), 1);
        assert_eq!(alive([&of(vec![Some(3), Some(2)])]), 3, "a replica without partitions counts itself");
    }

    #[test]
    fn nobody_gives_up_what_is_fair() {
        let (owners, names) = (vec![Some(0), Some(0), Some(1)], names(2));
        for me in 0..2 {
            assert_eq!(plan(&names[me], &view(&owners, &names, me), 0.9), Plan::default());
        }
    }

    #[test]
    fn what_is_missing_to_a_share_is_claimed_and_what_exceeds_it_is_released_at_once() {
        let names = names(2);
        let (nobody, me, other) = (None, Some(0), Some(1));
        for (owners, claimed, released) in [
            (vec![me, other, nobody, nobody], 1, 0),
            (vec![nobody, other, nobody, nobody], 2, 0),
            (vec![me, me, me, me, me, other], 0, 2),
            (vec![me, me, other, nobody], 0, 0), // the free partition is the share of the other replica
        ] {
            let plan = plan(&names[0], &view(&owners, &names, 0), 0.0);
            assert_eq!((plan.claim.len(), plan.release.len()), (claimed, released), "{owners:?}");
        }
    }

    #[test]
    fn the_last_of_those_with_most_gives_way_to_one_that_is_short() {
        let names = names(3);
        // Seven partitions: shares of two and three.
        let owners = vec![Some(0), Some(0), Some(0), Some(1), Some(1), Some(1), Some(2)];
        let released = [0, 1, 2].map(|me| plan(&names[me], &view(&owners, &names, me), 0.0).release.len());
        assert_eq!(released, [0, 1, 0]);
    }

    #[test]
    fn luck_chooses_among_all_candidates() {
        let (owners, names) = (vec![None, None, None, None, Some(1), Some(1), Some(1), Some(1)], names(2));
        let first = |luck| plan(&names[0], &view(&owners, &names, 0), luck).claim[0].clone();
        assert_eq!([0.0, 0.3, 0.5, 0.99, 1.0].map(first), ["00", "01", "02", "03", "03"]);
    }

    proptest::proptest! {
        /// From any state, with replicas that joined and left: every partition is owned, and shares differ by at most
        /// one.
        #[test]
        fn shares_become_fair_from_anywhere(
            owners in proptest::collection::vec(proptest::option::of(0_usize..6), 1..24),
            alive in proptest::sample::subsequence((0_usize..6).collect::<Vec<_>>(), 1..6),
            seed in 0_usize..1000
        ) {
            // The leases of replicas that left have expired.
            let mut owners: Owners =
                owners.into_iter().map(|owner| owner.filter(|owner| alive.contains(owner))).collect();
            converge(&mut owners, &names(6), &alive, |round| ((round * 7 + seed) % 10) as f64 / 10.0);
            let counts = counts(&owners, &alive);
            proptest::prop_assert!(owners.iter().all(Option::is_some), "{:?}", owners);
            let (most, least) = (counts.iter().max().unwrap(), counts.iter().min().unwrap());
            proptest::prop_assert!(most - least <= 1, "{:?}", counts);
        }
    }
}
