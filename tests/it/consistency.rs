//! Requirements on the Cosmos DB account: reads that see all earlier writes, and a single write region.

use std::{path::Path, process::Stdio};

use devkit::{
    cosmos::{Consistency, ELSEWHERE, Faults},
    daemon::Setup,
    iothub::{Operation, TwinId},
};
use serde_json::json;

use crate::world::{LIMIT, PROGRAM, World, create, device, plan, report};

const MEMORY: &str = "[checkpoint]\nstore = \"memory\"\n";

fn set_faults(world: &World, faults: Faults) {
    world.stack.cosmos().set_faults(faults).expect("valid");
}

/// The last output line of a start that fails.
async fn refused(world: &World) -> String {
    let mut command = world.setup.command();
    let output = command.stdout(Stdio::null()).stderr(Stdio::piped()).output();
    let output = tokio::time::timeout(LIMIT, output).await.expect("it ends").expect("it runs");
    assert_ne!(output.status.code(), Some(0));
    String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned()
}

/// Number of requests of these operations: all, those with Session consistency, those to the other region.
fn requests(world: &World, operations: &[&str]) -> [u64; 3] {
    let counters = world.stack.cosmos().counters();
    let of = operations.iter().filter_map(|operation| counters.get(*operation));
    of.fold([0; 3], |[all, session, elsewhere], count| {
        [all + count.requests, session + count.session, elsewhere + count.elsewhere]
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_with_less_than_session_is_refused_with_a_code() {
    let world = World::new().await;
    for level in [Consistency::Eventual, Consistency::ConsistentPrefix] {
        set_faults(&world, Faults { consistency: Some(level), ..Faults::default() });
        let line = refused(&world).await;
        assert!(line.contains("COSMOS_CONSISTENCY") && line.contains(&format!("{level:?}")), "{line}");
    }
    for level in [Consistency::Strong, Consistency::BoundedStaleness, Consistency::Session] {
        set_faults(&world, Faults { consistency: Some(level), ..Faults::default() });
        world.start().await.stop().await.expect("exit code 0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_with_several_write_regions_is_refused_until_one_is_named_and_then_only_that_is_used() {
    let mut world = World::new().await;
    set_faults(&world, Faults { multi_write: true, ..Faults::default() });
    let line = refused(&world).await;
    assert!(line.contains("COSMOS_MULTI_WRITE") && line.contains(ELSEWHERE), "{line}");
    world.configure("[cosmos]\nwrite_region = \"Nowhere\"\n");
    let line = refused(&world).await;
    assert!(line.contains("COSMOS_MULTI_WRITE") && line.contains("Nowhere"), "{line}");
    for (region, is_elsewhere) in [("Local", false), (ELSEWHERE, true)] {
        // `write_region` must take precedence over `application_region`.
        let other = if is_elsewhere { "Local" } else { ELSEWHERE };
        world
            .configure(&format!("[cosmos]\nwrite_region = \"{region}\"\napplication_region = \"{other}\"\n"));
        let daemon = world.start().await;
        world.stack.cosmos().reset_counters();
        let name = format!("pump-{}", region.to_lowercase());
        world.apply(create(&name));
        world.apply(report(&name, json!({"step": 1})));
        world.equal().await;
        let [all, _, elsewhere] = requests(&world, &["create", "replace"]);
        assert!(all > 0, "nothing was written");
        assert_eq!(
            elsewhere,
            if is_elsewhere { all } else { 0 },
            "{region}: all of {all} writes in one region"
        );
        // The comparison reads by queries, and from the region `Local`, so its requests are not among these reads.
        let [reads, _, elsewhere] = requests(&world, &["read"]);
        assert_eq!(
            elsewhere,
            if is_elsewhere { reads } else { 0 },
            "{region}: all of {reads} reads in one region"
        );
        daemon.stop().await.expect("exit code 0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_read_asks_for_session() {
    let world = World::new().await;
    let daemon = world.start().await;
    let module = TwinId::module("edge", "m").expect("a valid id");
    world.apply(create("edge"));
    world.apply(Operation::Create { id: module, twin: None });
    world.equal().await;
    world.apply(Operation::Delete { id: device("edge") });
    let compared = world.equal().await;
    assert_eq!(compared.tombstones, 2, "{compared}");
    let [reads, session, _] = requests(&world, &["read"]);
    assert!(
        reads > 0 && session == reads,
        "{session} of {reads} reads: {:?}",
        world.stack.cosmos().counters()
    );
    let [_, queries, _] = requests(&world, &["query"]);
    assert!(queries > 0, "the device's modules were not queried");
    daemon.stop().await.expect("exit code 0");
}

/// Two processes write the same documents, and each reads data that is older than the other's writes.
#[tokio::test(flavor = "multi_thread")]
async fn reads_that_are_behind_change_nothing() {
    let world = World::with(Default::default(), MEMORY).await;
    let second = tempfile::tempdir().expect("a directory");
    let other =
        Setup::new(Path::new(PROGRAM), second.path(), world.stack.endpoints(), MEMORY).expect("written");
    let a = world.start().await;
    let b = other.start().await.unwrap_or_else(|error| panic!("{error}"));
    set_faults(&world, Faults { stale_reads_ms: 400, ..Faults::default() });
    world.fleet(plan(40, 2_000, 61)).await;
    let counters = world.stack.cosmos().counters();
    let failed = |operation: &str, status: u16| {
        counters.get(operation).and_then(|count| count.statuses.get(&status)).copied().unwrap_or(0)
    };
    let conflicts = failed("replace", 412) + failed("create", 409);
    println!("{conflicts} conditions failed on reads that were behind");
    assert!(conflicts > 0, "no read was behind: {counters:?}");
    a.stop().await.expect("exit code 0");
    b.stop().await.expect("exit code 0");
}
