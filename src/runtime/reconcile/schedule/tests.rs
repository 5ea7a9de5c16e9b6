//! One replica does the work, when it is due, until it is finished.

use serde_json::json;

use super::{
    super::testing::{Bench, device},
    *,
};
use crate::{
    domain::drift::Strictness,
    ports::{NoteError, QueryError},
    runtime::reconcile::reconciler::Mode,
};

const HOUR: Duration = Duration::from_secs(3600);

struct Running {
    bench: Bench,
    leads: watch::Sender<bool>,
    wanted: watch::Sender<Option<Ticks>>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    scans: Scans,
}

impl Running {
    fn start(bench: Bench, leads: bool, options: Options) -> Self {
        let notes = Arc::clone(&bench.notes) as _;
        Self::with(bench, notes, leads, options)
    }

    fn with(bench: Bench, notes: Arc<dyn NoteStore>, leads: bool, options: Options) -> Self {
        let (leads, led) = watch::channel(leads);
        let (wanted, asked) = watch::channel(None);
        let stop = CancellationToken::new();
        let scans = Scans::default();
        let schedule = Schedule {
            reconciler: Arc::clone(&bench.reconciler),
            registry: Arc::clone(&bench.rate_limited),
            notes,
            options,
            leads: led,
            audit_wanted: asked,
            scans: scans.clone(),
        };
        let task = tokio::spawn(schedule.run(stop.clone()));
        Self { bench, leads, wanted, stop, task, scans }
    }

    /// Advances both the timers and the clock.
    async fn pass(&self, time: Duration) {
        self.bench.clock.pass(time);
        tokio::time::sleep(time).await;
    }

    /// Requests an audit from this process.
    fn ask(&self) {
        self.wanted.send_replace(Some(self.bench.reconciler.now()));
    }

    /// The start of the last report.
    async fn last_audit(&self) -> Option<Ticks> {
        let note = self.bench.notes.load(&report_name("h")).await.expect("readable")?;
        serde_json::from_slice::<LastAudit>(&note).expect("a report").started_at
    }

    fn pages(&self) -> u64 {
        self.bench.registry.pages.load(std::sync::atomic::Ordering::Relaxed)
    }

    async fn stop(self) -> Bench {
        self.stop.cancel();
        self.task.await.expect("no panic");
        self.bench
    }
}

fn options(audit_interval: Option<Duration>) -> Options {
    Options {
        backfill: false,
        backfill_concurrency: 2,
        audit_interval,
        audit: audit::Options {
            sample: 1.0,
            mode: Mode::Correct,
            strictness: Strictness::Content,
            tolerance: HOUR / 2,
            recent_checks: 0,
            concurrency: 2,
        },
    }
}

fn bench() -> Bench {
    let bench = Bench::new();
    for number in 0..5 {
        bench.registry.set(&device(&format!("d{number}")), 2, json!({}));
    }
    bench
}

#[tokio::test(start_paused = true)]
async fn audits_begin_after_the_tolerance_and_then_at_their_interval() {
    let running = Running::start(bench(), true, options(Some(HOUR * 24)));
    running.pass(HOUR / 2 - Duration::from_secs(10)).await;
    assert_eq!(running.last_audit().await, None);
    running.pass(Duration::from_secs(20)).await;
    let first = running.last_audit().await.expect("audited");
    running.pass(HOUR * 23).await;
    assert_eq!(running.last_audit().await, Some(first));
    running.pass(HOUR * 2).await;
    assert!(running.last_audit().await > Some(first));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_the_last_report_tells_when() {
    let running = Running::start(bench(), true, options(Some(HOUR * 24)));
    running.pass(HOUR).await;
    let first = running.last_audit().await.expect("audited");
    let bench = running.stop().await;
    let running = Running::start(bench, true, options(Some(HOUR * 24)));
    running.pass(HOUR * 2).await;
    assert_eq!(running.last_audit().await, Some(first), "a restart must not cause an audit");
    running.pass(HOUR * 22).await;
    assert!(running.last_audit().await > Some(first));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn only_the_leader_acts_and_the_next_leader_goes_on() {
    let running = Running::start(bench(), false, Options { backfill: true, ..options(Some(HOUR)) });
    running.pass(HOUR * 5).await;
    assert_eq!(running.pages(), 0);
    // It leads for a moment: the first twin gets no answer, so nothing is finished.
    *running.bench.registry.silent.lock().unwrap() = true;
    running.leads.send_replace(true);
    running.pass(Duration::from_secs(20)).await;
    running.leads.send_replace(false);
    running.pass(Duration::from_secs(20)).await;
    assert_eq!(running.bench.writes(), 0);
    *running.bench.registry.silent.lock().unwrap() = false;
    let pages = running.pages();
    running.pass(HOUR).await;
    assert_eq!(running.pages(), pages, "only the leader may act");
    running.leads.send_replace(true);
    running.pass(HOUR).await;
    assert_eq!(running.bench.writes(), 5, "the backfill must have ended");
    assert!(running.last_audit().await.is_some(), "an audit must have ended");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_unfinished_backfill_goes_on_whatever_the_configuration_says() {
    let bench = bench();
    let begun = json!({
        "started_at": bench.reconciler.now(), "kind": "devices",
        "counts": {"nominated": 0, "created": 0, "corrected": 0, "present": 0, "gone": 0, "rejected": 0}
    });
    let note = serde_json::to_vec(&begun).expect("JSON");
    bench.notes.save(&backfill::note_name(&"h".into()), &note).await.expect("kept");
    let running = Running::start(bench, true, options(None));
    running.pass(HOUR).await;
    assert_eq!(running.bench.writes(), 5);
    assert_eq!(running.last_audit().await, None, "audits are off");
    // The backfill runs once.
    let pages = running.pages();
    running.pass(HOUR * 3).await;
    assert_eq!(running.pages(), pages);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_audit_is_done_when_it_is_asked_for_also_where_audits_are_off() {
    let running = Running::start(bench(), true, options(None));
    running.pass(HOUR * 30).await;
    assert_eq!(running.last_audit().await, None);
    running.ask();
    running.pass(Duration::from_secs(30)).await;
    assert!(running.last_audit().await.is_some());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_queries_do_not_show_yet_is_found_by_a_second_audit_also_after_a_restart() {
    for restart in [false, true] {
        let bench = bench();
        for number in 0..5 {
            bench.agreed(&device(&format!("d{number}")), 2, json!({}));
        }
        let running = Running::start(bench, true, options(None));
        running.pass(HOUR).await;
        // The event of this change was lost, and queries lag.
        running.bench.registry.hold_view();
        running.bench.registry.set(&device("d1"), 3, json!({"new": true}));
        running.ask();
        running.pass(Duration::from_secs(60)).await;
        let first = running.last_audit().await.expect("audited");
        assert_eq!(running.bench.says(&device("d1")), Some((2, json!({}))), "the query did not show it");
        running.bench.registry.view.lock().unwrap().take();
        let running = if restart {
            let bench = running.stop().await;
            // The note was left by an earlier process.
            let note = serde_json::to_vec(&json!({"wanted_at": first.before(Duration::from_secs(1))}));
            bench.notes.save("audit-wanted", &note.expect("JSON")).await.expect("kept");
            let met = json!({"started_at": first, "answered": first.before(Duration::from_secs(1))});
            let note = serde_json::to_vec(&met).expect("JSON");
            bench.notes.save(&report_name("h"), &note).await.expect("kept");
            Running::start(bench, true, options(None))
        } else {
            running
        };
        running.pass(HOUR / 3).await;
        assert_eq!(running.last_audit().await, Some(first), "the second audit must not have started yet");
        running.pass(HOUR / 3).await;
        assert!(running.last_audit().await > Some(first));
        assert_eq!(running.bench.says(&device("d1")), Some((3, json!({"new": true}))));
        let pages = running.pages();
        running.pass(HOUR * 24).await;
        assert_eq!(running.pages(), pages, "a third audit must not follow");
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_note_with_a_time_to_come_does_not_ask_for_ever() {
    let running = Running::start(bench(), true, options(None));
    let wanted_at = running.bench.reconciler.now().after(HOUR * 24 * 365);
    let note = serde_json::to_vec(&json!({ "wanted_at": wanted_at })).expect("JSON");
    running.bench.notes.save("audit-wanted", &note).await.expect("kept");
    running.pass(Duration::from_secs(60)).await;
    let pages = running.pages();
    assert!(pages > 0);
    running.pass(HOUR).await;
    assert_eq!(running.pages(), pages * 2, "the audit must run once more");
    let pages = pages * 2;
    running.pass(HOUR * 24).await;
    assert_eq!(running.pages(), pages);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_audit_that_fails_is_tried_again_before_its_next_turn() {
    let running = Running::start(bench(), true, options(Some(HOUR * 24)));
    let refused = || QueryError::Refused("the hub is being moved".into());
    running.bench.registry.queries.lock().unwrap().extend([refused(), refused()]);
    running.pass(HOUR).await;
    assert!(running.last_audit().await.is_some());
    running.stop().await;
}

/// Notes that cannot be stored, and for a while cannot be read.
struct Broken {
    unreadable: std::sync::atomic::AtomicUsize,
    inner: Arc<crate::adapters::notes::MemoryNotes>,
}

fn full(operation: &'static str, name: &str) -> NoteError {
    NoteError {
        operation,
        name: name.into(),
        place: "memory".into(),
        source: std::io::ErrorKind::StorageFull.into(),
    }
}

#[async_trait::async_trait]
impl NoteStore for Broken {
    async fn load(&self, name: &str) -> Result<Option<Vec<u8>>, NoteError> {
        use std::sync::atomic::Ordering::Relaxed;
        if self.unreadable.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
            return Err(full("read", name));
        }
        self.inner.load(name).await
    }

    async fn save(&self, name: &str, _note: &[u8]) -> Result<(), NoteError> {
        Err(full("write", name))
    }
}

#[tokio::test(start_paused = true)]
async fn reports_that_cannot_be_kept_do_not_make_audits_follow_each_other() {
    let bench = bench();
    let notes = Broken { unreadable: 0.into(), inner: Arc::clone(&bench.notes) };
    let running = Running::with(bench, Arc::new(notes), true, options(Some(HOUR * 24)));
    running.pass(HOUR).await;
    let pages = running.pages();
    assert!(pages > 0);
    running.pass(HOUR * 22).await;
    assert_eq!(running.pages(), pages);
    running.pass(HOUR * 3).await;
    assert_eq!(running.pages(), pages * 2);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_unfinished_backfill_is_found_when_notes_can_be_read_again() {
    let bench = bench();
    let begun = json!({
        "started_at": bench.reconciler.now(), "kind": "devices",
        "counts": {"listed": 0, "created": 0, "corrected": 0, "present": 0, "gone": 0, "rejected": 0}
    });
    let note = serde_json::to_vec(&begun).expect("JSON");
    bench.notes.save(&backfill::note_name(&"h".into()), &note).await.expect("kept");
    let notes = Broken { unreadable: 3.into(), inner: Arc::clone(&bench.notes) };
    let running = Running::with(bench, Arc::new(notes), true, options(None));
    running.pass(HOUR).await;
    assert_eq!(running.bench.writes(), 5);
    let pages = running.pages();
    running.pass(HOUR * 3).await;
    assert_eq!(running.pages(), pages, "the backfill must not run again although its end cannot be noted");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn scans_show_how_far_they_are_and_what_they_came_to_also_after_a_restart() {
    let running = Running::start(bench(), true, Options { backfill: true, ..options(Some(HOUR * 24)) });
    *running.bench.registry.silent.lock().unwrap() = true;
    running.pass(Duration::from_secs(20)).await;
    let scan = running.scans.of("h").scan.expect("a backfill continues");
    assert_eq!((scan.what, scan.scanning.stage(), scan.scanning.dealt_with()), ("backfill", "devices", 0));
    *running.bench.registry.silent.lock().unwrap() = false;
    running.pass(HOUR / 4).await;
    let found = running.scans.of("h");
    assert!(found.scan.is_none(), "no scan may be under way");
    let twins = found.backfilled.expect("done").twins;
    assert_eq!(twins.iter().map(|(_, twins)| twins).sum::<u64>(), 5, "{twins:?}");
    assert_eq!(found.audited, None);
    let due = found.next_audit.expect("due").seconds_since(running.bench.reconciler.now());
    assert!((0.0..1800.0).contains(&due), "{due}");
    running.pass(HOUR).await;
    let found = running.scans.of("h");
    let clean = found.clean.expect("it was clean");
    assert_eq!((clean.twins, clean.left, found.audited), (5, 0, Some(clean)));
    let due = found.next_audit.expect("due").seconds_since(running.bench.reconciler.now());
    assert!((22.0 * 3600.0..=24.0 * 3600.0).contains(&due), "{due}");
    running.leads.send_replace(false);
    running.pass(Duration::from_secs(60)).await;
    assert!(running.scans.of("h").audited.is_none(), "only the leader shows audits");
    let bench = running.stop().await;
    let running = Running::start(bench, true, options(Some(HOUR * 24)));
    running.pass(Duration::from_secs(60)).await;
    let found = running.scans.of("h");
    assert_eq!((found.audited, found.clean), (Some(clean), Some(clean)));
    assert_eq!(found.backfilled.expect("the backfill's note").twins, twins);
    running.stop().await;
}

#[test]
fn the_last_clean_audit_is_remembered_over_those_that_were_not() {
    let report = |at, twins| {
        let mut report = Report::new("h", Ticks::new(at), 1.0, true);
        (report.twins, report.finished_at) = (twins, Ticks::new(at));
        report
    };
    let met = LastAudit::default().met();
    let first = LastAudit::default().followed_by(met, &report(1, 5));
    assert_eq!(first.clean, Some(Clean { finished_at: Ticks::new(1), twins: 5 }));
    for change in [
        (|report| report.unknown = 1) as fn(&mut Report),
        |report| report.still_different = 1,
        |report| report.sample = 0.5,
    ] {
        let mut second = report(2, 6);
        change(&mut second);
        let last = first.followed_by(met, &second);
        assert_eq!((last.clean, last.finished_at, last.twins), (first.clean, Some(Ticks::new(2)), 6));
        assert_eq!(last.left, second.left());
    }
    assert_eq!(first.followed_by(met, &report(3, 7)).clean.map(|clean| clean.twins), Some(7));
}
