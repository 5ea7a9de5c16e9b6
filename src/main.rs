//! The `twinsync` binary: arguments → command → exit code.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use twinsync::cli;

/// Most of the daemon's work makes and frees small things, in many threads. Without huge pages: with them, a third of what is
/// resident at a steady load is memory that nobody uses.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long what is still under way in the background may take at the end.
const END_LIMIT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let parsed = cli::Cli::try_parse();
    let arguments = || std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned());
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return cli::refused(&error, &arguments().collect::<Vec<_>>()),
    };
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = cli.workers() {
        builder.worker_threads(workers);
    }
    match builder.enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(cli::main(cli));
            // A disk that hangs must not keep the process.
            runtime.shutdown_timeout(END_LIMIT);
            code
        }
        Err(error) => cli::cannot_start(&error, &arguments().collect::<Vec<_>>()),
    }
}
