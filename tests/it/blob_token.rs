//! Leases, checkpoints and dead letters with an Entra ID token over HTTPS, in Azurite.

use std::{
    net::SocketAddr,
    path::Path,
    process::Stdio,
    time::{Duration, SystemTime},
};

use devkit::{
    azurite::{Access, Azurite},
    daemon::Setup,
    token::{EVENT_HUBS_AUDIENCE, STORAGE_AUDIENCE, unsigned},
};
use serde_json::json;

use crate::{
    poison::twin_change,
    world::{LIMIT, PROGRAM, World, create, report, until},
};

const HOUR: Duration = Duration::from_secs(3600);

/// A daemon that can use its storage only with its token.
fn replica(world: &World, azurite: &Azurite, directory: &Path, audience: &str) -> Setup {
    let container = format!("{}/twinsync", azurite.endpoint());
    let token = unsigned(audience, SystemTime::now() + HOUR);
    let more = format!(
        "[credential]\ntoken = \"{token}\"\n[checkpoint]\nstore = \"blob\"\ninterval = \"300ms\"\n\
         [dead_letters]\nstore = \"blob\"\n[blob]\ncontainer_url = \"{container}\"\n\
         [lease]\nduration = \"3s\"\nrenew_interval = \"600ms\"\n"
    );
    let setup = Setup::new(Path::new(PROGRAM), directory, world.stack.endpoints(), &more).expect("written");
    setup.with_variable("SSL_CERT_FILE", azurite.authority().expect("it speaks https"))
}

async fn secured() -> Azurite {
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    Azurite::start_with(free, Access::Tokens).await.unwrap_or_else(|error| panic!("{error}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_over_https_creates_the_container_and_keeps_everything_in_it() {
    let (world, azurite) = (World::new().await, secured().await);
    let places = [tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory")];
    let [first, second] =
        [&places[0], &places[1]].map(|place| replica(&world, &azurite, place.path(), STORAGE_AUDIENCE));
    let mut a = first.start().await.unwrap_or_else(|error| panic!("{error}"));
    world.apply(create("pump"));
    world.stack.broker().append("twin-changes", "pump", twin_change("pump", b"no json")).expect("appended");
    world.apply(report("pump", json!({"step": 1})));
    world.same().await;
    until(&mut a, "the metric shows one dead letter", |sample| {
        sample.count("twinsync_dead_letters_total", "") == 1
    })
    .await;
    let mut b = second.start().await.unwrap_or_else(|error| panic!("{error}"));
    until(&mut b, "the second replica owns two partitions", |sample| {
        sample.count("twinsync_partitions_owned", "") == 2
    })
    .await;
    a.stop().await.unwrap_or_else(|error| panic!("{error}"));
    until(&mut b, "the second replica owns all partitions", |sample| {
        sample.count("twinsync_partitions_owned", "") == 4
    })
    .await;
    world.apply(report("pump", json!({"step": 2})));
    world.same().await;
    let sample = b.sample().await.expect("metrics");
    assert_eq!(
        sample.count("twinsync_dead_letters_total", ""),
        0,
        "the second replica resumes after the checkpoint of the first"
    );
    b.stop().await.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_storage_refuses_stops_the_start_with_what_to_do() {
    let (world, azurite) = (World::new().await, secured().await);
    let place = tempfile::tempdir().expect("a directory");
    let setup = replica(&world, &azurite, place.path(), EVENT_HUBS_AUDIENCE);
    let mut command = setup.command();
    command.env("TWINSYNC__START__REFUSED_GRACE", "0s");
    let output = command.stdout(Stdio::null()).stderr(Stdio::piped()).output();
    let output = tokio::time::timeout(LIMIT, output).await.expect("ends").expect("runs");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{words}");
    let last = words.lines().last().unwrap_or_default();
    assert!(last.contains("BLOB_REFUSED") && last.contains("Storage Blob Data Contributor"), "{words}");
    assert!(!words.contains("eyJ"), "no token in any output: {words}");
}
