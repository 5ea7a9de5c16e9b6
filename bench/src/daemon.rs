//! The daemon under measurement: the shipped binary, as an operator runs it.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use devkit::{
    daemon::{Daemon, Setup},
    metrics::Sample,
};
use tempfile::TempDir;
use tokio::process::Command;
use twinsync::telemetry::name;

use crate::{azure::Azure, process};

/// How often the first event is looked for.
const FIRST_LOOK: Duration = Duration::from_millis(5);
/// How often its progress is looked at. A look costs it about 2 ms.
const LOOK: Duration = Duration::from_millis(200);
/// How long nothing may move.
const STUCK: Duration = Duration::from_secs(60);

/// What a daemon did between two moments.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Done {
    /// Events completed.
    pub(crate) events: u64,
    /// From the first event to the last, in seconds.
    pub(crate) seconds: f64,
    /// CPU time of the daemon meanwhile, in seconds.
    pub(crate) cpu_seconds: f64,
    /// CPU time of devkit meanwhile, in seconds.
    pub(crate) azure_cpu_seconds: f64,
    /// The most memory that the daemon ever had resident, in bytes.
    pub(crate) peak_memory: u64,
    /// Documents written.
    pub(crate) writes: u64,
    /// Documents read.
    pub(crate) reads: u64,
    /// Request units charged for live changes.
    pub(crate) request_units: f64,
    /// Seconds from the hub's operation to its durable copy: for half of the changes.
    pub(crate) freshness_p50: Option<f64>,
    /// The same for 99 of 100.
    pub(crate) freshness_p99: Option<f64>,
}

/// A place for a daemon's files, which outlives its process.
pub(crate) struct Place {
    directory: TempDir,
    program: PathBuf,
}

impl Place {
    /// For the binary `program`.
    ///
    /// # Errors
    /// No directory can be made.
    pub(crate) fn new(program: &Path) -> Result<Self> {
        Ok(Self { directory: tempfile::tempdir()?, program: program.to_owned() })
    }

    /// Forgets the checkpoints, so that everything is received again.
    ///
    /// # Errors
    /// They cannot be removed.
    pub(crate) fn forget(&self) -> Result<()> {
        std::fs::remove_dir_all(self.directory.path().join("checkpoints")).context("checkpoints stay")
    }

    /// What to run, and with which configuration.
    ///
    /// # Errors
    /// The configuration cannot be written.
    pub(crate) fn setup(&self, azure: &Azure, more: &str) -> Result<Setup> {
        Ok(Setup::new(&self.program, self.directory.path(), &azure.endpoints, more)?.in_a_group_of_its_own())
    }

    /// Another command than `run` with the same configuration, and the file where everything goes that it says.
    ///
    /// # Errors
    /// The configuration cannot be written.
    pub(crate) fn command(
        &self,
        azure: &Azure,
        arguments: &[&str],
        more: &str,
    ) -> Result<(Command, PathBuf)> {
        let mut command = self.setup(azure, more)?.command_for(arguments);
        let log = self.directory.path().join("said");
        let file = File::create(&log).context("its output has no place")?;
        command.stdout(file.try_clone()?).stderr(file);
        Ok((command, log))
    }
}

/// Runs a daemon from its start until it has completed so many events, and stops it.
///
/// # Errors
/// It ends, gets stuck, or sets events aside.
pub(crate) async fn work_off(azure: &Azure, setup: &Setup, events: u64) -> Result<Done> {
    // From before the start: what is on its way to the daemon when it is first looked at has cost devkit its work already.
    let azure_cpu = azure.cpu()?;
    let mut daemon = setup.spawn()?;
    let first = first_event(&mut daemon, azure_cpu).await?;
    let done = until(&mut daemon, azure, first, events).await?;
    daemon.stop().await?;
    Ok(done)
}

/// The moment of a daemon's first event, or any other one to measure from.
pub(crate) struct Mark {
    at: Instant,
    sample: Sample,
    cpu: Duration,
    azure_cpu: Duration,
}

impl Mark {
    /// Now.
    ///
    /// # Errors
    /// One of the processes has ended.
    pub(crate) async fn now(daemon: &mut Daemon, azure: &Azure) -> Result<Self> {
        let sample = daemon.sample().await?;
        Ok(Self { at: Instant::now(), sample, cpu: cpu(daemon)?, azure_cpu: azure.cpu()? })
    }
}

async fn first_event(daemon: &mut Daemon, azure_cpu: Duration) -> Result<Mark> {
    daemon.ready().await?;
    let started = Instant::now();
    loop {
        let sample = daemon.sample().await?;
        if handled(&sample) > 0 {
            return Ok(Mark { at: Instant::now(), sample, cpu: cpu(daemon)?, azure_cpu });
        }
        ensure!(started.elapsed() < STUCK, "the daemon receives nothing:\n{}", daemon.log());
        tokio::time::sleep(FIRST_LOOK).await;
    }
}

/// Waits until it has completed so many events since its start.
///
/// # Errors
/// It ends or gets stuck.
pub(crate) async fn until(daemon: &mut Daemon, azure: &Azure, mark: Mark, events: u64) -> Result<Done> {
    let (mut seen, mut moved) = (0, Instant::now());
    loop {
        let sample = daemon.sample().await?;
        let (at, now) = (Instant::now(), handled(&sample));
        if now >= events && sample.count(name::IN_FLIGHT_EVENTS, "") == 0 {
            return done(daemon, azure, mark, at, &sample);
        }
        if now != seen {
            (seen, moved) = (now, at);
        }
        ensure!(moved.elapsed() < STUCK, "stuck at {seen} of {events} events:\n{}", daemon.log());
        tokio::time::sleep(LOOK).await;
    }
}

/// The marks of several daemons, now.
///
/// # Errors
/// One of the processes has ended.
pub(crate) async fn marks(daemons: &mut [Daemon], azure: &Azure) -> Result<Vec<Mark>> {
    let mut marks = Vec::with_capacity(daemons.len());
    for daemon in daemons {
        marks.push(Mark::now(daemon, azure).await?);
    }
    Ok(marks)
}

/// Waits until daemons have shared so many partitions evenly.
///
/// # Errors
/// One ends, or they do not.
pub(crate) async fn share(daemons: &mut [Daemon], partitions: usize) -> Result<()> {
    let count = daemons.len().max(1);
    ensure!(partitions.is_multiple_of(count), "{count} replicas cannot share {partitions} partitions evenly");
    let started = Instant::now();
    loop {
        let mut owned = Vec::with_capacity(count);
        for daemon in daemons.iter_mut() {
            let sample = daemon.sample().await?;
            owned.push(usize::try_from(sample.count(name::PARTITIONS_OWNED, ""))?);
        }
        if owned.iter().all(|owned| owned * count == partitions) {
            return Ok(());
        }
        ensure!(started.elapsed() < STUCK, "replicas own {owned:?} of {partitions} partitions");
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until several daemons together have completed so many events since their marks. CPU time, writes and charges are those of
/// all, memory and freshness those of the worst.
///
/// # Errors
/// One ends, or they get stuck.
pub(crate) async fn until_all(
    daemons: &mut [Daemon],
    azure: &Azure,
    marks: Vec<Mark>,
    events: u64,
) -> Result<Done> {
    let (mut seen, mut moved) = (0, Instant::now());
    loop {
        let (mut samples, mut in_flight) = (Vec::with_capacity(daemons.len()), 0);
        for daemon in daemons.iter_mut() {
            let sample = daemon.sample().await?;
            in_flight += sample.count(name::IN_FLIGHT_EVENTS, "");
            samples.push(sample);
        }
        let at = Instant::now();
        let now =
            samples.iter().zip(&marks).map(|(sample, mark)| handled(sample) - handled(&mark.sample)).sum();
        if now >= events && in_flight == 0 {
            let each = daemons.iter().zip(marks).zip(&samples);
            let each = each.map(|((daemon, mark), sample)| done(daemon, azure, mark, at, sample));
            return Ok(Done::of_all(&each.collect::<Result<Vec<_>>>()?));
        }
        if now != seen {
            (seen, moved) = (now, at);
        }
        ensure!(moved.elapsed() < STUCK, "stuck at {seen} of {events} events");
        tokio::time::sleep(LOOK).await;
    }
}

impl Done {
    /// What several daemons did in the same time.
    fn of_all(each: &[Self]) -> Self {
        let most = |figure: &dyn Fn(&Self) -> Option<f64>| each.iter().filter_map(figure).reduce(f64::max);
        Self {
            events: each.iter().map(|done| done.events).sum(),
            seconds: most(&|done| Some(done.seconds)).unwrap_or_default(),
            cpu_seconds: each.iter().map(|done| done.cpu_seconds).sum(),
            // There is one local Azure for all of them.
            azure_cpu_seconds: most(&|done| Some(done.azure_cpu_seconds)).unwrap_or_default(),
            peak_memory: each.iter().map(|done| done.peak_memory).max().unwrap_or_default(),
            writes: each.iter().map(|done| done.writes).sum(),
            reads: each.iter().map(|done| done.reads).sum(),
            request_units: each.iter().map(|done| done.request_units).sum(),
            freshness_p50: most(&|done| done.freshness_p50),
            freshness_p99: most(&|done| done.freshness_p99),
        }
    }
}

fn done(daemon: &Daemon, azure: &Azure, mark: Mark, at: Instant, sample: &Sample) -> Result<Done> {
    let more = |metric, label| sample.count(metric, label) - mark.sample.count(metric, label);
    let set_aside = sample.count(name::DEAD_LETTERS, "");
    ensure!(set_aside == 0, "{set_aside} events were set aside:\n{}", daemon.log());
    let units = |sample: &Sample| sample.sum(name::REQUEST_UNITS, "purpose=\"live\"");
    let quantile = |quantile| sample.quantile(&mark.sample, name::FRESHNESS, quantile);
    Ok(Done {
        events: handled(sample) - handled(&mark.sample),
        seconds: at.duration_since(mark.at).as_secs_f64(),
        cpu_seconds: cpu(daemon)?.saturating_sub(mark.cpu).as_secs_f64(),
        azure_cpu_seconds: azure.cpu()?.saturating_sub(mark.azure_cpu).as_secs_f64(),
        peak_memory: process::peak_memory(daemon.id().context("the daemon has ended")?)?,
        writes: more(name::WRITES, "outcome=\"written\""),
        reads: more(name::READS, ""),
        request_units: units(sample) - units(&mark.sample),
        freshness_p50: quantile(0.5),
        freshness_p99: quantile(0.99),
    })
}

fn cpu(daemon: &Daemon) -> Result<Duration> {
    process::cpu(daemon.id().context("the daemon has ended")?)
}

/// Events that were decided on since the start.
fn handled(sample: &Sample) -> u64 {
    sample.count(name::EVENTS, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_did_adds_up_and_the_worst_memory_counts() {
        let one = |events, seconds, peak_memory| Done {
            events,
            seconds,
            cpu_seconds: 2.0,
            azure_cpu_seconds: 5.0,
            peak_memory,
            writes: 3,
            reads: 1,
            request_units: 10.0,
            freshness_p50: None,
            freshness_p99: Some(seconds),
        };
        let all = Done::of_all(&[one(10, 1.0, 50), one(20, 1.5, 40)]);
        let expected =
            Done { cpu_seconds: 4.0, writes: 6, reads: 2, request_units: 20.0, ..one(30, 1.5, 50) };
        assert_eq!(all, expected);
    }
}
