//! What the measured figures mean for a real namespace. This is arithmetic only.

use std::fmt::Write as _;

use crate::report::Row;

/// Number of events, and of bytes, that a throughput unit accepts per second.
const EVENTS_IN: f64 = 1_000.0;
const BYTES_IN: f64 = 1e6;
/// Number of events, and of bytes, that a throughput unit delivers per second.
const EVENTS_OUT: f64 = 4_096.0;
const BYTES_OUT: f64 = 2e6;

/// The throughput units that a rate needs.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Units {
    /// For sending.
    sent: f64,
    /// For receiving by one consumer group.
    received: f64,
}

impl Units {
    fn of(events_per_second: f64, bytes: f64) -> Self {
        Self {
            sent: events_per_second * f64::max(1.0 / EVENTS_IN, bytes / BYTES_IN),
            received: events_per_second * f64::max(1.0 / EVENTS_OUT, bytes / BYTES_OUT),
        }
    }
}

/// For each workload with events: the rate that one core of the daemon can process, and what this rate needs
/// in Azure.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| workload | bytes per event | one core takes, events/s | throughput units sent · received | RU/s | of a core per throughput unit sent | RU/s per throughput unit sent |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let (Some(cpu), Some(bytes), Some(charge)) =
            (row.cpu_seconds_per_event, row.bytes_per_event, row.request_units_per_event)
        else {
            continue;
        };
        let rate = 1.0 / cpu.median;
        let units = Units::of(rate, bytes);
        let _ = writeln!(
            text,
            "| {} | {bytes:.0} | {rate:.0} | {:.1} · {:.1} | {:.0} | {:.0} % | {:.0} |",
            row.workload.name(),
            units.sent,
            units.received,
            rate * charge.median,
            100.0 / units.sent,
            rate * charge.median / units.sent,
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_events_are_counted_and_large_ones_weighed() {
        assert_eq!(Units::of(8_192.0, 100.0), Units { sent: 8.192, received: 2.0 });
        assert_eq!(Units::of(1_000.0, 4_000.0), Units { sent: 4.0, received: 2.0 });
    }
}
