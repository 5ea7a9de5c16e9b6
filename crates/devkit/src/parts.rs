//! The parts of a local Azure and their endpoints, which the control port uses.

use std::{collections::BTreeSet, sync::Arc};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{azurite::Azurite, broker::Broker, cosmos, proxy::Proxy};

mod hub;
mod route;

pub use hub::{AnotherIotHub, IotHub, IotHubEndpoints};

/// The endpoints of all services, in a form for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// The Event Hubs broker, as `amqp://host:port`, without TLS.
    pub eventhubs: String,
    /// The fully qualified namespace for a client. The socket is at [`Endpoints::eventhubs`].
    pub namespace: String,
    /// The Event Hub with lifecycle events.
    pub lifecycle_hub: String,
    /// The Event Hub with twin changes.
    pub twin_changes_hub: String,
    /// Cosmos DB, as `http://host:port/`.
    pub cosmos: String,
    /// The account key of Cosmos DB in base64. It is valid for this process only.
    pub cosmos_key: String,
    /// The database for the twins.
    pub database: String,
    /// The container for the twins, with partition key `/deviceId`.
    pub container: String,
    /// The IoT hub's name: `hubName` of its events. If there are several hubs, these fields describe the first one.
    pub iothub_name: String,
    /// The hub's service REST API, as `http://host:port`.
    pub iothub: String,
    /// The hub's host name, for which requests are signed. The socket is at [`Endpoints::iothub`].
    pub iothub_host_name: String,
    /// A connection string for the service API. Its key is valid for this process only.
    pub iothub_connection_string: String,
    /// The other IoT hubs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more_iothubs: Vec<IotHubEndpoints>,
    /// The control port, as `http://host:port`.
    pub control: String,
    /// A token that the broker and the hub's service API accept.
    pub token: String,
    /// The URL of the blob container for checkpoints and dead letters with a signature, if there is blob storage.
    /// The signature allows the creation of the container. It is valid for this process's Azurite only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint_container_url: Option<String>,
}

impl Endpoints {
    /// All IoT hubs, beginning with the first one.
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

    /// The Event Hubs that IoT hubs route to, without repetition.
    pub fn event_hubs(&self) -> BTreeSet<String> {
        self.iothubs().into_iter().flat_map(|hub| [hub.lifecycle_hub, hub.twin_changes_hub]).collect()
    }
}

/// The parts that the control port uses.
pub(crate) struct Parts {
    pub(crate) broker: Arc<Broker>,
    pub(crate) cosmos: cosmos::Server,
    pub(crate) cosmos_proxy: Option<Proxy>,
    pub(crate) azurite: Option<Azurite>,
    /// Contains at least one hub.
    pub(crate) iothubs: Vec<Arc<IotHub>>,
    pub(crate) endpoints: Endpoints,
    /// Cancelled by `POST /shutdown`. The owner of the stack then has to stop it.
    pub(crate) shutdown: CancellationToken,
}

impl Parts {
    /// The hub with this name, which is not case-sensitive. Without a name, the first one.
    pub(crate) fn iothub(&self, name: Option<&str>) -> Option<&Arc<IotHub>> {
        match name {
            None => self.iothubs.first(),
            Some(name) => self.iothubs.iter().find(|hub| hub.name().eq_ignore_ascii_case(name)),
        }
    }
}
