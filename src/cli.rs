//! The command line: parse, call one function, render the answer.
//!
//! Exit codes: 0 done; 1 the command failed, `demo` or `audit` left a difference, or `deadletters` could not do everything that was
//! requested; 2 usage or configuration. `check` has its own codes: see that module.

pub mod audit;
pub mod backfill;
pub mod check;
pub mod deadletters;
#[cfg(feature = "demo")]
pub mod demo;
mod output;
pub mod print_config;
mod reconcile;
pub mod resync;
pub mod run;
pub mod status;

use std::{path::PathBuf, process::ExitCode};

use clap::{CommandFactory as _, Parser, Subcommand};

use self::run::Service;
use crate::{
    config::{self, LogFormat, Settings},
    runtime::receive_threads,
    telemetry,
};

/// Keeps an exact, queryable copy of Azure IoT Hub device twins in Azure Cosmos DB.
#[derive(Debug, Parser)]
#[command(name = "twinsync", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the daemon until SIGTERM or SIGINT.
    Run(Sources),
    /// Serves IoT Hub's service REST API, read-only, from the copy, until SIGTERM or SIGINT.
    Serve(Sources),
    /// Reports problems and how to fix them; --connect checks all services too. Exit code 0, 1 (warnings), 2 (failures).
    Check(check::Arguments),
    /// Prints the effective configuration and where each value came from; secrets are redacted.
    PrintConfig(print_config::Arguments),
    /// Copies all existing twins from the IoT hubs; continues where it was stopped.
    Backfill(backfill::Arguments),
    /// Compares the documents with the twins in the IoT hubs; --repair repairs the differences.
    Audit(audit::Arguments),
    /// Updates the documents of single twins from the hub: a device, or all that match a condition.
    Resync(resync::Arguments),
    /// Shows the state of a running replica, and the reasons for it.
    Status(status::Arguments),
    /// Checks whether a running replica is live; for the health checks of container engines.
    Healthcheck(status::HealthcheckArguments),
    /// Lists, shows, replays and discards dead letters: events that could not be applied.
    Deadletters(deadletters::Arguments),
    /// Runs everything on an embedded local Azure and compares every document with the hub's twin.
    #[cfg(feature = "demo")]
    Demo(demo::Arguments),
}

/// The variable that sets the number of workers of any program that runs on tokio.
const WORKERS: &str = "TOKIO_WORKER_THREADS";

impl Cli {
    /// Number of workers of this command's runtime. `None`: one per processor. The daemon leaves one processor to the receive threads. If
    /// `TOKIO_WORKER_THREADS` is set, it takes precedence.
    pub fn workers(&self) -> Option<usize> {
        let receives = matches!(self.command, Command::Run(_));
        (receives && std::env::var_os(WORKERS).is_none()).then(receive_threads::workers_beside)
    }
}

/// Where configuration comes from.
#[derive(Debug, clap::Args)]
pub struct Sources {
    /// TOML file that overrides the built-in defaults; may be given several times, later files override earlier ones.
    /// Environment variables TWINSYNC__SECTION__KEY override all files.
    #[arg(long = "config", value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl Sources {
    fn load(&self) -> Result<Settings, config::Error> {
        Settings::load(&self.files, config::process_environment())
    }
}

/// Why a command ended with an exit code other than 0.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot be used.
    #[error(transparent)]
    Configuration(#[from] config::Error),
    /// The daemon could not start or had to stop.
    #[error(transparent)]
    App(#[from] crate::app::Error),
    /// Documents differ from the hub's twins.
    #[error("{0} twins differ")]
    Different(usize),
    /// The arguments cannot be combined.
    #[error("{0}")]
    Usage(String),
    /// Any other error, on one line.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// Stable code, if there is one.
    fn code(&self) -> Option<&'static str> {
        match self {
            Self::Configuration(_) => Some(config::Error::CODE),
            Self::App(error) => Some(error.code()),
            Self::Different(_) | Self::Usage(_) | Self::Failed(_) => None,
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Configuration(_) | Self::Usage(_) => ExitCode::from(2),
            Self::App(_) | Self::Different(_) | Self::Failed(_) => ExitCode::from(1),
        }
    }
}

/// Runs the command in `cli` and returns the exit code of the process.
pub async fn main(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Run(sources) => return Box::pin(run::run(Service::Daemon, &sources)).await,
        Command::Serve(sources) => return Box::pin(run::run(Service::ReadApi, &sources)).await,
        Command::Check(arguments) => return Box::pin(check::run(&arguments)).await,
        Command::PrintConfig(arguments) => print_config::run(&arguments),
        Command::Backfill(arguments) => Box::pin(backfill::run(&arguments)).await,
        Command::Audit(arguments) => Box::pin(audit::run(&arguments)).await,
        Command::Resync(arguments) => Box::pin(resync::run(&arguments)).await,
        Command::Status(arguments) => Box::pin(status::run(&arguments)).await,
        Command::Healthcheck(arguments) => Box::pin(status::healthcheck(&arguments)).await,
        Command::Deadletters(arguments) => Box::pin(deadletters::run(&arguments)).await,
        #[cfg(feature = "demo")]
        Command::Demo(arguments) => Box::pin(demo::run(&arguments)).await,
    };
    ended(result, LogFormat::Text)
}

/// Prints why a command failed, in the format of its log, and returns the exit code.
#[expect(clippy::print_stderr, reason = "the last word of a command goes to the terminal")]
fn ended(result: Result<(), Error>, format: LogFormat) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    match format {
        LogFormat::Text => eprintln!("error: {error}"),
        LogFormat::Json => eprintln!("{}", telemetry::final_line(error.code(), &error.to_string())),
    }
    error.exit_code()
}

/// Prints why the arguments cannot be used, in the format of the log if the daemon was meant, and returns the exit code. A request for help
/// or the version is not an error.
#[expect(clippy::print_stderr, reason = "the last word of a command goes to the terminal")]
pub fn refused(error: &clap::Error, arguments: &[String]) -> ExitCode {
    if error.use_stderr() && format_of(arguments) == LogFormat::Json {
        let text = error.to_string();
        let said = text.split("\n\nUsage:").next().unwrap_or_default().split_whitespace();
        let said = said.collect::<Vec<_>>().join(" ");
        eprintln!("{}", telemetry::final_line(Some("ARGUMENTS_INVALID"), said.trim_start_matches("error: ")));
    } else {
        // If the output is closed, there is no place left to report that.
        let _ = error.print();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// Reports that the process has no threads or file descriptors left to start.
#[expect(clippy::print_stderr, reason = "there is nothing else to report to")]
pub fn cannot_start(error: &std::io::Error, arguments: &[String]) -> ExitCode {
    let message = format!("cannot start the runtime: {error}; raise the limits of threads and open files");
    match format_of(arguments) {
        LogFormat::Text => eprintln!("error: {message}"),
        LogFormat::Json => eprintln!("{}", telemetry::final_line(Some(telemetry::INTERNAL), &message)),
    }
    ExitCode::from(1)
}

/// The format for messages before the arguments are parsed: that of the daemon's log in the configuration, unless another command was
/// meant, whose messages are for people.
fn format_of(arguments: &[String]) -> LogFormat {
    let command = Cli::command();
    let is_of_people = |name: &&str| !["run", "serve"].contains(name);
    let mut others = command.get_subcommands().map(clap::Command::get_name).filter(is_of_people);
    if others.any(|other| arguments.iter().any(|argument| argument == other)) {
        return LogFormat::Text;
    }
    let mut files = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.split_once('=') {
            Some(("--config", file)) => files.push(PathBuf::from(file)),
            _ if argument == "--config" => files.extend(rest.next().map(PathBuf::from)),
            _ => {}
        }
    }
    config::log_format_of(&files, config::process_environment())
}
