//! Injects one fault after the other, in random order, for the requested time.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use devkit::{
    fleet::{Pace, Plan, State},
    verify::{Report, verify},
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};

use crate::{
    cluster::{Cluster, POLL_INTERVAL, REPLICAS},
    fault::{Fault, between},
    inject::{self, Under},
    report::Injection,
    series::{Point, Series},
};

/// Time limit for a recovery after a fault.
const RECOVERY: Duration = Duration::from_secs(120);
/// Time limit for documents and twins to become equal after the last fault.
const CONVERGENCE: Duration = Duration::from_secs(180);
/// Number of characters that are shown of what was missing last.
const SHOWN: usize = 120;
/// Time between a recovery and the next fault.
const PAUSE: Duration = Duration::from_secs(1);

/// Options of a run.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// For how long new faults begin.
    pub(crate) time: Duration,
    /// The faults to inject.
    pub(crate) faults: Vec<Fault>,
    pub(crate) seed: u64,
    /// Events per second during the run.
    pub(crate) rate: f64,
    pub(crate) devices: usize,
}

/// The results of a run.
pub(crate) struct Outcome {
    pub(crate) injections: Vec<Injection>,
    pub(crate) points: Vec<Point>,
    /// Number of events of the hub during the run.
    pub(crate) events: u64,
    /// The comparison after the last fault.
    pub(crate) report: Report,
    /// From the end of the load until documents and twins were equal.
    pub(crate) converged: Duration,
    /// The output of `twinsync audit` after that.
    pub(crate) audit: String,
    /// From then until the declared counts of all replicas were correct.
    pub(crate) counted: Duration,
}

/// Runs all faults and the comparison.
///
/// # Errors
/// A fault cannot be injected, a replica does not recover, or documents and twins do not become equal.
pub(crate) async fn run(cluster: &mut Cluster, options: &Options, tell: impl Fn(&str)) -> Result<Outcome> {
    let mut random = StdRng::seed_from_u64(options.seed);
    let events = options.rate * (options.time.as_secs_f64() + 600.0);
    let plan = Plan {
        devices: options.devices,
        events: events as u64,
        seed: options.seed,
        phases: 1, // deleted ids stay deleted, so there is no wait between phases
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
        let reported = inject.reported_after.map_or_else(
            || "not reported".to_owned(),
            |after| format!("reported after {:.1} s", after.as_secs_f64()),
        );
        tell(&format!(
            "{:6.1} s: {}: lasted {:.1} s, {reported}, recovered in {:.1} s; last condition: {}",
            began.elapsed().as_secs_f64(),
            fault.name(),
            inject.duration.as_secs_f64(),
            inject.recovery.as_secs_f64(),
            inject.last.chars().take(SHOWN).collect::<String>(),
        ));
        injections.push(inject);
        tokio::time::sleep(PAUSE).await; // the next fault must begin while the cluster is working
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
    let mut reported_after = None;
    while began.elapsed() < lasts {
        if reported_after.is_none() && !is_ready(cluster, &under).await {
            reported_after = Some(began.elapsed());
        }
        series.sample(cluster).await;
        tokio::time::sleep(POLL_INTERVAL.min(lasts.saturating_sub(began.elapsed()))).await;
    }
    // A fault that ends at once may still have an effect.
    if reported_after.is_none() && !is_ready(cluster, &under).await {
        reported_after = Some(began.elapsed());
    }
    Box::pin(inject::end(cluster, under)).await?;
    let duration = began.elapsed();
    let (recovery, last) = Box::pin(cluster.recover(RECOVERY)).await?;
    series.sample(cluster).await;
    let repeated = u64::try_from(cluster.repeated()? - before).unwrap_or(0);
    Ok(Injection { fault, duration, reported_after, recovery, last, repeated })
}

/// Whether all affected replicas are ready.
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
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Waits until the declared counts of every replica equal devkit's evaluation of the hubs' twins.
async fn counted(cluster: &Cluster) -> Result<Duration> {
    let began = Instant::now();
    loop {
        let wrong = cluster.wrong_counts().await?;
        if wrong.is_empty() {
            return Ok(began.elapsed());
        }
        ensure!(began.elapsed() < CONVERGENCE, "counted wrongly: {wrong:#?}\n{}", cluster.logs());
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// The product's own comparison. It is independent of devkit's: it reads the hubs' service API, page by page.
async fn audit(cluster: &Cluster) -> Result<String> {
    let replica = cluster.replicas.first().context("there is no replica")?;
    let output = replica.setup.command_for(&["audit"]).output().await.context("the audit does not start")?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the audit ended with {}: {text}\n{errors}", output.status);
    Ok(text)
}
