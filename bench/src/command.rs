//! Measures a command of the product, from the start of its process to its end.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use devkit::cosmos::Counters;
use tokio::process::Child;

use crate::{
    azure::Azure,
    daemon::{Done, Place},
    process::{self, Usage},
};

/// How often its memory is read.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(20);
/// Time limit of the command.
const LIMIT: Duration = Duration::from_secs(1800);
/// Maximum length of the output that is shown if it fails.
const SHOWN: usize = 2_000;

/// Runs `twinsync` with `arguments` over this number of twins, with `more` configuration. Reads, writes and request units are those that
/// the account counts.
///
/// # Errors
/// The command fails, or does not end in time.
pub(crate) async fn run(
    azure: &Azure,
    place: &Place,
    arguments: &[&str],
    more: &str,
    twins: u64,
) -> Result<Done> {
    let (mut command, log) = place.command(azure, arguments, more)?;
    let (before, azure_cpu) = (azure.cosmos().await?, azure.cpu()?);
    let began = Instant::now();
    let mut process = command.stdin(Stdio::null()).spawn().context("cannot start twinsync")?;
    let ended = watch(&process);
    let usage = match tokio::time::timeout(LIMIT, ended).await {
        Ok(usage) => usage?,
        Err(_) => {
            process.kill().await?;
            anyhow::bail!("`twinsync {}` does not end", arguments.join(" "));
        }
    };
    let seconds = began.elapsed().as_secs_f64();
    let status = process.wait().await?;
    let text = || std::fs::read_to_string(&log).unwrap_or_default().chars().take(SHOWN).collect::<String>();
    ensure!(status.success(), "`twinsync {}` ended with {status}:\n{}", arguments.join(" "), text());
    let after = azure.cosmos().await?;
    let more = |operations: &[&str]| requests(&after, operations) - requests(&before, operations);
    Ok(Done {
        events: twins,
        seconds,
        cpu_seconds: usage.cpu.as_secs_f64(),
        azure_cpu_seconds: azure.cpu()?.saturating_sub(azure_cpu).as_secs_f64(),
        peak_memory: usage.peak_memory,
        writes: more(&["create", "replace"]),
        reads: more(&["read"]),
        request_units: charged(&after) - charged(&before),
        freshness_p50: None,
        freshness_p99: None,
    })
}

/// Resource usage of the process after its end. The process is not waited for here, because that would discard these figures.
async fn watch(process: &Child) -> Result<Usage> {
    let id = process.id().context("the process has ended already")?;
    let mut peak_memory = 0;
    loop {
        let usage = process::usage(id)?;
        peak_memory = usage.peak_memory.max(peak_memory);
        if usage.ended {
            return Ok(Usage { peak_memory, ..usage });
        }
        tokio::time::sleep(SAMPLE_INTERVAL).await;
    }
}

fn requests(counters: &Counters, operations: &[&str]) -> u64 {
    operations.iter().filter_map(|operation| counters.get(*operation)).map(|count| count.requests).sum()
}

fn charged(counters: &Counters) -> f64 {
    counters.values().map(|count| count.request_units).sum()
}

#[cfg(test)]
mod tests {
    use tokio::process::Command;

    use super::*;

    #[tokio::test]
    async fn a_process_that_has_ended_still_tells_what_it_used() {
        let script = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let mut process = Command::new("sh").arg("-c").arg(script).spawn().expect("starts");
        let usage = watch(&process).await.expect("is watched");
        assert!(usage.ended && usage.cpu >= Duration::from_millis(10), "{usage:?}");
        assert!(usage.peak_memory > 100 << 10, "{usage:?}");
        assert!(process.wait().await.expect("ends").success());
    }
}
