//! A new partition is added, a missing one is kept, and a failed discovery is repeated.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;

use super::*;
use crate::{
    domain::progress::Extent,
    ports::{Receiver, Start},
};

/// An Event Hub with scripted answers.
struct Hub {
    answers: Mutex<Vec<Answer>>,
    asked: AtomicUsize,
}

impl Hub {
    fn new(mut answers: Vec<Answer>) -> Arc<Self> {
        answers.reverse();
        Arc::new(Self { answers: Mutex::new(answers), asked: AtomicUsize::new(0) })
    }
}

#[async_trait]
impl EventSource for Hub {
    fn name(&self) -> &str {
        "twins"
    }

    async fn partitions(&self) -> Answer {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.answers.lock().expect("no panic").pop().expect("not asked that often")
    }

    async fn extent(&self, _: &str) -> Result<Extent, SourceError> {
        unreachable!("only the partitions are asked for")
    }

    async fn open(&self, _: &str, _: Start) -> Result<Box<dyn Receiver>, SourceError> {
        unreachable!("only the partitions are asked for")
    }

    async fn close(&self) {}
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn failure() -> Answer {
    Err(SourceError::Lost { operation: "reading the Event Hub's properties", reason: "scripted".into() })
}

async fn look(partitions: &mut Partitions, source: &Arc<dyn EventSource>) -> Vec<String> {
    partitions.ask(source);
    let answer = partitions.next().await.expect("it was asked");
    partitions.note(answer)
}

fn shows(metrics: &Metrics, line: &str) {
    let text = metrics.render();
    assert!(text.lines().any(|found| found == line), "{line}\nnot in\n{text}");
}

#[tokio::test]
async fn what_is_new_is_told_once_and_what_is_missing_is_kept() {
    let answers = [&["0", "1", "2", "3"][..], &["0", "2", "3"], &["3", "2", "1", "0"]];
    let hub = Hub::new(answers.map(|answer| Ok(names(answer))).into());
    let source: Arc<dyn EventSource> = hub;
    let metrics = Metrics::new().unwrap();
    let mut partitions = Partitions::new("twins", &names(&["0", "1"]), metrics.clone());
    shows(&metrics, "twinsync_partitions{stream=\"twins\"} 2");
    assert_eq!(look(&mut partitions, &source).await, ["2", "3"]);
    assert!(partitions.came_later("2") && !partitions.came_later("1"));
    assert!(look(&mut partitions, &source).await.is_empty());
    shows(&metrics, "twinsync_partitions{stream=\"twins\"} 4");
    shows(&metrics, "twinsync_partitions_missing{stream=\"twins\"} 1");
    assert!(look(&mut partitions, &source).await.is_empty(), "a partition that is back was never given up");
    shows(&metrics, "twinsync_partitions_missing{stream=\"twins\"} 0");
}

#[tokio::test]
async fn a_failed_discovery_changes_nothing_and_is_counted() {
    let hub = Hub::new(vec![failure(), failure(), Ok(names(&["0", "1"]))]);
    let source: Arc<dyn EventSource> = hub;
    let metrics = Metrics::new().unwrap();
    let _ = metrics.stream("twins");
    let mut partitions = Partitions::new("twins", &names(&["0"]), metrics.clone());
    shows(&metrics, "twinsync_partition_discovery_failures_total{stream=\"twins\"} 0");
    assert!(look(&mut partitions, &source).await.is_empty());
    assert!(look(&mut partitions, &source).await.is_empty());
    assert_eq!(partitions.failed_in_a_row, 2);
    shows(&metrics, "twinsync_partition_discovery_failures_total{stream=\"twins\"} 2");
    shows(&metrics, "twinsync_partitions{stream=\"twins\"} 1");
    assert_eq!(look(&mut partitions, &source).await, ["1"]);
    assert_eq!(partitions.failed_in_a_row, 0);
}

#[tokio::test]
async fn an_unknown_partition_of_another_replica_starts_one_discovery() {
    let hub = Hub::new(vec![Ok(names(&["0", "1"])), Ok(names(&["0", "1", "2"]))]);
    let source: Arc<dyn EventSource> = Arc::clone(&hub) as _;
    let mut partitions = Partitions::new("twins", &names(&["0", "1"]), Metrics::new().unwrap());
    partitions.hear_of(&names(&["1"]), &source);
    assert!(!partitions.is_asking(), "the partition is known");
    partitions.hear_of(&names(&["7"]), &source);
    assert!(partitions.is_asking());
    let answer = partitions.next().await.expect("it was asked");
    assert!(partitions.note(answer).is_empty(), "the lease of a larger Event Hub with the same name");
    partitions.hear_of(&names(&["7"]), &source);
    assert!(!partitions.is_asking(), "the question was asked before");
    partitions.hear_of(&names(&["2", "7"]), &source);
    let answer = partitions.next().await.expect("it was asked");
    assert_eq!(partitions.note(answer), ["2"]);
    assert_eq!(hub.asked.load(Ordering::Relaxed), 2);
}
