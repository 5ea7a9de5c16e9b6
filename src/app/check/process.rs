//! Checks this process: its address, its limits, and its shutdown.

use std::{net::SocketAddr, time::Duration};

use serde::Deserialize;

use super::{Inspector, Shared};
use crate::{
    domain::checks::{Checked, Finding, Kind, Listening, Load, Memory, files, listening, memory, shutdown},
    http,
    telemetry::process_limits,
};

/// Time limit for identifying the listener on the configured address.
const ASK_LIMIT: Duration = Duration::from_secs(2);

/// Maximum number of partitions of an Event Hub in the Standard tier. Used if the real number is unknown.
const PARTITIONS_MAX: u32 = 32;

impl Inspector<'_> {
    /// Runs the checks of this section.
    pub(super) async fn process(&self, shared: &Shared) -> Vec<Checked> {
        let settings = self.settings;
        let listen = async {
            match settings.http.listen {
                None => listening(None, None, http::Error::CODE),
                Some(address) => {
                    let failed = |late: String| {
                        Finding::fail(
                            http::Error::CODE,
                            format!("another process listens on {address} and gives {late}"),
                            "stop that process, or set http.listen to another address",
                        )
                    };
                    match self.within(ASK_LIMIT * 2, failed, inspect(address)).await {
                        Ok(found) => listening(Some(address), Some(&found), http::Error::CODE),
                        Err(finding) => finding,
                    }
                }
            }
        };
        let (listen, load) = tokio::join!(listen, self.load(shared));
        vec![
            Checked::new(Kind::HttpListen, listen),
            Checked::new(Kind::ProcessFiles, files(process_limits::open_files_limit(), load)),
            Checked::new(
                Kind::ProcessMemory,
                memory(
                    process_limits::memory_limit(),
                    Memory {
                        documents: settings.cache.max_bytes as u64,
                        in_flight: settings.router.max_in_flight_bytes as u64,
                    },
                ),
            ),
            Checked::new(Kind::ProcessShutdown, shutdown(settings.shutdown.drain_timeout)),
        ]
    }

    async fn load(&self, shared: &Shared) -> Load {
        let settings = self.settings;
        let hubs = u32::try_from(settings.eventhubs.hubs().len()).unwrap_or(u32::MAX);
        let known = if self.connect { Shared::told(&shared.events).await.partitions } else { None };
        Load {
            partitions: known.unwrap_or(hubs * PARTITIONS_MAX),
            partitions_are_known: known.is_some(),
            hubs,
            store_requests: settings.cosmos.concurrency_max.get(),
            registry_calls: match settings.iothub.is_configured() {
                true => settings.repair.concurrency.get() * 2 + settings.backfill.concurrency.get(),
                false => 0,
            },
        }
    }
}

/// Finds out what listens on a configured address.
async fn inspect(address: SocketAddr) -> Listening {
    let Err(taken) = http::try_bind(address) else {
        return Listening::Free;
    };
    match version(http::reachable(address)).await {
        Some(version) => Listening::Twinsync(version),
        None => Listening::Refused(taken.to_string()),
    }
}

/// The version of twinsync that listens on the address. `None` if it is something else.
async fn version(address: SocketAddr) -> Option<String> {
    #[derive(Deserialize)]
    struct Version {
        name: String,
        version: String,
    }
    // A proxy from the environment is for outgoing requests, not for this machine.
    let client = reqwest::Client::builder().timeout(ASK_LIMIT).no_proxy().build().ok()?;
    let answer: Version =
        client.get(format!("http://{address}/version")).send().await.ok()?.json().await.ok()?;
    (answer.name == env!("CARGO_PKG_NAME")).then_some(answer.version)
}
