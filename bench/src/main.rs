//! `cargo bench-sync`: measures the shipped binary over sockets, each workload beside its bare loop in the same run.
//!
//! Machines are shared and noisy, so what counts is the ratio of a pair that ran in the same minute on the same work, and
//! every pair ends with the comparison of all documents with their twins: what is fast and wrong has no figures.

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

/// Measures twinsync beside bare loops of the same SDKs, against a local Azure in a process of its own.
#[derive(Debug, Parser)]
#[command(name = "cargo bench-sync", bin_name = "cargo bench-sync")]
struct Arguments {
    /// Only these workloads and series, separated by commas; `growth` stands for all series. Not given: everything.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Asked>,
    /// A tenth of the work, and fewer pairs: to see whether it runs.
    #[arg(long)]
    quick: bool,
    /// Pairs of each workload.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pairs: Option<u16>,
    /// Leaves out the usual way, which needs Node.js with npm.
    #[arg(long)]
    without_usual: bool,
    /// Prints one JSON object instead of the table.
    #[arg(long)]
    json: bool,
    /// Writes plots there, as SVG.
    #[arg(long, value_name = "DIRECTORY")]
    plots: Option<PathBuf>,
    /// Directory of the binaries under measurement; not given: they are built.
    #[arg(long, value_name = "DIRECTORY")]
    binaries: Option<PathBuf>,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Debug, clap::Subcommand)]
enum Role {
    /// Fills in the tables and plots of a page from the file of a run.
    Document {
        /// What `cargo bench-sync --json` printed.
        run: PathBuf,
        /// The page.
        #[arg(long, value_name = "FILE", default_value = "docs/performance.md")]
        page: PathBuf,
    },
    /// What documents and scans cost in request units, by size and indexing policy.
    Units(units::Arguments),
    /// What `router.linger` and `router.linger_behind` save, and what they cost in freshness.
    Linger(linger::Arguments),
    /// A million events over 32 partitions and three replicas, then a tenfold burst: memory, fairness, recovery.
    Load(load::Arguments),
    /// Reading twins by `twinsync serve`, beside Cosmos DB by its SDK and the IoT hub within its limits.
    Reads(reads::Arguments),
    /// Runs one bare loop; for this program's own use.
    #[command(hide = true)]
    Bare {
        /// What to do, as JSON.
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
    let what: Loop = serde_json::from_str(what).context("not a bare loop")?;
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

/// Builds what is shipped, beside this program.
async fn build() -> Result<Programs> {
    let own = std::env::current_exe().context("cannot find this program")?;
    let directory = own.parent().context("this program is nowhere")?;
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

#[expect(clippy::print_stdout, reason = "the result")]
fn print(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "what happens meanwhile")]
fn tell(text: &str) {
    eprintln!("{text}");
}
