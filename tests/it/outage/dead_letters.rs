//! Outages of the dead-letter store: a directory, and blobs.

use std::{os::unix::fs::OpenOptionsExt as _, time::Duration};

use devkit::{
    azurite::Busy,
    broker::{Appended, PartitionState},
};
use serde_json::json;

use super::{BLOCKED_AFTER, BLOCKED_LATER, Ward, checkpoints, rise};
use crate::{
    flag::now,
    poison::twin_change,
    world::{World, report},
};

/// Appends an event that can never be applied.
fn poison(world: &World) -> Appended {
    let hub = &world.stack.endpoints().twin_changes_hub;
    world.stack.broker().append(hub, "pump", now(twin_change("pump", b"[1]"))).expect("appended")
}

/// An outage blocks the partitions with an event for the dead-letter store, and no others.
async fn is_away(world: &World, begin: impl AsyncFn(), end: impl AsyncFn()) {
    let mut ward = Ward::start(world).await;
    begin().await;
    poison(world);
    ward.says(503, "the dead-letter store has not answered").await;
    ward.says(503, "is blocked: its event").await;
    let found = crate::status::until(&ward.daemon, "the headline names the waiting twin", |found| {
        let text = found["headline"]["text"].as_str().expect("a text");
        text.contains(" waits for the dead-letter store since ") && text.starts_with("Blocked: ")
    })
    .await;
    assert_eq!(found["headline"]["level"], "bad");
    world.apply(report("pump", json!({"while": "away"})));
    world.same().await; // the partition handles the events behind it
    ward.until("the metrics show the outage of the dead-letter store", |now, before| {
        now.sum("twinsync_dead_letter_store_up", "") == 0.0
            && now.sum("twinsync_ready", "") == 0.0
            && now.sum("twinsync_oldest_incomplete_event_age_seconds", "") > 1.0
            && now.sum("twinsync_checkpoint_age_seconds", "") > 1.0
            && rise(now, before, "twinsync_dead_letter_failures_total", "reason=\"unavailable\"") >= 2.0
            && rise(now, before, "twinsync_dead_letter_failures_total", "reason=\"throttled\"") == 0.0
    })
    .await;
    ward.assert_logged(
        1,
        &["dead letters are tried again until they are stored; the checkpoints of their partitions wait"],
    );
    end().await;
    is_stored(&mut ward).await;
    assert!(world.log().contains("a dependency answers again"));
    ward.stop().await;
}

/// Waits until everything works and there is one more dead letter.
async fn is_stored(ward: &mut Ward<'_>) {
    ward.until("the metric shows the dead letter", |now, before| {
        rise(now, before, "twinsync_dead_letters_total", "") == 1.0
            && now.sum("twinsync_dead_letter_store_up", "") == 1.0
    })
    .await;
    ward.well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_cannot_be_written_holds_checkpoints_and_nothing_else() {
    let world = World::with(Default::default(), BLOCKED_AFTER).await;
    // A file in place of the directory stops every user, even root, from writing there.
    let (letters, aside) =
        (world.directory.path().join("dead-letters"), world.directory.path().join("aside"));
    let begin = async || {
        std::fs::rename(&letters, &aside).expect("moved");
        std::fs::write(&letters, b"").expect("written");
    };
    let end = async || {
        std::fs::remove_file(&letters).expect("removed");
        std::fs::rename(&aside, &letters).expect("moved back");
    };
    is_away(&world, begin, end).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_hangs_holds_checkpoints_and_nothing_else() {
    let world = World::with(Default::default(), BLOCKED_AFTER).await;
    // A pipe in place of the next dead letter: reading it hangs, like a volume that does not answer.
    let hub = world.stack.endpoints().twin_changes_hub.clone();
    let letters = world.directory.path().join("dead-letters").join(hub.to_lowercase());
    let pipe = |partition: &PartitionState| {
        letters.join(partition.id.to_string()).join(format!("{}.json", partition.last_sequence_number + 1))
    };
    let pipes = std::cell::RefCell::new(Vec::new());
    let begin = async || {
        let next: Vec<_> = world.stack.broker().partitions(&hub).expect("exists").iter().map(pipe).collect();
        for pipe in &next {
            std::fs::create_dir_all(pipe.parent().expect("a directory")).expect("created");
            let made = tokio::process::Command::new("mkfifo").arg(pipe).status().await.expect("runs");
            assert!(made.success());
        }
        pipes.replace(next);
    };
    let end = async || {
        for pipe in pipes.take() {
            // Opening the pipe for writing and closing it gives a reader an empty file. Without a reader,
            // opening fails at once.
            let _ = std::fs::OpenOptions::new().write(true).custom_flags(NON_BLOCKING).open(&pipe);
            std::fs::remove_file(&pipe).expect("removed");
        }
    };
    is_away(&world, begin, end).await;
}

/// `O_NONBLOCK` of Linux.
const NON_BLOCKING: i32 = 0o4000;

/// Dead letters in blobs behind a proxy, and checkpoints in a directory, which works.
async fn blobs() -> (World, devkit::proxy::Proxy) {
    let (mut world, proxy) = checkpoints::world("").await;
    let url = world.stack.endpoints().checkpoint_container_url.clone().expect("Azurite runs");
    let url = url.replace(&checkpoints::storage(&world).to_string(), &proxy.address().to_string());
    let path = world.directory.path().join("checkpoints");
    world.configure(&format!(
        "[blob]\ncontainer_url = \"{url}\"\n[dead_letters]\nstore = \"blob\"\n[checkpoint]\nstore = \"file\"\npath = \"{}\"\n{BLOCKED_LATER}",
        path.display()
    ));
    (world, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_that_refuse_connections_hold_checkpoints_and_nothing_else() {
    let (world, proxy) = blobs().await;
    is_away(&world, async || proxy.refuse(), async || proxy.admit()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_that_hang_hold_checkpoints_and_nothing_else() {
    let (world, proxy) = blobs().await;
    is_away(&world, async || proxy.freeze(), async || proxy.thaw()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_that_are_slow_show_in_the_age_and_that_throttle_are_borne_for_a_while() {
    let (world, proxy) = blobs().await;
    let mut ward = Ward::start(&world).await;
    proxy.delay(Duration::from_millis(300));
    poison(&world);
    ward.until("the age of the oldest incomplete event rises", |now, _| {
        now.sum("twinsync_oldest_incomplete_event_age_seconds", "") > 0.3
    })
    .await;
    ward.until("the metric shows the dead letter", |now, before| {
        rise(now, before, "twinsync_dead_letters_total", "") == 1.0
            && rise(now, before, "twinsync_dead_letter_failures_total", "") == 0.0
    })
    .await;
    ward.stays_ready(Duration::from_secs(1)).await;
    ward.assert_logged(1, &["event dead-lettered"]);
    proxy.delay(Duration::ZERO);
    ward.well().await;

    let busy = Busy::start().await.expect("a port");
    proxy.lead_to(busy.address());
    poison(&world);
    ward.says(200, "the dead-letter store has throttled us").await;
    ward.until("the metric shows throttled dead-letter writes", |now, before| {
        rise(now, before, "twinsync_dead_letter_failures_total", "reason=\"throttled\"") >= 2.0
            && rise(now, before, "twinsync_dead_letter_failures_total", "reason=\"unavailable\"") == 0.0
            && now.sum("twinsync_dead_letter_store_up", "") == 1.0
    })
    .await;
    ward.says(503, "the dead-letter store has throttled us").await;
    ward.assert_logged(1, &["letters are tried again until they are stored"]);
    proxy.lead_to(checkpoints::storage(&world));
    is_stored(&mut ward).await;
    ward.stop().await;
}
