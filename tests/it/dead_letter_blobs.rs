//! Dead letters in a blob container, in Azurite.

use devkit::{
    azurite::{Azurite, Permissions, Validity},
    stack::Options,
};
use twinsync::{
    adapters::{
        credential,
        dead_letters::{Error, Store, open, open_existing},
    },
    config::{Blob, DeadLetters as Configured, Identity, Secret},
    domain::{
        id::{PartitionId, Position, SequenceNumber},
        message::{Message, Properties, Property},
    },
    ports::{DeadLetter, DeadLetterError, LetterName, LetterVersion, ReadLetter, Removed, StoredLetter},
};

use crate::world::World;

async fn azurite() -> Azurite {
    let free = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    Azurite::start(free).await.unwrap_or_else(|error| panic!("{error}"))
}

fn settings(url: &str) -> Configured {
    Configured::Blob(Blob { container_url: Secret::new(url), api_version: None })
}

async fn opened(url: &str) -> Result<Store, Error> {
    let credential = credential::connect(&Identity::Emulator { token: Secret::new("any") }).expect("no I/O");
    open(&settings(url), &credential).await
}

async fn store(url: &str) -> Store {
    opened(url).await.unwrap_or_else(|error| panic!("{error}"))
}

fn partition() -> PartitionId {
    PartitionId { stream: "Twins".into(), partition: "0".into() }
}

fn message(number: i64, body: &[u8]) -> Message {
    Message {
        position: Position { sequence_number: SequenceNumber(number), offset: format!("o{number}").into() },
        enqueued: None,
        body: body.to_vec().into(),
        application_properties: Properties::from([(
            "opType".to_owned(),
            Property::Text("updateTwin".into()),
        )]),
        annotations: Properties::from([(
            "user-id".to_owned(),
            Property::Binary([0xff, 0].as_slice().into()),
        )]),
    }
}

async fn put(store: &Store, message: &Message) -> Result<(), DeadLetterError> {
    let partition = partition();
    let letter = DeadLetter { partition: &partition, message, reason: "not_json", detail: "no JSON".into() };
    store.letters.store(letter).await
}

async fn listed(store: &Store) -> Vec<LetterName> {
    let mut listed = Vec::new();
    for partition in store.archive.partitions().await.expect("an answer") {
        listed.extend(store.archive.letters(&partition).await.expect("an answer"));
    }
    listed
}

async fn names(store: &Store) -> Vec<String> {
    listed(store).await.iter().map(LetterName::to_string).collect()
}

async fn read(store: &Store, name: &LetterName) -> (StoredLetter, LetterVersion) {
    match store.archive.read(name).await.expect("an answer") {
        ReadLetter::Found(letter, version) => (*letter, version),
        other => panic!("{name}: {other:?}"),
    }
}

/// Writes a blob as another program does. `url` is the URL of the container.
async fn foreign(url: &str, name: &str, body: &'static str) {
    let (address, query) = url.split_once('?').expect("signed");
    let request = reqwest::Client::new()
        .put(format!("{address}/{name}?{query}"))
        .header("x-ms-version", "2021-12-02")
        .header("x-ms-blob-type", "BlockBlob")
        .header("content-length", body.len().to_string());
    let answer = request.body(body).send().await.expect("an answer");
    assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap_or_default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_reads_back_unchanged_and_an_event_leaves_one() {
    let azurite = azurite().await;
    let url = azurite.account_url("letters", Validity::Good);
    let store = store(&url).await;
    assert!(names(&store).await.is_empty());
    let binary = message(100, b"not json \xff");
    for number in [20, 3] {
        put(&store, &message(number, b"{")).await.expect("stored");
    }
    for _ in 0..3 {
        put(&store, &binary).await.expect("stored");
    }
    foreign(&url, "deadletters/readme.txt", "not a letter's place").await;
    foreign(&url, "elsewhere/twins/0/1.json", "{}").await;
    assert_eq!(names(&store).await, ["twins/0/3", "twins/0/20", "twins/0/100"]);
    let first = store.archive.first(3).await.expect("listed");
    let names: Vec<_> = first.letters.iter().map(|letter| letter.name.as_str()).collect();
    assert_eq!((names.join(" ").as_str(), first.more), ("100 20 3", false));
    assert!(first.letters.iter().all(|letter| letter.stored.is_some()), "{first:?}");
    let first = store.archive.first(2).await.expect("listed");
    assert_eq!((first.letters.len(), first.more), (2, true));
    let (letter, _) = read(&store, &listed(&store).await[2]).await;
    assert_eq!((letter.message, letter.partition), (binary, partition()));
    assert_eq!((letter.reason.as_str(), letter.detail.as_str()), ("not_json", "no JSON"));
    assert!(letter.stored_at.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn different_events_at_one_position_are_all_kept_whoever_is_first() {
    let azurite = azurite().await;
    let url = azurite.account_url("letters", Validity::Good);
    let replicas = [store(&url).await, store(&url).await];
    foreign(&url, "deadletters/twins/0/7.json", "edited").await;
    foreign(&url, "deadletters/twins/0/8.json", "").await;
    let bodies = [&b"v"[..], b"w", b"x", b"y"];
    let puts = bodies.into_iter().flat_map(|body| replicas.iter().map(move |replica| (replica, body)));
    let stored =
        futures::future::join_all(puts.map(async |(replica, body)| put(replica, &message(7, body)).await));
    for stored in stored.await {
        stored.expect("stored");
    }
    put(&replicas[0], &message(8, b"z")).await.expect("stored");
    let store = &replicas[1];
    let all = listed(store).await;
    let all_names: Vec<_> = all.iter().map(LetterName::name).collect();
    assert_eq!(all_names, ["7", "7.2", "7.3", "7.4", "7.5", "8", "8.2"]);
    let mut found = Vec::new();
    for name in &all {
        match store.archive.read(name).await.expect("an answer") {
            ReadLetter::Found(letter, _) => found.push(letter.message.body),
            ReadLetter::Damaged(..) => assert!(["7", "8"].contains(&name.name()), "{name}"),
            ReadLetter::Absent => panic!("{name} is listed but cannot be read"),
        }
    }
    found.sort();
    assert_eq!(found, [b"v".as_slice(), b"w", b"x", b"y", b"z"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_changed_since_it_was_read_is_not_removed() {
    let azurite = azurite().await;
    let store = store(&azurite.account_url("letters", Validity::Good)).await;
    put(&store, &message(7, b"x")).await.expect("stored");
    put(&store, &message(8, b"x")).await.expect("stored");
    let name = listed(&store).await.remove(0);
    let (_, version) = read(&store, &name).await;
    for _ in 0..2 {
        assert_eq!(store.archive.remove(&name, &version).await.expect("an answer"), Removed::Gone);
        assert_eq!(names(&store).await, ["twins/0/8"]);
        assert!(matches!(store.archive.read(&name).await.expect("an answer"), ReadLetter::Absent));
    }
    put(&store, &message(7, b"y")).await.expect("stored");
    assert_eq!(store.archive.remove(&name, &version).await.expect("an answer"), Removed::Changed);
    assert_eq!(read(&store, &name).await.0.message.body.as_ref(), b"y");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_an_error_and_not_a_loss_and_no_signature_is_printed() {
    let azurite = azurite().await;
    let url = azurite.account_url("letters", Validity::Good);
    let store = store(&url).await;
    put(&store, &message(1, b"x")).await.expect("stored");
    azurite.stop().await.expect("stops");
    let refused = put(&store, &message(2, b"x")).await.expect_err("the storage is down");
    let unlisted = store.archive.partitions().await.expect_err("the storage is down");
    let (_, signature) = url.split_once("sig=").expect("signed");
    let signature = signature.split('&').next().expect("not empty");
    let printed = format!("{refused} {refused:?} {unlisted} {unlisted:?}");
    assert!(!printed.contains(signature), "{printed}");
    assert!(printed.contains("twins/0/2.json"), "{printed}");
    azurite.restart().await.expect("starts");
    put(&store, &message(2, b"x")).await.expect("stored");
    assert_eq!(names(&store).await, ["twins/0/1", "twins/0/2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_is_not_there_is_not_taken_for_an_empty_one() {
    let azurite = azurite().await;
    let url = azurite.account_url("letters", Validity::Good);
    let credential = credential::connect(&Identity::Emulator { token: Secret::new("any") }).expect("no I/O");
    let missing = open_existing(&settings(&url), &credential).await.err().expect("no container");
    assert!(missing.to_string().contains("BLOB_CONTAINER_MISSING"), "{missing}");
    store(&url).await;
    assert!(open_existing(&settings(&url), &credential).await.is_ok());
    let reader = azurite.container_url("letters", Permissions::Read, Validity::Good);
    let reader = store(&reader).await;
    let refused = put(&reader, &message(1, b"x")).await.expect_err("may only read");
    let refused = format!("{refused}: {}", refused.source);
    assert!(refused.contains("BLOB_REFUSED") && refused.contains("Storage Blob Data"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_and_its_commands_share_a_container() {
    let options = Options { azurite: true, ..Options::default() };
    let more = "[document]\nmax_event_size = \"4KiB\"\n[dead_letters]\nstore = \"blob\"\n";
    let world = World::with(options, more).await;
    crate::dead_letters::round_trip(&world).await;
    assert!(world.files("dead-letters").is_empty(), "a dead letter is on the disk");
}
