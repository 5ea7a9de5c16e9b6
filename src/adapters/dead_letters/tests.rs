use std::collections::BTreeMap;

use super::*;
use crate::domain::{
    id::{Position, SequenceNumber},
    message::{Message, Property},
};

fn message(number: i64, body: &[u8]) -> Message {
    Message {
        position: Position { sequence_number: SequenceNumber(number), offset: format!("o{number}") },
        enqueued: Some(Ticks::new(17)),
        body: body.to_vec(),
        application_properties: BTreeMap::from([("opType".to_owned(), Property::Text("updateTwin".into()))]),
        annotations: BTreeMap::from([("user-id".to_owned(), Property::Binary(vec![0xff, 0]))]),
    }
}

fn partition(stream: &str, partition: &str) -> PartitionId {
    PartitionId { stream: stream.into(), partition: partition.into() }
}

async fn open(root: &Path) -> FileDeadLetters {
    FileDeadLetters::open(&config::DeadLetters::File { path: root.to_owned() }).await.unwrap()
}

async fn store(
    letters: &FileDeadLetters,
    partition: &PartitionId,
    message: &Message,
) -> Result<(), DeadLetterError> {
    let letter =
        DeadLetter { partition, message, reason: "body_not_json", detail: "expected value at line 1".into() };
    letters.store(letter).await
}

async fn names(letters: &FileDeadLetters) -> Vec<String> {
    let paths = letters.list().await.unwrap();
    let relative = paths.iter().map(|path| path.strip_prefix(&letters.root).unwrap());
    relative.map(|path| path.to_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_stored_letter_reads_back_whole() {
    let directory = tempfile::tempdir().unwrap();
    let letters = open(&directory.path().join("not/yet/there")).await;
    let (place, message) = (partition("Twins", "0"), message(7, b"not json \xff"));
    store(&letters, &place, &message).await.unwrap();
    assert_eq!(names(&letters).await, ["twins/0/7.json"]);
    let read = FileDeadLetters::read(&letters.list().await.unwrap()[0]).await.unwrap();
    assert_eq!(read.message, message);
    assert_eq!(read.partition, place);
    assert_eq!(read.reason, "body_not_json");
    assert_eq!(read.detail, "expected value at line 1");
    assert!(read.stored_at.is_some());
}

#[tokio::test]
async fn storing_one_event_again_leaves_one_letter() {
    let directory = tempfile::tempdir().unwrap();
    let letters = open(directory.path()).await;
    let place = partition("twins", "0");
    for _ in 0..3 {
        store(&letters, &place, &message(7, b"x")).await.unwrap();
    }
    assert_eq!(names(&letters).await, ["twins/0/7.json"]);
}

#[tokio::test]
async fn another_event_at_the_same_position_replaces_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let letters = open(directory.path()).await;
    let place = partition("twins", "0");
    for body in [b"x", b"y", b"x", b"y"] {
        store(&letters, &place, &message(7, body)).await.unwrap();
    }
    fs::write(directory.path().join("twins/0/8.json"), "edited").unwrap();
    store(&letters, &place, &message(8, b"z")).await.unwrap();
    assert_eq!(
        names(&letters).await,
        ["twins/0/7.json", "twins/0/7.2.json", "twins/0/8.json", "twins/0/8.2.json"]
    );
    let bad =
        FileDeadLetters::read(&directory.path().join("twins/0/8.json")).await.expect_err("not a letter");
    assert!(bad.to_string().contains("DEAD_LETTER_DAMAGED"), "{bad}");
}

#[test]
fn the_error_code_has_a_page() {
    let page = format!("{}/docs/errors/{}.md", env!("CARGO_MANIFEST_DIR"), "DEAD_LETTER_DAMAGED");
    assert!(Path::new(&page).exists(), "{page}");
}

#[tokio::test]
async fn letters_are_listed_by_number_and_names_stay_inside_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("letters");
    let letters = open(&root).await;
    for number in [100, 20, 3] {
        store(&letters, &partition("../../x", ".."), &message(number, b"x")).await.unwrap();
    }
    let inside = "..%2F..%2Fx/%2E%2E";
    assert_eq!(
        names(&letters).await,
        [format!("{inside}/3.json"), format!("{inside}/20.json"), format!("{inside}/100.json")]
    );
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn what_a_crash_left_half_written_is_no_letter() {
    let directory = tempfile::tempdir().unwrap();
    let letters = open(directory.path()).await;
    let place = partition("twins", "0");
    store(&letters, &place, &message(1, b"x")).await.unwrap();
    durable_file::Staged::write(&letters.directory(&place).join("2.json"), b"{").unwrap();
    assert_eq!(names(&letters).await, ["twins/0/1.json"]);
    store(&letters, &place, &message(2, b"x")).await.unwrap();
    assert_eq!(names(&letters).await, ["twins/0/1.json", "twins/0/2.json"]);
}

#[tokio::test]
async fn a_place_that_cannot_be_written_is_an_error_and_not_a_loss() {
    let directory = tempfile::tempdir().unwrap();
    let letters = open(directory.path()).await;
    // Where the stream's directory should go, there is a file.
    fs::write(directory.path().join("twins"), "").unwrap();
    let error = store(&letters, &partition("twins", "0"), &message(1, b"x")).await.expect_err("no directory");
    assert!(error.to_string().starts_with("cannot store the dead letter of twins/0@1 in "), "{error}");
    fs::remove_file(directory.path().join("twins")).unwrap();
    store(&letters, &partition("twins", "0"), &message(1, b"x")).await.unwrap();

    let file = config::DeadLetters::File { path: directory.path().join("twins/0/1.json") };
    FileDeadLetters::open(&file).await.expect_err("a file is no directory");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abandoned_attempt_does_not_disturb_its_repeat() {
    let directory = tempfile::tempdir().unwrap();
    let letters = open(directory.path()).await;
    let (place, message) = (partition("twins", "0"), message(1, b"x"));
    for _ in 0..50 {
        // Dropped after its first poll, the write goes on in the background.
        let mut abandoned = Box::pin(store(&letters, &place, &message));
        let _ = futures::poll!(abandoned.as_mut());
        drop(abandoned);
        store(&letters, &place, &message).await.unwrap();
    }
    assert_eq!(names(&letters).await, ["twins/0/1.json"]);
}
