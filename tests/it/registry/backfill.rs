//! Twins that existed before the daemon.

use std::time::{Duration, Instant};

use devkit::{
    fleet::Pace,
    iothub::{Operation, TwinId},
};
use serde_json::{Value, json};

use super::bench::{Bench, FAST};
use crate::world::{LIMIT, device, plan};

const SITES: [&str; 2] = ["north", "south"];

/// `count` devices with tags, every tenth with a module. Every device has been changed once.
fn old_twins(count: usize) -> Vec<Operation> {
    let mut operations = Vec::new();
    for number in 0..count {
        let id = format!("old-{number}");
        let twin = json!({"tags": {"number": number, "site": SITES[number % 2]}});
        operations.push(Operation::Create { id: device(&id), twin: Some(twin) });
        if number % 10 == 0 {
            let module = TwinId::module(&id, "agent").expect("a valid id");
            operations.push(Operation::Create { id: module, twin: None });
        }
        operations.push(Operation::Report { id: device(&id), patch: json!({"up": true, "at": number}) });
    }
    operations
}

/// Number of devices before the start, unless `TWINSYNC_OLD_TWINS` sets another.
const OLD_TWINS: usize = 10_000;

fn old_devices() -> usize {
    std::env::var("TWINSYNC_OLD_TWINS").map_or(OLD_TWINS, |text| text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_twins_from_before_are_filled_in_while_the_streams_run() {
    let bench = Bench::new(FAST, "[backfill]\non_start = \"if_empty\"\nconcurrency = 32\n").await;
    let devices = old_devices();
    bench.were_there(&old_twins(devices));
    let started = Instant::now();
    let mut daemon = bench.start().await;
    // Changes of devices that the backfill also reads.
    for number in (0..devices).step_by(40) {
        let id = device(&format!("old-{number}"));
        let operation = match number % 3 {
            0 => Operation::Delete { id },
            1 => Operation::Report { id, patch: json!({"up": null}) },
            _ => Operation::Patch { id, patch: json!({"tags": {"site": "east"}}) },
        };
        bench.world.apply(operation);
    }
    bench.fleet(plan(50, 1_000, 7), Pace::Backlog, &mut daemon).await;
    let report = bench.world.equal().await;
    println!(
        "backfill of {} twins beside streams: equal after {:.1} s, {} point reads, {} queries; {report}",
        devices + devices.div_ceil(10),
        started.elapsed().as_secs_f64(),
        bench.gets(),
        bench.queries()
    );
    daemon.stop().await.unwrap_or_else(|error| panic!("{error}"));

    // After the next start nothing is left to fill in.
    let (gets, writes) = (bench.gets(), bench.writes());
    let daemon = bench.start().await;
    let ended = bench.run(&["backfill", "--json", "--restart"]).await;
    assert_eq!(ended.code, 0, "{}", ended.errors);
    assert_eq!((ended.json()["created"].as_u64(), ended.json()["corrected"].as_u64()), (Some(0), Some(0)));
    assert_eq!(
        (bench.gets(), bench.writes()),
        (gets, writes),
        "a correct document must cost no call to the hub"
    );
    daemon.stop().await.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_that_is_killed_goes_on_where_it_was() {
    let bench = Bench::new("tier = \"s1\"\nshare = 1\n", "").await;
    bench.were_there(&old_twins(400));
    let mut killed = bench.spawn(&["backfill"]);
    let started = Instant::now();
    while bench.report().await.documents < 150 {
        assert!(started.elapsed() < LIMIT, "no document was created");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    killed.kill().await.expect("killed");
    let before = bench.gets();
    let filled = bench.report().await.documents;
    assert!(filled < 440, "not killed halfway: {filled}");
    let ended = bench.run(&["backfill", "--json"]).await;
    assert_eq!(ended.code, 0, "{}", ended.errors);
    let counts = ended.json();
    assert_eq!(counts["listed"].as_u64(), Some(440));
    assert_eq!(counts["created"].as_u64(), Some(440 - filled), "{counts}");
    assert_eq!(bench.gets() - before, 440 - filled, "each twin must be read once");
    bench.world.equal().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_registry_the_commands_say_what_to_configure() {
    let world = crate::world::World::new().await;
    let bench = Bench { world };
    for arguments in [&["backfill"][..], &["audit"], &["resync", "--device", "d"]] {
        let ended = bench.run(arguments).await;
        assert_eq!(ended.code, 2);
        assert!(ended.errors.contains("iothub.hosts"), "{}", ended.errors);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_shows_how_far_it_is_when_it_is_done_and_what_it_waits_for() {
    let more = "[backfill]\non_start = \"if_empty\"\n";
    let bench = Bench::new("tier = \"s1\"\nunits = 1\nshare = \"0.2\"\n", more).await;
    bench.were_there(&old_twins(300));
    let daemon = bench.start().await;
    let scan = |found: &Value| found["hubs"][0]["scan"].clone();
    let found =
        crate::status::until(&daemon, "the status shows the estimated end of the backfill", |found| {
            scan(found)["doneInSeconds"].is_f64() && scan(found)["waitsFor"].is_string()
        })
        .await;
    let scan = scan(&found);
    assert_eq!(
        (&scan["what"], &scan["stage"], &scan["outOf"]),
        (&json!("backfill"), &json!("devices"), &json!(300))
    );
    let (rate, left) = (scan["perSecond"].as_f64().expect("a rate"), scan["doneInSeconds"].as_f64());
    assert!((10.0..40.0).contains(&rate), "the rate must be about 20 reads per second: {scan:#}");
    let dealt_with = scan["dealtWith"].as_f64().expect("a count");
    assert!((left.expect("known") - (300.0 - dealt_with) / rate).abs() < 0.1, "{scan:#}");
    let waits_for = scan["waitsFor"].as_str().expect("known");
    assert!(waits_for.contains("share of the hub's quota: 20.0 reads"), "{waits_for}");
    assert!(found["hubs"][0]["doneBy"] == found["replica"]["name"], "{:#}", found["hubs"]);
    let found = crate::status::until(&daemon, "the status shows the completed backfill", |found| {
        found["hubs"][0]["backfillCompleted"].is_string() && found["hubs"][0]["scan"].is_null()
    })
    .await;
    assert_eq!(found["hubs"][0]["backfill"]["created"], 330, "{:#}", found["hubs"]);
    daemon.stop().await.unwrap_or_else(|error| panic!("{error}"));
}
