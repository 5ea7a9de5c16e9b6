//! Checkpoints, over a store with scripted answers.

use std::sync::Mutex;

use async_trait::async_trait;
use azure_messaging_eventhubs::models::Ownership;

use super::*;
use crate::domain::id::SequenceNumber;

const NONE: [i64; 0] = [];

/// Records the writes.
#[derive(Default)]
struct Store {
    written: Mutex<Vec<i64>>,
    /// Whether the next write gets no answer.
    hangs: Mutex<bool>,
}

#[async_trait]
impl CheckpointStore for Store {
    async fn claim_ownership(&self, _: &[Ownership]) -> azure_core::Result<Vec<Ownership>> {
        unreachable!("a committer claims no partition")
    }

    async fn list_checkpoints(&self, _: &str, _: &str, _: &str) -> azure_core::Result<Vec<Checkpoint>> {
        unreachable!("a committer reads no checkpoint")
    }

    async fn list_ownerships(&self, _: &str, _: &str, _: &str) -> azure_core::Result<Vec<Ownership>> {
        unreachable!("a committer reads no ownership")
    }

    async fn update_checkpoint(&self, checkpoint: Checkpoint) -> azure_core::Result<()> {
        if std::mem::take(&mut *self.hangs.lock().unwrap()) {
            std::future::pending::<()>().await;
        }
        self.written.lock().unwrap().extend(checkpoint.sequence_number);
        Ok(())
    }
}

struct Bench {
    store: Arc<Store>,
    committer: Committer,
    progress: Arc<Progress>,
}

impl Bench {
    fn new() -> Self {
        let (store, metrics) = (Arc::new(Store::default()), Metrics::new().expect("buckets"));
        let classify = |error: &azure_core::Error| panic!("{error}");
        let committer = Committer::new(
            Arc::clone(&store) as _,
            "ns",
            "$Default",
            metrics.clone(),
            HealthState::new(),
            classify,
        );
        let id = PartitionId { stream: "twins".into(), partition: "0".into() };
        Self { store, committer, progress: Progress::new(id, None, &metrics) }
    }

    fn complete(&self, number: i64) {
        self.complete_at(number, "");
    }

    fn complete_at(&self, number: i64, offset: &str) {
        let position = Position { sequence_number: SequenceNumber(number), offset: offset.into() };
        let ticket = self.progress.begin(position).expect("ascending");
        self.progress.complete(ticket);
    }

    /// Commits once per second for this number of seconds. Returns the checkpoints that were written.
    async fn commit_for(&mut self, seconds: u64) -> Vec<i64> {
        for _ in 0..seconds {
            self.committer.commit(&[Arc::clone(&self.progress)]).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        std::mem::take(&mut *self.store.written.lock().unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_at_rest_has_its_checkpoint_written_twice_and_not_more() {
    let mut bench = Bench::new();
    assert_eq!(bench.commit_for(5).await, NONE);
    bench.complete(7);
    assert_eq!(bench.commit_for(30).await, [7]);
    // A write of an earlier owner may have arrived meanwhile.
    assert_eq!(bench.commit_for(60).await, [7]);
    assert_eq!(bench.commit_for(600).await, NONE);
    bench.complete(8);
    assert_eq!(bench.commit_for(600).await, [8], "no earlier write can set this one back");
    bench.committer.forget(bench.progress.id());
    assert_eq!(bench.commit_for(600).await, [8, 8], "another replica owned the partition in between");
}

#[tokio::test(start_paused = true)]
async fn what_a_write_without_an_answer_may_have_set_back_is_written_once_more() {
    let mut bench = Bench::new();
    bench.complete(7);
    assert_eq!(bench.commit_for(120).await, [7, 7]);
    bench.complete(8);
    *bench.store.hangs.lock().unwrap() = true;
    assert_eq!(bench.committer.commit(&[Arc::clone(&bench.progress)]).await, 1);
    bench.complete(9);
    assert_eq!(bench.commit_for(30).await, [9]);
    // The write of 8 arrives now.
    assert_eq!(bench.commit_for(60).await, [9]);
    assert_eq!(bench.commit_for(600).await, NONE);
}

#[test]
fn a_checkpoint_passes_what_is_open_at_it_or_before_it() {
    let at = |number| Position { sequence_number: SequenceNumber(number), offset: Default::default() };
    assert!(!passes(&at(7), None), "no write is pending");
    assert!(!passes(&at(7), Some(&at(8))));
    assert!(passes(&at(7), Some(&at(7))));
    assert!(passes(&at(7), Some(&at(3))));
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_was_created_again_is_written_although_its_number_is_the_same() {
    let mut bench = Bench::new();
    bench.complete_at(3, "3000");
    assert_eq!(bench.commit_for(2).await, [3]);
    bench.progress = Progress::new(bench.progress.id().clone(), None, &Metrics::new().expect("buckets"));
    bench.complete_at(3, "3001");
    assert_eq!(bench.commit_for(2).await, [3]);
}
