//! Several IoT hubs: one daemon and one container for all of them, and the spelling of a hub's name.

use azure_data_cosmos::{
    FeedScope, Query,
    options::{MaxItemCountHint, QueryOptions},
};
use devkit::{
    daemon::{Daemon, Setup},
    fleet::{Pace, Plan, State},
    iothub::{DeliveryFaults, HubNames, Operation, Service, TwinId},
    stack::{AnotherIotHub, IotHub, IotHubEndpoints, Options},
};
use futures::TryStreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    registry::bench::{Bench, FAST},
    world::{PROGRAM, World, create, device, plan, report, until},
};

/// The second hub, in the spelling of its events.
const OTHER: &str = "Fabrikam";
/// Audits run only on request.
const NO_AUDIT: &str = "[audit]\ninterval = \"off\"\n";

/// Two hubs. They send no events for the deletion of modules, so the daemon has to cascade deletions.
pub(crate) async fn two_hubs(scheme: &str) -> Bench {
    let mut options = Options { more_iothubs: vec![AnotherIotHub::named(OTHER)], ..Options::default() };
    options.iothub.notify_deleted_modules = false;
    options.more_iothubs[0].iothub.notify_deleted_modules = false;
    let mut world = World::with(options, "").await;
    let toml = of_both(&world, scheme);
    world.configure(&toml);
    Bench { world }
}

/// A configuration with both hubs.
fn of_both(world: &World, scheme: &str) -> String {
    let hubs = world.stack.endpoints().iothubs();
    let join = |parts: Vec<String>| parts.join(", ");
    format!(
        "[document]\nid = \"{scheme}\"\n[iothub]\nconnection_strings = \"{}\"\nendpoint = \"{}\"\nrequest_timeout = \"2s\"\n{FAST}{NO_AUDIT}",
        join(hubs.iter().map(|hub| hub.connection_string.clone()).collect()),
        join(hubs.iter().map(|hub| format!("{}={}", hub.name, hub.service)).collect()),
    )
}

fn hub_of(bench: &Bench, number: usize) -> &Service {
    bench.world.stack.iothubs()[number].service()
}

fn apply(hub: &Service, operation: Operation) {
    hub.apply(&operation).unwrap_or_else(|error| panic!("{operation:?}: {error:?}"));
}

fn module(device: &str) -> TwinId {
    TwinId::module(device, "agent").expect("a valid id")
}

/// A device with a module. Both name their hub in their properties.
fn gateway(hub: &Service, id: &str, of: &str) {
    let twin = Some(json!({"tags": {"of": of}}));
    apply(hub, Operation::Create { id: device(id), twin: twin.clone() });
    apply(hub, Operation::Create { id: module(id), twin });
    apply(hub, report(id, json!({"of": of})));
}

/// All documents of the container, sorted by id.
async fn documents(bench: &Bench) -> Vec<Value> {
    let most = MaxItemCountHint::Limit(1_000.try_into().expect("not 0"));
    let options = QueryOptions::default().with_max_item_count(most);
    let container = bench.container().await;
    let everything = (Query::from("SELECT * FROM c"), FeedScope::full_container());
    let pages = container.query_items::<Value>(everything.0, everything.1, Some(options)).await;
    let pages = pages.expect("a query").into_pages().map_ok(|page| page.into_items());
    let mut found: Vec<Value> = pages.try_collect::<Vec<_>>().await.expect("rows").concat();
    found.sort_by_key(|document| text(document, "id"));
    found
}

/// All documents of one hub, with the fields that Cosmos DB adds. An untouched document has the same ETag.
async fn documents_of(bench: &Bench, hub: &str) -> Vec<Value> {
    let all = documents(bench).await;
    all.into_iter().filter(|document| text(document, "hubName") == hub.to_lowercase()).collect()
}

fn text(document: &Value, name: &str) -> String {
    document[name].as_str().unwrap_or_else(|| panic!("{name} in {document:#}")).to_owned()
}

/// Writes a document directly into the container.
async fn put(bench: &Bench, mut document: Value) {
    document.as_object_mut().expect("an object").retain(|name, _| !name.starts_with('_'));
    let (device, id) = (text(&document, "deviceId"), text(&document, "id"));
    bench.container().await.upsert_item(device, &id, &document, None).await.expect("written");
}

async fn remove(bench: &Bench, document: &Value) {
    let (device, id) = (text(document, "deviceId"), text(document, "id"));
    bench.container().await.delete_item(device, &id, None).await.expect("removed");
}

async fn document(bench: &Bench, id: &str) -> Value {
    let all = documents(bench).await;
    all.into_iter().find(|document| document["id"] == id).unwrap_or_else(|| panic!("no document {id}"))
}

/// The document of a device.
async fn document_of(bench: &Bench, device: &str) -> Value {
    let all = documents(bench).await;
    let of = |document: &Value| document["deviceId"] == device && document.get("moduleId").is_none();
    all.into_iter().find(of).unwrap_or_else(|| panic!("no document of {device}"))
}

/// A fleet on each hub at the same time, with duplicates and ordered replays. Between the phases the daemon catches
/// up.
async fn fleets(bench: &Bench, plans: [Plan; 2]) {
    let hubs = bench.world.stack.iothubs();
    for (hub, plan) in hubs.iter().zip(plans) {
        let seed = plan.seed;
        let faults = DeliveryFaults { seed, duplicate: 0.05, replay: 0.05, ..DeliveryFaults::default() };
        hub.service().set_delivery_faults(faults);
        hub.fleet().start(plan, Pace::Backlog).expect("the fleet starts");
    }
    while {
        let mut states = Vec::new();
        for hub in hubs {
            states.push(hub.fleet().phase_end().await.state);
        }
        bench.world.equal().await;
        assert!(states.iter().all(|state| matches!(state, State::Waiting | State::Done)), "{states:?}");
        states != [State::Done; 2]
    } {
        for hub in hubs.iter().filter(|hub| hub.fleet().progress().state == State::Waiting) {
            hub.fleet().start_next_phase().expect("goes on");
        }
    }
    for hub in hubs {
        hub.service().set_delivery_faults(DeliveryFaults::default());
        hub.service().flush().expect("delivered");
    }
}

fn ids(hub: &IotHub) -> std::collections::BTreeSet<String> {
    let twins = hub.service().page(None, 10_000).twins;
    twins.iter().map(|twin| text(twin, "deviceId")).collect()
}

/// Runs `audit --repair` for one hub and asserts its numbers of missing, extra and different documents.
async fn audit(bench: &Bench, hub: &str, found: [u64; 3]) {
    let (code, audit) = bench.audit(&["--repair", "--hub", hub]).await;
    let of = |class: &str| audit["found"][class].as_u64().expect("a count");
    assert_eq!((code, ["missing", "extra", "different"].map(of)), (0, found), "{audit:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hubs_with_the_same_devices_share_a_container_and_nothing_else() {
    let bench = two_hubs("hub_device").await;
    let (first, second) = (hub_of(&bench, 0), hub_of(&bench, 1));
    let daemon = bench.start().await;
    let plans = [21, 22].map(|seed| Plan { modules: 0.5, ..plan(30, 1_200, seed) });
    fleets(&bench, plans).await;
    let both = bench.world.stack.iothubs();
    let shared = ids(&both[0]).intersection(&ids(&both[1])).count();
    let compared = bench.world.equal().await;
    assert!(shared > 20 && compared.tombstones > 10, "{shared} ids in both: {compared}");
    assert_eq!(compared.twins, (first.len() + second.len()) as u64);
    println!("two hubs, {shared} device ids in both: {compared}");

    // Of two devices with the same id one is deleted. Only its own modules are deleted with it.
    for id in ["gateway", "spare"] {
        gateway(first, id, "first");
        gateway(second, id, "second");
    }
    bench.world.equal().await;
    apply(first, Operation::Delete { id: device("gateway") });
    let after = bench.world.equal().await;
    assert_eq!(
        after.tombstones,
        compared.tombstones + 2,
        "tombstones of the device and of its module: {after}"
    );
    for (id, state) in [
        ("devkit-hub|gateway", "deleted"),
        ("devkit-hub|gateway|agent", "deleted"),
        ("fabrikam|gateway", "live"),
        ("fabrikam|gateway|agent", "live"),
    ] {
        assert_eq!(document(&bench, id).await["sync"]["state"], state, "{id}");
    }
    daemon.stop().await.expect("exit code 0");
    assert!(bench.world.files("dead-letters").is_empty(), "there is a dead letter");

    // The same damage in both hubs' documents. An audit of one hub must not touch the documents of the other.
    for hub in ["devkit-hub", "fabrikam"] {
        let mut different = document(&bench, &format!("{hub}|spare")).await;
        different["tags"]["of"] = json!("nobody");
        let mut extra = different.clone();
        (extra["id"], extra["deviceId"]) = (json!(format!("{hub}|never-was")), json!("never-was"));
        put(&bench, different).await;
        put(&bench, extra).await;
        remove(&bench, &document(&bench, &format!("{hub}|spare|agent")).await).await;
    }
    let theirs = documents_of(&bench, "devkit-hub").await;
    audit(&bench, OTHER, [1, 1, 1]).await;
    assert_eq!(documents_of(&bench, "devkit-hub").await, theirs);
    let theirs = documents_of(&bench, OTHER).await;
    audit(&bench, "DEVKIT-HUB", [1, 1, 1]).await;
    assert_eq!(documents_of(&bench, OTHER).await, theirs);
    bench.world.equal().await;

    // The same devices exist in both hubs from before the streams.
    let old = |number| Operation::Create { id: device(&format!("old-{number}")), twin: None };
    let old: Vec<_> = (0..20).map(old).collect();
    for hub in [first, second] {
        hub.apply_unrouted(&old).expect("valid");
    }
    let theirs = documents_of(&bench, "devkit-hub").await;
    let filled = bench.run(&["backfill", "--json", "--hub", "FABRIKAM"]).await;
    assert_eq!((filled.code, filled.json()["created"].as_u64()), (0, Some(20)), "{}", filled.errors);
    assert_eq!(documents_of(&bench, "devkit-hub").await, theirs);
    assert_eq!(bench.run(&["backfill"]).await.code, 0);
    let end = bench.world.equal().await;
    assert_eq!(end.twins, (first.len() + second.len()) as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_hubs_in_document_ids_the_second_hubs_twins_become_dead_letters() {
    let mut bench = two_hubs("device").await;
    let (first, second) = (hub_of(&bench, 0), hub_of(&bench, 1));
    let mut daemon = bench.start().await;
    gateway(first, "gateway", "first");
    bench.world.equal().await;
    let theirs = documents_of(&bench, "devkit-hub").await;
    assert_eq!(theirs.len(), 2);

    let set_aside = async |daemon: &mut Daemon, count: u64| {
        until(daemon, "the metric shows the dead letters", |sample| {
            sample.count("twinsync_dead_letters_total", "reason=\"foreign_document\"") == count
        })
        .await;
    };
    gateway(second, "gateway", "second");
    gateway(second, "own", "second");
    set_aside(&mut daemon, 3).await;
    bench.world.equal_or_flagged("own").await;
    // The deletion of the second hub's device and its cascade must not touch the first hub's documents.
    apply(second, Operation::Delete { id: device("gateway") });
    set_aside(&mut daemon, 4).await;
    bench.world.equal().await;
    gateway(second, "gateway", "second, again");
    set_aside(&mut daemon, 7).await;
    daemon.stop().await.expect("exit code 0");
    let letters = bench.world.files("dead-letters");
    assert_eq!(letters.len(), 7);
    for letter in letters {
        let letter = std::fs::read_to_string(letter).expect("a dead letter");
        assert!(letter.contains("devkit-hub/gateway") && letter.contains("DOCUMENT_FOREIGN"), "{letter}");
    }

    let (code, audit_of_second) = bench.audit(&["--repair", "--hub", "fabrikam"]).await;
    assert_ne!(code, 0, "two twins cannot have documents: {audit_of_second:#}");
    assert_eq!(audit_of_second["found"]["missing"], 2, "{audit_of_second:#}");
    let filled = bench.run(&["backfill", "--json", "--hub", "fabrikam"]).await;
    assert_eq!(filled.json()["created"].as_u64(), Some(0), "{}{}", filled.out, filled.errors);
    audit(&bench, "devkit-hub", [0; 3]).await;
    assert_eq!(documents_of(&bench, "devkit-hub").await, theirs);
    assert!(
        bench.world.log().contains("several IoT hubs with document.id"),
        "the start must log a warning as well"
    );

    // The remedy of the error page. Existing documents are found under their ids.
    let cure = of_both(&bench.world, "hub_device");
    bench.world.configure(&cure);
    let filled = bench.run(&["backfill", "--json", "--restart", "--hub", "fabrikam"]).await;
    assert_eq!(filled.json()["created"].as_u64(), Some(2), "{}{}", filled.out, filled.errors);
    let daemon = bench.start().await;
    for number in 0..2 {
        apply(hub_of(&bench, number), report("gateway", json!({"cured": number})));
    }
    bench.world.equal().await;
    daemon.stop().await.expect("exit code 0");
    let ids: Vec<_> = documents(&bench).await.iter().map(|document| text(document, "id")).collect();
    let expected =
        ["fabrikam|gateway", "fabrikam|gateway|agent", "gateway", "gateway|agent", "own", "own|agent"];
    assert_eq!(ids, expected);
    for hub in ["devkit-hub", "fabrikam"] {
        audit(&bench, hub, [0; 3]).await;
    }
}

/// The second hub has its own Event Hubs and its own daemon, and both daemons share the container. Returns the first
/// hub's daemon first.
async fn a_daemon_for_each(scheme: &str) -> (Bench, [Daemon; 2], TempDir) {
    let own = HubNames { lifecycle: "fabrikam-lifecycle".into(), twin_changes: "fabrikam-changes".into() };
    let other = AnotherIotHub { hubs: Some(own), ..AnotherIotHub::named(OTHER) };
    let options = Options { more_iothubs: vec![other], ..Options::default() };
    let mut world = World::with(options, "").await;
    let endpoints = world.stack.endpoints().clone();
    let toml = |hub: IotHubEndpoints| {
        format!(
            "[eventhubs.lifecycle]\nhub = \"{}\"\n[eventhubs.twin_changes]\nhub = \"{}\"\n[document]\nid = \"{scheme}\"\n\
             [iothub]\nconnection_strings = \"{}\"\nendpoint = \"{}\"\n{FAST}{NO_AUDIT}",
            hub.lifecycle_hub, hub.twin_changes_hub, hub.connection_string, hub.service
        )
    };
    let [first, second] = endpoints.iothubs().try_into().expect("two hubs");
    world.configure(&toml(first));
    let directory = tempfile::tempdir().expect("a directory");
    let setup = Setup::new(PROGRAM.as_ref(), directory.path(), &endpoints, &toml(second));
    let second = setup.expect("configuration is written").start().await;
    let second = second.unwrap_or_else(|error| panic!("{error}"));
    let first = world.start().await;
    (Bench { world }, [first, second], directory)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_for_each_hub_keeps_to_its_own_documents_in_a_shared_container() {
    let (bench, daemons, _directory) = a_daemon_for_each("hub_device").await;
    let plans = [31, 32].map(|seed| Plan { modules: 0.3, ..plan(20, 600, seed) });
    fleets(&bench, plans).await;
    let both = bench.world.stack.iothubs();
    let shared = ids(&both[0]).intersection(&ids(&both[1])).count();
    let end = bench.world.equal().await;
    assert!(shared > 10 && end.tombstones > 5, "{shared} ids in both: {end}");
    for mut daemon in daemons {
        let sample = daemon.sample().await.expect("metrics");
        assert_eq!(sample.sum("twinsync_dead_letters_total", ""), 0.0);
        assert!(sample.count("twinsync_events_total", "") > 600, "each daemon has its own events");
        daemon.stop().await.expect("exit code 0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_without_hubs_in_document_ids_never_destroy_each_others_documents() {
    const STEPS: u64 = 10;
    let (bench, [mut first, mut second], _directory) = a_daemon_for_each("device").await;
    let (ours, theirs) = (hub_of(&bench, 0), hub_of(&bench, 1));
    gateway(ours, "gateway", "first");
    bench.world.equal().await;
    gateway(theirs, "gateway", "second");
    // Alternating changes, so that each daemon could overwrite the other's document.
    for step in 0..STEPS {
        for hub in [ours, theirs] {
            apply(hub, report("gateway", json!({"step": step})));
        }
    }
    let foreign = "reason=\"foreign_document\"";
    until(&mut second, "the metric shows the dead letters of the other hub", |sample| {
        sample.count("twinsync_dead_letters_total", foreign) == 3 + STEPS
    })
    .await;
    apply(theirs, Operation::Delete { id: device("gateway") });
    let end = bench.world.equal().await;
    assert_eq!((end.twins, end.documents), (2, 2), "{end}");
    let sample = first.sample().await.expect("metrics");
    assert_eq!(sample.sum("twinsync_dead_letters_total", ""), 0.0);
    for daemon in [first, second] {
        daemon.stop().await.expect("exit code 0");
    }
}

/// Devices with documents of an older release, which wrote the hub's name in the spelling of the event or of the
/// configuration.
async fn spelt_otherwise(scheme: &str) {
    let mut options = Options::default();
    options.iothub.name = "Contoso-IoT".to_owned();
    options.iothub.notify_deleted_modules = false;
    let mut world = World::with(options, "").await;
    let endpoints = world.stack.endpoints();
    let access = endpoints.iothub_connection_string.replace("Contoso-IoT", "conTOSO-IoT");
    let toml = format!(
        "[document]\nid = \"{scheme}\"\n[iothub]\nconnection_strings = \"{access}\"\nendpoint = \"{}\"\n{FAST}{NO_AUDIT}",
        endpoints.iothub
    );
    world.configure(&toml);
    let bench = Bench { world };
    let hub = hub_of(&bench, 0);
    let daemon = bench.start().await;
    for number in 0..5 {
        gateway(hub, &format!("pump-{number}"), "us");
    }
    bench.world.equal().await;
    daemon.stop().await.expect("exit code 0");
    let found = documents(&bench).await;
    for (number, original) in found.iter().enumerate() {
        assert_eq!(original["hubName"], "contoso-iot");
        let spelling = ["Contoso-IoT", "CONTOSO-IOT", "conTOSO-IoT"][number % 3];
        let mut older = original.clone();
        older["hubName"] = json!(spelling);
        older["id"] = json!(text(original, "id").replace("contoso-iot|", &format!("{spelling}|")));
        remove(&bench, original).await;
        put(&bench, older).await;
    }
    let before: Vec<_> = documents(&bench).await.iter().map(|document| text(document, "id")).collect();
    let compared = bench.world.equal().await;
    assert_eq!((compared.documents, compared.twins), (10, 10));

    let mut daemon = bench.start().await;
    for step in 0..3 {
        apply(hub, report("pump-0", json!({"step": step})));
        apply(hub, Operation::Report { id: module("pump-0"), patch: json!({"step": step}) });
    }
    apply(hub, Operation::Delete { id: device("pump-1") });
    bench.world.equal().await;
    apply(hub, Operation::Delete { id: device("pump-2") });
    bench.world.equal().await;
    apply(hub, create("pump-2"));
    gateway(hub, "pump-9", "us");
    let end = bench.world.equal().await;
    // Tombstones of pump-1 and its module, and of the module of pump-2. No twin has a second document.
    assert_eq!((end.twins, end.tombstones, end.documents), (9, 3, 12), "{end}");
    until(&mut daemon, "the repair queue is empty", |sample| {
        sample.count("twinsync_repairs_waiting", "") == 0
    })
    .await;
    daemon.stop().await.expect("exit code 0");
    assert!(bench.world.files("dead-letters").is_empty(), "there is a dead letter");

    let after = documents(&bench).await;
    for id in &before {
        assert!(after.iter().any(|document| document["id"] == *id), "{id} is kept: {after:#?}");
    }
    for document in after.iter().filter(|document| !before.contains(&text(document, "id"))) {
        assert!(!text(document, "id").contains(char::is_uppercase), "{document}");
    }
    for touched in
        after.iter().filter(|document| document["deviceId"] != "pump-3" && document["deviceId"] != "pump-4")
    {
        assert_eq!(touched["hubName"], "contoso-iot", "not in the canonical spelling: {touched}");
    }
    // Documents that were not written since are recognised as well.
    audit(&bench, "Contoso-IOT", [0; 3]).await;
    let filled = bench.run(&["backfill", "--json"]).await;
    assert_eq!(
        (filled.json()["created"].as_u64(), filled.json()["corrected"].as_u64()),
        (Some(0), Some(0)),
        "{}",
        filled.out
    );
    let resynced = bench.run(&["resync", "--device", "pump-3"]).await;
    assert!(resynced.out.contains("2 twins: 2 equal"), "{}{}", resynced.out, resynced.errors);
    assert_eq!(documents(&bench).await.len(), 12);

    // A second document of a twin, as older releases left them, belongs to no twin. An audit reports it and changes
    // neither document.
    let mut second = document_of(&bench, "pump-9").await;
    second["id"] = json!("CONTOSO-iot|pump-9");
    put(&bench, second).await;
    let all = documents(&bench).await;
    let (code, audit) = bench.audit(&["--repair"]).await;
    assert_eq!((code, audit["found"]["orphan"].as_u64()), (1, Some(1)), "{audit:#}");
    let finding = &audit["findings"][0];
    assert_eq!(
        (&finding["device_id"], &finding["outcome"]),
        (&json!("pump-9"), &json!("orphaned")),
        "{audit:#}"
    );
    assert!(text(finding, "reason").contains("`CONTOSO-iot|pump-9`"), "{audit:#}");
    assert_eq!(documents(&bench).await, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_twin_has_one_document_however_the_hub_is_spelt_in_its_id() {
    Box::pin(spelt_otherwise("hub_device")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_twin_has_one_document_however_the_hub_is_spelt_beside_its_id() {
    Box::pin(spelt_otherwise("device")).await;
}

/// In a nearly empty container, a backfill assumes that a twin has no document.
#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_makes_no_second_document_for_a_twin_that_lies_under_another_id() {
    const TWINS: usize = 80;
    let mut world = World::with(Options::default(), "").await;
    let toml = of_both(&world, "hub_device");
    world.configure(&toml);
    let bench = Bench { world };
    let devices: Vec<String> = (0..TWINS).map(|number| format!("pump-{number:02}")).collect();
    bench.were_there(&devices.iter().map(|id| create(id)).collect::<Vec<_>>());
    assert_eq!(bench.run(&["backfill"]).await.code, 0);
    // One device in four keeps its document, under the id from before the container was shared. The others have no
    // document.
    for (number, mut document) in documents(&bench).await.into_iter().enumerate() {
        remove(&bench, &document).await;
        if number % 4 == 3 && number >= TWINS / 2 {
            document["id"] = document["deviceId"].clone();
            put(&bench, document).await;
        }
    }
    let before = documents(&bench).await.len();
    let filled = bench.run(&["backfill", "--json", "--restart"]).await;
    assert_eq!(filled.code, 0, "{}", filled.errors);
    let mut found: Vec<_> =
        documents(&bench).await.iter().map(|document| text(document, "deviceId")).collect();
    found.sort();
    assert_eq!(found, devices, "a twin has not exactly one document");
    assert_eq!(filled.json()["created"], TWINS - before);
    bench.world.equal().await;
}
