//! The client against a server with scripted answers, over real sockets.

mod server;

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicUsize, Ordering},
};

use azure_core::{
    credentials::{AccessToken, TokenRequestOptions},
    error::ErrorKind,
    time::OffsetDateTime,
};

use self::server::{DATE, Server, bare, with};
use super::*;
use crate::{
    config::Secret,
    domain::{quota::Tier, ticks::Ticks, twin::TwinVersion},
};

const KEY: &str = "c2VjcmV0c2VjcmV0c2VjcmV0";

fn twin(device: &str) -> String {
    json!({"deviceId": device, "version": 3, "etag": "AAAAAAAAAAE=", "tags": {"a": 1}}).to_string()
}

fn settings(endpoint: Url, access: config::HubAccess) -> config::IotHub {
    config::IotHub {
        hubs: vec![config::Hub {
            name: "Contoso".into(),
            host: "contoso.azure-devices.net".to_owned(),
            endpoint: Some(endpoint),
            access,
        }],
        tier: Tier::S1,
        units: NonZeroU32::MIN,
        identity: false,
        share: 1.0,
        request_timeout: Duration::from_secs(20),
    }
}

fn policy() -> config::HubAccess {
    config::HubAccess::Policy { name: "service".to_owned(), key: Secret::new(KEY) }
}

/// Counts requests and returns what it was given.
#[derive(Debug)]
struct FakeCredential {
    token: Result<&'static str, &'static str>,
    asked: AtomicUsize,
}

#[async_trait]
impl TokenCredential for FakeCredential {
    async fn get_token(
        &self,
        scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        assert_eq!(scopes, ["https://iothubs.azure.net/.default"]);
        self.asked.fetch_add(1, Ordering::Relaxed);
        let expires_on = OffsetDateTime::now_utc() + Duration::from_secs(3600);
        self.token
            .map(|token| AccessToken::new(token, expires_on))
            .map_err(|message| azure_core::Error::with_message(ErrorKind::Credential, message))
    }
}

fn credential(token: Result<&'static str, &'static str>) -> Arc<FakeCredential> {
    Arc::new(FakeCredential { token, asked: AtomicUsize::new(0) })
}

fn hub_of(settings: &config::IotHub, credential: Arc<FakeCredential>) -> Arc<dyn TwinRegistry> {
    let credential: Arc<dyn TokenCredential> = credential;
    connect(settings, &credential).unwrap().remove(0)
}

/// The hub behind a server, with a policy.
fn hub(server: &Server) -> Arc<dyn TwinRegistry> {
    hub_of(&settings(server.endpoint.clone(), policy()), credential(Err("not asked")))
}

fn key() -> TwinKey {
    TwinKey::device("Contoso", "d")
}

/// The error of a point read with this response.
async fn unknown(response: server::Response) -> StoreError {
    unknown_of(response, &key()).await
}

async fn unknown_of(response: server::Response, key: &TwinKey) -> StoreError {
    let server = Server::start([response]).await;
    match hub(&server).get(key).await {
        Got::Unknown(trouble) => trouble,
        other => panic!("must be unknown: {other:?}"),
    }
}

#[tokio::test]
async fn a_twin_is_read_with_the_hubs_time() {
    let server = Server::start([with(200, &[], twin("d"))]).await;
    let Got::Present(found) = hub(&server).get(&key()).await else { panic!("must be present") };
    assert_eq!((found.key, found.version), (key(), TwinVersion(3)));
    assert_eq!(Some(found.at), Ticks::parse("2031-05-27T10:00:07Z"));
    let seen = server.seen().remove(0);
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("GET", "/twins/d?api-version=2021-04-12"));
    assert_eq!(
        seen.header("host"),
        "contoso.azure-devices.net",
        "the host name does not depend on the address"
    );
}

#[tokio::test]
async fn odd_ids_arrive_as_they_are() {
    let odd = "a:b%c#*?!(),=@$'+._- ä/";
    let module = TwinKey::module("Contoso", odd, "$edgeAgent");
    let mut body: Value = serde_json::from_str(&twin(odd)).unwrap();
    body["moduleId"] = json!("$edgeAgent");
    let server = Server::start([with(200, &[], twin(odd)), with(200, &[], body.to_string())]).await;
    let hub = hub(&server);
    assert!(matches!(hub.get(&TwinKey::device("Contoso", odd)).await, Got::Present(_)));
    assert!(matches!(hub.get(&module).await, Got::Present(_)));
    let encoded = "a%3Ab%25c%23%2A%3F%21%28%29%2C%3D%40%24%27%2B._-%20%C3%A4%2F";
    let targets: Vec<_> = server.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(
        targets,
        [
            format!("/twins/{encoded}?api-version=2021-04-12"),
            format!("/twins/{encoded}/modules/%24edgeAgent?api-version=2021-04-12"),
        ]
    );
}

#[tokio::test]
async fn ids_that_no_url_can_hold_are_not_asked_for() {
    let server = Server::start([]).await;
    let Got::Unknown(trouble) = hub(&server).get(&TwinKey::device("Contoso", "..")).await else {
        panic!("must be unknown")
    };
    assert!(trouble.message.contains("cannot be part of a URL"), "{}", trouble.message);
    assert_eq!(server.seen().len(), 0);
}

#[tokio::test]
async fn only_the_hubs_own_404_is_an_absence() {
    let body = r#"{"Message":"ErrorCode:DeviceNotFound;d","ExceptionMessage":"Tracking ID:1"}"#;
    let module = TwinKey::module("Contoso", "d", "m");
    let no_module = r#"{"errorCode":404010,"message":"m"}"#;
    for (key, response) in [
        (key(), with(404, &[], body)),
        (key(), with(404, &[("iothub-errorcode", "DeviceNotFound")], "")),
        (module.clone(), with(404, &[], body)),
        (module.clone(), with(404, &[], no_module)),
    ] {
        let server = Server::start([response]).await;
        let Got::Absent(at) = hub(&server).get(&key).await else { panic!("{key} must be absent") };
        assert_eq!(Some(at), Ticks::parse("2031-05-27T10:00:07Z"));
    }
    for response in [
        with(404, &[], "<html>nothing here</html>"),
        with(404, &[], ""),
        with(404, &[], r#"{"error":"not found"}"#),
        with(404, &[], no_module),
        with(404, &[("iothub-errorcode", "IotHubNotFound")], body),
    ] {
        let trouble = unknown(response).await;
        assert_eq!(trouble.kind, StoreErrorKind::Unavailable);
        assert!(trouble.message.contains("this answer is not from the hub"), "{}", trouble.message);
    }
    // A refusal with another status that names the error does not mean "not found" either.
    for status in [200, 400, 410, 500] {
        unknown(with(status, &[("iothub-errorcode", "DeviceNotFound")], body)).await;
    }
    // Nor does a refusal without a valid time.
    let trouble = unknown(bare(404, &[("date", "yesterday")], body)).await;
    assert!(trouble.message.contains("its Date header is not a date"), "{}", trouble.message);
}

#[tokio::test]
async fn an_answer_that_is_no_twin_is_unknown_and_says_why() {
    for (response, reason) in [
        (with(200, &[], "<html>log in</html>"), "line 1 column 1"),
        (with(200, &[], ""), "not have the expected form"),
        (with(200, &[], "{}"), "not a twin"),
        (with(200, &[], twin("other")), "a different twin"),
        (bare(200, &[("date", "27 May 2031")], twin("d")), "its Date header is not a date"),
        (with(200, &[], vec![b' '; TWIN_BYTES_MAX + 1]), "more than 4194304 bytes"),
        (with(204, &[], ""), "204"),
    ] {
        let trouble = unknown(response).await;
        assert_eq!((trouble.kind, trouble.retry_after), (StoreErrorKind::Unavailable, None));
        assert!(trouble.message.starts_with("get twin: "), "{}", trouble.message);
        assert!(trouble.message.contains(reason), "{reason} not in {}", trouble.message);
    }
}

#[tokio::test]
async fn throttling_tells_how_long_to_wait() {
    let ms = |milliseconds| Some(Duration::from_millis(milliseconds));
    for (headers, expected) in [
        (&[][..], None),
        (&[("retry-after", "7")], ms(7000)),
        (&[("retry-after", "Tue, 27 May 2031 10:00:19 GMT")], ms(12_000)),
        (&[("retry-after", "Tue, 27 May 2031 09:00:00 GMT")], ms(0)),
        (&[("retry-after", "soon")], None),
        (&[("retry-after", "7"), ("retry-after-ms", "250")], ms(250)),
        (&[("x-ms-retry-after-ms", "1500")], ms(1500)),
        (&[("retry-after", "99999999999")], ms(3_600_000)),
    ] {
        let body = r#"{"Message":"ErrorCode:ThrottlingException;slow down"}"#;
        let trouble = unknown(with(429, headers, body)).await;
        assert_eq!((trouble.kind, trouble.retry_after), (StoreErrorKind::Throttled, expected), "{headers:?}");
        assert_eq!(trouble.message, "get twin: 429 ThrottlingException: slow down");
    }
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    for (status, body, remedy) in [
        (401, "", "ServiceConnect"),
        (403, r#"{"Message":"ErrorCode:IotHubUnauthorizedAccess;no"}"#, "IotHubUnauthorizedAccess: no"),
        (403, r#"{"errorCode":403002,"message":"quota"}"#, "used up"),
        (302, "", "redirects are not followed"),
        (500, "", "get twin: 500"),
        (503, "<html>", "get twin: 503"),
    ] {
        let trouble = unknown(with(status, &[("location", "/elsewhere")], body)).await;
        assert_eq!(trouble.kind, StoreErrorKind::Unavailable);
        assert!(trouble.message.contains(remedy), "{remedy} not in {}", trouble.message);
    }
    let busy = unknown(with(503, &[("retry-after", "3")], "")).await;
    assert_eq!(busy.retry_after, Some(Duration::from_secs(3)));

    let server = Server::start([with(401, &[], "")]).await;
    let entra =
        hub_of(&settings(server.endpoint.clone(), config::HubAccess::Credential), credential(Ok("t")));
    let Got::Unknown(trouble) = entra.get(&key()).await else { panic!("must be unknown") };
    assert!(trouble.message.contains("role `IoT Hub Data Reader`"), "{}", trouble.message);
}

#[tokio::test]
async fn every_call_carries_a_signature_or_a_token() {
    let server = Server::start([with(200, &[], twin("d")), with(200, &[], twin("d"))]).await;
    let fake = credential(Ok("hunter2"));
    let entra = settings(server.endpoint.clone(), config::HubAccess::Credential);
    assert!(matches!(hub(&server).get(&key()).await, Got::Present(_)));
    assert!(matches!(hub_of(&entra, Arc::clone(&fake)).get(&key()).await, Got::Present(_)));
    let seen = server.seen();
    let signed = seen[0].header("authorization");
    assert!(signed.starts_with("SharedAccessSignature sr=contoso.azure-devices.net&sig="), "{signed}");
    assert!(signed.ends_with("&skn=service"), "{signed}");
    assert_eq!(seen[1].header("authorization"), "Bearer hunter2");
    assert_eq!(fake.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn without_a_token_nothing_is_sent() {
    let server = Server::start([]).await;
    let entra = settings(server.endpoint.clone(), config::HubAccess::Credential);
    for (token, reason) in
        [(Err("no identity here"), "no identity here"), (Ok("line\nbreak"), "not allowed in an HTTP header")]
    {
        let Got::Unknown(trouble) = hub_of(&entra, credential(token)).get(&key()).await else {
            panic!("must be unknown")
        };
        assert_eq!(trouble.kind, StoreErrorKind::Unavailable);
        assert!(trouble.message.contains(reason), "{}", trouble.message);
    }
    assert_eq!(server.seen().len(), 0);
}

#[tokio::test]
async fn a_server_that_is_not_there_hangs_or_breaks_off_is_unknown_in_time() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    let silent =
        config::IotHub { request_timeout: Duration::from_millis(50), ..settings(endpoint.clone(), policy()) };
    let get = async |settings: &config::IotHub| {
        let hub = hub_of(settings, credential(Err("not asked")));
        match tokio::time::timeout(Duration::from_secs(20), hub.get(&key())).await.expect("in time") {
            Got::Unknown(trouble) => trouble,
            other => panic!("must be unknown: {other:?}"),
        }
    };
    // The kernel accepts the connection, but nothing answers.
    let trouble = get(&silent).await;
    assert_eq!(trouble.kind, StoreErrorKind::Unavailable);
    assert_eq!(trouble.message, "get twin: no answer within 50ms");

    let patient = settings(endpoint, policy());
    let broken = async {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            // The connection of the unanswered call ends without a request.
            if socket.read(&mut [0; 4096]).await.is_ok_and(|bytes| bytes > 0) {
                let head = format!("HTTP/1.1 200 OK\r\ndate: {DATE}\r\ncontent-length: 500\r\n\r\n{{");
                if socket.write_all(head.as_bytes()).await.is_ok() {
                    drop(socket);
                }
            }
        }
    };
    let trouble = tokio::select! {
        trouble = get(&patient) => trouble,
        () = broken => unreachable!("serves for ever"),
    };
    assert_eq!(trouble.kind, StoreErrorKind::Unavailable, "{}", trouble.message);

    drop(listener);
    let trouble = get(&patient).await;
    assert_eq!(trouble.kind, StoreErrorKind::Unavailable);
    assert!(!trouble.message.contains('\n') && !trouble.message.contains("/twins/"), "{}", trouble.message);
}

#[tokio::test]
async fn pages_of_a_query_are_asked_for_and_continued() {
    let module = json!({"deviceId": "d", "moduleId": "m", "version": 2});
    let rows = format!("[{}, {module}, {{\"count\": 3}}, 7]", twin("d"));
    let server = Server::start([
        with(200, &[("x-ms-continuation", "bmV4dA==")], rows),
        with(200, &[("x-ms-continuation", "")], "[]"),
    ])
    .await;
    let hub = hub(&server);
    let first = hub.query("SELECT * FROM devices", None, 100).await.unwrap();
    let keys: Vec<_> = first.rows.iter().map(|row| row.key.clone()).collect();
    assert_eq!(keys, [key(), TwinKey::module("Contoso", "d", "m")]);
    assert_eq!((first.odd, Some(first.at)), (2, Ticks::parse("2031-05-27T10:00:07Z")));
    let next = first.next.expect("a continuation");
    let last = hub.query("SELECT * FROM devices", Some(&next), 50).await.unwrap();
    assert_eq!((last.rows.len(), last.odd, last.next), (0, 0, None));
    let seen = server.seen();
    for (seen, most, continuation) in [(&seen[0], "100", ""), (&seen[1], "50", "bmV4dA==")] {
        assert_eq!(
            (seen.method.as_str(), seen.target.as_str()),
            ("POST", "/devices/query?api-version=2021-04-12")
        );
        assert_eq!(seen.header("x-ms-max-item-count"), most);
        assert_eq!(seen.header("x-ms-continuation"), continuation);
        assert_eq!(seen.header("content-type"), "application/json");
        assert_eq!(seen.body, r#"{"query":"SELECT * FROM devices"}"#);
    }
}

#[tokio::test]
async fn references_are_read_of_rows_with_columns_and_of_whole_twins() {
    let rows = format!(
        "[{}, {}, {}, {{\"deviceId\": \"d\"}}]",
        twin("d"),
        json!({"deviceId": "d", "version": 3}),
        json!({"deviceId": "d", "moduleId": "m", "version": 2})
    );
    let server = Server::start([with(200, &[("x-ms-continuation", "bmV4dA==")], rows)]).await;
    let query = "SELECT deviceId, version FROM devices";
    let page = hub(&server).references(query, None, 100).await.unwrap();
    let keys: Vec<_> = page.rows.iter().map(|row| row.key.clone()).collect();
    assert_eq!(keys, [key(), key(), TwinKey::module("Contoso", "d", "m")]);
    assert_eq!((page.rows[1].version, page.odd), (TwinVersion(3), 1));
    assert_eq!(page.next, Some(Continuation("bmV4dA==".to_owned())));
    assert_eq!(server.seen()[0].body, format!(r#"{{"query":"{query}"}}"#));
}

#[tokio::test]
async fn a_query_is_refused_with_the_services_words_and_a_continuation_expires() {
    let body = r#"{"Message":"ErrorCode:ArgumentInvalid;BadRequest: near FRM","ExceptionMessage":"x"}"#;
    let ask = async |response, from: Option<&Continuation>| {
        let server = Server::start([response]).await;
        hub(&server).query("SELECT * FRM devices", from, 10).await.expect_err("no page")
    };
    let refused = ask(with(400, &[], body), None).await;
    assert!(
        matches!(&refused, QueryError::Refused(reason) if reason == "400 ArgumentInvalid: BadRequest: near FRM"),
        "{refused}"
    );
    let from = Continuation("old".to_owned());
    assert!(matches!(ask(with(400, &[], body), Some(&from)).await, QueryError::Expired));
    let throttled = ask(with(429, &[("retry-after", "60")], ""), Some(&from)).await;
    assert_eq!(throttled.retry_after(), Some(Duration::from_secs(60)));
    let mut no_text = with(200, &[], "[]");
    no_text.headers_mut().insert("x-ms-continuation", HeaderValue::from_bytes(b"\xff").unwrap());
    for (response, reason) in [
        (no_text, "its continuation token is not text"),
        (with(200, &[], "{}"), "not have the expected form"),
        (bare(200, &[("date", "?")], "[]"), "its Date header is not a date"),
        (with(404, &[("iothub-errorcode", "DeviceNotFound")], ""), "query twins: 404"),
        (with(401, &[], ""), "ServiceConnect"),
    ] {
        let error = ask(response, None).await;
        assert!(
            matches!(&error, QueryError::StoreError(trouble) if trouble.kind == StoreErrorKind::Unavailable),
            "{error:?}"
        );
        assert!(error.to_string().contains(reason), "{reason} not in {error}");
    }
    // Text that no header can contain comes from a damaged note: nothing is sent.
    let server = Server::start([]).await;
    let odd = Continuation("a\nb".to_owned());
    let error = hub(&server).query("q", Some(&odd), 10).await.expect_err("no page");
    assert!(matches!(error, QueryError::Expired), "{error}");
    assert_eq!(server.seen().len(), 0);
}

#[tokio::test]
async fn devices_are_counted() {
    let server = Server::start([
        with(200, &[], r#"{"totalDeviceCount":12,"enabledDeviceCount":10,"disabledDeviceCount":2}"#),
        with(200, &[], "[]"),
        with(429, &[], ""),
    ])
    .await;
    let hub = hub(&server);
    assert_eq!(hub.device_count().await.unwrap(), 12);
    hub.device_count().await.expect_err("no count");
    let error = hub.device_count().await.expect_err("throttled");
    assert!(matches!(error, QueryError::StoreError(trouble) if trouble.kind == StoreErrorKind::Throttled));
    assert_eq!(server.seen()[0].target, "/statistics/devices?api-version=2021-04-12");
}

#[tokio::test]
async fn no_message_and_no_debug_output_holds_a_secret() {
    // A proxy that repeats the request.
    let body = r#"{"Message":"ErrorCode:Denied;got SharedAccessSignature sr=h&sig=c2VjcmV0&se=1"}"#;
    let trouble = unknown(with(403, &[], body)).await;
    assert!(!trouble.message.contains("c2VjcmV0"), "{}", trouble.message);

    let server =
        Server::start([with(403, &[], r#"{"Message":"ErrorCode:Denied;got Bearer hunter2"}"#)]).await;
    let entra = settings(server.endpoint.clone(), config::HubAccess::Credential);
    let hub = hub_of(&entra, credential(Ok("hunter2")));
    let Got::Unknown(trouble) = hub.get(&key()).await else { panic!("must be unknown") };
    assert!(!trouble.message.contains("hunter2"), "{}", trouble.message);

    let by_policy = settings(server.endpoint.clone(), policy());
    let credential: Arc<dyn TokenCredential> = credential(Ok("hunter2"));
    let client = IotHub::connect(&by_policy, &by_policy.hubs[0], &credential).unwrap();
    let printed = format!("{client:?} {by_policy:?}");
    assert!(!printed.contains(KEY) && !printed.contains("hunter2"), "{printed}");
}

#[tokio::test]
async fn a_key_that_is_none_is_refused_and_its_code_has_a_page() {
    let access = config::HubAccess::Policy { name: "service".to_owned(), key: Secret::new("no base64!") };
    let settings = settings(Url::parse("http://127.0.0.1:1").unwrap(), access);
    let credential: Arc<dyn TokenCredential> = credential(Ok("t"));
    let error = connect(&settings, &credential).err().expect("must be refused");
    let message = error.to_string();
    assert!(message.contains("IOTHUB_UNUSABLE") && !message.contains("no base64!"), "{message}");
    let page = format!("{}/docs/errors/{}.md", env!("CARGO_MANIFEST_DIR"), error.code());
    assert!(std::fs::read_to_string(&page).is_ok_and(|text| text.contains(error.code())), "{page}");
}
