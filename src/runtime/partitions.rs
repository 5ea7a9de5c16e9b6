//! Partition discovery: asks periodically which partitions an Event Hub has, without delaying other work.
//!
//! Event Hubs adds partitions to a hub in use (Premium and Dedicated tiers), and producers send to them at once. The events of an unnoticed
//! partition are lost by retention. Event Hubs never removes a partition, so a partition that is missing from an answer is kept and
//! reported.

use std::{collections::BTreeSet, sync::Arc};

use tokio::task::{JoinError, JoinSet};

use crate::{
    ports::{EventSource, SourceError},
    telemetry::{
        Metrics,
        event::{PartitionAdded, PartitionDiscoveryFailed, PartitionMissing},
    },
};

/// Result of one discovery.
pub type Answer = Result<Vec<String>, SourceError>;

/// The known partitions of one Event Hub.
pub struct Partitions {
    stream: String,
    metrics: Metrics,
    known: BTreeSet<String>,
    /// Partitions that were not there at the start.
    later: BTreeSet<String>,
    /// Partitions that were not in the last answer.
    missing: BTreeSet<String>,
    /// Unknown partition names that other replicas use. Each name triggers one discovery.
    heard_of: BTreeSet<String>,
    failed_in_a_row: u32,
    asking: JoinSet<Answer>,
}

impl Partitions {
    /// Creates it with the partitions at the start.
    pub fn new(stream: &str, partitions: &[String], metrics: Metrics) -> Self {
        let known: BTreeSet<_> = partitions.iter().cloned().collect();
        metrics.set_partitions(stream, known.len(), 0);
        Self {
            stream: stream.to_owned(),
            metrics,
            known,
            later: BTreeSet::new(),
            missing: BTreeSet::new(),
            heard_of: BTreeSet::new(),
            failed_in_a_row: 0,
            asking: JoinSet::new(),
        }
    }

    /// Whether a partition was added after the start.
    pub fn came_later(&self, partition: &str) -> bool {
        self.later.contains(partition)
    }

    /// Starts a discovery, unless the last one is still running.
    pub fn ask(&mut self, source: &Arc<dyn EventSource>) {
        if self.asking.is_empty() {
            let source = Arc::clone(source);
            self.asking.spawn(async move { source.partitions().await });
        }
    }

    /// Receives partition names that other replicas use. Starts a discovery at once if a name is new. Old leases of a larger hub of the
    /// same name trigger one discovery only.
    pub fn hear_of(&mut self, names: &[String], source: &Arc<dyn EventSource>) {
        let mut news = false;
        for name in names.iter().filter(|name| !self.known.contains(*name)) {
            news |= self.heard_of.insert(name.clone());
        }
        if news {
            self.ask(source);
        }
    }

    /// Whether a discovery is running.
    pub fn is_asking(&self) -> bool {
        !self.asking.is_empty()
    }

    /// Waits for the result of the discovery. An error means that it panicked.
    pub async fn next(&mut self) -> Option<Result<Answer, JoinError>> {
        self.asking.join_next().await
    }

    /// Applies the result of a discovery, and returns the new partitions.
    pub fn note(&mut self, answer: Result<Answer, JoinError>) -> Vec<String> {
        let listed: BTreeSet<_> = match answer {
            Ok(Ok(listed)) => listed.into_iter().collect(),
            Ok(Err(error)) => return self.failed(error.code(), &error.to_string()),
            Err(_panicked) => return self.failed("INTERNAL", "the request ended early"),
        };
        self.failed_in_a_row = 0;
        let added: Vec<_> = listed.difference(&self.known).cloned().collect();
        for partition in &added {
            PartitionAdded { stream: &self.stream, partition }.emit();
        }
        self.known.extend(added.iter().cloned());
        self.later.extend(added.iter().cloned());
        let missing: BTreeSet<_> = self.known.difference(&listed).cloned().collect();
        for partition in missing.difference(&self.missing) {
            PartitionMissing { stream: &self.stream, partition }.emit();
        }
        self.missing = missing;
        self.metrics.set_partitions(&self.stream, self.known.len(), self.missing.len());
        added
    }

    fn failed(&mut self, code: &'static str, error: &str) -> Vec<String> {
        self.failed_in_a_row = self.failed_in_a_row.saturating_add(1);
        PartitionDiscoveryFailed { stream: &self.stream, code, error, in_a_row: self.failed_in_a_row }
            .emit(&self.metrics);
        Vec::new()
    }
}

#[cfg(test)]
mod tests;
