//! The daemon with its checkpoints in blob storage: resuming, and the checkpoints and containers that it
//! refuses.

use std::process::Stdio;

use devkit::{
    azurite::{Permissions, Validity},
    stack::Options,
};
use serde_json::json;

use crate::{
    figures::Figures,
    world::{LIMIT, World, create, report, until},
};

async fn world() -> World {
    World::with(Options { azurite: true, ..Options::default() }, "").await
}

/// Runs the daemon with `url` as its container until it ends by itself. Returns the exit code and the output.
async fn ends(world: &World, url: &str) -> (Option<i32>, String) {
    let mut command = world.setup.command();
    command.env("TWINSYNC__START__REFUSED_GRACE", "0s");
    command.env("TWINSYNC__BLOB__CONTAINER_URL", url).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = tokio::time::timeout(LIMIT, command.output()).await.expect("ends").expect("runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn container(world: &World) -> String {
    world.stack.endpoints().checkpoint_container_url.clone().expect("there is blob storage")
}

/// The names of the checkpoint blobs.
async fn checkpoints(world: &World) -> Vec<String> {
    let url = format!("{}&restype=container&comp=list", container(world));
    let answer = reqwest::Client::new().get(url).header("x-ms-version", "2021-12-02").send().await;
    let listing = answer.expect("an answer").text().await.expect("XML");
    let names = listing.split("<Name>").skip(1).filter_map(|rest| rest.split_once("</Name>"));
    names.map(|(name, _)| name.to_owned()).filter(|name| name.contains("/checkpoint/")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_from_its_checkpoint_on_a_blob() {
    let world = world().await;
    let daemon = world.start().await;
    world.apply(create("pump"));
    for step in 0..40 {
        world.apply(report("pump", json!({"step": step})));
    }
    world.equal().await;
    daemon.stop().await.expect("exit code 0");
    let before = world.appended();
    assert!(!checkpoints(&world).await.is_empty());

    world.apply(report("pump", json!({"step": "while nobody looked"})));
    let missed = world.appended() - before;
    let mut daemon = world.start().await;
    world.equal().await;
    until(&mut daemon, "the missed events are counted", |sample| {
        sample.count("twinsync_events_total", "") >= missed
    })
    .await;
    let handled = daemon.sample().await.expect("metrics").count("twinsync_events_total", "");
    assert_eq!(handled, missed, "it resumes at the checkpoint");

    // An outage of blob storage delays checkpoints and nothing else.
    let azurite = world.stack.azurite().expect("there is blob storage");
    let figures = Figures::of("storage refuses connections, shorter than a lease");
    azurite.stop().await.expect("stops");
    world.apply(report("pump", json!({"step": "during the outage"})));
    figures.equal(&world).await;
    azurite.restart().await.expect("starts again");
    daemon.stop().await.expect("exit code 0");
    let mut daemon = world.start().await;
    let handled = daemon.sample().await.expect("metrics").count("twinsync_events_total", "");
    assert_eq!(handled, 0, "the checkpoint contains all events");
    daemon.stop().await.expect("exit code 0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_another_sdk_left_without_number_stops_it_instead_of_starting_from_zero() {
    let world = world().await;
    let daemon = world.start().await;
    world.apply(create("pump"));
    world.equal().await;
    daemon.stop().await.expect("exit code 0");
    let url = container(&world);
    let (address, query) = url.split_once('?').expect("signed");
    for name in checkpoints(&world).await {
        let request = reqwest::Client::new()
            .put(format!("{address}/{name}?{query}"))
            .header("x-ms-version", "2021-12-02")
            .header("x-ms-blob-type", "BlockBlob")
            .header("content-length", "0")
            .header("x-ms-meta-sequencenumber", "")
            .header("x-ms-meta-offset", "0");
        assert_eq!(request.send().await.expect("an answer").status(), 201);
    }
    let (code, words) = ends(&world, &url).await;
    assert_eq!(code, Some(1), "{words}");
    let last = words.lines().last().unwrap_or_default();
    assert!(last.contains("CHECKPOINT_INVALID") && last.contains("no sequence number"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_cannot_be_used_ends_it_with_one_line_and_no_signature() {
    let world = world().await;
    let azurite = world.stack.azurite().expect("there is blob storage");
    for (url, code) in [
        (azurite.container_url("nowhere", Permissions::All, Validity::Good), "BLOB_CONTAINER_MISSING"),
        (azurite.account_url("twinsync", Validity::Expired), "BLOB_REFUSED"),
    ] {
        let (exit, words) = ends(&world, &url).await;
        let last = words.lines().last().unwrap_or_default();
        assert_eq!(exit, Some(1), "{words}");
        assert!(last.starts_with("error: ") && last.contains(code), "{words}");
        assert!(!words.contains("sig="), "{words}");
    }
}
