//! Scans the pages of a query, however long the hub takes to answer.
//!
//! Rows are up to 30 minutes old, so they only list candidates. A continuation may expire, in particular one that was kept over a restart.
//! The scan then begins again, so the caller must accept that it may see a twin twice.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{
        id::TwinKey,
        quota::Purpose,
        registry::{Row, TwinReference},
        retry::Backoff,
    },
    ports::{Continuation, Page, QueryError},
    runtime::{jitter::jitter, rate_limited_registry::RateLimitedRegistry},
    telemetry::event::{QueryDelayed, ReferencesRefused, RowsUnreadable},
};

/// Rows per page: the maximum of the service.
const ROWS: u32 = 1000;
/// First and longest wait after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How many times one scan begins again. A continuation expires only after long waits. So a scan that begins again more often than this has
/// a hub that accepts no continuation, and would scan the same first pages forever.
const RESTARTS: u32 = 5;

/// The two kinds of twins. The query language has a separate query for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Devices.
    Devices,
    /// Modules.
    Modules,
}

impl Kind {
    /// Both kinds, in the order in which they are scanned: a module's device comes first.
    pub const ALL: [Self; 2] = [Self::Devices, Self::Modules];

    /// The query for all twins of this kind, with their content.
    pub const fn query(self) -> &'static str {
        match self {
            Self::Devices => "SELECT * FROM devices",
            Self::Modules => "SELECT * FROM devices.modules",
        }
    }

    /// The query for references to all twins of this kind.
    pub const fn references(self) -> &'static str {
        match self {
            Self::Devices => "SELECT deviceId, version FROM devices",
            Self::Modules => "SELECT deviceId, moduleId, version FROM devices.modules",
        }
    }
}

/// A row of a page: a whole twin or a reference.
#[async_trait]
pub trait Candidate: Sized + Send {
    /// The twin of the row.
    fn key(&self) -> &TwinKey;
    /// Requests a page of such rows.
    async fn page(
        registry: &RateLimitedRegistry,
        query: &str,
        from: Option<&Continuation>,
        purpose: Purpose,
    ) -> Result<Page<Self>, QueryError>;
}

#[async_trait]
impl Candidate for Row {
    fn key(&self) -> &TwinKey {
        &self.key
    }

    async fn page(
        registry: &RateLimitedRegistry,
        query: &str,
        from: Option<&Continuation>,
        purpose: Purpose,
    ) -> Result<Page<Self>, QueryError> {
        registry.query(query, from, ROWS, purpose).await
    }
}

#[async_trait]
impl Candidate for TwinReference {
    fn key(&self) -> &TwinKey {
        &self.key
    }

    async fn page(
        registry: &RateLimitedRegistry,
        query: &str,
        from: Option<&Continuation>,
        purpose: Purpose,
    ) -> Result<Page<Self>, QueryError> {
        registry.references(query, from, ROWS, purpose).await
    }
}

/// Why a scan ended early.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The scan was stopped.
    #[error("stopped before the end")]
    Stopped,
    /// The store or the hub gives no answers. The scan should begin again when they do.
    #[error("no answer about many twins of {hub} in a row: {reason}")]
    Silent {
        /// The hub.
        hub: String,
        /// The last reason, on one line.
        reason: String,
    },
    /// The hub will never answer this query.
    #[error("the hub {hub} refuses the query: {reason}")]
    Refused {
        /// The hub.
        hub: String,
        /// The hub's reason.
        reason: String,
    },
}

/// A scan over the pages of one query.
pub struct CandidatePages<R> {
    registry: Arc<RateLimitedRegistry>,
    kind: Kind,
    query: String,
    /// The query to use instead if the hub does not accept the first one.
    otherwise: Option<String>,
    /// Why the hub did not accept it.
    refused: Option<String>,
    purpose: Purpose,
    from: Option<Continuation>,
    ended: bool,
    restarts: u32,
    rows: PhantomData<fn() -> R>,
}

impl CandidatePages<TwinReference> {
    /// A scan over references to the twins of `kind`, restricted by `condition` if there is one.
    ///
    /// Only the columns of a reference are requested: they cost less time here, and a hub counts its query answers by size towards the
    /// daily message quota. If a hub does not accept such a query, or answers with rows that are not references, whole twins are requested
    /// instead.
    pub fn references(
        registry: Arc<RateLimitedRegistry>,
        kind: Kind,
        condition: Option<&str>,
        purpose: Purpose,
    ) -> Self {
        let query = |all: &str| match condition {
            Some(condition) => format!("{all} WHERE {condition}"),
            None => all.to_owned(),
        };
        let otherwise = Some(query(kind.query()));
        Self { otherwise, ..Self::new(registry, kind, query(kind.references()), purpose) }
    }

    /// Resumes a scan by `query` that stopped before `from`. A continuation belongs to its query.
    #[must_use]
    pub fn resumed(self, query: String, from: Continuation) -> Self {
        Self { query, from: Some(from), ..self }
    }
}

impl CandidatePages<Row> {
    /// A scan over all twins of `kind`, with their content.
    pub fn whole_twins(registry: Arc<RateLimitedRegistry>, kind: Kind, purpose: Purpose) -> Self {
        Self::new(registry, kind, kind.query().to_owned(), purpose)
    }
}

impl<R: Candidate> CandidatePages<R> {
    fn new(registry: Arc<RateLimitedRegistry>, kind: Kind, query: String, purpose: Purpose) -> Self {
        Self {
            registry,
            kind,
            query,
            otherwise: None,
            refused: None,
            purpose,
            from: None,
            ended: false,
            restarts: 0,
            rows: PhantomData,
        }
    }

    /// The query of these pages.
    pub fn query(&self) -> &str {
        &self.query
    }

    /// Where the next page begins.
    pub fn position(&self) -> Option<&Continuation> {
        self.from.as_ref()
    }

    /// Begins again, and returns how long to wait first. Ends the scan if beginning again does not help.
    fn begin_again(&mut self, error: &QueryError, backoff: &mut Backoff) -> Result<Duration, Ended> {
        if self.restarts >= RESTARTS {
            return Err(Ended::Refused {
                hub: self.registry.hub().to_string(),
                reason: format!(
                    "it accepts no continuation token: {RESTARTS} scans from the beginning ended early"
                ),
            });
        }
        self.from = None;
        self.restarts += 1;
        let retry_in = backoff.next(jitter(), None);
        QueryDelayed { hub: self.registry.hub(), message: &error.to_string(), retry_in }.emit();
        Ok(retry_in)
    }

    /// Uses the other query from now on, from the beginning. Returns `false` if there is none.
    fn asks_otherwise(&mut self, reason: &str) -> bool {
        let Some(query) = self.otherwise.take() else {
            return false;
        };
        let is_another = query != self.query;
        if is_another {
            (self.query, self.from, self.refused) = (query, None, Some(reason.to_owned()));
        }
        is_another
    }

    /// The next page, or `None` after the last. Retries temporary failures.
    ///
    /// # Errors
    /// `stop` was cancelled, or the hub refuses the query or all continuations.
    pub async fn next(&mut self, stop: &CancellationToken) -> Result<Option<Page<R>>, Ended> {
        if self.ended {
            return Ok(None);
        }
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        loop {
            let ask = R::page(&self.registry, &self.query, self.from.as_ref(), self.purpose);
            let answer = tokio::select! {
                biased;
                () = stop.cancelled() => return Err(Ended::Stopped),
                answer = ask => answer.map(|page| only(self.kind, page)),
            };
            let retry_in = match answer {
                // A page whose continuation is its own would be scanned forever.
                Ok(page) if page.next.is_some() && page.next == self.from => {
                    self.begin_again(&QueryError::Expired, &mut backoff)?
                }
                Ok(page) if is_unreadable(&page) && self.asks_otherwise("none of its rows names a twin") => {
                    continue;
                }
                Ok(page) => {
                    self.otherwise = None;
                    if let Some(reason) = self.refused.take() {
                        ReferencesRefused { hub: self.registry.hub(), reason: &reason }.emit();
                    }
                    self.from.clone_from(&page.next);
                    self.ended = page.next.is_none();
                    if page.odd > 0 {
                        RowsUnreadable { hub: self.registry.hub(), rows: page.odd }.emit();
                    }
                    return Ok(Some(page));
                }
                Err(QueryError::Refused(reason)) if self.asks_otherwise(&reason) => continue,
                Err(QueryError::Refused(reason)) => {
                    return Err(Ended::Refused { hub: self.registry.hub().to_string(), reason });
                }
                Err(error @ QueryError::Expired) => self.begin_again(&error, &mut backoff)?,
                Err(QueryError::StoreError(_)) if planted!(BackfillEndsEarly) => return Ok(None),
                Err(error @ QueryError::StoreError(_)) => {
                    let retry_in = backoff.next(jitter(), error.retry_after());
                    QueryDelayed { hub: self.registry.hub(), message: &error.to_string(), retry_in }.emit();
                    retry_in
                }
            };
            self.registry.asks_again(retry_in);
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(Ended::Stopped),
                () = tokio::time::sleep(retry_in) => {}
            }
        }
    }
}

/// Removes rows of another kind than requested: a module without its name would pass for its device.
fn only<R: Candidate>(kind: Kind, mut page: Page<R>) -> Page<R> {
    let found = page.rows.len();
    page.rows.retain(|row| row.key().is_module() == (kind == Kind::Modules));
    page.odd += found - page.rows.len();
    page
}

fn is_unreadable<R>(page: &Page<R>) -> bool {
    page.rows.is_empty() && page.odd > 0
}

#[cfg(test)]
mod tests;
