//! Walks the pages of a query, however long the hub takes to answer.
//!
//! Rows are up to 30 minutes old, so they only nominate. A continuation may expire, in particular one that was kept over
//! a restart; the walk then begins again, and whoever takes the rows must not mind to see a twin twice.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{quota::Purpose, retry::Backoff},
    ports::{Continuation, Page, QueryError},
    runtime::{jitter::jitter, metered::Metered},
    telemetry::event::{QueryDelayed, RowsUnreadable},
};

/// Rows per page: the most that the service gives.
const ROWS: u32 = 1000;
/// First and longest wait after trouble.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How often one walk begins again. A continuation expires after long waits only, so more than this is a hub that takes none
/// of them, and a walk over the same first pages for ever.
const RESTARTS: u32 = 5;

/// The two kinds of twins, which the query language keeps apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Devices.
    Devices,
    /// Modules.
    Modules,
}

impl Kind {
    /// Both, in the order in which they are walked: a module's device first.
    pub const ALL: [Self; 2] = [Self::Devices, Self::Modules];

    /// The query for all of them.
    pub const fn query(self) -> &'static str {
        match self {
            Self::Devices => "SELECT * FROM devices",
            Self::Modules => "SELECT * FROM devices.modules",
        }
    }
}

/// Why a walk ended early.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// It was asked to stop.
    #[error("stopped before the end")]
    Stopped,
    /// Store or hub do not answer: it is better to begin again when they do.
    #[error("no answer about many twins of {hub} in a row: {reason}")]
    Silent {
        /// The hub.
        hub: String,
        /// The last reason, in one line.
        reason: String,
    },
    /// The hub will never answer this query.
    #[error("the hub {hub} refuses the query: {reason}")]
    Refused {
        /// The hub.
        hub: String,
        /// What it said.
        reason: String,
    },
}

/// A walk over the pages of one query.
pub struct Nominations {
    registry: Arc<Metered>,
    query: String,
    purpose: Purpose,
    from: Option<Continuation>,
    ended: bool,
    restarts: u32,
}

impl Nominations {
    /// A walk that begins at `from`, or at the beginning.
    pub fn new(
        registry: Arc<Metered>,
        query: impl Into<String>,
        purpose: Purpose,
        from: Option<Continuation>,
    ) -> Self {
        Self { registry, query: query.into(), purpose, from, ended: false, restarts: 0 }
    }

    /// Where the next page begins.
    pub fn position(&self) -> Option<&Continuation> {
        self.from.as_ref()
    }

    /// Begins again; returns after how long. Ends the walk where that does not help.
    fn begin_again(&mut self, error: &QueryError, backoff: &mut Backoff) -> Result<Duration, Ended> {
        if self.restarts >= RESTARTS {
            return Err(Ended::Refused {
                hub: self.registry.hub().to_string(),
                reason: format!("it took no continuation, {RESTARTS} walks from the beginning ended early"),
            });
        }
        self.from = None;
        self.restarts += 1;
        let retry_in = backoff.next(jitter(), None);
        QueryDelayed { hub: self.registry.hub(), message: &error.to_string(), retry_in }.emit();
        Ok(retry_in)
    }

    /// The next page, or `None` after the last. Waits out whatever passes.
    ///
    /// # Errors
    /// `stop`; a query that the hub refuses, or continuations of which it takes none.
    pub async fn next(&mut self, stop: &CancellationToken) -> Result<Option<Page>, Ended> {
        if self.ended {
            return Ok(None);
        }
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        loop {
            let ask = self.registry.query(&self.query, self.from.as_ref(), ROWS, self.purpose);
            let answer = tokio::select! {
                biased;
                () = stop.cancelled() => return Err(Ended::Stopped),
                answer = Box::pin(ask) => answer,
            };
            let retry_in = match answer {
                // A page that leads to itself would be walked for ever.
                Ok(page) if page.next.is_some() && page.next == self.from => {
                    self.begin_again(&QueryError::Expired, &mut backoff)?
                }
                Ok(page) => {
                    self.from.clone_from(&page.next);
                    self.ended = page.next.is_none();
                    if page.odd > 0 {
                        RowsUnreadable { hub: self.registry.hub(), rows: page.odd }.emit();
                    }
                    return Ok(Some(page));
                }
                Err(QueryError::Refused(reason)) => {
                    return Err(Ended::Refused { hub: self.registry.hub().to_string(), reason });
                }
                Err(error @ QueryError::Expired) => self.begin_again(&error, &mut backoff)?,
                Err(QueryError::Trouble(_)) if planted!(BackfillEndsEarly) => return Ok(None),
                Err(error @ QueryError::Trouble(_)) => {
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

#[cfg(test)]
mod tests;
