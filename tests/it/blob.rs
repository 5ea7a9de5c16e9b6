//! Checkpoints and leases in Azurite: the layout that other SDKs share, claims, refusals and outages.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use azure_messaging_eventhubs::{
    CheckpointStore,
    models::{Checkpoint, Ownership},
};
use devkit::azurite::{Azurite, Permissions, Validity};
use twinsync::{
    adapters::{
        blob::Container,
        checkpoints::{BlobStore, Error, open},
        credential,
    },
    config::{Blob, CheckpointStore as Configured, Identity, Secret},
};

const NAMESPACE: &str = "Contoso.servicebus.windows.net";
const HUB: &str = "Twins";
const GROUP: &str = "$Default";
const PREFIX: &str = "contoso.servicebus.windows.net/twins/$default";

async fn azurite() -> Azurite {
    let free = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    Azurite::start(free).await.unwrap_or_else(|error| panic!("{error}"))
}

fn settings(url: &str) -> Blob {
    Blob { container_url: Secret::new(url), api_version: None }
}

async fn try_store(url: &str) -> Result<Arc<dyn CheckpointStore>, Error> {
    let identity = Identity::Emulator { token: Secret::new("any") };
    let credential = credential::connect(&identity).expect("no I/O");
    open(&Configured::Blob(settings(url)), &credential).await.map(|opened| opened.store)
}

async fn store(url: &str) -> Arc<dyn CheckpointStore> {
    try_store(url).await.unwrap_or_else(|error| panic!("{error}"))
}

fn checkpoint(partition: &str, sequence_number: Option<i64>, offset: Option<&str>) -> Checkpoint {
    Checkpoint {
        fully_qualified_namespace: NAMESPACE.into(),
        event_hub_name: HUB.into(),
        consumer_group: GROUP.into(),
        partition_id: partition.into(),
        offset: offset.map(str::to_owned),
        sequence_number,
    }
}

fn claim(partition: &str, owner: &str, based_on: Option<&Ownership>) -> Ownership {
    Ownership {
        fully_qualified_namespace: NAMESPACE.into(),
        event_hub_name: HUB.into(),
        consumer_group: GROUP.into(),
        partition_id: partition.into(),
        owner_id: Some(owner.into()),
        etag: based_on.and_then(|known| known.etag.clone()),
        last_modified_time: None,
    }
}

/// The stored checkpoints as (sequence number, offset) by partition.
async fn listed(store: &dyn CheckpointStore) -> BTreeMap<String, (Option<i64>, Option<String>)> {
    let list = store.list_checkpoints(NAMESPACE, HUB, GROUP).await.unwrap_or_else(|error| panic!("{error}"));
    list.into_iter().map(|found| (found.partition_id, (found.sequence_number, found.offset))).collect()
}

async fn owned(store: &dyn CheckpointStore) -> BTreeMap<String, Ownership> {
    let list = store.list_ownerships(NAMESPACE, HUB, GROUP).await.unwrap_or_else(|error| panic!("{error}"));
    list.into_iter().map(|found| (found.partition_id.clone(), found)).collect()
}

async fn one(store: &dyn CheckpointStore, claim: Ownership) -> Option<Ownership> {
    let mut claimed = store.claim_ownership(&[claim]).await.unwrap_or_else(|error| panic!("{error}"));
    assert!(claimed.len() <= 1);
    claimed.pop()
}

/// Writes an empty blob with metadata, like a program in another language. `url` is the URL of the container.
pub(crate) async fn foreign(url: &str, name: &str, metadata: &[(&str, &str)]) {
    let (address, query) = url.split_once('?').expect("signed");
    let mut request = reqwest::Client::new()
        .put(format!("{address}/{name}?{query}"))
        .header("x-ms-version", "2021-12-02")
        .header("x-ms-blob-type", "BlockBlob")
        .header("content-length", "0");
    for (name, value) in metadata {
        request = request.header(format!("x-ms-meta-{name}"), *value);
    }
    let answer = request.send().await.expect("an answer");
    assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap_or_default());
}

/// The listing of the container as XML.
pub(crate) async fn listing(url: &str) -> String {
    let url = format!("{url}&restype=container&comp=list&include=metadata");
    let request = reqwest::Client::new().get(url).header("x-ms-version", "2021-12-02");
    request.send().await.expect("an answer").text().await.expect("XML")
}

/// Every text that an error can be printed as.
fn printed(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!("\n{cause} {cause:?}"));
        source = cause.source();
    }
    text
}

fn signature(url: &str) -> &str {
    let (_, rest) = url.split_once("sig=").expect("signed");
    let end = rest.find('&').unwrap_or(rest.len());
    &rest[..end]
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_metadata_are_those_that_other_sdks_read() {
    let azurite = azurite().await;
    let url = azurite.account_url("layout", Validity::Good);
    let store = store(&url).await;
    store.update_checkpoint(checkpoint("0", Some(7), Some("4711"))).await.expect("written");
    store.update_checkpoint(checkpoint("1", Some(8), None)).await.expect("written");
    one(&*store, claim("0", "replica-a", None)).await.expect("free");
    let listing = listing(&url).await;
    for expected in [
        format!("<Name>{PREFIX}/checkpoint/0</Name>"),
        format!("<Name>{PREFIX}/checkpoint/1</Name>"),
        format!("<Name>{PREFIX}/ownership/0</Name>"),
        "<sequencenumber>7</sequencenumber>".to_owned(),
        "<offset>4711</offset>".to_owned(),
        "<ownerid>replica-a</ownerid>".to_owned(),
    ] {
        assert!(listing.contains(&expected), "{expected} not in\n{listing}");
    }
    assert_eq!(listing.matches("<Name>").count(), 3, "{listing}");
    assert_eq!(listing.matches("<offset>").count(), 1, "an unknown offset is left out\n{listing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_is_read_as_written_and_replaced_by_the_next() {
    let azurite = azurite().await;
    let store = store(&azurite.account_url("roundtrip", Validity::Good)).await;
    assert_eq!(listed(&*store).await, BTreeMap::new());
    store.update_checkpoint(checkpoint("0", Some(7), Some("1:2:3"))).await.expect("written");
    assert_eq!(listed(&*store).await["0"], (Some(7), Some("1:2:3".into())));
    store.update_checkpoint(checkpoint("0", Some(i64::MAX), Some(""))).await.expect("written");
    assert_eq!(listed(&*store).await["0"], (Some(i64::MAX), None));

    let error = store
        .update_checkpoint(checkpoint("0", None, Some("")))
        .await
        .expect_err("a checkpoint without position");
    assert_eq!(Error::find(&error).map(Error::code), Some("CHECKPOINT_REFUSED"));
    assert_eq!(listed(&*store).await["0"], (Some(i64::MAX), None), "the checkpoint is unchanged");
    // A checkpoint belongs to its consumer group.
    assert!(store.list_checkpoints(NAMESPACE, HUB, "other").await.expect("listed").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_sdk_left_empty_spoils_neither_its_neighbours_nor_its_own_partition() {
    let azurite = azurite().await;
    let url = azurite.account_url("neighbours", Validity::Good);
    let store = store(&url).await;
    let at = |partition: &str| format!("{PREFIX}/checkpoint/{partition}");
    foreign(&url, &at("0"), &[("sequencenumber", "7"), ("offset", "70"), ("clientidentifier", "net")]).await;
    foreign(&url, &at("1"), &[("sequencenumber", ""), ("offset", "80")]).await;
    foreign(&url, &at("2"), &[("sequencenumber", "9"), ("offset", "")]).await;
    foreign(&url, &at("3"), &[]).await;
    foreign(&url, &at("4"), &[("SequenceNumber", "11"), ("Offset", "no offset")]).await;
    foreign(&url, &at("5"), &[("sequencenumber", "-9223372036854775808"), ("offset", "")]).await;
    foreign(&url, &at("6"), &[("sequencenumber", "seven")]).await;
    foreign(&url, &at("7/deeper"), &[("sequencenumber", "1")]).await;
    foreign(&url, &format!("{PREFIX}/ownership/0"), &[("ownerid", ""), ("clientidentifier", "net")]).await;
    foreign(&url, &format!("{PREFIX}/ownership/1"), &[]).await;

    let text = |text: &str| Some(text.to_owned());
    let expected = [
        ("0", (Some(7), text("70"))),
        ("1", (None, text("80"))),
        ("2", (Some(9), None)),
        ("3", (None, None)),
        ("4", (Some(11), None)),
        ("5", (None, None)),
        ("6", (None, None)),
    ];
    let expected = expected.map(|(partition, position)| (partition.to_owned(), position));
    assert_eq!(
        listed(&*store).await,
        BTreeMap::from(expected),
        "a missing checkpoint would restart its partition from the beginning"
    );

    // Both forms of an ownership without owner can be claimed, and our checkpoint replaces theirs.
    let owners = owned(&*store).await;
    assert_eq!(owners["0"].owner_id.as_deref(), Some(""));
    assert_eq!(owners["1"].owner_id, None);
    for partition in ["0", "1"] {
        one(&*store, claim(partition, "us", Some(&owners[partition]))).await.expect("free");
        store.update_checkpoint(checkpoint(partition, Some(20), Some("200"))).await.expect("written");
    }
    assert_eq!(listed(&*store).await["1"], (Some(20), text("200")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_claim_wins_and_only_the_latest_etag_renews_or_releases() {
    let azurite = azurite().await;
    let url = azurite.account_url("claims", Validity::Good);
    let (a, b) = (store(&url).await, store(&url).await);
    let first = one(&*a, claim("0", "a", None)).await.expect("free");
    assert!(one(&*b, claim("0", "b", None)).await.is_none(), "the partition has an owner");
    assert_eq!(first.fully_qualified_namespace, NAMESPACE, "names are returned in their original spelling");
    let seen = owned(&*b).await.remove("0").expect("listed");
    assert_eq!((seen.owner_id.as_deref(), &seen.etag), (Some("a"), &first.etag), "both show the same ETag");

    let renewed = one(&*a, claim("0", "a", Some(&first))).await.expect("ours");
    assert_ne!(renewed.etag, first.etag);
    assert!(one(&*b, claim("0", "b", Some(&seen))).await.is_none(), "the ETag of the claim is old");

    let release = Ownership { owner_id: None, ..claim("0", "a", Some(&renewed)) };
    let released = one(&*a, release).await.expect("ours");
    let seen = owned(&*b).await.remove("0").expect("listed");
    assert_eq!(
        (seen.owner_id.as_deref(), &seen.etag),
        (Some(""), &released.etag),
        "an ownership without owner, as other SDKs write it"
    );
    assert!(one(&*a, claim("0", "a", Some(&renewed))).await.is_none(), "the lease was released");
    one(&*b, claim("0", "b", Some(&seen))).await.expect("free again");
    assert_eq!(owned(&*a).await["0"].owner_id.as_deref(), Some("b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_of_one_call_do_not_share_their_fate() {
    let azurite = azurite().await;
    let url = azurite.account_url("batch", Validity::Good);
    let store = store(&url).await;
    one(&*store, claim("1", "other", None)).await.expect("free");
    let gone = Ownership { etag: Some("0x1".into()), ..claim("3", "us", None) };
    let wanted = [claim("0", "us", None), claim("1", "us", None), claim("2", "us", None), gone];
    let claimed = store.claim_ownership(&wanted).await.expect("answered");
    let partitions: Vec<_> = claimed.iter().map(|claimed| claimed.partition_id.as_str()).collect();
    assert_eq!(partitions, ["0", "2"], "a partition with an owner and one without a blob are left out");

    azurite.stop().await.expect("stops");
    let error = store.claim_ownership(&wanted).await.expect_err("no claim was made");
    assert_eq!(Error::find(&error).map(Error::code), Some("BLOB_UNAVAILABLE"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_claimants_exactly_one_wins() {
    let azurite = azurite().await;
    let url = azurite.account_url("race", Validity::Good);
    let store = store(&url).await;
    let owners: Vec<String> = (0..16).map(|number| format!("replica-{number}")).collect();
    let claims = owners.iter().map(|owner| one(&*store, claim("0", owner, None)));
    let winners: Vec<_> = futures::future::join_all(claims).await.into_iter().flatten().collect();
    assert_eq!(winners.len(), 1, "{winners:?}");
    assert_eq!(owned(&*store).await["0"].owner_id, winners[0].owner_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_container_is_created_where_that_is_allowed() {
    let azurite = azurite().await;
    let limited = azurite.container_url("missing", Permissions::All, Validity::Good);
    let error = try_store(&limited).await.map(drop).expect_err("a container's signature cannot create it");
    assert_eq!(error.code(), "BLOB_CONTAINER_MISSING", "{error}");
    assert!(error.to_string().contains("create it"), "{error}");
    assert!(!printed(&error).contains(signature(&limited)), "{error:?}");

    // Replicas that start at the same time all succeed. The slash at the end does not change the names of the
    // blobs.
    let whole = azurite.account_url("missing", Validity::Good).replace("missing?", "missing/?");
    let together = futures::future::join_all((0..4).map(|_| try_store(&whole))).await;
    let first = together.into_iter().map(|result| result.unwrap_or_else(|error| panic!("{error}"))).next();
    first.expect("four").update_checkpoint(checkpoint("0", Some(1), None)).await.expect("written");
    assert_eq!(
        listed(&*store(&limited).await).await["0"],
        (Some(1), None),
        "the container's signature works inside the container"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_signature_is_told_in_one_line_without_the_signature() {
    let azurite = azurite().await;
    store(&azurite.account_url("refused", Validity::Good)).await;
    let expired = azurite.container_url("refused", Permissions::All, Validity::Expired);
    let wrong =
        azurite.container_url("refused", Permissions::All, Validity::Good).replace("sig=", "sig=AAAA");
    for url in [&expired, &wrong, &azurite.account_url("refused", Validity::Expired)] {
        let error = try_store(url).await.map(drop).expect_err("refused");
        assert_eq!(error.code(), "BLOB_REFUSED", "{error}");
        let message = error.to_string();
        assert!(message.contains("403") && message.contains("Storage Blob Data Contributor"), "{message}");
        assert!(!message.contains('\n') && !message.contains("sig="), "{message}");
        assert!(!printed(&error).contains(signature(url)), "{error:?}");
    }

    // A signature that may only read fails with the first write.
    let read = azurite.container_url("refused", Permissions::Read, Validity::Good);
    let store = store(&read).await;
    for error in [
        store.update_checkpoint(checkpoint("0", Some(1), None)).await.expect_err("read only"),
        store.claim_ownership(&[claim("0", "us", None)]).await.expect_err("read only"),
    ] {
        assert_eq!(Error::find(&error).map(Error::code), Some("BLOB_REFUSED"), "{error}");
        assert_eq!(error.http_status().map(u16::from), Some(403), "callers of the trait see the status");
        assert!(!printed(&error).contains(signature(&read)), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_told_in_time_and_passes() {
    let azurite = azurite().await;
    let url = azurite.account_url("outage", Validity::Good);
    let store = store(&url).await;
    store.update_checkpoint(checkpoint("0", Some(1), None)).await.expect("written");

    azurite.stop().await.expect("stops");
    let started = Instant::now();
    let error =
        store.update_checkpoint(checkpoint("0", Some(2), None)).await.expect_err("refused connection");
    assert!(started.elapsed() < Duration::from_secs(5), "took {:?}", started.elapsed());
    assert_eq!(Error::find(&error).map(Error::code), Some("BLOB_UNAVAILABLE"), "{error}");
    assert!(!printed(&error).contains(signature(&url)), "{error:?}");
    try_store(&url).await.map(drop).expect_err("a start fails as well");
    azurite.restart().await.expect("starts again");
    assert_eq!(listed(&*store).await["0"], (Some(1), None));
    store.update_checkpoint(checkpoint("0", Some(2), None)).await.expect("written");

    azurite.pause().await.expect("freezes");
    let started = Instant::now();
    let error = store.update_checkpoint(checkpoint("0", Some(3), None)).await.expect_err("no answer");
    assert!(started.elapsed() < Duration::from_secs(8), "took {:?}", started.elapsed());
    assert!(error.to_string().contains("no answer within 5 s"), "{error}");
    azurite.resume().await.expect("thaws");
    store.update_checkpoint(checkpoint("0", Some(4), None)).await.expect("written");
    assert_eq!(listed(&*store).await["0"], (Some(4), None));
}

/// The log of all libraries at the most detailed level.
#[tokio::test]
async fn no_log_shows_the_signature() {
    #[derive(Clone, Default)]
    struct Log(Arc<std::sync::Mutex<Vec<u8>>>);
    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("not poisoned").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let azurite = azurite().await;
    let url = azurite.account_url("log", Validity::Good);
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    {
        let _guard = tracing::subscriber::set_default(subscriber);
        let store = store(&url).await;
        store.update_checkpoint(checkpoint("0", Some(1), None)).await.expect("written");
        one(&*store, claim("0", "us", None)).await.expect("free");
        listed(&*store).await;
        azurite.stop().await.expect("stops");
        store.claim_ownership(&[claim("0", "us", None)]).await.expect_err("down");
        store.list_ownerships(NAMESPACE, HUB, GROUP).await.expect_err("down");
    }
    let log = String::from_utf8_lossy(&log.0.lock().expect("not poisoned")).into_owned();
    assert!(log.contains("azure") && log.contains("a claim failed"), "the log is too short: {}", log.len());
    let leaks: Vec<_> = log.lines().filter(|line| line.contains(signature(&url))).collect();
    assert_eq!(leaks, Vec::<&str>::new());
}

/// A container that other components open through the SDK's own client.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_shows_where_it_is_and_no_more() {
    let azurite = azurite().await;
    let url = azurite.account_url("place", Validity::Good);
    let identity = Identity::Emulator { token: Secret::new("any") };
    let credential = credential::connect(&identity).expect("no I/O");
    let container = Container::open(&settings(&url), credential).await.expect("created");
    assert_eq!(container.place(), format!("{}/place", azurite.endpoint()));
    let store = BlobStore::new(Arc::clone(&container)).expect("no I/O");
    for text in [format!("{container:?}"), format!("{store:?}"), format!("{:?}", container.client().url())] {
        assert!(!text.contains("sig=") && !text.contains(signature(&url)), "{text}");
    }
}

/// Returns the URL of a service that refuses the API version of its first request, and a receiver for that
/// request.
async fn outdated() -> (String, tokio::sync::oneshot::Receiver<String>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    const ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\nx-ms-error-code: InvalidHeaderValue\r\n\
                            content-length: 0\r\nconnection: close\r\n\r\n";
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/account/container?sig=c2VjcmV0", listener.local_addr().expect("an address"));
    let (tell, told) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("a request");
        let mut request = vec![0; 4096];
        let length = socket.read(&mut request).await.expect("a request");
        socket.write_all(ANSWER).await.expect("answered");
        let _ = tell.send(String::from_utf8_lossy(&request[..length]).into_owned());
    });
    (url, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_too_old_is_told_with_the_setting_that_helps() {
    let (url, request) = outdated().await;
    let identity = Identity::Emulator { token: Secret::new("any") };
    let credential = credential::connect(&identity).expect("no I/O");
    let older = Blob { api_version: Some("2019-12-12".into()), ..settings(&url) };
    let error = Container::open(&older, credential).await.map(drop).expect_err("too old");
    assert_eq!(error.code(), "BLOB_API_VERSION", "{error}");
    assert!(error.to_string().contains("blob.api_version"), "{error}");
    let request = request.await.expect("a request").to_lowercase();
    assert!(request.contains("x-ms-version: 2019-12-12"), "{request}");
    assert!(request.contains("&sig=c2vjcmv0 http"), "the request has the complete signature once: {request}");
    assert!(!printed(&error).contains("c2VjcmV0"), "{error:?}");
}
