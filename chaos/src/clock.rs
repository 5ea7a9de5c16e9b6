//! A process with a clock of its own, by libfaketime: the time of day is another one, and what is measured is not.

use std::{fs, path::PathBuf};

use devkit::daemon::Setup;

/// How far a clock is off: more than leases last here, and than the routes of a hub differ.
const OFF: i64 = 45;

/// Which way a clock is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Off {
    Behind,
    Ahead,
}

/// The library that changes clocks.
///
/// # Errors
/// It is not there; says how it gets there.
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
    // Timers go by the monotonic clock, which is never off.
    setup.with_variable("FAKETIME_DONT_FAKE_MONOTONIC", "1")
}
