//! `cargo bench-sync`: measures the shipped binary over sockets, each workload beside its bare loop in the same run.
//!
//! Machines are shared and noisy, so compare only the ratio of a pair that ran in the same minute on the same work. Every
//! pair ends with the comparison of all documents with their twins. If they differ, there are no figures.

mod azure;
mod bare;
mod command;
mod daemon;
mod growth;
mod linger;
mod load;
mod namespace;
mod page;
mod plots;
mod process;
mod reads;
mod registry;
mod report;
mod run;
mod statistics;
mod subject;
mod units;
mod usual;
mod workload;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use tokio::process::Command;

use self::{
    bare::Loop,
    report::Row,
    run::Run,
    subject::{Asked, Subject},
    usual::Handler,
    workload::Programs,
};

/// Measures twinsync beside bare loops with the same SDKs, against a local Azure in its own process.
#[derive(Debug, Parser)]
#[command(name = "cargo bench-sync", bin_name = "cargo bench-sync")]
struct Arguments {
    /// Only these workloads and series, separated by commas. `growth` means all series. Default: everything.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Asked>,
    /// A tenth of the work, and fewer pairs, to check that everything runs.
    #[arg(long)]
    quick: bool,
    /// Number of pairs of each workload.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pairs: Option<u16>,
    /// Skips the usual way, which needs Node.js with npm.
    #[arg(long)]
    without_usual: bool,
    /// Prints one JSON object instead of the table.
    #[arg(long)]
    json: bool,
    /// Writes plots to this directory, as SVG.
    #[arg(long, value_name = "DIRECTORY")]
    plots: Option<PathBuf>,
    /// Directory of the measured binaries. Default: they are built.
    #[arg(long, value_name = "DIRECTORY")]
    binaries: Option<PathBuf>,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Debug, clap::Subcommand)]
enum Role {
    /// Updates the tables and plots of a page from the file of a run.
    Document {
        /// File with the output of `cargo bench-sync --json`.
        run: PathBuf,
        /// The page to update.
        #[arg(long, value_name = "FILE", default_value = "docs/performance.md")]
        page: PathBuf,
    },
    /// Measures the request units of documents and scans, by size and indexing policy.
    Units(units::Arguments),
    /// Measures what `router.linger` and `router.linger_behind` save, and how much freshness they cost.
    Linger(linger::Arguments),
    /// Measures memory, fairness and recovery with a million events over 32 partitions and three replicas, and a tenfold
    /// burst after it.
    Load(load::Arguments),
    /// Measures reads of twins by `twinsync serve`, beside Cosmos DB by its SDK and the IoT hub within its limits.
    Reads(reads::Arguments),
    /// Runs one bare loop. Only this program itself uses it.
    #[command(hide = true)]
    Bare {
        /// The loop to run, as JSON.
        what: String,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments.role {
        Some(Role::Bare { what }) => Box::pin(bare(what)).await,
        Some(Role::Document { run, page }) => page::document(run, page),
        Some(Role::Units(arguments)) => {
            Box::pin(units::measure(arguments)).await.map(|text| print(text.trim_end()))
        }
        Some(Role::Linger(linger)) => Box::pin(measure_linger(&arguments, linger)).await,
        Some(Role::Reads(reads)) => Box::pin(measure_reads(&arguments, reads)).await,
        Some(Role::Load(load)) => Box::pin(measure_load(&arguments, load)).await,
        None => Box::pin(measure(&arguments)).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn bare(what: &str) -> Result<()> {
    let what: Loop = serde_json::from_str(what).context("this is not a bare loop")?;
    print(&serde_json::to_string(&Box::pin(what.perform()).await?)?);
    Ok(())
}

async fn measure_linger(arguments: &Arguments, linger: &linger::Arguments) -> Result<()> {
    let programs = programs(arguments).await?;
    print(linger::measure(&programs, linger, &tell).await?.trim_end());
    Ok(())
}

async fn measure_reads(arguments: &Arguments, reads: &reads::Arguments) -> Result<()> {
    let programs = programs(arguments).await?;
    print(reads::measure(&programs, reads, &tell).await?.trim_end());
    Ok(())
}

async fn measure_load(arguments: &Arguments, load: &load::Arguments) -> Result<()> {
    let programs = programs(arguments).await?;
    print(load::measure(&programs, load, &tell).await?.trim_end());
    Ok(())
}

async fn measure(arguments: &Arguments) -> Result<()> {
    let programs = programs(arguments).await?;
    let wanted = Subject::wanted(&arguments.only);
    let usual = wanted.iter().any(|subject| subject.has_usual()) && !arguments.without_usual;
    let handler = match usual {
        true => Some(Handler::install(&programs.directory).await?),
        false => None,
    };
    let (mut rows, mut points) = (Vec::new(), Vec::new());
    let began = Instant::now();
    for subject in wanted {
        let started = Instant::now();
        match subject {
            Subject::Workload(workload) => {
                let size = workload.size(arguments.quick);
                let pairs = arguments.pairs.map_or_else(|| workload.pairs(arguments.quick), usize::from);
                let measured = Box::pin(workload.run(&programs, size, pairs, handler.as_ref(), &tell)).await;
                let measured = measured.with_context(|| format!("the workload {}", workload.name()))?;
                let row = Row::new(workload, size.devices, &measured);
                rows.push(row.with_pure().await.context("the pure core alone")?);
            }
            Subject::Series(series) => {
                let measured = Box::pin(series.run(&programs, arguments.quick, &tell)).await;
                points.extend(measured.with_context(|| format!("the series {}", series.name()))?);
            }
        }
        let (took, all) = (started.elapsed().as_secs(), began.elapsed().as_secs());
        tell(&format!("{}: took {took} s; {all} s so far", subject.name()));
    }
    let run = Run::new(arguments.quick, rows, points)?;
    if let Some(directory) = &arguments.plots {
        for file in plots::write(&run, directory)? {
            tell(&format!("wrote {}", directory.join(file).display()));
        }
    }
    if arguments.json {
        print(&serde_json::to_string(&run)?);
    } else {
        print(page::shown(&run).trim_end());
    }
    Ok(())
}

async fn programs(arguments: &Arguments) -> Result<Programs> {
    match &arguments.binaries {
        Some(directory) => programs_in(directory),
        None => build().await,
    }
}

/// Builds the shipped binaries, beside this program.
async fn build() -> Result<Programs> {
    let own = std::env::current_exe().context("cannot find this program")?;
    let directory = own.parent().context("this program has no directory")?;
    let profile = match directory.file_name().and_then(|name| name.to_str()) {
        Some("release") => "release",
        _ => "dev",
    };
    tell(&format!("building twinsync and devkit with the profile {profile}"));
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args([
            "build",
            "--quiet",
            "--profile",
            profile,
            "--package",
            "twinsync",
            "--package",
            "devkit",
            "--bins",
        ])
        .status()
        .await
        .context("cannot run cargo")?;
    ensure!(status.success(), "the build failed");
    programs_in(directory)
}

fn programs_in(directory: &Path) -> Result<Programs> {
    let program = |name: &str| {
        let path = directory.join(name);
        ensure!(path.is_file(), "there is no {}", path.display());
        Ok(path)
    };
    Ok(Programs {
        twinsync: program("twinsync")?,
        devkit: program("devkit")?,
        directory: directory.to_owned(),
    })
}

#[expect(clippy::print_stdout, reason = "the result of the command")]
fn print(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "progress messages")]
fn tell(text: &str) {
    eprintln!("{text}");
}
