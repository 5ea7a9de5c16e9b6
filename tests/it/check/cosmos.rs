//! Problems of Cosmos DB.

use std::time::{Duration, Instant};

use devkit::{
    cosmos::{Consistency, ContainerOverrides, Fault, Faults, Operations, service_default_policy},
    stack::Options,
};
use serde_json::json;

use super::{check, right};
use crate::registry::bench::Bench;

fn set_faults(bench: &Bench, faults: Faults) {
    bench.world.stack.cosmos().set_faults(faults).expect("valid");
}

fn container(overrides: ContainerOverrides) -> Faults {
    Faults { container: overrides, ..Faults::default() }
}

fn statuses(bench: &Bench, operation: &str) -> u64 {
    bench.world.stack.cosmos().counters().get(operation).map_or(0, |count| count.requests)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_settings_of_the_account_and_the_container_are_checked() {
    let bench = right().await;
    set_faults(&bench, Faults { consistency: Some(Consistency::Eventual), ..Faults::default() });
    let report = check(&bench, &["--connect"]).await;
    assert_eq!(report.code, 2);
    report.says("cosmos.consistency", "fail", "COSMOS_CONSISTENCY", "az cosmosdb update");
    report.says("cosmos.write", "ok", "", "removed again");
    set_faults(&bench, Faults { multi_write: true, ..Faults::default() });
    let report = check(&bench, &["--connect"]).await;
    report.says("cosmos.regions", "fail", "COSMOS_MULTI_WRITE", "cosmos.write_region");
    report.says("cosmos.container", "skipped", "", "cosmos.regions");
    for (overrides, found, verdict, code, words) in [
        (
            ContainerOverrides { default_ttl: Some(0), ..ContainerOverrides::default() },
            "cosmos.time_to_live",
            "warn",
            "COSMOS_TIME_TO_LIVE",
            "--ttl -1",
        ),
        (
            ContainerOverrides { default_ttl: Some(86_400), ..ContainerOverrides::default() },
            "cosmos.time_to_live",
            "fail",
            "COSMOS_TIME_TO_LIVE",
            "deleted after 1 d",
        ),
        (
            ContainerOverrides {
                indexing_policy: Some(json!({
                    "indexingMode": "consistent", "automatic": true,
                    "includedPaths": [{"path": "/*"}], "excludedPaths": [{"path": "/sync/*"}],
                })),
                ..ContainerOverrides::default()
            },
            "cosmos.indexing",
            "warn",
            "COSMOS_INDEXING",
            "/sync/state",
        ),
        (
            ContainerOverrides {
                indexing_policy: Some(service_default_policy()),
                ..ContainerOverrides::default()
            },
            "cosmos.indexing",
            "warn",
            "COSMOS_INDEXING",
            "$metadata",
        ),
        (
            ContainerOverrides { partition_key: Some("/id".into()), ..ContainerOverrides::default() },
            "cosmos.container",
            "fail",
            "COSMOS_PARTITION_KEY",
            "create a new container",
        ),
    ] {
        set_faults(&bench, container(overrides));
        let report = check(&bench, &["--connect"]).await;
        report.says(found, verdict, code, words);
        assert_eq!(report.code, if verdict == "warn" { 1 } else { 2 }, "{found}");
        assert_eq!(report.wrong().len(), 1, "{:?}", report.wrong());
    }
    assert_eq!(bench.report().await.documents, 0, "a document is left in the container");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_only_reads_shows_with_the_first_write() {
    let bench = right().await;
    let refused = Fault { next: None, substatus: Some(5300), ..Fault::next(403, 1) };
    set_faults(&bench, Faults { answers: vec![refused], ..Faults::default() });
    let report = check(&bench, &["--connect"]).await;
    report.says("cosmos.write", "fail", "COSMOS_REFUSED", "Cosmos DB Built-in Data Contributor");
    report.says("cosmos.query", "ok", "", "answered");
    assert_eq!(report.wrong().len(), 1, "{:?}", report.wrong());
    assert_eq!(statuses(&bench, "delete"), 0, "a write that was refused needs no deletion");
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_that_are_refused_show_although_writes_work_and_the_document_is_removed() {
    let bench = right().await;
    let refused = Fault { next: None, ..Fault::next(403, 1) }.on(Operations::Reads);
    set_faults(&bench, Faults { answers: vec![refused], ..Faults::default() });
    let report = check(&bench, &["--connect"]).await;
    report.says("cosmos.write", "fail", "COSMOS_REFUSED", "read_item");
    report.says("cosmos.query", "fail", "COSMOS_REFUSED", "query_items");
    set_faults(&bench, Faults::default());
    assert_eq!(bench.report().await.documents, 0, "the document is deleted although the check failed");
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
    set_faults(&bench, Faults { answers: vec![lost], ..Faults::default() });
    let report = check(&bench, &["--connect"]).await;
    // The SDK repeats a request whose answer is lost. The second answer is about the write that the first request did.
    report.says("cosmos.write", "ok", "", "removed again");
    assert!(statuses(&bench, "create") > 1, "the create was sent only once");
    set_faults(&bench, Faults::default());
    assert_eq!(bench.report().await.documents, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_hangs_fails_in_seconds() {
    let bench = Bench::over(Options { cosmos_proxy: true, ..Options::default() }, "", "").await;
    bench.world.stack.cosmos_proxy().expect("a proxy").freeze();
    let started = Instant::now();
    let report = check(&bench, &["--connect"]).await;
    assert!(started.elapsed() < Duration::from_secs(15), "took {:?}", started.elapsed());
    report.says("cosmos.account", "fail", "COSMOS_UNAVAILABLE", "no answer within 5 s");
    report.says("cosmos.write", "skipped", "", "cosmos.account");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_hangs_midway_ends_too_and_what_may_be_left_is_told() {
    let bench = right().await;
    set_faults(&bench, Faults { latency_ms: 60_000, ..Faults::default() });
    let quick = [("TWINSYNC__COSMOS__REQUEST_TIMEOUT", "1s")];
    let started = Instant::now();
    let report = super::check_with(&bench, &quick, &["--connect"]).await;
    assert!(started.elapsed() < Duration::from_secs(25), "took {:?}", started.elapsed());
    report.says("cosmos.query", "fail", "COSMOS_UNAVAILABLE", "");
    report.says("cosmos.write", "fail", "COSMOS_UNAVAILABLE", "could not be removed: twinsync|check|probe|");
}
