//! The `twinsync` binary: arguments → command → exit code.

use std::process::ExitCode;

use clap::Parser;
use twinsync::cli;

fn main() -> ExitCode {
    let parsed = cli::Cli::try_parse();
    let arguments = || std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned());
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return cli::refused(&error, &arguments().collect::<Vec<_>>()),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(cli::main(cli)),
        Err(error) => cli::cannot_start(&error, &arguments().collect::<Vec<_>>()),
    }
}
