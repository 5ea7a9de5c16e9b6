//! The parts of a local Azure, and where they are: what the control port works with.

use std::{collections::BTreeSet, sync::Arc};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{azurite::Azurite, broker::Broker, cosmos, proxy::Proxy};

mod hub;
mod route;

pub use hub::{AnotherIotHub, IotHub, IotHubEndpoints};

/// Where everything is, in the form that programs read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// The broker, as `amqp://host:port`: plaintext.
    pub eventhubs: String,
    /// The fully qualified namespace to name to a client; the socket is at [`Endpoints::eventhubs`].
    pub namespace: String,
    /// The Event Hub with lifecycle events.
    pub lifecycle_hub: String,
    /// The Event Hub with twin changes.
    pub twin_changes_hub: String,
    /// Cosmos DB, as `http://host:port/`.
    pub cosmos: String,
    /// Its account key in base64. It opens nothing but this process.
    pub cosmos_key: String,
    /// The database for the twins.
    pub database: String,
    /// The container for the twins, with partition key `/deviceId`.
    pub container: String,
    /// The IoT hub's name: `hubName` of its events. Where there are several, all of this is the first one's.
    pub iothub_name: String,
    /// The hub's service REST API, as `http://host:port`.
    pub iothub: String,
    /// The hub's host name, which requests are signed for; the socket is at [`Endpoints::iothub`].
    pub iothub_host_name: String,
    /// A connection string with a key for the service API. It opens nothing but this process.
    pub iothub_connection_string: String,
    /// The further IoT hubs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_iothubs: Vec<IotHubEndpoints>,
    /// The control port, as `http://host:port`.
    pub control: String,
    /// A token that the broker and the hub's service API accept.
    pub token: String,
    /// The blob container for checkpoints and dead letters with a signature for it, where there is blob storage. The
    /// signature allows creating the container, and opens nothing but this process's Azurite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_container_url: Option<String>,
}

impl Endpoints {
    /// All IoT hubs, the first one first.
    pub fn iothubs(&self) -> Vec<IotHubEndpoints> {
        let first = IotHubEndpoints {
            name: self.iothub_name.clone(),
            service: self.iothub.clone(),
            host_name: self.iothub_host_name.clone(),
            connection_string: self.iothub_connection_string.clone(),
            lifecycle_hub: self.lifecycle_hub.clone(),
            twin_changes_hub: self.twin_changes_hub.clone(),
        };
        std::iter::once(first).chain(self.more_iothubs.iter().cloned()).collect()
    }

    /// The Event Hubs that IoT hubs route to, each once.
    pub fn event_hubs(&self) -> BTreeSet<String> {
        self.iothubs().into_iter().flat_map(|hub| [hub.lifecycle_hub, hub.twin_changes_hub]).collect()
    }
}

/// The parts that the control port works with.
pub(crate) struct Parts {
    pub(crate) broker: Arc<Broker>,
    pub(crate) cosmos: cosmos::Server,
    pub(crate) cosmos_proxy: Option<Proxy>,
    pub(crate) azurite: Option<Azurite>,
    /// At least one.
    pub(crate) iothubs: Vec<Arc<IotHub>>,
    pub(crate) endpoints: Endpoints,
    /// Set by `POST /shutdown`: whoever holds the stack is asked to stop it.
    pub(crate) shutdown: CancellationToken,
}

impl Parts {
    /// The hub of this name, in whatever case; without a name, the first one.
    pub(crate) fn iothub(&self, name: Option<&str>) -> Option<&Arc<IotHub>> {
        match name {
            None => self.iothubs.first(),
            Some(name) => self.iothubs.iter().find(|hub| hub.name().eq_ignore_ascii_case(name)),
        }
    }
}
