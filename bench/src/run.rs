//! One run of the benchmark, with all data for a page.

use std::time::SystemTime;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{growth::Point, report::Row};

/// What was measured, when, and where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Run {
    /// When the run ended.
    pub(crate) at: String,
    /// The arguments of `cargo bench-sync`.
    pub(crate) arguments: Vec<String>,
    pub(crate) quick: bool,
    pub(crate) machine: Machine,
    pub(crate) workloads: Vec<Row>,
    #[serde(default)]
    pub(crate) growth: Vec<Point>,
}

/// The machine of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Machine {
    pub(crate) cores: usize,
    /// The processor's name. Empty if the kernel does not report it.
    pub(crate) processor: String,
    /// Memory in bytes.
    pub(crate) memory: u64,
    pub(crate) kernel: String,
    /// Mean number of processes that ran or waited to run, in the 15 minutes before the end.
    pub(crate) load: f64,
}

impl Run {
    /// A run that ends now.
    ///
    /// # Errors
    /// The machine's data cannot be read.
    pub(crate) fn new(quick: bool, workloads: Vec<Row>, growth: Vec<Point>) -> Result<Self> {
        let at = OffsetDateTime::from(SystemTime::now()).replace_nanosecond(0)?.format(&Rfc3339)?;
        let arguments = std::env::args().skip(1).collect();
        Ok(Self { at, arguments, quick, machine: Machine::here()?, workloads, growth })
    }
}

impl Machine {
    fn here() -> Result<Self> {
        let read = |path: &str| std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
        let kib = field(&read("/proc/meminfo")?, "MemTotal")
            .and_then(|total| total.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()));
        let load = read("/proc/loadavg")?;
        let load = load.split_whitespace().nth(2).and_then(|load| load.parse().ok());
        Ok(Self {
            cores: std::thread::available_parallelism()?.get(),
            processor: field(&read("/proc/cpuinfo")?, "model name").unwrap_or_default(),
            memory: kib.context("the kernel does not report the size of the memory")? * 1024,
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            load: load.context("the kernel does not report the load")?,
        })
    }
}

/// The first value with this name in a file of `name: value` lines.
fn field(text: &str, wanted: &str) -> Option<String> {
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(name, _)| name.trim() == wanted).map(|(_, value)| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_tells_what_it_is_and_a_run_survives_its_file() {
        let run = Run::new(true, Vec::new(), Vec::new()).expect("known");
        assert!(run.machine.cores > 0 && run.machine.memory > 1 << 20 && !run.machine.kernel.is_empty());
        let text = serde_json::to_string(&run).expect("serialises");
        assert_eq!(serde_json::from_str::<Run>(&text).expect("reads back"), run);
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "model\t\t: 85\nmodel name\t: Some CPU: fast\nmodel name\t: Other\n";
        assert_eq!(field(text, "model name").as_deref(), Some("Some CPU: fast"));
        assert_eq!(field(text, "name"), None);
    }
}
