//! The accounts that the daemon accepts, and the requests that it sends to them.

use std::sync::Arc;

use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

const LIMIT: Duration = Duration::from_secs(5);

fn endpoint() -> Url {
    Url::parse("https://contoso.documents.azure.com/").unwrap()
}

fn account(level: Option<&str>, multiple: bool, regions: &[&str]) -> Account {
    let locations: Vec<_> =
        regions.iter().map(|name| json!({"name": name, "databaseAccountEndpoint": "x"})).collect();
    let mut body = json!({
        "id": "contoso", "enableMultipleWriteLocations": multiple,
        "writableLocations": locations, "readableLocations": locations
    });
    if let Some(level) = level {
        body["userConsistencyPolicy"] = json!({"defaultConsistencyLevel": level});
    }
    serde_json::from_value(body).unwrap()
}

#[test]
fn less_than_session_is_refused_with_the_command_that_mends_it() {
    for (level, is_enough) in [
        (Some("Strong"), true),
        (Some("BoundedStaleness"), true),
        (Some("Session"), true),
        (Some("ConsistentPrefix"), false),
        (Some("Eventual"), false),
        (Some("Invented"), true),
        (None, true),
    ] {
        let checked = account(level, false, &["West Europe"]).check_consistency(&endpoint());
        assert_eq!(checked.is_ok(), is_enough, "{level:?}");
        if let Err(error) = checked {
            let text = error.to_string();
            let found = |what: &str| text.contains(what);
            assert!(
                found("COSMOS_CONSISTENCY") && found(level.unwrap()) && found("az cosmosdb update"),
                "{text}"
            );
        }
    }
}

#[test]
fn one_write_region_needs_no_pin_and_several_need_one_that_exists() {
    let single = account(Some("Session"), false, &["West Europe", "North Europe"]);
    assert_eq!(single.pin(&endpoint(), None).unwrap(), None);
    assert_eq!(
        single.pin(&endpoint(), Some("elsewhere")).unwrap(),
        None,
        "a failover may have changed the region"
    );
    let several = account(Some("Session"), true, &["West Europe", "North Europe", "East US"]);
    for named in [None, Some("UK South")] {
        let text = several.pin(&endpoint(), named).unwrap_err().to_string();
        assert!(text.contains("COSMOS_MULTI_WRITE") && text.contains("North Europe"), "{text}");
    }
    let excluded = several.pin(&endpoint(), Some("westeurope")).unwrap().unwrap();
    let excluded: Vec<_> = excluded.iter().cloned().collect();
    assert!(!excluded.contains(&Region::from("West Europe")), "{excluded:?}");
    for other in ["North Europe", "East US"] {
        assert!(excluded.contains(&Region::from(other)), "{excluded:?}");
    }
}

/// The example of Microsoft's page "Access control on Azure Cosmos DB resources", except for the resource, which is
/// empty for an account.
#[test]
fn a_key_signs_verb_and_date_in_lower_case() {
    let key = STANDARD.encode("some key");
    let signed = sign(&key, "Tue, 03 Feb 2026 10:00:00 GMT").unwrap();
    let mut expected = Hmac::<Sha256>::new_from_slice(b"some key").unwrap();
    expected.update(b"get\n\n\ntue, 03 feb 2026 10:00:00 gmt\n\n");
    assert_eq!(signed, STANDARD.encode(expected.finalize().into_bytes()));
    assert!(sign("no key!", "").is_err());
}

/// Answers one request; returns its head.
async fn serve(status: &str, body: &str) -> (Url, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    let answer =
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        String::from_utf8(head).unwrap()
    });
    (url, serving)
}

#[derive(Debug)]
struct Token;

#[async_trait::async_trait]
impl TokenCredential for Token {
    async fn get_token(
        &self,
        scopes: &[&str],
        _: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        assert_eq!(scopes, [SCOPE]);
        let expires = azure_core::time::OffsetDateTime::now_utc() + Duration::from_secs(3600);
        Ok(AccessToken::new("a.b/c", expires))
    }
}

#[tokio::test]
async fn the_account_is_read_with_a_key_or_a_token() {
    let body = r#"{"userConsistencyPolicy":{"defaultConsistencyLevel":"Eventual"},"writableLocations":[]}"#;
    let key = Access::Key(STANDARD.encode("some key"));
    for (access, proof) in
        [(key, "type%3Dmaster"), (Access::Token(Arc::new(Token)), "type%3Daad%26ver%3D1.0%26sig%3Da.b%2Fc")]
    {
        let (url, serving) = serve("200 OK", body).await;
        let account = Account::ask(&url, &access, LIMIT).await.unwrap();
        assert!(account.check_consistency(&url).is_err());
        let head = serving.await.unwrap().to_ascii_lowercase();
        assert!(head.starts_with("get / http/1.1") && head.contains("x-ms-version: "), "{head}");
        assert!(head.contains(&format!("authorization: {}", proof.to_ascii_lowercase())), "{head}");
    }
}

#[tokio::test]
async fn whatever_is_no_account_is_told_in_one_line_without_the_key() {
    let key = STANDARD.encode("some key");
    let access = Access::Key(key.clone());
    for (status, body, told) in [
        ("401 Unauthorized", "{}", "401"),
        ("302 Found", "", "302"),
        ("200 OK", "<html>", "cannot be parsed"),
        ("200 OK", "[]", "cannot be parsed"),
        ("200 OK", "{}", "cannot be parsed"),
    ] {
        let (url, serving) = serve(status, body).await;
        let reason = Account::ask(&url, &access, LIMIT).await.unwrap_err().to_string();
        assert!(reason.contains(told) && !reason.contains(&key) && !reason.contains('\n'), "{reason}");
        serving.await.unwrap();
    }
    // Nothing listens on this port any more.
    let (url, serving) = serve("200 OK", "").await;
    serving.abort();
    let _ = serving.await;
    assert!(Account::ask(&url, &access, LIMIT).await.is_err());
}
