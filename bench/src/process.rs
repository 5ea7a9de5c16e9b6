//! Figures of the kernel about a process.

use std::time::Duration;

use anyhow::{Context, Result};
use procfs::process::{Process, Stat};

/// CPU time that a process has used, in user and kernel mode, including its threads. The resolution is a clock tick, usually 10 ms.
///
/// # Errors
/// There is no such process, or no /proc.
pub(crate) fn cpu(process: u32) -> Result<Duration> {
    Ok(cpu_of(&open(process)?.stat().context("cannot read the CPU time of a process")?))
}

/// Peak resident memory of a process so far, in bytes.
///
/// # Errors
/// There is no such process, or no /proc.
pub(crate) fn peak_memory(process: u32) -> Result<u64> {
    let status = open(process)?.status().context("cannot read the memory of a process")?;
    let kib = status.vmhwm.context("the kernel does not report peak memory")?;
    Ok(kib * 1024)
}

/// What a child process of this one has used so far. If it has ended and was not waited for, this is all of its CPU time, and its memory is
/// 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    pub(crate) peak_memory: u64,
    pub(crate) ended: bool,
}

/// # Errors
/// There is no such process, or no /proc.
pub(crate) fn usage(process: u32) -> Result<Usage> {
    let stat = open(process)?.stat().context("cannot read the state of a process")?;
    let ended = stat.state == 'Z';
    // The process may end between these two reads. It has no memory then.
    let peak_memory = if ended { 0 } else { peak_memory(process).unwrap_or(0) };
    Ok(Usage { cpu: cpu_of(&stat), peak_memory, ended })
}

fn cpu_of(stat: &Stat) -> Duration {
    let ticks = (stat.utime + stat.stime) as f64;
    Duration::from_secs_f64(ticks / procfs::ticks_per_second() as f64)
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
