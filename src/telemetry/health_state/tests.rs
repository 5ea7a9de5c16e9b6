use tokio::time::sleep;

use super::*;
use crate::{domain::id::SequenceNumber, telemetry::PartitionMetrics};

fn partition() -> PartitionId {
    PartitionId { stream: "twins".into(), partition: "0".into() }
}

#[test]
fn the_states_of_components_decide_the_report() {
    let health = HealthState::new();
    assert_eq!(health.report().ready.reasons, ["starting"]);
    health.set_phase(Phase::Running);
    health.set_partition(&partition(), PartitionState::Receiving);
    health.set_store(StoreState::Reachable);
    assert!(health.report().ready.is_yes());
    health.remove_partition(&partition());
    assert!(health.report().ready.is_yes(), "a replica without partitions is ready");
}

#[test]
fn only_a_change_of_the_store_is_news() {
    let health = HealthState::new();
    let unreachable = |reason: &str| StoreState::Unreachable { reason: reason.into() };
    assert!(health.set_store(StoreState::Reachable));
    assert!(!health.set_store(StoreState::Reachable));
    assert!(health.set_store(unreachable("503")));
    assert!(!health.set_store(unreachable("429")));
}

#[test]
fn a_loop_is_known_while_it_lives_and_its_beat_counts() {
    let health = HealthState::new();
    let heartbeat = health.heartbeat("lanes", Duration::ZERO);
    heartbeat.last.store(0, Ordering::Relaxed);
    while health.now() == 0 {
        std::hint::spin_loop();
    }
    assert!(!health.report().live.is_yes());
    heartbeat.beat();
    let pulse = health.facts().loops["lanes"];
    assert!(pulse.silent_for < Duration::from_secs(5), "{pulse:?}");
    drop(heartbeat);
    assert!(health.report().live.is_yes());
}

#[test]
fn a_replaced_loop_does_not_take_its_successor_along() {
    let health = HealthState::new();
    let first = health.heartbeat("lanes", Duration::from_secs(1));
    let _second = health.heartbeat("lanes", Duration::from_secs(2));
    drop(first);
    assert_eq!(health.facts().loops["lanes"].limit, Duration::from_secs(2));
}

/// A partition whose oldest event has been incomplete for this long.
struct Waiting(PartitionMetrics, Option<Duration>);

impl Watched for Waiting {
    fn metrics(&self) -> &PartitionMetrics {
        &self.0
    }

    fn oldest_incomplete(&self) -> Option<(SequenceNumber, Duration)> {
        self.1.map(|age| (SequenceNumber(7), age))
    }
}

fn watch(health: &HealthState, age: Option<Duration>) -> Arc<Waiting> {
    let waiting = Arc::new(Waiting(PartitionMetrics::default(), age));
    let watched: Arc<dyn Watched> = Arc::clone(&waiting) as _;
    health.watch_partition(&partition(), Arc::downgrade(&watched));
    waiting
}

fn has(health: &HealthState, line: &str) -> bool {
    health.render().lines().any(|found| found == line)
}

#[test]
fn ages_are_as_of_now_and_a_blocked_partition_is_told() {
    let health = HealthState::new();
    health.set_phase(Phase::Running);
    health.set_partition(&partition(), PartitionState::Receiving);
    health.set_store(StoreState::Reachable);
    let waiting = watch(&health, Some(Duration::from_secs(90)));
    assert!(has(
        &health,
        "twinsync_oldest_incomplete_event_age_seconds{stream=\"twins\",partition=\"0\"} 90"
    ));
    assert!(has(&health, "twinsync_checkpoint_age_seconds{stream=\"twins\",partition=\"0\"} 90"));
    assert!(has(&health, "twinsync_partition_up{stream=\"twins\",partition=\"0\"} 1"), "{}", health.render());
    assert!(has(&health, "twinsync_ready 0") && has(&health, "twinsync_store_up 1"));
    assert!(health.report().ready.reasons[0].contains("its event 7"), "{:?}", health.report());
    waiting.metrics().set_lag(9);
    assert!(has(&health, "twinsync_lag_events{stream=\"twins\",partition=\"0\"} 9"));
    let _nothing_waits = watch(&health, None);
    assert!(has(&health, "twinsync_oldest_incomplete_event_age_seconds{stream=\"twins\",partition=\"0\"} 0"));
    assert!(has(&health, "twinsync_ready 1"));
}

#[test]
fn a_waiting_event_reduces_the_time_to_loss() {
    let health = HealthState::with_limits(BLOCKED_AFTER, Duration::from_secs(3600));
    assert!(has(&health, "twinsync_retention_seconds 3600"));
    let waiting = watch(&health, Some(Duration::from_secs(600)));
    let left = "twinsync_time_to_loss_seconds{stream=\"twins\",partition=\"0\"}";
    assert!(!health.render().contains(left), "without a measurement there is no time left");
    waiting.metrics().set_lag(0);
    assert!(has(&health, &format!("{left} 3000")), "{}", health.render());
    let waiting = watch(&health, Some(Duration::from_secs(7200)));
    waiting.metrics().set_lag(1);
    assert!(has(&health, &format!("{left} 0")), "the time left must not be negative");
}

#[test]
fn a_partition_that_is_given_up_takes_its_figures_along() {
    let health = HealthState::new();
    health.set_partition(&partition(), PartitionState::Receiving);
    let waiting = watch(&health, Some(Duration::from_secs(90)));
    waiting.metrics().set_lag(47);
    health.remove_partition(&partition());
    assert!(!health.render().contains("partition=\"0\""), "{}", health.render());
    let waiting = watch(&health, Some(Duration::from_secs(90)));
    drop(waiting);
    assert!(!health.render().contains("partition=\"0\""), "the partition was given up");
}

#[test]
fn a_single_failure_of_a_dependency_is_no_outage_and_two_in_a_row_are() {
    let health = HealthState::new();
    health.set_phase(Phase::Running);
    health.set_store(StoreState::Reachable);
    let fails = || health.is_down(Dependency::Leases, Failure::Silent, "timeout");
    for _ in 0..3 {
        assert!(!fails(), "a single failure must not be reported");
        assert!(health.report().ready.is_yes(), "{:?}", health.report());
        assert!(!has(&health, "twinsync_checkpoint_store_up 0"));
        assert_eq!(
            health.is_up(Dependency::Leases),
            None,
            "the end of a single failure must not be reported"
        );
    }
    fails();
    assert!(fails(), "an outage must be reported once");
    assert!(!fails());
    assert!(!health.report().ready.is_yes() && has(&health, "twinsync_checkpoint_store_up 0"));
    health.is_up(Dependency::Checkpoints);
    assert!(
        has(&health, "twinsync_checkpoint_store_up 0"),
        "an answer about checkpoints is no answer about leases"
    );
    assert!(health.is_up(Dependency::Leases).is_some());
    assert!(health.report().ready.is_yes() && has(&health, "twinsync_checkpoint_store_up 1"));
}

#[test]
fn a_throttling_dependency_is_up_until_it_stops_answering() {
    let health = HealthState::new();
    health.set_phase(Phase::Running);
    health.set_store(StoreState::Reachable);
    let fails = |failure| health.is_down(Dependency::DeadLetters, failure, "503");
    assert_eq!([fails(Failure::Throttled), fails(Failure::Throttled)], [false, true]);
    assert!(has(&health, "twinsync_dead_letter_store_up 1"));
    assert!(health.report().ready.is_yes() && health.report().warnings.len() == 1, "{:?}", health.report());
    assert!(fails(Failure::Silent));
    assert!(has(&health, "twinsync_dead_letter_store_up 0") && !health.report().ready.is_yes());
}

#[tokio::test(start_paused = true)]
async fn the_time_without_events_counts_from_the_last_receiving_state() {
    let health = HealthState::new();
    let lasts = || health.facts().partitions[&partition()].lasts;
    health.set_partition(&partition(), PartitionState::Connecting);
    let pause = Duration::from_secs(5);
    sleep(pause).await;
    health.set_partition(&partition(), PartitionState::Throttled { reason: "busy".into() });
    assert_eq!(lasts(), pause, "the time must count from the start of the ownership");
    health.set_partition(&partition(), PartitionState::Receiving);
    assert_eq!(lasts(), Duration::ZERO);
    sleep(pause).await;
    health.set_partition(&partition(), PartitionState::Connecting);
    assert_eq!(lasts(), Duration::ZERO, "the time must count from the end of the receiving");
}

#[test]
fn a_dependency_that_is_down_is_told_with_its_reason_and_is_news_once() {
    let health = HealthState::new();
    health.set_phase(Phase::Running);
    health.set_store(StoreState::Reachable);
    let never_asked = ["0", "1"].map(|bit| has(&health, &format!("twinsync_dead_letter_store_up {bit}")));
    assert_eq!(never_asked, [false, false]);
    assert_eq!(health.is_up(Dependency::DeadLetters), None, "the first answer ends no outage");
    assert!(has(&health, "twinsync_dead_letter_store_up 1"));
    health.is_down(Dependency::DeadLetters, Failure::Silent, "no space");
    assert!(health.is_down(Dependency::DeadLetters, Failure::Silent, "no space"));
    assert!(!health.is_down(Dependency::DeadLetters, Failure::Silent, "still no space"));
    assert!(has(&health, "twinsync_dead_letter_store_up 0"));
    assert!(health.report().ready.reasons[0].ends_with("still no space"));
    assert!(health.is_up(Dependency::DeadLetters).is_some());
    health.is_down(Dependency::Registry("a\"b".into()), Failure::Silent, "503");
    assert!(has(&health, "twinsync_registry_up{hub=\"a\\\"b\"} 0"), "{}", health.render());
    let report = health.report();
    assert!(report.ready.is_yes() && report.warnings.len() == 1, "{report:?}");
}

#[test]
fn the_next_try_is_told_for_as_long_as_it_is_needed_and_so_is_who_waits() {
    let health = HealthState::new();
    health.set_phase(Phase::Running);
    health.set_partition(&partition(), PartitionState::Receiving);
    health.set_store(StoreState::Unreachable { reason: "503".into() });
    health.tries_store_again(Duration::from_secs(60));
    health.tries_again(&Dependency::DeadLetters, Duration::from_secs(5));
    for _ in 0..2 {
        health.waits_for_dead_letter(&partition());
        health.is_down(Dependency::DeadLetters, Failure::Silent, "disk full");
        health.tries_again(&Dependency::DeadLetters, Duration::from_secs(60));
    }
    let soon = |next: Option<Duration>| next.is_some_and(|next| next > Duration::from_secs(30));
    let letters = |facts: &Facts| facts.dependencies[&Dependency::DeadLetters].clone();
    let facts = health.facts();
    assert!(
        soon(facts.store_next_try) && soon(letters(&facts).expect("the dead-letter store is down").next_try),
        "{facts:?}"
    );
    assert!(facts.waits_for_dead_letters.contains(&partition()));
    assert!(health.report().obstacles[1].what.starts_with("twins/0 waits"), "{:?}", health.report());
    health.set_store(StoreState::Reachable);
    health.is_up(Dependency::DeadLetters);
    health.set_partition(&partition(), PartitionState::Waiting { reason: "refused".into() });
    health.tries_partition_again(&partition(), Duration::from_secs(60));
    let facts = health.facts();
    assert_eq!((facts.store_next_try, letters(&facts)), (None, None));
    assert!(facts.waits_for_dead_letters.is_empty());
    assert!(soon(facts.partitions[&partition()].next_try), "{facts:?}");
    health.set_partition(&partition(), PartitionState::Connecting);
    assert_eq!(health.facts().partitions[&partition()].next_try, None, "the attempt is under way");
}

#[tokio::test(start_paused = true)]
async fn when_something_was_asked_last_is_known() {
    let health = HealthState::new();
    assert!(health.view().asked.is_empty() && health.view().store_asked.is_none());
    health.set_store(StoreState::Reachable);
    health.is_up(Dependency::Credential);
    let pause = Duration::from_secs(20);
    sleep(pause).await;
    health.is_down(Dependency::Checkpoints, Failure::Silent, "503");
    let asked = health.view().asked;
    assert_eq!((asked[&Dependency::Credential], asked[&Dependency::Checkpoints]), (pause, Duration::ZERO));
    assert!(health.view().store_asked.is_some());
}
