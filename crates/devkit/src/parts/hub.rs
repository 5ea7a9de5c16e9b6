//! One of the IoT hubs of a local Azure: the hub itself, its service API and its fleet.

use std::{net::SocketAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::route::BrokerRoute;
use crate::{
    broker::Broker,
    fleet,
    iothub::{self, HubNames, Service, api},
};

/// The shared access policy of a hub's service API.
const POLICY: &str = "service";

/// Another IoT hub. It accepts the same token as the first one.
#[derive(Clone, Debug)]
pub struct AnotherIotHub {
    /// The hub. Its name must differ from those of the others by more than case.
    pub iothub: iothub::Options,
    /// The address of its service REST API. With port 0, the system chooses a free port.
    pub service: SocketAddr,
    /// The tier and units whose limits its service API applies. `None`: no limits.
    pub quota: Option<api::Quota>,
    /// The Event Hubs for its two sources. `None`: those of the first hub.
    pub hubs: Option<HubNames>,
}

impl AnotherIotHub {
    /// A hub with this name on a free port, without limits, with routes to the first hub's Event Hubs.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            iothub: iothub::Options { name: name.into(), ..iothub::Options::default() },
            service: SocketAddr::from(([127, 0, 0, 1], 0)),
            quota: None,
            hubs: None,
        }
    }
}

/// The endpoints of an IoT hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IotHubEndpoints {
    /// The hub's name: `hubName` of its events.
    pub name: String,
    /// Its service REST API, as `http://host:port`.
    pub service: String,
    /// Its host name, for which requests are signed. The socket is at [`IotHubEndpoints::service`].
    pub host_name: String,
    /// A connection string for the service API. Its key is valid for this process only.
    pub connection_string: String,
    /// The Event Hub with its lifecycle events.
    pub lifecycle_hub: String,
    /// The Event Hub with its twin changes.
    pub twin_changes_hub: String,
}

/// A running IoT hub.
pub struct IotHub {
    name: String,
    host_name: String,
    key: String,
    hubs: HubNames,
    service: Arc<Service>,
    registry: api::Server,
    fleet: fleet::Runner,
}

impl IotHub {
    /// Starts a hub with routes to `broker`: to its own Event Hubs, or else to the Event Hubs `names`.
    ///
    /// # Errors
    /// Its service API cannot listen.
    pub(crate) async fn start(
        options: AnotherIotHub,
        names: HubNames,
        token: Option<String>,
        key: String,
        broker: &Arc<Broker>,
    ) -> Result<Self, api::Error> {
        let AnotherIotHub { iothub, service: address, quota, hubs } = options;
        let hubs = hubs.unwrap_or(names);
        let name = iothub.name.clone();
        let host_name = format!("{name}.azure-devices.localhost");
        let route = Arc::new(BrokerRoute::new(Arc::clone(broker)));
        let service = Arc::new(Service::new(iothub, hubs.clone(), route));
        let options = api::Options {
            listen: address,
            host_name: host_name.clone(),
            policy: POLICY.to_owned(),
            key: key.clone(),
            token,
            quota,
        };
        let registry = api::Server::start(options, Arc::clone(&service)).await?;
        Ok(Self {
            name,
            host_name,
            key,
            hubs,
            fleet: fleet::Runner::new(Arc::clone(&service)),
            service,
            registry,
        })
    }

    /// Its name, as in its events.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The hub.
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// Its service REST API, with counters, limits and faults.
    pub fn registry(&self) -> &api::Server {
        &self.registry
    }

    /// Its fleet.
    pub fn fleet(&self) -> &fleet::Runner {
        &self.fleet
    }

    /// Its endpoints.
    pub fn endpoints(&self) -> IotHubEndpoints {
        let Self { name, host_name, key, hubs, .. } = self;
        IotHubEndpoints {
            name: name.clone(),
            lifecycle_hub: hubs.lifecycle.clone(),
            twin_changes_hub: hubs.twin_changes.clone(),
            service: format!("http://{}", self.registry.address()),
            host_name: host_name.clone(),
            connection_string: format!(
                "HostName={host_name};SharedAccessKeyName={POLICY};SharedAccessKey={key}"
            ),
        }
    }
}
