//! `twinsync deadletters` beside a running daemon: events that cannot be applied are listed, then replayed through
//! the normal write path or discarded. A replay never overwrites newer state.

use std::{collections::BTreeMap, path::Path, process::Stdio};

use devkit::{
    broker::{self, Event},
    cosmos::{Counters, Faults},
    daemon::{Daemon, Setup},
    metrics::Sample,
    stack::Options,
    verify::verify,
};
use serde_json::{Value, json};

use crate::{
    poison::twin_change,
    registry::bench::{Bench, FAST},
    world::{LIMIT, PROGRAM, World, create, report, until},
};

/// A size limit above creations and small changes, and below [`big`].
const SMALL: &str = "[document]\nmax_event_size = \"4KiB\"\n";
/// Raises the limit for one command.
const RAISED: [(&str, &str); 1] = [("TWINSYNC__DOCUMENT__MAX_EVENT_SIZE", "1MiB")];

/// Exit code and output of a command.
struct Ended {
    code: i32,
    out: String,
    errors: String,
}

impl Ended {
    /// The lines of one type in the output of `--json`.
    fn lines(&self, kind: &str) -> Vec<Value> {
        let lines = self.out.lines().map(|line| -> Value {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
        });
        lines.filter(|line| line["type"] == kind).collect()
    }

    fn summary(&self) -> Value {
        let summary = self.lines("summary");
        assert_eq!(summary.len(), 1, "{}", self.out);
        summary[0].clone()
    }

    /// The names of the dead letters with one of their fields.
    fn field(&self, field: &str) -> Vec<(String, Value)> {
        let text = |line: &Value| line["letter"].as_str().expect("a name").to_owned();
        self.lines("letter").iter().map(|line| (text(line), line[field].clone())).collect()
    }
}

async fn run_with(world: &World, variables: &[(&str, &str)], arguments: &[&str]) -> Ended {
    let mut command = tokio::process::Command::new(PROGRAM);
    command.arg("deadletters").args(arguments);
    for file in ["twinsync.toml", "more.toml"] {
        command.arg("--config").arg(world.directory.path().join(file));
    }
    command.envs(variables.iter().copied()).env("COSMOS_DISABLE_IMDS", "1").stdin(Stdio::null());
    let output = tokio::time::timeout(LIMIT, command.kill_on_drop(true).output());
    let output = output.await.expect("it ends by itself").expect("runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let ended = Ended {
        code: output.status.code().unwrap_or(-1),
        out: text(&output.stdout),
        errors: text(&output.stderr),
    };
    assert!(!ended.errors.contains("panicked"), "{}", ended.errors);
    let key = world.stack.endpoints().cosmos_key.as_str();
    assert!(!ended.out.contains(key) && !ended.errors.contains(key), "a secret is printed");
    ended
}

async fn run(world: &World, arguments: &[&str]) -> Ended {
    run_with(world, &[], arguments).await
}

async fn letters(daemon: &mut Daemon, count: usize) {
    until(daemon, "the metric shows all dead letters", |sample| {
        sample.count("twinsync_dead_letters_total", "") == count as u64
    })
    .await;
}

/// A change above the limit of [`SMALL`].
fn big(value: u64) -> Value {
    let text = "x".repeat(1_000);
    (0..5).map(|n| (format!("text{n}"), json!(text))).chain([("value".to_owned(), json!(value))]).collect()
}

/// Number of writes to the container so far, by operation.
fn writes(world: &World) -> Vec<u64> {
    let counters: Counters = world.stack.cosmos().counters();
    let requests = |name: &&str| counters.get(*name).map_or(0, |count| count.requests);
    ["create", "replace", "upsert", "delete", "patch", "batch"].iter().map(requests).collect()
}

fn contents(world: &World) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let read = |path: &Path| std::fs::read(path).expect("readable");
    world.files("dead-letters").into_iter().map(|path| (path.clone(), read(&path))).collect()
}

/// Events of two devices that cannot be applied, of three kinds, among valid events.
async fn poisoned(world: &World, daemon: &mut Daemon) {
    let twins = world.stack.endpoints().twin_changes_hub.clone();
    let append = |device: &str, event: Event| {
        world.stack.broker().append(&twins, device, event).expect("appended");
    };
    for device in ["pump", "valve"] {
        world.apply(create(device));
        append(device, twin_change(device, b"{\"version\":"));
        world.apply(report(device, json!({"still": "here"})));
    }
    append("pump", twin_change("pump", b"{\"version\":3,\"tags\":{\"a\":\"\xff\x1b[2J\"}}"));
    append("pump", twin_change("pump", b"{\"tags\":{\"secret\":\"\xc2\x9b2J-word\"}}"));
    letters(daemon, 4).await;
    world.same().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_listed_shown_kept_by_a_replay_and_discarded() {
    let world = World::new().await;
    let mut daemon = world.start().await;
    let none = run(&world, &["list"]).await;
    assert_eq!((none.code, none.out.trim()), (0, "no dead letter matches"));
    poisoned(&world, &mut daemon).await;

    let list = run(&world, &["list"]).await;
    assert_eq!(list.code, 0, "{}", list.errors);
    for word in ["not_json", "not_utf8", "no_version", "pump", "valve", "updateTwin", "4 dead letters"] {
        assert!(list.out.contains(word), "no {word}: {}", list.out);
    }
    assert!(!list.out.contains("-word"), "a payload is listed: {}", list.out);

    let text = run(&world, &["show", "--reason", "no_version"]).await;
    assert_eq!(text.code, 0, "{}", text.errors);
    for word in ["no_version: no usable version", "deviceId", "\"pump\"", "iothub-message-source", "-word"] {
        assert!(text.out.contains(word), "no {word}: {}", text.out);
    }
    assert!(!text.out.contains('\u{9b}'), "a control character in the output");
    let binary = run(&world, &["show", "--reason", "not_utf8", "--json"]).await;
    let shown: Value = serde_json::from_str(&binary.out).expect("one object");
    assert_eq!(shown["application_properties"]["opType"], json!({"text": "updateTwin"}));
    assert!(shown["body"]["base64"].is_string(), "{shown}");
    let several = run(&world, &["show"]).await;
    assert_eq!(several.code, 2, "{}", several.errors);
    assert!(several.errors.contains("several dead letters match"), "{}", several.errors);

    let before = (contents(&world), writes(&world));
    let replay = run(&world, &["replay", "--json"]).await;
    assert_eq!(replay.code, 1, "an event that cannot be applied must stay: {}", replay.errors);
    assert!(replay.errors.contains("4 dead letters still cannot be applied"), "{}", replay.errors);
    assert!(replay.field("outcome").iter().all(|(_, outcome)| outcome == "undeliverable"), "{}", replay.out);
    assert!(replay.out.contains("the body is not valid JSON"), "{}", replay.out);
    assert!(before == (contents(&world), writes(&world)), "something was written or removed");

    let rest = run(&world, &["discard", "--all"]).await;
    assert_eq!(rest.code, 0, "{}", rest.errors);
    assert_eq!(rest.out.matches("  removed").count(), 4, "{}", rest.out);
    assert!(rest.out.contains("4 dead letters removed"), "{}", rest.out);
    assert!(world.files("dead-letters").is_empty());
    world.same().await;
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_over_the_size_limit_is_replayed_after_the_limit_was_raised() {
    let world = World::with(Options::default(), SMALL).await;
    let mut daemon = world.start().await;
    world.apply(create("pump"));
    world.same().await;
    for value in 1..=3 {
        world.apply(report("pump", big(value)));
    }
    letters(&mut daemon, 3).await;
    let differs = Box::pin(verify(world.stack.endpoints())).await.expect("both can be read");
    assert!(!differs.is_equal(), "the changes must be missing");

    let (before, written) = (contents(&world), writes(&world));
    let dry = run_with(&world, &RAISED, &["replay", "--dry-run", "--json"]).await;
    assert_eq!(dry.code, 0, "{}", dry.errors);
    assert_eq!(
        dry.summary()["outcomes"],
        json!({"applied": 3}),
        "each change must be applied to the result of the previous one: {}",
        dry.out
    );
    assert_eq!((&dry.summary()["removed"], &dry.summary()["dry_run"]), (&json!(0), &json!(true)));
    assert!(before == contents(&world) && written == writes(&world), "a dry run changed something");

    let replay = run_with(&world, &RAISED, &["replay", "--reason", "too_large", "--json"]).await;
    assert_eq!(replay.code, 0, "{}", replay.errors);
    assert_eq!(replay.summary()["outcomes"], json!({"applied": 3}), "{}", replay.out);
    assert_eq!(replay.summary()["removed"], 3);
    assert!(replay.field("letter").is_sorted_by_key(|(name, _)| name.rsplit('/').next().map(str::len)));
    assert!(world.files("dead-letters").is_empty());
    let equal = world.same().await;
    assert!(equal.is_equal());

    // The daemon's cache has an older document. The condition of the next write fails, and the daemon reads again.
    world.apply(report("pump", json!({"after": true})));
    world.same().await;
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_of_an_old_event_sets_nothing_back() {
    let world = World::with(Options::default(), SMALL).await;
    let mut daemon = world.start().await;
    world.apply(create("pump"));
    world.same().await;
    world.apply(report("pump", big(1)));
    let emptied: Value = (0..5).map(|n| (format!("text{n}"), Value::Null)).collect();
    world.apply(report("pump", emptied));
    world.apply(report("pump", json!({"value": 2})));
    letters(&mut daemon, 1).await;
    let caught_up = |sample: &Sample| {
        sample.count("twinsync_events_total", "") == 4 && sample.count("twinsync_in_flight_events", "") == 0
    };
    until(&mut daemon, "all four events are completed", caught_up).await;
    let written = writes(&world);

    let dry = run_with(&world, &RAISED, &["replay", "--dry-run"]).await;
    assert_eq!(dry.code, 0, "{}", dry.errors);
    assert!(dry.out.contains("would be duplicate"), "{}", dry.out);
    let replay = run_with(&world, &RAISED, &["replay", "--json"]).await;
    assert_eq!(replay.code, 0, "{}", replay.errors);
    let outcomes: Vec<_> = replay.field("outcome").into_iter().map(|(_, outcome)| outcome).collect();
    assert_eq!(outcomes, ["duplicate"]);
    assert_eq!(replay.lines("letter")[0]["removed"], true);
    assert_eq!(written, writes(&world), "the document must be unchanged");
    assert!(world.files("dead-letters").is_empty());
    let report = Box::pin(verify(world.stack.endpoints())).await.expect("both can be read");
    assert!(report.is_equal(), "newer state was overwritten: {report}");
    assert_eq!(report.flagged, 1, "the document of the skipped event must stay flagged");
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_waits_out_a_store_that_does_not_answer() {
    let world = World::with(Options::default(), SMALL).await;
    let mut daemon = world.start().await;
    world.apply(create("pump"));
    world.same().await;
    world.apply(report("pump", big(1)));
    letters(&mut daemon, 1).await;
    let answers = vec![
        devkit::cosmos::Fault::next(503, 3),
        devkit::cosmos::Fault::next(429, 2),
        devkit::cosmos::Fault::next(500, 1).after(),
    ];
    let faults = Faults { answers, ..Faults::default() };
    world.stack.cosmos().set_faults(faults).expect("valid");
    let replay = run_with(&world, &RAISED, &["replay", "--json"]).await;
    assert_eq!(replay.code, 0, "{}", replay.errors);
    assert_eq!(replay.summary()["outcomes"], json!({"applied": 1}), "{}", replay.out);
    world.stack.cosmos().set_faults(Faults::default()).expect("valid");
    world.same().await;
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_choose_dead_letters_and_scripts_can_read_the_output() {
    let world = World::new().await;
    let mut daemon = world.start().await;
    poisoned(&world, &mut daemon).await;
    let all = run(&world, &["list", "--json"]).await;
    assert_eq!(all.code, 0, "{}", all.errors);
    let names: Vec<String> = all.field("letter").into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), 4, "{}", all.out);
    let first = &all.lines("letter")[0];
    for key in
        ["stream", "partition", "sequence_number", "enqueued", "stored_at", "reason", "detail", "device"]
    {
        assert!(!first[key].is_null(), "no {key}: {first}");
    }
    let group = &all.summary()["reasons"]["not_json"];
    assert_eq!((&all.summary()["letters"], &group["count"]), (&json!(4), &json!(2)));
    assert!(group["first_stored_at"].as_str() <= group["last_stored_at"].as_str(), "{group}");

    let count = async |arguments: &[&str]| {
        let list = run(&world, &[&["list", "--json"], arguments].concat()).await;
        assert_eq!(list.code, 0, "{arguments:?}: {}", list.errors);
        list.lines("letter").len()
    };
    let (stream, rest) = names[0].split_once('/').expect("a stream");
    let (partition, number) = rest.split_once('/').expect("a partition");
    let here = names.iter().filter(|name| name.starts_with(&format!("{stream}/{partition}/"))).count();
    let numbered = names.iter().filter(|name| name.ends_with(&format!("/{number}"))).count();
    for (arguments, expected) in [
        (&["--device", "pump"][..], 3),
        (&["--device", "PUMP"], 0),
        (&["--device", "valve", "--reason", "not_json"], 1),
        (&["--reason", "not_utf8", "--reason", "no_version"], 2),
        (&["--reason", "too_large"], 0),
        (&["--stream", &stream.to_uppercase()], 4),
        (&["--stream", "elsewhere"], 0),
        (&["--partition", partition], here),
        (&["--sequence-number", number], numbered),
        (&["--limit", "2"], 2),
        (&[&names[0]], 1),
        (&[&names[0], &names[1]], 2),
        (&[&format!("{}.json", names[0]), "--device", "nobody"], 0),
    ] {
        assert_eq!(count(arguments).await, expected, "{arguments:?} of {names:?}");
    }
    let limited = run(&world, &["list", "--limit", "1"]).await;
    assert!(limited.out.contains("and 3 more"), "{}", limited.out);

    let before = contents(&world);
    let dry = run(&world, &["discard", "--device", "pump", "--dry-run", "--json"]).await;
    assert_eq!((dry.code, &dry.summary()["removed"]), (0, &json!(0)), "{}", dry.errors);
    assert!(dry.field("removed").iter().all(|(_, removed)| removed == false), "{}", dry.out);
    assert_eq!((dry.lines("letter").len(), before), (3, contents(&world)));
    let discard = run(&world, &["discard", "--device", "pump", "--json"]).await;
    assert_eq!((discard.code, &discard.summary()["removed"]), (0, &json!(3)), "{}", discard.errors);
    assert_eq!(count(&[]).await, 1, "the dead letter of the other device must stay");
    let again = run(&world, &["discard", "--device", "pump"]).await;
    assert_eq!((again.code, again.out.trim()), (0, "no dead letter matches"));
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_refused_with_a_clear_word() {
    let world = World::new().await;
    let mut daemon = world.start().await;
    poisoned(&world, &mut daemon).await;
    let before = contents(&world);
    for (arguments, words) in [
        (&["discard"][..], &["--reason", "--all"][..]),
        (&["discard", "--all", "--device", "pump"], &["cannot be used with"]),
        (&["list", "--reason", "not_jsn"], &["not_jsn", "not_json", "rejected_by_store"]),
        (&["list", "--resaon", "not_json"], &["--resaon", "--reason"]),
        (&["list", "--device", ""], &["--device"]),
        (&["list", "--sequence-number", "seven"], &["--sequence-number", "seven"]),
        (&["replay", "--limit", "3"], &["--limit"]),
        (&["show", "7"], &["stream/partition/sequence number"]),
        (&["remove"], &["remove", "--help"]),
    ] {
        let refused = run(&world, arguments).await;
        assert_eq!(refused.code, 2, "{arguments:?}: {} {}", refused.out, refused.errors);
        for word in words {
            assert!(refused.errors.contains(word), "{arguments:?}: no `{word}` in {}", refused.errors);
        }
    }
    let elsewhere = [("TWINSYNC__DEAD_LETTERS__PATH", "/nowhere/dead-letters")];
    for command in ["list", "replay"] {
        let refused = run_with(&world, &elsewhere, &[command]).await;
        assert_eq!(refused.code, 1, "{}", refused.errors);
        assert!(refused.errors.contains("dead_letters.path"), "{}", refused.errors);
    }
    assert_eq!(before, contents(&world));
    daemon.stop().await.expect("exit code 0");
}

/// A change that became a dead letter because of its size is listed, and replayed with a higher limit. An event
/// that can never be applied is discarded.
pub(crate) async fn round_trip(world: &World) {
    let mut daemon = world.start().await;
    let twins = world.stack.endpoints().twin_changes_hub.clone();
    world.apply(create("pump"));
    world.same().await;
    world.apply(report("pump", big(1)));
    world.stack.broker().append(&twins, "pump", twin_change("pump", b"[")).expect("appended");
    letters(&mut daemon, 2).await;
    let list = run(world, &["list", "--json"]).await;
    assert_eq!(list.code, 0, "{}", list.errors);
    let reasons: Vec<_> = list.field("reason").into_iter().map(|(_, reason)| reason).collect();
    assert_eq!(reasons, ["too_large", "not_json"], "{}", list.out);
    let replay = run_with(world, &RAISED, &["replay", "--json"]).await;
    assert_eq!(replay.code, 1, "the other dead letter must stay: {}", replay.errors);
    let outcomes = json!({"applied": 1, "undeliverable": 1});
    assert_eq!(replay.summary()["outcomes"], outcomes, "{} {}", replay.out, replay.errors);
    world.same().await;
    let discard = run(world, &["discard", "--reason", "not_json", "--json"]).await;
    assert_eq!((discard.code, &discard.summary()["removed"]), (0, &json!(1)), "{}", discard.errors);
    let list = run(world, &["list"]).await;
    assert_eq!((list.code, list.out.trim()), (0, "no dead letter matches"));
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_dead_letter_is_reported_and_the_others_are_replayed() {
    let world = World::with(Options::default(), SMALL).await;
    let mut daemon = world.start().await;
    world.apply(create("pump"));
    world.same().await;
    world.apply(report("pump", json!({"small": true})));
    world.apply(report("pump", big(1)));
    letters(&mut daemon, 1).await;
    let good = world.files("dead-letters").remove(0);
    let directory = good.parent().expect("a partition");
    let whole = std::fs::read(&good).expect("readable");
    // A truncated dead letter before the good one in the listing, and after it a file that is no dead letter.
    std::fs::write(directory.join("0.json"), &whole[..whole.len() / 2]).expect("written");
    std::fs::write(directory.join("foreign.json"), "{}").expect("written");
    let list = run(&world, &["list", "--json"]).await;
    assert_eq!(list.code, 1, "{}", list.errors);
    assert!(list.errors.contains("2 dead letters could not be read"), "{}", list.errors);
    let unreadable = list.lines("unreadable");
    assert_eq!((unreadable.len(), list.lines("letter").len()), (2, 1), "{}", list.out);
    assert_eq!(unreadable[0]["code"], "DEAD_LETTER_DAMAGED");
    let name = unreadable[0]["letter"].as_str().expect("a name").to_owned();

    let replay = run_with(&world, &RAISED, &["replay"]).await;
    assert_eq!(replay.code, 1, "{}", replay.errors);
    assert!(replay.out.contains("1 dead letter: 1 applied; 1 removed"), "{}", replay.out);
    assert!(replay.out.contains("DEAD_LETTER_DAMAGED"), "{}", replay.out);
    world.same().await;

    let all = run(&world, &["discard", "--all"]).await;
    assert_eq!(all.code, 1, "an unreadable dead letter must be removed by its name only: {}", all.out);
    assert_eq!(world.files("dead-letters").len(), 2);
    let foreign = unreadable[1]["letter"].as_str().expect("a name");
    let named = run(&world, &["discard", &name, foreign]).await;
    assert_eq!(named.code, 0, "{}", named.errors);
    assert!(world.files("dead-letters").is_empty(), "{}", named.out);
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_older_than_any_tombstone_restores_no_twin_without_a_flag() {
    const QUICK: &str = "[audit]\ninterval = \"off\"\n[repair]\nscan_interval = \"1s\"\n";
    for with_registry in [true, false] {
        let more = format!("{SMALL}{QUICK}");
        let bench = match with_registry {
            true => Bench::new(FAST, &more).await,
            false => Bench::without_registry(&more).await,
        };
        let mut daemon = bench.start().await;
        let body = json!({"version": 3, "properties": {"reported": big(1)}}).to_string();
        let mut event = twin_change("ghost", body.as_bytes());
        let long_ago = broker::Value::from("2020-01-01T00:00:00.0000000Z");
        event.application_properties.insert("operationTimestamp".into(), long_ago);
        let twins = bench.world.stack.endpoints().twin_changes_hub.clone();
        bench.world.stack.broker().append(&twins, "ghost", event).expect("appended");
        letters(&mut daemon, 1).await;
        let repaired =
            |count| move |sample: &Sample| sample.count("twinsync_twins_corrected_total", "") == count;
        if with_registry {
            until(&mut daemon, "one twin is corrected", repaired(1)).await;
        } else {
            bench.world.flagged(1).await;
        }
        bench.remove("ghost").await; // as Cosmos DB does when the tombstone expires

        // The command runs with the default size limit.
        if with_registry {
            bench.setup(bench.world.directory.path(), FAST, QUICK);
        } else {
            let directory = bench.world.directory.path();
            Setup::new(PROGRAM.as_ref(), directory, bench.world.stack.endpoints(), QUICK).expect("written");
        }
        let dry_run = bench.run(&["deadletters", "replay", "--dry-run"]).await;
        assert!(
            dry_run.code == 0 && dry_run.out.contains("would be suspect"),
            "{}{}",
            dry_run.out,
            dry_run.errors
        );
        let replayed = bench.run(&["deadletters", "replay"]).await;
        assert!(
            replayed.code == 0 && replayed.out.contains("1 suspect"),
            "{}{}",
            replayed.out,
            replayed.errors
        );
        if with_registry {
            until(&mut daemon, "two twins are corrected", repaired(2)).await;
            let end = bench.world.equal().await;
            assert_eq!((end.twins, end.tombstones), (0, 1), "{end}");
        } else {
            bench.world.flagged(1).await;
        }
        daemon.stop().await.expect("exit code 0");
    }
}
