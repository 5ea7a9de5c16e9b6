//! The event router: lanes of twins in, completed events out.
//!
//! One task owns every lane, the cache, the adaptive limits and the retries, so nothing in here is locked
//! and nothing waits on anything but its own `select!`. Store operations run in workers, at most as many as
//! the store takes without throttling; dead letters are stored in tasks of their own.

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

/// Completions looked at before the lanes are started again.
const TURN: usize = 1024;
/// How often the router shows that it lives, also when idle.
const PULSE: Duration = Duration::from_secs(1);
/// What is on its way from a partition to here counts as under way, for moments; after so many pulses in a row it was forgotten.
const HELD_PULSES: u32 = 60;
/// How long it may be silent before the process counts as stuck.
const PULSE_LIMIT: Duration = Duration::from_secs(30);

/// How the router works.
#[derive(Clone)]
pub struct Options {
    /// How decisions are made.
    pub rules: Rules,
    /// Most store operations at once; adapts below that.
    pub most_concurrency: usize,
    /// Cap on request units, shared with whoever else spends them.
    pub budget: RequestUnitBudget,
    /// Where flagged documents are made known.
    pub repair_queue: RepairQueue,
    /// Asked for an audit where an event was set aside and nobody can say which twin it was about.
    pub audits: AuditRequests,
    /// How long an event waits for more of its twin before it is written.
    pub linger: Linger,
    /// Most events in one write.
    pub max_batch: usize,
    /// How much of one twin may wait before its partitions have to.
    pub bound: Bound,
    /// For how long the store may answer others and give no answer about a twin before the twin's events become dead
    /// dead letters; `None`: for ever.
    pub give_up_after: Option<Duration>,
    /// Makes traces.
    pub tracer: Option<Tracer>,
    /// Documents kept for the next write of their twin.
    pub cache: DocumentCache,
    /// How trouble with the store, or with dead letters, is waited out.
    pub backoff: Backoff,
}

/// Why the router stopped although it was not asked to.
#[derive(Debug, thiserror::Error)]
#[error("a worker of the event router panicked; what was open is replayed after a restart")]
pub struct Panicked;

/// The router.
pub struct Router {
    options: Options,
    tools: Arc<Tools>,
    dead_letters: Arc<dyn DeadLetters>,
    limits: Arc<InFlight>,
    started: Instant,
    lanes: Lanes<TwinKey, (TwinEvent, Item)>,
    /// Whether nothing more is dispatched.
    draining: bool,
    cache: DocumentCache,
    workers: JoinSet<WorkResult<Item>>,
    storing: JoinSet<StoredDeadLetter>,
    /// Changes when a dead letter is stored: whoever waits for the next try need not wait any longer.
    dead_letter_was_stored: Arc<watch::Sender<u64>>,
    parked: DelayQueue<Box<Work<Item>>>,
    groups: HashMap<GroupId, Group>,
    next_group: u64,
    /// Ends of devices that their modules are following.
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
    /// How many events may be under way, by how fast they are completed.
    room: InFlightLimit,
    /// When that was decided last, and how many had been completed by then.
    paced: (Duration, u64),
    /// Pulses in a row at which nothing was under way here, and something counted as such.
    held_at_rest: u32,
}

impl Router {
    /// A router without events.
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

    /// Runs until `intake` is closed and everything in it is completed. Dropping the future abandons what is
    /// open; it was not completed, so it is replayed.
    pub async fn run(mut self, mut intake: mpsc::Receiver<Vec<Intake>>) -> Result<(), Panicked> {
        let mut open = true;
        let mut pulse = tokio::time::interval(PULSE);
        pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // SUBTLE: under load a completion is always ready, so in a biased `select!` intake would starve, and
            // with it coalescing. What has come in already is taken in every turn; the in-flight limits bound it.
            while open && let Some(batch) = take_ready(&mut intake, &mut open) {
                self.take_in(batch);
            }
            self.draining = !open;
            self.publish_full();
            let pause = self.start_lanes();
            if self.is_idle() {
                self.show(); // so that what is shown is right when nothing moves
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
                // 3: intake, where nothing else is to be done.
                batch = intake.recv(), if open => match batch {
                    Some(batch) => self.take_in(batch),
                    None => open = false,
                },
            }
        }
    }

    /// What holds at every moment does not.
    fn broken(&self, invariant: Invariant, detail: &str) {
        InvariantBroken { invariant, detail }.emit(&self.tools.metrics);
    }

    fn pulse(&mut self) {
        self.heartbeat.beat();
        let (events, bytes) = self.limits.used();
        let held = events > 0 && self.is_idle();
        self.held_at_rest = if held { self.held_at_rest + 1 } else { 0 };
        if self.held_at_rest == HELD_PULSES {
            let detail = format!("{events} events of {bytes} bytes are counted as under way, and none is");
            self.broken(Invariant::NothingIsHeldAtRest, &detail);
        }
        self.pace();
        self.show();
    }

    /// After a start or a pause, a second is long. As soon as the least room was given back once, the pace is known well enough.
    fn grow_soon(&mut self) {
        let completed = self.limits.given_back() - self.paced.1;
        if self.room.is_least() && completed >= u64::from(self.room.events()) && self.now() > self.paced.0 {
            self.pace();
        }
    }

    /// Measures the pace since this was done last, and gives room by it.
    fn pace(&mut self) {
        let (now, completed) = (self.now(), self.limits.given_back());
        let (then, before) = std::mem::replace(&mut self.paced, (now, completed));
        let room = self.room.completed(completed - before, now.saturating_sub(then));
        // What waits for an answer about its own twin, or to be set aside, takes nobody else's room.
        let stuck: usize = self.outage.failing().map(|twin| self.lanes.held(twin)).sum();
        let stuck = u32::try_from(stuck + self.storing.len()).unwrap_or(u32::MAX);
        self.limits.set_room(room.saturating_add(stuck));
    }

    /// Sets the figures of the moment.
    fn show(&self) {
        let (events, bytes) = self.limits.used();
        self.tools.metrics.set_in_flight(events, bytes);
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

    /// Tells partitions for which twins they have to wait.
    fn publish_full(&mut self) {
        let full = self.lanes.full();
        if self.shows_full || !full.is_empty() {
            self.limits.set_full(full);
            self.tools.metrics.set_twins_full(full.len());
            self.shows_full = !full.is_empty();
        }
    }

    /// Starts what may run; says how long to wait where only time stands in the way.
    fn start_lanes(&mut self) -> Option<Duration> {
        let now = self.now();
        // Nothing more comes to share a write: at the end, and where what waits keeps others from being received.
        let at_once = self.draining || self.limits.is_nearly_full();
        while self.workers.len() < self.concurrency.limit() {
            let wait = self.options.budget.wait();
            if !wait.is_zero() {
                return Some(wait);
            }
            let work = match self.resumed.pop() {
                Some(work) => work,
                None => match self.lanes.next(now, at_once) {
                    Some((key, batch)) => self.work(key, batch),
                    None => return self.lanes.next_due().map(|due| due.saturating_sub(now)),
                },
            };
            self.workers.spawn(worker::run(Arc::clone(&self.tools), work));
        }
        None // a completion will come
    }

    fn work(&self, key: TwinKey, batch: Vec<(TwinEvent, Item)>) -> Box<Work<Item>> {
        let (events, items): (Vec<_>, Vec<Item>) = batch.into_iter().unzip();
        let sampled = self.options.tracer.is_some() && items.iter().any(Item::is_sampled);
        let trace = sampled.then(|| Tracer::write(items.len()));
        // Taken out for as long as its lane is busy: it can then be changed in place.
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

/// A batch that is there already; notes when there will be no more.
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
