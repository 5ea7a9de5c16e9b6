//! Carries out a plan against a hub, in the background.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Fleet, Plan, PlanError, Rounds, rounds::Turns};
use crate::iothub::{Operation, RouteError, Service, ServiceError};

/// Number of operations before the clock, the stop signal and the other tasks of the thread get their turn.
const CHUNK: u64 = 64;
/// How often a fleet with a rate wakes up. With a slower rate, it wakes up once per event.
const TICK: Duration = Duration::from_millis(5);

/// The speed of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As fast as the hub accepts the operations.
    Backlog,
    /// This many events per second.
    Rate(f64),
}

/// The state of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// No run was started.
    #[default]
    Idle,
    /// A phase is running.
    Running,
    /// A phase has finished. The next one waits to be started.
    Waiting,
    /// The plan is done.
    Done,
    /// The run was stopped.
    Stopped,
    /// The run failed.
    Failed,
}

/// Counts of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Number of operations performed.
    pub operations: u64,
    /// Number of events that the hub emitted, before delivery faults.
    pub events: u64,
    /// Number of operations by kind: `create`, `report`, `patch`, `replace`, `delete`.
    pub operations_by_kind: BTreeMap<String, u64>,
    /// Number of events by `opType`.
    pub events_by_type: BTreeMap<String, u64>,
}

impl Counts {
    fn add(&mut self, operation: &Operation, changes: &[crate::iothub::Change]) {
        let kind = match operation {
            Operation::Create { .. } => "create",
            Operation::Patch { .. } => "patch",
            Operation::Replace { .. } => "replace",
            Operation::Report { .. } => "report",
            Operation::Delete { .. } => "delete",
        };
        self.operations += 1;
        self.events += changes.len() as u64;
        add(&mut self.operations_by_kind, kind);
        for change in changes {
            add(&mut self.events_by_type, change.operation_type());
        }
    }
}

fn add(counts: &mut BTreeMap<String, u64>, name: &str) {
    match counts.get_mut(name) {
        Some(count) => *count += 1,
        None => {
            counts.insert(name.to_owned(), 1);
        }
    }
}

/// The progress of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// The state of the run.
    pub state: State,
    /// The running phase, or the last one that finished, counted from 1. 0 before the first phase.
    pub phase: usize,
    /// Number of phases in the plan.
    pub phases: usize,
    /// The counts of all phases so far.
    pub counts: Counts,
    /// Number of devices and modules that exist.
    pub live: usize,
    /// Number of devices and modules that were deleted and not re-created.
    pub deleted: usize,
    /// Seconds of work, without the waits between phases.
    pub seconds: f64,
    /// Why the run failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The hub refused an operation: another program changed the same devices, or the fleet was run twice.
    #[error("the hub refused an operation of the fleet; use another prefix if the devices exist already")]
    Refused(#[source] crate::iothub::Error),
    /// An event could not be delivered.
    #[error("an event of the fleet could not be delivered")]
    NotDelivered(#[source] RouteError),
}

/// Why a run could not be started or continued.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The plan cannot be carried out.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The rate is not a positive number.
    #[error("rate is a number of events per second above 0, not {0}")]
    Rate(f64),
    /// Another run has not ended.
    #[error("a fleet is running: wait until it is done or stop it")]
    Busy,
    /// No run waits for its next phase.
    #[error("no fleet waits for its next phase")]
    NotWaiting,
}

/// Runs one fleet at a time against a hub. Dropping the runner stops the run.
pub struct Runner {
    hub: Arc<Service>,
    progress: watch::Sender<Progress>,
    current: Mutex<Current>,
}

/// The operations of a run.
#[derive(Debug)]
enum Load {
    Fleet(Fleet),
    /// An even load has one phase. The flag tells whether it has begun.
    Even(Turns, bool),
}

impl Load {
    fn phases(&self) -> usize {
        match self {
            Self::Fleet(fleet) => fleet.plan().phases,
            Self::Even(..) => 1,
        }
    }

    fn begin_phase(&mut self) -> Option<usize> {
        match self {
            Self::Fleet(fleet) => fleet.begin_phase(),
            Self::Even(_, begun) => (!std::mem::replace(begun, true)).then_some(0),
        }
    }

    fn next_operation(&mut self) -> Option<Operation> {
        match self {
            Self::Fleet(fleet) => fleet.next_operation(),
            Self::Even(turns, _) => turns.next_operation(),
        }
    }

    fn live(&self) -> usize {
        match self {
            Self::Fleet(fleet) => fleet.live(),
            Self::Even(turns, _) => turns.live(),
        }
    }

    fn deleted(&self) -> usize {
        match self {
            Self::Fleet(fleet) => fleet.deleted(),
            Self::Even(..) => 0,
        }
    }
}

#[derive(Default)]
struct Current {
    /// The load, between phases. A running phase takes it out.
    load: Arc<Mutex<Option<Load>>>,
    pace: Option<Pace>,
    stop: CancellationToken,
}

impl Runner {
    /// Creates a runner without a run.
    pub fn new(hub: Arc<Service>) -> Self {
        Self {
            hub,
            progress: watch::Sender::new(Progress::default()),
            current: Mutex::new(Current::default()),
        }
    }

    /// Starts the first phase of `plan` in the background. Needs a Tokio runtime.
    ///
    /// # Errors
    /// The plan or the pace is invalid, or another run has not ended.
    pub fn start(&self, plan: Plan, pace: Pace) -> Result<(), RunnerError> {
        self.start_load(Load::Fleet(Fleet::new(plan)?), pace)
    }

    /// Starts an even load in the background. It has one phase. Needs a Tokio runtime.
    ///
    /// # Errors
    /// The load or the pace is invalid, or another run has not ended.
    pub fn start_rounds(&self, rounds: Rounds, pace: Pace) -> Result<(), RunnerError> {
        self.start_load(Load::Even(Turns::new(rounds)?, false), pace)
    }

    fn start_load(&self, load: Load, pace: Pace) -> Result<(), RunnerError> {
        if let Pace::Rate(rate) = pace
            && !(rate.is_finite() && rate > 0.0)
        {
            return Err(RunnerError::Rate(rate));
        }
        let mut current = self.lock();
        if matches!(self.progress().state, State::Running | State::Waiting) {
            return Err(RunnerError::Busy);
        }
        let phases = load.phases();
        self.progress.send_replace(Progress { phases, ..Progress::default() });
        *current = Current { pace: Some(pace), ..Current::default() };
        self.begin(&mut current, load, pace);
        Ok(())
    }

    /// Starts the next phase of a run that waits for it.
    ///
    /// # Errors
    /// No run waits for its next phase.
    pub fn start_next_phase(&self) -> Result<(), RunnerError> {
        let mut current = self.lock();
        if self.progress().state != State::Waiting {
            return Err(RunnerError::NotWaiting);
        }
        let load = current.load.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (Some(load), Some(pace)) = (load, current.pace) else {
            return Err(RunnerError::NotWaiting);
        };
        self.begin(&mut current, load, pace);
        Ok(())
    }

    /// Ends the run after the present operation.
    pub fn stop(&self) {
        self.lock().stop.cancel();
        self.progress.send_if_modified(|progress| {
            let waits = progress.state == State::Waiting;
            if waits {
                progress.state = State::Stopped;
            }
            waits
        });
    }

    /// The present progress.
    pub fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// Waits until the running phase ends. Returns at once if none is running.
    pub async fn phase_end(&self) -> Progress {
        let mut progress = self.progress.subscribe();
        // The sender belongs to `self`, so only the end of a phase can end the wait.
        match progress.wait_for(|progress| progress.state != State::Running).await {
            Ok(progress) => progress.clone(),
            Err(_) => self.progress(),
        }
    }

    fn begin(&self, current: &mut Current, mut load: Load, pace: Pace) {
        let Some(phase) = load.begin_phase() else {
            self.progress.send_modify(|progress| progress.state = State::Done);
            return;
        };
        self.progress.send_modify(|progress| {
            progress.state = State::Running;
            progress.phase = phase + 1;
        });
        let run = Phase {
            hub: Arc::clone(&self.hub),
            progress: self.progress.clone(),
            stop: current.stop.clone(),
            started: Instant::now(),
            seconds_before: self.progress().seconds,
        };
        let back = Arc::clone(&current.load);
        let runtime = tokio::runtime::Handle::current();
        // The phase runs on its own thread. As a task, it would wait behind every request to the emulators,
        // and the backlog would be as slow as its consumer. The thread ends with the phase or with the stop
        // token, and reports this through `progress`.
        drop(tokio::task::spawn_blocking(move || {
            let outcome = runtime.block_on(run.perform(&mut load, pace));
            let state = match &outcome {
                Err(_) => State::Failed,
                Ok(()) if run.stop.is_cancelled() => State::Stopped,
                Ok(()) if phase + 1 == load.phases() => State::Done,
                Ok(()) => State::Waiting,
            };
            run.report(&load);
            *back.lock().unwrap_or_else(PoisonError::into_inner) = Some(load);
            run.progress.send_modify(|progress| {
                progress.state = state;
                progress.error = outcome.err().map(|error| describe(&error));
            });
        }));
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.lock().stop.cancel();
    }
}

/// One running phase.
struct Phase {
    hub: Arc<Service>,
    progress: watch::Sender<Progress>,
    stop: CancellationToken,
    started: Instant,
    seconds_before: f64,
}

impl Phase {
    async fn perform(&self, load: &mut Load, pace: Pace) -> Result<(), RunError> {
        match pace {
            Pace::Backlog => {
                while !self.stop.is_cancelled() && self.some(load, CHUNK)? == CHUNK {
                    tokio::task::yield_now().await;
                }
            }
            Pace::Rate(rate) => self.at_rate(load, rate).await?,
        }
        // The last updates of a phase must not be held back until the next phase.
        self.hub.flush().map_err(RunError::NotDelivered)
    }

    async fn at_rate(&self, load: &mut Load, rate: f64) -> Result<(), RunError> {
        let mut ticks = tokio::time::interval(TICK.max(Duration::from_secs_f64(1.0 / rate)));
        let mut done = 0;
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                _ = ticks.tick() => {}
            }
            let due = (self.started.elapsed().as_secs_f64() * rate) as u64 + 1;
            while done < due {
                let chunk = CHUNK.min(due - done);
                if self.some(load, chunk)? < chunk {
                    return Ok(());
                }
                done += chunk;
                tokio::task::yield_now().await;
            }
        }
    }

    /// Performs up to `limit` operations, or fewer at the end of the phase. Returns their number of events.
    fn some(&self, load: &mut Load, limit: u64) -> Result<u64, RunError> {
        let mut added = Counts::default();
        let mut outcome = Ok(());
        while added.operations < limit {
            let Some(operation) = load.next_operation() else {
                break;
            };
            match self.hub.apply(&operation) {
                Ok(applied) => added.add(&operation, &applied.changes),
                Err(ServiceError::Refused(error)) => outcome = Err(RunError::Refused(error)),
                Err(ServiceError::NotDelivered(error)) => outcome = Err(RunError::NotDelivered(error)),
            }
            if outcome.is_err() {
                break;
            }
        }
        self.progress.send_modify(|progress| {
            let counts = &mut progress.counts;
            counts.operations += added.operations;
            counts.events += added.events;
            for (total, added) in [
                (&mut counts.operations_by_kind, &added.operations_by_kind),
                (&mut counts.events_by_type, &added.events_by_type),
            ] {
                for (name, count) in added {
                    *total.entry(name.clone()).or_default() += count;
                }
            }
        });
        self.report(load);
        outcome.map(|()| added.operations)
    }

    fn report(&self, load: &Load) {
        self.progress.send_modify(|progress| {
            progress.live = load.live();
            progress.deleted = load.deleted();
            progress.seconds = self.seconds_before + self.started.elapsed().as_secs_f64();
        });
    }
}

/// The error with its causes, in one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
