//! The daemon itself (partitions, router, workers, committer, leases, repair, backfill, audit) in one process on virtual time, over a
//! world in which everything may go wrong. Everything follows from a seed, and the same seed comes to the same, line by line.
//!
//! ```sh
//! cargo sim                                            # as many seeds as CI runs
//! TWINSYNC_SEEDS=100000 cargo sim                      # more
//! TWINSYNC_SIM=seed=7,without=Crash cargo sim          # one plan, with its trace
//! cargo test -p twinsync --test sim --features planted-defects   # what it would find
//! ```

mod link;
mod plan;
#[cfg(feature = "planted-defects")]
mod planted;
mod ports;
mod routes;
mod run;
mod world;

#[path = "../model/delivery.rs"]
#[allow(dead_code, reason = "tests/domain uses the rest")]
mod delivery;
#[path = "../model/hub.rs"]
#[allow(dead_code, reason = "tests/domain uses the rest")]
mod hub;

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use self::{
    plan::{Fault, Plan},
    run::{Outcome, run},
};

/// What the shipped binary allocates with. A quarter of a plan's time goes to the allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Plans that failed once, each of a defect that was mended.
const REGRESSIONS: &[&str] = &[
    // A checkpoint that was written late set back that of a partition at rest, for good.
    "seed=420,replicas=1,hubs=1,partitions=2,devices=1,modules=2,operations=12,registry=1,past=0,rate=150,cache=1,faults=\
     StoreRefuses+StoreLosesAnswers+StoreIsLate+StoreThrottles+HubRefuses+LinkHangs+LinkGoesBack+CheckpointsLoseAnswers+\
     CheckpointsHang+RegistryFails+RegistryThrottles+Outage+Skew+Duplicates+Delays+Packs+Failover",
    // A backfill that was stopped before its first note was forgotten: the container was not empty any more.
    "seed=16840,replicas=1,hubs=1,partitions=1,devices=4,modules=0,operations=1,registry=1,past=6,rate=150,cache=1,faults=\
     StoreLosesAnswers+StoreThrottles+CheckpointsRefuse+Restart+Skew",
    // A device that was created anew stored that its modules had followed its end before they had, and a crash forgot them.
    "seed=17336,replicas=1,hubs=1,partitions=4,devices=3,modules=2,operations=38,registry=0,past=0,rate=150,cache=1,faults=\
     StoreLosesAnswers+StoreIsLate+StoreThrottles+StoreIsBehind+HubRefuses+LinkBreaks+LinkGoesBack+CheckpointsRefuse+\
     CheckpointsLoseAnswers+Crash+Outage+Skew+Delays",
    // A document whose creation by a repair had no answer came late, after the hub had said that its twin was gone.
    "seed=100952,replicas=2,hubs=1,partitions=2,devices=4,modules=1,operations=3,registry=1,past=8,rate=20,cache=1,faults=     StoreIsLate+StoreIsBehind+LinkBreaks+LinkHangs+LinkGoesBack+CheckpointsRefuse+CheckpointsLoseAnswers+Skew",
    // A partition that was created again came to the number of its last checkpoint, which was then not written.
    "seed=504921,replicas=2,hubs=1,partitions=4,devices=3,modules=0,operations=11,registry=1,past=7,rate=20,cache=1,faults=\
     StoreRefuses+StoreLosesAnswers+StoreThrottles+LinkHangs+RegistryFails+RegistryThrottles+Outage+Duplicates+Packs+Losses+\
     Failover+Recreates",
    // A deletion that a repair had overtaken was not noted for the modules, where those of an older deletion had not followed yet.
    "seed=2093618,replicas=2,hubs=2,partitions=2,devices=1,modules=2,operations=34,registry=1,past=10,rate=150,cache=0,counts=0,faults=\
     StoreRefuses+StoreIsLate+StoreThrottles+StoreIsBehind+LinkBreaks+\
     LinkGoesBack+NotesFail+RegistryFails+RegistryThrottles+Crash+Duplicates+AddsPartition+TombstonesExpire",
    // A backfill gave up a twin without an answer, which then had no document until the next audit that was due.
    "seed=3056198,replicas=3,hubs=2,partitions=4,devices=3,modules=2,operations=12,registry=1,past=8,rate=20,cache=1,counts=0,faults=\
     StoreLosesAnswers+StoreIsLate+StoreThrottles+StoreIsBehind+HubRefuses+LinkHangs+LinkGoesBack+CheckpointsRefuse+\
     Crash+Outage+Restart+Skew+Duplicates+Delays+Packs",
    // A module that an interrupted backfill was creating came into being after its device's end was through.
    "seed=3186952,replicas=1,hubs=1,partitions=1,devices=3,modules=1,operations=5,registry=1,past=4,rate=150,cache=0,counts=1,faults=\
     StoreRefuses+StoreLosesAnswers+StoreIsLate+StoreThrottles+LinkBreaks+LinkHangs+LinkGoesBack+CheckpointsRefuse+\
     CheckpointsLoseAnswers+CheckpointsHang+NotesFail+RegistryFails+RegistryThrottles+Outage+Restart+Skew+Delays+AddsPartition+\
     TombstonesExpire",
    // A backfill created a module after the stream had looked for the modules of its device, which had ended meanwhile.
    "seed=3383203,replicas=1,hubs=1,partitions=4,devices=3,modules=2,operations=10,registry=1,past=8,rate=60,cache=0,counts=0,faults=\
     StoreRefuses+StoreIsLate+StoreThrottles+HubRefuses+LinkHangs+LinkGoesBack+CheckpointsRefuse+\
     CheckpointsLoseAnswers+CheckpointsHang+Outage+Restart+Duplicates+Packs+Poison+AddsPartition+TombstonesExpire",
    // A partition that was created again came to the number of the newest event received while its link was silent.
    "seed=3551681,replicas=1,hubs=1,partitions=1,devices=2,modules=1,operations=24,registry=1,past=0,rate=60,cache=0,counts=0,faults=\
     StoreRefuses+StoreLosesAnswers+StoreIsLate+StoreThrottles+HubRefuses+LinkBreaks+LinkHangs+\
     LinkGoesBack+CheckpointsRefuse+CheckpointsLoseAnswers+CheckpointsHang+DeadLettersFail+\
     NotesFail+RegistryFails+RegistryThrottles+Crash+Outage+Restart+Skew+Duplicates+\
     Delays+Packs+Losses+Failover+Poison+Spoils+Retention+Recreates+AddsPartition+TombstonesExpire",
    // A module whose document somebody had spoilt took no account of the end of its device.
    "seed=3323449,replicas=1,hubs=1,partitions=2,devices=3,modules=2,operations=40,registry=1,past=0,rate=150,cache=0,counts=0,faults=\
     StoreRefuses+StoreLosesAnswers+StoreIsLate+StoreThrottles+StoreIsBehind+HubRefuses+LinkBreaks+LinkHangs+\
     LinkGoesBack+CheckpointsRefuse+CheckpointsLoseAnswers+CheckpointsHang+NotesFail+RegistryFails+\
     RegistryThrottles+Crash+Outage+Restart+Skew+Duplicates+Delays+Packs+Losses+Failover+Poison+Spoils+Retention+\
     Recreates+AddsPartition+TombstonesExpire",
];

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// Makes a failing plan smaller for as long as it fails in the same way.
fn shrink(plan: &Plan, outcome: Outcome) -> (Plan, Outcome) {
    let (mut plan, mut outcome) = (plan.clone(), outcome);
    let mut tries = 0;
    'again: loop {
        let invariant = outcome.violation.as_ref().map(|violation| violation.invariant);
        for smaller in plan.smaller() {
            tries += 1;
            if tries > 400 {
                return (plan, outcome);
            }
            let tried = run(&smaller, false);
            if tried.violation.as_ref().map(|violation| violation.invariant) == invariant {
                (plan, outcome) = (smaller, tried);
                continue 'again;
            }
        }
        return (plan, outcome);
    }
}

/// Runs one plan and prints all that happens.
#[expect(clippy::print_stdout, reason = "what a person asked for")]
fn tell_one(plan: &Plan) {
    let outcome = run(plan, true);
    for line in &outcome.whole {
        println!("{line}");
    }
    println!("{plan:#?}\n{:?}", outcome.met);
    assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
}

/// Fails with everything that a person needs.
fn explain(plan: &Plan, outcome: Outcome) -> ! {
    let (plan, outcome) = shrink(plan, outcome);
    let violation = outcome.violation.as_ref().expect("it failed");
    panic!(
        "{:?}: {}\n{plan:#?}\n{}\nagain with: TWINSYNC_SIM={plan} cargo sim",
        violation.invariant, violation.detail, outcome.story
    );
}

#[test]
fn whatever_goes_wrong_every_twin_ends_right_or_says_that_it_may_not_be() {
    if let Ok(plan) = std::env::var("TWINSYNC_SIM") {
        return tell_one(&plan.parse().unwrap_or_else(|error| panic!("TWINSYNC_SIM: {error}")));
    }
    let (first, seeds) = (number("TWINSYNC_SEED", 0), number("TWINSYNC_SEEDS", 300));
    let next = AtomicU64::new(first);
    let failed: Mutex<Option<(Plan, Outcome)>> = Mutex::default();
    let total: Mutex<(BTreeMap<Fault, u64>, u64, Duration)> = Mutex::default();
    let began = Instant::now();
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds || failed.lock().unwrap().is_some() {
                return;
            }
            let plan = Plan::of(seed);
            let outcome = run(&plan, false);
            if outcome.violation.is_some() {
                failed.lock().unwrap().get_or_insert((plan, outcome));
                return;
            }
            let mut total = total.lock().unwrap();
            for (fault, times) in outcome.met {
                *total.0.entry(fault).or_default() += times;
            }
            total.1 += outcome.lines;
            total.2 += outcome.took;
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    if let Some((plan, outcome)) = failed.into_inner().unwrap() {
        explain(&plan, outcome);
    }
    let (met, steps, took) = total.into_inner().unwrap();
    let per_second = seeds as f64 / began.elapsed().as_secs_f64();
    println!(
        "{seeds} seeds from {first} on: {steps} steps, {} h simulated, {per_second:.1} seeds/s",
        took.as_secs() / 3600
    );
    for (fault, times) in &met {
        println!("{times:>10} × {}", fault.name());
    }
    if seeds >= 200 {
        let never: Vec<_> = Fault::ALL.into_iter().filter(|fault| !met.contains_key(fault)).collect();
        let drawn = |fault: &Fault| *fault != Fault::Skew;
        assert!(!never.iter().any(drawn), "these never happened: {never:?}");
    }
}

#[test]
fn the_same_seed_comes_to_the_same_line_by_line() {
    for seed in 0..number("TWINSYNC_SEEDS", 300).min(40) {
        let plan = Plan::of(seed);
        let (one, other) = (run(&plan, true), run(&plan, true));
        if one.trace != other.trace {
            let differs = one.whole.iter().zip(&other.whole).position(|(one, other)| one != other);
            let at = differs.unwrap_or(one.whole.len().min(other.whole.len()));
            let around = at.saturating_sub(5)..;
            let show = |lines: &[String]| {
                lines[around.start.min(lines.len())..].iter().take(10).cloned().collect::<Vec<_>>().join("\n")
            };
            panic!(
                "seed {seed} differs from line {at} on:\n{}\n\nand\n{}",
                show(&one.whole),
                show(&other.whole)
            );
        }
    }
}

#[test]
fn what_failed_once_holds() {
    for plan in REGRESSIONS {
        let plan: Plan = plan.parse().expect("a plan");
        let outcome = run(&plan, false);
        if outcome.violation.is_some() {
            explain(&plan, outcome);
        }
    }
}
