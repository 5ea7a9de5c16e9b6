//! What the kernel knows about a process.

use std::time::Duration;

use anyhow::{Context, Result};
use procfs::process::Process;

/// CPU time that a process has used, in user and kernel mode, its threads included; exact to a clock tick, 10 ms as a rule.
///
/// # Errors
/// There is no such process, or no /proc.
pub(crate) fn cpu(process: u32) -> Result<Duration> {
    let stat = open(process)?.stat().context("its CPU time cannot be read")?;
    let ticks = (stat.utime + stat.stime) as f64;
    Ok(Duration::from_secs_f64(ticks / procfs::ticks_per_second() as f64))
}

/// The most memory that a process has had resident so far, in bytes.
///
/// # Errors
/// There is no such process, or no /proc.
pub(crate) fn peak_memory(process: u32) -> Result<u64> {
    let status = open(process)?.status().context("its memory cannot be read")?;
    let kib = status.vmhwm.context("the kernel does not tell the peak of its memory")?;
    Ok(kib * 1024)
}

fn open(process: u32) -> Result<Process> {
    let id = i32::try_from(process).context("no process has this id")?;
    Process::new(id).with_context(|| format!("there is no process {process}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_cpu_and_memory() {
        let own = std::process::id();
        let before = cpu(own).expect("known");
        let mut number = 1_u64;
        while cpu(own).expect("known") == before {
            number = std::hint::black_box(number.wrapping_mul(3));
        }
        assert!(peak_memory(own).expect("known") > 1 << 20);
        assert!(cpu(u32::MAX).is_err());
    }
}
