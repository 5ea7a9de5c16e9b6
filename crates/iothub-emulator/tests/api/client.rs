//! A hub with its API, and a back end that signs its requests.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use iothub_emulator::{
    HubNames, Notification, Operation, Options, Route, RouteError, Service, TwinId,
    api::{self, Server},
};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use sha2::Sha256;

pub(crate) const HOST: &str = "devkit-hub.azure-devices.localhost";
pub(crate) const KEY: &str = "a2V5IG9mIHRoZSB0ZXN0cw==";
/// Maximum duration of any wait in these tests.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// Records (Event Hub, event).
#[derive(Default)]
pub(crate) struct Log(pub(crate) Mutex<Vec<(String, Notification)>>);

impl Route for Log {
    fn append(&self, hub: &str, _partition_key: &str, notification: &Notification) -> Result<(), RouteError> {
        self.0.lock().unwrap().push((hub.to_owned(), notification.clone()));
        Ok(())
    }
}

pub(crate) struct World {
    pub(crate) hub: Arc<Service>,
    pub(crate) server: Server,
    pub(crate) log: Arc<Log>,
    client: Client,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(None).await
    }

    pub(crate) async fn with(token: Option<&str>) -> Self {
        Self::over(Options::default(), token).await
    }

    /// A hub that remembers this many changes.
    pub(crate) async fn with_history(history: usize) -> Self {
        Self::over(Options { history, ..Options::default() }, None).await
    }

    async fn over(options: Options, token: Option<&str>) -> Self {
        let log = Arc::new(Log::default());
        let hub = Arc::new(Service::new(options, HubNames::default(), log.clone()));
        let options = api::Options {
            listen: ([127, 0, 0, 1], 0).into(),
            host_name: HOST.to_owned(),
            policy: "service".to_owned(),
            key: KEY.to_owned(),
            token: token.map(str::to_owned),
            quota: None,
        };
        let server = Server::start(options, Arc::clone(&hub)).await.unwrap();
        Self { hub, server, log, client: Client::new() }
    }

    pub(crate) fn create(&self, device: &str, twin: Value) {
        let id = TwinId::device(device).unwrap();
        self.hub.apply(&Operation::Create { id, twin: Some(twin) }).unwrap();
    }

    pub(crate) fn report(&self, device: &str, patch: Value) {
        let id = TwinId::device(device).unwrap();
        self.hub.apply(&Operation::Report { id, patch }).unwrap();
    }

    pub(crate) fn delete(&self, device: &str) {
        self.hub.apply(&Operation::Delete { id: TwinId::device(device).unwrap() }).unwrap();
    }

    /// A request without authorization.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mark = if path.contains('?') { '&' } else { '?' };
        let url = format!("http://{}{path}{mark}api-version=2021-04-12", self.server.address());
        self.client.request(method, url).timeout(TIMEOUT)
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).header("authorization", signature()).send().await.unwrap()
    }

    pub(crate) fn query(&self, query: &str) -> RequestBuilder {
        self.request(Method::POST, "/devices/query")
            .header("authorization", signature())
            .json(&json!({ "query": query }))
    }

    /// All pages, each with its device ids, or with its module ids for modules.
    pub(crate) async fn pages(&self, query: &str, size: usize) -> Vec<Vec<String>> {
        let mut pages = Vec::new();
        let mut continuation: Option<String> = None;
        loop {
            let (ids, next) = self.page(query, size, continuation.as_deref()).await;
            pages.push(ids);
            continuation = next;
            if continuation.is_none() {
                return pages;
            }
        }
    }

    pub(crate) async fn page(
        &self,
        query: &str,
        size: usize,
        continuation: Option<&str>,
    ) -> (Vec<String>, Option<String>) {
        let mut request = self.query(query).header("x-ms-max-item-count", size);
        if let Some(continuation) = continuation {
            request = request.header("x-ms-continuation", continuation);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{query}");
        let next = response.headers().get("x-ms-continuation").map(|next| next.to_str().unwrap().to_owned());
        let twins: Vec<Value> = response.json().await.unwrap();
        let id =
            |twin: &Value| twin.get("moduleId").unwrap_or(&twin["deviceId"]).as_str().unwrap().to_owned();
        (twins.iter().map(id).collect(), next)
    }
}

/// A signature that is valid for an hour.
pub(crate) fn signature() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    signed(HOST, now + 3_600, KEY)
}

pub(crate) fn signed(host: &str, expiry: u64, key: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(&STANDARD.decode(key).unwrap()).unwrap();
    let mac = mac.chain_update(format!("{host}\n{expiry}")).finalize().into_bytes();
    let escape = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    format!(
        "SharedAccessSignature sr={}&sig={}&se={expiry}&skn=service",
        escape(host),
        escape(&STANDARD.encode(mac))
    )
}
