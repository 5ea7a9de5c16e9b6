//! Where components post what they know about themselves, and the health endpoints read it.
//!
//! Posting is cheap and never waits for readers. What follows from the facts is decided in [`health::assess`].

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::domain::{
    health::{self, Facts, PartitionState, Phase, Pulse, Report, StoreState},
    id::PartitionId,
};

/// Shared state of one daemon. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Board(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Heartbeats count from here.
    began: Instant,
    posted: Mutex<Posted>,
}

#[derive(Debug)]
struct Posted {
    phase: Phase,
    partitions: BTreeMap<PartitionId, PartitionState>,
    store: StoreState,
    loops: BTreeMap<String, Loop>,
}

#[derive(Debug)]
struct Loop {
    last: Arc<AtomicU64>,
    limit: Duration,
}

/// The pulse of one loop: call [`Heartbeat::beat`] each time round, also when idle. Dropping it takes the loop off
/// the board.
#[derive(Debug)]
pub struct Heartbeat {
    board: Board,
    name: String,
    last: Arc<AtomicU64>,
}

impl Default for Board {
    fn default() -> Self {
        Self::new()
    }
}

impl Board {
    /// An empty board of a process that is starting.
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            began: Instant::now(),
            posted: Mutex::new(Posted {
                phase: Phase::Starting,
                partitions: BTreeMap::new(),
                store: StoreState::Unknown,
                loops: BTreeMap::new(),
            }),
        }))
    }

    /// Posts where the process is in its life.
    pub fn set_phase(&self, phase: Phase) {
        self.post(|posted| posted.phase = phase);
    }

    /// Posts what a partition's consumer is doing.
    pub fn set_partition(&self, partition: &PartitionId, state: PartitionState) {
        self.post(|posted| posted.partitions.insert(partition.clone(), state));
    }

    /// Takes a partition off the board that is no longer ours.
    pub fn remove_partition(&self, partition: &PartitionId) {
        self.post(|posted| posted.partitions.remove(partition));
    }

    /// Posts whether the store answers. Returns whether that is news, for those who log changes.
    pub fn set_store(&self, state: StoreState) -> bool {
        self.post(|posted| {
            let news = std::mem::discriminant(&posted.store) != std::mem::discriminant(&state);
            posted.store = state;
            news
        })
    }

    /// Puts a loop on the board that must turn at least once per `limit`. Names are unique; a second one of the
    /// same name replaces the first.
    pub fn heartbeat(&self, name: &str, limit: Duration) -> Heartbeat {
        let last = Arc::new(AtomicU64::new(self.now()));
        let entry = Loop { last: Arc::clone(&last), limit };
        self.post(|posted| posted.loops.insert(name.to_owned(), entry));
        Heartbeat { board: self.clone(), name: name.to_owned(), last }
    }

    /// Everything on the board.
    pub fn facts(&self) -> Facts {
        let now = self.now();
        self.post(|posted| Facts {
            phase: posted.phase,
            partitions: posted.partitions.clone(),
            store: posted.store.clone(),
            loops: posted
                .loops
                .iter()
                .map(|(name, turning)| {
                    let last = turning.last.load(Ordering::Relaxed);
                    let silent_for = Duration::from_millis(now.saturating_sub(last));
                    (name.clone(), Pulse { silent_for, limit: turning.limit })
                })
                .collect(),
        })
    }

    /// What follows from it.
    pub fn report(&self) -> Report {
        health::assess(&self.facts())
    }

    fn post<T>(&self, change: impl FnOnce(&mut Posted) -> T) -> T {
        // Each change is a whole one, so there is nothing half-done to distrust after a panic.
        change(&mut self.0.posted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Milliseconds since the board began.
    fn now(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Heartbeat {
    /// The loop has come round.
    pub fn beat(&self) {
        self.last.store(self.board.now(), Ordering::Relaxed);
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.board.post(|posted| {
            if posted.loops.get(&self.name).is_some_and(|turning| Arc::ptr_eq(&turning.last, &self.last)) {
                posted.loops.remove(&self.name);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition() -> PartitionId {
        PartitionId { stream: "twins".into(), partition: "0".into() }
    }

    #[test]
    fn what_components_post_decides_the_report() {
        let board = Board::new();
        assert_eq!(board.report().ready.reasons, ["starting"]);
        board.set_phase(Phase::Running);
        board.set_partition(&partition(), PartitionState::Receiving);
        board.set_store(StoreState::Reachable);
        assert!(board.report().ready.is_yes());
        board.remove_partition(&partition());
        assert!(board.report().ready.is_yes(), "it stands by");
    }

    #[test]
    fn only_a_change_of_the_store_is_news() {
        let board = Board::new();
        let unreachable = |reason: &str| StoreState::Unreachable { reason: reason.into() };
        assert!(board.set_store(StoreState::Reachable));
        assert!(!board.set_store(StoreState::Reachable));
        assert!(board.set_store(unreachable("503")));
        assert!(!board.set_store(unreachable("429")));
    }

    #[test]
    fn a_loop_is_on_the_board_while_it_lives_and_its_beat_counts() {
        let board = Board::new();
        let heartbeat = board.heartbeat("lanes", Duration::ZERO);
        heartbeat.last.store(0, Ordering::Relaxed);
        while board.now() == 0 {
            std::hint::spin_loop();
        }
        assert!(!board.report().live.is_yes());
        heartbeat.beat();
        let pulse = board.facts().loops["lanes"];
        assert!(pulse.silent_for < Duration::from_secs(5), "{pulse:?}");
        drop(heartbeat);
        assert!(board.report().live.is_yes());
    }

    #[test]
    fn a_replaced_loop_does_not_take_its_successor_along() {
        let board = Board::new();
        let first = board.heartbeat("lanes", Duration::from_secs(1));
        let _second = board.heartbeat("lanes", Duration::from_secs(2));
        drop(first);
        assert_eq!(board.facts().loops["lanes"].limit, Duration::from_secs(2));
    }
}
