//! The parts that every long-running command has: upkeep of its metrics, an observer of its status, and the HTTP server that shows both.
//! They outlive everything else, so that the shutdown can be observed.

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Error;
use crate::{
    config::Settings,
    http,
    runtime::twins::Twins,
    status::{About, Observer},
    telemetry::{HealthState, Metrics},
};

/// The monitoring of a running command.
pub(super) struct Monitoring {
    /// Observes the status of the process.
    pub(super) observer: Observer,
    /// Cancelled at the end of the monitoring.
    pub(super) closing: CancellationToken,
    served: CancellationToken,
    upkeep: JoinHandle<()>,
    observing: JoinHandle<()>,
    server: Option<JoinHandle<std::io::Result<()>>>,
}

impl Monitoring {
    /// Starts the monitoring. Listening comes first.
    ///
    /// # Errors
    /// The address of `http.listen` cannot be listened on.
    pub(super) async fn start(
        settings: &Settings,
        about: About,
        health: &HealthState,
        metrics: &Metrics,
        twins: &Twins,
    ) -> Result<Self, Error> {
        let observer = Observer::new(health.clone(), metrics.clone(), about);
        let (served, closing) = (CancellationToken::new(), CancellationToken::new());
        let listener = match settings.http.listen {
            Some(address) => Some(http::bind(address).await?),
            None => None,
        };
        let server = listener.map(|listener| {
            let state = http::State {
                health: health.clone(),
                metrics: metrics.clone(),
                observer: observer.clone(),
                bearer_auth: http::BearerAuth::new(settings.http.token.as_ref()),
                twins: twins.clone(),
            };
            tokio::spawn(http::serve(listener, state, settings.http.idle_timeout, served.clone()))
        });
        Ok(Self {
            upkeep: tokio::spawn(metrics.clone().run_upkeep(closing.clone())),
            observing: tokio::spawn(observer.clone().run(closing.clone())),
            observer,
            closing,
            served,
            server,
        })
    }

    /// Ends the monitoring.
    pub(super) async fn end(self) {
        let Self { observer: _, closing, served, upkeep, observing, server } = self;
        served.cancel();
        closing.cancel();
        // All of these tasks end on their own. It does not matter whether a client received its last answer.
        if let Some(server) = server {
            let _ = server.await;
        }
        let _ = upkeep.await;
        let _ = observing.await;
    }
}
