//! The account's lifetime: it binds the address, creates database and container, serves and stops.

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

/// The indexing policy of containers that are created without one: all paths are indexed.
pub fn service_default_policy() -> Value {
    json!({
        "indexingMode": "consistent", "automatic": true,
        "includedPaths": [{"path": "/*"}], "excludedPaths": [{"path": "/\"_etag\"/?"}],
    })
}

/// How long running requests may take when the server stops.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// Options of the account.
#[derive(Clone, Debug)]
pub struct Options {
    /// The address to bind. With port 0, the system chooses a free port. Clients have to connect to exactly this address, because the
    /// account document advertises it.
    pub listen: SocketAddr,
    /// The address that the account document advertises, if clients connect through something else, such as a
    /// [`Proxy`](crate::proxy::Proxy). `None`: the bound address.
    pub advertised: Option<SocketAddr>,
    /// The database to create.
    pub database: String,
    /// The container to create, with partition key `/deviceId`.
    pub container: String,
    /// The account's key in base64. Requests must be signed with it. `None`: authorization is not checked.
    pub key: Option<String>,
    /// Provisioned throughput in request units per second, at least 400, divided evenly among the partitions. Requests beyond it are
    /// answered with 429. `None`: no limit.
    pub throughput: Option<u64>,
    /// Number of physical partitions of the container, which share its throughput evenly. With many documents, more partitions make
    /// requests cheaper. For the headers of every answer to a read or write, the emulator counts the documents of the physical partition
    /// one by one. For each page of a query, it copies all of them. The SDK sends a query to at most 100 partitions, unless its options
    /// allow more.
    pub partitions: u32,
    /// Indexing policy of the container, in the form of the service's REST API. `None`: [`RECOMMENDED_POLICY`]. Prices depend on it.
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
            // Enough for some thousand documents, and few enough that a scan of a small container takes only a few requests.
            partitions: 16,
            indexing_policy: None,
        }
    }
}

/// Why the account could not start or change its settings.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is in use, or does not belong to this machine.
    #[error("cannot listen on {address} for cosmos db")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Reason given by the system.
        #[source]
        source: std::io::Error,
    },
    /// The account's key is not base64.
    #[error("the cosmos db key is not base64")]
    Key(#[source] base64::DecodeError),
    /// The emulator does not accept an option.
    #[error("cannot set up the cosmos db emulator: {0}")]
    Setup(String),
    /// A fault is invalid.
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
    /// The address cannot be bound, or an option is invalid.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let key = options.key.as_deref().map(MasterKey::parse).transpose().map_err(Error::Key)?;
        let bind = |source| Error::Bind { address: options.listen, source };
        let listener = TcpListener::bind(options.listen).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        // The emulator determines its region from scheme, host and port, so the port has to be known first.
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
        // Without `TCP_NODELAY`, every small answer waits for the peer's delayed acknowledgement. If the option cannot be set, the
        // connection still works.
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

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The account's endpoint for clients.
    pub fn endpoint(&self) -> String {
        self.account.url.to_string()
    }

    /// The counters since the start or the last reset.
    pub fn counters(&self) -> Counters {
        self.account.counting.snapshot()
    }

    /// Resets the counters to zero.
    pub fn reset_counters(&self) {
        self.account.counting.reset();
    }

    /// The active faults, with their remaining counts.
    pub fn faults(&self) -> Faults {
        self.account.injector.get()
    }

    /// Replaces all faults. The default removes them all.
    ///
    /// # Errors
    /// A status or probability is invalid. In that case, nothing changes.
    pub fn set_faults(&self, faults: Faults) -> Result<(), Error> {
        faults.validate()?;
        self.account.injector.set(faults);
        Ok(())
    }

    /// Stops the server and removes all documents. Running requests get one second to finish.
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
