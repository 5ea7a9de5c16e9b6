//! `twinsync demo`: the main function on an embedded local Azure, and the proof that nothing differs.
//!
//! The daemon runs as a separate process: the same binary and the same `run` that are shipped. The local Azure runs in this process.
//! Between the phases of the fleet, the daemon gets time to catch up, because deleted ids are re-created there, and two streams without
//! mutual order could not show which event belongs to which incarnation.

mod report;

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use devkit::{
    daemon::{Daemon, Setup},
    fleet::{Pace, Plan, State},
    iothub::{DeliveryFaults, HubNames},
    metrics::Sample,
    stack::{self, Stack},
    verify,
};
use indicatif::{ProgressBar, ProgressStyle};

use self::report::{Figures, Report, differing};
use super::{Error, output};
use crate::telemetry::name;

/// One event in this many is sent at a steady rate at the end, to measure freshness.
const STEADY_SHARE: u64 = 20;
/// Bounds of the number of these events.
const STEADY_EVENTS: std::ops::RangeInclusive<u64> = 100..=2_500;
/// Sizes of one round of `--stay`.
const STAYING_DEVICES: usize = 50;
const STAYING_EVENTS: u64 = 5_000;
/// The declared counts on the status page.
const COUNTS: &str = "[[counts]]\nname = \"devices\"\n\n[[counts]]\nname = \"by_firmware\"\n\
                      where = \"is_defined(properties.reported.firmware.version)\"\n\
                      group_by = \"properties.reported.firmware.version\"\n";
/// How often progress is checked.
const POLL: Duration = Duration::from_millis(50);
/// How long progress may stop before the demo gives up.
const STUCK: Duration = Duration::from_secs(60);

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Devices to register.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    devices: u32,
    /// Events that the hub emits; duplicates and replays are added.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    events: u64,
    /// The same seed gives the same operations.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Partitions of each Event Hub.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=32))]
    partitions: u16,
    /// Events per second of the part that measures freshness.
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    /// Sends both kinds of event through one Event Hub.
    #[arg(long)]
    one_hub: bool,
    /// Prints one JSON object instead of the table.
    #[arg(long)]
    json: bool,
    /// Keeps everything running afterwards, under a steady load, until Ctrl-C, so that you can see the status page.
    #[arg(long)]
    stay: bool,
}

/// Runs the demo. Fails if any document differs.
pub async fn run(arguments: &Arguments) -> Result<(), Error> {
    let stack = Box::pin(Stack::start(stack_options(arguments)))
        .await
        .map_err(|error| failed("cannot start the local Azure", &error))?;
    let differences = Box::pin(run_on(arguments, &stack)).await;
    stack.stop().await;
    match differences? {
        0 => Ok(()),
        differences => Err(Error::Different(differences)),
    }
}

/// Returns how many twins differ at the end.
async fn run_on(arguments: &Arguments, stack: &Stack) -> Result<usize, Error> {
    let directory = tempfile::tempdir().map_err(|error| failed("cannot create a directory", &error))?;
    let program = std::env::current_exe().map_err(|error| failed("cannot find this program", &error))?;
    // Ctrl-C is for this process only: the daemon is asked to stop when everything is finished.
    let setup = Setup::new(&program, directory.path(), stack.endpoints(), COUNTS)?.in_a_group_of_its_own();
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut daemon = setup.start().await?;
    let report = tokio::select! {
        _ = &mut interrupted => return Err(Error::Failed("interrupted".to_owned())),
        report = Box::pin(show(arguments, stack, &mut daemon)) => report?,
    };
    if arguments.json {
        output::line(report.json().map_err(|error| failed("cannot print the report", &error))?)?;
    } else {
        output::line(report.to_string().trim_end())?;
    }
    if !arguments.stay {
        if !arguments.json {
            output::line("(cargo demo --stay keeps it running, with a status page to look at)")?;
        }
        daemon.stop().await?;
        return Ok(report.differences());
    }
    Box::pin(stay(arguments, stack, &daemon, interrupted)).await?;
    Show { arguments, stack, bar: bar(arguments) }.caught_up(&mut daemon).await?;
    daemon.stop().await?;
    let verified = compare(stack).await?;
    output::line(format_args!("{} twins, {} different", verified.twins, differing(&verified)))?;
    Ok(report.differences() + differing(&verified))
}

/// Changes devices until Ctrl-C.
async fn stay<T>(
    arguments: &Arguments,
    stack: &Stack,
    daemon: &Daemon,
    mut interrupted: impl Future<Output = T> + Unpin,
) -> Result<(), Error> {
    output::line(format_args!(
        "\nThe status page: http://{}/  ({} events per second; Ctrl-C ends it, and compares once more)",
        daemon.address(),
        arguments.rate
    ))?;
    let fleet = stack.fleet();
    for round in 1.. {
        let plan = Plan {
            devices: STAYING_DEVICES,
            events: STAYING_EVENTS,
            seed: arguments.seed.wrapping_add(round),
            phases: 1,
            prefix: format!("stay-{round}-"),
            ..Plan::default()
        };
        fleet
            .start(plan, Pace::Rate(arguments.rate))
            .map_err(|error| failed("cannot continue with the fleet", &error))?;
        tokio::select! {
            _ = &mut interrupted => break,
            _ = fleet.phase_end() => {}
        }
    }
    fleet.stop();
    Ok(())
}

fn stack_options(arguments: &Arguments) -> stack::Options {
    let mut hubs = HubNames::default();
    if arguments.one_hub {
        hubs.lifecycle.clone_from(&hubs.twin_changes);
    }
    stack::Options { partitions: arguments.partitions, hubs, ..stack::Options::default() }
}

async fn show(arguments: &Arguments, stack: &Stack, daemon: &mut Daemon) -> Result<Report, Error> {
    stack.hub().set_delivery_faults(DeliveryFaults {
        seed: arguments.seed,
        duplicate: 0.02,
        replay: 0.01,
        ..DeliveryFaults::default()
    });
    let show = Show { arguments, stack, bar: bar(arguments) };
    let before = daemon.sample().await?;

    // As a backlog: as fast as the hub accepts it.
    let steady = (arguments.events / STEADY_SHARE).clamp(*STEADY_EVENTS.start(), *STEADY_EVENTS.end());
    let plan = Plan {
        devices: arguments.devices as usize,
        events: arguments.events.saturating_sub(steady),
        seed: arguments.seed,
        ..Plan::default()
    };
    let backlog_seconds = show.fleet(plan, Pace::Backlog, daemon).await?;
    let backlog = daemon.sample().await?;

    // At a steady rate: freshness is the latency of a change without a backlog.
    let plan = Plan {
        devices: usize::try_from(steady / 10).unwrap_or(1).clamp(1, 100),
        events: steady,
        seed: arguments.seed,
        phases: 1,
        prefix: "steady-".to_owned(),
        ..Plan::default()
    };
    show.fleet(plan, Pace::Rate(arguments.rate), daemon).await?;
    let after = daemon.sample().await?;
    show.bar.finish_and_clear();

    let verified = compare(stack).await?;
    let delivery = stack.hub().delivery_counts();
    Ok(Report {
        devices: arguments.devices,
        seed: arguments.seed,
        figures: Figures::new(&before, &backlog, &after, backlog_seconds),
        delivery,
        verified,
    })
}

/// Compares every document with its twin.
async fn compare(stack: &Stack) -> Result<verify::Report, Error> {
    Box::pin(verify::verify(stack.endpoints()))
        .await
        .map_err(|error| failed("cannot compare the documents with the twins", &error))
}

fn bar(arguments: &Arguments) -> ProgressBar {
    if arguments.json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg:>24} [{bar:40}] {pos}/{len} events  {per_sec}  {elapsed}");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

struct Show<'a> {
    arguments: &'a Arguments,
    stack: &'a Stack,
    bar: ProgressBar,
}

impl Show<'_> {
    /// Runs a plan to its end, phase by phase. Returns how long the daemon took for it, in seconds.
    async fn fleet(&self, plan: Plan, pace: Pace, daemon: &mut Daemon) -> Result<f64, Error> {
        let fleet = self.stack.fleet();
        fleet.start(plan, pace).map_err(|error| {
            failed(
                "cannot start the fleet, raise --events (a part of them is kept to measure freshness)",
                &error,
            )
        })?;
        let mut seconds = 0.0;
        loop {
            let started = Instant::now();
            self.caught_up(daemon).await?;
            seconds += started.elapsed().as_secs_f64();
            let progress = fleet.progress();
            match progress.state {
                State::Done => return Ok(seconds),
                State::Waiting => fleet
                    .start_next_phase()
                    .map_err(|error| failed("cannot continue with the fleet", &error))?,
                State::Idle | State::Running | State::Stopped | State::Failed => {
                    let reason = progress.error.unwrap_or_else(|| "it was stopped".to_owned());
                    return Err(Error::Failed(format!("the fleet did not finish: {reason}")));
                }
            }
        }
    }

    /// Waits until the phase is over and all its events are completed.
    async fn caught_up(&self, daemon: &mut Daemon) -> Result<(), Error> {
        let mut seen = 0;
        let mut moved = Instant::now();
        loop {
            let progress = self.stack.fleet().progress();
            let sample = daemon.sample().await?;
            let appended = self
                .stack
                .appended()
                .map_err(|error| failed("cannot read the state of the broker", &error))?;
            self.bar.set_message(match self.arguments.one_hub {
                true => format!("phase {} of {}, one hub", progress.phase, progress.phases),
                false => format!("phase {} of {}", progress.phase, progress.phases),
            });
            self.bar.set_length(appended);
            self.bar.set_position(handled(&sample));
            if progress.state != State::Running
                && handled(&sample) >= appended
                && sample.count(name::IN_FLIGHT_EVENTS, "") == 0
            {
                return Ok(());
            }
            if handled(&sample) != seen {
                (seen, moved) = (handled(&sample), Instant::now());
            } else if moved.elapsed() > STUCK {
                let reason =
                    format!("the daemon has stayed at {seen} of {appended} events for {} s", STUCK.as_secs());
                return Err(Error::Failed(format!("{reason}\n{}", daemon.log())));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Number of events that were decided, ignored or dead-lettered.
fn handled(sample: &Sample) -> u64 {
    sample.count(name::EVENTS, "")
}

impl From<devkit::daemon::Error> for Error {
    fn from(error: devkit::daemon::Error) -> Self {
        failed("the demo's daemon", &error)
    }
}

/// An error on one line, with its chain of causes.
fn failed(what: &str, error: &(dyn std::error::Error + 'static)) -> Error {
    let mut line = format!("{what}: {error}");
    let mut cause = error.source();
    while let Some(current) = cause {
        line.push_str(": ");
        line.push_str(&current.to_string());
        cause = current.source();
    }
    Error::Failed(line)
}
