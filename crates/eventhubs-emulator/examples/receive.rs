//! Starts a broker, appends two events, and receives them with the official client.
//!
//! ```sh
//! cargo run --package eventhubs-emulator --example receive
//! ```

#![expect(clippy::print_stdout, reason = "the example prints what it receives")]

use std::{error::Error, sync::Arc};

use azure_core::{
    credentials::{AccessToken, TokenCredential, TokenRequestOptions},
    time::{Duration, OffsetDateTime},
};
use azure_messaging_eventhubs::{ConsumerClient, OpenReceiverOptions, StartLocation, StartPosition};
use eventhubs_emulator::{Broker, Event, HubOptions, Options};
use futures::StreamExt;

/// A credential with an arbitrary token. The broker accepts any token if its options name none.
#[derive(Debug)]
struct AnyToken;

#[async_trait::async_trait]
impl TokenCredential for AnyToken {
    async fn get_token(
        &self,
        _scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        Ok(AccessToken::new("any", OffsetDateTime::now_utc() + Duration::hours(1)))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let hub = HubOptions { name: "twins".to_owned(), partitions: 1, consumer_groups: Vec::new() };
    let listen = ([127, 0, 0, 1], 0).into();
    let broker = Broker::start(Options { listen, hubs: vec![hub], accepted_token: None }).await?;
    for body in ["first", "second"] {
        broker.append("twins", "device-1", Event { body: body.into(), ..Event::default() })?;
    }

    let client = ConsumerClient::builder()
        .with_custom_endpoint(format!("amqp://{}", broker.address()))
        .open("local.servicebus.localhost", "twins".to_owned(), Arc::new(AnyToken))
        .await?;
    let earliest = StartPosition { location: StartLocation::Earliest, inclusive: false };
    let options = OpenReceiverOptions { start_position: Some(earliest), ..OpenReceiverOptions::default() };
    let receiver = client.open_receiver_on_partition("0".to_owned(), Some(options)).await?;
    let mut events = Box::pin(receiver.stream_events()).take(2);
    while let Some(event) = events.next().await {
        let event = event?;
        let text = String::from_utf8_lossy(event.event_data().body().unwrap_or_default()).into_owned();
        println!("{:?}: {text}", event.sequence_number());
    }
    broker.stop().await;
    Ok(())
}
