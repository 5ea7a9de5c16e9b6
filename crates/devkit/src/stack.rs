//! One process with the whole local Azure: broker, Cosmos DB, IoT hubs with their service APIs, and control port. On request, Azurite runs
//! beside it.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    azurite::{self, Azurite, Validity},
    broker::{self, Broker},
    control, cosmos, fleet,
    iothub::{self, api::Quota},
    parts::Parts,
    proxy::Proxy,
};

pub use crate::parts::{AnotherIotHub, Endpoints, IotHub, IotHubEndpoints};

/// How often held-back updates are sent if no later update of their twin has included them.
const FLUSH_INTERVAL: Duration = Duration::from_millis(500);

/// How often the events of a late stream are checked. Their delay is accurate to this interval.
const RELEASE_INTERVAL: Duration = Duration::from_millis(10);

/// The container for checkpoints and dead letters. The daemon creates it.
const CONTAINER: &str = "twinsync";

/// Options of the stack. With port 0, the system chooses a free port.
#[derive(Clone, Debug)]
pub struct Options {
    /// The broker's address.
    pub eventhubs: SocketAddr,
    /// Cosmos DB's address.
    pub cosmos: SocketAddr,
    /// The control port's address.
    pub control: SocketAddr,
    /// The Event Hubs for the two sources.
    pub hubs: iothub::HubNames,
    /// Number of partitions of each Event Hub.
    pub partitions: u16,
    /// Consumer groups of each Event Hub, besides `$Default`.
    pub consumer_groups: Vec<String>,
    /// The token that the broker and the hub's service API accept. `None`: they accept any token.
    pub token: Option<String>,
    /// The IoT hub. If there are several, the first one.
    pub iothub: iothub::Options,
    /// The address of its service REST API.
    pub iothub_service: SocketAddr,
    /// The tier and units whose limits its service API applies. `None`: no limits.
    pub iothub_quota: Option<Quota>,
    /// The other IoT hubs.
    pub more_iothubs: Vec<AnotherIotHub>,
    /// Whether clients connect to Cosmos DB through a [`Proxy`] at [`Options::cosmos`]. The account document contains the address that
    /// clients have to connect to, so the proxy cannot be added later.
    pub cosmos_proxy: bool,
    /// The database for the twins.
    pub database: String,
    /// The container for the twins.
    pub container: String,
    /// Whether requests to Cosmos DB have to be signed with the key in [`Endpoints`].
    pub verify_cosmos_key: bool,
    /// Provisioned throughput of the container, in request units per second. `None`: no throttling.
    pub throughput: Option<u64>,
    /// Number of physical partitions of the container, see [`cosmos::Options::partitions`].
    pub cosmos_partitions: u32,
    /// Whether to start blob storage: Azurite, which needs Node.js and npm.
    pub azurite: bool,
    /// The address of blob storage.
    pub blobs: SocketAddr,
}

impl Default for Options {
    fn default() -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let cosmos = cosmos::Options::default();
        Self {
            eventhubs: free,
            cosmos: free,
            control: free,
            hubs: iothub::HubNames::default(),
            partitions: 4,
            consumer_groups: Vec::new(),
            token: None,
            iothub: iothub::Options::default(),
            iothub_service: free,
            iothub_quota: None,
            more_iothubs: Vec::new(),
            cosmos_proxy: false,
            database: cosmos.database,
            container: cosmos.container,
            verify_cosmos_key: true,
            throughput: None,
            cosmos_partitions: cosmos.partitions,
            azurite: false,
            blobs: free,
        }
    }
}

/// Why the stack could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The broker could not start.
    #[error("cannot start the event hubs broker on {address}")]
    Broker {
        /// The address.
        address: SocketAddr,
        /// The reason.
        #[source]
        source: broker::Error,
    },
    /// Cosmos DB could not start.
    #[error("cannot start cosmos db on {address}")]
    Cosmos {
        /// The address.
        address: SocketAddr,
        /// The reason.
        #[source]
        source: cosmos::Error,
    },
    /// Blob storage could not start.
    #[error("cannot start blob storage")]
    Azurite(#[from] azurite::Error),
    /// Two IoT hubs have the same name.
    #[error("there are two iot hubs of the name {0:?}")]
    SameName(String),
    /// A hub's service API could not start.
    #[error("cannot start iot hub's service api on {address}")]
    Registry {
        /// The address.
        address: SocketAddr,
        /// The reason.
        #[source]
        source: iothub::api::Error,
    },
    /// The control port could not listen.
    #[error("cannot listen on {address} for the control port")]
    Control {
        /// The address.
        address: SocketAddr,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
}

/// A running local Azure.
pub struct Stack {
    parts: Arc<Parts>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Stack {
    /// Starts all parts. If one fails, none is left running.
    ///
    /// # Errors
    /// An address is in use, or an option is invalid.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let all = all_iothubs(&options)?;
        let control_error = |source| Error::Control { address: options.control, source };
        let listener = tokio::net::TcpListener::bind(options.control).await.map_err(control_error)?;
        let control = listener.local_addr().map_err(control_error)?;
        // Azurite is started first, because the other parts would have to be stopped if it failed.
        let azurite = match options.azurite {
            true => Some(Azurite::start(options.blobs).await?),
            false => None,
        };
        let cosmos_key = STANDARD.encode("the account key of a local devkit, which guards nothing");
        let cosmos_error = |source| Error::Cosmos { address: options.cosmos, source };
        let cosmos_proxy =
            match options.cosmos_proxy {
                true => Some(Proxy::reserve(options.cosmos).await.map_err(|source| {
                    cosmos_error(cosmos::Error::Bind { address: options.cosmos, source })
                })?),
                false => None,
            };
        let cosmos = cosmos::Server::start(cosmos::Options {
            listen: match cosmos_proxy {
                Some(_) => SocketAddr::new(options.cosmos.ip(), 0),
                None => options.cosmos,
            },
            advertised: cosmos_proxy.as_ref().map(Proxy::address),
            database: options.database.clone(),
            container: options.container.clone(),
            key: options.verify_cosmos_key.then(|| cosmos_key.clone()),
            throughput: options.throughput,
            partitions: options.cosmos_partitions,
            ..cosmos::Options::default()
        })
        .await
        .map_err(cosmos_error)?;
        if let Some(proxy) = &cosmos_proxy {
            proxy.lead_to(cosmos.address());
        }
        let broker = match Broker::start(broker_options(&options)).await {
            Ok(broker) => Arc::new(broker),
            Err(source) => {
                cosmos.stop().await;
                return Err(Error::Broker { address: options.eventhubs, source });
            }
        };
        let access_key = STANDARD.encode("the shared access key of a local devkit, which guards nothing");
        let mut iothubs: Vec<Arc<IotHub>> = Vec::new();
        for one in all {
            let (names, token) = (options.hubs.clone(), options.token.clone());
            let address = one.service;
            match IotHub::start(one, names, token, access_key.clone(), &broker).await {
                Ok(hub) => iothubs.push(Arc::new(hub)),
                Err(source) => {
                    for hub in &iothubs {
                        hub.registry().stop().await;
                    }
                    broker.stop().await;
                    cosmos.stop().await;
                    return Err(Error::Registry { address, source });
                }
            }
        }
        let mut known: Vec<_> = iothubs.iter().map(|hub| hub.endpoints()).collect();
        let first = known.remove(0);
        let endpoints = Endpoints {
            eventhubs: format!("amqp://{}", broker.address()),
            namespace: "devkit.servicebus.localhost".to_owned(),
            lifecycle_hub: options.hubs.lifecycle,
            twin_changes_hub: options.hubs.twin_changes,
            cosmos: cosmos.endpoint(),
            cosmos_key,
            database: options.database,
            container: options.container,
            iothub_name: first.name,
            iothub: first.service,
            iothub_connection_string: first.connection_string,
            iothub_host_name: first.host_name,
            more_iothubs: known,
            control: format!("http://{control}"),
            token: options.token.unwrap_or_else(|| "devkit".to_owned()),
            checkpoint_container_url: azurite
                .as_ref()
                .map(|azurite| azurite.account_url(CONTAINER, Validity::Good)),
        };
        let parts = Arc::new(Parts {
            broker,
            cosmos,
            cosmos_proxy,
            azurite,
            iothubs,
            endpoints,
            shutdown: CancellationToken::new(),
        });
        let stop = CancellationToken::new();
        let mut tasks = vec![tokio::spawn(control::serve(listener, Arc::clone(&parts), stop.clone()))];
        for hub in &parts.iothubs {
            tasks.push(tokio::spawn(send_what_is_held(Arc::clone(hub.service()), stop.clone())));
        }
        Ok(Self { parts, stop, tasks })
    }

    /// The endpoints of all services.
    pub fn endpoints(&self) -> &Endpoints {
        &self.parts.endpoints
    }

    /// The IoT hubs, beginning with the first one.
    pub fn iothubs(&self) -> &[Arc<IotHub>] {
        &self.parts.iothubs
    }

    /// The first IoT hub.
    pub fn hub(&self) -> &Arc<iothub::Service> {
        self.iothubs()[0].service()
    }

    /// The first hub's service REST API, with counters, limits and faults.
    pub fn registry(&self) -> &iothub::api::Server {
        self.iothubs()[0].registry()
    }

    /// Cosmos DB, with counters and faults.
    pub fn cosmos(&self) -> &cosmos::Server {
        &self.parts.cosmos
    }

    /// The proxy for Cosmos DB, if [`Options::cosmos_proxy`] is set.
    pub fn cosmos_proxy(&self) -> Option<&Proxy> {
        self.parts.cosmos_proxy.as_ref()
    }

    /// Blob storage, if [`Options::azurite`] is set.
    pub fn azurite(&self) -> Option<&Azurite> {
        self.parts.azurite.as_ref()
    }

    /// The Event Hubs broker.
    pub fn broker(&self) -> &Arc<Broker> {
        &self.parts.broker
    }

    /// Number of events ever appended to the Event Hubs of both sources of all IoT hubs.
    ///
    /// # Errors
    /// The broker does not have these Event Hubs.
    pub fn appended(&self) -> Result<u64, broker::Error> {
        let mut appended = 0;
        for hub in self.endpoints().event_hubs() {
            for partition in self.broker().partitions(&hub)? {
                appended += u64::try_from(partition.last_sequence_number + 1).unwrap_or(0);
            }
        }
        Ok(appended)
    }

    /// The first IoT hub's fleet.
    pub fn fleet(&self) -> &fleet::Runner {
        self.iothubs()[0].fleet()
    }

    /// Completes when the control port is asked to shut down. The caller then has to call [`Stack::stop`].
    pub async fn shutdown_requested(&self) {
        self.parts.shutdown.cancelled().await;
    }

    /// Stops all parts. Twins, events and documents are lost.
    pub async fn stop(self) {
        for hub in &self.parts.iothubs {
            hub.fleet().stop();
            hub.fleet().phase_end().await;
        }
        self.stop.cancel();
        for task in self.tasks {
            // If the task panicked, nothing is left to stop.
            let _ = task.await;
        }
        for hub in &self.parts.iothubs {
            hub.registry().stop().await;
        }
        self.parts.broker.stop().await;
        self.parts.cosmos.stop().await;
        if let Some(azurite) = &self.parts.azurite
            && let Err(error) = azurite.stop().await
        {
            // Dropping the value kills its process.
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "azurite could not be stopped in an orderly way"
            );
        }
    }
}

fn all_iothubs(options: &Options) -> Result<Vec<AnotherIotHub>, Error> {
    let first = AnotherIotHub {
        iothub: options.iothub.clone(),
        service: options.iothub_service,
        quota: options.iothub_quota,
        hubs: None,
    };
    let all: Vec<_> = std::iter::once(first).chain(options.more_iothubs.iter().cloned()).collect();
    let mut names = BTreeSet::new();
    match all.iter().find(|hub| !names.insert(hub.iothub.name.to_ascii_lowercase())) {
        Some(twice) => Err(Error::SameName(twice.iothub.name.clone())),
        None => Ok(all),
    }
}

fn broker_options(options: &Options) -> broker::Options {
    let own = options.more_iothubs.iter().filter_map(|hub| hub.hubs.as_ref());
    let names: BTreeSet<_> = std::iter::once(&options.hubs)
        .chain(own)
        .flat_map(|hubs| [hubs.lifecycle.clone(), hubs.twin_changes.clone()])
        .collect();
    let hubs = names
        .into_iter()
        .map(|name| broker::HubOptions {
            name,
            partitions: options.partitions,
            consumer_groups: options.consumer_groups.clone(),
        })
        .collect();
    broker::Options { listen: options.eventhubs, hubs, accepted_token: options.token.clone() }
}

async fn send_what_is_held(hub: Arc<iothub::Service>, stop: CancellationToken) {
    let mut flush = tokio::time::interval(FLUSH_INTERVAL);
    let mut release = tokio::time::interval(RELEASE_INTERVAL);
    loop {
        let sent = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = flush.tick() => hub.flush_updates(),
            _ = release.tick() => hub.release_late(),
        };
        if let Err(error) = sent {
            tracing::warn!(error = &error as &dyn std::error::Error, "events held back could not be sent");
        }
    }
}
