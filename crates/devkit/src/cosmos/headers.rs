//! Headers of requests and answers that several modules use.

use axum::http::HeaderMap;

/// The partition key of a request, as a JSON array.
pub(super) const PARTITION_KEY: &str = "x-ms-documentdb-partitionkey";
/// With this header, a request asks for a consistency of its own.
pub(super) const STRATEGY: &str = "x-ms-cosmos-read-consistency-strategy";
/// What a client has seen, or will have seen with the answer.
pub(super) const SESSION_TOKEN: &str = "x-ms-session-token";

/// A position in the sequence of writes of one physical partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    partition: u64,
    pub(super) number: u64,
}

impl Place {
    /// Whether a client that has seen this position has seen the other one as well.
    pub(super) fn covers(self, other: Self) -> bool {
        self.partition == other.partition && self.number >= other.number
    }
}

/// The positions in a session token: `partition:version#number#…`, separated by commas.
pub(super) fn places(headers: &HeaderMap) -> Vec<Place> {
    let token = headers.get(SESSION_TOKEN).and_then(|token| token.to_str().ok()).unwrap_or_default();
    let place = |text: &str| {
        let (partition, progress) = text.split_once(':')?;
        let number = progress.split('#').nth(1).unwrap_or(progress);
        Some(Place { partition: partition.trim().parse().ok()?, number: number.parse().ok()? })
    };
    token.split(',').filter_map(place).collect()
}
