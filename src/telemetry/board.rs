//! Where components post what they know about themselves, and the health endpoints read it.
//!
//! Posting is cheap and never waits for readers. What follows from the facts is decided in [`health::assess`].

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{gauges::render, partition::Watched};
use crate::domain::{
    health::{
        self, Dependency, Facts, Failure, Incomplete, Outage, PartitionState, Phase, Pulse, Report, Standing,
        StoreState,
    },
    id::PartitionId,
};

/// For how long an event may be incomplete before its partition counts as blocked, unless somebody says otherwise.
const BLOCKED_AFTER: Duration = Duration::from_secs(60);

/// Shared state of one daemon. Cheap to clone.
#[derive(Clone)]
pub struct Board(Arc<Inner>);

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board").finish_non_exhaustive()
    }
}

struct Inner {
    /// Heartbeats count from here.
    began: Instant,
    posted: Mutex<Posted>,
    blocked_after: Duration,
}

struct Posted {
    phase: Phase,
    /// Each with the moment since which it has received nothing.
    partitions: BTreeMap<PartitionId, (PartitionState, Instant)>,
    /// Since when each partition's consumer has been doing what it does.
    partitions_since: BTreeMap<PartitionId, Instant>,
    owners: BTreeMap<PartitionId, Option<String>>,
    store: StoreState,
    store_since: Instant,
    loops: BTreeMap<String, Loop>,
    dependencies: BTreeMap<Dependency, Option<Down>>,
    watched: BTreeMap<PartitionId, Weak<dyn Watched>>,
}

/// Failures in a row, which may be too few for an outage.
#[derive(Debug)]
struct Down {
    failures: u32,
    failure: Failure,
    reason: String,
    since: Instant,
}

impl Down {
    /// Whether it is an outage. At start, whatever is waited for is one.
    fn counts(&self, dependency: &Dependency, phase: Phase) -> bool {
        phase == Phase::Starting || self.failures >= dependency.patience()
    }
}

#[derive(Debug)]
struct Loop {
    last: Arc<AtomicU64>,
    limit: Duration,
}

/// What is on the board at one moment.
pub struct View {
    /// The facts.
    pub facts: Facts,
    /// What follows from them.
    pub report: Report,
    /// What each partition that is ours can be asked.
    pub watched: Vec<(PartitionId, Arc<dyn Watched>)>,
    /// Who owns the partitions, as the shared leases say.
    pub owners: BTreeMap<PartitionId, Option<String>>,
    /// For how long each partition's consumer has been doing what it does.
    pub waiting_for: BTreeMap<PartitionId, Duration>,
    /// For how long the document store has been as it is.
    pub store_for: Duration,
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
        Self::with_limit(BLOCKED_AFTER)
    }

    /// The same, where a partition counts as blocked when an event has been incomplete for longer than `blocked_after`.
    pub fn with_limit(blocked_after: Duration) -> Self {
        Self(Arc::new(Inner {
            blocked_after,
            began: Instant::now(),
            posted: Mutex::new(Posted {
                phase: Phase::Starting,
                partitions: BTreeMap::new(),
                partitions_since: BTreeMap::new(),
                owners: BTreeMap::new(),
                store: StoreState::Unknown,
                store_since: Instant::now(),
                loops: BTreeMap::new(),
                dependencies: BTreeMap::new(),
                watched: BTreeMap::new(),
            }),
        }))
    }

    /// Posts where the process is in its life.
    pub fn set_phase(&self, phase: Phase) {
        self.post(|posted| posted.phase = phase);
    }

    /// Posts what a partition's consumer is doing.
    pub fn set_partition(&self, partition: &PartitionId, state: PartitionState) {
        self.post(|posted| {
            let kind = std::mem::discriminant(&state);
            let before = posted.partitions.get(partition);
            if before.is_none_or(|(before, _)| std::mem::discriminant(before) != kind) {
                posted.partitions_since.insert(partition.clone(), Instant::now());
            }
            let silent_since = match before {
                Some((before, since)) if *before != PartitionState::Receiving => *since,
                Some(_) | None => Instant::now(),
            };
            posted.partitions.insert(partition.clone(), (state, silent_since));
        });
    }

    /// Posts who owns the partitions of a stream, as the shared leases say; `None`: nobody.
    pub fn set_owners(&self, stream: &str, owners: impl IntoIterator<Item = (String, Option<String>)>) {
        self.post(|posted| {
            posted.owners.retain(|id, _| id.stream != stream);
            let owners = owners
                .into_iter()
                .map(|(partition, owner)| (PartitionId { stream: stream.to_owned(), partition }, owner));
            posted.owners.extend(owners);
        });
    }

    /// Shows the figures of a partition that is ours, for as long as `watched` lives or until it is taken off.
    pub fn watch_partition(&self, partition: &PartitionId, watched: Weak<dyn Watched>) {
        self.post(|posted| posted.watched.insert(partition.clone(), watched));
    }

    /// Takes a partition off the board that is no longer ours, with all its figures.
    pub fn remove_partition(&self, partition: &PartitionId) {
        self.post(|posted| {
            posted.partitions.remove(partition);
            posted.partitions_since.remove(partition);
            posted.watched.remove(partition);
        });
    }

    /// Posts that a dependency answers. Says how long the outage was that this ends, for those who log changes.
    pub fn is_up(&self, dependency: Dependency) -> Option<Duration> {
        let (before, phase) =
            self.post(|posted| (posted.dependencies.insert(dependency.clone(), None), posted.phase));
        before.flatten().filter(|down| down.counts(&dependency, phase)).map(|down| down.since.elapsed())
    }

    /// Posts that a dependency failed, how, and why, in one line without secrets. With [`Dependency::patience`] failures
    /// in a row it is out of order; returns whether that is news.
    pub fn is_down(&self, dependency: Dependency, failure: Failure, reason: &str) -> bool {
        self.post(|posted| {
            let phase = posted.phase;
            let entry = posted.dependencies.entry(dependency.clone()).or_default();
            let before =
                entry.as_ref().is_some_and(|down| down.counts(&dependency, phase) && down.failure == failure);
            let (failures, since) =
                entry.as_ref().map_or_else(|| (0, Instant::now()), |down| (down.failures, down.since));
            let down =
                Down { failures: failures.saturating_add(1), failure, reason: reason.to_owned(), since };
            let counts = down.counts(&dependency, phase);
            *entry = Some(down);
            counts && !before
        })
    }

    /// What is asked of each partition that is ours.
    fn watched(&self) -> Vec<(PartitionId, Arc<dyn Watched>)> {
        // Asked outside of the lock: whoever answers may post.
        self.post(|posted| {
            posted.watched.retain(|_, watched| watched.strong_count() > 0);
            let alive =
                posted.watched.iter().filter_map(|(id, watched)| Some((id.clone(), watched.upgrade()?)));
            alive.collect()
        })
    }

    /// Posts whether the store answers. Returns whether that is news, for those who log changes.
    pub fn set_store(&self, state: StoreState) -> bool {
        self.post(|posted| {
            let news = std::mem::discriminant(&posted.store) != std::mem::discriminant(&state);
            posted.store = state;
            if news {
                posted.store_since = Instant::now();
            }
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
        let incomplete = self.watched().into_iter().filter_map(|(id, watched)| {
            let (sequence_number, age) = watched.oldest_incomplete()?;
            Some((id, Incomplete { sequence_number, age }))
        });
        let incomplete = incomplete.collect();
        self.post(|posted| Facts {
            incomplete,
            blocked_after: self.0.blocked_after,
            dependencies: posted
                .dependencies
                .iter()
                .map(|(dependency, down)| {
                    let outage = down.as_ref().filter(|down| down.counts(dependency, posted.phase));
                    let outage = outage.map(|down| Outage {
                        failure: down.failure,
                        reason: down.reason.clone(),
                        lasts: down.since.elapsed(),
                    });
                    (dependency.clone(), outage)
                })
                .collect(),
            phase: posted.phase,
            partitions: posted
                .partitions
                .iter()
                .map(|(id, (state, since))| {
                    let lasts = match state {
                        PartitionState::Receiving => Duration::ZERO,
                        _ => since.elapsed(),
                    };
                    (id.clone(), Standing { state: state.clone(), lasts })
                })
                .collect(),
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

    /// Everything on the board, with what follows from it, as of now.
    pub fn view(&self) -> View {
        let (facts, watched) = (self.facts(), self.watched());
        self.post(|posted| View {
            report: health::assess(&facts),
            watched,
            owners: posted.owners.clone(),
            waiting_for: posted
                .partitions_since
                .iter()
                .map(|(id, since)| (id.clone(), since.elapsed()))
                .collect(),
            store_for: posted.store_since.elapsed(),
            facts,
        })
    }

    /// Gauges of what is on the board, as of now, in Prometheus' text format.
    pub fn render(&self) -> String {
        render(&self.facts(), &self.watched())
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
    use crate::{domain::id::SequenceNumber, telemetry::PartitionMetrics};

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

    /// A partition whose oldest event has been incomplete for so long.
    struct Waiting(PartitionMetrics, Option<Duration>);

    impl Watched for Waiting {
        fn metrics(&self) -> &PartitionMetrics {
            &self.0
        }

        fn oldest_incomplete(&self) -> Option<(SequenceNumber, Duration)> {
            self.1.map(|age| (SequenceNumber(7), age))
        }
    }

    fn watch(board: &Board, age: Option<Duration>) -> Arc<Waiting> {
        let waiting = Arc::new(Waiting(PartitionMetrics::default(), age));
        let watched: Arc<dyn Watched> = Arc::clone(&waiting) as _;
        board.watch_partition(&partition(), Arc::downgrade(&watched));
        waiting
    }

    fn has(board: &Board, line: &str) -> bool {
        board.render().lines().any(|found| found == line)
    }

    #[test]
    fn ages_are_as_of_now_and_a_blocked_partition_is_told() {
        let board = Board::new();
        board.set_phase(Phase::Running);
        board.set_partition(&partition(), PartitionState::Receiving);
        board.set_store(StoreState::Reachable);
        let waiting = watch(&board, Some(Duration::from_secs(90)));
        assert!(has(
            &board,
            "twinsync_oldest_incomplete_event_age_seconds{stream=\"twins\",partition=\"0\"} 90"
        ));
        assert!(has(&board, "twinsync_checkpoint_age_seconds{stream=\"twins\",partition=\"0\"} 90"));
        assert!(
            has(&board, "twinsync_partition_up{stream=\"twins\",partition=\"0\"} 1"),
            "{}",
            board.render()
        );
        assert!(has(&board, "twinsync_ready 0") && has(&board, "twinsync_store_up 1"));
        assert!(board.report().ready.reasons[0].contains("its event 7"), "{:?}", board.report());
        waiting.metrics().set_lag(9);
        assert!(has(&board, "twinsync_lag_events{stream=\"twins\",partition=\"0\"} 9"));
        let _nothing_waits = watch(&board, None);
        assert!(has(
            &board,
            "twinsync_oldest_incomplete_event_age_seconds{stream=\"twins\",partition=\"0\"} 0"
        ));
        assert!(has(&board, "twinsync_ready 1"));
    }

    #[test]
    fn a_partition_that_is_given_up_takes_its_figures_along() {
        let board = Board::new();
        board.set_partition(&partition(), PartitionState::Receiving);
        let waiting = watch(&board, Some(Duration::from_secs(90)));
        waiting.metrics().set_lag(47);
        board.remove_partition(&partition());
        assert!(!board.render().contains("partition=\"0\""), "{}", board.render());
        let waiting = watch(&board, Some(Duration::from_secs(90)));
        drop(waiting);
        assert!(!board.render().contains("partition=\"0\""), "nobody works on it any more");
    }

    #[test]
    fn a_single_failure_of_a_dependency_is_no_outage_and_two_in_a_row_are() {
        let board = Board::new();
        board.set_phase(Phase::Running);
        board.set_store(StoreState::Reachable);
        let fails = || board.is_down(Dependency::Leases, Failure::Silent, "timeout");
        for _ in 0..3 {
            assert!(!fails(), "one in between is no news");
            assert!(board.report().ready.is_yes(), "{:?}", board.report());
            assert!(!has(&board, "twinsync_checkpoint_store_up 0"));
            assert_eq!(board.is_up(Dependency::Leases), None, "nor is its end");
        }
        fails();
        assert!(fails(), "told once");
        assert!(!fails());
        assert!(!board.report().ready.is_yes() && has(&board, "twinsync_checkpoint_store_up 0"));
        board.is_up(Dependency::Checkpoints);
        assert!(has(&board, "twinsync_checkpoint_store_up 0"), "what answers one answers not the other");
        assert!(board.is_up(Dependency::Leases).is_some());
        assert!(board.report().ready.is_yes() && has(&board, "twinsync_checkpoint_store_up 1"));
    }

    #[test]
    fn who_throttles_is_there_and_its_falling_silent_is_news() {
        let board = Board::new();
        board.set_phase(Phase::Running);
        board.set_store(StoreState::Reachable);
        let fails = |failure| board.is_down(Dependency::DeadLetters, failure, "503");
        assert_eq!([fails(Failure::Throttled), fails(Failure::Throttled)], [false, true]);
        assert!(has(&board, "twinsync_dead_letter_store_up 1"));
        assert!(board.report().ready.is_yes() && board.report().warnings.len() == 1, "{:?}", board.report());
        assert!(fails(Failure::Silent));
        assert!(has(&board, "twinsync_dead_letter_store_up 0") && !board.report().ready.is_yes());
    }

    #[test]
    fn a_partition_is_as_long_without_events_as_it_has_not_received() {
        let board = Board::new();
        let lasts = || board.facts().partitions[&partition()].lasts;
        board.set_partition(&partition(), PartitionState::Connecting);
        let pause = Duration::from_millis(5);
        std::thread::sleep(pause);
        board.set_partition(&partition(), PartitionState::Throttled { reason: "busy".into() });
        assert!(lasts() >= pause, "since it was ours");
        board.set_partition(&partition(), PartitionState::Receiving);
        assert_eq!(lasts(), Duration::ZERO);
        std::thread::sleep(pause);
        board.set_partition(&partition(), PartitionState::Connecting);
        assert!(lasts() < pause, "since it stopped receiving");
    }

    #[test]
    fn a_dependency_that_is_down_is_told_with_its_reason_and_is_news_once() {
        let board = Board::new();
        board.set_phase(Phase::Running);
        board.set_store(StoreState::Reachable);
        let never_asked = ["0", "1"].map(|bit| has(&board, &format!("twinsync_dead_letter_store_up {bit}")));
        assert_eq!(never_asked, [false, false]);
        assert_eq!(board.is_up(Dependency::DeadLetters), None, "as expected");
        assert!(has(&board, "twinsync_dead_letter_store_up 1"));
        board.is_down(Dependency::DeadLetters, Failure::Silent, "no space");
        assert!(board.is_down(Dependency::DeadLetters, Failure::Silent, "no space"));
        assert!(!board.is_down(Dependency::DeadLetters, Failure::Silent, "still no space"));
        assert!(has(&board, "twinsync_dead_letter_store_up 0"));
        assert!(board.report().ready.reasons[0].ends_with("still no space"));
        assert!(board.is_up(Dependency::DeadLetters).is_some());
        board.is_down(Dependency::Registry("a\"b".into()), Failure::Silent, "503");
        assert!(has(&board, "twinsync_registry_up{hub=\"a\\\"b\"} 0"), "{}", board.render());
        let report = board.report();
        assert!(report.ready.is_yes() && report.warnings.len() == 1, "{report:?}");
    }
}
