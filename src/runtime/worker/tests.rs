//! A store whose reads lag behind its writes: nothing is lost, and no worker spins.

use std::time::Duration;

use super::*;
use crate::{
    domain::{
        decide::Rules,
        event::Change,
        id::DocumentIdScheme,
        ticks::Ticks,
        twin::{Sections, TwinVersion},
        upsert::EventOutcome,
    },
    ports::SystemClock,
    runtime::memory_store::MemoryStore,
};

const RULES: Rules = Rules {
    id_scheme: DocumentIdScheme::Device,
    tombstone_ttl_seconds: 60,
    clock_tolerance: Duration::ZERO,
    forgets_after: None,
};

fn tools(store: &Arc<MemoryStore>) -> Arc<Tools> {
    let store: Arc<dyn TwinStore> = Arc::clone(store) as _;
    Arc::new(Tools { store, clock: Arc::new(SystemClock), metrics: Metrics::new().unwrap() })
}

fn work(version: i64) -> Box<Work<()>> {
    work_on(
        version,
        match version {
            1 => Change::Created { version: TwinVersion(1), twin: Sections::default() },
            version => Change::Updated { version: TwinVersion(version), patch: Sections::default().into() },
        },
    )
}

/// An event at this time, with an empty cache.
fn work_on(at: i64, change: Change) -> Box<Work<()>> {
    let key = TwinKey::device("h", "d");
    let event = TwinEvent { key: key.clone(), at: Ticks::new(at), change };
    Box::new(Work {
        key,
        upsert: Upsert::new(vec![event], None, RULES),
        items: vec![()],
        backoff: Backoff::new(Duration::from_millis(1), Duration::from_secs(1)),
        request_units: 0.0,
        asked: false,
        followed: None,
        trace: None,
    })
}

fn finished(result: WorkResult<()>) -> Vec<EventOutcome> {
    match result {
        WorkResult::Finished { work, .. } => work.upsert.finish().0,
        WorkResult::Unanswered { trouble, .. } => panic!("{trouble:?}"),
    }
}

fn decided(outcomes: &[EventOutcome]) -> bool {
    outcomes.iter().all(|outcome| matches!(outcome, EventOutcome::Decided(_)))
}

#[tokio::test]
async fn a_stale_read_costs_a_failed_condition_and_nothing_else() {
    let store = Arc::new(MemoryStore::default());
    let tools = tools(&store);
    assert!(decided(&finished(run(Arc::clone(&tools), work(1)).await)));
    let writes = *store.writes.lock().unwrap();
    // Two reads do not see the existing document, so two creates fail.
    *store.behind.lock().unwrap() = 2;
    assert!(decided(&finished(run(tools, work(2)).await)));
    assert_eq!(*store.writes.lock().unwrap() - writes, 3, "two creates must fail and one write must succeed");
    let document = store.document(&TwinKey::device("h", "d")).expect("stored");
    assert_eq!(document.twin().expect("live").version, TwinVersion(2));
    assert!(document.flags.is_empty(), "a decision without the document must not be written: {document:?}");
}

#[tokio::test]
async fn reads_that_stay_behind_are_waited_for_and_not_hammered() {
    let store = Arc::new(MemoryStore::default());
    let tools = tools(&store);
    assert!(decided(&finished(run(Arc::clone(&tools), work(1)).await)));
    let writes = *store.writes.lock().unwrap();
    *store.behind.lock().unwrap() = usize::MAX;
    let WorkResult::Unanswered { work: waiting, trouble } = run(Arc::clone(&tools), work(2)).await else {
        panic!("a read cannot have found the document");
    };
    assert_eq!(*store.writes.lock().unwrap() - writes, CONFLICTS_IN_A_ROW as usize);
    assert!(trouble.message.contains("in a row"), "{trouble:?}");
    *store.behind.lock().unwrap() = 0;
    assert!(decided(&finished(run(tools, waiting).await)), "it must continue where it stopped");
}

#[tokio::test]
async fn a_late_change_of_a_deleted_device_asks_for_no_modules_and_a_repeated_deletion_does() {
    let store = Arc::new(MemoryStore::default());
    let tools = tools(&store);
    let queries = || *store.queries.lock().unwrap();
    assert!(decided(&finished(run(Arc::clone(&tools), work(1)).await)));
    assert!(decided(&finished(run(Arc::clone(&tools), work_on(10, Change::Deleted)).await)));
    assert_eq!(queries(), 1);
    assert!(
        store.document(&TwinKey::device("h", "d")).expect("stored").cascade.is_some(),
        "the cascade must stay"
    );
    for _ in 0..3 {
        assert!(
            decided(&finished(run(Arc::clone(&tools), work(5)).await)),
            "a stale change must be completed"
        );
    }
    assert_eq!(queries(), 1, "the cascade must not be repeated");
    // After a crash between the tombstone and its modules, the deletion comes again.
    assert!(decided(&finished(run(Arc::clone(&tools), work_on(10, Change::Deleted)).await)));
    assert_eq!(queries(), 2);
    assert!(decided(&finished(run(tools, work_on(9, Change::Unapplied)).await)));
    assert_eq!(queries(), 3, "the flag may be about the deletion");
}
