//! Flags are cleared by events, are repaired once, survive failures, and are found again.

use crate::runtime::watch;
use serde_json::json;

use super::{
    super::testing::{Bench, created, device, updated},
    *,
};

const OPTIONS: Options = Options { concurrency: 4, scan_interval: Duration::from_secs(600) };

struct Running {
    bench: Bench,
    repair_queue: RepairQueue,
    leads: watch::Sender<bool>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    fn start(bench: Bench, leads: bool) -> Self {
        let repair_queue = RepairQueue::about(["h"], true);
        let (leads, led) = watch::channel(leads);
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(
            Arc::clone(&bench.reconciler),
            repair_queue.clone(),
            OPTIONS,
            led,
            stop.clone(),
        ));
        Self { bench, repair_queue, leads, stop, task }
    }

    /// Waits until no twin waits for a repair.
    async fn quiet(&self) {
        while !self.repair_queue.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("no panic");
    }
}

/// A document with a gap, and the twin as the hub has it.
fn flagged_twin(bench: &Bench, id: &str) -> TwinKey {
    let key = device(id);
    bench.event(&key, created(2, json!({})));
    bench.pass(1);
    bench.event(&key, updated(5, json!({"late": true})));
    bench.registry.set(&key, 5, json!({"early": true, "late": true}));
    bench.pass(1);
    key
}

#[tokio::test(start_paused = true)]
async fn a_flag_is_repaired_after_its_grace_and_asked_about_once() {
    let running = Running::start(Bench::new(), false);
    let key = flagged_twin(&running.bench, "d");
    for _ in 0..20 {
        running.repair_queue.raise(&key);
    }
    assert_eq!(running.repair_queue.len(), 1);
    tokio::time::sleep(GRACE - Duration::from_millis(100)).await;
    assert!(running.bench.registry.asked().is_empty(), "an event may still clear the flag");
    running.quiet().await;
    assert_eq!(running.bench.registry.asked(), std::slice::from_ref(&key));
    assert_eq!(running.bench.says(&key), Some((5, json!({"early": true, "late": true}))));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_flag_that_an_event_clears_in_time_costs_no_call() {
    let running = Running::start(Bench::new(), false);
    let key = device("d");
    running.bench.event(&key, updated(3, json!({"a": 1})));
    running.repair_queue.raise(&key);
    // The create event arrived soon after, on the other stream.
    let earlier = crate::domain::ticks::Ticks::new(running.bench.reconciler.now().get() - 5);
    super::super::testing::stream(&running.bench.store, &key, earlier, created(2, json!({})));
    running.quiet().await;
    assert!(running.bench.registry.asked().is_empty());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_flag_raised_during_its_repair_is_repaired_again() {
    let bench = Bench::new();
    let running = Running::start(bench, false);
    let key = flagged_twin(&running.bench, "d");
    let (repair_queue, store, clock) =
        (running.repair_queue.clone(), Arc::clone(&running.bench.store), Arc::clone(&running.bench.clock));
    let registry = Arc::clone(&running.bench.registry);
    let mut first = true;
    running.bench.registry.on_get(move |key| {
        if std::mem::take(&mut first) {
            // Right after the answer, the hub's twin changes and that event is lost. The stream delivers the next one.
            clock.pass(Duration::from_secs(1));
            registry.set(key, 9, json!({"newest": true}));
            super::super::testing::stream(
                &store,
                key,
                crate::ports::Clock::now(&*clock),
                updated(9, json!({"newest": true})),
            );
            repair_queue.raise(key);
        }
    });
    running.repair_queue.raise(&key);
    running.quiet().await;
    assert_eq!(running.bench.says(&key), Some((9, json!({"newest": true}))));
    running.stop().await;
}

/// Between the last read of a repair and its end, another event may have set a flag.
#[tokio::test(start_paused = true)]
async fn a_flag_raised_at_the_end_of_a_repair_is_not_lost() {
    let repair_queue = RepairQueue::about(["h"], true);
    let shared = repair_queue.0.clone().expect("a queue for this hub");
    let key = device("d");
    repair_queue.raise(&key);
    let due = Instant::now() + GRACE;
    assert_eq!(shared.lock().next(due), Ok((key.clone(), REPAIR, 0)));
    repair_queue.raise(&key);
    shared.lock().done(&key, GRACE);
    assert_eq!(repair_queue.len(), 1, "the twin must be queued again");
    assert_eq!(shared.lock().next(due + GRACE), Ok((key.clone(), REPAIR, 0)));
    shared.lock().done(&key, GRACE);
    assert!(repair_queue.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_failed_repair_is_repeated_for_each_twin() {
    let running = Running::start(Bench::new(), false);
    let (one, other) = (flagged_twin(&running.bench, "one"), flagged_twin(&running.bench, "other"));
    *running.bench.registry.silent.lock().unwrap() = true;
    running.repair_queue.raise(&one);
    running.repair_queue.raise(&other);
    tokio::time::sleep(Duration::from_secs(300)).await;
    let asked = running.bench.registry.asked().len();
    assert!((8..120).contains(&asked), "the repair must be repeated with pauses: {asked}");
    assert_eq!(running.repair_queue.len(), 2);
    *running.bench.registry.silent.lock().unwrap() = false;
    running.quiet().await;
    for key in [&one, &other] {
        assert!(!running.bench.document(key).expect("a document").is_flagged());
    }
    running.stop().await;
}

/// The answer cannot be used, today or tomorrow.
#[tokio::test(start_paused = true)]
async fn the_repair_of_a_twin_without_a_usable_answer_ends_and_it_stays_flagged() {
    let running = Running::start(Bench::new(), true);
    let (odd, other) = (flagged_twin(&running.bench, "odd"), flagged_twin(&running.bench, "other"));
    running.bench.registry.mute.lock().unwrap().insert(odd.clone());
    running.repair_queue.raise(&odd);
    running.repair_queue.raise(&other);
    running.quiet().await;
    let asked = || running.bench.registry.asked().iter().filter(|key| **key == odd).count();
    let before = asked();
    assert!((8..20).contains(&before), "the repair must be repeated with pauses and end: {before}");
    let text = running.bench.metrics.render();
    assert!(text.contains("twinsync_repairs_given_up_total 1"), "{text}");
    assert!(running.bench.document(&odd).expect("a document").is_flagged());
    assert!(!running.bench.document(&other).expect("a document").is_flagged());
    // The scan finds it again, once the answer can be used.
    running.bench.registry.mute.lock().unwrap().clear();
    let started = Instant::now();
    while running.bench.document(&odd).expect("a document").is_flagged() {
        assert!(started.elapsed() < OPTIONS.scan_interval * 2);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn flags_of_hubs_without_a_registry_are_not_queued() {
    let repair_queue = RepairQueue::about(["h"], true);
    repair_queue.raise(&TwinKey::device("elsewhere", "d"));
    repair_queue.raise(&TwinKey::device("H", "d"));
    assert_eq!(repair_queue.len(), 1);
    let nobodys = RepairQueue::about(Vec::<String>::new(), true);
    nobodys.raise(&device("d"));
    assert!(nobodys.is_empty());
}

#[tokio::test(start_paused = true)]
async fn only_the_leader_scans_for_flags_from_before_a_restart() {
    let bench = Bench::new();
    let key = flagged_twin(&bench, "forgotten");
    let running = Running::start(bench, false);
    tokio::time::sleep(OPTIONS.scan_interval * 3).await;
    assert!(running.bench.document(&key).expect("a document").is_flagged());
    // The first scan fails. The next one finds it.
    *running.bench.store.broken_scans.lock().unwrap() = 1;
    running.leads.send_replace(true);
    let started = Instant::now();
    while running.bench.document(&key).expect("a document").is_flagged() {
        assert!(
            started.elapsed() < OPTIONS.scan_interval,
            "a failed scan must be repeated before the next scheduled one"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded_and_the_rest_is_found_by_the_scan() {
    let bench = Bench::new();
    let late = flagged_twin(&bench, "late");
    let running = Running::start(bench, true);
    // The scan at the start has already found the late one.
    running.quiet().await;
    running.bench.event(&late, updated(99, json!({"changed": "again"})));
    running.bench.registry.set(&late, 99, json!({"whole": true}));
    for number in 0..MOST {
        running.repair_queue.raise(&device(&format!("absent-{number}")));
    }
    running.repair_queue.raise(&late);
    assert_eq!(running.repair_queue.len(), MOST, "the queue must be full");
    let started = Instant::now();
    while running.bench.says(&late) != Some((99, json!({"whole": true}))) {
        assert!(started.elapsed() < OPTIONS.scan_interval, "the scan must run as soon as the queue has room");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_twin_gets_what_no_event_tells_once_and_keeps_nobody_waiting() {
    let running = Running::start(Bench::new(), false);
    let key = device("d");
    running.bench.event(&key, created(2, json!({"a": 1})));
    running.bench.registry.set(&key, 2, json!({"a": 1}));
    running.bench.registry.identity.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(running.bench.document(&key).expect("a document").lacks_identity());
    running.repair_queue.complete(&key);
    assert_eq!(
        (running.repair_queue.len(), running.repair_queue.flagged()),
        (1, 0),
        "no twin may be flagged"
    );
    running.quiet().await;
    let document = running.bench.document(&key).expect("a document");
    assert_eq!(document.twin().expect("a twin").root["status"], "enabled");
    // It has its identity fields: the hub is not asked again.
    running.repair_queue.complete(&key);
    running.quiet().await;
    assert_eq!(running.bench.registry.asked(), std::slice::from_ref(&key));
    running.stop().await;
}

#[test]
fn new_twins_are_left_to_the_audit_where_many_wait_and_a_flag_is_more_than_that() {
    let repair_queue = RepairQueue::about(["h"], true);
    for number in 0..MOST_WITH_NEW + 7 {
        repair_queue.complete(&device(&number.to_string()));
    }
    assert_eq!((repair_queue.len(), repair_queue.flagged()), (MOST_WITH_NEW, 0));
    repair_queue.raise(&device("0"));
    repair_queue.raise(&device("other"));
    assert_eq!((repair_queue.len(), repair_queue.flagged()), (MOST_WITH_NEW + 1, 2));
}
