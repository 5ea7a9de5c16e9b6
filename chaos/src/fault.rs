//! The faults: what each is called, how long it lasts, whom it strikes, and whether `/readyz` has to tell.

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
    /// SIGTERM to one replica, which stops in an orderly way; it starts again when the fault ends.
    Restart,
    /// SIGSTOP for longer than a lease lasts, then SIGCONT.
    Freeze,
    /// One replica runs with a clock that is 45 seconds behind.
    ClockBehind,
    /// One replica runs with a clock that is 45 seconds ahead.
    ClockAhead,
    /// Every connection to Event Hubs is cut.
    ConnectionsDrop,
    /// One replica's connections to Event Hubs stay open, and nothing passes.
    ConnectionsHang,
    /// Event Hubs takes no connection.
    EventHubsAway,
    /// Event Hubs throttles whoever reads.
    EventHubsThrottle,
    /// Event Hubs refuses every token, and cuts the connections that have one.
    TokensRefused,
    /// Cosmos DB answers 503.
    CosmosAway,
    /// Connections to Cosmos DB stay open, and nothing passes.
    CosmosHangs,
    /// Cosmos DB answers half of all requests with 429.
    CosmosThrottles,
    /// Cosmos DB performs a third of all writes and answers 503 to them.
    CosmosLosesAnswers,
    /// Cosmos DB takes 200 ms longer.
    CosmosSlow,
    /// The clock of Cosmos DB is ten minutes ahead.
    CosmosClockAhead,
    /// Blob storage is stopped: connections are refused.
    StorageAway,
    /// One replica's connections to blob storage hang for longer than a lease lasts.
    StorageHangs,
    /// The service API of the IoT hubs hangs, while twins are flagged.
    RegistryHangs,
    /// The disks of all replicas are full, and an event comes that has to be set aside there.
    DiskFull,
    /// One replica may open no more files or sockets, and its connections are cut.
    FilesExhausted,
    /// Half of all events are delivered again, with up to five before them.
    Replays,
    /// The events of identities are two seconds later than those of twins.
    RouteLate,
    /// A hub fails over: its latest changes are gone, and nobody is told.
    Failover,
}

/// Whom a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    One,
    All,
}

/// Whether `/readyz` has to tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Must,
    May,
}

impl Fault {
    /// The name on the command line and in the table.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// What it is, for the table.
    pub(crate) fn meaning(self) -> String {
        let help = self.to_possible_value().and_then(|value| value.get_help().map(ToString::to_string));
        help.unwrap_or_default()
    }

    /// Whom it strikes.
    pub(crate) fn target(self) -> Target {
        self.traits().0
    }

    /// Whether `/readyz` of a struck replica has to say 503, or nothing, before it is over. It need not for what costs time only.
    pub(crate) fn has_to_be_told(self) -> bool {
        self.traits().1 == Told::Must
    }

    /// For how long it is meant to last, in milliseconds. How long it did last is measured.
    pub(crate) fn lasts(self) -> Range<u64> {
        self.traits().2
    }

    fn traits(self) -> (Target, Told, Range<u64>) {
        use {
            Target::{All, One},
            Told::{May, Must},
        };
        // Over at once: what follows is recovery.
        const AT_ONCE: Range<u64> = 1..2;
        const SHORT: Range<u64> = 500..3_000;
        const SOME: Range<u64> = 4_000..8_000;
        const LONGER: Range<u64> = 5_000..9_000;
        // Longer than a lease, and than what is needed to notice it.
        const LONG: Range<u64> = 8_000..14_000;
        // No error tells of it: events have to be missed first.
        const UNTIL_MISSED: Range<u64> = 25_000..35_000;
        match self {
            Self::Kill | Self::Restart => (One, Must, SHORT),
            Self::KillAll => (All, Must, SHORT),
            Self::Freeze | Self::StorageHangs => (One, Must, LONG),
            Self::ClockBehind | Self::ClockAhead => (One, May, LONG),
            Self::ConnectionsHang => (One, Must, UNTIL_MISSED),
            Self::FilesExhausted => (One, May, LONGER),
            Self::RegistryHangs => (All, May, LONGER),
            Self::ConnectionsDrop | Self::Failover => (All, May, AT_ONCE),
            Self::EventHubsThrottle
            | Self::CosmosThrottles
            | Self::CosmosLosesAnswers
            | Self::CosmosSlow
            | Self::CosmosClockAhead
            | Self::Replays
            | Self::RouteLate => (All, May, SOME),
            Self::EventHubsAway
            | Self::TokensRefused
            | Self::CosmosAway
            | Self::CosmosHangs
            | Self::StorageAway
            | Self::DiskFull => (All, Must, LONG),
        }
    }
}

/// How long a fault is meant to last.
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
