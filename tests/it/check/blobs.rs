//! Problems of a blob container.

use std::time::{Duration, Instant};

use devkit::azurite::{Permissions, Validity};

use super::{check, check_with, right};
use crate::blob::{foreign, listing};

const URL: &str = "TWINSYNC__BLOB__CONTAINER_URL";

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_is_checked_without_a_request_and_never_printed() {
    let bench = right().await;
    let azurite = bench.world.stack.azurite().expect("it runs");
    for (url, words) in [
        (azurite.account_url("twinsync", Validity::Expired), "expired 1 h ago"),
        (
            azurite.container_url("twinsync", Permissions::Read, Validity::Good),
            "lacks the permission to create, write",
        ),
    ] {
        let found = check_with(&bench, &[(URL, &url)], &[]).await;
        assert_eq!(found.code, 2);
        found.says("blob.signature", "fail", "BLOB_SIGNATURE", words);
        let ended = bench.run_with(&[(URL, &url)], &["check", "--connect"]).await;
        assert!(!ended.out.contains("sig=") && !ended.errors.contains("sig="), "{}", ended.out);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_refuses_or_is_missing_or_away_is_told_in_seconds() {
    let bench = right().await;
    let azurite = bench.world.stack.azurite().expect("it runs");
    let expired = azurite.account_url("twinsync", Validity::Expired);
    let found = check_with(&bench, &[(URL, &expired)], &["--connect"]).await;
    found.says("blob.container", "fail", "BLOB_REFUSED", "Storage Blob Data Contributor");
    found.says("blob.write", "skipped", "", "blob.container");
    found.says("eventhubs.checkpoints", "skipped", "", "blob.container");
    let missing = azurite.container_url("nowhere", Permissions::All, Validity::Good);
    let found = check_with(&bench, &[(URL, &missing)], &["--connect"]).await;
    found.says("blob.container", "fail", "BLOB_CONTAINER_MISSING", "create it");
    assert_eq!(check(&bench, &["--connect"]).await.code, 0);
    let reader = azurite.container_url("twinsync", Permissions::Read, Validity::Good);
    let found = check_with(&bench, &[(URL, &reader)], &["--connect"]).await;
    found.says("blob.container", "ok", "", "can be listed");
    found.says("blob.write", "skipped", "", "could not be removed");
    azurite.pause().await.expect("frozen");
    let started = Instant::now();
    let found = check(&bench, &["--connect"]).await;
    assert!(started.elapsed() < Duration::from_secs(20), "took {:?}", started.elapsed());
    found.says("blob.container", "fail", "BLOB_UNAVAILABLE", "no answer within 5 s");
    azurite.resume().await.expect("goes on");
    azurite.stop().await.expect("stops");
    let found = check(&bench, &["--connect"]).await;
    found.says("blob.container", "fail", "BLOB_UNAVAILABLE", "network rules");
    found.says("cosmos.write", "ok", "", "removed again");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_programs_ownership_is_told_and_no_blob_is_left() {
    let bench = right().await;
    assert_eq!(check(&bench, &["--connect"]).await.code, 0);
    let endpoints = bench.world.stack.endpoints();
    let url = endpoints.checkpoint_container_url.clone().expect("Azurite runs");
    let name = format!("{}/{}/$default/ownership/0", endpoints.namespace, endpoints.lifecycle_hub);
    foreign(&url, &name, &[("ownerid", "8f3c1f0e-9a52-4c7b-8d7e-0123456789ab")]).await;
    let found = check(&bench, &["--connect"]).await;
    assert_eq!(found.code, 1);
    found.says("eventhubs.owners", "warn", "EVENTHUBS_FOREIGN_READER", "8f3c1f0e");
    let listed = listing(&url).await;
    assert!(!listed.contains("probe"), "{listed}");
}
