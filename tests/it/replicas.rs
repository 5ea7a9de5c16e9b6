//! Several replicas with one checkpoint container in Azurite: partitions are shared, taken over, and never lost.
//!
//! `TWINSYNC_FAULT_SECONDS` sets the length of the tests under load. The default keeps the suite short.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use devkit::{
    daemon::{Daemon, Setup, Signal},
    fleet::{Pace, Plan},
    proxy::Proxy,
    stack::Options,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    counts,
    figures::Figures,
    world::{LIMIT, PROGRAM, World, create, report, until},
};

/// Leases short enough for a test.
const SHORT: &str = "[lease]\nduration = \"3s\"\nrenew_interval = \"600ms\"\n";

fn seconds(default: u64) -> Duration {
    let seconds = std::env::var("TWINSYNC_FAULT_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(default))
}

/// The files of one replica. All replicas share the checkpoint container.
pub(crate) struct Replica {
    setup: Setup,
    directory: TempDir,
}

impl Replica {
    /// The time of the latest log line with `what`, for each partition as `stream/partition`.
    fn said(&self, what: &str) -> BTreeMap<String, String> {
        let log = std::fs::read_to_string(self.directory.path().join("log")).expect("readable");
        let lines = log.lines().filter(|line| line.contains(what)).filter_map(|line| {
            let (time, _) = line.split_once(' ')?;
            let field = |name: &str| Some(line.split_once(name)?.1.split([' ', ',']).next()?.to_owned());
            Some((format!("{}/{}", field("stream=")?, field("partition=")?), time.to_owned()))
        });
        lines.collect()
    }
}

async fn world() -> World {
    World::with(Options { azurite: true, ..Options::default() }, "").await
}

pub(crate) fn replica(world: &World, more: &str) -> Replica {
    let url = world.stack.endpoints().checkpoint_container_url.clone().expect("Azurite runs");
    replica_at(world, &url, more)
}

/// With its own URL of the storage.
fn replica_at(world: &World, url: &str, more: &str) -> Replica {
    let directory = tempfile::tempdir().expect("a directory");
    let endpoints = world.stack.endpoints();
    let more = format!(
        "[checkpoint]\nstore = \"blob\"\ninterval = \"500ms\"\n[blob]\ncontainer_url = \"{url}\"\n{more}"
    );
    let setup = Setup::new(Path::new(PROGRAM), directory.path(), endpoints, &more).expect("written");
    Replica { setup, directory }
}

pub(crate) async fn start(replica: &Replica) -> Daemon {
    replica.setup.start().await.unwrap_or_else(|error| panic!("{error}"))
}

async fn owned(daemon: &mut Daemon) -> u64 {
    daemon.sample().await.expect("metrics").count("twinsync_partitions_owned", "")
}

/// Both Event Hubs have two partitions each.
const PARTITIONS: u64 = 4;

async fn owns(daemon: &mut Daemon, partitions: u64) {
    let what = format!("the replica owns {partitions} partitions");
    until(daemon, &what, |sample| sample.count("twinsync_partitions_owned", "") == partitions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_shared_and_a_clean_stop_is_taken_over_within_two_seconds() {
    let world = world().await;
    // The default leases: a clean stop must be noticed quickly without a setting.
    let (first, second) = (replica(&world, ""), replica(&world, ""));
    let mut a = start(&first).await;
    owns(&mut a, PARTITIONS).await;
    world.apply(create("pump"));
    world.equal().await;
    let mut b = start(&second).await;
    owns(&mut b, PARTITIONS / 2).await;
    owns(&mut a, PARTITIONS / 2).await;
    for step in 0..50 {
        world.apply(report("pump", json!({"step": step})));
    }
    world.equal().await;
    a.stop().await.expect("exit code 0");
    let stopped = Instant::now();
    owns(&mut b, PARTITIONS).await;
    let taken_over = stopped.elapsed();
    assert!(taken_over < Duration::from_secs(2), "taken over after {taken_over:?}");
    world.apply(report("pump", json!({"step": "after"})));
    world.equal().await;
    // A rolling restart: the replicas restart in turn, and events flow in between.
    let a = start(&first).await;
    owns(&mut b, PARTITIONS / 2).await;
    b.stop().await.expect("exit code 0");
    world.apply(report("pump", json!({"step": "rolled"})));
    world.equal().await;
    println!("took over {taken_over:?} after a clean stop");
    a.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_replicas_under_load_loses_nothing() {
    let world = world().await;
    let more = format!("{SHORT}{}", counts::COUNTS);
    let replicas: Vec<_> = (0..3).map(|_| replica(&world, &more)).collect();
    let mut daemons = Vec::new();
    for replica in &replicas {
        daemons.push((replica, start(replica).await));
    }
    world.replays(51);
    let time = seconds(12);
    let rate = 300.0;
    let plan = Plan {
        devices: 60,
        events: (rate * time.as_secs_f64()) as u64,
        seed: 51,
        phases: 1, // deleted ids stay deleted, so the fleet never waits for the daemon
        ..Plan::default()
    };
    world.stack.fleet().start(plan, Pace::Rate(rate)).expect("the fleet starts");
    let mut random = StdRng::seed_from_u64(51);
    let began = Instant::now();
    let mut figures = Figures::of("kill -9 of a random replica of three, every 2 s under load");
    let mut killed = 0;
    while began.elapsed() < time {
        tokio::time::sleep(Duration::from_secs(2)).await; // the time under load
        let (replica, victim) = daemons.swap_remove(random.random_range(0..daemons.len()));
        victim.end(Signal::Kill).await.expect("killed");
        daemons.push((replica, replica.setup.spawn().expect("starts")));
        killed += 1;
    }
    figures.injected(format!("{killed} kills"));
    figures.over();
    let progress = world.stack.fleet().phase_end().await;
    assert!(progress.error.is_none(), "{progress:?}");
    figures.equal(&world).await;
    world.apply(create("fresh"));
    world.equal().await;
    for (_, mut daemon) in daemons {
        daemon.ready().await.expect("alive");
        counts::are_the_hubs(&world, &daemon).await;
        daemon.stop().await.expect("exit code 0");
    }
}

/// Both replicas consume all partitions for the whole test. With leases this is possible for a moment.
#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_that_both_believe_to_own_everything_do_no_harm() {
    let world = World::with(Options::default(), "[checkpoint]\nstore = \"memory\"\n").await;
    let second = tempfile::tempdir().expect("a directory");
    let other = Setup::new(
        Path::new(PROGRAM),
        second.path(),
        world.stack.endpoints(),
        "[checkpoint]\nstore = \"memory\"\n",
    )
    .expect("written");
    let a = world.start().await;
    let mut b = other.start().await.unwrap_or_else(|error| panic!("{error}"));
    world.fleet(crate::world::plan(40, 2_500, 52)).await;
    let sample = b.sample().await.expect("metrics");
    assert!(sample.count("twinsync_events_total", "") > 0, "the second replica handled no event");
    a.stop().await.expect("exit code 0");
    b.stop().await.expect("exit code 0");
}

/// Kinds of storage outages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outage {
    /// Connections are refused.
    Refuses,
    /// Connections are open, but no request is answered.
    Hangs,
}

async fn storage_is_away_for_longer_than_a_lease(outage: Outage) {
    let world = world().await;
    let (first, second) = (replica(&world, SHORT), replica(&world, SHORT));
    let (mut a, mut b) = (start(&first).await, start(&second).await);
    owns(&mut b, PARTITIONS / 2).await;
    world.apply(create("pump"));
    world.equal().await;
    let mut figures = Figures::of(format!("storage {outage:?} for longer than a lease, two replicas"));
    let azurite = world.stack.azurite().expect("Azurite runs");
    let began = Instant::now();
    match outage {
        Outage::Refuses => azurite.stop().await.expect("stops"),
        Outage::Hangs => azurite.pause().await.expect("freezes"),
    }
    // A replica that cannot renew its leases must give up its partitions.
    owns(&mut a, 0).await;
    owns(&mut b, 0).await;
    world.apply(report("pump", json!({"while": "away"})));
    tokio::time::sleep(seconds(4)).await; // the outage has a fixed length
    match outage {
        Outage::Refuses => azurite.restart().await.expect("starts again"),
        Outage::Hangs => azurite.resume().await.expect("thaws"),
    }
    figures.injected(format!("{:.1} s", began.elapsed().as_secs_f64()));
    figures.over();
    figures.equal(&world).await;
    let deadline = Instant::now() + LIMIT;
    while owned(&mut a).await + owned(&mut b).await != PARTITIONS {
        assert!(Instant::now() < deadline, "not all partitions are owned again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    a.stop().await.expect("exit code 0");
    b.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_that_is_away_for_longer_than_a_lease_is_waited_out() {
    storage_is_away_for_longer_than_a_lease(Outage::Refuses).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_that_hangs_for_longer_than_a_lease_is_waited_out() {
    storage_is_away_for_longer_than_a_lease(Outage::Hangs).await;
}

/// Only the first replica's connection to storage hangs, so the second takes over when the leases have ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_storage_hangs_has_stopped_before_another_takes_over() {
    let world = world().await;
    let url = world.stack.endpoints().checkpoint_container_url.clone().expect("Azurite runs");
    let storage = url.trim_start_matches("http://").split('/').next().expect("an address").to_owned();
    let proxy = Proxy::start(storage.parse().expect("an address")).await.expect("a port");
    let own_way = url.replace(&storage, &proxy.address().to_string());
    let (first, second) = (replica_at(&world, &own_way, SHORT), replica(&world, SHORT));
    let (mut a, mut b) = (start(&first).await, start(&second).await);
    owns(&mut a, PARTITIONS / 2).await;
    owns(&mut b, PARTITIONS / 2).await;
    world.apply(create("pump"));
    world.equal().await;
    let mut figures = Figures::of("storage hangs for one replica of two, longer than its lease");
    let before = second.said("took over a partition");
    proxy.freeze();
    let began = Instant::now();
    world.apply(report("pump", json!({"step": "while frozen"})));
    owns(&mut b, PARTITIONS).await;
    // The count is current at once. It does not wait for the storage.
    let sample = a.sample().await.expect("metrics");
    assert_eq!(sample.count("twinsync_partitions_owned", ""), 0, "a partition is counted by two replicas");
    let stopped = first.said("the lease could not be renewed in time");
    let mut taken = second.said("took over a partition");
    taken.retain(|partition, time| before.get(partition) != Some(time));
    assert_eq!(stopped.len() as u64, PARTITIONS / 2, "{stopped:?}\n{}", a.log());
    assert_eq!(taken.keys().collect::<Vec<_>>(), stopped.keys().collect::<Vec<_>>());
    for (partition, time) in &stopped {
        // Timestamps of one clock in one format, so they compare as text.
        assert!(*time < taken[partition], "{partition}: stopped {time}, taken {}", taken[partition]);
    }
    let handled = a.sample().await.expect("metrics").count("twinsync_events_total", "");
    for step in 0..20 {
        world.apply(report("pump", json!({"step": step})));
    }
    world.equal().await;
    let since = a.sample().await.expect("metrics").count("twinsync_events_total", "");
    assert_eq!(since, handled, "it must receive nothing without a lease");
    proxy.thaw();
    figures.injected(format!("{:.1} s", began.elapsed().as_secs_f64()));
    figures.over();
    owns(&mut a, PARTITIONS / 2).await;
    world.apply(report("pump", json!({"step": "after"})));
    figures.equal(&world).await;
    a.stop().await.expect("exit code 0");
    b.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_replica_shows_whose_the_partitions_are() {
    let world = world().await;
    let (one, other) = (replica(&world, SHORT), replica(&world, SHORT));
    let (first, second) = (start(&one).await, start(&other).await);
    let shared = |found: &Value| {
        let partitions = found["partitions"].as_array().expect("a list");
        let owners = |ours: bool| {
            let some = partitions.iter().filter(move |partition| partition["ours"] == ours);
            some.map(|partition| partition["owner"].as_str()).collect::<Vec<_>>()
        };
        let me = found["replica"]["name"].as_str();
        let theirs = |owner: &Option<&str>| owner.is_some() && *owner != me;
        owners(true) == [me, me] && owners(false).len() == 2 && owners(false).iter().all(theirs)
    };
    crate::status::until(&first, "the status shows two partitions for each replica", shared).await;
    crate::status::until(&second, "the status shows two partitions for each replica", shared).await;
    first.stop().await.expect("exit code 0");
    let all = |found: &Value| {
        found["partitions"].as_array().expect("a list").iter().all(|partition| partition["ours"] == true)
    };
    crate::status::until(&second, "the other replica owns all partitions", all).await;
    second.stop().await.expect("exit code 0");
}

/// Sends a signal that the daemon cannot handle.
fn tell(daemon: &Daemon, signal: &str) {
    let id = daemon.id().expect("it runs").to_string();
    let sent = std::process::Command::new("kill").args([signal, &id]).status().expect("kill runs");
    assert!(sent.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lag_of_what_another_replica_owns_is_told_from_its_checkpoints() {
    let world = world().await;
    // Leases so long that a frozen replica keeps its partitions.
    let long = "[lease]\nduration = \"10m\"\nrenew_interval = \"2s\"\n";
    let (first, second) = (replica(&world, long), replica(&world, long));
    let (mut a, mut b) = (start(&first).await, start(&second).await);
    owns(&mut a, PARTITIONS / 2).await;
    owns(&mut b, PARTITIONS / 2).await;
    for number in 0..40 {
        world.apply(create(&format!("pump-{number}")));
        world.apply(report(&format!("pump-{number}"), json!({"step": 0})));
    }
    world.equal().await;
    let theirs = |found: &Value| {
        let partitions = found["partitions"].as_array().expect("a list").iter();
        let theirs: Vec<_> = partitions.filter(|found| found["ours"] == false).cloned().collect();
        assert_eq!(theirs.len() as u64, PARTITIONS / 2, "{theirs:#?}");
        theirs
    };
    let sum = |theirs: &[Value]| theirs.iter().filter_map(|found| found["lagEvents"].as_u64()).sum::<u64>();
    // The other replica's checkpoints are read. Without checkpoints the lag would be the whole partition.
    crate::status::until(&a, "the partitions of the other replica have no lag", |found| {
        theirs(found).iter().all(|found| found["lagEvents"] == 0)
    })
    .await;
    // The frozen replica keeps its leases and does nothing.
    tell(&b, "-STOP");
    for number in 0..40 {
        world.apply(report(&format!("pump-{number}"), json!({"step": 1})));
    }
    let found = crate::status::until(&a, "the status shows the lag of the other replica", |found| {
        theirs(found).iter().all(|found| found["lagEvents"].is_u64()) && sum(&theirs(found)) > 0
    })
    .await;
    for partition in theirs(&found) {
        assert_eq!((&partition["basis"], &partition["state"]), (&json!("checkpoint"), &json!("elsewhere")));
        assert!(partition["lagMeasured"].is_string() && partition["reason"].is_null(), "{partition:#}");
        if partition["lagEvents"].as_u64() > Some(0) {
            assert!(partition["retentionUsed"].as_f64().is_some_and(|used| used > 0.0), "{partition:#}");
            assert!(partition["lagSeconds"].as_f64().is_some_and(|least| least < 60.0), "{partition:#}");
            assert!(partition["checkpointAgeSeconds"].is_f64(), "{partition:#}");
        }
    }
    assert!(found["flow"]["lagEvents"] == 0, "its own lag must be 0: {:#}", found["flow"]);
    tell(&b, "-CONT");
    world.equal().await;
    for daemon in [a, b] {
        daemon.stop().await.expect("exit code 0");
    }
}
