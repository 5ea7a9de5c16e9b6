//! Several replicas with one store: one owner per partition, quick takeover, and no use of a lease that others may take.

use std::sync::atomic::{AtomicBool, Ordering};

use azure_messaging_eventhubs::models::Checkpoint;

use super::*;
use crate::adapters::checkpoints::FileStore;

const DURATION: Duration = Duration::from_millis(2_500);

/// The file store. Its answers can be lost or refused.
struct Store {
    inner: FileStore,
    unreachable: AtomicBool,
    hangs: AtomicBool,
    loses_answers: AtomicBool,
    _directory: tempfile::TempDir,
}

impl Store {
    async fn new() -> Arc<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let inner = FileStore::open(directory.path().join("store")).await.expect("opens");
        Arc::new(Self {
            inner,
            unreachable: AtomicBool::new(false),
            hangs: AtomicBool::new(false),
            loses_answers: AtomicBool::new(false),
            _directory: directory,
        })
    }

    fn failure() -> azure_core::Error {
        azure_core::Error::with_message(azure_core::error::ErrorKind::Io, "scripted")
    }

    async fn check(&self) -> azure_core::Result<()> {
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if self.unreachable.load(Ordering::Relaxed) { Err(Self::failure()) } else { Ok(()) }
    }
}

#[async_trait::async_trait]
impl CheckpointStore for Store {
    async fn claim_ownership(&self, ownerships: &[Ownership]) -> azure_core::Result<Vec<Ownership>> {
        assert_eq!(ownerships.len(), 1, "one partition per call");
        self.check().await?;
        let claimed = self.inner.claim_ownership(ownerships).await?;
        if self.loses_answers.load(Ordering::Relaxed) { Err(Self::failure()) } else { Ok(claimed) }
    }

    async fn list_checkpoints(&self, n: &str, h: &str, g: &str) -> azure_core::Result<Vec<Checkpoint>> {
        self.inner.list_checkpoints(n, h, g).await
    }

    async fn list_ownerships(&self, n: &str, h: &str, g: &str) -> azure_core::Result<Vec<Ownership>> {
        self.check().await?;
        self.inner.list_ownerships(n, h, g).await
    }

    async fn update_checkpoint(&self, checkpoint: Checkpoint) -> azure_core::Result<()> {
        self.inner.update_checkpoint(checkpoint).await
    }
}

fn replica(store: &Arc<Store>, owner: &str, partitions: usize) -> Leases {
    let store: Arc<dyn CheckpointStore> = store.clone();
    let options = Options { owner: owner.into(), duration: DURATION, renew_interval: DURATION / 6 };
    let partitions = (0..partitions).map(|partition| partition.to_string()).collect();
    Leases::new(store, options, "NS.example", "Hub", "$Default", partitions)
}

/// Runs rounds of all replicas until `done`. Surplus partitions are released at once.
async fn rounds(replicas: &mut [&mut Leases], what: &str, done: impl Fn(&[Vec<String>]) -> bool) {
    let began = Instant::now();
    loop {
        let mut held = Vec::new();
        for leases in replicas.iter_mut() {
            for partition in leases.round(&[], true).await.surplus {
                leases.release(&partition).await;
            }
            held.push(leases.held());
        }
        if done(&held) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "never: {what}: {held:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn shares(held: &[Vec<String>]) -> Vec<usize> {
    held.iter().map(Vec::len).collect()
}

#[tokio::test]
async fn replicas_come_to_fair_shares_with_one_owner_each() {
    let store = Store::new().await;
    let (mut a, mut b, mut c) = (replica(&store, "a", 6), replica(&store, "b", 6), replica(&store, "c", 6));
    assert_eq!(a.round(&[], true).await.gained.len(), 6, "the first replica takes all");
    rounds(&mut [&mut a, &mut b], "two shares", |held| shares(held) == [3, 3]).await;
    rounds(&mut [&mut a, &mut b, &mut c], "three shares", |held| shares(held) == [2, 2, 2]).await;
    let mut all = [a.held(), b.held(), c.held()].concat();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 6, "a partition has two owners");
}

#[tokio::test]
async fn what_is_released_is_free_at_once() {
    let store = Store::new().await;
    let (mut a, mut b) = (replica(&store, "a", 2), replica(&store, "b", 2));
    a.round(&[], true).await;
    rounds(&mut [&mut a, &mut b], "shares", |held| shares(held) == [1, 1]).await;
    for partition in a.held() {
        a.release(&partition).await;
    }
    let began = Instant::now();
    assert_eq!(b.round(&[], true).await.gained.len(), 1);
    assert!(began.elapsed() < DURATION / 2, "a released lease must not have to expire");
}

#[tokio::test]
async fn a_silent_owner_keeps_its_partitions_for_the_duration_and_not_longer() {
    let store = Store::new().await;
    let (mut a, mut b) = (replica(&store, "a", 4), replica(&store, "b", 4));
    a.round(&[], true).await;
    rounds(&mut [&mut a, &mut b], "shares", |held| shares(held) == [2, 2]).await;
    let silent = Instant::now(); // `a` is dead from this moment
    rounds(&mut [&mut b], "all of them", |held| shares(held) == [4]).await;
    assert!(silent.elapsed() >= DURATION - DURATION / 6, "taken over too early: {:?}", silent.elapsed());
    assert!(silent.elapsed() < DURATION * 5, "taken over after {:?}", silent.elapsed());
}

#[tokio::test]
async fn a_replica_that_cannot_renew_stops_before_the_others_may_take_over() {
    let store = Store::new().await;
    let mut a = replica(&store, "a", 2);
    a.round(&[], true).await;
    let since = Instant::now();
    store.unreachable.store(true, Ordering::Relaxed);
    let lost = loop {
        let lost = a.round(&[], true).await.lost;
        if !lost.is_empty() {
            break lost;
        }
        assert!(since.elapsed() < DURATION, "the lease is kept although others may take it over");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!((lost.len(), a.held().len()), (2, 0));
}

/// The end of a lease is signalled even if the loop does nothing.
#[tokio::test]
async fn the_end_of_a_lease_is_told_in_time_even_if_nobody_looks() {
    let store = Store::new().await;
    let mut a = replica(&store, "a", 2);
    let sent = Instant::now();
    a.round(&[], true).await;
    let (term, other) = (a.term("0").expect("ours"), a.term("1").expect("ours"));
    term.cancelled().await;
    let age = sent.elapsed();
    assert!(age >= DURATION * 4 / 5 && age < DURATION, "{age:?}");
    timeout(DURATION / 5, other.cancelled()).await.expect("at the same time");
    // A renewal that comes too late changes nothing: the partition is given up, and is then free to claim.
    let round = a.round(&[], false).await;
    assert_eq!((round.lost.len(), a.held().len()), (2, 0));
    assert!(a.term("0").is_none());
    assert_eq!(a.round(&[], true).await.gained.len(), 2);
    assert!(!a.term("0").expect("ours again").is_cancelled());
}

#[tokio::test]
async fn a_store_that_hangs_delays_no_fence() {
    let store = Store::new().await;
    let mut a = replica(&store, "a", 1);
    let sent = Instant::now();
    a.round(&[], true).await;
    let term = a.term("0").expect("ours");
    tokio::time::sleep(DURATION / 6).await; // until a renewal is due
    store.hangs.store(true, Ordering::Relaxed);
    let looking = tokio::spawn(async move {
        while !a.held().is_empty() {
            a.round(&[], true).await;
        }
    });
    term.cancelled().await;
    assert!(sent.elapsed() < DURATION, "{:?}", sent.elapsed());
    timeout(DURATION * 5, looking).await.expect("seen by the next check").expect("no panic");
}

#[tokio::test]
async fn renewals_move_the_end_of_a_lease() {
    let store = Store::new().await;
    let mut a = replica(&store, "a", 1);
    a.round(&[], true).await;
    let term = a.term("0").expect("ours");
    let until = Instant::now() + DURATION * 2;
    while Instant::now() < until {
        a.round(&[], true).await;
        tokio::time::sleep(DURATION / 24).await;
    }
    assert!(!term.is_cancelled());
}

#[tokio::test]
async fn a_partition_that_somebody_took_is_lost_in_the_next_round() {
    let store = Store::new().await;
    let (mut a, mut b) = (replica(&store, "a", 4), replica(&store, "b", 4));
    a.round(&[], true).await;
    let taken = b.round(&[], true).await.gained;
    assert_eq!(taken.len(), 1, "a new replica takes one partition");
    assert_eq!(a.round(&[], true).await.lost, taken);
}

#[tokio::test]
async fn a_renewal_whose_answer_is_lost_keeps_the_lease() {
    let store = Store::new().await;
    let mut a = replica(&store, "a", 1);
    a.round(&[], true).await;
    tokio::time::sleep(DURATION / 6).await; // until a renewal is due
    store.loses_answers.store(true, Ordering::Relaxed);
    a.round(&[], true).await;
    store.loses_answers.store(false, Ordering::Relaxed);
    let until = Instant::now() + DURATION * 2;
    while Instant::now() < until {
        assert_eq!(a.round(&[], true).await.lost, Vec::<String>::new());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(a.held(), ["0"]);
}

#[tokio::test]
async fn added_partitions_are_shared_and_reported_to_replicas_that_do_not_know_them() {
    let store = Store::new().await;
    let (mut a, mut b) = (replica(&store, "a", 2), replica(&store, "b", 2));
    rounds(&mut [&mut a, &mut b], "shares", |held| shares(held) == [1, 1]).await;
    let new = ["2".to_owned(), "3".to_owned()];
    a.add(&new);
    a.add(&new); // adding once is enough
    assert_eq!(a.round(&[], true).await.gained.len(), 1, "its share of the new partitions");
    let heard = b.round(&[], true).await;
    assert_eq!(heard.unknown.len(), 1, "{heard:?}");
    assert!(heard.gained.is_empty() && new.contains(&heard.unknown[0]), "{heard:?}");
    b.add(&new);
    rounds(&mut [&mut a, &mut b], "shares of all", |held| shares(held) == [2, 2]).await;
    assert!(b.round(&[], true).await.unknown.is_empty());
}
