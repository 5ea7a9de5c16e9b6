//! A command of the product under measurement: from the start of its process to its end.

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

/// How often its memory is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How long it may take.
const LIMIT: Duration = Duration::from_secs(1800);
/// Of what it wrote, so much is shown where it failed.
const SHOWN: usize = 2_000;

/// Runs `twinsync` with `arguments` over so many twins, with `more` configuration. What was read, written and charged is counted
/// by the account itself.
///
/// # Errors
/// It fails, or does not end.
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

/// What the process used when it had ended. It is not waited for here: whoever waits gets its status and forgets its figures.
async fn watch(process: &Child) -> Result<Usage> {
    let id = process.id().context("it has ended before it began")?;
    let mut peak_memory = 0;
    loop {
        let usage = process::usage(id)?;
        peak_memory = usage.peak_memory.max(peak_memory);
        if usage.ended {
            return Ok(Usage { peak_memory, ..usage });
        }
        tokio::time::sleep(LOOK).await;
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
