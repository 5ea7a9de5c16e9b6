//! The command line of devkit: start a local Azure, drive a fleet in it, and verify the copy.
//!
//! Standard output has results only: `up` prints one JSON line with all endpoints, `verify` prints its report.
//! Exit codes: 0 done and equal, 1 different, 2 an error, with one line on standard error.

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::{
    Layer as _,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

mod cli;

fn main() -> ExitCode {
    let command = match cli::Command::try_parse() {
        Ok(command) => command,
        Err(error) if error.use_stderr() => {
            // The first line of clap's message states the error. The rest is help.
            let text = error.to_string();
            return fail(text.lines().next().unwrap_or_default().trim_start_matches("error: "));
        }
        Err(help) => {
            print(help.to_string().trim_end());
            return ExitCode::SUCCESS;
        }
    };
    let asked = std::env::var("DEVKIT_LOG").ok().and_then(|text| text.parse().ok());
    let filter: Targets = asked.unwrap_or_else(|| Targets::new().with_default(LevelFilter::WARN));
    let output = fmt::layer().with_writer(std::io::stderr).with_filter(filter);
    tracing_subscriber::registry().with(output).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start the runtime: {error}")),
    };
    match runtime.block_on(command.run(print)) {
        Ok(code) => code,
        Err(error) => fail(&format!("{error:#}")),
    }
}

#[expect(clippy::print_stdout, reason = "the result of the command")]
fn print(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "the one line that states the error")]
fn fail(message: &str) -> ExitCode {
    eprintln!("devkit: {}", message.replace('\n', " "));
    ExitCode::from(2)
}
