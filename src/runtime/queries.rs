//! Queries in IoT Hub's language, answered from the documents, page by page and within limits.
//!
//! ```text
//! text ─► query (domain/query) ─► condition in Cosmos SQL ─► documents ─► the query once more ─► rows
//!                                  selects those, or more                 decides
//! ```
//!
//! A query with one row per twin is answered one page at a time. A query that needs all twins before its first row (groups, sorting) reads
//! them all. Its later pages are cut from a result that is computed again: nothing is kept between two requests, so any replica can answer
//! any page.
//!
//! SUBTLE: a request is a future that is dropped when its client disconnects. It holds nothing but its own memory.

mod position;

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use self::position::{Fingerprint, Position};
use crate::{
    domain::{
        id::HubName,
        query::{Collection, ItemType, LimitError, Place, Query, QueryError, Root},
        quota::Purpose,
        rest,
    },
    ports::{
        Charged, Cursor, Documents, Filter, SelectError, Selected, StoreError, StoreErrorKind, TwinSelection,
    },
    runtime::request_unit_budget::RequestUnitBudget,
    telemetry::{Metrics, event::DocumentsPassedOver},
};

/// Documents per read when a query needs all documents.
const ALL_PAGE: NonZeroU32 = NonZeroU32::new(1_000).expect("1,000 is not 0");

/// Limits of one request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Request units. The page in progress when they are spent is the last one.
    pub request_units: f64,
    /// Time limit.
    pub time: Duration,
    /// Maximum number of groups, or of rows to be sorted, in memory.
    pub held: usize,
}

/// Answers queries. Cheap to clone.
#[derive(Clone)]
pub struct Queries {
    /// The port that selects documents.
    pub selection: Arc<dyn TwinSelection>,
    /// The request units that may be spent, shared with everything else.
    pub budget: RequestUnitBudget,
    /// Counts queries and request units.
    pub metrics: Metrics,
    /// Limits of one request.
    pub limits: Limits,
    /// Where root fields are stored: [`Root::place`], or fewer of them.
    pub place: fn(Root) -> Place,
}

/// The client of a request.
pub trait Client: Sync {
    /// A part of the answer has cost this many request units.
    fn paid(&self, request_units: f64);
    /// Whether the client has disconnected. Nothing more is begun then.
    fn is_gone(&self) -> bool;
}

/// A client that never disconnects and does not count the cost.
#[derive(Debug, Clone, Copy)]
pub struct StaysConnected;

impl Client for StaysConnected {
    fn paid(&self, _: f64) {}

    fn is_gone(&self) -> bool {
        false
    }
}

/// One request.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// The query, as the client wrote it.
    pub query: &'a str,
    /// Only twins of this hub. `None`: all twins in the container.
    pub hub: Option<&'a HubName>,
    /// Where the page begins: the `next` of the previous page. `None`: at the first row.
    pub from: Option<&'a str>,
    /// Maximum number of rows of the page.
    pub most: NonZeroU32,
    /// The client.
    pub client: &'a dyn Client,
}

/// A page of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Its rows. There may be fewer than requested, or none, although there are more pages.
    pub rows: Vec<Value>,
    /// The type of the rows.
    pub item_type: ItemType,
    /// Where the next page begins. `None`: this is the last page. The text is opaque and fits into a header.
    pub next: Option<String>,
    /// Number of documents that were skipped because they are unreadable. Their rows may be missing.
    pub passed_over: usize,
    /// Number of twins behind the rows whose documents are flagged. An exact count reads no documents, so there it is 0.
    pub flagged: usize,
}

/// Why there is no page.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    /// The client has disconnected.
    #[error("the client closed the connection")]
    Gone,
    /// The query is not understood, or asks for something that is not supported.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The continuation does not belong to this query.
    #[error("the continuation token is not from this query: begin with the first page")]
    Continuation,
    /// The query exceeds the limits of one request. The text says what to do.
    #[error("{0}")]
    TooExpensive(String),
    /// The store will never answer this query. The text says why.
    #[error("{0}")]
    Refused(String),
    /// A temporary failure.
    #[error("{}", .0.message)]
    StoreError(StoreError),
}

impl From<SelectError> for Failure {
    fn from(error: SelectError) -> Self {
        match error {
            SelectError::StoreError(trouble) => Self::StoreError(trouble),
            SelectError::Position => Self::Continuation,
            SelectError::Refused(_) => Self::Refused(error.to_string()),
        }
    }
}

impl From<LimitError> for Failure {
    fn from(error: LimitError) -> Self {
        Self::TooExpensive(error.to_string())
    }
}

impl Queries {
    /// Answers a request with one page. The result has the request units that were spent, also if there is no page.
    pub async fn answer(&self, ask: Ask<'_>) -> Charged<Result<Answer, Failure>> {
        let mut bill = Bill {
            queries: self,
            client: ask.client,
            spent: 0.0,
            passed_over: 0,
            flagged: 0,
            until: Instant::now() + self.limits.time,
        };
        let outcome = self.page(ask, &mut bill).await;
        Charged { outcome, request_units: bill.spent }
    }

    async fn page(&self, ask: Ask<'_>, bill: &mut Bill<'_>) -> Result<Answer, Failure> {
        let query = Query::parse(ask.query)?;
        let pushdown = query.pushdown(self.place)?;
        let fingerprint = Fingerprint::of(ask.query, ask.hub);
        let position = match ask.from {
            Some(text) => fingerprint.position(text).ok_or(Failure::Continuation)?,
            None => Position::default(),
        };
        let filter = Filter {
            hub: ask.hub.cloned(),
            of_modules: query.collection() == Collection::Modules,
            condition: pushdown.condition,
            parameters: pushdown.parameters,
        };
        let (rows, next) = if let Some(name) = query.counted_as().filter(|_| pushdown.exact) {
            let count = bill.count(&filter).await?;
            cut(
                vec![Value::Object(Map::from_iter([(name, Value::from(count))]))],
                &query,
                &position,
                ask.most,
            )
        } else if query.is_grouped() {
            let mut aggregation = query.aggregation(self.limits.held);
            bill.for_each(&filter, &query, |twin| aggregation.add(twin)).await?;
            cut(aggregation.rows(), &query, &position, ask.most)
        } else if query.is_sorted() {
            let mut sorter = query.sorter(self.limits.held);
            bill.for_each(&filter, &query, |twin| sorter.add(twin)).await?;
            cut(sorter.rows(), &query, &position, ask.most)
        } else {
            bill.scan(&filter, &query, position, ask.most).await?
        };
        let next = next.map(|next| fingerprint.text(&next));
        let Bill { passed_over, flagged, .. } = *bill;
        Ok(Answer { rows, item_type: query.item_type(), next, passed_over, flagged })
    }
}

/// Cuts one page from a whole result.
fn cut(
    mut rows: Vec<Value>,
    query: &Query,
    position: &Position,
    most: NonZeroU32,
) -> (Vec<Value>, Option<Position>) {
    if let Some(top) = query.top() {
        rows.truncate(usize::try_from(top).unwrap_or(usize::MAX));
    }
    let begin = usize::try_from(position.shown).unwrap_or(usize::MAX).min(rows.len());
    let end = begin.saturating_add(most.get() as usize).min(rows.len());
    let next = (end < rows.len()).then_some(Position { shown: end as u64, behind: None });
    (rows.drain(begin..end).collect(), next)
}

/// The resources that a request has used so far.
struct Bill<'a> {
    queries: &'a Queries,
    client: &'a dyn Client,
    spent: f64,
    passed_over: usize,
    flagged: usize,
    until: Instant,
}

impl Bill<'_> {
    /// Whether no more work may be begun.
    fn is_exhausted(&self) -> bool {
        self.spent >= self.queries.limits.request_units || Instant::now() >= self.until
    }

    /// Waits until the cap has room, asks the store, and pays for the answer.
    async fn pay<T>(
        &mut self,
        ask: impl Future<Output = Charged<Result<T, SelectError>>>,
    ) -> Result<T, SelectError> {
        let turn = timeout_at(self.until, self.queries.budget.allowed()).await;
        turn.map_err(|_| SelectError::StoreError(no_room()))?;
        let Charged { outcome, request_units } = ask.await;
        self.queries.budget.spend(request_units);
        self.queries.metrics.request_units_spent(Purpose::Request.into(), request_units);
        self.client.paid(request_units);
        self.spent += request_units;
        outcome
    }

    /// Fails if no more work may be begun before there is a result.
    fn check(&self) -> Result<(), Failure> {
        match () {
            () if self.client.is_gone() => Err(Failure::Gone),
            () if self.is_exhausted() => Err(self.too_expensive()),
            () => Ok(()),
        }
    }

    /// The rows of the twins of a page that the query selects.
    fn selected(&mut self, page: &Documents, query: &Query) -> Vec<Value> {
        let mut selected = Vec::new();
        for document in &page.readable {
            let Some(twin) = rest::twin(document).filter(|twin| query.matches(twin)) else { continue };
            self.flagged += usize::from(document.is_flagged());
            selected.push(twin);
        }
        selected
    }

    async fn select(
        &mut self,
        filter: &Filter,
        from: Option<&Cursor>,
        most: NonZeroU32,
    ) -> Result<Selected<Documents>, SelectError> {
        let selection = Arc::clone(&self.queries.selection);
        let page = self.pay(selection.select(filter, from, most)).await?;
        if let Some(first) = page.content.damaged.first() {
            self.passed_over += page.content.damaged.len();
            DocumentsPassedOver { documents: page.content.damaged.len(), first }.emit();
        }
        Ok(page)
    }

    fn too_expensive(&self) -> Failure {
        let Limits { request_units, time, .. } = self.queries.limits;
        Failure::TooExpensive(format!(
            "the query needs more than one request may take ({request_units:.0} request units, {} s): restrict its \
             condition to indexed fields, or select rows and aggregate them yourself",
            time.as_secs()
        ))
    }

    async fn count(&mut self, filter: &Filter) -> Result<u64, Failure> {
        let (mut count, mut from) = (0, None);
        loop {
            let selection = Arc::clone(&self.queries.selection);
            let page = self.pay(selection.count(filter, from.as_ref())).await?;
            count += page.content;
            from = page.next;
            if from.is_none() {
                return Ok(count);
            }
            self.check()?;
        }
    }

    /// Calls `show` with each twin that the query selects.
    async fn for_each(
        &mut self,
        filter: &Filter,
        query: &Query,
        mut show: impl FnMut(&Value) -> Result<(), LimitError>,
    ) -> Result<(), Failure> {
        let mut from = None;
        loop {
            let page = self.select(filter, from.as_ref(), ALL_PAGE).await?;
            self.selected(&page.content, query).iter().try_for_each(&mut show)?;
            from = page.next;
            if from.is_none() {
                return Ok(());
            }
            self.check()?;
        }
    }

    /// The next rows of a query with one row per twin.
    async fn scan(
        &mut self,
        filter: &Filter,
        query: &Query,
        position: Position,
        most: NonZeroU32,
    ) -> Result<(Vec<Value>, Option<Position>), Failure> {
        let Position { mut shown, behind: mut from } = position;
        let mut rows = Vec::new();
        loop {
            let left = query.top().map_or(u64::MAX, |top| top.saturating_sub(shown));
            let room = u64::from(most.get()).saturating_sub(rows.len() as u64).min(left);
            let Some(room) = u32::try_from(room).ok().and_then(NonZeroU32::new) else {
                let next = from.filter(|_| left > 0);
                return Ok((rows, next.map(|behind| Position { shown, behind: Some(behind) })));
            };
            // A page never has more documents than there is room for rows, so no document is read in vain.
            let page = match self.select(filter, from.as_ref(), room).await {
                Ok(page) => page,
                // The rows so far are useful. The next request meets the failure again.
                Err(SelectError::StoreError(_)) if !rows.is_empty() => {
                    return Ok((rows, Some(Position { shown, behind: from })));
                }
                Err(error) => return Err(error.into()),
            };
            let found: Vec<_> =
                self.selected(&page.content, query).iter().map(|twin| query.row(twin)).collect();
            shown += found.len() as u64;
            rows.extend(found);
            from = page.next;
            if from.is_none() {
                return Ok((rows, None));
            }
            if self.client.is_gone() {
                return Err(Failure::Gone);
            }
            if self.is_exhausted() {
                return Ok((rows, Some(Position { shown, behind: from })));
            }
        }
    }
}

/// The error when other work used the whole cap for as long as the request may take.
fn no_room() -> StoreError {
    StoreError {
        kind: StoreErrorKind::Throttled,
        code: "COSMOS_THROTTLED",
        retry_after: Some(Duration::from_secs(1)),
        message:
            "the limit on request units is used up: raise cosmos.max_request_units_per_second, or send fewer queries"
                .to_owned(),
    }
}

#[cfg(test)]
mod tests;
