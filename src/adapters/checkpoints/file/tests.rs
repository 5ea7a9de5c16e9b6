use super::*;

const NAMESPACE: &str = "contoso.servicebus.windows.net";

fn checkpoint(partition: &str, sequence_number: i64) -> Checkpoint {
    Checkpoint {
        fully_qualified_namespace: NAMESPACE.into(),
        event_hub_name: "twins".into(),
        consumer_group: "$Default".into(),
        partition_id: partition.into(),
        offset: Some(format!("epoch:1:{sequence_number}")),
        sequence_number: Some(sequence_number),
    }
}

fn claim(partition: &str, owner: &str, etag: Option<Etag>) -> Ownership {
    Ownership {
        fully_qualified_namespace: NAMESPACE.into(),
        event_hub_name: "twins".into(),
        consumer_group: "$Default".into(),
        partition_id: partition.into(),
        owner_id: Some(owner.into()),
        etag,
        last_modified_time: None,
    }
}

async fn open(root: &Path) -> FileStore {
    FileStore::open(root.to_owned()).await.unwrap()
}

async fn positions(store: &FileStore) -> Vec<(String, Option<String>, Option<i64>)> {
    let checkpoints = store.list_checkpoints(NAMESPACE, "twins", "$Default").await.unwrap();
    checkpoints
        .into_iter()
        .map(|checkpoint| (checkpoint.partition_id, checkpoint.offset, checkpoint.sequence_number))
        .collect()
}

fn position(partition: &str, number: i64) -> (String, Option<String>, Option<i64>) {
    (partition.into(), Some(format!("epoch:1:{number}")), Some(number))
}

/// The code of the error that a method of the trait returned.
fn code<T: std::fmt::Debug>(result: azure_core::Result<T>) -> &'static str {
    let error = result.expect_err("must fail");
    Error::find(&error).expect("an error of the store").code()
}

#[tokio::test]
async fn what_was_written_is_listed_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("a/b");
    let store = open(&root).await;
    assert_eq!(positions(&store).await, []);
    for (partition, number) in [("1", 10), ("0", 7), ("1", 11)] {
        store.update_checkpoint(checkpoint(partition, number)).await.unwrap();
    }
    drop(store);
    let store = open(&root).await;
    assert_eq!(positions(&store).await, [position("0", 7), position("1", 11)]);
    let other_group = store.list_checkpoints(NAMESPACE, "twins", "other").await.unwrap();
    assert_eq!(other_group.len(), 0);
}

#[tokio::test]
async fn names_that_differ_in_case_are_one() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    store.update_checkpoint(checkpoint("0", 1)).await.unwrap();
    let shouted = Checkpoint {
        fully_qualified_namespace: NAMESPACE.to_uppercase(),
        event_hub_name: "TWINS".into(),
        consumer_group: "$DEFAULT".into(),
        ..checkpoint("0", 2)
    };
    store.update_checkpoint(shouted).await.unwrap();
    assert_eq!(positions(&store).await, [position("0", 2)]);
    let listed = store.list_checkpoints(NAMESPACE, "Twins", "$default").await.unwrap();
    assert_eq!(listed[0].event_hub_name, "Twins", "names are returned in the spelling of the request");
}

#[tokio::test]
async fn a_second_store_on_the_directory_is_refused_and_names_the_holder() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path()).await;
    let error = FileStore::open(directory.path().to_owned()).await.expect_err("in use");
    assert_eq!(error.code(), "CHECKPOINT_DIRECTORY_IN_USE");
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    drop(first);
    open(directory.path()).await;
}

#[tokio::test]
async fn a_crash_between_writing_and_renaming_leaves_the_old_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    store.update_checkpoint(checkpoint("0", 1)).await.unwrap();
    let place = Place::new(NAMESPACE, "twins", "$Default", "0").unwrap();
    let path = store.0.file(&place, CHECKPOINT);
    durable_file::Staged::write(&path, b"{ half").unwrap();
    drop(store);
    let store = open(directory.path()).await;
    assert_eq!(positions(&store).await, [position("0", 1)]);
    let left = fs::read_dir(path.parent().unwrap()).unwrap().count();
    assert_eq!(left, 1, "the temporary file of the crash must be deleted");
}

#[tokio::test]
async fn a_damaged_file_is_an_error_and_never_no_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    store.update_checkpoint(checkpoint("0", 1)).await.unwrap();
    store.update_checkpoint(checkpoint("1", 1)).await.unwrap();
    let path =
        |partition| store.0.file(&Place::new(NAMESPACE, "twins", "$Default", partition).unwrap(), CHECKPOINT);
    let good = fs::read_to_string(path("0")).unwrap();
    for bad in [
        String::new(),
        "{}".to_owned(),
        good[..good.len() / 2].to_owned(),
        good.replace("twinsync-1", "twinsync-2"),
        good.replace("\"sequence_number\": 1", "\"sequence_number\": \"1\""),
        fs::read_to_string(path("1")).unwrap(), // of another partition
    ] {
        fs::write(path("0"), &bad).unwrap();
        let result = store.list_checkpoints(NAMESPACE, "twins", "$Default").await;
        assert_eq!(code(result), "CHECKPOINT_DAMAGED", "{bad}");
    }
    fs::write(path("0"), good).unwrap();
    assert_eq!(positions(&store).await.len(), 2);
}

#[tokio::test]
async fn a_checkpoint_that_says_nothing_is_refused_and_the_old_one_kept() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    store.update_checkpoint(checkpoint("0", 1)).await.unwrap();
    let nothing = Checkpoint { offset: None, sequence_number: None, ..checkpoint("0", 1) };
    assert_eq!(code(store.update_checkpoint(nothing).await), "CHECKPOINT_REFUSED");
    let nowhere = Checkpoint { event_hub_name: String::new(), ..checkpoint("0", 1) };
    assert_eq!(code(store.update_checkpoint(nowhere).await), "CHECKPOINT_REFUSED");
    assert_eq!(positions(&store).await, [position("0", 1)]);
    let only_one = Checkpoint { offset: None, ..checkpoint("0", 9) };
    store.update_checkpoint(only_one).await.unwrap();
    assert_eq!(positions(&store).await, [("0".into(), None, Some(9))]);
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    // A file is at the path of the namespace's directory.
    fs::write(directory.path().join(NAMESPACE), "").unwrap();
    assert_eq!(code(store.update_checkpoint(checkpoint("0", 1)).await), "CHECKPOINT_IO");
}

#[tokio::test]
async fn ownership_is_compare_and_set() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let first = store.claim_ownership(&[claim("0", "a", None)]).await.unwrap();
    assert_eq!(first.len(), 1);
    assert!(first[0].last_modified_time.is_some());

    // The ownership exists already: a claim without ETag fails silently.
    assert_eq!(store.claim_ownership(&[claim("0", "b", None)]).await.unwrap().len(), 0);
    // A renewal with the current ETag succeeds and gets a new ETag.
    let second = store.claim_ownership(&[claim("0", "a", first[0].etag.clone())]).await.unwrap();
    assert_ne!(second[0].etag, first[0].etag);
    // The old ETag is outdated; an unknown partition has none.
    assert_eq!(store.claim_ownership(&[claim("0", "b", first[0].etag.clone())]).await.unwrap().len(), 0);
    assert_eq!(store.claim_ownership(&[claim("9", "b", first[0].etag.clone())]).await.unwrap().len(), 0);

    let listed = store.list_ownerships(NAMESPACE, "twins", "$Default").await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].owner_id.as_deref(), Some("a"));
    assert_eq!(listed[0].etag, second[0].etag, "a listed ETag must be valid for a claim");
    assert_eq!(listed[0].last_modified_time, second[0].last_modified_time);
}

#[tokio::test]
async fn one_lost_claim_does_not_stop_the_others_and_release_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    store.claim_ownership(&[claim("0", "a", None)]).await.unwrap();
    let won = store.claim_ownership(&[claim("0", "b", None), claim("1", "b", None)]).await.unwrap();
    assert_eq!(won.len(), 1);
    assert_eq!(won[0].partition_id, "1");
    store.claim_ownership(&[claim("1", "", won[0].etag.clone())]).await.unwrap();
    let listed = store.list_ownerships(NAMESPACE, "twins", "$Default").await.unwrap();
    let owners: Vec<_> = listed.iter().map(|ownership| ownership.owner_id.as_deref()).collect();
    assert_eq!(owners, [Some("a"), Some("")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_concurrent_claims_exactly_one_wins() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(open(directory.path()).await);
    let mut claims = tokio::task::JoinSet::new();
    for owner in 0..16 {
        let store = Arc::clone(&store);
        claims.spawn(async move {
            store.claim_ownership(&[claim("0", &owner.to_string(), None)]).await.unwrap().len()
        });
    }
    let winners: usize = claims.join_all().await.into_iter().sum();
    assert_eq!(winners, 1);
}

#[tokio::test]
async fn the_configured_store_is_opened() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let identity = crate::config::Identity::Managed { client_id: None };
    let credential = crate::adapters::credential::connect(&identity).unwrap();
    let memory = super::super::open(&crate::config::CheckpointStore::Memory, &credential).await.unwrap();
    memory.store.update_checkpoint(checkpoint("0", 1)).await.unwrap();
    let file = super::super::open(&crate::config::CheckpointStore::File { path: path.clone() }, &credential)
        .await
        .unwrap();
    file.store.update_checkpoint(checkpoint("0", 1)).await.unwrap();
    assert!(path.join(NAMESPACE).is_dir());
}

#[tokio::test]
async fn a_read_only_store_reads_beside_the_holder_and_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let holder = open(directory.path()).await;
    holder.update_checkpoint(checkpoint("0", 7)).await.unwrap();
    let inner = &holder.0;
    let place = Place::new(NAMESPACE, "twins", "$Default", "0").unwrap();
    let half = inner.directory(&place, CHECKPOINT).join("1.json.0123456789abcdef.tmp");
    fs::write(&half, "half").unwrap();
    let reading = FileStore::read_only(directory.path().to_owned());
    assert_eq!(positions(&reading).await, [position("0", 7)]);
    assert!(half.exists(), "the holder may be writing the temporary file");
    assert_eq!(code(reading.update_checkpoint(checkpoint("0", 8)).await), "CHECKPOINT_REFUSED");
    assert_eq!(code(reading.claim_ownership(&[claim("0", "me", None)]).await), "CHECKPOINT_REFUSED");
    assert_eq!(positions(&holder).await, [position("0", 7)]);
    let nowhere = FileStore::read_only(directory.path().join("nowhere"));
    assert_eq!(positions(&nowhere).await, []);
    assert!(!directory.path().join("nowhere").exists());
}

#[tokio::test]
async fn a_check_of_the_lock_prevents_no_start() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()).await);
    let lock = File::open(directory.path().join(LOCK)).unwrap();
    lock.try_lock_shared().unwrap();
    let looked = tokio::task::spawn_blocking(move || {
        std::thread::sleep(LOCK_PAUSE * 2); // longer than any check holds the lock
        drop(lock);
    });
    open(directory.path()).await;
    looked.await.unwrap();
}
