//! The event router: lanes of twins in, completed events out.
//!
//! One task owns every lane, the cache, the adaptive limits and the retries. So there are no locks here, and nothing waits except in the
//! `select!` of this task. Store operations run in workers, at most as many as the store takes without throttling. Each dead letter is
//! stored in its own task.

mod completion;
mod dead_letters;
mod item;
mod results;

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::StreamExt;
use tokio::{
    sync::mpsc::{self, error::TryRecvError},
    task::JoinSet,
    time::Instant,
};
use tokio_util::time::DelayQueue;

use self::{
    item::{Group, GroupId, Item, StoredDeadLetter},
    results::Probed,
};
use super::{
    documents::DocumentCache,
    in_flight::InFlight,
    intake::Intake,
    reconcile::{repair_queue::RepairQueue, requests::AuditRequests},
    request_unit_budget::RequestUnitBudget,
    watch,
    worker::{self, Tools, Work, WorkResult},
};
use crate::{
    domain::{
        decide::Rules,
        document::Cascade,
        event::TwinEvent,
        id::TwinKey,
        in_flight_limit::InFlightLimit,
        invariant::Invariant,
        lane::{Bound, Lanes, Linger},
        outage::Outage,
        retry::{Backoff, Concurrency},
        upsert::Upsert,
    },
    ports::{Clock, DeadLetters, TwinStore},
    telemetry::{HealthState, Heartbeat, Metrics, event::InvariantBroken, trace::Tracer},
};

/// Maximum number of completions that are processed before the lanes are started again.
const TURN: usize = 1024;
/// How often the router sends a heartbeat, also when idle.
const PULSE: Duration = Duration::from_secs(1);
/// An event on its way from a partition to the router counts as in flight for a moment. After so many pulses in a row, its permit was never
/// given back.
const HELD_PULSES: u32 = 60;
/// How long the router may send no heartbeat before the process counts as stuck.
const PULSE_LIMIT: Duration = Duration::from_secs(30);

/// Options of the router.
#[derive(Clone)]
pub struct Options {
    /// The rules for decisions.
    pub rules: Rules,
    /// Maximum number of concurrent store operations. The limit adapts below it.
    pub most_concurrency: usize,
    /// Cap on request units, shared with the other users of the budget.
    pub budget: RequestUnitBudget,
    /// Queue to which flagged documents are reported.
    pub repair_queue: RepairQueue,
    /// An audit is requested here when an event became a dead letter and its twin is unknown.
    pub audits: AuditRequests,
    /// How long an event waits for more events of its twin before it is written.
    pub linger: Linger,
    /// Maximum number of events in one write.
    pub max_batch: usize,
    /// How much of one twin may wait before the partitions that deliver it have to wait.
    pub bound: Bound,
    /// If the store answers about other twins for this long but not about one twin, the events of that twin become dead letters. `None`:
    /// they never do.
    pub give_up_after: Option<Duration>,
    /// Makes traces.
    pub tracer: Option<Tracer>,
    /// Documents that are kept for the next write of their twin.
    pub cache: DocumentCache,
    /// Waits between attempts while the store, or the store of dead letters, fails.
    pub backoff: Backoff,
}

/// Error of a router that stopped without being asked to: a worker panicked.
#[derive(Debug, thiserror::Error)]
#[error("a worker of the event router panicked; its incomplete events are received again after a restart")]
pub struct Panicked;

/// The event router. See the [module](self).
pub struct Router {
    options: Options,
    tools: Arc<Tools>,
    dead_letters: Arc<dyn DeadLetters>,
    limits: Arc<InFlight>,
    started: Instant,
    lanes: Lanes<TwinKey, (TwinEvent, Item)>,
    /// Whether no more events will be dispatched.
    draining: bool,
    /// When an event last arrived.
    last_arrival: Duration,
    cache: DocumentCache,
    workers: JoinSet<WorkResult<Item>>,
    storing: JoinSet<StoredDeadLetter>,
    /// Changes when a dead letter is stored. Tasks that wait for their next try are then woken.
    dead_letter_was_stored: Arc<watch::Sender<u64>>,
    parked: DelayQueue<Box<Work<Item>>>,
    groups: HashMap<GroupId, Group>,
    next_group: u64,
    /// Deletions of devices that their modules are following at present.
    followed: HashMap<TwinKey, Cascade>,
    concurrency: Concurrency,
    outage: Outage<TwinKey>,
    /// Whether partitions were told to wait for a twin.
    shows_full: bool,
    probes: JoinSet<Probed>,
    #[expect(clippy::vec_box, reason = "a work is moved between queue, task and timer as it is")]
    resumed: Vec<Box<Work<Item>>>,
    health: HealthState,
    heartbeat: Heartbeat,
    /// How many events may be in flight, computed from how fast they are completed.
    room: InFlightLimit,
    /// When the pace was last measured, and how many events had been completed by then.
    paced: (Duration, u64),
    /// Number of pulses in a row at which the router was idle but events counted as in flight.
    held_at_rest: u32,
}

impl Router {
    /// Creates a router without events.
    pub fn new(
        options: Options,
        store: Arc<dyn TwinStore>,
        dead_letters: Arc<dyn DeadLetters>,
        clock: Arc<dyn Clock>,
        limits: Arc<InFlight>,
        health: HealthState,
        metrics: Metrics,
    ) -> Self {
        let room = InFlightLimit::new(limits.room(), options.linger.always);
        limits.set_room(room.events());
        Self {
            lanes: Lanes::new(options.max_batch, options.bound),
            draining: false,
            last_arrival: Duration::ZERO,
            concurrency: Concurrency::new(options.most_concurrency),
            tools: Arc::new(Tools { store, clock, metrics }),
            dead_letters,
            limits,
            started: Instant::now(),
            cache: options.cache.clone(),
            workers: JoinSet::new(),
            storing: JoinSet::new(),
            dead_letter_was_stored: Arc::new(watch::Sender::new(0)),
            parked: DelayQueue::new(),
            groups: HashMap::new(),
            next_group: 0,
            followed: HashMap::new(),
            outage: Outage::default(),
            shows_full: false,
            probes: JoinSet::new(),
            resumed: Vec::new(),
            heartbeat: health.heartbeat("router", PULSE_LIMIT),
            health,
            options,
            room,
            paced: (Duration::ZERO, 0),
            held_at_rest: 0,
        }
    }

    /// Runs until `intake` is closed and everything in it is completed. If the future is dropped, open events are abandoned. They were not
    /// completed, so they are replayed.
    ///
    /// # Errors
    /// [`Panicked`] if a worker, a task that stores a dead letter, or a probe panicked.
    pub async fn run(mut self, mut intake: mpsc::Receiver<Vec<Intake>>) -> Result<(), Panicked> {
        let mut open = true;
        let mut pulse = tokio::time::interval(PULSE);
        pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // SUBTLE: under load a completion is always ready. In a biased `select!`, intake would then starve, and with it coalescing. So
            // every turn takes in what has already arrived. The in-flight limits bound it.
            while open && let Some(batch) = take_ready(&mut intake, &mut open) {
                self.take_in(batch);
            }
            self.draining = !open;
            self.publish_full();
            let pause = self.start_lanes();
            if self.is_idle() {
                self.show(); // so that the metrics are right while the router is idle
                if !open {
                    return Ok(());
                }
            }
            tokio::select! {
                biased;
                // 1: timers; they are rare.
                _ = pulse.tick() => {
                    self.pulse();
                    self.probe();
                }
                Some(expired) = self.parked.next(), if !self.parked.is_empty() => {
                    self.resumed.push(expired.into_inner());
                }
                () = wait(pause), if pause.is_some() => {}
                // 2: completions free slots and memory.
                Some(result) = self.workers.join_next(), if !self.workers.is_empty() => {
                    self.work_returned(result.map_err(|_| Panicked)?);
                    for _ in 0..TURN {
                        let Some(result) = self.workers.try_join_next() else { break };
                        self.work_returned(result.map_err(|_| Panicked)?);
                    }
                    self.grow_soon();
                }
                Some(dead_letter_stored) = self.storing.join_next(), if !self.storing.is_empty() => {
                    self.dead_letter_stored(dead_letter_stored.map_err(|_| Panicked)?);
                }
                Some(probed) = self.probes.join_next(), if !self.probes.is_empty() => {
                    self.probed(probed.map_err(|_| Panicked)?);
                }
                // 3: intake, when there is nothing else to do.
                batch = intake.recv(), if open => match batch {
                    Some(batch) => self.take_in(batch),
                    None => open = false,
                },
            }
        }
    }

    /// Reports that an invariant does not hold.
    fn broken(&self, invariant: Invariant, detail: &str) {
        InvariantBroken { invariant, detail }.emit(&self.tools.metrics);
    }

    fn pulse(&mut self) {
        self.heartbeat.beat();
        let (events, bytes) = self.limits.used();
        let held = events > 0 && self.is_idle();
        self.held_at_rest = if held { self.held_at_rest + 1 } else { 0 };
        if self.held_at_rest == HELD_PULSES {
            let detail = format!("{events} events of {bytes} bytes are counted as in flight, but none is");
            self.broken(Invariant::NothingIsHeldAtRest, &detail);
        }
        self.pace();
        self.show();
    }

    /// One second is a long time after a start or a pause.
    fn grow_soon(&mut self) {
        let completed = self.limits.given_back() - self.paced.1;
        if self.room.should_measure(completed) && self.now() > self.paced.0 {
            self.pace();
        }
    }

    /// Measures the pace since the last measurement, and sets the in-flight limit from it.
    fn pace(&mut self) {
        let (now, completed) = (self.now(), self.limits.given_back());
        let (then, before) = std::mem::replace(&mut self.paced, (now, completed));
        let room = self.room.completed(completed - before, now.saturating_sub(then));
        // Events that wait for an answer about their own twin, or to be stored as dead letters, must not take room from others.
        let stuck: usize = self.outage.failing().map(|twin| self.lanes.held(twin)).sum();
        let stuck = u32::try_from(stuck + self.storing.len()).unwrap_or(u32::MAX);
        self.limits.set_room(room.saturating_add(stuck));
    }

    /// Sets the gauges.
    fn show(&self) {
        let (events, bytes) = self.limits.used();
        self.tools.metrics.set_in_flight(events, bytes);
        self.tools.metrics.set_cached(self.cache.bytes());
        self.tools.metrics.set_store_concurrency_limit(self.concurrency.limit());
        self.tools.metrics.set_twins_in_trouble(self.outage.in_trouble());
    }

    fn is_idle(&self) -> bool {
        self.lanes.is_empty() && self.storing.is_empty() && self.groups.is_empty()
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn take_in(&mut self, batch: Vec<Intake>) {
        let (now, present) = (self.now(), self.tools.clock.now());
        self.last_arrival = now;
        for intake in batch {
            match intake {
                Intake::Event(event, mut origin) => {
                    if let Some(trace) = &mut origin.trace {
                        trace.dispatched(&event);
                    }
                    let (key, at, weight) = (event.key.clone(), event.at, origin.permit.bytes());
                    let linger = self.options.linger.of(present.duration_since(at));
                    let item = (event, Item::FromStream(Box::new(origin), at));
                    self.lanes.push(&key, item, weight, now, linger);
                }
                Intake::DeadLetter { reason, detail, twin, origin } => {
                    self.dead_letter(reason, detail, twin, Box::new(origin))
                }
            }
        }
    }

    /// Tells partitions which twins they have to wait for.
    fn publish_full(&mut self) {
        let full = self.lanes.full();
        if self.shows_full || !full.is_empty() {
            self.limits.set_full(full);
            self.tools.metrics.set_twins_full(full.len());
            self.shows_full = !full.is_empty();
        }
    }

    /// Starts everything that may run. Returns how long to wait if only time prevents more from starting.
    fn start_lanes(&mut self) -> Option<Duration> {
        let now = self.now();
        // Lingering is useless if no more events will come to share a write: at the end, when the waiting events keep others from being
        // received, and probably when none has arrived for a while.
        let quiet_at = self.last_arrival.saturating_add(self.options.linger.quiet());
        let at_once = self.draining || self.limits.is_nearly_full() || now >= quiet_at;
        while self.workers.len() < self.concurrency.limit() {
            let wait = self.options.budget.wait();
            if !wait.is_zero() {
                return Some(wait);
            }
            let work = match self.resumed.pop() {
                Some(work) => work,
                None => match self.lanes.next(now, at_once) {
                    Some((key, batch)) => self.work(key, batch),
                    None => return self.lanes.next_due().map(|due| due.min(quiet_at).saturating_sub(now)),
                },
            };
            self.workers.spawn(worker::run(Arc::clone(&self.tools), work));
        }
        None // the next completion wakes the loop
    }

    fn work(&self, key: TwinKey, batch: Vec<(TwinEvent, Item)>) -> Box<Work<Item>> {
        let (events, items): (Vec<_>, Vec<Item>) = batch.into_iter().unzip();
        let sampled = self.options.tracer.is_some() && items.iter().any(Item::is_sampled);
        let trace = sampled.then(|| Tracer::write(items.len()));
        // The entry is removed while its lane is busy, so that the document can be changed in place.
        let cached = self.cache.remove(&key);
        let followed = self.followed.get(&key).copied();
        Box::new(Work {
            upsert: Upsert::new(events, cached, self.options.rules),
            key,
            items,
            backoff: self.options.backoff.clone(),
            request_units: 0.0,
            asked: false,
            followed,
            trace,
        })
    }
}

/// Returns a batch that is already there. Sets `open` to false if there will be no more.
fn take_ready(intake: &mut mpsc::Receiver<Vec<Intake>>, open: &mut bool) -> Option<Vec<Intake>> {
    match intake.try_recv() {
        Ok(batch) => Some(batch),
        Err(TryRecvError::Empty) => None,
        Err(TryRecvError::Disconnected) => {
            *open = false;
            None
        }
    }
}

async fn wait(pause: Option<Duration>) {
    if let Some(pause) = pause {
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests;
