//! The registry of the IoT hub: point reads are current, queries may be older.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use twinsync::{
    domain::{
        event::Change,
        id::{HubName, TwinKey},
        registry::{RegistryTwin, Row},
        ticks::Ticks,
    },
    ports::{Continuation, Got, Page, QueryError, StoreError, StoreErrorKind, TwinRegistry},
};

use crate::{
    link::{Link, Step},
    plan::Fault,
    world::Service,
};

/// Rows per page.
const ROWS: usize = 3;

pub(crate) struct Registry {
    pub(crate) link: Arc<Link>,
    pub(crate) hub: HubName,
}

impl Registry {
    async fn refused(&self, step: Step) -> Result<Step, StoreError> {
        let world = &self.link.world;
        let trouble = |kind, retry_after, message: &str| StoreError {
            kind,
            code: "IOTHUB_UNAVAILABLE",
            retry_after,
            message: message.to_owned(),
        };
        if world.draws(Fault::RegistryThrottles) {
            let hint = (world.below(2) == 0).then(|| Duration::from_millis(world.below(3_000)));
            self.link.end(step).await;
            return Err(trouble(StoreErrorKind::Throttled, hint, "429"));
        }
        if world.is_away(Service::Registry, &self.link.name) || world.draws(Fault::RegistryFails) {
            if world.below(3) == 0 {
                tokio::time::sleep(Duration::from_secs(10)).await;
            }
            self.link.end(step).await;
            return Err(trouble(StoreErrorKind::Unavailable, None, "503"));
        }
        Ok(step)
    }

    fn present(&self) -> Ticks {
        Ticks::new(self.link.world.now())
    }
}

#[async_trait]
impl TwinRegistry for Registry {
    fn hub(&self) -> &HubName {
        &self.hub
    }

    async fn get(&self, key: &TwinKey) -> Got {
        let step = self.link.begin(&format!("ask about {key}")).await;
        let step = match self.refused(step).await {
            Ok(step) => step,
            Err(trouble) => return Got::Unknown(trouble),
        };
        let now = self.link.world.now();
        let answer = {
            let mut inner = self.link.world.lock();
            let hub = inner.hubs.iter_mut().find(|hub| hub.keys().contains(key));
            hub.map(|hub| {
                hub.advance_to(now);
                hub.get_twin(key)
            })
        };
        self.link.end(step).await;
        match answer.map(|answer| (answer.at, answer.change)) {
            Some((at, Change::Snapshot { version, twin })) => {
                Got::Present(Box::new(RegistryTwin { key: key.clone(), version, twin, at }))
            }
            Some((at, _)) => Got::Absent(at),
            None => Got::Absent(self.present()),
        }
    }

    async fn query(&self, query: &str, from: Option<&Continuation>, _: u32) -> Result<Page, QueryError> {
        let step = self.link.begin(&format!("query {query} from {from:?}")).await;
        let step = self.refused(step).await.map_err(QueryError::StoreError)?;
        let modules = query.contains("devices.modules");
        // A page starts after the last twin of the previous page. Twins may have been created and deleted
        // since.
        let mut rows: Vec<Row> = {
            let inner = self.link.world.lock();
            let twins = inner.hubs.iter().flat_map(|hub| hub.twins.iter());
            let wanted = twins.filter(|(key, _)| {
                key.is_module() == modules && from.is_none_or(|from| key.to_string() > from.0)
            });
            wanted
                .map(|(key, truth)| Row { key: key.clone(), version: truth.version(), twin: truth.whole() })
                .collect()
        };
        rows.sort_by_key(|row| row.key.to_string());
        let next = rows.get(ROWS).map(|_| Continuation(rows[ROWS - 1].key.to_string()));
        rows.truncate(ROWS);
        self.link.end(step).await;
        Ok(Page { rows, odd: 0, next, at: self.present() })
    }

    async fn device_count(&self) -> Result<u64, QueryError> {
        Ok(self.link.world.plan.devices)
    }
}
