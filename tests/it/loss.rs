//! Lost events: their retention ends while the daemon runs, or another Event Hub has the same name.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use devkit::{daemon::Daemon, stack::Options};
use serde_json::json;

use crate::{
    registry::bench::{Bench, FAST},
    world::{LIMIT, World, create, device, report, until},
};

/// Limits so small that most events are still in the Event Hub when their retention ends.
const NARROW: &str = "[eventhubs]\nprefetch = 1\n[router]\nmax_in_flight_events = 2\n";

#[derive(Debug, Clone, Copy)]
enum Route {
    Lifecycle,
    TwinChanges,
}

impl Route {
    fn hub(self, world: &World) -> String {
        let endpoints = world.stack.endpoints();
        match self {
            Self::Lifecycle => endpoints.lifecycle_hub.clone(),
            Self::TwinChanges => endpoints.twin_changes_hub.clone(),
        }
    }
}

/// A daemon whose store is down for longer than the retention of one route's events. The store then answers again.
async fn stalled(world: &World, route: Route) -> Daemon {
    let mut daemon = world.start().await;
    for number in 0..8 {
        world.apply(create(&format!("pump-{number}")));
        world.apply(report(&format!("pump-{number}"), json!({"step": "first"})));
    }
    // The documents must come from the streams and not from an audit: the loss of an event is noticed only after another
    // was received.
    let appended = world.appended();
    until(&mut daemon, "all events are counted", |sample| {
        sample.count("twinsync_events_total", "") >= appended
    })
    .await;
    world.equal().await;
    world.cosmos_is_away(true);
    // The daemon must not have received the events that are about to expire, even on a slow machine.
    let (hub, faults) = (route.hub(world), world.stack.broker().faults());
    for partition in 0..2 {
        faults.stall(&hub, partition).expect("exists");
    }
    for step in 0..20 {
        for number in 0..8 {
            let operation = match route {
                Route::Lifecycle => create(&format!("pump-{step}-{number}")),
                Route::TwinChanges => report(&format!("pump-{number}"), json!({"step": step})),
            };
            world.apply(operation);
        }
    }
    for partition in 0..2 {
        faults.expire_before(&hub, partition, 50).expect("exists");
        faults.release(&hub, partition).expect("exists");
    }
    world.cosmos_is_away(false);
    daemon
}

/// Waits for a daemon that ends by itself, and returns the last line of its log.
async fn ends(mut daemon: Daemon) -> String {
    let status = tokio::time::timeout(LIMIT, daemon.ended()).await.expect("it ends").expect("it ran");
    assert_eq!(status.code(), Some(1), "{}", daemon.log());
    daemon.log().lines().last().unwrap_or_default().to_owned()
}

async fn starts_and_ends(world: &World) -> String {
    let output = world.setup.command().stdout(Stdio::null()).stderr(Stdio::piped()).output();
    let output = tokio::time::timeout(LIMIT, output).await.expect("it ends").expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_stops_the_daemon_with_a_code_and_keeps_it_stopped_until_somebody_decides() {
    for route in [Route::Lifecycle, Route::TwinChanges] {
        let mut world = World::with(Options::default(), NARROW).await;
        let last = ends(stalled(&world, route).await).await;
        assert!(last.contains("EVENTS_LOST") && last.contains("checkpoint.on_invalid"), "{route:?}: {last}");
        let again = starts_and_ends(&world).await;
        assert!(
            again.contains("CHECKPOINT_INVALID"),
            "the checkpoint must stay before the lost events: {again}"
        );
        world.configure(&format!("{NARROW}[checkpoint]\non_invalid = \"earliest\"\n"));
        let daemon = world.start().await;
        world.apply(create("fresh"));
        world.apply(report("fresh", json!({"step": "fresh"})));
        daemon.stop().await.expect("exit code 0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_that_may_be_passed_over_is_counted_and_told_and_an_audit_makes_it_good() {
    for route in [Route::Lifecycle, Route::TwinChanges] {
        let more = format!(
            "{NARROW}[checkpoint]\non_invalid = \"earliest_and_audit\"\n[audit]\ntolerance = \"0s\"\n"
        );
        let bench = Bench::new(FAST, &more).await;
        let mut daemon = stalled(&bench.world, route).await;
        until(&mut daemon, "the metric shows lost events", |sample| {
            sample.count("twinsync_events_lost_total", &format!("stream=\"{}\"", route.hub(&bench.world))) > 0
        })
        .await;
        assert!(bench.world.log().contains("EVENTS_LOST"), "{}", bench.world.log());
        bench.world.equal().await;
        daemon.stop().await.expect("exit code 0");
    }
}

/// A daemon that has stopped, and a new Event Hub of the same name that holds more events than the checkpoint's sequence
/// number.
async fn recreated_and_full(more: &str) -> Bench {
    let bench = Bench::new(FAST, more).await;
    let world = &bench.world;
    let daemon = world.start().await;
    for number in 0..8 {
        world.apply(create(&format!("pump-{number}")));
        world.apply(report(&format!("pump-{number}"), json!({"step": 0})));
    }
    world.equal().await;
    daemon.stop().await.expect("exit code 0");
    world.stack.broker().faults().recreate(&world.stack.endpoints().twin_changes_hub).expect("exists");
    for step in 1..10 {
        for number in 0..8 {
            world.apply(report(&format!("pump-{number}"), json!({"a_longer_step": step})));
        }
    }
    bench
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_hub_that_is_ahead_of_the_checkpoint_is_not_taken_for_the_old_one() {
    let bench = recreated_and_full("").await;
    let last = starts_and_ends(&bench.world).await;
    assert!(last.contains("re-created") && last.contains("CHECKPOINT_INVALID"), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_hub_is_read_from_its_beginning_if_configured() {
    let bench = recreated_and_full(
        "[checkpoint]\non_invalid = \"earliest_and_audit\"\n[audit]\ntolerance = \"0s\"\n",
    )
    .await;
    let daemon = bench.start().await;
    bench.world.equal().await;
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_is_recreated_while_the_daemon_runs_is_noticed() {
    let bench =
        Bench::new(FAST, "[checkpoint]\non_invalid = \"earliest_and_audit\"\n[audit]\ntolerance = \"0s\"\n")
            .await;
    let world = &bench.world;
    let mut daemon = world.start().await;
    for step in 0..20 {
        if step == 0 {
            world.apply(create("pump"));
        }
        world.apply(report("pump", json!({"step": step})));
    }
    world.equal().await;
    // An audit may write the documents before the streams do. Only a partition that has received events can notice that
    // its Event Hub is new.
    let started = Instant::now();
    while daemon.sample().await.expect("metrics").count("twinsync_events_total", "") < 21 {
        assert!(started.elapsed() < LIMIT, "not all events were received: {}", world.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.stack.broker().faults().recreate(&world.stack.endpoints().twin_changes_hub).expect("exists");
    // The new Event Hub has fewer events than the old one. A daemon that continues at the old sequence number never
    // receives them.
    world.apply(devkit::iothub::Operation::Report { id: device("pump"), patch: json!({"step": "new hub"}) });
    // An audit that is running may write the document before the new Event Hub is noticed.
    let started = Instant::now();
    while !world.log().contains("CHECKPOINT_INVALID") {
        assert!(started.elapsed() < LIMIT, "the log has no such code: {}", world.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.equal().await;
    daemon.stop().await.expect("exit code 0");
}
