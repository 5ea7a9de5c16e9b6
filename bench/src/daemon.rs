//! The daemon that is measured: the shipped binary, run as an operator runs it.

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

/// How often the daemon is asked whether the first event has arrived.
const FIRST_EVENT_CHECK_INTERVAL: Duration = Duration::from_millis(5);
/// How often the daemon's progress is checked. A check costs the daemon about 2 ms.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// The same when the run is nearly done. A run of two seconds ends when its last event is completed, and not up to
/// [`CHECK_INTERVAL`] later.
const MIN_CHECK_INTERVAL: Duration = Duration::from_millis(10);
/// After this time without progress, the daemon counts as stuck.
const STUCK: Duration = Duration::from_secs(60);

/// The work of a daemon between two moments.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Done {
    /// Number of events completed.
    pub(crate) events: u64,
    /// Seconds from the first event to the last.
    pub(crate) seconds: f64,
    /// CPU time of the daemon in this time, in seconds.
    pub(crate) cpu_seconds: f64,
    /// CPU time of devkit in this time, in seconds.
    pub(crate) azure_cpu_seconds: f64,
    /// Peak resident memory of the daemon, in bytes.
    pub(crate) peak_memory: u64,
    /// Number of documents written.
    pub(crate) writes: u64,
    /// Number of documents read.
    pub(crate) reads: u64,
    /// Request units charged for live changes.
    pub(crate) request_units: f64,
    /// Median of the time from the hub's operation to the durable document, in seconds.
    pub(crate) freshness_p50: Option<f64>,
    /// The 99th percentile of the same time.
    pub(crate) freshness_p99: Option<f64>,
}

/// A directory for a daemon's files. It outlives the process.
pub(crate) struct Place {
    directory: TempDir,
    program: PathBuf,
}

impl Place {
    /// Creates a directory for the binary `program`.
    ///
    /// # Errors
    /// The directory cannot be created.
    pub(crate) fn new(program: &Path) -> Result<Self> {
        Ok(Self { directory: tempfile::tempdir()?, program: program.to_owned() })
    }

    /// Removes the checkpoints, so that all events are received again.
    ///
    /// # Errors
    /// They cannot be removed.
    pub(crate) fn forget(&self) -> Result<()> {
        std::fs::remove_dir_all(self.directory.path().join("checkpoints"))
            .context("cannot remove the checkpoints")
    }

    /// How to run the daemon, with `more` configuration.
    ///
    /// # Errors
    /// The configuration cannot be written.
    pub(crate) fn setup(&self, azure: &Azure, more: &str) -> Result<Setup> {
        Ok(Setup::new(&self.program, self.directory.path(), &azure.endpoints, more)?.in_a_group_of_its_own())
    }

    /// A command other than `run` with the same configuration, and the file with its output.
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
        let file = File::create(&log).context("cannot create the file for its output")?;
        command.stdout(file.try_clone()?).stderr(file);
        Ok((command, log))
    }
}

/// Runs a daemon from its start until it has completed this number of events, and stops it.
///
/// # Errors
/// The daemon ends, gets stuck, or writes dead letters.
pub(crate) async fn work_off(azure: &Azure, setup: &Setup, events: u64) -> Result<Done> {
    // Read before the start: events that are being sent when the first one is noticed have already cost devkit CPU time.
    let azure_cpu = azure.cpu()?;
    let mut daemon = setup.spawn()?;
    let first = first_event(&mut daemon, azure_cpu).await?;
    let done = until(&mut daemon, azure, first, events).await?;
    daemon.stop().await?;
    Ok(done)
}

/// The start of a measurement: a daemon's first event, or any other moment.
pub(crate) struct Mark {
    at: Instant,
    sample: Sample,
    cpu: Duration,
    azure_cpu: Duration,
}

impl Mark {
    /// Starts a measurement now.
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
        tokio::time::sleep(FIRST_EVENT_CHECK_INTERVAL).await;
    }
}

/// Waits until the daemon has completed this number of events since its start.
///
/// # Errors
/// The daemon ends or gets stuck.
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
        let before = handled(&mark.sample);
        let took = at.duration_since(mark.at);
        tokio::time::sleep(until_next_check(now.saturating_sub(before), events.saturating_sub(before), took))
            .await;
    }
}

/// Starts measurements of several daemons now.
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

/// Waits until the daemons share this number of partitions evenly.
///
/// # Errors
/// A daemon ends, or they do not share them evenly in time.
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
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
}

/// Waits until several daemons together have completed this number of events since their marks. CPU time, writes and charges are sums.
/// Memory and freshness are those of the worst daemon.
///
/// # Errors
/// A daemon ends, or they get stuck.
pub(crate) async fn until_all(
    daemons: &mut [Daemon],
    azure: &Azure,
    marks: Vec<Mark>,
    events: u64,
) -> Result<Done> {
    let (mut seen, mut moved, began) = (0, Instant::now(), Instant::now());
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
        tokio::time::sleep(until_next_check(now, events, at.duration_since(began))).await;
    }
}

impl Done {
    /// Combines the work of several daemons in the same time.
    fn of_all(each: &[Self]) -> Self {
        let most = |figure: &dyn Fn(&Self) -> Option<f64>| each.iter().filter_map(figure).reduce(f64::max);
        Self {
            events: each.iter().map(|done| done.events).sum(),
            seconds: most(&|done| Some(done.seconds)).unwrap_or_default(),
            cpu_seconds: each.iter().map(|done| done.cpu_seconds).sum(),
            // All of them use one local Azure.
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
    let dead_letters = sample.count(name::DEAD_LETTERS, "");
    ensure!(dead_letters == 0, "{dead_letters} events became dead letters:\n{}", daemon.log());
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

/// The time until the next check, if `events` of `all` took `took`: until all are done at this pace, at most [`CHECK_INTERVAL`].
fn until_next_check(events: u64, all: u64, took: Duration) -> Duration {
    if events == 0 {
        return CHECK_INTERVAL;
    }
    let left = took.as_secs_f64() * all.saturating_sub(events) as f64 / events as f64;
    Duration::try_from_secs_f64(left).unwrap_or(CHECK_INTERVAL).clamp(MIN_CHECK_INTERVAL, CHECK_INTERVAL)
}

fn cpu(daemon: &Daemon) -> Result<Duration> {
    process::cpu(daemon.id().context("the daemon has ended")?)
}

/// Number of events that were decided since the start.
fn handled(sample: &Sample) -> u64 {
    sample.count(name::EVENTS, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_more_frequent_near_the_end() {
        let second = Duration::from_secs(1);
        assert_eq!(until_next_check(0, 100, second), CHECK_INTERVAL);
        assert_eq!(until_next_check(10, 100, second), CHECK_INTERVAL);
        assert_eq!(until_next_check(80, 100, second / 2), second / 8);
        assert_eq!(
            [until_next_check(100, 100, second), until_next_check(120, 100, second)],
            [MIN_CHECK_INTERVAL; 2]
        );
    }

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
