//! What a fault cost: one line per test, shown with `--nocapture`.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use devkit::verify::Report;

use crate::world::World;

/// The figures of one fault, from before it begins until everything is equal again.
pub(crate) struct Figures {
    fault: String,
    injected: String,
    ended: Instant,
}

impl Figures {
    /// Of this fault.
    pub(crate) fn of(fault: impl Display) -> Self {
        Self { fault: fault.to_string(), injected: "1".to_owned(), ended: Instant::now() }
    }

    /// What was injected: how often, or for how long.
    pub(crate) fn injected(&mut self, what: impl Display) {
        self.injected = what.to_string();
    }

    /// The fault ends here: recovery takes from here to the first moment of 0 different.
    pub(crate) fn over(&mut self) {
        self.ended = Instant::now();
    }

    /// Waits until no document differs, and prints the line. Returns the recovery time.
    ///
    /// Events that are delivered again are counted at the broker, where no crash of a daemon loses the count: whatever was
    /// handed to a link beyond one time per event, also what lay in a client's buffer when that client was given up.
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
