//! The faults: their names, their durations, which replicas they affect, and whether `/readyz` has to report them.

use std::{ops::Range, time::Duration};

use clap::ValueEnum;
use serde::Serialize;

/// One kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Fault {
    /// `kill -9` of one replica; it starts again when the fault ends.
    Kill,
    /// `kill -9` of all replicas at once.
    KillAll,
    /// SIGTERM to one replica, which shuts down gracefully; it starts again when the fault ends.
    Restart,
    /// SIGSTOP to one replica for longer than the duration of a lease, then SIGCONT.
    Freeze,
    /// One replica runs with a clock that is 45 seconds behind.
    ClockBehind,
    /// One replica runs with a clock that is 45 seconds ahead.
    ClockAhead,
    /// All connections to Event Hubs are dropped.
    ConnectionsDrop,
    /// One replica's connections to Event Hubs stay open, but transfer no data.
    ConnectionsHang,
    /// Event Hubs accepts no connections.
    EventHubsAway,
    /// Event Hubs throttles all receivers.
    EventHubsThrottle,
    /// Event Hubs rejects all tokens, and drops all connections.
    TokensRefused,
    /// Cosmos DB answers 503.
    CosmosAway,
    /// Connections to Cosmos DB stay open, but transfer no data.
    CosmosHangs,
    /// Cosmos DB answers half of all requests with 429.
    CosmosThrottles,
    /// Cosmos DB performs all writes, but answers a third of them with 503.
    CosmosLosesAnswers,
    /// Cosmos DB answers 200 ms later.
    CosmosSlow,
    /// The clock of Cosmos DB is ten minutes ahead.
    CosmosClockAhead,
    /// Blob storage is stopped, so connections are refused.
    StorageAway,
    /// One replica's connections to blob storage hang for longer than the duration of a lease.
    StorageHangs,
    /// The service API of the IoT hubs hangs, while twins are flagged.
    RegistryHangs,
    /// The disks of all replicas are full, and an event has to be stored there as a dead letter.
    DiskFull,
    /// One replica cannot open more files or sockets, and its connections are dropped.
    FilesExhausted,
    /// Half of all events are delivered again, some of them with up to five preceding events.
    Replays,
    /// Lifecycle events arrive two seconds later than twin changes.
    RouteLate,
    /// A hub fails over and loses its latest changes, without sending events.
    Failover,
}

/// Which replicas a fault affects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    One,
    All,
}

/// Whether `/readyz` has to report a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reporting {
    Required,
    Optional,
}

impl Fault {
    /// The name on the command line and in the table.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// The description for the table.
    pub(crate) fn meaning(self) -> String {
        let help = self.to_possible_value().and_then(|value| value.get_help().map(ToString::to_string));
        help.unwrap_or_default()
    }

    /// Which replicas it affects.
    pub(crate) fn target(self) -> Target {
        self.traits().0
    }

    /// Whether `/readyz` of an affected replica has to answer 503, or not at all, before the fault ends. Faults that only cost time need
    /// not be reported.
    pub(crate) fn must_be_reported(self) -> bool {
        self.traits().1 == Reporting::Required
    }

    /// The intended duration in milliseconds. The real duration is measured.
    pub(crate) fn lasts(self) -> Range<u64> {
        self.traits().2
    }

    fn traits(self) -> (Target, Reporting, Range<u64>) {
        use {
            Reporting::{Optional, Required},
            Target::{All, One},
        };
        // Ends at once. Only the recovery follows.
        const AT_ONCE: Range<u64> = 1..2;
        const SHORT: Range<u64> = 500..3_000;
        const SOME: Range<u64> = 4_000..8_000;
        const LONGER: Range<u64> = 5_000..9_000;
        // Longer than a lease and the time to notice that it expired.
        const LONG: Range<u64> = 8_000..14_000;
        // No error reports it. It is noticed because events stop arriving.
        const UNTIL_MISSED: Range<u64> = 25_000..35_000;
        match self {
            Self::Kill | Self::Restart => (One, Required, SHORT),
            Self::KillAll => (All, Required, SHORT),
            Self::Freeze | Self::StorageHangs => (One, Required, LONG),
            Self::ClockBehind | Self::ClockAhead => (One, Optional, LONG),
            Self::ConnectionsHang => (One, Required, UNTIL_MISSED),
            Self::FilesExhausted => (One, Optional, LONGER),
            Self::RegistryHangs => (All, Optional, LONGER),
            Self::ConnectionsDrop | Self::Failover => (All, Optional, AT_ONCE),
            Self::EventHubsThrottle
            | Self::CosmosThrottles
            | Self::CosmosLosesAnswers
            | Self::CosmosSlow
            | Self::CosmosClockAhead
            | Self::Replays
            | Self::RouteLate => (All, Optional, SOME),
            Self::EventHubsAway
            | Self::TokensRefused
            | Self::CosmosAway
            | Self::CosmosHangs
            | Self::StorageAway
            | Self::DiskFull => (All, Required, LONG),
        }
    }
}

/// A random duration of a fault.
pub(crate) fn between(range: Range<u64>, random: &mut impl rand::Rng) -> Duration {
    Duration::from_millis(random.random_range(range))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_a_name_and_says_what_it_is() {
        for fault in Fault::value_variants() {
            assert!(!fault.name().is_empty());
            assert!(fault.meaning().len() > 10, "{fault:?}");
            assert!(!fault.lasts().is_empty(), "{fault:?}");
        }
    }
}
