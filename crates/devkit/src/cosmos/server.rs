//! The account's lifetime: bind, seed, serve, stop.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, serve::ListenerExt};
use azure_data_cosmos_driver::in_memory_emulator::{
    ConsistencyLevel, ContainerConfig, InMemoryEmulatorHttpClient, VirtualAccountConfig, VirtualRegion,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{
    Counters, FaultError, Faults,
    authorization::MasterKey,
    bridge::{self, Account},
    counters::Counting,
    faults::Injector,
    price::{Ledger, Policy, Throughput},
    stale_reads::StaleReads,
};

/// The indexing policy that twinsync's documentation recommends.
pub const RECOMMENDED_POLICY: &str = include_str!("../../../../deploy/cosmos/indexing-policy.json");

/// The indexing policy of containers that are created without one: everything.
pub fn service_default_policy() -> Value {
    json!({
        "indexingMode": "consistent", "automatic": true,
        "includedPaths": [{"path": "/*"}], "excludedPaths": [{"path": "/\"_etag\"/?"}],
    })
}

/// How long requests under way may take at a stop.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// What to serve, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// The address to bind; port 0 takes a free one. Clients have to dial exactly this address, since the account
    /// document advertises it.
    pub listen: SocketAddr,
    /// The address that the account document advertises, where something stands in between: a
    /// [`Proxy`](crate::proxy::Proxy), for one. Absent: the one that is bound.
    pub advertised: Option<SocketAddr>,
    /// The database to create.
    pub database: String,
    /// The container to create, with partition key `/deviceId`.
    pub container: String,
    /// The account's key in base64. Given: requests must be signed with it. Absent: requests are not checked.
    pub key: Option<String>,
    /// Provisioned throughput in request units per second, at least 400, in equal parts for the partitions. Given: what is asked
    /// beyond it is answered with 429.
    pub throughput: Option<u64>,
    /// Physical partitions of the container, which share its throughput evenly. The more there are, the less a request costs
    /// where there are many documents: for the headers of every answer to a read or a write, the emulator counts the
    /// documents of the physical partition one by one, and for each page of a query it copies all of them. The SDK refuses
    /// to send a query to more than 100 unless its options say otherwise.
    pub partitions: u32,
    /// Indexing policy of the container, as the service's REST API has it; absent: [`RECOMMENDED_POLICY`]. Prices depend on it.
    pub indexing_policy: Option<Value>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            advertised: None,
            database: "twins".to_owned(),
            container: "twins".to_owned(),
            key: None,
            throughput: None,
            // Enough for some thousand documents, and few enough that a scan of a small container is a few requests.
            partitions: 16,
            indexing_policy: None,
        }
    }
}

/// Why the account could not start or change.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken or not ours.
    #[error("cannot listen on {address} for cosmos db")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The account's key is not base64.
    #[error("the cosmos db key is not base64")]
    Key(#[source] base64::DecodeError),
    /// A setting that the emulator does not take.
    #[error("cannot set up the cosmos db emulator: {0}")]
    Setup(String),
    /// A fault that makes no sense.
    #[error(transparent)]
    Fault(#[from] FaultError),
}

/// A running account.
pub struct Server {
    address: SocketAddr,
    account: Arc<Account>,
    stop: CancellationToken,
    serving: Mutex<Option<JoinHandle<std::io::Result<()>>>>,
}

impl Server {
    /// Binds the address, creates database and container, and serves.
    ///
    /// # Errors
    /// The address cannot be bound, or a setting makes no sense.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let key = options.key.as_deref().map(MasterKey::parse).transpose().map_err(Error::Key)?;
        let bind = |source| Error::Bind { address: options.listen, source };
        let listener = TcpListener::bind(options.listen).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        // The emulator finds its region by scheme, host and port, so the port has to be known first.
        let advertised = options.advertised.unwrap_or(address);
        let url =
            Url::parse(&format!("http://{advertised}/")).map_err(|error| Error::Setup(error.to_string()))?;
        let emulator = emulator(&options, &url)?;
        let indexing_policy = match options.indexing_policy {
            Some(policy) => policy,
            None => {
                serde_json::from_str(RECOMMENDED_POLICY).map_err(|error| Error::Setup(error.to_string()))?
            }
        };
        let policy = Policy::read(&indexing_policy).map_err(Error::Setup)?;
        let account = Arc::new(Account {
            emulator,
            url,
            key,
            counting: Counting::default(),
            injector: Injector::new(),
            stale_reads: StaleReads::default(),
            ledger: Ledger::new(policy, options.partitions),
            throughput: options.throughput.map(|most| Throughput::new(most, options.partitions)),
            indexing_policy,
        });
        let router = Router::new().fallback(bridge::handle).with_state(Arc::clone(&account));
        let stop = CancellationToken::new();
        // Small answers to small requests: without this, every one of them waits for the peer's delayed
        // acknowledgement. A socket that refuses the option works all the same.
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        let serving = tokio::spawn(
            axum::serve(listener, router)
                .with_graceful_shutdown(stop.clone().cancelled_owned())
                .into_future(),
        );
        Ok(Self { address, account, stop, serving: Mutex::new(Some(serving)) })
    }

    /// The address that is served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The account's endpoint, as clients are given it.
    pub fn endpoint(&self) -> String {
        self.account.url.to_string()
    }

    /// Requests and request units up to here.
    pub fn counters(&self) -> Counters {
        self.account.counting.snapshot()
    }

    /// Starts counting from zero.
    pub fn reset_counters(&self) {
        self.account.counting.reset();
    }

    /// The faults in force, with what is left of them.
    pub fn faults(&self) -> Faults {
        self.account.injector.get()
    }

    /// Replaces all faults; the default switches them off.
    ///
    /// # Errors
    /// A status or probability that makes no sense; nothing changes then.
    pub fn set_faults(&self, faults: Faults) -> Result<(), Error> {
        faults.validate()?;
        self.account.injector.set(faults);
        Ok(())
    }

    /// Stops serving. Requests under way get a second to finish; all documents are gone.
    pub async fn stop(&self) {
        self.stop.cancel();
        let serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(serving) = serving {
            let abort = serving.abort_handle();
            if tokio::time::timeout(STOP_GRACE, serving).await.is_err() {
                abort.abort();
            }
        }
    }
}

fn emulator(options: &Options, url: &Url) -> Result<InMemoryEmulatorHttpClient, Error> {
    let setup = |error: &dyn std::fmt::Display| Error::Setup(error.to_string());
    let config = VirtualAccountConfig::new(vec![VirtualRegion::new("Local", url.clone())])
        .map_err(|error| setup(&error))?
        .with_consistency(ConsistencyLevel::Session);
    let emulator = InMemoryEmulatorHttpClient::try_new(config).map_err(|error| setup(&error))?;
    let mut container = ContainerConfig::new().with_partition_count(options.partitions);
    if let Some(throughput) = options.throughput {
        container = container.with_throughput(throughput);
    }
    let container = container.build().map_err(|error| setup(&error))?;
    let partition_key = serde_json::from_value(json!({"paths": ["/deviceId"], "kind": "Hash", "version": 2}))
        .map_err(|error| setup(&error))?;
    let store = emulator.store();
    store.create_database(&options.database);
    store.create_container_with_config(&options.database, &options.container, partition_key, container);
    Ok(emulator)
}
