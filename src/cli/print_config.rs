//! `twinsync print-config`: effective values and where each came from.

use super::{Error, Sources};

/// Arguments of `print-config`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    sources: Sources,
    /// Prints one JSON object per key instead of a table.
    #[arg(long)]
    json: bool,
}

/// Prints one line per key.
#[expect(clippy::print_stdout, reason = "this is the output that was asked for")]
pub fn run(arguments: &Arguments) -> Result<(), Error> {
    let settings = arguments.sources.load()?;
    let effective = settings.effective();
    if arguments.json {
        let text =
            serde_json::to_string_pretty(effective).map_err(|error| Error::Failed(error.to_string()))?;
        println!("{text}");
        return Ok(());
    }
    let width = |get: fn(&crate::config::Effective) -> usize| effective.iter().map(get).max().unwrap_or(0);
    let (keys, values) = (width(|line| line.key.len()), width(|line| line.value.len()).min(60));
    for line in effective {
        println!("{:keys$}  {:values$}  {}", line.key, line.value, line.origin);
    }
    Ok(())
}
