//! The headline in each outage with the default settings: its text, how long after the beginning it appears, and how long after
//! the end it is gone. Prints a table.
//!
//! It takes a few minutes: `cargo test -p twinsync --test it -- --ignored outage::timed --nocapture`.

use std::time::{Duration, Instant};

use devkit::{daemon::Daemon, proxy::Proxy};
use serde_json::{Value, json};

use super::checkpoints;
use crate::{
    flag::now,
    poison::twin_change,
    registry::bench::{Bench, FAST},
    world::{World, create, report},
};

/// How often the headline is read.
const READ: Duration = Duration::from_millis(50);
/// Time limit of every wait.
const WAIT_LIMIT: Duration = Duration::from_secs(180);

/// An outage and its measured headline.
struct Seen {
    outage: &'static str,
    sentence: String,
    shown_after: Duration,
    gone_after: Duration,
}

/// The expected headline of an outage.
struct Expected {
    outage: &'static str,
    /// Parts of the text.
    says: &'static [&'static str],
    shown_within: Duration,
    gone_within: Duration,
}

async fn headline(daemon: &Daemon) -> (String, String) {
    let (_, text) = daemon.get("/api/status").await.expect("answers");
    let status: Value = serde_json::from_str(&text).expect("JSON");
    let field = |name: &str| status["headline"][name].as_str().expect("a text").to_owned();
    (field("level"), field("text"))
}

/// Waits for a headline that satisfies `wanted`. Returns its text and the time it took.
async fn until(daemon: &Daemon, what: &str, wanted: impl Fn(&str, &str) -> bool) -> (String, Duration) {
    let started = Instant::now();
    loop {
        let (level, text) = headline(daemon).await;
        if wanted(&level, &text) {
            return (text, started.elapsed());
        }
        assert!(
            started.elapsed() < WAIT_LIMIT,
            "timed out waiting until {what}; the headline is {level}: {text}\n{}",
            daemon.log()
        );
        tokio::time::sleep(READ).await;
    }
}

async fn watch(
    daemon: &Daemon,
    expected: &Expected,
    begin: impl AsyncFnOnce(),
    end: impl AsyncFnOnce(),
) -> Seen {
    until(daemon, "the headline is good before the outage", |level, _| level == "good").await;
    begin().await;
    let says =
        |level: &str, text: &str| level != "good" && expected.says.iter().all(|part| text.contains(part));
    let (sentence, shown_after) =
        until(daemon, &format!("the headline reports: {}", expected.outage), says).await;
    // It must stay until the end, whatever else is reported.
    let (level, text) = headline(daemon).await;
    assert_ne!(level, "good", "{text}");
    end().await;
    let (_, gone_after) =
        until(daemon, "the headline is good after the outage", |level, _| level == "good").await;
    let seen = Seen { outage: expected.outage, sentence, shown_after, gone_after };
    assert!(seen.shown_after <= expected.shown_within, "{}: shown after {:?}", seen.outage, seen.shown_after);
    assert!(seen.gone_after <= expected.gone_within, "{}: gone after {:?}", seen.outage, seen.gone_after);
    seen
}

fn devices(world: &World, name: &str) {
    for number in 0..8 {
        world.apply(create(&format!("{name}-{number}")));
    }
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

async fn event_hubs() -> Vec<Seen> {
    let mut world = World::new().await;
    let proxy = Proxy::start(world.stack.broker().address()).await.expect("a port");
    world.configure(&format!("[eventhubs]\nendpoint = \"amqp://{}\"\n", proxy.address()));
    let daemon = world.start().await;
    devices(&world, "pump");
    world.equal().await;
    let refused = Expected {
        outage: "Event Hubs refuses connections",
        says: &["Blocked: ", " since ", "EVENTHUBS_UNAVAILABLE"],
        shown_within: seconds(20),
        gone_within: seconds(40),
    };
    let hangs = Expected {
        outage: "Event Hubs hangs",
        says: &["Blocked: the Event Hub ", " has not answered since "],
        shown_within: seconds(60),
        gone_within: seconds(60),
    };
    let mut seen = vec![watch(&daemon, &refused, async || proxy.refuse(), async || proxy.admit()).await];
    seen.push(watch(&daemon, &hangs, async || proxy.freeze(), async || proxy.thaw()).await);
    daemon.stop().await.expect("exit code 0");
    seen
}

async fn cosmos() -> Vec<Seen> {
    let world = World::new().await;
    let daemon = world.start().await;
    devices(&world, "pump");
    world.equal().await;
    let expected = Expected {
        outage: "Cosmos DB answers 503",
        says: &["Blocked: the document store has not answered since ", "next try in "],
        shown_within: seconds(20),
        gone_within: seconds(40),
    };
    let begin = async || {
        world.cosmos_is_away(true);
        devices(&world, "valve");
    };
    let seen = watch(&daemon, &expected, begin, async || world.cosmos_is_away(false)).await;
    daemon.stop().await.expect("exit code 0");
    vec![seen]
}

async fn dead_letters() -> Vec<Seen> {
    let world = World::new().await;
    let daemon = world.start().await;
    devices(&world, "pump");
    world.equal().await;
    let letters = world.directory.path().join("dead-letters");
    let aside = world.directory.path().join("aside");
    let expected = Expected {
        outage: "dead-letter directory cannot be written",
        says: &["Blocked: ", " waits for the dead-letter store since ", "next try in "],
        shown_within: seconds(10),
        gone_within: seconds(40),
    };
    let begin = async || {
        std::fs::rename(&letters, &aside).expect("moved");
        std::fs::write(&letters, b"").expect("written");
        let hub = &world.stack.endpoints().twin_changes_hub;
        world.stack.broker().append(hub, "pump-0", now(twin_change("pump-0", b"[1]"))).expect("appended");
    };
    let end = async || {
        std::fs::remove_file(&letters).expect("removed");
        std::fs::rename(&aside, &letters).expect("moved back");
    };
    let seen = watch(&daemon, &expected, begin, end).await;
    daemon.stop().await.expect("exit code 0");
    vec![seen]
}

async fn checkpoint_store() -> Vec<Seen> {
    let (world, proxy) = checkpoints::proxied("").await;
    let daemon = world.start().await;
    devices(&world, "pump");
    world.equal().await;
    let expected = Expected {
        outage: "checkpoint store refuses connections",
        says: &["Blocked: the checkpoint store", " has not answered since "],
        shown_within: seconds(40),
        gone_within: seconds(60),
    };
    let begin = async || {
        proxy.refuse();
        world.apply(report("pump-0", json!({"while": "away"})));
    };
    let seen = watch(&daemon, &expected, begin, async || proxy.admit()).await;
    daemon.stop().await.expect("exit code 0");
    vec![seen]
}

async fn iot_hub() -> Vec<Seen> {
    let mut bench = Bench::new(FAST, "").await;
    let proxy = Proxy::start(bench.world.stack.registry().address()).await.expect("a port");
    let endpoint = format!("http://{}", proxy.address());
    bench.world.setup = bench.world.setup.clone().with_variable("TWINSYNC__IOTHUB__ENDPOINT", endpoint);
    let world = &bench.world;
    let daemon = world.start().await;
    devices(world, "pump");
    world.equal().await;
    let expected = Expected {
        outage: "IoT Hub refuses connections",
        says: &["In step, but the registry of the IoT hub ", " has not answered since "],
        shown_within: seconds(30),
        gone_within: seconds(90),
    };
    let begin = async || {
        proxy.refuse();
        let hub = &world.stack.endpoints().twin_changes_hub;
        for number in 0..4 {
            let device = format!("pump-{number}");
            let poison = now(twin_change(&device, b"[1]"));
            world.stack.broker().append(hub, &device, poison).expect("appended");
        }
    };
    let seen = watch(&daemon, &expected, begin, async || proxy.admit()).await;
    daemon.stop().await.expect("exit code 0");
    vec![seen]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes, since settings are as shipped"]
async fn each_outage_is_told_in_one_sentence_within_seconds_and_is_gone_when_it_is_over() {
    let mut seen = event_hubs().await;
    seen.extend(cosmos().await);
    seen.extend(dead_letters().await);
    seen.extend(checkpoint_store().await);
    seen.extend(iot_hub().await);
    println!("| outage | headline | shown after | gone after the fix |\n|---|---|---|---|");
    for Seen { outage, sentence, shown_after, gone_after } in seen {
        let (shown, gone) = (shown_after.as_secs_f64(), gone_after.as_secs_f64());
        println!("| {outage} | {sentence} | {shown:.1} s | {gone:.1} s |");
    }
}
