//! The IoT hub's own answers about its twins.

use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;
use crate::domain::{
    id::{HubName, TwinKey},
    registry::{RegistryTwin, Row, TwinReference},
    ticks::Ticks,
};

/// The result of a point read of the registry.
#[derive(Debug, Clone)]
pub enum Got {
    /// The twin as it is now.
    Present(Box<RegistryTwin>),
    /// There is no such twin: the hub itself answered so (404) at this time of its own clock. Only this result may lead
    /// to a deletion.
    Absent(Ticks),
    /// The outcome is unknown: timeout, refusal, 5xx, throttling, or an answer that is not a twin.
    Unknown(StoreError),
}

/// Where the next page of a query begins. Opaque, and valid for a limited time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuation(pub String);

/// A page of a query's answer.
#[derive(Debug, Clone)]
pub struct Page<R = Row> {
    /// The rows of the page; rows that are not twins are counted in `odd`.
    pub rows: Vec<R>,
    /// The number of rows that are not twins.
    pub odd: usize,
    /// Where the next page begins; `None` if this is the last page.
    pub next: Option<Continuation>,
    /// The hub's time of the answer. The rows may be up to 30 minutes older than this.
    pub at: Ticks,
}

/// Why there is no page.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QueryError {
    /// A temporary error.
    #[error("{}", .0.message)]
    StoreError(StoreError),
    /// The hub does not know the continuation (any more): start again.
    #[error("the hub does not accept the continuation token any more")]
    Expired,
    /// The hub will never answer this query; the text says why.
    #[error("the hub refuses the query: {0}")]
    Refused(String),
}

/// Requests to the registry, by the quota that they count against.
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
/// *Cancellation*, *idempotence*: calls only read.
/// *Errors*: in the outcome; nothing is retried inside, and no call takes longer than its limit.
#[async_trait]
pub trait TwinRegistry: Send + Sync + 'static {
    /// The name of the hub.
    fn hub(&self) -> &HubName;
    /// Why the hub can never be asked about this twin; `None` if it can.
    fn unaskable(&self, _key: &TwinKey) -> Option<String> {
        None
    }
    /// Reads the twin of `key`, which must be of this hub.
    async fn get(&self, key: &TwinKey) -> Got;
    /// Reads a page of a query for whole twins, `SELECT * FROM devices` or `devices.modules` with any condition.
    async fn query(
        &self,
        query: &str,
        from: Option<&Continuation>,
        most_rows: u32,
    ) -> Result<Page, QueryError>;
    /// Reads a page of a query that selects at least `deviceId`, `moduleId` and `version`.
    async fn references(
        &self,
        query: &str,
        from: Option<&Continuation>,
        most_rows: u32,
    ) -> Result<Page<TwinReference>, QueryError> {
        let Page { rows, odd, next, at } = self.query(query, from, most_rows).await?;
        Ok(Page { rows: rows.into_iter().map(TwinReference::from).collect(), odd, next, at })
    }
    /// Number of registered devices, without modules; not exact, so only for estimates.
    async fn device_count(&self) -> Result<u64, QueryError>;
}

/// How long a failed query should wait, if the service said so.
impl QueryError {
    /// How long the service asked us to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::StoreError(trouble) => trouble.retry_after,
            Self::Expired | Self::Refused(_) => None,
        }
    }
}
