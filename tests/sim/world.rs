//! The environment of the daemons: two routes into Event Hubs, the document store, checkpoints and leases, dead letters, notes, and
//! the IoT hub. One lock, one source of randomness, one trace.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use twinsync::domain::{
    document::{Document, State},
    id::TwinKey,
    message::Message,
    ticks::Ticks,
};

use crate::{
    delivery::Random,
    hub::{Hub, MILLISECOND, SECOND, START},
    plan::{Fault, Plan},
    routes::{Queue, Route},
};

/// When a simulation begins, in ticks.
const BEGINNING: i64 = START + 1_000 * SECOND;

/// Number of lines of the trace in the message of a failure.
const STORY: usize = 400;

/// The services that a daemon uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Service {
    Documents,
    EventHubs,
    /// Checkpoints, leases and notes.
    Storage,
    DeadLetters,
    Registry,
}

impl Service {
    pub(crate) const ALL: [Self; 5] =
        [Self::Documents, Self::EventHubs, Self::Storage, Self::DeadLetters, Self::Registry];
}

/// The invariants. Each is checked after every step that it applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Invariant {
    /// A checkpoint never passes an event that is not completed: durable, decided to need no write, or a dead letter.
    CheckpointPassesNothingUnfinished,
    /// No replica sends a checkpoint of a partition after its lease has expired or was released. Another replica may take a lease
    /// over earlier; the previous owner learns of that with its next renewal.
    CheckpointIsOfItsOwner,
    /// Every document that differs from the hub's twin is flagged.
    NothingIsSilentlyWrong,
    /// With a registry, some time after the last fault no document differs and none is flagged.
    EverythingConverges,
    /// Some time after the last fault, every event is completed and its checkpoint is written.
    EverythingIsFinished,
    /// An event after the last fault is soon in its document.
    WhatIsNewFlows,
    /// An idle daemon has no events in flight, and a stopped one has no tasks.
    NothingLeaks,
    /// An event that can never be applied is among the dead letters.
    NoDeadLetterIsLost,
    /// Some time after the last fault, the declared counts equal a recount.
    CountsAreThoseOfARecount,
    /// No task panics, and no daemon ends by itself.
    NothingEndsByItself,
    /// The daemon's own invariants, which it also checks in production ([`twinsync::domain::invariant`]).
    WhatTheDaemonChecks,
}

/// A violated invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) invariant: Invariant,
    pub(crate) detail: String,
}

/// A message in a partition, with the operation that it reports.
#[derive(Debug, Clone)]
pub(crate) struct Routed {
    pub(crate) message: Message,
    /// The twin and the time of its operation. `None`: it can never be applied.
    pub(crate) about: Option<(TwinKey, Ticks)>,
    /// Whether a device was deleted, with its modules.
    pub(crate) ends_device: bool,
}

/// All events of a partition, by sequence number.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) events: Vec<Routed>,
    /// The sequence number of the oldest event that it still holds.
    pub(crate) first: usize,
    /// How often its Event Hub has been created again.
    pub(crate) era: i64,
}

impl Log {
    /// The distance of the offsets of two events. Offsets of different eras are never equal.
    const APART: i64 = 1_000;

    /// The offset of an event.
    pub(crate) fn offset(&self, number: i64) -> i64 {
        number * Self::APART + self.era
    }

    /// The first event at or after an offset.
    pub(crate) fn at_offset(&self, offset: i64) -> i64 {
        (offset - self.era + Self::APART - 1).div_euclid(Self::APART)
    }

    /// Whether an offset belongs to the current era of the partition.
    pub(crate) fn is_ours(&self, offset: &str) -> bool {
        offset.parse::<i64>().is_ok_and(|offset| offset.rem_euclid(Self::APART) == self.era)
    }

    /// The sequence number of the newest event. −1: there was none.
    pub(crate) fn newest(&self) -> i64 {
        self.events.len() as i64 - 1
    }
}

/// One version of an item in the document store.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    /// Its number in the order of all writes.
    pub(crate) number: u64,
    pub(crate) json: Arc<str>,
    /// When it was written, in ticks.
    pub(crate) at: i64,
}

impl Version {
    /// Whether its time to live is over.
    pub(crate) fn has_expired(&self, now: i64) -> bool {
        let item: serde_json::Value = serde_json::from_str(&self.json).expect("what was written is JSON");
        item["ttl"].as_i64().is_some_and(|seconds| now >= self.at + seconds * SECOND)
    }
}

/// The trace: a running hash, and the last lines.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hash: u64,
    pub(crate) lines: u64,
    story: std::collections::VecDeque<String>,
    whole: Option<Vec<String>>,
}

impl Trace {
    fn line(&mut self, line: String) {
        // FNV-1a: the same on every machine. It does not have to resist attacks.
        for byte in line.bytes().chain([b'\n']) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
        self.lines += 1;
        if let Some(whole) = &mut self.whole {
            whole.push(line.clone());
        }
        if self.story.len() == STORY {
            self.story.pop_front();
        }
        self.story.push_back(line);
    }
}

/// A stored lease.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    pub(crate) owner: String,
    pub(crate) etag: u64,
}

/// A partition of an Event Hub.
pub(crate) type Place = (String, String);

/// The state behind the lock.
pub(crate) struct Inner {
    pub(crate) random: Random,
    /// Whether faults happen at present.
    pub(crate) faulty: bool,
    pub(crate) trace: Trace,
    pub(crate) partitions: BTreeMap<Place, Log>,
    /// Events that were dropped before a checkpoint had passed them, by offset.
    pub(crate) dropped: BTreeSet<(Place, String)>,
    /// All versions of the documents, by twin.
    pub(crate) documents: BTreeMap<TwinKey, Vec<Version>>,
    /// Number of writes so far.
    pub(crate) writes: u64,
    pub(crate) leases: BTreeMap<Place, Lease>,
    /// When each owner claimed a lease last, until it releases it.
    pub(crate) claims: BTreeMap<(Place, String), i64>,
    /// By sequence number and offset.
    pub(crate) checkpoints: BTreeMap<Place, (i64, String)>,
    pub(crate) etags: u64,
    pub(crate) notes: BTreeMap<String, Vec<u8>>,
    /// By offset.
    pub(crate) letters: BTreeSet<(Place, String)>,
    pub(crate) hubs: Vec<Hub>,
    /// Twins whose newest change was lost and that no later event shows.
    pub(crate) owed: BTreeSet<TwinKey>,
    /// Until when a service is down: for all processes, or for one.
    pub(crate) away: BTreeMap<(Service, Option<String>), i64>,
    /// When each twin was created or deleted last.
    pub(crate) turns: BTreeMap<TwinKey, Ticks>,
    /// The messages on their way into the partitions.
    pub(crate) routes: BTreeMap<(Route, String), Queue>,
    /// Documents whose create was performed after the process that had sent it had ended.
    pub(crate) outlived: BTreeSet<TwinKey>,
    /// The sequence number up to which each partition's checkpoint has been checked.
    pub(crate) looked_at: BTreeMap<Place, i64>,
    pub(crate) violation: Option<Violation>,
    /// How often each fault happened.
    pub(crate) met: BTreeMap<Fault, u64>,
}

/// The simulated world.
pub(crate) struct World {
    pub(crate) plan: Plan,
    began: Instant,
    inner: Mutex<Inner>,
    /// Notified when messages arrive in a partition.
    pub(crate) arrivals: Notify,
    /// Notified when messages are sent to a partition.
    pub(crate) routed: Notify,
    /// Notified when an invariant is violated.
    pub(crate) violated: Notify,
}

impl World {
    pub(crate) fn new(plan: Plan, whole_trace: bool) -> Arc<Self> {
        let inner = Inner {
            random: Random::new(plan.seed ^ 0x0F0F),
            faulty: true,
            trace: Trace { whole: whole_trace.then(Vec::new), ..Trace::default() },
            partitions: BTreeMap::new(),
            dropped: BTreeSet::new(),
            documents: BTreeMap::new(),
            writes: 0,
            leases: BTreeMap::new(),
            claims: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            etags: 0,
            notes: BTreeMap::new(),
            letters: BTreeSet::new(),
            hubs: Vec::new(),
            owed: BTreeSet::new(),
            away: BTreeMap::new(),
            turns: BTreeMap::new(),
            routes: BTreeMap::new(),
            outlived: BTreeSet::new(),
            looked_at: BTreeMap::new(),
            violation: None,
            met: BTreeMap::new(),
        };
        Arc::new(Self {
            plan,
            began: Instant::now(),
            inner: Mutex::new(inner),
            arrivals: Notify::new(),
            routed: Notify::new(),
            violated: Notify::new(),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The true time, in ticks.
    pub(crate) fn now(&self) -> i64 {
        BEGINNING + (self.began.elapsed().as_nanos() / 100) as i64
    }

    /// Adds a line to the trace.
    pub(crate) fn tell(&self, line: impl AsRef<str>) {
        let at = self.began.elapsed().as_micros();
        self.lock().trace.line(format!("{at} {}", line.as_ref()));
    }

    pub(crate) fn trace_hash(&self) -> u64 {
        self.lock().trace.hash
    }

    /// The last lines of the trace.
    pub(crate) fn story(&self) -> String {
        self.lock().trace.story.iter().fold(String::new(), |mut story, line| {
            let _ = writeln!(story, "{line}");
            story
        })
    }

    /// The whole trace, if it was recorded.
    pub(crate) fn whole_trace(&self) -> Vec<String> {
        self.lock().trace.whole.clone().unwrap_or_default()
    }

    /// Whether this fault happens now.
    pub(crate) fn draws(&self, fault: Fault) -> bool {
        let mut inner = self.lock();
        self.draws_in(&mut inner, fault, self.plan.per_thousand)
    }

    fn draws_in(&self, inner: &mut Inner, fault: Fault, per_thousand: u64) -> bool {
        let happens = inner.faulty && self.plan.may(fault) && inner.random.below(1000) < per_thousand;
        if happens {
            *inner.met.entry(fault).or_default() += 1;
        }
        happens
    }

    /// The same for a rarer fault.
    pub(crate) fn draws_rarely(&self, fault: Fault) -> bool {
        let mut inner = self.lock();
        let rare = self.plan.per_thousand.div_ceil(15);
        self.draws_in(&mut inner, fault, rare)
    }

    pub(crate) fn below(&self, end: u64) -> u64 {
        self.lock().random.below(end)
    }

    /// A random duration between these.
    pub(crate) fn span(&self, least: Duration, most: Duration) -> Duration {
        let (least, most) = (least.as_micros() as i64, most.as_micros() as i64);
        Duration::from_micros(self.lock().random.between(least, most) as u64)
    }

    /// Whether a service is down for this process.
    pub(crate) fn is_away(&self, service: Service, process: &str) -> bool {
        let (now, inner) = (self.now(), self.lock());
        let until = |process: Option<String>| inner.away.get(&(service, process)).copied();
        let until = until(None).max(until(Some(process.to_owned())));
        inner.faulty && until.is_some_and(|until| now < until)
    }

    /// Takes a service down for a while.
    pub(crate) fn takes_away(&self, service: Service, process: Option<String>, time: Duration) {
        self.tell(format!("{service:?} is away for {process:?}, for {time:?}"));
        let until = self.now() + (time.as_nanos() / 100) as i64;
        self.lock().away.insert((service, process), until);
    }

    /// Reports a violated invariant. Only the first one is kept.
    pub(crate) fn violate(&self, invariant: Invariant, detail: impl Into<String>) {
        let detail = detail.into();
        self.tell(format!("VIOLATED {invariant:?}: {detail}"));
        self.lock().violation.get_or_insert(Violation { invariant, detail });
        self.violated.notify_waiters();
    }

    /// Checks every event that a checkpoint has passed.
    pub(crate) fn check_checkpoint(&self, place: &Place, number: i64, offset: &str) {
        let mut inner = self.lock();
        // A checkpoint of an earlier era says nothing about the current events.
        if !inner.partitions.get(place).is_some_and(|log| log.is_ours(offset)) {
            return;
        }
        let from = inner.looked_at.get(place).copied().unwrap_or(-1);
        if number <= from {
            return;
        }
        let unfinished = (from + 1..=number).find_map(|at| {
            let routed = inner.partitions.get(place)?.events.get(at as usize)?;
            let reason = inner.unfinished(place, routed)?;
            Some(format!("{}/{} is at {number}, and {at} is not finished: {reason}", place.0, place.1))
        });
        inner.looked_at.insert(place.clone(), number);
        drop(inner);
        if let Some(unfinished) = unfinished {
            self.violate(Invariant::CheckpointPassesNothingUnfinished, unfinished);
        }
    }

    /// Every document that differs or is flagged.
    pub(crate) fn differences(&self) -> Vec<(TwinKey, Difference)> {
        let (now, inner) = (self.now(), self.lock());
        let mut keys: BTreeSet<TwinKey> = inner.documents.keys().cloned().collect();
        keys.extend(inner.hubs.iter().flat_map(|hub| hub.twins.keys().cloned()));
        let by_audit = self.plan.needs_audits();
        let differs = |key: TwinKey| {
            let truth = inner.hubs.iter().find_map(|hub| hub.twins.get(&key));
            let document = inner.document(&key, now);
            let newest = inner.documents.get(&key).and_then(|versions| versions.last());
            let spoilt = document.is_none() && newest.is_some_and(|newest| !newest.has_expired(now));
            let flagged = document.as_ref().is_some_and(Document::is_flagged);
            let equal = match (&document, truth) {
                (None, _) if spoilt => false,
                (None, None) => true,
                (None, Some(_)) => false,
                (Some(document), None) => matches!(document.state, State::Deleted),
                (Some(document), Some(truth)) => match &document.state {
                    // If both the deletion of one incarnation and the creation of the next are lost and both have the same content,
                    // only their metadata differ, and audits do not compare metadata.
                    State::Live { twin, .. } if by_audit => truth.has_the_content_of(twin),
                    State::Live { twin, .. } => truth.is_told_by(twin),
                    State::Partial { .. } | State::Deleted => false,
                },
            };
            let difference = match (equal, flagged) {
                (true, false) => return None,
                (true, true) => Difference::OnlyFlag,
                (false, true) => Difference::Flagged,
                (false, false) => Difference::Silent(match &document {
                    None if spoilt => "it cannot be read".to_owned(),
                    None => "there is no document".to_owned(),
                    Some(document) => serde_json::to_string(document).expect("a document"),
                }),
            };
            Some((key, difference))
        };
        keys.into_iter().filter_map(differs).collect()
    }

    /// Every document that can be read.
    pub(crate) fn present_documents(&self) -> Vec<Document> {
        let (now, inner) = (self.now(), self.lock());
        inner.documents.keys().filter_map(|key| inner.document(key, now)).collect()
    }

    /// Partitions whose checkpoint is not at their newest event, not counting dropped events.
    pub(crate) fn unfinished(&self) -> Vec<(Place, i64, i64)> {
        let inner = self.lock();
        let unfinished = inner.partitions.iter().filter_map(|(place, log)| {
            let is_dropped =
                |number| inner.dropped.contains(&(place.clone(), log.offset(number).to_string()));
            let newest = (0..=log.newest()).rev().find(|number| !is_dropped(*number)).unwrap_or(-1);
            let done = inner.done(place);
            (done < newest).then(|| (place.clone(), done, newest))
        });
        unfinished.collect()
    }

    /// Events that can never be applied and are not among the dead letters.
    pub(crate) fn lost_dead_letters(&self) -> Vec<(Place, String)> {
        let inner = self.lock();
        let mut lost = Vec::new();
        for (place, log) in &inner.partitions {
            for routed in log.events.iter().filter(|routed| routed.about.is_none()) {
                let letter = (place.clone(), routed.message.position.offset.to_string());
                if !inner.letters.contains(&letter) && !inner.dropped.contains(&letter) {
                    lost.push(letter);
                }
            }
        }
        lost
    }
}

/// How a document differs from its twin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Difference {
    /// It is equal but flagged.
    OnlyFlag,
    /// It differs and is flagged.
    Flagged,
    /// It differs without a flag.
    Silent(String),
}

impl Inner {
    /// The newest document of a twin, unless it is unreadable or expired.
    pub(crate) fn document(&self, key: &TwinKey, now: i64) -> Option<Document> {
        let newest = self.documents.get(key)?.last()?;
        if newest.has_expired(now) {
            return None;
        }
        serde_json::from_str(&newest.json).ok()
    }

    /// The newest event of a partition that its checkpoint has passed. −1: none of the current era.
    pub(crate) fn done(&self, place: &Place) -> i64 {
        let ours = |offset: &str| self.partitions.get(place).is_some_and(|log| log.is_ours(offset));
        match self.checkpoints.get(place) {
            Some((number, offset)) if ours(offset) => *number,
            Some(_) | None => -1,
        }
    }

    /// The newest version that can be read.
    fn readable(&self, key: &TwinKey) -> Option<Document> {
        let versions = self.documents.get(key)?;
        versions.iter().rev().find_map(|version| serde_json::from_str(&version.json).ok())
    }

    /// Whether the document shows nothing of a deleted twin: it is a tombstone, or equals the hub's twin. A module that a repair
    /// has created after its device was created again has only the time of the answer, in whole seconds.
    fn shows_nothing_ended(&self, key: &TwinKey, document: &Document) -> bool {
        match &document.state {
            State::Deleted => true,
            State::Partial { .. } => false,
            State::Live { twin, .. } => self
                .hubs
                .iter()
                .find_map(|hub| hub.twins.get(key))
                .is_some_and(|truth| truth.is_told_by(twin)),
        }
    }

    /// Why this event is not completed, if it is not.
    fn unfinished(&self, place: &Place, routed: &Routed) -> Option<String> {
        let event = (place.clone(), routed.message.position.offset.to_string());
        if self.letters.contains(&event) || self.dropped.contains(&event) {
            return None;
        }
        let Some((key, at)) = &routed.about else {
            return Some("it can never be applied, and is no dead letter".to_owned());
        };
        let document = self.readable(key);
        if !document.as_ref().is_some_and(|document| takes_account_of(document, *at)) {
            return Some(format!("{key} takes no account of what happened at {at}: {document:?}"));
        }
        let modules = self.documents.keys().filter(|module| module.is_module() && module.parent() == *key);
        // A create that is performed after its process has ended may come after the device's cascade. An audit finds it.
        let late = modules.filter(|module| routed.ends_device && !self.outlived.contains(*module)).find(
            |module| {
                let document = self.readable(module);
                document.is_some_and(|document| {
                    !takes_account_of(&document, *at) && !self.shows_nothing_ended(module, &document)
                })
            },
        )?;
        Some(format!("the module {late} takes no account of the end of its device at {at}"))
    }
}

/// Whether a document contains the effect of an operation at this time or of a newer one, or is flagged.
fn takes_account_of(document: &Document, at: Ticks) -> bool {
    document.is_flagged() || document.last >= at || document.confirmed_until >= Some(at)
}

/// A clock that differs from the true time.
pub(crate) struct Clock {
    pub(crate) world: Arc<World>,
    pub(crate) ahead: i64,
}

impl twinsync::ports::Clock for Clock {
    fn now(&self) -> Ticks {
        Ticks::new(self.world.now() + self.ahead)
    }
}

impl Clock {
    pub(crate) fn new(world: &Arc<World>) -> Self {
        let ahead = match world.plan.may(Fault::Skew) {
            true => world.lock().random.between(-2_000, 2_000) * MILLISECOND,
            false => 0,
        };
        Self { world: Arc::clone(world), ahead }
    }
}
