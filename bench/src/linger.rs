//! `cargo bench-sync linger`: what `router.linger` and `router.linger_behind` save, and how much freshness they cost.
//!
//! Writes and request units per event hardly depend on the machine. Freshness does, so compare it between rows only.

use std::fmt;

use anyhow::{Context, Result};
use devkit::fleet::Rounds;
use serde::Serialize;

use crate::{
    azure::Azure,
    daemon::{self, Done, Mark, Place},
    workload::Programs,
};

/// Values of `router.linger`, in milliseconds.
const LINGER: [u64; 6] = [0, 10, 50, 100, 250, 1_000];
const LINGER_QUICK: [u64; 3] = [0, 100, 1_000];
/// Values of `router.linger_behind`, in milliseconds.
const BEHIND: [u64; 4] = [0, 50, 250, 1_000];
const BEHIND_QUICK: [u64; 2] = [0, 250];
/// Events per second of the steady load.
const RATE: usize = 200;
/// How often each twin changes in the steady load, in milliseconds.
const EACH: [usize; 2] = [100, 1_000];
/// Number of twins of the backlog, and of changes of each.
const BACKLOG: (usize, usize) = (500, 100);
/// Size of the tags and desired properties of every twin, in bytes.
const TWIN_BYTES: usize = 1 << 10;
const PARTITIONS: u16 = 4;

/// Options of the measurement.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Fewer settings, and a third of the time.
    #[arg(long)]
    quick: bool,
    /// Prints one JSON object instead of the tables.
    #[arg(long)]
    json: bool,
}

/// The figures of one setting. Times are in seconds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    setting_milliseconds: u64,
    /// How often each twin changes. `None`: a backlog.
    each_milliseconds: Option<usize>,
    events: u64,
    writes_per_event: f64,
    request_units_per_event: f64,
    freshness_p50: Option<f64>,
    freshness_p99: Option<f64>,
    seconds: f64,
}

impl Row {
    fn new(setting_milliseconds: u64, each_milliseconds: Option<usize>, done: &Done) -> Self {
        let per_event = |sum: f64| sum / done.events as f64;
        Self {
            setting_milliseconds,
            each_milliseconds,
            events: done.events,
            writes_per_event: per_event(done.writes as f64),
            request_units_per_event: per_event(done.request_units),
            freshness_p50: done.freshness_p50,
            freshness_p99: done.freshness_p99,
            seconds: done.seconds,
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    steady: Vec<Row>,
    backlog: Vec<Row>,
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
    let outcome = Outcome {
        steady: Box::pin(steady(programs, arguments.quick, progress)).await?,
        backlog: Box::pin(backlog(programs, arguments.quick, progress)).await?,
    };
    Ok(match arguments.json {
        true => serde_json::to_string(&outcome)?,
        false => outcome.to_string(),
    })
}

async fn steady(programs: &Programs, quick: bool, progress: &dyn Fn(&str)) -> Result<Vec<Row>> {
    let (settings, seconds) = if quick { (LINGER_QUICK.as_slice(), 5) } else { (LINGER.as_slice(), 15) };
    let mut rows = Vec::new();
    for each in EACH {
        let devices = RATE * each / 1_000;
        let bench = Bench::new(programs, devices).await?;
        for (number, setting) in settings.iter().enumerate() {
            progress(&format!("a change of each twin every {each} ms, router.linger = {setting} ms"));
            let load = bench.rounds(RATE * seconds / devices, number);
            let events = (load.rounds * devices) as u64;
            let setup = bench.place.setup(&bench.azure, &format!("[router]\nlinger = \"{setting}ms\"\n"))?;
            let mut daemon = setup.start().await?;
            let mark = Mark::now(&mut daemon, &bench.azure).await?;
            bench.azure.begin(&load, Some(RATE as f64)).await?;
            let done = daemon::until(&mut daemon, &bench.azure, mark, events).await?;
            daemon.stop().await?;
            bench.azure.verify().await?;
            rows.push(Row::new(*setting, Some(each), &done));
        }
    }
    Ok(rows)
}

async fn backlog(programs: &Programs, quick: bool, progress: &dyn Fn(&str)) -> Result<Vec<Row>> {
    let (settings, share) = if quick { (BEHIND_QUICK.as_slice(), 5) } else { (BEHIND.as_slice(), 1) };
    let bench = Bench::new(programs, BACKLOG.0).await?;
    let mut rows = Vec::new();
    for (number, setting) in settings.iter().enumerate() {
        progress(&format!("a backlog, router.linger_behind = {setting} ms"));
        let events = bench.azure.load(&bench.rounds(BACKLOG.1 / share, number)).await?;
        let setup =
            bench.place.setup(&bench.azure, &format!("[router]\nlinger_behind = \"{setting}ms\"\n"))?;
        let done = daemon::work_off(&bench.azure, &setup, events).await?;
        bench.azure.verify().await?;
        rows.push(Row::new(*setting, None, &done));
    }
    Ok(rows)
}

/// Twins with documents.
struct Bench {
    azure: Azure,
    place: Place,
    devices: usize,
}

impl Bench {
    async fn new(programs: &Programs, devices: usize) -> Result<Self> {
        let azure = Azure::start(&programs.devkit, PARTITIONS).await?;
        let bench = Self { azure, place: Place::new(&programs.twinsync)?, devices };
        let register = Rounds { register: true, bytes: TWIN_BYTES, ..bench.rounds(0, 0) };
        let events = bench.azure.load(&register).await?;
        let setup = bench.place.setup(&bench.azure, "")?;
        daemon::work_off(&bench.azure, &setup, events).await.context("register the twins")?;
        Ok(bench)
    }

    fn rounds(&self, rounds: usize, number: usize) -> Rounds {
        Rounds {
            devices: self.devices,
            prefix: String::new(),
            register: false,
            rounds,
            bytes: 0,
            seed: number as u64 + 1,
        }
    }
}

/// A time in milliseconds.
struct Milliseconds(Option<f64>);

impl fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(seconds) => write!(f, "{:.0}", seconds * 1e3),
            None => f.write_str("–"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| each twin changes every | `router.linger` | writes per event | RU per event | freshness p50, ms | p99, ms |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|")?;
        for row in &self.steady {
            writeln!(
                f,
                "| {} ms | {} ms | {:.3} | {:.2} | {} | {} |",
                row.each_milliseconds.unwrap_or_default(),
                row.setting_milliseconds,
                row.writes_per_event,
                row.request_units_per_event,
                Milliseconds(row.freshness_p50),
                Milliseconds(row.freshness_p99)
            )?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "| `router.linger_behind` | events of the backlog | writes per event | RU per event | seconds |"
        )?;
        writeln!(f, "|---|---|---|---|---|")?;
        for row in &self.backlog {
            writeln!(
                f,
                "| {} ms | {} | {:.4} | {:.3} | {:.1} |",
                row.setting_milliseconds,
                row.events,
                row.writes_per_event,
                row.request_units_per_event,
                row.seconds
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_per_event() {
        let done = Done {
            events: 1_000,
            seconds: 5.0,
            cpu_seconds: 0.1,
            azure_cpu_seconds: 0.2,
            peak_memory: 0,
            writes: 250,
            reads: 10,
            request_units: 3_500.0,
            freshness_p50: Some(0.0514),
            freshness_p99: None,
        };
        let steady = vec![Row::new(50, Some(100), &done)];
        let text = Outcome { steady, backlog: vec![Row::new(250, None, &done)] }.to_string();
        assert!(text.contains("| 100 ms | 50 ms | 0.250 | 3.50 | 51 | – |"), "{text}");
        assert!(text.contains("| 250 ms | 1000 | 0.2500 | 3.500 | 5.0 |"), "{text}");
    }
}
