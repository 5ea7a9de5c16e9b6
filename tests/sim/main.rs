//! The daemon itself (partitions, router, workers, committer, leases, repair, backfill, audit) in one process on virtual time, in a
//! simulated world with faults. Everything is derived from a seed: the same seed gives the same trace, line by line.
//!
//! ```sh
//! cargo sim                                            # the number of seeds that CI runs
//! TWINSYNC_SEEDS=100000 cargo sim                      # more seeds
//! TWINSYNC_SIM=seed=7,without=Crash cargo sim          # one plan, with its trace
//! cargo test -p twinsync --test sim --features planted-defects   # which planted defects it finds
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

/// The allocator of the shipped binary. A quarter of a plan's time goes to the allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Plans that failed before a defect was fixed.
const REGRESSIONS: &[&str] = &[
    // A late checkpoint write set back the checkpoint of an idle partition permanently.
    "seed=420,replicas=1,hubs=1,partitions=2,devices=1,modules=2,operations=12,registry=1,past=0,rate=150,cache=1,faults=\
     StoreRefuses+StoreLosesAnswers+StoreIsLate+StoreThrottles+HubRefuses+LinkHangs+LinkGoesBack+CheckpointsLoseAnswers+\
     CheckpointsHang+RegistryFails+RegistryThrottles+Outage+Skew+Duplicates+Delays+Packs+Failover",
    // A backfill that was stopped before its first note was not resumed, because the container was no longer empty.
    "seed=16840,replicas=1,hubs=1,partitions=1,devices=4,modules=0,operations=1,registry=1,past=6,rate=150,cache=1,faults=\
     StoreLosesAnswers+StoreThrottles+CheckpointsRefuse+Restart+Skew",
    // A device that was created again stored its cascade as done before its modules had followed. A crash then lost the cascade.
    "seed=17336,replicas=1,hubs=1,partitions=4,devices=3,modules=2,operations=38,registry=0,past=0,rate=150,cache=1,faults=\
     StoreLosesAnswers+StoreIsLate+StoreThrottles+StoreIsBehind+HubRefuses+LinkBreaks+LinkGoesBack+CheckpointsRefuse+\
     CheckpointsLoseAnswers+Crash+Outage+Skew+Delays",
    // A repair's create whose answer was lost was performed after the hub had answered that its twin was gone.
    "seed=100952,replicas=2,hubs=1,partitions=2,devices=4,modules=1,operations=3,registry=1,past=8,rate=20,cache=1,faults=     StoreIsLate+StoreIsBehind+LinkBreaks+LinkHangs+LinkGoesBack+CheckpointsRefuse+CheckpointsLoseAnswers+Skew",
    // A partition that was created again reached the sequence number of its last checkpoint, which was then not written.
    "seed=504921,replicas=2,hubs=1,partitions=4,devices=3,modules=0,operations=11,registry=1,past=7,rate=20,cache=1,faults=\
     StoreRefuses+StoreLosesAnswers+StoreThrottles+LinkHangs+RegistryFails+RegistryThrottles+Outage+Duplicates+Packs+Losses+\
     Failover+Recreates",
    // A deletion after which a repair had already written a newer state was not stored as a cascade while an older cascade was
    // unfinished.
    "seed=2093618,replicas=2,hubs=2,partitions=2,devices=1,modules=2,operations=34,registry=1,past=10,rate=150,cache=0,counts=0,faults=\
     StoreRefuses+StoreIsLate+StoreThrottles+StoreIsBehind+LinkBreaks+\
     LinkGoesBack+NotesFail+RegistryFails+RegistryThrottles+Crash+Duplicates+AddsPartition+TombstonesExpire",
    // A backfill gave up a twin without an answer. Its document was missing until the next audit.
    "seed=3056198,replicas=3,hubs=2,partitions=4,devices=3,modules=2,operations=12,registry=1,past=8,rate=20,cache=1,counts=0,faults=\
     StoreLosesAnswers+StoreIsLate+StoreThrottles+StoreIsBehind+HubRefuses+LinkHangs+LinkGoesBack+CheckpointsRefuse+\
     Crash+Outage+Restart+Skew+Duplicates+Delays+Packs",
    // An interrupted backfill's create of a module was performed after the cascade of its device had ended.
    "seed=3186952,replicas=1,hubs=1,partitions=1,devices=3,modules=1,operations=5,registry=1,past=4,rate=150,cache=0,counts=1,faults=\
     StoreRefuses+StoreLosesAnswers+StoreIsLate+StoreThrottles+LinkBreaks+LinkHangs+LinkGoesBack+CheckpointsRefuse+\
     CheckpointsLoseAnswers+CheckpointsHang+NotesFail+RegistryFails+RegistryThrottles+Outage+Restart+Skew+Delays+AddsPartition+\
     TombstonesExpire",
    // A backfill created a module after the stream had queried the modules of its deleted device.
    "seed=3383203,replicas=1,hubs=1,partitions=4,devices=3,modules=2,operations=10,registry=1,past=8,rate=60,cache=0,counts=0,faults=\
     StoreRefuses+StoreIsLate+StoreThrottles+HubRefuses+LinkHangs+LinkGoesBack+CheckpointsRefuse+\
     CheckpointsLoseAnswers+CheckpointsHang+Outage+Restart+Duplicates+Packs+Poison+AddsPartition+TombstonesExpire",
    // A partition that was created again reached the sequence number of the newest received event while its link was silent.
    "seed=3551681,replicas=1,hubs=1,partitions=1,devices=2,modules=1,operations=24,registry=1,past=0,rate=60,cache=0,counts=0,faults=\
     StoreRefuses+StoreLosesAnswers+StoreIsLate+StoreThrottles+HubRefuses+LinkBreaks+LinkHangs+\
     LinkGoesBack+CheckpointsRefuse+CheckpointsLoseAnswers+CheckpointsHang+DeadLettersFail+\
     NotesFail+RegistryFails+RegistryThrottles+Crash+Outage+Restart+Skew+Duplicates+\
     Delays+Packs+Losses+Failover+Poison+Spoils+Retention+Recreates+AddsPartition+TombstonesExpire",
    // A module with a damaged document ignored the deletion of its device.
    "seed=3323449,replicas=1,hubs=1,partitions=2,devices=3,modules=2,operations=40,registry=1,past=0,rate=150,cache=0,counts=0,faults=\
     StoreRefuses+StoreLosesAnswers+StoreIsLate+StoreThrottles+StoreIsBehind+HubRefuses+LinkBreaks+LinkHangs+\
     LinkGoesBack+CheckpointsRefuse+CheckpointsLoseAnswers+CheckpointsHang+NotesFail+RegistryFails+\
     RegistryThrottles+Crash+Outage+Restart+Skew+Duplicates+Delays+Packs+Losses+Failover+Poison+Spoils+Retention+\
     Recreates+AddsPartition+TombstonesExpire",
];

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// Shrinks a failing plan as long as it violates the same invariant.
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

/// Runs one plan and prints its trace.
#[expect(clippy::print_stdout, reason = "what a person asked for")]
fn tell_one(plan: &Plan) {
    let outcome = run(plan, true);
    for line in &outcome.whole {
        println!("{line}");
    }
    println!("{plan:#?}\n{:?}", outcome.met);
    assert!(outcome.violation.is_none(), "{:?}", outcome.violation);
}

/// Panics with the shrunk plan, its violation and the command that repeats it.
fn explain(plan: &Plan, outcome: Outcome) -> ! {
    let (plan, outcome) = shrink(plan, outcome);
    let violation = outcome.violation.as_ref().expect("it failed");
    panic!(
        "{:?}: {}\n{plan:#?}\n{}\nagain with: TWINSYNC_SIM={plan} cargo sim",
        violation.invariant, violation.detail, outcome.story
    );
}

#[test]
fn with_any_faults_every_document_ends_correct_or_flagged() {
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
        assert!(!never.iter().any(drawn), "these faults never happened: {never:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
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
fn plans_that_failed_before_pass() {
    for plan in REGRESSIONS {
        let plan: Plan = plan.parse().expect("a plan");
        let outcome = run(&plan, false);
        if outcome.violation.is_some() {
            explain(&plan, outcome);
        }
    }
}
