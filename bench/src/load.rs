//! `cargo bench-sync load`: a million events of 100,000 twins over 32 partitions of each Event Hub, processed by three replicas. After
//! that, a steady load with a tenfold burst. The results show whether memory stays constant, whether a partition is delayed more than
//! others, and how long a burst has an effect.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use devkit::{daemon::Daemon, fleet::Rounds, metrics::Sample};
use serde::Serialize;
use twinsync::telemetry::name;

use crate::{
    azure::{Azure, Options},
    daemon::Place,
    workload::Programs,
};

/// How often the state of the replicas is read.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// After this time without progress, the replicas count as stuck.
const STUCK: Duration = Duration::from_secs(120);
/// Number of Event Hubs, each with its own partitions.
const HUBS: u64 = 2;
/// Size of the tags and desired properties of every twin, in bytes.
const TWIN_BYTES: usize = 1 << 10;
/// The factor by which the burst's rate exceeds the steady rate.
const BURST: f64 = 10.0;

/// Options of the measurement.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A twentieth of the events.
    #[arg(long)]
    quick: bool,
    /// Prints one JSON object instead of the lines.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy)]
struct Size {
    twins: usize,
    /// Number of changes per twin, without its registration.
    changes: usize,
    replicas: usize,
    partitions: u16,
    /// Events per second before and after the burst.
    rate: f64,
    /// Seconds of the steady load, and of the burst.
    steady: f64,
    burst: f64,
}

const FULL: Size =
    Size { twins: 100_000, changes: 9, replicas: 3, partitions: 32, rate: 100.0, steady: 60.0, burst: 15.0 };
const QUICK: Size = Size { twins: 5_000, steady: 15.0, burst: 5.0, ..FULL };

/// The result. Times are in seconds, memory in bytes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    replicas: usize,
    partitions: u16,
    twins: usize,
    events: u64,
    /// From the moment when all partitions were owned.
    seconds: f64,
    /// Peak resident memory of a replica, in the first and in the last quarter of that time.
    memory_first: f64,
    memory_last: f64,
    /// When the first partition had no events left, and when the last one.
    first_done: f64,
    last_done: f64,
    /// The longest time without progress in a partition with waiting events.
    stood_still: f64,
    /// 99th percentile of freshness: before the burst, from its begin until its events were completed, and after it.
    p99_before: Option<f64>,
    p99_burst: Option<f64>,
    p99_after: Option<f64>,
    /// From the burst's last event until no event was waiting.
    recovery: f64,
    rate: f64,
    burst_rate: f64,
    report: String,
}

/// All replicas together.
struct Replicas {
    daemons: Vec<Daemon>,
}

/// The metrics of all replicas at one moment.
struct Moment {
    at: Instant,
    samples: Vec<Sample>,
}

impl Replicas {
    async fn sample(&mut self) -> Result<Moment> {
        let mut samples = Vec::with_capacity(self.daemons.len());
        for daemon in &mut self.daemons {
            samples.push(daemon.sample().await?);
        }
        Ok(Moment { at: Instant::now(), samples })
    }

    async fn own(&mut self, partitions: u64) -> Result<Moment> {
        let began = Instant::now();
        loop {
            let moment = self.sample().await?;
            if moment.sum(name::PARTITIONS_OWNED) as u64 == partitions {
                return Ok(moment);
            }
            ensure!(
                began.elapsed() < STUCK,
                "{} of {partitions} partitions are owned",
                moment.sum(name::PARTITIONS_OWNED)
            );
            tokio::time::sleep(SAMPLE_INTERVAL / 10).await;
        }
    }
}

impl Moment {
    fn sum(&self, metric: &str) -> f64 {
        self.samples.iter().map(|sample| sample.sum(metric, "")).sum()
    }

    fn memory(&self) -> f64 {
        let resident = |sample: &Sample| sample.sum(name::PROCESS_RESIDENT_MEMORY, "");
        self.samples.iter().map(resident).fold(0.0, f64::max)
    }

    /// Number of events that are not completed, by the labels of the partition.
    fn lags(&self) -> BTreeMap<String, f64> {
        let of = |sample: &Sample| {
            sample.series(name::LAG_EVENTS).map(|(labels, lag)| (labels.to_owned(), lag)).collect::<Vec<_>>()
        };
        self.samples.iter().flat_map(of).collect()
    }

    /// The 99th percentile of freshness since `earlier`: that of the replica with the highest value.
    fn p99(&self, earlier: &Self) -> Option<f64> {
        let each = self.samples.iter().zip(&earlier.samples);
        each.filter_map(|(now, before)| now.quantile(before, name::FRESHNESS, 0.99)).reduce(f64::max)
    }
}

/// The progress of each partition while a backlog is processed.
#[derive(Default)]
struct Watched {
    /// Its lag at its last progress, and the time of that.
    moved: BTreeMap<String, (f64, f64)>,
    done: BTreeMap<String, f64>,
    stood_still: f64,
}

impl Watched {
    /// Records `lags` at a time in seconds.
    fn see(&mut self, at: f64, lags: &BTreeMap<String, f64>) {
        for (partition, lag) in lags {
            if *lag == 0.0 {
                self.done.entry(partition.clone()).or_insert(at);
                self.moved.remove(partition);
                continue;
            }
            let (last, since) = *self.moved.entry(partition.clone()).or_insert((*lag, at));
            if last == *lag {
                self.stood_still = self.stood_still.max(at - since);
            } else {
                self.moved.insert(partition.clone(), (*lag, at));
            }
        }
    }
}

/// Measures, and returns the result as text.
///
/// # Errors
/// A process fails, or a document differs from its twin.
pub(crate) async fn measure(
    programs: &Programs,
    arguments: &Arguments,
    progress: &dyn Fn(&str),
) -> Result<String> {
    let size = if arguments.quick { QUICK } else { FULL };
    let outcome = Box::pin(run(programs, size, progress)).await?;
    Ok(match arguments.json {
        true => serde_json::to_string(&outcome)?,
        false => outcome.to_string(),
    })
}

async fn run(programs: &Programs, size: Size, progress: &dyn Fn(&str)) -> Result<Outcome> {
    let options = Options { partitions: size.partitions, azurite: true };
    let azure = Azure::with(&programs.devkit, options).await?;
    progress("the backlog is emitted");
    let events = azure.load(&rounds(size.twins, true, size.changes, 1)).await?;
    let places: Vec<_> = (0..size.replicas).map(|_| Place::new(&programs.twinsync)).collect::<Result<_>>()?;
    let mut replicas = Replicas { daemons: Vec::new() };
    for place in &places {
        replicas.daemons.push(place.setup(&azure, "")?.start().await.context("a replica does not start")?);
    }
    let began = replicas.own(HUBS * u64::from(size.partitions)).await?;
    progress(&format!("{} replicas own all partitions; {events} events wait", size.replicas));
    let (seconds, memory, watched) = work_off(&mut replicas, &began, progress).await?;
    azure.verify().await?;
    let quarter = |part: &dyn Fn(f64) -> bool| {
        memory.iter().filter(|(at, _)| part(*at)).map(|(_, bytes)| *bytes).fold(0.0, f64::max)
    };
    progress("a steady load with a burst in it");
    let burst = burst(&azure, &mut replicas, size).await?;
    let report = azure.verify().await?;
    for daemon in replicas.daemons {
        daemon.stop().await?;
    }
    Ok(Outcome {
        replicas: size.replicas,
        partitions: size.partitions,
        twins: size.twins,
        events,
        seconds,
        memory_first: quarter(&|at| at <= seconds / 4.0),
        memory_last: quarter(&|at| at >= seconds * 3.0 / 4.0),
        first_done: watched.done.values().copied().fold(f64::INFINITY, f64::min),
        last_done: watched.done.values().copied().fold(0.0, f64::max),
        stood_still: watched.stood_still,
        p99_before: burst.before,
        p99_burst: burst.meanwhile,
        p99_after: burst.after,
        recovery: burst.recovery,
        rate: size.rate,
        burst_rate: size.rate * BURST,
        report: report.to_string(),
    })
}

/// Waits until no events are left. Returns how long it took, the memory in that time, and the progress of the partitions that had events.
async fn work_off(
    replicas: &mut Replicas,
    began: &Moment,
    progress: &dyn Fn(&str),
) -> Result<(f64, Vec<(f64, f64)>, Watched)> {
    let (mut memory, mut watched, mut had) = (Vec::new(), Watched::default(), BTreeMap::new());
    let (mut left, mut moved) = (f64::INFINITY, Instant::now());
    loop {
        let moment = replicas.sample().await?;
        let at = moment.at.duration_since(began.at).as_secs_f64();
        let mut lags = moment.lags();
        for (partition, lag) in &lags {
            if *lag > 0.0 {
                had.insert(partition.clone(), ());
            }
        }
        lags.retain(|partition, _| had.contains_key(partition));
        watched.see(at, &lags);
        memory.push((at, moment.memory()));
        let now: f64 = lags.values().sum();
        if !had.is_empty() && now == 0.0 && moment.sum(name::IN_FLIGHT_EVENTS) == 0.0 {
            return Ok((at, memory, watched));
        }
        if now != left {
            if (left / 100_000.0).ceil() != (now / 100_000.0).ceil() {
                progress(&format!("{at:.0} s: {now:.0} events wait"));
            }
            (left, moved) = (now, Instant::now());
        }
        ensure!(moved.elapsed() < STUCK, "stuck with {now} events");
        tokio::time::sleep(SAMPLE_INTERVAL).await;
    }
}

struct Burst {
    before: Option<f64>,
    meanwhile: Option<f64>,
    after: Option<f64>,
    recovery: f64,
}

async fn burst(azure: &Azure, replicas: &mut Replicas, size: Size) -> Result<Burst> {
    let load = async |rate: f64, seconds: f64, seed: u64| {
        // One change of each of this many twins.
        let twins = ((rate * seconds) as usize).clamp(1, size.twins);
        azure.begin(&rounds(twins, false, 1, seed), Some(rate)).await?;
        azure.loaded().await.map(drop)
    };
    let first = replicas.sample().await?;
    load(size.rate, size.steady, 2).await?;
    let calm = idle(replicas).await?;
    load(size.rate * BURST, size.burst, 3).await?;
    let ended = Instant::now();
    let over = idle(replicas).await?;
    let recovery = over.at.duration_since(ended).as_secs_f64();
    load(size.rate, size.steady, 4).await?;
    let last = idle(replicas).await?;
    Ok(Burst { before: calm.p99(&first), meanwhile: over.p99(&calm), after: last.p99(&over), recovery })
}

/// Waits until no event is in flight.
async fn idle(replicas: &mut Replicas) -> Result<Moment> {
    let began = Instant::now();
    loop {
        let moment = replicas.sample().await?;
        if moment.sum(name::IN_FLIGHT_EVENTS) == 0.0 && moment.sum(name::OLDEST_INCOMPLETE_AGE) == 0.0 {
            return Ok(moment);
        }
        ensure!(began.elapsed() < STUCK, "some events are not completed");
        tokio::time::sleep(SAMPLE_INTERVAL / 20).await;
    }
}

fn rounds(devices: usize, register: bool, rounds: usize, seed: u64) -> Rounds {
    let bytes = if register { TWIN_BYTES } else { 0 };
    Rounds { devices, prefix: String::new(), register, rounds, bytes, seed }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = |bytes: f64| bytes / f64::from(1 << 20);
        let milliseconds = |seconds: Option<f64>| {
            seconds.map_or_else(|| "–".to_owned(), |seconds| format!("{:.0}", seconds * 1e3))
        };
        writeln!(f, "| figure | value |")?;
        writeln!(f, "|---|---:|")?;
        writeln!(
            f,
            "| events of {} twins over {} partitions of each Event Hub, {} replicas | {} |",
            self.twins, self.partitions, self.replicas, self.events
        )?;
        writeln!(
            f,
            "| worked off in, s (events/s) | {:.0} ({:.0}) |",
            self.seconds,
            self.events as f64 / self.seconds
        )?;
        writeln!(
            f,
            "| most memory of a replica, first and last quarter, MiB | {:.0} · {:.0} |",
            mebibytes(self.memory_first),
            mebibytes(self.memory_last)
        )?;
        writeln!(
            f,
            "| first and last partition worked off after, s | {:.0} · {:.0} |",
            self.first_done, self.last_done
        )?;
        writeln!(f, "| longest standstill of a partition with events, s | {:.0} |", self.stood_still)?;
        writeln!(
            f,
            "| p99 of freshness at {:.0}/s, in a burst of {:.0}/s, and after it, ms | {} · {} · {} |",
            self.rate,
            self.burst_rate,
            milliseconds(self.p99_before),
            milliseconds(self.p99_burst),
            milliseconds(self.p99_after)
        )?;
        writeln!(f, "| nothing waits after the burst's last event, s | {:.2} |", self.recovery)?;
        write!(f, "\n{}", self.report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lags(pairs: &[(&str, f64)]) -> BTreeMap<String, f64> {
        pairs.iter().map(|(name, lag)| ((*name).to_owned(), *lag)).collect()
    }

    #[test]
    fn a_partition_stands_still_while_events_wait_and_it_does_not_move() {
        let mut watched = Watched::default();
        watched.see(0.0, &lags(&[("a", 100.0), ("b", 100.0)]));
        watched.see(1.0, &lags(&[("a", 50.0), ("b", 100.0)]));
        watched.see(3.0, &lags(&[("a", 0.0), ("b", 100.0)]));
        watched.see(9.0, &lags(&[("a", 0.0), ("b", 20.0)]));
        watched.see(10.0, &lags(&[("a", 7.0), ("b", 0.0)]));
        assert_eq!(watched.stood_still, 3.0);
        assert_eq!((watched.done["a"], watched.done["b"]), (3.0, 10.0));
    }

    #[test]
    fn lags_are_told_apart_by_partition_over_all_replicas() {
        let text = |partition: u8, lag: u8| {
            format!("twinsync_lag_events{{stream=\"s\",partition=\"{partition}\"}} {lag}\n")
        };
        let samples = vec![Sample::parse(&(text(0, 3) + &text(1, 4))), Sample::parse(&text(2, 5))];
        let moment = Moment { at: Instant::now(), samples };
        let found: Vec<_> = moment.lags().into_values().collect();
        assert_eq!(found, [3.0, 4.0, 5.0]);
    }
}
