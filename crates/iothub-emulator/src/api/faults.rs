//! Faults that the API injects into requests.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};

use super::kind::Kind;

/// The requests that a fault applies to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Operations {
    /// Reads of twins by id.
    Reads,
    /// Pages of queries.
    Queries,
    /// Writes of twins.
    Writes,
    /// Every request.
    #[default]
    All,
}

impl Operations {
    fn contains(self, kind: Kind) -> bool {
        match self {
            Self::Reads => kind == Kind::ReadTwin,
            Self::Queries => kind == Kind::Query,
            Self::Writes => kind == Kind::WriteTwin,
            Self::All => true,
        }
    }
}

/// The effect of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum FaultKind {
    /// The request is not performed and answered with 429, 500, 502 or 503.
    Answer {
        /// The status.
        status: u16,
        /// Seconds for a `Retry-After` header, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_seconds: Option<u64>,
    },
    /// The request waits for this time. After that, it continues: with the next fault, or with its answer.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// The request is received and never answered. The connection stays open.
    Hang,
    /// The connection is closed without an answer.
    Drop,
    /// The request is performed, and the connection is closed after half of the answer's body.
    Truncate,
}

/// One fault: for a number of requests, for some time, or for a share of the requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// The effect.
    pub trouble: FaultKind,
    /// The requests that it applies to.
    #[serde(default)]
    pub operations: Operations,
    /// How many times the fault takes effect. `None`: no such limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// How long the fault lasts, in milliseconds from the moment it was set. `None`: no such limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
    /// The probability that the fault affects a request, 1 by default.
    #[serde(default = "certain")]
    pub probability: f64,
}

fn certain() -> f64 {
    1.0
}

impl Fault {
    /// A fault that affects every request, without end.
    pub fn new(trouble: FaultKind) -> Self {
        Self { trouble, operations: Operations::All, next: None, for_ms: None, probability: certain() }
    }

    /// Answers every request with `status`, without `Retry-After`.
    pub fn answer(status: u16) -> Self {
        Self::new(FaultKind::Answer { status, retry_after_seconds: None })
    }

    /// The same fault for other requests.
    pub fn on(self, operations: Operations) -> Self {
        Self { operations, ..self }
    }

    /// The same fault, limited to `next` requests.
    pub fn times(self, next: u64) -> Self {
        Self { next: Some(next), ..self }
    }

    /// The same fault, limited to `time` from the moment it is set.
    pub fn lasting(self, time: Duration) -> Self {
        Self { for_ms: Some(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)), ..self }
    }

    /// The same fault for a share of the requests.
    pub fn with_probability(self, probability: f64) -> Self {
        Self { probability, ..self }
    }
}

/// All faults of the API.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Faults {
    /// Seed of the random generator for the probabilities.
    pub seed: u64,
    /// Checked in order. Delays add up. The first other fault that takes effect ends the search.
    pub faults: Vec<Fault>,
    /// Queries show the state of the hub this many milliseconds ago, as far back as the hub's history reaches. If the history is off,
    /// setting this switches it on, and the history begins at that time. Reads by id always show the latest state.
    pub stale_by_ms: u64,
    /// Maximum number of twins or rows per page, whatever the client requests. `None`: the service's own limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub largest_page: Option<usize>,
}

/// A fault with an invalid setting.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FaultError {
    /// The status is not one of those that a fault can answer with.
    #[error("a fault answers with 429, 500, 502 or 503, not {0}")]
    Status(u16),
    /// The probability is out of range.
    #[error("probability is a number between 0 and 1, not {0}")]
    Probability(f64),
    /// A page without twins would never end a query.
    #[error("largestPage must be at least 1")]
    Page,
}

impl Faults {
    /// Only these faults.
    pub fn of(faults: impl IntoIterator<Item = Fault>) -> Self {
        Self { faults: faults.into_iter().collect(), ..Self::default() }
    }

    /// Checks statuses, probabilities and the page.
    ///
    /// # Errors
    /// The first invalid setting.
    pub fn validate(&self) -> Result<(), FaultError> {
        for fault in &self.faults {
            if let FaultKind::Answer { status, .. } = fault.trouble
                && ![429, 500, 502, 503].contains(&status)
            {
                return Err(FaultError::Status(status));
            }
            if !(0.0..=1.0).contains(&fault.probability) {
                return Err(FaultError::Probability(fault.probability));
            }
        }
        if self.largest_page == Some(0) { Err(FaultError::Page) } else { Ok(()) }
    }
}

/// What to do with one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) delay: Duration,
    /// The effect, unless it is a delay.
    pub(super) trouble: Option<FaultKind>,
}

/// The active faults, with their remaining counts.
#[derive(Debug)]
pub(super) struct Injector(Mutex<State>);

#[derive(Debug)]
struct State {
    faults: Faults,
    random: StdRng,
    since: Instant,
}

impl Injector {
    pub(super) fn new() -> Self {
        let random = StdRng::seed_from_u64(0);
        Self(Mutex::new(State { faults: Faults::default(), random, since: Instant::now() }))
    }

    pub(super) fn set(&self, faults: Faults, now: Instant) {
        let random = StdRng::seed_from_u64(faults.seed);
        *self.lock() = State { faults, random, since: now };
    }

    /// The faults, with their remaining counts.
    pub(super) fn get(&self) -> Faults {
        self.lock().faults.clone()
    }

    pub(super) fn stale_by(&self) -> Duration {
        Duration::from_millis(self.lock().faults.stale_by_ms)
    }

    pub(super) fn largest_page(&self) -> usize {
        self.lock().faults.largest_page.unwrap_or(usize::MAX)
    }

    pub(super) fn decide(&self, kind: Kind, now: Instant) -> Verdict {
        let mut state = self.lock();
        let State { faults, random, since } = &mut *state;
        let passed = now.saturating_duration_since(*since);
        let mut verdict = Verdict::default();
        for fault in &mut faults.faults {
            let strikes = fault.operations.contains(kind)
                && fault.next != Some(0)
                && fault.for_ms.is_none_or(|time| passed < Duration::from_millis(time))
                && (fault.probability >= 1.0 || random.random_bool(fault.probability));
            if !strikes {
                continue;
            }
            fault.next = fault.next.map(|left| left - 1);
            match fault.trouble {
                FaultKind::Delay { ms } => verdict.delay += Duration::from_millis(ms),
                trouble @ (FaultKind::Answer { .. }
                | FaultKind::Hang
                | FaultKind::Drop
                | FaultKind::Truncate) => {
                    verdict.trouble = Some(trouble);
                    break;
                }
            }
        }
        verdict
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn troubles(faults: Vec<Fault>, requests: &[(Kind, u64)]) -> Vec<Option<FaultKind>> {
        let (injector, start) = (Injector::new(), Instant::now());
        injector.set(Faults::of(faults), start);
        let decide =
            |(kind, ms): &(Kind, u64)| injector.decide(*kind, start + Duration::from_millis(*ms)).trouble;
        requests.iter().map(decide).collect()
    }

    #[test]
    fn a_fault_strikes_its_operations_as_often_and_as_long_as_it_says() {
        use Kind::{Query, ReadTwin};
        let counted = Fault::new(FaultKind::Hang).on(Operations::Reads).times(1);
        let seen = troubles(vec![counted], &[(Query, 0), (ReadTwin, 0), (ReadTwin, 0)]);
        assert_eq!(seen, [None, Some(FaultKind::Hang), None]);
        let timed = Fault::new(FaultKind::Drop).lasting(Duration::from_millis(50));
        let seen = troubles(vec![timed], &[(Query, 0), (ReadTwin, 49), (ReadTwin, 50)]);
        assert_eq!(seen, [Some(FaultKind::Drop), Some(FaultKind::Drop), None]);
    }

    #[test]
    fn delays_add_up_and_the_first_other_fault_decides() {
        let (injector, now) = (Injector::new(), Instant::now());
        let delay = || Fault::new(FaultKind::Delay { ms: 20 });
        let faults = [delay(), delay(), Fault::new(FaultKind::Truncate), delay(), Fault::answer(503)];
        injector.set(Faults::of(faults), now);
        let expected = Verdict { delay: Duration::from_millis(40), trouble: Some(FaultKind::Truncate) };
        assert_eq!(injector.decide(Kind::Query, now), expected);
    }

    #[test]
    fn a_seed_repeats_the_same_luck() {
        let run = |seed| {
            let (injector, now) = (Injector::new(), Instant::now());
            let fault = Fault::answer(500).with_probability(0.5);
            injector.set(Faults { seed, ..Faults::of([fault]) }, now);
            (0..64).map(|_| injector.decide(Kind::Query, now).trouble.is_some()).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn only_settings_that_make_sense_are_accepted() {
        let with = |fault| Faults::of([fault]).validate();
        assert_eq!(with(Fault::answer(404)), Err(FaultError::Status(404)), "nobody may invent an absence");
        assert_eq!(with(Fault::answer(429).with_probability(2.0)), Err(FaultError::Probability(2.0)));
        assert_eq!(with(Fault::answer(502)), Ok(()));
        let page = Faults { largest_page: Some(0), ..Faults::default() };
        assert_eq!(page.validate(), Err(FaultError::Page));
    }
}
