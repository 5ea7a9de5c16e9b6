//! The event router: lanes of twins in, completed events out.
//!
//! One task owns every lane, the cache, the adaptive limits and the retries, so nothing in here is locked
//! and nothing waits on anything but its own `select!`. Store operations run in workers, at most as many as
//! the store takes without throttling; dead letters are stored in tasks of their own.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use tokio::{
    sync::{
        mpsc::{self, error::TryRecvError},
        oneshot,
    },
    task::JoinSet,
};
use tokio_util::time::DelayQueue;

use super::{
    in_flight::{Hold, InFlight},
    partition::Progress,
    reconcile::{doubts::Doubts, judge::DocumentCache, requests::AuditRequests},
    spending::Spending,
    worker::{self, Tools, Work, Worked},
};
use crate::{
    domain::{
        decide::{Decision, Rules},
        event::{Change, TwinEvent},
        health::StoreState,
        id::TwinKey,
        lane::Lanes,
        message::Message,
        progress::Ticket,
        retry::{Backoff, Concurrency},
        ticks::Ticks,
        upsert::{Fate, Upsert},
    },
    ports::{Clock, DeadLetter, DeadLetters, TroubleKind, TwinStore},
    telemetry::{
        Board, Heartbeat, Latency, Metrics,
        event::{
            DeadLetterDelayed, DoubtRefused, EventDeadLettered, EventDecided, LetterWithoutTwin, StoreChanged,
        },
    },
};

/// Completions looked at before the lanes are started again.
const TURN: usize = 1024;
/// How often the router shows that it lives, also when idle.
const PULSE: Duration = Duration::from_secs(1);
/// How long it may be silent before the process counts as stuck.
const PULSE_LIMIT: Duration = Duration::from_secs(30);

/// Reason code of an event whose document the store will never take.
pub const REJECTED_BY_STORE: &str = "rejected_by_store";
/// Reason code of a message that the AMQP layer could not decode.
pub const UNDECODABLE_AMQP: &str = "undecodable_amqp";

/// How the router works.
#[derive(Clone)]
pub struct Options {
    /// How decisions are made.
    pub rules: Rules,
    /// Most store operations at once; adapts below that.
    pub most_concurrency: usize,
    /// Cap on request units, shared with whoever else spends them.
    pub spending: Spending,
    /// Where documents in doubt are made known.
    pub doubts: Doubts,
    /// Asked for an audit where an event was set aside and nobody can say which twin it was about.
    pub audits: AuditRequests,
    /// How long a lane waits to collect more before it is written.
    pub linger: Duration,
    /// Most events in one write.
    pub max_batch: usize,
    /// Documents kept for the next write of their twin.
    pub cache: DocumentCache,
    /// How trouble with the store, or with dead letters, is waited out.
    pub backoff: Backoff,
}

/// What partitions hand over.
pub enum Intake {
    /// An event for its twin's lane.
    Event(TwinEvent, Origin),
    /// A message that can never be applied.
    Letter {
        /// Stable reason code.
        reason: &'static str,
        /// One sentence for people.
        detail: String,
        /// The twin that it is about and the time of its operation, as far as they can be told: what is in doubt from
        /// here on.
        twin: Option<(TwinKey, Option<Ticks>)>,
        /// The message.
        origin: Origin,
    },
}

/// Where an event came from, and what its completion releases.
pub struct Origin {
    /// Its partition.
    pub progress: Arc<Progress>,
    /// Its place in the partition's progress.
    pub ticket: Ticket,
    /// The message, for the case that it becomes a dead letter.
    pub message: Message,
    /// What it holds of the in-flight limits, for as long as this lives.
    pub hold: Hold,
    /// When it was received.
    pub received: Instant,
    /// Who waits to hear what became of it; streams do not ask.
    pub watcher: Option<Box<Watcher>>,
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Decided, and everything that follows from it is durable.
    Decided(Decision),
    /// It can never be applied, and is durably kept aside.
    DeadLettered {
        /// Stable reason code.
        reason: &'static str,
        /// One sentence for people.
        detail: String,
    },
}

/// Tells what became of one event when it is completed, not before.
#[derive(Debug)]
pub struct Watcher {
    outcome: Option<Outcome>,
    tell: oneshot::Sender<Outcome>,
}

impl Watcher {
    /// A watcher, and where its word arrives; nothing arrives where the router ends before the event is completed.
    pub fn new() -> (Box<Self>, oneshot::Receiver<Outcome>) {
        let (tell, told) = oneshot::channel();
        (Box::new(Self { outcome: None, tell }), told)
    }
}

impl Origin {
    fn note(&mut self, outcome: impl FnOnce() -> Outcome) {
        if let Some(watcher) = &mut self.watcher {
            watcher.outcome = Some(outcome());
        }
    }
}

/// What travels with an event through its lane.
enum Item {
    FromStream(Box<Origin>, Ticks),
    /// The doubt about the twin of a dead letter; the letter's event completes with it.
    OfLetter(Box<Origin>),
    /// Follows a device's event; the group completes when all its members have.
    Follow(GroupId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct GroupId(u64);

/// A dead letter that is durable, and the doubt that follows from it.
struct Lettered {
    origin: Box<Origin>,
    twin: Option<(TwinKey, Option<Ticks>)>,
    reason: &'static str,
}

/// Events of a device whose modules are still on their way.
struct Group {
    open: usize,
    items: Vec<Item>,
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
    cache: DocumentCache,
    workers: JoinSet<Worked<Item>>,
    letters: JoinSet<Lettered>,
    parked: DelayQueue<Box<Work<Item>>>,
    groups: HashMap<GroupId, Group>,
    next_group: u64,
    concurrency: Concurrency,
    #[expect(clippy::vec_box, reason = "a work is moved between queue, task and timer as it is")]
    resumed: Vec<Box<Work<Item>>>,
    board: Board,
    heartbeat: Heartbeat,
}

impl Router {
    /// A router without events.
    pub fn new(
        options: Options,
        store: Arc<dyn TwinStore>,
        dead_letters: Arc<dyn DeadLetters>,
        clock: Arc<dyn Clock>,
        limits: Arc<InFlight>,
        board: Board,
        metrics: Metrics,
    ) -> Self {
        Self {
            lanes: Lanes::new(options.linger, options.max_batch),
            concurrency: Concurrency::new(options.most_concurrency),
            tools: Arc::new(Tools { store, clock, metrics }),
            dead_letters,
            limits,
            started: Instant::now(),
            cache: options.cache.clone(),
            workers: JoinSet::new(),
            letters: JoinSet::new(),
            parked: DelayQueue::new(),
            groups: HashMap::new(),
            next_group: 0,
            resumed: Vec::new(),
            heartbeat: board.heartbeat("router", PULSE_LIMIT),
            board,
            options,
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
            let pause = self.start_lanes();
            if self.is_idle() {
                self.pulse(); // so that what is shown is right when nothing moves
                if !open {
                    return Ok(());
                }
            }
            tokio::select! {
                biased;
                // 1: timers; they are rare.
                _ = pulse.tick() => self.pulse(),
                Some(expired) = self.parked.next(), if !self.parked.is_empty() => {
                    self.resumed.push(expired.into_inner());
                }
                () = wait(pause), if pause.is_some() => {}
                // 2: completions free slots and memory.
                Some(worked) = self.workers.join_next(), if !self.workers.is_empty() => {
                    self.worked(worked.map_err(|_| Panicked)?);
                    for _ in 0..TURN {
                        let Some(worked) = self.workers.try_join_next() else { break };
                        self.worked(worked.map_err(|_| Panicked)?);
                    }
                }
                Some(lettered) = self.letters.join_next(), if !self.letters.is_empty() => {
                    self.lettered(lettered.map_err(|_| Panicked)?);
                }
                // 3: intake, where nothing else is to be done.
                batch = intake.recv(), if open => match batch {
                    Some(batch) => self.take_in(batch),
                    None => open = false,
                },
            }
        }
    }

    fn pulse(&self) {
        self.heartbeat.beat();
        let (events, bytes) = self.limits.used();
        self.tools.metrics.set_in_flight(events, bytes);
        self.tools.metrics.set_store_concurrency_limit(self.concurrency.limit());
    }

    fn is_idle(&self) -> bool {
        self.lanes.is_empty() && self.letters.is_empty() && self.groups.is_empty()
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn take_in(&mut self, batch: Vec<Intake>) {
        let now = self.now();
        for intake in batch {
            match intake {
                Intake::Event(event, origin) => {
                    let (key, at) = (event.key.clone(), event.at);
                    self.lanes.push(&key, (event, Item::FromStream(Box::new(origin), at)), now);
                }
                Intake::Letter { reason, detail, twin, origin } => {
                    self.dead_letter(reason, detail, twin, Box::new(origin))
                }
            }
        }
    }

    /// Starts what may run; says how long to wait where only time stands in the way.
    fn start_lanes(&mut self) -> Option<Duration> {
        let now = self.now();
        while self.workers.len() < self.concurrency.limit() {
            let wait = self.options.spending.wait();
            if !wait.is_zero() {
                return Some(wait);
            }
            let work = match self.resumed.pop() {
                Some(work) => work,
                None => match self.lanes.next(now) {
                    Some((key, batch)) => self.work(key, batch),
                    None => return self.lanes.next_due().map(|due| due.saturating_sub(now)),
                },
            };
            self.workers.spawn(worker::run(Arc::clone(&self.tools), work));
        }
        None // a completion will come
    }

    fn work(&self, key: TwinKey, batch: Vec<(TwinEvent, Item)>) -> Box<Work<Item>> {
        let (events, items) = batch.into_iter().unzip();
        let cached = self.cache.get(&key);
        Box::new(Work {
            upsert: Upsert::new(events, cached, self.options.rules),
            key,
            items,
            backoff: self.options.backoff.clone(),
            request_units: 0.0,
        })
    }

    fn worked(&mut self, worked: Worked<Item>) {
        let now = self.now();
        match worked {
            Worked::Finished { mut work, follow } => {
                self.account(&mut work);
                self.concurrency.success();
                self.store_is(StoreState::Reachable);
                self.finished(*work, follow, now);
            }
            Worked::Troubled { mut work, trouble } => {
                self.account(&mut work);
                // An unreachable store is answered like a throttling one: with less load.
                self.concurrency.throttled(now);
                let delay = work.backoff.next(rand::random(), trouble.retry_after);
                match trouble.kind {
                    TroubleKind::Throttled => self.options.spending.streams_are_throttled(),
                    TroubleKind::Unavailable => {
                        self.store_is(StoreState::Unreachable { reason: trouble.message });
                    }
                }
                self.parked.insert(work, delay);
            }
        }
    }

    fn store_is(&self, state: StoreState) {
        if self.board.set_store(state.clone()) {
            match &state {
                StoreState::Reachable => StoreChanged::Reachable.emit(),
                StoreState::Unreachable { reason } => StoreChanged::Unreachable { reason }.emit(),
                StoreState::Unknown => {}
            }
        }
    }

    fn account(&self, work: &mut Work<Item>) {
        self.options.spending.spend(std::mem::take(&mut work.request_units));
    }

    fn finished(&mut self, work: Work<Item>, follow: Vec<TwinEvent>, now: Duration) {
        let Work { key, upsert, items, .. } = work;
        let (fates, stored) = upsert.finish();
        // Behind the items' own: the deletion that a worker added to a module of a deleted device.
        for fate in fates.iter().skip(items.len()) {
            if let Fate::Rejected(reason) = fate {
                self.doubt_refused(&key, reason);
            }
        }
        match stored {
            Some(stored) => {
                if stored.0.in_doubt() {
                    self.options.doubts.raise(&key);
                }
                self.cache.insert(key.clone(), stored);
            }
            None => self.cache.invalidate(&key),
        }
        self.lanes.done(&key, items.len(), now);
        let present = self.tools.clock.now();
        let mut decided = Vec::with_capacity(items.len());
        for (item, fate) in items.into_iter().zip(fates) {
            match (item, fate) {
                (Item::FromStream(origin, at), Fate::Rejected(reason)) => {
                    let twin = Some((key.clone(), Some(at)));
                    self.dead_letter(REJECTED_BY_STORE, reason, twin, origin);
                }
                (item @ Item::OfLetter(_), Fate::Decided(_)) => decided.push(item),
                (item @ Item::OfLetter(_), Fate::Rejected(reason)) => {
                    self.doubt_refused(&key, &reason);
                    decided.push(item);
                }
                (Item::FromStream(mut origin, at), Fate::Decided(decision)) => {
                    origin.note(|| Outcome::Decided(decision));
                    EventDecided {
                        partition: origin.progress.id(),
                        sequence_number: origin.message.position.sequence_number,
                        twin: &key,
                        decision: decision.into(),
                    }
                    .emit(&origin.progress.stream_metrics);
                    // An old event replayed says nothing about freshness.
                    if !matches!(decision, Decision::Duplicate | Decision::Stale) {
                        self.tools.metrics.event_durable(latency(&origin, at, present));
                    }
                    decided.push(Item::FromStream(origin, at));
                }
                (item @ Item::Follow(_), Fate::Decided(_)) => decided.push(item),
                (item @ Item::Follow(_), Fate::Rejected(reason)) => {
                    // It is no message of anybody's, so there is nothing to dead-letter.
                    self.doubt_refused(&key, &reason);
                    decided.push(item);
                }
            }
        }
        if follow.is_empty() {
            self.complete_all(decided);
            return;
        }
        let group = GroupId(self.next_group);
        self.next_group += 1;
        self.groups.insert(group, Group { open: follow.len(), items: decided });
        for event in follow {
            let key = event.key.clone();
            self.lanes.push(&key, (event, Item::Follow(group)), now);
        }
    }

    fn complete_all(&mut self, items: Vec<Item>) {
        // A loop instead of recursion: a group may complete the last member of another.
        let mut left = items;
        while let Some(item) = left.pop() {
            match item {
                Item::FromStream(origin, _) | Item::OfLetter(origin) => self.complete(*origin),
                Item::Follow(id) => {
                    let Some(group) = self.groups.get_mut(&id) else {
                        continue;
                    };
                    group.open -= 1;
                    if group.open == 0
                        && let Some(group) = self.groups.remove(&id)
                    {
                        left.extend(group.items);
                    }
                }
            }
        }
    }

    fn complete(&self, origin: Origin) {
        origin.progress.complete(origin.ticket);
        drop(origin.hold);
        if let Some(Watcher { outcome: Some(outcome), tell }) = origin.watcher.map(|watcher| *watcher) {
            let _ = tell.send(outcome); // whoever asked may have gone
        }
    }

    /// A dead letter is durable. What it would have changed is missing from its twin, so that is put in doubt, durably,
    /// before the event counts as completed.
    fn lettered(&mut self, lettered: Lettered) {
        let Lettered { origin, twin, reason } = lettered;
        match twin {
            Some((key, at)) => {
                // Without any time, it may have happened until now.
                let at = at.unwrap_or_else(|| self.tools.clock.now());
                let event = TwinEvent { key: key.clone(), at, change: Change::Unapplied };
                let now = self.now();
                self.lanes.push(&key, (event, Item::OfLetter(origin)), now);
            }
            None => {
                let (partition, sequence_number) =
                    (origin.progress.id(), origin.message.position.sequence_number);
                let audit = self.options.audits.ask();
                LetterWithoutTwin { partition, sequence_number, reason, audit }.emit(&self.tools.metrics);
                self.complete(*origin);
            }
        }
    }

    /// The store refuses to hold that a twin is in doubt, or that a module ended. The hub is asked, where it may be; in any
    /// case a person has to look.
    fn doubt_refused(&self, key: &TwinKey, reason: &str) {
        self.options.doubts.raise(key);
        DoubtRefused { twin: key, reason }.emit(&self.tools.metrics);
    }

    /// Stores a dead letter, however long it takes.
    fn dead_letter(
        &mut self,
        reason: &'static str,
        detail: String,
        twin: Option<(TwinKey, Option<Ticks>)>,
        mut origin: Box<Origin>,
    ) {
        origin.note(|| Outcome::DeadLettered { reason, detail: detail.clone() });
        let dead_letters = Arc::clone(&self.dead_letters);
        let mut backoff = self.options.backoff.clone();
        let metrics = self.tools.metrics.clone();
        self.letters.spawn(async move {
            loop {
                let letter = DeadLetter {
                    partition: origin.progress.id(),
                    message: &origin.message,
                    reason,
                    detail: detail.clone(),
                };
                match dead_letters.store(letter).await {
                    Ok(()) => break,
                    Err(error) => {
                        let retry_in = backoff.next(rand::random(), None);
                        let error = format!("{error}: {}", error.source);
                        let sequence_number = origin.message.position.sequence_number;
                        DeadLetterDelayed {
                            partition: origin.progress.id(),
                            sequence_number,
                            error: &error,
                            retry_in,
                        }
                        .emit();
                        tokio::time::sleep(retry_in).await;
                    }
                }
            }
            EventDeadLettered {
                partition: origin.progress.id(),
                sequence_number: origin.message.position.sequence_number,
                reason,
                detail: &detail,
            }
            .emit(&metrics, &origin.progress.stream_metrics);
            Lettered { origin, twin, reason }
        });
    }
}

/// How long an event took from the hub's operation at `at` until now.
fn latency(origin: &Origin, at: Ticks, present: Ticks) -> Latency {
    let durable = origin.received.elapsed().as_secs_f64();
    let enqueued = origin.message.enqueued;
    Latency {
        freshness: Some(present.seconds_since(at)),
        hub_to_eventhub: enqueued.map(|enqueued| enqueued.seconds_since(at)),
        eventhub_to_received: enqueued.map(|enqueued| present.seconds_since(enqueued) - durable),
        received_to_durable: Some(durable),
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
