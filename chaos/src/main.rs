//! `cargo chaos`: three replicas of the daemon run under load, and everything around them is broken, one thing after the other. For each
//! fault is measured how long it lasted, when `/readyz` reported it, and how long the recovery took. At the end, the documents are compared
//! with the hubs, by devkit and by the daemon's own audit.

mod clock;
mod cluster;
mod disk;
mod fault;
mod inject;
mod plot;
mod report;
mod run;
mod series;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum as _};
use serde_json::json;
use tokio::process::Command;

use self::{
    cluster::{Cluster, REPLICAS},
    fault::Fault,
    run::Outcome,
};

/// Breaks everything around three replicas of twinsync, one thing after the other, and compares documents and twins at the end.
#[derive(Debug, Parser)]
#[command(name = "cargo chaos", bin_name = "cargo chaos")]
struct Arguments {
    /// For how many minutes new faults begin.
    #[arg(long, default_value_t = 10.0, value_parser = positive)]
    minutes: f64,
    /// Only these faults, separated by commas. Default: all.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Fault>,
    /// Seed for the order of the faults, their durations, and the replicas that they affect.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Events per second during the run.
    #[arg(long, default_value_t = 200.0, value_parser = positive)]
    rate: f64,
    /// Number of devices that change.
    #[arg(long, default_value_t = 300)]
    devices: usize,
    /// Writes the resource usage of each replica to this file every five seconds: memory, of it the cached documents, open files, tasks, freshness. As CSV.
    #[arg(long, value_name = "FILE")]
    series: Option<PathBuf>,
    /// Writes the same figures to this file as a plot, as SVG.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Copies the logs of the replicas to this directory.
    #[arg(long, value_name = "DIRECTORY")]
    logs: Option<PathBuf>,
    /// Prints one JSON object instead of the table.
    #[arg(long)]
    json: bool,
    /// The tested binary. Default: it is built.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
    if number.is_finite() && number > 0.0 { Ok(number) } else { Err(format!("{text} is not greater than 0")) }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = tokio::select! {
        outcome = Box::pin(chaos(&arguments)) => outcome,
        // Replicas run in their own process groups, and disks are mounted. Dropping the cluster ends both.
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("stopped: the comparison was not made")),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tell(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether all faults that had to be reported were reported. Equality is checked before.
async fn chaos(arguments: &Arguments) -> Result<bool> {
    let program = match &arguments.program {
        Some(program) => program.clone(),
        None => build().await?,
    };
    let mut cluster = Box::pin(Cluster::start(&program)).await?;
    let mut faults = match arguments.only.is_empty() {
        true => Fault::value_variants().to_vec(),
        false => arguments.only.clone(),
    };
    let mut leave_out = |left: &[Fault], reason: &str| {
        for fault in left {
            tell(&format!("{} is left out: {reason}", fault.name()));
        }
        faults.retain(|fault| !left.contains(fault));
    };
    if let Some(reason) = &cluster.no_disk {
        leave_out(&[Fault::DiskFull], reason);
    }
    if let Err(reason) = clock::library() {
        leave_out(&[Fault::ClockBehind, Fault::ClockAhead], &reason);
    }
    ensure!(!faults.is_empty(), "there is no fault to inject");
    let options = run::Options {
        time: Duration::from_secs_f64(arguments.minutes * 60.0),
        faults,
        seed: arguments.seed,
        rate: arguments.rate,
        devices: arguments.devices,
    };
    let outcome = Box::pin(run::run(&mut cluster, &options, tell)).await;
    if let Some(directory) = &arguments.logs {
        cluster.keep_logs(directory)?;
    }
    let outcome = outcome?;
    let write = |file: &Option<PathBuf>, text: String| match file {
        Some(file) => std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display())),
        None => Ok(()),
    };
    write(&arguments.series, series::csv(&outcome.points))?;
    let title = format!("Three replicas, {} events per second, one fault after the other", arguments.rate);
    write(&arguments.plot, plot::drawn(&title, &outcome.points))?;
    print(&if arguments.json { as_json(&outcome)? } else { shown(&outcome) });
    for replica in &mut cluster.replicas {
        replica.stop().await.context("a replica did not stop in an orderly way")?;
    }
    Ok(report::not_reported(&outcome.injections) == 0)
}

fn shown(outcome: &Outcome) -> String {
    let Outcome { injections, points, events, report, converged, audit, counted } = outcome;
    let mut text = report::table(&report::lines(injections));
    text += &format!("\n{} faults, {events} events. ", injections.len());
    let missing = report::not_reported(injections);
    text += &format!("Faults that /readyz had to report and did not: {missing}.\n");
    for (what, growth) in growths(points) {
        if let Some((first, last)) = growth {
            text += &format!("Most {what} in the first quarter: {first:.0}; in the last: {last:.0}.\n");
        }
    }
    text += &format!("{report}, {:.1} s after the last event\n", converged.as_secs_f64());
    text += &format!(
        "Declared counts of {REPLICAS} replicas: 0 different, {:.1} s after that\n{audit}",
        counted.as_secs_f64()
    );
    text
}

fn growths(points: &[series::Point]) -> [(&'static str, Option<(f64, f64)>); 4] {
    let mebibytes = |bytes: f64| bytes / f64::from(1 << 20);
    [
        ("memory of a replica, MiB,", series::growth(points, |point| mebibytes(point.memory))),
        ("cached documents of a replica, MiB,", series::growth(points, |point| mebibytes(point.cached))),
        ("open files", series::growth(points, |point| point.files)),
        ("tasks", series::growth(points, |point| point.tasks)),
    ]
}

fn as_json(outcome: &Outcome) -> Result<String> {
    let Outcome { injections, points, events, report, converged, audit, counted } = outcome;
    let growth: Vec<_> = growths(points).into_iter().collect();
    let object = json!({
        "lines": report::lines(injections),
        "injections": injections.len(),
        "notReported": report::not_reported(injections),
        "events": events,
        "report": report,
        "convergedSeconds": converged.as_secs_f64(),
        "countedSeconds": counted.as_secs_f64(),
        "audit": audit,
        "growth": growth,
    });
    Ok(serde_json::to_string(&object)?)
}

/// Builds the daemon beside this program.
async fn build() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program")?;
    let directory = own.parent().map(Path::to_owned).context("this program has no directory")?;
    let profile = match directory.file_name().and_then(|name| name.to_str()) {
        Some("release") => "release",
        _ => "dev",
    };
    tell(&format!("building twinsync with the profile {profile}"));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let arguments = ["build", "--quiet", "--profile", profile, "--package", "twinsync", "--bin", "twinsync"];
    let status = Command::new(cargo).args(arguments).status().await.context("cannot run cargo")?;
    ensure!(status.success(), "the build failed");
    let program = directory.join("twinsync");
    ensure!(program.is_file(), "there is no {}", program.display());
    Ok(program)
}

#[expect(clippy::print_stdout, reason = "the result of the command")]
fn print(text: &str) {
    println!("{}", text.trim_end());
}

#[expect(clippy::print_stderr, reason = "progress messages")]
fn tell(text: &str) {
    eprintln!("{text}");
}
