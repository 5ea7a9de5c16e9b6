//! Faults that clients of Cosmos DB have to handle. They are injected between the socket and the emulator.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::http::{HeaderMap, Method};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};

/// The operation that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Read,
    Create,
    Replace,
    Upsert,
    Delete,
    Patch,
    Query,
    Batch,
    Feed,
    Metadata,
}

impl Operation {
    pub(super) fn of(method: &Method, path: &str, headers: &HeaderMap) -> Self {
        let segments = path.split('/').filter(|segment| !segment.is_empty()).count();
        let is_true = |name: &str| {
            headers.get(name).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
        };
        let in_documents = path.split('/').filter(|segment| !segment.is_empty()).nth(4) == Some("docs");
        match (method.as_str(), segments) {
            _ if !in_documents => Self::Metadata,
            ("GET", 5) => Self::Feed,
            ("POST", 5) if is_true("x-ms-cosmos-is-query-plan-request") => Self::Metadata,
            ("POST", 5) if is_true("x-ms-documentdb-isquery") || is_true("x-ms-documentdb-query") => {
                Self::Query
            }
            ("POST", 5) if is_true("x-ms-cosmos-is-batch-request") => Self::Batch,
            ("POST", 5) if is_true("x-ms-documentdb-is-upsert") => Self::Upsert,
            ("POST", 5) => Self::Create,
            ("GET", 6) => Self::Read,
            ("PUT", 6) => Self::Replace,
            ("DELETE", 6) => Self::Delete,
            ("PATCH", 6) => Self::Patch,
            _ => Self::Metadata,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Create => "create",
            Self::Replace => "replace",
            Self::Upsert => "upsert",
            Self::Delete => "delete",
            Self::Patch => "patch",
            Self::Query => "query",
            Self::Batch => "batch",
            Self::Feed => "feed",
            Self::Metadata => "metadata",
        }
    }

    const fn writes(self) -> bool {
        match self {
            Self::Create | Self::Replace | Self::Upsert | Self::Delete | Self::Patch | Self::Batch => true,
            Self::Read | Self::Query | Self::Feed | Self::Metadata => false,
        }
    }
}

/// When a fault takes effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Moment {
    /// The request is answered without being performed.
    #[default]
    Before,
    /// The request is performed, but its answer is replaced: the reply to a success is lost.
    After,
}

/// Which requests a fault applies to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Operations {
    /// Create, replace, upsert, delete, patch and batch.
    #[default]
    Writes,
    /// Point reads, queries and feeds.
    Reads,
    /// Both, but not the account's own metadata.
    Documents,
}

impl Operations {
    fn contains(self, operation: Operation) -> bool {
        match self {
            Self::Writes => operation.writes(),
            Self::Reads => !operation.writes() && operation != Operation::Metadata,
            Self::Documents => operation != Operation::Metadata,
        }
    }
}

/// One fault: an error answer for the next requests, or for a share of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// The answer: 400, 403, 404, 408, 410, 413, 429, 449, 500 or 503.
    pub status: u16,
    /// The substatus. `None`: 3200 for status 429, and none for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub substatus: Option<u16>,
    /// Whether a gateway between client and service answers: with HTML, and without any headers of Cosmos DB.
    #[serde(default)]
    pub gateway: bool,
    /// Whether it takes effect before or after the request is performed.
    #[serde(default)]
    pub when: Moment,
    /// The requests that it applies to.
    #[serde(default)]
    pub operations: Operations,
    /// Limits it to requests in the logical partition of this device: for its document and those of its modules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// How many times the fault takes effect. `None`: no limit.
    #[serde(default)]
    pub next: Option<u64>,
    /// The probability that the fault affects a request, 1 by default.
    #[serde(default = "certain")]
    pub probability: f64,
    /// With status 429 or 449: the time that the client is told to wait, in milliseconds.
    #[serde(default = "default_retry_after")]
    pub retry_after_ms: u64,
}

fn certain() -> f64 {
    1.0
}

fn default_retry_after() -> u64 {
    10
}

impl Fault {
    /// A fault that answers the next `next` writes with `status`, before they are performed.
    pub fn next(status: u16, next: u64) -> Self {
        Self {
            status,
            substatus: None,
            gateway: false,
            when: Moment::Before,
            operations: Operations::Writes,
            device: None,
            next: Some(next),
            probability: 1.0,
            retry_after_ms: default_retry_after(),
        }
    }

    /// The same fault after the request was performed.
    pub fn after(self) -> Self {
        Self { when: Moment::After, ..self }
    }

    /// The same fault for other requests.
    pub fn on(self, operations: Operations) -> Self {
        Self { operations, ..self }
    }

    /// A fault that answers every request for documents with `status`, as a gateway does, without end.
    pub fn of_gateway(status: u16) -> Self {
        Self { gateway: true, operations: Operations::Documents, next: None, ..Self::next(status, 1) }
    }

    /// A fault that answers every request for one device's documents with `status`, without end.
    pub fn about(status: u16, device: &str) -> Self {
        let device = Some(device.to_owned());
        Self { operations: Operations::Documents, device, next: None, ..Self::next(status, 1) }
    }
}

/// All faults of the account.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Faults {
    /// Seed of the random generator for the probabilities.
    pub seed: u64,
    /// Checked in order. The first fault that takes effect determines the answer.
    pub answers: Vec<Fault>,
    /// Latency that is added to every request for documents, in milliseconds.
    pub latency_ms: u64,
    /// Every request, including metadata, is answered with 503. None is performed.
    pub outage: bool,
    /// For this time after each write, in milliseconds, reads of the document return its previous state. The exception is a read that shows
    /// by its session token that the client knows of the write, if the consistency is Session. Creates in the binary form are not tracked.
    pub stale_reads_ms: u64,
    /// The consistency that the account reports. `None`: Session.
    pub consistency: Option<Consistency>,
    /// The properties that the container reports. Absent ones: as it was created.
    pub container: ContainerOverrides,
    /// Answers have a `Date` that is this many seconds too late: either the account's clock is ahead, or that of the client is behind.
    pub date_ahead_seconds: i64,
    /// The account reports a second write region, [`ELSEWHERE`](super::ELSEWHERE). It is the same account under another host name. Requests
    /// to it are counted separately.
    pub multi_write: bool,
}

/// Properties that the container reports, independently of its behaviour.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ContainerOverrides {
    /// Default time to live in seconds. `None` reports −1, which means enabled without a default. 0 means disabled.
    pub default_ttl: Option<i64>,
    /// Indexing policy, in the form of the service's REST API.
    pub indexing_policy: Option<serde_json::Value>,
    /// Path of the partition key.
    pub partition_key: Option<String>,
}

/// The consistency levels of accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Consistency {
    /// Every read sees the newest write.
    Strong,
    /// Reads see the newest write after a limited time.
    BoundedStaleness,
    /// Reads see what the client itself has read or written.
    Session,
    /// Reads see writes at some time, in order.
    ConsistentPrefix,
    /// Reads see writes at some time.
    Eventual,
}

/// Properties that the account reports, whatever its real ones are.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Overrides {
    pub(super) stale_reads: Duration,
    pub(super) consistency: Option<Consistency>,
    pub(super) multi_write: bool,
    pub(super) container: ContainerOverrides,
}

impl Overrides {
    /// Whether reads return earlier states.
    pub(super) fn is_behind(&self) -> bool {
        !self.stale_reads.is_zero()
    }

    /// Whether session tokens have an effect on reads that do not request a consistency themselves.
    pub(super) fn is_session(&self) -> bool {
        self.consistency.is_none_or(|consistency| consistency == Consistency::Session)
    }
}

/// A fault with an invalid setting.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FaultError {
    /// The status is not one of those that a fault can answer with.
    #[error("a fault answers with 400, 403, 404, 408, 410, 413, 429, 449, 500 or 503, not {0}")]
    Status(u16),
    /// The probability is out of range.
    #[error("probability is a number between 0 and 1, not {0}")]
    Probability(f64),
}

impl Faults {
    /// Checks statuses and probabilities.
    ///
    /// # Errors
    /// The first invalid fault.
    pub fn validate(&self) -> Result<(), FaultError> {
        for fault in &self.answers {
            if ![400, 403, 404, 408, 410, 413, 429, 449, 500, 503].contains(&fault.status) {
                return Err(FaultError::Status(fault.status));
            }
            if !(0.0..=1.0).contains(&fault.probability) {
                return Err(FaultError::Probability(fault.probability));
            }
        }
        Ok(())
    }
}

/// What to do with one request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Verdict {
    pub(super) delay: Duration,
    /// The answer instead of the emulator's, and when it takes effect.
    pub(super) answer: Option<Answer>,
    pub(super) overrides: Overrides,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) substatus: Option<u16>,
    pub(super) gateway: bool,
    pub(super) when: Moment,
    pub(super) retry_after_ms: u64,
}

/// The active faults, with their remaining counts.
#[derive(Debug)]
pub(super) struct Injector(Mutex<State>);

#[derive(Debug)]
struct State {
    faults: Faults,
    random: StdRng,
}

impl Injector {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State { faults: Faults::default(), random: StdRng::seed_from_u64(0) }))
    }

    pub(super) fn set(&self, faults: Faults) {
        let random = StdRng::seed_from_u64(faults.seed);
        *self.lock() = State { faults, random };
    }

    /// The faults, with their remaining counts.
    pub(super) fn get(&self) -> Faults {
        self.lock().faults.clone()
    }

    /// How many seconds the dates of answers are ahead.
    pub(super) fn date_ahead_seconds(&self) -> i64 {
        self.lock().faults.date_ahead_seconds
    }

    /// `partition_key` is a JSON array, as in the request's header.
    pub(super) fn decide(&self, operation: Operation, partition_key: Option<&str>) -> Verdict {
        let device = || {
            let key: Vec<serde_json::Value> = serde_json::from_str(partition_key?).ok()?;
            key.first()?.as_str().map(str::to_owned)
        };
        let mut state = self.lock();
        let State { faults, random } = &mut *state;
        let overrides = Overrides {
            stale_reads: Duration::from_millis(faults.stale_reads_ms),
            consistency: faults.consistency,
            multi_write: faults.multi_write,
            container: faults.container.clone(),
        };
        if faults.outage {
            let (substatus, gateway, when) = (None, false, Moment::Before);
            let answer = Answer { status: 503, substatus, gateway, when, retry_after_ms: 0 };
            return Verdict { answer: Some(answer), ..Verdict::default() };
        }
        if operation == Operation::Metadata {
            return Verdict { overrides, ..Verdict::default() };
        }
        let struck = faults.answers.iter_mut().find(|fault| {
            fault.operations.contains(operation)
                && (fault.device.is_none() || fault.device == device())
                && fault.next != Some(0)
                && (fault.probability >= 1.0 || random.random_bool(fault.probability))
        });
        let answer = struck.map(|fault| {
            fault.next = fault.next.map(|left| left - 1);
            let Fault { status, substatus, gateway, when, retry_after_ms, .. } = *fault;
            Answer { status, substatus, gateway, when, retry_after_ms }
        });
        Verdict { delay: Duration::from_millis(faults.latency_ms), answer, overrides }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(faults: Vec<Fault>, operations: &[Operation]) -> Vec<Option<u16>> {
        let injector = Injector::new();
        injector.set(Faults { answers: faults, ..Faults::default() });
        operations
            .iter()
            .map(|operation| injector.decide(*operation, None).answer.map(|answer| answer.status))
            .collect()
    }

    #[test]
    fn a_counted_fault_strikes_its_operations_and_is_then_over() {
        use Operation::{Create, Read, Replace};
        let seen = answers(vec![Fault::next(429, 2)], &[Read, Create, Read, Replace, Create]);
        assert_eq!(seen, [None, Some(429), None, Some(429), None]);
    }

    #[test]
    fn the_first_fault_in_the_list_that_strikes_answers() {
        use Operation::Create;
        let seen = answers(vec![Fault::next(449, 1), Fault::next(500, 1)], &[Create, Create, Create]);
        assert_eq!(seen, [Some(449), Some(500), None]);
    }

    #[test]
    fn a_fault_about_one_device_spares_the_others() {
        let injector = Injector::new();
        injector.set(Faults { answers: vec![Fault::about(503, "a\"b")], ..Faults::default() });
        for (key, struck) in [(Some("[\"a\\\"b\"]"), true), (Some("[\"a\"]"), false), (None, false)] {
            assert_eq!(injector.decide(Operation::Read, key).answer.is_some(), struck, "{key:?}");
        }
    }

    #[test]
    fn an_outage_answers_everything_and_other_faults_spare_metadata() {
        let injector = Injector::new();
        injector.set(Faults { outage: true, ..Faults::default() });
        assert_eq!(injector.decide(Operation::Metadata, None).answer.map(|answer| answer.status), Some(503));
        let all = Fault { operations: Operations::Documents, next: None, ..Fault::next(503, 1) };
        assert_eq!(answers(vec![all], &[Operation::Metadata, Operation::Query]), [None, Some(503)]);
    }

    #[test]
    fn operations_are_told_apart_by_path_and_headers() {
        let of = |method: Method, path: &str, header: &'static str| {
            let mut headers = HeaderMap::new();
            if !header.is_empty() {
                headers.insert(header, "True".parse().unwrap());
            }
            Operation::of(&method, path, &headers)
        };
        assert_eq!(of(Method::GET, "/", ""), Operation::Metadata);
        assert_eq!(of(Method::GET, "/dbs/d/colls/c/pkranges", ""), Operation::Metadata);
        assert_eq!(of(Method::GET, "/dbs/d/colls/c/docs/x", ""), Operation::Read);
        assert_eq!(of(Method::POST, "/dbs/d/colls/c/docs", ""), Operation::Create);
        assert_eq!(of(Method::POST, "/dbs/d/colls/c/docs", "x-ms-documentdb-isquery"), Operation::Query);
        assert_eq!(of(Method::POST, "/dbs/d/colls/c/docs", "x-ms-documentdb-is-upsert"), Operation::Upsert);
        assert_eq!(
            of(Method::POST, "/dbs/d/colls/c/docs", "x-ms-cosmos-is-query-plan-request"),
            Operation::Metadata
        );
    }

    #[test]
    fn only_statuses_and_probabilities_that_make_sense_are_accepted() {
        let with = |fault: Fault| Faults { answers: vec![fault], ..Faults::default() }.validate();
        assert_eq!(with(Fault::next(200, 1)), Err(FaultError::Status(200)));
        assert_eq!(
            with(Fault { probability: 1.5, ..Fault::next(429, 1) }),
            Err(FaultError::Probability(1.5))
        );
        assert_eq!(with(Fault::next(429, 1).after()), Ok(()));
    }
}
