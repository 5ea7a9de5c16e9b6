//! The cost of a fault: one line per test, shown with `--nocapture`.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use devkit::verify::Report;

use crate::world::World;

/// Measures one fault, from before it begins until all documents are equal again.
pub(crate) struct Figures {
    fault: String,
    injected: String,
    ended: Instant,
}

impl Figures {
    /// Starts the measurement of this fault.
    pub(crate) fn of(fault: impl Display) -> Self {
        Self { fault: fault.to_string(), injected: "1".to_owned(), ended: Instant::now() }
    }

    /// Sets how often the fault was injected, or for how long.
    pub(crate) fn injected(&mut self, what: impl Display) {
        self.injected = what.to_string();
    }

    /// Marks the end of the fault. The recovery time starts here.
    pub(crate) fn over(&mut self) {
        self.ended = Instant::now();
    }

    /// Waits until no document differs, and prints the line. Returns the recovery time.
    ///
    /// The broker counts the events that were delivered again, so the crash of a daemon does not lose the count. It counts every delivery
    /// of an event after its first, including events that were still in the buffer of a client when that client was closed.
    pub(crate) async fn equal(self, world: &World) -> Duration {
        let report = world.equal().await;
        let recovery = self.ended.elapsed();
        self.print(world, &report, recovery);
        recovery
    }

    #[expect(clippy::print_stdout, reason = "figures are what the reader of a test run asked for")]
    fn print(&self, world: &World, report: &Report, recovery: Duration) {
        let appended = world.appended();
        let delivered = world.stack.broker().faults().counters().delivered;
        let again = delivered.saturating_sub(appended);
        let Self { fault, injected, ended: _ } = self;
        println!(
            "fault: {fault} | injected: {injected} | events in: {appended} | delivered again: {again} | {report} | \
             equal {:.2} s after its end",
            recovery.as_secs_f64()
        );
    }
}
