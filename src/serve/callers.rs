//! The limits and the usage of each caller.
//!
//! A caller that has exceeded its limit is told to wait. The cost of a request is known only afterwards, so a caller may go into debt. Its
//! next request then waits until the debt is paid. One log line per minute reports the usage of each caller, without contents.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::access::Caller;
use crate::{domain::retry::Budget, telemetry::event::CallerServed};

/// Time between two lines about a caller.
const PERIOD: Duration = Duration::from_secs(60);
/// Maximum number of callers that are counted separately. Entra ID may have many identities that may read. The callers beyond this number
/// count as one.
const MOST: usize = 10_000;

/// The callers of the last minutes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Callers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Request units per second of each caller. `None`: unlimited.
    rate: Option<f64>,
    started: Instant,
    known: Mutex<HashMap<Caller, Known>>,
}

#[derive(Debug)]
struct Known {
    budget: Option<Budget>,
    given: Given,
}

/// Usage since the last line.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Given {
    requests: u64,
    rows: u64,
    request_units: f64,
    throttled: u64,
}

impl Callers {
    /// Creates an empty list. Each caller may spend this many request units per second. `None`: unlimited.
    pub fn new(request_units_per_second: Option<f64>) -> Self {
        let known = Mutex::default();
        Self(Arc::new(Shared { rate: request_units_per_second, started: Instant::now(), known }))
    }

    /// Counts a request, and decides whether it may be processed.
    ///
    /// # Errors
    /// The caller has to wait for this long first.
    pub(super) fn admit(&self, caller: &Caller) -> Result<(), Duration> {
        let now = self.0.started.elapsed();
        self.with(caller, |known| {
            known.given.requests += 1;
            let wait = known.budget.as_mut().map_or(Duration::ZERO, |budget| budget.wait(now));
            if wait.is_zero() {
                return Ok(());
            }
            known.given.throttled += 1;
            Err(wait)
        })
    }

    /// Adds the cost of a request so far, in request units.
    pub(super) fn spend(&self, caller: &Caller, request_units: f64) {
        let now = self.0.started.elapsed();
        self.with(caller, |known| {
            known.given.request_units += request_units;
            if let Some(budget) = &mut known.budget {
                budget.spend(request_units, now);
            }
        });
    }

    /// Adds the number of twins or rows that a caller received.
    pub(super) fn gave(&self, caller: &Caller, rows: usize) {
        self.with(caller, |known| known.given.rows += rows as u64);
    }

    /// Writes the lines once a minute until `stop`, and then the last ones.
    pub async fn run(self, stop: CancellationToken) {
        let mut timer = interval(PERIOD);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        timer.tick().await; // the first one is due at once
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = timer.tick() => self.tell(),
            }
        }
        self.tell();
    }

    /// Writes a line about each caller with requests since the last line. Forgets callers that have no requests and no debt.
    fn tell(&self) {
        let now = self.0.started.elapsed();
        let mut given: Vec<_> = {
            let mut known = self.known();
            let given: Vec<_> = known
                .iter_mut()
                // The cost of a page may become known after its client has disconnected and the line about its request was written.
                .filter(|(_, known)| known.given != Given::default())
                .map(|(caller, known)| (caller.clone(), std::mem::take(&mut known.given)))
                .collect();
            let has_asked: HashSet<&Caller> = given.iter().map(|(caller, _)| caller).collect();
            known.retain(|caller, known| {
                let owes = known.budget.as_mut().is_some_and(|budget| !budget.wait(now).is_zero());
                owes || has_asked.contains(caller)
            });
            given
        };
        given.sort_by(|(left, _), (right, _)| left.name.cmp(&right.name));
        for (caller, Given { requests, rows, request_units, throttled }) in given {
            let kind = caller.kind.label();
            CallerServed { caller: &caller.name, kind, requests, rows, request_units, throttled }.emit();
        }
    }

    fn with<T>(&self, caller: &Caller, act: impl FnOnce(&mut Known) -> T) -> T {
        let mut known = self.known();
        let caller = match known.len() < MOST || known.contains_key(caller) {
            true => caller.clone(),
            false => Caller { name: "others".into(), kind: caller.kind },
        };
        let budget = || self.0.rate.map(Budget::new);
        act(known.entry(caller).or_insert_with(|| Known { budget: budget(), given: Given::default() }))
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Caller, Known>> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::access::Kind, *};

    fn caller(name: &str) -> Caller {
        Caller { name: name.into(), kind: Kind::Policy }
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_spent_more_than_it_may_waits_and_nobody_else_does() {
        let callers = Callers::new(Some(100.0));
        let (greedy, other) = (caller("greedy"), caller("other"));
        assert_eq!(callers.admit(&greedy), Ok(()));
        callers.spend(&greedy, 400.0);
        let wait = callers.admit(&greedy).expect_err("it has to wait");
        assert_eq!(wait, Duration::from_secs(3));
        assert_eq!(callers.admit(&other), Ok(()));
        tokio::time::sleep(wait).await;
        assert_eq!(callers.admit(&greedy), Ok(()));
        let unlimited = Callers::new(None);
        unlimited.spend(&greedy, 1e9);
        assert_eq!(unlimited.admit(&greedy), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_given_is_told_once_and_idle_callers_are_forgotten_but_not_their_debts() {
        let callers = Callers::new(Some(1.0));
        let (one, debtor) = (caller("one"), caller("debtor"));
        for caller in [&one, &debtor] {
            callers.admit(caller).unwrap();
        }
        callers.gave(&one, 7);
        callers.spend(&debtor, 1_000.0);
        let expected = Given { requests: 1, rows: 7, ..Given::default() };
        assert_eq!(callers.known()[&one].given, expected);
        callers.tell();
        assert_eq!(callers.known()[&one].given, Given::default());
        callers.tell();
        let left: Vec<_> = callers.known().keys().cloned().collect();
        assert_eq!(left, [debtor]);
    }

    #[tokio::test(start_paused = true)]
    async fn more_callers_than_are_told_apart_are_one() {
        let callers = Callers::new(Some(100.0));
        for number in 0..MOST {
            callers.admit(&caller(&number.to_string())).unwrap();
        }
        callers.spend(&caller("new"), 200.0);
        assert!(callers.admit(&caller("newer")).is_err(), "further callers must share one budget");
        assert_eq!(callers.known().len(), MOST + 1);
        assert_eq!(callers.admit(&caller("0")), Ok(()));
    }
}
