//! Records scrapes of real outages, for the tests of the alert rules.
//!
//! `TWINSYNC_RECORD_SCRAPES=DIR cargo test -p twinsync --test it -- --ignored monitoring::outages::record` causes each outage on its own
//! daemon, all at the same time and at their full length (half an hour). It writes the answers of `/metrics`, one every 15 seconds, to
//! `DIR`. No duration is shortened, because the rules are tested as they are shipped.

use std::{
    fmt::Write as _,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use devkit::{
    cosmos::{Fault, Faults, Operations},
    daemon::{Daemon, Signal},
    proxy::Proxy,
};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::poison;
use crate::{
    outage::proxied_blobs,
    registry::bench::{Bench, FAST},
    world::{World, create, report},
};

/// The scrape interval that the unit tests of the rules use. Usual intervals of Prometheus are up to a minute.
const INTERVAL: Duration = Duration::from_secs(15);
/// Time of normal operation before the outage.
const BEFORE: Duration = Duration::from_secs(180);
/// Time that is recorded after the outage.
const AFTER: Duration = Duration::from_secs(480);
/// The number of devices. One of them reports each second.
const DEVICES: usize = 8;

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

/// A fault with a beginning and an end.
trait Disturbance {
    /// Begins the fault.
    async fn begin(&mut self, world: &World, daemon: &mut Option<Daemon>);
    /// Ends the fault.
    async fn end(&mut self, world: &World, daemon: &mut Option<Daemon>);
}

/// Records an outage of this length.
async fn record(name: &str, world: &World, lasts: Duration, mut trouble: impl Disturbance) {
    let directory = std::env::var_os("TWINSYNC_RECORD_SCRAPES");
    let directory = PathBuf::from(directory.expect("TWINSYNC_RECORD_SCRAPES names a directory"));
    std::fs::create_dir_all(&directory).expect("a directory");
    let mut daemon = Some(world.start().await);
    for number in 0..DEVICES {
        world.apply(create(&format!("pump-{number}")));
    }
    world.same().await;
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    let (begins, ends) = (BEFORE, BEFORE + lasts);
    let mut text = format!("# {name} {} {} {unix}\n", begins.as_secs(), ends.as_secs());
    let started = Instant::now();
    scrape_until(started, begins, world, &daemon, &mut text).await;
    trouble.begin(world, &mut daemon).await;
    scrape_until(started, ends, world, &daemon, &mut text).await;
    trouble.end(world, &mut daemon).await;
    scrape_until(started, ends + AFTER, world, &daemon, &mut text).await;
    std::fs::write(directory.join(format!("{name}.scrapes")), text).expect("written");
    world.same().await;
    daemon.expect("it runs again").stop().await.expect("exit code 0");
}

/// Scrapes at every multiple of the interval, while one device reports each second.
async fn scrape_until(
    started: Instant,
    end: Duration,
    world: &World,
    daemon: &Option<Daemon>,
    text: &mut String,
) {
    let mut round = started.elapsed().as_secs();
    loop {
        let due = Duration::from_secs(round);
        if due >= end {
            return;
        }
        sleep_until(started + due).await;
        if round.is_multiple_of(INTERVAL.as_secs()) {
            let _ = writeln!(text, "# scrape {round}");
            // Without an answer there is no scrape, and `up` is 0.
            if let Some(daemon) = daemon
                && let Ok((200, metrics)) = daemon.get("/metrics").await
            {
                text.extend(
                    metrics.lines().filter(|line| !line.starts_with('#')).flat_map(|line| [line, "\n"]),
                );
            }
        }
        let device = format!("pump-{}", round as usize % DEVICES);
        world.apply(report(&device, json!({"round": round})));
        round += 1;
    }
}

/// A proxy that refuses connections.
struct Way(Proxy);

impl Disturbance for Way {
    async fn begin(&mut self, _: &World, _: &mut Option<Daemon>) {
        self.0.refuse();
    }

    async fn end(&mut self, _: &World, _: &mut Option<Daemon>) {
        self.0.admit();
    }
}

/// A proxy that forwards no bytes.
struct Hole(Proxy);

impl Disturbance for Hole {
    async fn begin(&mut self, _: &World, _: &mut Option<Daemon>) {
        self.0.freeze();
    }

    async fn end(&mut self, _: &World, _: &mut Option<Daemon>) {
        self.0.thaw();
    }
}

/// A Cosmos DB account with these faults.
struct Account(Faults);

impl Disturbance for Account {
    async fn begin(&mut self, world: &World, _: &mut Option<Daemon>) {
        world.stack.cosmos().set_faults(self.0.clone()).expect("valid");
    }

    async fn end(&mut self, world: &World, _: &mut Option<Daemon>) {
        world.stack.cosmos().set_faults(Faults::default()).expect("valid");
    }
}

/// A missing directory of dead letters, and an event that becomes a dead letter.
struct Letters;

impl Letters {
    fn paths(world: &World) -> (PathBuf, PathBuf) {
        (world.directory.path().join("dead-letters"), world.directory.path().join("aside"))
    }
}

impl Disturbance for Letters {
    async fn begin(&mut self, world: &World, _: &mut Option<Daemon>) {
        let (letters, aside) = Self::paths(world);
        std::fs::rename(&letters, &aside).expect("moved");
        std::fs::write(&letters, b"").expect("written");
        poison(world, "pump-0");
    }

    async fn end(&mut self, world: &World, _: &mut Option<Daemon>) {
        let (letters, aside) = Self::paths(world);
        std::fs::remove_file(&letters).expect("removed");
        std::fs::rename(&aside, &letters).expect("moved back");
    }
}

/// An IoT hub that refuses connections while twins are flagged.
struct Registry(Proxy);

impl Disturbance for Registry {
    async fn begin(&mut self, world: &World, _: &mut Option<Daemon>) {
        self.0.refuse();
        poison(world, "pump-0");
    }

    async fn end(&mut self, _: &World, _: &mut Option<Daemon>) {
        self.0.admit();
    }
}

/// A process that was killed.
struct Gone;

impl Disturbance for Gone {
    async fn begin(&mut self, _: &World, daemon: &mut Option<Daemon>) {
        if let Some(daemon) = daemon.take() {
            daemon.end(Signal::Kill).await.expect("killed");
        }
    }

    async fn end(&mut self, world: &World, daemon: &mut Option<Daemon>) {
        *daemon = Some(world.start().await);
    }
}

/// Event Hubs that throttle.
struct Busy;

impl Disturbance for Busy {
    async fn begin(&mut self, world: &World, _: &mut Option<Daemon>) {
        world.stack.broker().faults().throttle(true);
    }

    async fn end(&mut self, world: &World, _: &mut Option<Daemon>) {
        world.stack.broker().faults().throttle(false);
    }
}

async fn through_a_proxy() -> (World, Proxy) {
    let mut world = World::new().await;
    let proxy = Proxy::start(world.stack.broker().address()).await.expect("a port");
    world.configure(&format!("[eventhubs]\nendpoint = \"amqp://{}\"\n", proxy.address()));
    (world, proxy)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes half an hour"]
async fn record_eventhubs_refused() {
    let (world, proxy) = through_a_proxy().await;
    record("eventhubs_refused", &world, minutes(9), Way(proxy)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes half an hour"]
async fn record_eventhubs_hanging() {
    let (world, proxy) = through_a_proxy().await;
    record("eventhubs_hanging", &world, minutes(9), Hole(proxy)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes half an hour"]
async fn record_eventhubs_throttled() {
    let world = World::new().await;
    record("eventhubs_throttled", &world, minutes(18), Busy).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes half an hour"]
async fn record_cosmos_down() {
    let world = World::new().await;
    record("cosmos_down", &world, minutes(9), Account(Faults { outage: true, ..Faults::default() })).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes half an hour"]
async fn record_cosmos_throttled() {
    let world = World::new().await;
    // Only some requests are throttled, as when other clients use most of the throughput.
    let some = Fault { next: None, probability: 0.7, retry_after_ms: 200, ..Fault::next(429, 1) };
    let faults = Faults { answers: vec![some.on(Operations::Documents)], ..Faults::default() };
    record("cosmos_throttled", &world, minutes(22), Account(faults)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes half an hour"]
async fn record_dead_letters_unwritable() {
    let world = World::new().await;
    record("dead_letters_unwritable", &world, minutes(14), Letters).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes half an hour"]
async fn record_iothub_refused() {
    let mut bench = Bench::new(FAST, "").await;
    let proxy = Proxy::start(bench.world.stack.registry().address()).await.expect("a port");
    let endpoint = format!("http://{}", proxy.address());
    bench.world.setup = bench.world.setup.clone().with_variable("TWINSYNC__IOTHUB__ENDPOINT", endpoint);
    record("iothub_refused", &bench.world, minutes(20), Registry(proxy)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes half an hour"]
async fn record_checkpoints_refused() {
    let (world, proxy) = proxied_blobs("").await;
    record("checkpoints_refused", &world, minutes(9), Way(proxy)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes half an hour"]
async fn record_replica_gone() {
    let world = World::new().await;
    record("replica_gone", &world, minutes(9), Gone).await;
}
