//! All pages are read to the end, with failures in between.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::{
    super::testing::{Bench, References, away, device, module, trouble},
    *,
};
use crate::ports::StoreErrorKind;

fn bench() -> Bench {
    let bench = Bench::with_pages_of(2);
    for number in 0..5 {
        bench.registry.set(&device(&format!("d{number}")), 2, json!({}));
    }
    bench.registry.set(&module("d1", "m"), 2, json!({}));
    bench
}

async fn scan(bench: &Bench, kind: Kind) -> Vec<String> {
    let mut pages = CandidatePages::whole_twins(Arc::clone(&bench.rate_limited), kind, Purpose::Audit);
    let mut seen = Vec::new();
    while let Some(page) = pages.next(&CancellationToken::new()).await.expect("a page") {
        seen.extend(page.rows.into_iter().map(|row| row.key.to_string()));
    }
    seen
}

#[tokio::test(start_paused = true)]
async fn devices_and_modules_are_scanned_page_by_page() {
    let bench = bench();
    assert_eq!(scan(&bench, Kind::Devices).await, ["h/d0", "h/d1", "h/d2", "h/d3", "h/d4"]);
    assert_eq!(scan(&bench, Kind::Modules).await, ["h/d1/m"]);
    assert_eq!(scan(&Bench::new(), Kind::Devices).await, [""; 0]);
}

async fn references(
    bench: &Bench,
    kind: Kind,
    condition: Option<&str>,
) -> Result<(Vec<String>, usize), Ended> {
    let mut pages =
        CandidatePages::references(Arc::clone(&bench.rate_limited), kind, condition, Purpose::Backfill);
    let (mut seen, mut odd) = (Vec::new(), 0);
    while let Some(page) = pages.next(&CancellationToken::new()).await? {
        seen.extend(page.rows.into_iter().map(|row| row.key.to_string()));
        odd += page.odd;
    }
    Ok((seen, odd))
}

#[tokio::test(start_paused = true)]
async fn references_are_asked_for_without_the_twins_content() {
    let bench = bench();
    let devices = ["h/d0", "h/d1", "h/d2", "h/d3", "h/d4"].map(str::to_owned).to_vec();
    assert_eq!(references(&bench, Kind::Devices, None).await.expect("answered"), (devices, 0));
    let modules = references(&bench, Kind::Modules, Some("deviceId = 'd1'")).await.expect("answered");
    assert_eq!(modules, (vec!["h/d1/m".to_owned()], 0));
    let mut queries = bench.registry.asked_for.lock().unwrap().clone();
    queries.dedup();
    assert_eq!(
        queries,
        [
            "SELECT deviceId, version FROM devices",
            "SELECT deviceId, moduleId, version FROM devices.modules WHERE deviceId = 'd1'"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_gives_no_references_is_asked_for_whole_twins() {
    for mode in [References::Refused, References::Unreadable] {
        let bench = bench();
        *bench.registry.references.lock().unwrap() = mode;
        let (seen, odd) = references(&bench, Kind::Devices, Some("tags.a = 1")).await.expect("answered");
        assert_eq!((seen.len(), odd), (5, 0), "{mode:?}");
        let mut queries = bench.registry.asked_for.lock().unwrap().clone();
        queries.dedup();
        assert_eq!(
            queries,
            [
                "SELECT deviceId, version FROM devices WHERE tags.a = 1",
                "SELECT * FROM devices WHERE tags.a = 1"
            ],
            "{mode:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_condition_that_the_hub_refuses_either_way_ends_the_scan_with_its_reason() {
    let bench = bench();
    let refused = |reason: &str| QueryError::Refused(reason.to_owned());
    bench.registry.queries.lock().unwrap().extend([refused("no columns"), refused("no such function")]);
    let error = references(&bench, Kind::Devices, Some("FOO(a)")).await.expect_err("refused");
    assert!(error.to_string().contains("no such function"), "{error}");
    assert_eq!(bench.registry.pages.load(std::sync::atomic::Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_module_without_its_name_never_passes_for_its_device() {
    let bench = bench();
    *bench.registry.references.lock().unwrap() = References::Nameless;
    let found = references(&bench, Kind::Modules, None).await.expect("whole twins are asked for instead");
    assert_eq!(found, (vec!["h/d1/m".to_owned()], 0));
}

#[tokio::test(start_paused = true)]
async fn a_throttled_scan_waits_as_long_as_the_hub_asks() {
    let bench = bench();
    let busy = trouble(StoreErrorKind::Throttled, Some(Duration::from_secs(40)));
    bench
        .registry
        .queries
        .lock()
        .unwrap()
        .extend([QueryError::StoreError(busy), QueryError::StoreError(away())]);
    let started = Instant::now();
    assert_eq!(scan(&bench, Kind::Devices).await.len(), 5);
    assert!(started.elapsed() >= Duration::from_secs(40), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_continuation_that_expired_means_from_the_beginning() {
    let bench = bench();
    let mut pages =
        CandidatePages::whole_twins(Arc::clone(&bench.rate_limited), Kind::Devices, Purpose::Audit);
    let stop = CancellationToken::new();
    pages.next(&stop).await.expect("a page").expect("the first");
    assert!(pages.position().is_some());
    bench.registry.queries.lock().unwrap().push_back(QueryError::Expired);
    let again = pages.next(&stop).await.expect("a page").expect("the first again");
    assert_eq!(again.rows[0].key, device("d0"));
}

#[tokio::test(start_paused = true)]
async fn a_query_that_is_refused_or_a_stop_ends_the_scan() {
    let bench = bench();
    let refused = QueryError::Refused("no such field".into());
    bench.registry.queries.lock().unwrap().push_back(refused);
    let mut pages =
        CandidatePages::whole_twins(Arc::clone(&bench.rate_limited), Kind::Devices, Purpose::Audit);
    let stop = CancellationToken::new();
    let error = pages.next(&stop).await.expect_err("refused");
    assert!(error.to_string().contains("no such field"), "{error}");
    stop.cancel();
    assert!(matches!(pages.next(&stop).await, Err(Ended::Stopped)));
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_takes_no_continuation_is_not_scanned_for_ever() {
    let bench = bench();
    let stop = CancellationToken::new();
    let mut pages =
        CandidatePages::whole_twins(Arc::clone(&bench.rate_limited), Kind::Devices, Purpose::Audit);
    for _ in 0..=RESTARTS {
        pages.next(&stop).await.expect("a page").expect("the first one");
        bench.registry.queries.lock().unwrap().push_back(QueryError::Expired);
    }
    let error = pages.next(&stop).await.expect_err("the scan must end");
    assert!(matches!(&error, Ended::Refused { reason, .. } if reason.contains("continuation")), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_page_that_leads_to_itself_is_not_scanned_for_ever() {
    let bench = bench();
    *bench.registry.stuck.lock().unwrap() = true;
    let stop = CancellationToken::new();
    let mut pages =
        CandidatePages::whole_twins(Arc::clone(&bench.rate_limited), Kind::Devices, Purpose::Audit);
    let scan = async {
        while let Some(_page) = pages.next(&stop).await? {}
        Ok::<_, Ended>(())
    };
    let ended = tokio::time::timeout(Duration::from_secs(3600), scan).await.expect("it ends");
    assert!(matches!(ended, Err(Ended::Refused { .. })), "{ended:?}");
}
