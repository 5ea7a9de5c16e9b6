//! The IoT hub's own word about its twins.

use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;
use crate::domain::{
    id::{HubName, TwinKey},
    registry::{RegistryTwin, Row, TwinReference},
    ticks::Ticks,
};

/// What a point read of the registry found.
#[derive(Debug, Clone)]
pub enum Got {
    /// The twin as it is now.
    Present(Box<RegistryTwin>),
    /// There is none: the hub itself said so (404) at this time of its own clock. Only this may delete.
    Absent(Ticks),
    /// It could not be told: timeout, refusal, 5xx, throttling, an answer that is no twin.
    Unknown(StoreError),
}

/// Where the next page of a query begins. Opaque, and valid for a limited time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuation(pub String);

/// A part of a query's answer.
#[derive(Debug, Clone)]
pub struct Page<R = Row> {
    /// The rows of it; what is no twin is counted in `odd`.
    pub rows: Vec<R>,
    /// Rows that are no twins.
    pub odd: usize,
    /// Where the next page begins; `None`: this is the last one.
    pub next: Option<Continuation>,
    /// The hub's time of the answer. The rows may be up to 30 minutes older than this.
    pub at: Ticks,
}

/// Why there is no page.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QueryError {
    /// It passes with time.
    #[error("{}", .0.message)]
    StoreError(StoreError),
    /// The hub does not know the continuation (any more): begin again.
    #[error("the hub does not know the continuation any more")]
    Expired,
    /// The hub will never answer this query; says why.
    #[error("the hub refuses the query: {0}")]
    Refused(String),
}

/// Requests of the registry, as its quotas tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// Point reads of twins.
    Get,
    /// Pages of queries.
    Query,
}

/// The registry of one IoT hub.
///
/// *Guarantees*: `get` is current: it reflects every operation that the hub finished before the request. A query is
/// not: its rows may be 30 minutes old, so it can only list candidates.
/// *Assumptions*: the caller keeps to the hub's quota.
/// *Cancellation*, *idempotence*: reads only.
/// *Errors*: in the outcome; nothing is retried inside, and no call takes longer than its limit.
#[async_trait]
pub trait TwinRegistry: Send + Sync + 'static {
    /// The hub.
    fn hub(&self) -> &HubName;
    /// Why the hub can never be asked about this twin, where that is so.
    fn unaskable(&self, _key: &TwinKey) -> Option<String> {
        None
    }
    /// Reads the twin of `key`, which is of this hub.
    async fn get(&self, key: &TwinKey) -> Got;
    /// Reads a page of a query for whole twins, `SELECT * FROM devices` or `devices.modules` with any condition.
    async fn query(
        &self,
        query: &str,
        from: Option<&Continuation>,
        most_rows: u32,
    ) -> Result<Page, QueryError>;
    /// Reads a page of a query that selects `deviceId`, `moduleId` and `version` at least.
    async fn references(
        &self,
        query: &str,
        from: Option<&Continuation>,
        most_rows: u32,
    ) -> Result<Page<TwinReference>, QueryError> {
        let Page { rows, odd, next, at } = self.query(query, from, most_rows).await?;
        Ok(Page { rows: rows.into_iter().map(TwinReference::from).collect(), odd, next, at })
    }
    /// How many devices are registered; without modules, and not exact: for estimates.
    async fn device_count(&self) -> Result<u64, QueryError>;
}

/// How long trouble asked to wait, if it did.
impl QueryError {
    /// The service's hint.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::StoreError(trouble) => trouble.retry_after,
            Self::Expired | Self::Refused(_) => None,
        }
    }
}
