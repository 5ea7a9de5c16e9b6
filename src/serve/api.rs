//! The handling of one request: the caller, the target, the limits, and the answer.

use std::{
    num::NonZeroU32,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, header, request::Parts as Head},
    response::Response,
};
use time::OffsetDateTime;
use tokio::{sync::Semaphore, time::Instant};

use super::{
    access::{Access, Caller, Denied},
    callers::Callers,
    lag::Lag,
    query::{Asked, Desk},
    refusal::Refusal,
    request::{Id, Parameters, Target},
    twin::{self, Refused, Shown},
};
use crate::{
    domain::id::HubName,
    listener::Connection,
    runtime::{
        queries::Queries,
        twins::{Answer, Twins},
    },
    telemetry::{ServeMetrics, ServedOperation, ServedOutcome, event::RequestDenied},
};

/// The parts of the API.
pub struct Parts {
    /// Decides which requests are admitted.
    pub access: Arc<Access>,
    /// Reads single twins.
    pub twins: Twins,
    /// The limits of each caller.
    pub callers: Callers,
    /// The lag of the copy.
    pub lag: Lag,
    /// Counts the requests.
    pub metrics: ServeMetrics,
    /// Only twins of this hub are shown. `None`: those of all hubs.
    pub hub: Option<HubName>,
    /// Host of the hub, to name in answers to requests that are not supported here.
    pub hub_host: Option<String>,
    /// Maximum number of queries at the same time.
    pub most_queries: NonZeroU32,
    /// How long a query waits for its turn.
    pub max_wait: Duration,
}

/// IoT Hub's service REST API, answered from the copy. Cheap to clone.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

/// Maximum number of authorized requests at the same time. Each keeps a connection.
const MOST_REQUESTS: usize = 1_024;

struct Inner {
    parts: Parts,
    desk: Desk,
    under_way: Semaphore,
    /// Set when the store is connected.
    queries: OnceLock<Queries>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("access", &self.0.parts.access).finish_non_exhaustive()
    }
}

impl Api {
    /// Creates the API from these parts. Queries are answered after [`Self::open`].
    pub fn new(parts: Parts) -> Self {
        let desk = Desk::new(parts.most_queries, parts.max_wait);
        let under_way = Semaphore::new(MOST_REQUESTS);
        Self(Arc::new(Inner { parts, desk, under_way, queries: OnceLock::new() }))
    }

    /// Enables queries. Only the first call has an effect.
    pub fn open(&self, queries: Queries) {
        let _ = self.0.queries.set(queries);
    }

    /// Answers every path.
    pub fn router(&self) -> Router {
        Router::new().fallback(answer).with_state(self.clone())
    }
}

async fn answer(State(api): State<Api>, request: Request) -> Response {
    let (mut head, body) = request.into_parts();
    let tracking_id = format!("{:032x}", rand::random::<u128>());
    let now = OffsetDateTime::now_utc();
    let connection = head.extensions.remove::<Connection>();
    let caller = match api.0.admit(&head, connection.as_ref(), &tracking_id, now).await {
        Ok(caller) => caller,
        Err(refusal) => return finish(refusal.response(&tracking_id, now), &tracking_id),
    };
    let target = Target::of(&head.method, head.uri.path(), api.0.parts.hub_host.as_deref());
    let counted = Counted {
        metrics: &api.0.parts.metrics,
        operation: target.operation(),
        outcome: ServedOutcome::Gone,
        began: Instant::now(),
    };
    // The connection of an authorized request is not closed in favour of another.
    let kept = connection.map(|connection| Kept::new(&connection));
    let answered = Box::pin(api.0.answer(target, &head, body, &caller)).await;
    drop(kept);
    let response = match answered {
        Ok(Answered { mut response, outcome, rows }) => {
            counted.conclude(outcome);
            api.0.parts.callers.gave(&caller, rows);
            api.0.tell_lag(response.headers_mut());
            response
        }
        Err(Refused { refusal, outcome, present }) => {
            counted.conclude(outcome);
            let mut response = refusal.response(&tracking_id, now);
            if let Some(document) = present {
                twin::describe(&mut response, &document, None);
            }
            api.0.tell_lag(response.headers_mut());
            response
        }
    };
    finish(response, &tracking_id)
}

/// Adds the headers that every answer has.
fn finish(mut response: Response, tracking_id: &str) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Ok(id) = HeaderValue::try_from(tracking_id) {
        headers.insert("x-ms-request-id", id);
    }
    response
}

struct Answered {
    response: Response,
    outcome: ServedOutcome,
    /// Number of twins or rows in it.
    rows: usize,
}

impl Inner {
    /// Identifies the caller.
    ///
    /// # Errors
    /// The request is not admitted. The reason is logged, and not told to the client.
    async fn admit(
        &self,
        head: &Head,
        connection: Option<&Connection>,
        tracking_id: &str,
        now: OffsetDateTime,
    ) -> Result<Caller, Refusal> {
        let values: Vec<&[u8]> =
            head.headers.get_all(header::AUTHORIZATION).iter().map(HeaderValue::as_bytes).collect();
        let admitted = self.parts.access.admit(&values, head.uri.path(), now).await;
        admitted.map_err(|denied| {
            let peer = connection.map(|connection| connection.peer);
            // If the credentials cannot be checked, the client is not at fault. That failure is reported separately.
            let shown = !matches!(denied, Denied::Missing | Denied::KeysUnavailable);
            let detail = denied.to_string();
            RequestDenied { reason: denied.label(), detail: &detail, shown, tracking_id, peer }
                .emit(&self.parts.metrics);
            denied.answer()
        })
    }

    async fn answer(
        &self,
        target: Target,
        head: &Head,
        body: Body,
        caller: &Caller,
    ) -> Result<Answered, Refused> {
        let invalid = |refusal| refused(refusal, ServedOutcome::Invalid);
        let Ok(_place) = self.under_way.try_acquire() else {
            let refusal = Refusal::throttled(1, "too many requests at the same time: try again");
            return Err(refused(refusal, ServedOutcome::Throttled));
        };
        if let Err(wait) = self.parts.callers.admit(caller) {
            let seconds = wait.as_secs_f64().ceil() as u64;
            let message = "this caller has used up its request units (serve.max_request_units_per_second): try again later";
            return Err(refused(Refusal::throttled(seconds, message), ServedOutcome::Throttled));
        }
        if let Target::Not(refusal) = target {
            return Err(refused(refusal, ServedOutcome::Unsupported));
        }
        let parameters = Parameters::read(head.uri.query(), &head.headers).map_err(invalid)?;
        parameters.check_api_version().map_err(invalid)?;
        let (id, shown) = match target {
            Target::Twin(id) => (id, Shown::Twin),
            Target::Device(device) => (Id { device, module: None }, Shown::Identity),
            Target::Query | Target::Not(_) => return self.query(&head.headers, body, caller).await,
        };
        self.twin(id, &parameters, shown, &head.headers, caller).await
    }

    async fn twin(
        &self,
        id: Id,
        parameters: &Parameters,
        shown: Shown,
        headers: &HeaderMap,
        caller: &Caller,
    ) -> Result<Answered, Refused> {
        let question = parameters.question(id, self.parts.hub.as_ref());
        let question = question.map_err(|refusal| refused(refusal, ServedOutcome::Invalid))?;
        let kept = AtomicBool::new(false);
        let mut due = Due { callers: &self.parts.callers, caller, request_units: ABANDONED };
        let Answer { outcome, request_units, .. } = self.parts.twins.answer(&question, &kept).await;
        due.request_units = request_units;
        drop(due);
        let (response, outcome) = twin::answer(&outcome, &question, shown, headers)?;
        Ok(Answered { response, outcome, rows: 1 })
    }

    async fn query(&self, headers: &HeaderMap, body: Body, caller: &Caller) -> Result<Answered, Refused> {
        let asked = Asked::read(headers, body).await;
        let asked = asked.map_err(|refusal| refused(refusal, ServedOutcome::Invalid))?;
        let Some(queries) = self.queries.get() else {
            return Err(refused(twin::starting(), ServedOutcome::Unavailable));
        };
        let payer = (caller.clone(), self.parts.callers.clone());
        let answered = self.desk.answer(queries.clone(), asked, self.parts.hub.clone(), payer).await;
        let (response, outcome, rows) = answered.map_err(|(refusal, outcome)| refused(refusal, outcome))?;
        self.parts.metrics.rows(rows);
        Ok(Answered { response, outcome, rows })
    }

    /// Adds the lag of the copy, if it is known.
    fn tell_lag(&self, headers: &mut HeaderMap) {
        let Some((behind, age)) = self.parts.lag.get() else { return };
        headers.insert("x-twinsync-lag-events", HeaderValue::from(behind.events));
        headers.insert("x-twinsync-lag-age", HeaderValue::from(age.as_secs()));
        if let Some(at_least) = behind.at_least {
            headers.insert("x-twinsync-lag-seconds", HeaderValue::from(at_least.as_secs()));
        }
    }
}

fn refused(refusal: Refusal, outcome: ServedOutcome) -> Refused {
    Refused { refusal, outcome, present: None }
}

/// The charge for a read whose client disconnects before its answer, so that its cost is unknown: the minimum of a point read, in request
/// units.
const ABANDONED: f64 = 1.0;

/// The charge for a read. It is charged on drop, so also if the client disconnects and the request is dropped.
struct Due<'a> {
    callers: &'a Callers,
    caller: &'a Caller,
    request_units: f64,
}

impl Drop for Due<'_> {
    fn drop(&mut self) {
        self.callers.spend(self.caller, self.request_units);
    }
}

/// Prevents a connection from being closed in favour of others.
struct Kept(Arc<AtomicBool>);

impl Kept {
    fn new(connection: &Connection) -> Self {
        connection.kept.store(true, Ordering::Release);
        Self(Arc::clone(&connection.kept))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Counts a request, also if its client disconnects before the answer.
struct Counted<'a> {
    metrics: &'a ServeMetrics,
    operation: ServedOperation,
    outcome: ServedOutcome,
    began: Instant,
}

impl Counted<'_> {
    fn conclude(mut self, outcome: ServedOutcome) {
        self.outcome = outcome;
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.metrics.served(self.operation, self.outcome, self.began.elapsed());
    }
}
