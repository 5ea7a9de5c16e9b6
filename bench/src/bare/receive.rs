//! Receiving and parsing: the minimum that every consumer of these events does.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_messaging_eventhubs::{
    ConsumerClient, OpenReceiverOptions, RetryOptions, StartLocation, StartPosition,
};
use devkit::stack::Endpoints;
use futures::{StreamExt as _, future::try_join_all};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;

use super::{Took, Watch};
use crate::azure::Ends;

/// The daemon's default.
const PREFETCH: u32 = 2000;

/// Which events to receive.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Receive {
    pub(crate) endpoints: Endpoints,
    /// Receives the events after these positions.
    pub(crate) after: Ends,
    /// Receives the events up to and including these positions.
    pub(crate) until: Ends,
}

impl Receive {
    pub(super) async fn perform(self) -> Result<Took> {
        let credential: Arc<dyn TokenCredential> = Arc::new(Fixed(self.endpoints.token.clone()));
        let watch = Arc::new(OnceLock::new());
        let mut readers = Vec::new();
        for (hub, ends) in &self.until {
            for (partition, until) in ends.iter().enumerate() {
                let after = self.after.get(hub).and_then(|after| after.get(partition)).copied().unwrap_or(-1);
                if after < *until {
                    let reader = Reader {
                        endpoints: self.endpoints.clone(),
                        credential: Arc::clone(&credential),
                        watch: Arc::clone(&watch),
                        hub: hub.clone(),
                        partition,
                        after,
                        until: *until,
                    };
                    readers.push(tokio::spawn(reader.read()));
                }
            }
        }
        let mut events = 0;
        for read in try_join_all(readers).await? {
            events += read?;
        }
        watch.get().context("there were no events to receive")?.stop(events)
    }
}

/// The reader of one partition. As in the daemon, it has its own connection.
struct Reader {
    endpoints: Endpoints,
    credential: Arc<dyn TokenCredential>,
    /// Started by the first event of any partition.
    watch: Arc<OnceLock<Watch>>,
    hub: String,
    partition: usize,
    after: i64,
    until: i64,
}

impl Reader {
    async fn read(self) -> Result<u64> {
        let client = ConsumerClient::builder()
            .with_retry_options(RetryOptions { max_retries: 0, ..RetryOptions::default() })
            .with_custom_endpoint(self.endpoints.eventhubs.clone())
            .open(&self.endpoints.namespace, self.hub.clone(), self.credential)
            .await?;
        let location = match self.after {
            ..0 => StartLocation::Earliest,
            number => StartLocation::SequenceNumber(number),
        };
        let options = OpenReceiverOptions {
            prefetch: Some(PREFETCH),
            start_position: Some(StartPosition { location, inclusive: false }),
            ..OpenReceiverOptions::default()
        };
        let receiver = client.open_receiver_on_partition(self.partition.to_string(), Some(options)).await?;
        let mut events = Box::pin(receiver.stream_events());
        let mut count = 0;
        while let Some(event) = events.next().await {
            let event = event?;
            if self.watch.get().is_none() {
                let started = Watch::start()?;
                // Another partition may have received the first event.
                let _ = self.watch.set(started);
            }
            let body = event.event_data().body().context("an event without a body")?;
            std::hint::black_box(serde_json::from_slice::<Value>(body).context("a body that is not JSON")?);
            count += 1;
            if event.sequence_number().context("an event without a number")? >= self.until {
                return Ok(count);
            }
        }
        bail!("partition {} of {} ended after {count} events", self.partition, self.hub)
    }
}

/// devkit's token, which does not expire.
#[derive(Debug)]
struct Fixed(String);

#[async_trait::async_trait]
impl TokenCredential for Fixed {
    async fn get_token(
        &self,
        _scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let expires = OffsetDateTime::now_utc() + Duration::from_secs(365 * 86_400);
        Ok(AccessToken::new(self.0.clone(), expires))
    }
}
