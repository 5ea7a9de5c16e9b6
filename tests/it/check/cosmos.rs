//! Each thing that can be wrong with Cosmos DB.

use std::time::{Duration, Instant};

use devkit::{
    cosmos::{Consistency, Disguise, Fault, Faults, Operations, service_default_policy},
    stack::Options,
};
use serde_json::json;

use super::{check, right};
use crate::registry::bench::Bench;

fn pretend(bench: &Bench, faults: Faults) {
    bench.world.stack.cosmos().set_faults(faults).expect("valid");
}

fn container(disguise: Disguise) -> Faults {
    Faults { container: disguise, ..Faults::default() }
}

fn statuses(bench: &Bench, operation: &str) -> u64 {
    bench.world.stack.cosmos().counters().get(operation).map_or(0, |count| count.requests)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_account_and_the_container_say_of_themselves_is_judged() {
    let bench = right().await;
    pretend(&bench, Faults { consistency: Some(Consistency::Eventual), ..Faults::default() });
    let report = check(&bench, &["--connect"]).await;
    assert_eq!(report.code, 2);
    report.says("cosmos.consistency", "fail", "COSMOS_CONSISTENCY", "az cosmosdb update");
    report.says("cosmos.write", "ok", "", "removed again");
    pretend(&bench, Faults { multi_write: true, ..Faults::default() });
    let report = check(&bench, &["--connect"]).await;
    report.says("cosmos.regions", "fail", "COSMOS_MULTI_WRITE", "cosmos.write_region");
    report.says("cosmos.container", "skipped", "", "cosmos.regions");
    for (disguise, found, verdict, code, words) in [
        (
            Disguise { default_ttl: Some(0), ..Disguise::default() },
            "cosmos.time_to_live",
            "warn",
            "COSMOS_TIME_TO_LIVE",
            "--ttl -1",
        ),
        (
            Disguise { default_ttl: Some(86_400), ..Disguise::default() },
            "cosmos.time_to_live",
            "fail",
            "COSMOS_TIME_TO_LIVE",
            "deleted after 1 d",
        ),
        (
            Disguise {
                indexing_policy: Some(json!({
                    "indexingMode": "consistent", "automatic": true,
                    "includedPaths": [{"path": "/*"}], "excludedPaths": [{"path": "/sync/*"}],
                })),
                ..Disguise::default()
            },
            "cosmos.indexing",
            "warn",
            "COSMOS_INDEXING",
            "/sync/state",
        ),
        (
            Disguise { indexing_policy: Some(service_default_policy()), ..Disguise::default() },
            "cosmos.indexing",
            "warn",
            "COSMOS_INDEXING",
            "$metadata",
        ),
        (
            Disguise { partition_key: Some("/id".into()), ..Disguise::default() },
            "cosmos.container",
            "fail",
            "COSMOS_PARTITION_KEY",
            "create a new one",
        ),
    ] {
        pretend(&bench, container(disguise));
        let report = check(&bench, &["--connect"]).await;
        report.says(found, verdict, code, words);
        assert_eq!(report.code, if verdict == "warn" { 1 } else { 2 }, "{found}");
        assert_eq!(report.wrong().len(), 1, "{:?}", report.wrong());
    }
    assert_eq!(bench.report().await.documents, 0, "nothing is left in the container");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_only_reads_shows_with_the_first_write() {
    let bench = right().await;
    let refused = Fault { next: None, substatus: Some(5300), ..Fault::next(403, 1) };
    pretend(&bench, Faults { answers: vec![refused], ..Faults::default() });
    let report = check(&bench, &["--connect"]).await;
    report.says("cosmos.write", "fail", "COSMOS_REFUSED", "Cosmos DB Built-in Data Contributor");
    report.says("cosmos.query", "ok", "", "answered");
    assert_eq!(report.wrong().len(), 1, "{:?}", report.wrong());
    assert_eq!(statuses(&bench, "delete"), 0, "what was refused needs no removal");
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_are_refused_show_although_writes_work_and_the_document_is_removed() {
    let bench = right().await;
    let refused = Fault { next: None, ..Fault::next(403, 1) }.on(Operations::Reads);
    pretend(&bench, Faults { answers: vec![refused], ..Faults::default() });
    let report = check(&bench, &["--connect"]).await;
    report.says("cosmos.write", "fail", "COSMOS_REFUSED", "read_item");
    report.says("cosmos.query", "fail", "COSMOS_REFUSED", "query_items");
    pretend(&bench, Faults::default());
    assert_eq!(bench.report().await.documents, 0, "it was removed although it failed midway");
    assert!(statuses(&bench, "delete") > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_or_not_ours_is_named_and_what_needs_it_is_skipped() {
    let bench = right().await;
    for (variable, value, check_name, code) in [
        ("TWINSYNC__COSMOS__CONTAINER", "twinz", "cosmos.container", "COSMOS_NOT_FOUND"),
        ("TWINSYNC__COSMOS__DATABASE", "elsewhere", "cosmos.container", "COSMOS_NOT_FOUND"),
        ("TWINSYNC__COSMOS__KEY", "d3Jvbmc=", "cosmos.account", "COSMOS_REFUSED"),
        ("TWINSYNC__COSMOS__ENDPOINT", "http://127.0.0.1:9", "cosmos.account", "COSMOS_UNAVAILABLE"),
    ] {
        let report = super::check_with(&bench, &[(variable, value)], &["--connect"]).await;
        assert_eq!(report.code, 2);
        report.says(check_name, "fail", code, "");
        report.says("cosmos.write", "skipped", "", check_name);
        assert_eq!(report.wrong().len(), 1, "{:?}", report.wrong());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_answer_is_lost_leaves_nothing_behind() {
    let bench = right().await;
    let lost = Fault { next: None, ..Fault::next(503, 1) }.after();
    pretend(&bench, Faults { answers: vec![lost], ..Faults::default() });
    let report = check(&bench, &["--connect"]).await;
    // The SDK sends each once more; what it is told then is the answer to what is done already.
    report.says("cosmos.write", "ok", "", "removed again");
    assert!(statuses(&bench, "create") > 1, "it was sent twice");
    pretend(&bench, Faults::default());
    assert_eq!(bench.report().await.documents, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_hangs_fails_in_seconds() {
    let bench = Bench::over(Options { cosmos_proxy: true, ..Options::default() }, "", "").await;
    bench.world.stack.cosmos_proxy().expect("asked for").freeze();
    let started = Instant::now();
    let report = check(&bench, &["--connect"]).await;
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    report.says("cosmos.account", "fail", "COSMOS_UNAVAILABLE", "no answer within 5 s");
    report.says("cosmos.write", "skipped", "", "cosmos.account");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_hangs_midway_ends_too_and_what_may_be_left_is_told() {
    let bench = right().await;
    pretend(&bench, Faults { latency_ms: 60_000, ..Faults::default() });
    let quick = [("TWINSYNC__COSMOS__REQUEST_TIMEOUT", "1s")];
    let started = Instant::now();
    let report = super::check_with(&bench, &quick, &["--connect"]).await;
    assert!(started.elapsed() < Duration::from_secs(25), "{:?}", started.elapsed());
    report.says("cosmos.query", "fail", "COSMOS_UNAVAILABLE", "");
    report.says("cosmos.write", "fail", "COSMOS_UNAVAILABLE", "could not be removed: twinsync|check|probe|");
}
