use super::*;
use crate::{
    adapters::dead_letters::DAMAGED,
    domain::{
        id::{Position, SequenceNumber},
        message::{Message, Properties, Property},
        ticks::Ticks,
    },
};

fn message(number: i64, body: &[u8]) -> Message {
    Message {
        position: Position { sequence_number: SequenceNumber(number), offset: format!("o{number}").into() },
        enqueued: Some(Ticks::new(17)),
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

fn partition(stream: &str, partition: &str) -> PartitionId {
    PartitionId { stream: stream.into(), partition: partition.into() }
}

async fn open(root: &Path) -> FileDeadLetters {
    FileDeadLetters::open(root).await.unwrap()
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

async fn listed(letters: &FileDeadLetters) -> Vec<LetterName> {
    let mut listed = Vec::new();
    for partition in letters.partitions().await.unwrap() {
        listed.extend(letters.letters(&partition).await.unwrap());
    }
    listed
}

async fn names(letters: &FileDeadLetters) -> Vec<String> {
    listed(letters).await.iter().map(LetterName::to_string).collect()
}

async fn read(letters: &FileDeadLetters, name: &LetterName) -> (StoredLetter, LetterVersion) {
    match letters.read(name).await.unwrap() {
        ReadLetter::Found(letter, version) => (*letter, version),
        other => panic!("{name}: {other:?}"),
    }
}

#[tokio::test]
async fn a_stored_dead_letter_reads_back_unchanged() {
    let directory = tempfile::tempdir().unwrap();
    let letters = open(&directory.path().join("not/yet/there")).await;
    let (place, message) = (partition("Twins", "0"), message(7, b"not json \xff"));
    store(&letters, &place, &message).await.unwrap();
    assert_eq!(names(&letters).await, ["twins/0/7"]);
    let (read, _) = read(&letters, &listed(&letters).await[0]).await;
    assert_eq!(read.message, message);
    assert_eq!(read.partition, place);
    assert_eq!(read.reason, "body_not_json");
    assert_eq!(read.detail, "expected value at line 1");
    assert!(read.stored_at.is_some());
}

#[tokio::test]
async fn storing_one_event_again_leaves_one_dead_letter() {
    let directory = tempfile::tempdir().unwrap();
    let letters = open(directory.path()).await;
    let place = partition("twins", "0");
    for _ in 0..3 {
        store(&letters, &place, &message(7, b"x")).await.unwrap();
    }
    assert_eq!(names(&letters).await, ["twins/0/7"]);
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
    assert_eq!(names(&letters).await, ["twins/0/7", "twins/0/7.2", "twins/0/8", "twins/0/8.2"]);
    let edited = LetterName::new(Arc::new(place), "8");
    assert!(matches!(letters.read(&edited).await.unwrap(), ReadLetter::Damaged(..)));
}

#[test]
fn the_error_code_has_a_page() {
    let page = format!("{}/docs/errors/{DAMAGED}.md", env!("CARGO_MANIFEST_DIR"));
    assert!(Path::new(&page).exists(), "{page}");
}

#[tokio::test]
async fn dead_letters_are_listed_by_number_and_names_stay_inside_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("letters");
    let letters = open(&root).await;
    for number in [100, 20, 3] {
        store(&letters, &partition("../../x", ".."), &message(number, b"x")).await.unwrap();
    }
    assert_eq!(names(&letters).await, ["../../x/../3", "../../x/../20", "../../x/../100"]);
    assert!(root.join("..%2F..%2Fx/%2E%2E/3.json").is_file());
    let outside = LetterName::new(Arc::new(partition("twins", "0")), "../../../x");
    letters.read(&outside).await.expect_err("leads out of the directory");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_partly_written_file_is_no_dead_letter() {
    let directory = tempfile::tempdir().unwrap();
    let letters = open(directory.path()).await;
    let place = partition("twins", "0");
    store(&letters, &place, &message(1, b"x")).await.unwrap();
    durable_file::Staged::write(&letters.directory(&place).join("2.json"), b"{").unwrap();
    assert_eq!(names(&letters).await, ["twins/0/1"]);
    store(&letters, &place, &message(2, b"x")).await.unwrap();
    assert_eq!(names(&letters).await, ["twins/0/1", "twins/0/2"]);
}

#[tokio::test]
async fn a_place_that_cannot_be_written_is_an_error_and_not_a_loss() {
    let directory = tempfile::tempdir().unwrap();
    let letters = open(directory.path()).await;
    // A file is at the path of the stream's directory.
    fs::write(directory.path().join("twins"), "").unwrap();
    let error = store(&letters, &partition("twins", "0"), &message(1, b"x")).await.expect_err("no directory");
    assert!(error.to_string().starts_with("cannot store the dead letter of twins/0@1 in "), "{error}");
    fs::remove_file(directory.path().join("twins")).unwrap();
    store(&letters, &partition("twins", "0"), &message(1, b"x")).await.unwrap();

    FileDeadLetters::open(&directory.path().join("twins/0/1.json"))
        .await
        .expect_err("a file is no directory");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abandoned_attempt_does_not_disturb_its_repeat() {
    let directory = tempfile::tempdir().unwrap();
    let letters = open(directory.path()).await;
    let (place, message) = (partition("twins", "0"), message(1, b"x"));
    for _ in 0..50 {
        // A write that is dropped after its first poll continues in the background.
        let mut abandoned = Box::pin(store(&letters, &place, &message));
        let _ = futures::poll!(abandoned.as_mut());
        drop(abandoned);
        store(&letters, &place, &message).await.unwrap();
    }
    assert_eq!(names(&letters).await, ["twins/0/1"]);
}

#[tokio::test]
async fn removing_is_durable_and_can_be_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let letters = open(directory.path()).await;
    let place = partition("twins", "0");
    for number in [7, 8] {
        store(&letters, &place, &message(number, b"x")).await.unwrap();
    }
    let name = listed(&letters).await.remove(0);
    let (_, version) = read(&letters, &name).await;
    for _ in 0..2 {
        assert_eq!(letters.remove(&name, &version).await.unwrap(), Removed::Gone);
        assert_eq!(names(&letters).await, ["twins/0/8"]);
        assert!(matches!(letters.read(&name).await.unwrap(), ReadLetter::Absent));
    }
    let left = fs::read_dir(directory.path().join("twins/0")).unwrap().count();
    assert_eq!(left, 1, "one dead letter must be left");
    fs::remove_dir_all(directory.path().join("twins")).unwrap();
    assert_eq!(letters.remove(&name, &version).await.unwrap(), Removed::Gone);
}

#[tokio::test]
async fn a_dead_letter_that_was_replaced_since_it_was_read_is_not_removed() {
    let directory = tempfile::tempdir().unwrap();
    let letters = open(directory.path()).await;
    let place = partition("twins", "0");
    store(&letters, &place, &message(7, b"x")).await.unwrap();
    let name = listed(&letters).await.remove(0);
    let (_, version) = read(&letters, &name).await;
    letters.remove(&name, &version).await.unwrap();
    store(&letters, &place, &message(7, b"y")).await.unwrap();
    assert_eq!(letters.remove(&name, &version).await.unwrap(), Removed::Changed);
    assert_eq!(read(&letters, &name).await.0.message.body.as_ref(), b"y");
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_not_taken_for_an_empty_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("letters");
    FileDeadLetters::open_existing(&path).await.expect_err("no directory");
    assert!(!path.exists());
    FileDeadLetters::open(&path).await.unwrap();
    let letters = FileDeadLetters::open_existing(&path).await.unwrap();
    assert!(letters.partitions().await.unwrap().is_empty());
}

#[tokio::test]
async fn the_first_dead_letters_of_all_partitions_are_listed_up_to_a_limit_with_their_times() {
    let directory = tempfile::tempdir().unwrap();
    let letters = open(directory.path()).await;
    assert_eq!(letters.first(10).await.unwrap(), Listing::default());
    let before = Ticks::new(0).after(std::time::UNIX_EPOCH.elapsed().unwrap());
    for (stream, number) in [("twins", 1), ("twins", 2), ("life/cycle", 3)] {
        store(&letters, &partition(stream, "0"), &message(number, b"x")).await.unwrap();
    }
    fs::write(directory.path().join("twins").join("0").join("notes.txt"), b"no letter").unwrap();
    let all = letters.first(3).await.unwrap();
    let mut names: Vec<_> =
        all.letters.iter().map(|letter| format!("{}/{}", letter.partition, letter.name)).collect();
    names.sort();
    assert_eq!((names.join(" ").as_str(), all.more), ("life/cycle/0/3 twins/0/1 twins/0/2", false));
    for letter in &all.letters {
        let age = letter.stored.expect("known").seconds_since(before);
        assert!((-2.0..60.0).contains(&age), "{age}");
    }
    let some = letters.first(2).await.unwrap();
    assert_eq!((some.letters.len(), some.more), (2, true));
}
