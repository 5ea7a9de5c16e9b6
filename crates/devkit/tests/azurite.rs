//! Blob storage over HTTP: what its signatures allow, and the data after an outage.

use std::{net::SocketAddr, time::Duration};

use devkit::{
    azurite::{Azurite, Error, Permissions, Validity},
    stack::{Options, Stack},
};
use reqwest::{Client, RequestBuilder};

/// An API version that is newer than Azurite, which must accept it.
const VERSION: &str = "2026-04-06";

async fn azurite() -> Azurite {
    Azurite::start(free()).await.unwrap_or_else(|error| panic!("{error}"))
}

fn free() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// The status of the answer.
async fn status(request: RequestBuilder) -> u16 {
    request.header("x-ms-version", VERSION).send().await.expect("an answer").status().as_u16()
}

async fn create(container: &str, client: &Client) -> u16 {
    status(client.put(format!("{container}&restype=container")).header("content-length", "0")).await
}

async fn list(container: &str, client: &Client) -> u16 {
    status(client.get(format!("{container}&restype=container&comp=list"))).await
}

async fn put(container: &str, client: &Client, content: &'static str) -> u16 {
    let (url, query) = container.split_once('?').expect("signed");
    status(client.put(format!("{url}/x?{query}")).header("x-ms-blob-type", "BlockBlob").body(content)).await
}

async fn get(container: &str, client: &Client) -> String {
    let (url, query) = container.split_once('?').expect("signed");
    client.get(format!("{url}/x?{query}")).send().await.expect("an answer").text().await.expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_allow_what_they_say_until_they_expire() {
    let (azurite, client) = (azurite().await, Client::new());
    let account = azurite.account_url("box", Validity::Good);
    let all = azurite.container_url("box", Permissions::All, Validity::Good);
    let read = azurite.container_url("box", Permissions::Read, Validity::Good);
    assert_eq!(create(&all, &client).await, 403, "a container's signature cannot create it");
    assert_eq!(create(&account, &client).await, 201);
    assert_eq!(create(&account, &client).await, 409);
    assert_eq!(put(&all, &client, "one").await, 201);
    assert_eq!(put(&read, &client, "two").await, 403);
    assert_eq!(get(&read, &client).await, "one");
    for expired in [
        azurite.account_url("box", Validity::Expired),
        azurite.container_url("box", Permissions::All, Validity::Expired),
        all.replace("sig=", "sig=x"),
    ] {
        assert_eq!(list(&expired, &client).await, 403, "{expired}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_refuses_connections_and_leaves_the_data() {
    let (azurite, client) = (azurite().await, Client::new());
    let account = azurite.account_url("box", Validity::Good);
    assert_eq!(create(&account, &client).await, 201);
    assert_eq!(put(&account, &client, "kept").await, 201);
    azurite.stop().await.expect("stops");
    azurite.stop().await.expect("is stopped");
    let refused = client.get(&account).send().await.expect_err("refused");
    assert!(refused.is_connect(), "{refused:?}");
    azurite.restart().await.expect("starts again");
    assert_eq!(get(&account, &client).await, "kept");

    azurite.pause().await.expect("freezes");
    let silent = tokio::time::timeout(Duration::from_millis(300), list(&account, &client)).await;
    silent.expect_err("nothing is answered");
    azurite.resume().await.expect("thaws");
    assert_eq!(list(&account, &client).await, 200);
    azurite.pause().await.expect("freezes");
    azurite.stop().await.expect("stops even so");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_address_is_an_error_that_names_it() {
    let taken = std::net::TcpListener::bind(free()).expect("a port");
    let address = taken.local_addr().expect("an address");
    let error = Azurite::start(address).await.expect_err("taken");
    assert!(matches!(error, Error::Ended { .. }), "{error:?}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stack_has_blob_storage_where_it_is_asked_for() {
    let stack =
        Box::pin(Stack::start(Options { azurite: true, ..Options::default() })).await.expect("starts");
    let url = stack.endpoints().checkpoint_container_url.clone().expect("a url");
    let client = Client::new();
    assert_eq!(list(&url, &client).await, 404, "the daemon creates the container");
    assert_eq!(create(&url, &client).await, 201);
    stack.stop().await;
    client.get(&url).send().await.expect_err("it is gone");
}
