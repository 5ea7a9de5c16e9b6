//! Opens a container.

use std::{borrow::Cow, time::Duration};

use azure_core::http::StatusCode;
use azure_data_cosmos::{
    AccountEndpoint, AccountReference, ContainerClient, CosmosClient, CosmosError, RoutingStrategy,
    models::ContainerProperties,
    options::{
        BinaryEncodingOptions, EndToEndOperationLatencyPolicy, ExcludedRegions, OperationOptions,
        ReadConsistencyStrategy, Region, ThrottlingRetryOptions,
    },
};

use super::{super::credential::NoToken, Access, ConnectError, Options, PARTITION_KEY, one_line};

/// Opens the container and reads its properties. `excluded` contains the regions that must not be used.
///
/// # Errors
/// It cannot be used; the message says what to do.
pub(super) async fn open(
    options: &Options,
    access: Access,
    excluded: Option<ExcludedRegions>,
) -> Result<(ContainerClient, ContainerProperties), ConnectError> {
    let endpoint = options.endpoint.to_string();
    let unreachable = |reason: String| ConnectError::Unreachable { endpoint: endpoint.clone(), reason };
    let limit = options.request_timeout.saturating_mul(4).max(Duration::from_secs(20));
    let account = AccountEndpoint::from(options.endpoint.clone());
    let account = match access {
        Access::Key(key) => AccountReference::with_authentication_key(account, key),
        Access::Token(credential) => AccountReference::with_credential(account, credential),
    };
    let pinned = options.write_region.as_ref().filter(|_| excluded.is_some());
    let strategy = match (pinned, &options.region) {
        (Some(region), _) => RoutingStrategy::PreferredRegions(vec![Region::from(region.clone())]),
        (None, Some(region)) => RoutingStrategy::ProximityTo(Region::from(region.clone())),
        (None, None) => RoutingStrategy::PreferredRegions(Vec::new()),
    };
    let mut throttling = ThrottlingRetryOptions::default();
    throttling.max_retry_count = Some(0);
    let mut operation = OperationOptions::default();
    operation.end_to_end_latency_policy = Some(EndToEndOperationLatencyPolicy::new(options.request_timeout));
    operation.throttling_retry_options = Some(throttling);
    // For reads and queries. The session belongs to the client: it covers everything that this process has read or
    // written.
    operation.read_consistency_strategy = Some(ReadConsistencyStrategy::Session);
    operation.excluded_regions = excluded;
    let builder = CosmosClient::builder()
        .with_default_operation_options(operation)
        .with_binary_encoding_options(BinaryEncodingOptions::new().with_enabled(options.binary_encoding));
    let connect = async {
        let client = builder.build(account, strategy).await?;
        let database = client.database_client(&options.database);
        let container = database.container_client(&options.container, None).await?;
        let properties = container.read(None).await?.into_model()?;
        Ok::<_, CosmosError>((container, properties))
    };
    tokio::time::timeout(limit, connect)
        .await
        .map_err(|_| unreachable(format!("no answer within {} s", limit.as_secs())))?
        .map_err(|error| {
            let status = error.status();
            if let Some(reason) = NoToken::find(&error) {
                return ConnectError::NoToken { endpoint: endpoint.clone(), reason: reason.clone() };
            }
            match status.status_code() {
                StatusCode::NotFound => ConnectError::Missing {
                    endpoint: endpoint.clone(),
                    database: options.database.clone(),
                    container: options.container.clone(),
                },
                StatusCode::Unauthorized | StatusCode::Forbidden => {
                    ConnectError::Refused { endpoint: endpoint.clone(), reason: one_line(&error) }
                }
                _ => unreachable(one_line(&error)),
            }
        })
}

/// Checks that the container has our partition key.
///
/// # Errors
/// It has another partition key.
pub(super) fn check_partition_key(
    options: &Options,
    properties: &ContainerProperties,
) -> Result<(), ConnectError> {
    let paths: Vec<_> = properties.partition_key.paths().iter().map(Cow::as_ref).collect();
    if paths == [PARTITION_KEY] {
        return Ok(());
    }
    let found = paths.join(", ");
    Err(ConnectError::PartitionKey { container: options.container.clone(), found })
}
