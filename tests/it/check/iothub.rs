//! Problems of an IoT hub, and of this machine's clock.

use std::time::{Duration, Instant};

use devkit::{
    cosmos,
    iothub::api::{Fault, FaultKind, Faults},
    stack::{AnotherIotHub, Options},
};

use super::{check, check_with, right};
use crate::{registry::bench::Bench, world::create};

fn strikes(bench: &Bench, fault: Fault) {
    bench.world.stack.registry().set_faults(Faults::of([fault])).expect("valid");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_refuses_throttles_hangs_or_is_another_is_told_in_seconds() {
    let bench = right().await;
    let connection = bench.world.stack.endpoints().iothub_connection_string.clone();
    let (start, _) = connection.split_once("SharedAccessKey=").expect("a key");
    let other_key = format!("{start}SharedAccessKey=d3Jvbmc=");
    let found =
        check_with(&bench, &[("TWINSYNC__IOTHUB__CONNECTION_STRINGS", &other_key)], &["--connect"]).await;
    assert_eq!(found.code, 2);
    found.says("iothub.read", "fail", "IOTHUB_REFUSED", "ServiceConnect");
    found.says("iothub.query", "fail", "IOTHUB_REFUSED", "ServiceConnect");
    let elsewhere = bench.world.stack.endpoints().control.clone();
    let found = check_with(&bench, &[("TWINSYNC__IOTHUB__ENDPOINT", &elsewhere)], &["--connect"]).await;
    found.says("iothub.read", "fail", "IOTHUB_UNAVAILABLE", "this answer is not from the hub");
    strikes(&bench, Fault::answer(429));
    let found = check(&bench, &["--connect"]).await;
    assert_eq!(found.code, 1);
    found.says("iothub.read", "warn", "IOTHUB_THROTTLED", "iothub.share");
    strikes(&bench, Fault::new(FaultKind::Hang));
    let started = Instant::now();
    let found = check(&bench, &["--connect"]).await;
    assert!(started.elapsed() < Duration::from_secs(15), "took {:?}", started.elapsed());
    found.says("iothub.read", "fail", "IOTHUB_UNAVAILABLE", "no answer within");
    found.says("iothub.query", "fail", "IOTHUB_UNAVAILABLE", "no answer within");
    found.says("clock", "ok", "", "Cosmos DB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_nobody_configured_and_ids_that_collide_are_warned_of() {
    let other = AnotherIotHub::named("Fabrikam");
    let options = Options { azurite: true, more_iothubs: vec![other], ..Options::default() };
    let more = "[dead_letters]\nstore = \"blob\"\n[checkpoint]\nstore = \"blob\"\n";
    let bench = Bench::over(options, "", more).await;
    let hubs = bench.world.stack.iothubs();
    hubs[0].service().apply(&create("pump")).expect("valid");
    assert_eq!(check(&bench, &["--connect"]).await.code, 0);
    // Enough devices for both partitions, so that the oldest event of one partition is from the other hub.
    for number in 0..8 {
        hubs[1].service().apply(&create(&format!("valve-{number}"))).expect("valid");
    }
    let daemon = bench.start().await;
    bench.world.equal().await;
    let found = check(&bench, &["--connect"]).await;
    daemon.stop().await.expect("exit code 0");
    found.says("iothub.names", "warn", "IOTHUB_UNKNOWN", "fabrikam");
    let both = bench.world.stack.endpoints().iothubs();
    let connections = both.iter().map(|hub| hub.connection_string.clone()).collect::<Vec<_>>().join(", ");
    let services =
        both.iter().map(|hub| format!("{}={}", hub.name, hub.service)).collect::<Vec<_>>().join(", ");
    let named = [
        ("TWINSYNC__IOTHUB__CONNECTION_STRINGS", connections.as_str()),
        ("TWINSYNC__IOTHUB__ENDPOINT", services.as_str()),
    ];
    let found = check_with(&bench, &named, &["--connect"]).await;
    found.says("iothub.names", "ok", "", "spelled Fabrikam");
    found.says("iothub.document_ids", "warn", "DOCUMENT_FOREIGN", "hub_device");
    assert_eq!(found.about("iothub.read").len(), 2, "one line for each hub");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_differs_from_a_services_own_is_told() {
    let bench = right().await;
    for (seconds, verdict, words) in [(120, "warn", "behind Cosmos DB"), (-900, "fail", "ahead of Cosmos DB")]
    {
        let faults = cosmos::Faults { date_ahead_seconds: seconds, ..Default::default() };
        bench.world.stack.cosmos().set_faults(faults).expect("valid");
        let found = check(&bench, &["--connect"]).await;
        found.says("clock", verdict, "CLOCK_SKEW", words);
        assert_eq!(found.wrong().len(), 1, "{:?}", found.wrong());
    }
}
