//! Which partitions an Event Hub has: looked at again and again, beside the work and never in its way.
//!
//! Event Hubs adds partitions to a hub in use (Premium and Dedicated tiers), and producers send to them at once, so a
//! partition that nobody notices is loss by retention. Event Hubs never takes one away: what is missing from an answer is
//! kept, and told.

use std::{collections::BTreeSet, sync::Arc};

use tokio::task::{JoinError, JoinSet};

use crate::{
    ports::{EventSource, SourceError},
    telemetry::{
        Metrics,
        event::{PartitionAdded, PartitionDiscoveryFailed, PartitionMissing},
    },
};

/// What one look brought.
pub type Answer = Result<Vec<String>, SourceError>;

/// The partitions of one Event Hub.
pub struct Partitions {
    stream: String,
    metrics: Metrics,
    known: BTreeSet<String>,
    /// Those that were not there at the start.
    later: BTreeSet<String>,
    /// Those that the last answer left out.
    missing: BTreeSet<String>,
    /// Names that others used and we did not know: each is a reason to look once.
    heard_of: BTreeSet<String>,
    failed_in_a_row: u32,
    asking: JoinSet<Answer>,
}

impl Partitions {
    /// As they are at the start.
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

    /// Whether it was added after the start.
    pub fn came_later(&self, partition: &str) -> bool {
        self.later.contains(partition)
    }

    /// Asks which partitions there are, unless the last question is still open.
    pub fn ask(&mut self, source: &Arc<dyn EventSource>) {
        if self.asking.is_empty() {
            let source = Arc::clone(source);
            self.asking.spawn(async move { source.partitions().await });
        }
    }

    /// Others use partitions of these names. Asks at once about what is news; old leases of a larger hub of the same name
    /// are news once.
    pub fn hear_of(&mut self, names: &[String], source: &Arc<dyn EventSource>) {
        let mut news = false;
        for name in names.iter().filter(|name| !self.known.contains(*name)) {
            news |= self.heard_of.insert(name.clone());
        }
        if news {
            self.ask(source);
        }
    }

    /// Whether a question is open.
    pub fn is_asking(&self) -> bool {
        !self.asking.is_empty()
    }

    /// Waits for the answer.
    pub async fn next(&mut self) -> Option<Result<Answer, JoinError>> {
        self.asking.join_next().await
    }

    /// Takes note of an answer, and says which partitions are new.
    pub fn note(&mut self, answer: Result<Answer, JoinError>) -> Vec<String> {
        let listed: BTreeSet<_> = match answer {
            Ok(Ok(listed)) => listed.into_iter().collect(),
            Ok(Err(error)) => return self.failed(error.code(), &error.to_string()),
            Err(_panicked) => return self.failed("INTERNAL", "the question ended early"),
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
