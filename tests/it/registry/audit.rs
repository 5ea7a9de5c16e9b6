//! Audits: differences that no event reports.

use std::{path::Path, time::Duration};

use devkit::{
    daemon::Signal,
    fleet::Pace,
    iothub::{
        Loss, Operation, USUAL_HISTORY,
        api::{Fault, Faults, Operations},
    },
    metrics::Sample,
    stack::Options,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::bench::{Bench, FAST};
use crate::world::{create, device, plan, report, until};

const SITES: [&str; 2] = ["north", "south"];
const NO_AUDIT: &str = "[audit]\ninterval = \"off\"\n";

/// A world of `count` devices with correct documents; the daemon has stopped.
async fn repaired(count: usize) -> Bench {
    let bench = Bench::new(FAST, NO_AUDIT).await;
    let daemon = bench.start().await;
    for number in 0..count {
        let id = format!("pump-{number}");
        let twin = json!({"tags": {"site": SITES[number % 2]}});
        bench.world.apply(Operation::Create { id: device(&id), twin: Some(twin) });
        bench.world.apply(report(&id, json!({"rate": number, "nested": {"a": [1, {"b": 2}]}})));
    }
    bench.world.equal().await;
    daemon.stop().await.unwrap_or_else(|error| panic!("{error}"));
    bench
}

fn of(report: &Value, counts: &str) -> [u64; 4] {
    ["missing", "extra", "different", "flagged"].map(|class| report[counts][class].as_u64().expect("a count"))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_class_of_difference_is_found_and_repaired() {
    let bench = repaired(40).await;
    bench.alter("pump-1", |document| document["tags"]["site"] = json!("elsewhere")).await;
    bench.alter("pump-2", |document| document["properties"]["reported"]["rate"] = json!(2.5)).await;
    bench.alter("pump-3", |document| document["version"] = json!(1)).await;
    bench.alter("pump-4", |document| document["sync"] = json!("nonsense")).await;
    bench.alter("pump-5", |document| document["sync"]["flags"] = json!(["suspect"])).await;
    bench.alter("pump-6", |document| document["sync"]["state"] = json!("deleted")).await;
    bench.remove("pump-7").await;
    let copy = bench.container().await;
    let original = copy.read_item("pump-8", "pump-8", None).await.expect("it is there");
    let mut stranger: Value = original.into_model().expect("JSON");
    (stranger["id"], stranger["deviceId"]) = (json!("never-was"), json!("never-was"));
    copy.upsert_item("never-was", "never-was", &stranger, None).await.expect("written");

    let writes = bench.writes();
    let (code, found) = bench.audit(&[]).await;
    assert_eq!((code, of(&found, "found")), (1, [2, 1, 4, 1]), "{found:#}");
    assert_eq!(bench.writes(), writes, "without --repair nothing may be written");

    let (code, repaired) = bench.audit(&["--repair"]).await;
    assert_eq!((code, of(&repaired, "repaired")), (0, [2, 1, 4, 1]), "{repaired:#}");
    let end = bench.world.equal().await;
    println!("by hand: {} repaired; {end}", repaired["repaired"]);

    let (code, again) = bench.audit(&["--repair", "--strict"]).await;
    assert_eq!((code, of(&again, "found")), (0, [0; 4]), "{again:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failover_the_copy_goes_back_with_the_hub() {
    let bench = Bench::new(FAST, NO_AUDIT).await;
    bench.world.stack.hub().keep_history(USUAL_HISTORY);
    let mut daemon = bench.start().await;
    bench.world.replays(5);
    bench.fleet(plan(60, 2_000, 5), Pace::Backlog, &mut daemon).await;
    bench.without_flag().await;
    let changed = bench.world.stack.hub().failover(Loss::Operations(300)).expect("the history reaches");
    assert!(changed > 10, "only {changed} twins were set back");
    let lost = bench.report().await;
    assert!(lost.different + lost.missing + lost.extra > 0, "the copy must differ from the hub: {lost}");
    // Some devices report at once. A version below the stored one shows the failover.
    bench
        .fleet(devkit::fleet::Plan { prefix: "new-".into(), ..plan(10, 300, 6) }, Pace::Backlog, &mut daemon)
        .await;
    let (code, audit) = bench.audit(&["--repair"]).await;
    assert_eq!(code, 0, "{audit:#}");
    let end = bench.world.equal().await;
    println!("failover: {changed} twins went back, the audit repaired {}; {end}", audit["repaired"]);
    daemon.stop().await.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failover_one_device_that_reports_brings_all_of_them_back() {
    let on_request = "[audit]\ninterval = \"off\"\ntolerance = \"0s\"\n";
    let bench = Bench::new(FAST, on_request).await;
    bench.world.stack.hub().keep_history(USUAL_HISTORY);
    let mut daemon = bench.start().await;
    for round in 0..4 {
        for number in 0..20 {
            let id = format!("pump-{number}");
            match round {
                0 => bench.world.apply(create(&id)),
                round => bench.world.apply(report(&id, json!({"round": round, "number": number}))),
            };
        }
    }
    bench.world.equal().await;
    let changed = bench.world.stack.hub().failover(Loss::Operations(30)).expect("the history reaches");
    assert_eq!(changed, 20, "number of twins that were set back");
    assert_eq!(bench.report().await.different, 20, "the copy must differ from the hub");
    bench.world.apply(report("pump-7", json!({"after": true})));
    let end = bench.world.equal().await;
    until(&mut daemon, "the metric shows the twin that went back", |sample| {
        sample.count("twinsync_twins_went_back_total", "") == 1
    })
    .await;
    println!("failover: {changed} twins went back, one spoke; {end}");
    daemon.stop().await.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_is_behind_changes_nothing() {
    let bench = repaired(30).await;
    // The following queries return the hub's state from before the changes.
    bench.world.stack.hub().keep_history(USUAL_HISTORY);
    let daemon = bench.start().await;
    bench.world.apply(create("new"));
    bench.world.apply(Operation::Delete { id: device("pump-3") });
    bench.world.apply(report("pump-4", json!({"rate": 9999})));
    bench.world.equal().await;
    let stale = Faults { stale_by_ms: 3_600_000, ..Faults::default() };
    bench.world.stack.registry().set_faults(stale).expect("valid");
    let writes = bench.writes();
    let (code, audit) = bench.audit(&["--repair"]).await;
    assert_eq!((code, of(&audit, "found")), (0, [0; 4]), "{audit:#}");
    assert!(audit["cleared"].as_u64() >= Some(1), "the query must have returned older states: {audit:#}");
    assert_eq!(bench.writes(), writes);
    bench.world.equal().await;
    daemon.stop().await.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_twin_that_never_rests_is_compared_all_the_same() {
    let bench = repaired(3).await;
    bench.world.stack.hub().keep_history(USUAL_HISTORY);
    let mut daemon = bench.start().await;
    bench.alter("pump-1", |document| document["tags"]["site"] = json!("elsewhere")).await;
    let run = CancellationToken::new();
    let changes = async {
        let mut number = 0;
        while !run.is_cancelled() {
            bench.world.apply(report("pump-1", json!({"rate": number})));
            number += 1;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        number
    };
    let audits = async {
        until(&mut daemon, "ten replacements are written", |sample| {
            sample.count("twinsync_writes_total", "kind=\"replace\",outcome=\"written\"") >= 10
        })
        .await;
        let wrong =
            || async { bench.report().await.differences.iter().any(|found| found.path.contains("tags")) };
        // All answers to queries are older than the document.
        let stale = Faults { stale_by_ms: 1_000, ..Faults::default() };
        bench.world.stack.registry().set_faults(stale).expect("valid");
        let audit = ["audit", "--json", "--repair", "--tolerance", "1h"];
        let first = bench.run(&audit).await.json();
        assert_eq!(first["recent_asked"], 1, "{first:#}");
        assert_eq!((of(&first, "repaired"), wrong().await), ([0, 0, 1, 0], false), "{first:#}");
        run.cancel();
    };
    let (changes, ()) = tokio::join!(changes, audits);
    let end = bench.world.equal().await;
    println!("never at rest: {changes} changes; {end}");
    daemon.stop().await.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_audits_by_itself() {
    let bench = repaired(20).await;
    bench.alter("pump-1", |document| document["tags"]["site"] = json!("elsewhere")).await;
    bench.remove("pump-2").await;
    let continuous = "[audit]\ninterval = \"24h\"\ntolerance = \"0s\"\n";
    let setup = bench.setup_with_identity(bench.world.directory.path(), FAST, continuous);
    let mut daemon = setup.start().await.unwrap_or_else(|error| panic!("{error}"));
    bench.world.equal().await;
    until(&mut daemon, "the metrics show the completed audit and its two differences", |sample| {
        sample.count("twinsync_audit_completed_timestamp_seconds", "") > 0
            && sample.count("twinsync_audit_differences_total", "") == 2
    })
    .await;
    daemon.stop().await.unwrap_or_else(|error| panic!("{error}"));
    let notes = bench.world.files("checkpoints").into_iter().filter(|path| path.ends_with("devkit-hub.json"));
    let reports: Vec<_> = notes.filter(|path| path.to_string_lossy().contains("audit")).collect();
    assert_eq!(reports.len(), 1, "the report is stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn single_twins_are_resynced_by_name_or_by_condition() {
    let bench = repaired(12).await;
    bench.alter("pump-1", |document| document["tags"]["site"] = json!("elsewhere")).await;
    bench.alter("pump-2", |document| document["version"] = json!(77)).await;
    bench.remove("pump-3").await;
    let dry_run = bench.run(&["resync", "--device", "pump-1", "--dry-run"]).await;
    assert_eq!(dry_run.code, 0, "{}", dry_run.errors);
    assert!(dry_run.out.contains("pump-1  differs (different)"), "{}", dry_run.out);
    let one = bench.run(&["resync", "--device", "pump-1"]).await;
    assert!(
        one.out.contains("pump-1  repaired (different)") && one.out.contains("1 twins: 1 repaired"),
        "{}",
        one.out
    );
    assert_eq!(
        bench.report().await.different + bench.report().await.missing,
        2,
        "the other documents must be unchanged"
    );
    let north = bench.run(&["resync", "--where", "tags.site = 'north'"]).await;
    assert!(north.out.contains("pump-2  repaired") && !north.out.contains("pump-3"), "{}", north.out);
    let south = bench.run(&["resync", "--json", "--where", "tags.site = 'south'"]).await;
    let last: Value = serde_json::from_str(south.out.lines().last().expect("a summary")).expect("JSON");
    assert_eq!((last["twins"].as_u64(), last["outcomes"]["repaired"].as_u64()), (Some(6), Some(1)), "{last}");
    bench.world.equal().await;
    let wrong = bench.run(&["resync", "--where", "tags.site == north"]).await;
    assert_eq!(wrong.code, 2, "{}", wrong.errors);
    let gone = bench.run(&["resync", "--device", "never-was"]).await;
    assert!(gone.code == 1 && gone.out.contains("never-was  absent"), "{}{}", gone.out, gone.errors);
    assert!(gone.errors.contains("absent in both"), "{}", gone.errors);
    bench.world.apply(Operation::Delete { id: device("pump-11") });
    let deleted = bench.run(&["resync", "--device", "pump-11"]).await;
    assert!(deleted.code == 0 && deleted.out.contains("repaired (extra)"), "{}", deleted.out);
    let again = bench.run(&["resync", "--json", "--device", "pump-11"]).await;
    assert!(
        again.code == 0 && again.out.contains("\"equal\""),
        "a tombstone equals an absent twin: {}",
        again.out
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expired_behind_a_checkpoint_is_found_by_the_audit_that_follows() {
    let bench = Bench::new(FAST, "[audit]\ninterval = \"off\"\ntolerance = \"0s\"\n").await;
    let daemon = bench.start().await;
    for id in ["pump", "valve"] {
        bench.world.apply(create(id));
        bench.world.apply(report(id, json!({"step": 0})));
    }
    bench.world.equal().await;
    daemon.stop().await.unwrap_or_else(|error| panic!("{error}"));
    // The only change of the valve expires. No other event is about it.
    bench.world.apply(report("valve", json!({"step": "unseen"})));
    bench.world.apply(Operation::Delete { id: device("pump") });
    let endpoints = bench.world.stack.endpoints();
    for hub in [&endpoints.twin_changes_hub, &endpoints.lifecycle_hub] {
        for partition in 0..2 {
            bench.world.stack.broker().faults().expire_before(hub, partition, 100).expect("exists");
        }
    }
    let policy = "[audit]\ninterval = \"off\"\ntolerance = \"0s\"\n[checkpoint]\non_invalid = \"earliest_and_audit\"\n";
    let setup = bench.setup(bench.world.directory.path(), FAST, policy);
    let daemon = setup.start().await.unwrap_or_else(|error| panic!("{error}"));
    let end = bench.world.equal().await;
    assert_eq!((end.twins, end.tombstones), (1, 1));
    daemon.stop().await.unwrap_or_else(|error| panic!("{error}"));
}

/// The changes of ownership of the first partition in the log: true for each takeover, false for each loss.
fn first_partition(directory: &Path) -> Vec<bool> {
    const TOOK: &str = "took over a partition";
    let log = std::fs::read_to_string(directory.join("log")).expect("readable");
    let changes = [TOOK, "is not ours any more", "released a partition"];
    let changed = |line: &&str| changes.iter().any(|change| line.contains(change));
    let first = log.lines().filter(|line| line.contains("stream=lifecycle partition=0 ")).filter(changed);
    first.map(|line| line.contains(TOOK)).collect()
}

fn owns_the_first_partition(directory: &Path) -> bool {
    first_partition(directory).last() == Some(&true)
}

fn has_owned_the_first_partition(directory: &Path) -> bool {
    first_partition(directory).contains(&true)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_several_replicas_audits_and_another_goes_on_when_it_dies() {
    let options = Options { azurite: true, ..Options::default() };
    let bench = Bench::over(options, FAST, NO_AUDIT).await;
    let url = bench.world.stack.endpoints().checkpoint_container_url.clone().expect("Azurite runs");
    let shared = format!(
        "[checkpoint]\nstore = \"blob\"\n[blob]\ncontainer_url = \"{url}\"\n\
         [lease]\nduration = \"3s\"\nrenew_interval = \"600ms\"\n[audit]\ninterval = \"24h\"\ntolerance = \"0s\"\n"
    );
    for number in 0..10 {
        bench.world.apply(create(&format!("pump-{number}")));
    }
    // The audit cannot end, because its queries fail.
    let refused = Faults::of([Fault::answer(503).on(Operations::Queries)]);
    bench.world.stack.registry().set_faults(refused).expect("valid");
    let asks = |sample: &Sample| sample.count("twinsync_registry_calls_total", "purpose=\"audit\"") > 0;
    let mut replicas = Vec::new();
    for _ in 0..2 {
        let directory = tempfile::tempdir().expect("a directory");
        let setup = bench.setup(directory.path(), FAST, &shared);
        replicas.push((setup.start().await.unwrap_or_else(|error| panic!("{error}")), directory));
        until(&mut replicas[0].0, "the first replica calls the registry for the audit", asks).await;
    }
    bench.world.equal().await;
    for (daemon, _) in &mut replicas {
        until(daemon, "the replica owns two partitions", |sample| {
            sample.count("twinsync_partitions_owned", "") == 2
        })
        .await;
    }
    // The first replica owned the first partition at the start, and may have released it since.
    let leader = replicas.iter().position(|(_, directory)| owns_the_first_partition(directory.path()));
    let leader = leader.expect("a replica owns it");
    let (other, directory) = &mut replicas[1];
    let other = other.sample().await.expect("metrics");
    assert!(has_owned_the_first_partition(directory.path()) || !asks(&other), "both replicas audit");
    replicas.remove(leader).0.end(Signal::Kill).await.expect("killed");
    bench.alter("pump-1", |document| document["tags"]["hand"] = json!(true)).await;
    bench.world.stack.registry().set_faults(Faults::default()).expect("valid");
    until(&mut replicas[0].0, "the metric shows the completed audit of the other replica", |sample| {
        sample.count("twinsync_audit_completed_timestamp_seconds", "") > 0
    })
    .await;
    bench.world.equal().await;
    for (daemon, _) in replicas {
        daemon.stop().await.unwrap_or_else(|error| panic!("{error}"));
    }
}
