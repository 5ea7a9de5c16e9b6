//! A process with its own system time, by libfaketime. Durations are not affected.

use std::{fs, path::PathBuf};

use devkit::daemon::Setup;

/// How far the clock is off, in seconds: more than the duration of a lease here, and more than the skew of a hub's
/// routes.
const OFF: i64 = 45;

/// The direction in which a clock is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Off {
    Behind,
    Ahead,
}

/// The library that changes clocks.
///
/// # Errors
/// It is not installed. The text says how to install it.
pub(crate) fn library() -> Result<PathBuf, String> {
    let directories = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let mut candidates = directories.map(|directory| directory.path().join("faketime/libfaketimeMT.so.1"));
    candidates
        .find(|library| library.is_file())
        .ok_or_else(|| "there is no libfaketime; on Debian: apt-get install libfaketime".to_owned())
}

/// The same process with a clock that is off.
pub(crate) fn with_clock(setup: &Setup, library: PathBuf, off: Off) -> Setup {
    let seconds = match off {
        Off::Behind => -OFF,
        Off::Ahead => OFF,
    };
    let setup =
        setup.clone().with_variable("LD_PRELOAD", library).with_variable("FAKETIME", format!("{seconds:+}s"));
    // Timers use the monotonic clock, which must stay correct.
    setup.with_variable("FAKETIME_DONT_FAKE_MONOTONIC", "1")
}
