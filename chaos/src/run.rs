//! One fault after the other, in random order, for as long as was asked for.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use devkit::{
    fleet::{Pace, Plan, State},
    verify::{Report, verify},
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};

use crate::{
    cluster::{Cluster, LOOK, REPLICAS},
    fault::{Fault, between},
    inject::{self, Under},
    report::Injection,
    series::{Point, Series},
};

/// How long everything may take to be in order again after a fault.
const RECOVERY: Duration = Duration::from_secs(120);
/// How long the copy may take to be equal when nothing breaks any more.
const CONVERGENCE: Duration = Duration::from_secs(180);
/// Characters of what was missing last that are shown.
const SHOWN: usize = 120;
/// How long everything stays in order between two faults.
const PAUSE: Duration = Duration::from_secs(1);

/// What to do.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// For how long faults begin.
    pub(crate) time: Duration,
    /// Which ones.
    pub(crate) faults: Vec<Fault>,
    pub(crate) seed: u64,
    /// Events per second meanwhile.
    pub(crate) rate: f64,
    pub(crate) devices: usize,
}

/// What it came to.
pub(crate) struct Outcome {
    pub(crate) injections: Vec<Injection>,
    pub(crate) points: Vec<Point>,
    /// Events of the hub meanwhile.
    pub(crate) events: u64,
    /// The comparison, when nothing broke any more.
    pub(crate) report: Report,
    /// From the end of the load until it was equal.
    pub(crate) converged: Duration,
    /// What `twinsync audit` said then.
    pub(crate) audit: String,
    /// From then until every replica's declared counts were those of the hubs.
    pub(crate) counted: Duration,
}

/// Runs.
///
/// # Errors
/// A fault cannot be injected, a replica does not recover, or the copy does not become equal.
pub(crate) async fn run(cluster: &mut Cluster, options: &Options, tell: impl Fn(&str)) -> Result<Outcome> {
    let mut random = StdRng::seed_from_u64(options.seed);
    let events = options.rate * (options.time.as_secs_f64() + 600.0);
    let plan = Plan {
        devices: options.devices,
        events: events as u64,
        seed: options.seed,
        phases: 1, // ids that are deleted stay deleted: nobody waits for anybody
        ..Plan::default()
    };
    cluster.stack.fleet().start(plan, Pace::Rate(options.rate))?;
    let mut series = Series::new(REPLICAS);
    let (mut injections, began) = (Vec::new(), Instant::now());
    let mut faults = Vec::new();
    while began.elapsed() < options.time {
        if faults.is_empty() {
            faults.clone_from(&options.faults);
            faults.shuffle(&mut random);
        }
        let Some(fault) = faults.pop() else { break };
        let inject = Box::pin(one(cluster, fault, &mut series, &mut random)).await;
        let inject = inject.with_context(|| format!("the fault {}", fault.name()))?;
        let told = inject
            .told
            .map_or_else(|| "not told".to_owned(), |told| format!("told after {:.1} s", told.as_secs_f64()));
        tell(&format!(
            "{:6.1} s: {}: held {:.1} s, {told}, recovered in {:.1} s; last: {}",
            began.elapsed().as_secs_f64(),
            fault.name(),
            inject.held.as_secs_f64(),
            inject.recovery.as_secs_f64(),
            inject.last.chars().take(SHOWN).collect::<String>(),
        ));
        injections.push(inject);
        tokio::time::sleep(PAUSE).await; // what follows has to meet a cluster at work
    }
    let fleet = cluster.stack.fleet();
    fleet.stop();
    let progress = fleet.phase_end().await;
    ensure!(progress.state != State::Failed, "the fleet failed: {progress:?}");
    let stopped = Instant::now();
    let report = equal(cluster, &mut series).await?;
    let converged = stopped.elapsed();
    let counted = counted(cluster).await?;
    let audit = audit(cluster).await?;
    let events = progress.counts.events;
    Ok(Outcome { injections, points: series.points, events, report, converged, audit, counted })
}

async fn one(
    cluster: &mut Cluster,
    fault: Fault,
    series: &mut Series,
    random: &mut StdRng,
) -> Result<Injection> {
    let lasts = between(fault.lasts(), random);
    let replica = random.random_range(0..REPLICAS);
    let before = cluster.repeated()?;
    let began = Instant::now();
    let under = Box::pin(inject::begin(cluster, fault, replica)).await?;
    let mut told = None;
    while began.elapsed() < lasts {
        if told.is_none() && !is_ready(cluster, &under).await {
            told = Some(began.elapsed());
        }
        series.sample(cluster).await;
        tokio::time::sleep(LOOK.min(lasts.saturating_sub(began.elapsed()))).await;
    }
    // What is over at once may still have been noticed.
    if told.is_none() && !is_ready(cluster, &under).await {
        told = Some(began.elapsed());
    }
    Box::pin(inject::end(cluster, under)).await?;
    let held = began.elapsed();
    let (recovery, last) = Box::pin(cluster.recover(RECOVERY)).await?;
    series.sample(cluster).await;
    let repeated = u64::try_from(cluster.repeated()? - before).unwrap_or(0);
    Ok(Injection { fault, held, told, recovery, last, repeated })
}

/// Whether every struck replica says that it is ready.
async fn is_ready(cluster: &Cluster, under: &Under) -> bool {
    for (number, replica) in cluster.replicas.iter().enumerate() {
        if under.injections(number) && !replica.is_ready().await {
            return false;
        }
    }
    true
}

/// Waits until no document differs from its twin, and none is flagged.
async fn equal(cluster: &mut Cluster, series: &mut Series) -> Result<Report> {
    let began = Instant::now();
    loop {
        let report = Box::pin(verify(cluster.stack.endpoints())).await?;
        if report.is_equal() && report.flagged == 0 {
            return Ok(report);
        }
        ensure!(began.elapsed() < CONVERGENCE, "not equal: {report}\n{}", cluster.logs());
        series.sample(cluster).await;
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until the declared counts of every replica are what devkit's evaluator makes of the hubs' twins.
async fn counted(cluster: &Cluster) -> Result<Duration> {
    let began = Instant::now();
    loop {
        let wrong = cluster.wrong_counts().await?;
        if wrong.is_empty() {
            return Ok(began.elapsed());
        }
        ensure!(began.elapsed() < CONVERGENCE, "counted wrongly: {wrong:#?}\n{}", cluster.logs());
        tokio::time::sleep(LOOK).await;
    }
}

/// The product's own comparison. It is of another maker than ours: it asks the hubs' service API, page by page.
async fn audit(cluster: &Cluster) -> Result<String> {
    let replica = cluster.replicas.first().context("there are replicas")?;
    let output = replica.setup.command_for(&["audit"]).output().await.context("the audit does not start")?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the audit ended with {}: {text}\n{errors}", output.status);
    Ok(text)
}
