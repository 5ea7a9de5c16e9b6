//! The `twinsync` binary: arguments → command → exit code.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = twinsync::cli::Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(twinsync::cli::main(cli)),
        Err(error) => twinsync::cli::cannot_start(&error),
    }
}
