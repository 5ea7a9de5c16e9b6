//! Puts the status of a replica together.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{
    codes,
    dead_letters::StoredDeadLetters,
    exposition::{Exposition, seconds, whole},
    history::{self, Between, Ends, History, Sample},
    hubs::ScanRates,
    other_partitions::{OtherPartitions, OthersLag, SharedHub},
    refreshed::Refreshed,
    schema::{self, SCHEMA, Status},
};
use crate::{
    domain::{
        dead_letter_counts::Stored,
        headline::{self, Unread, headline},
        health::{Dependency, Failure, Outage, PartitionState, PartitionStatus, Phase, StoreState},
        id::PartitionId,
        refresh::Known,
        ticks::Ticks,
    },
    ports::{Clock, DeadLetterArchive, SystemClock},
    telemetry::{self, Given, HealthState, Metrics, RecentWarnings, Scope, View, Watched, name},
};

/// The command that shows stored dead letters.
const LETTERS: &str = "twinsync deadletters list";
/// Value of `basis` for the partitions of this replica.
const OWN: &str = "own";
const CHECKPOINT: &str = "checkpoint";
/// Minimum time between two measurements of the partitions that this replica does not own: one listing of checkpoints per Event Hub, and
/// one request for each of these partitions.
const OTHERS_INTERVAL: Duration = Duration::from_secs(30);
/// Time limit of that measurement. After it, the status says that there is no answer.
const OTHERS_LIMIT: Duration = Duration::from_secs(20);
/// Minimum time between two reads of the stored dead letters: a listing of 10,000, and reads of 50.
const LETTERS_INTERVAL: Duration = Duration::from_secs(60);
/// Time limit of that read. After it, the status says that there is no answer.
const LETTERS_LIMIT: Duration = Duration::from_secs(15);

/// Constant facts for an observer.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// The name of this replica.
    pub replica: String,
    /// The retention of the Event Hubs.
    pub retention: Duration,
    /// The Event Hubs. The owner of the first one's first partition does the scans.
    pub streams: Vec<String>,
    /// The IoT hubs that may be asked.
    pub hubs: Vec<String>,
    /// The logged warnings and errors.
    pub recent_warnings: RecentWarnings,
}

/// Observes the state of a replica. Cheap to clone.
#[derive(Clone)]
pub struct Observer(Arc<Inner>);

struct Inner {
    health: HealthState,
    metrics: Metrics,
    about: About,
    started: Ticks,
    history: Mutex<History>,
    stored_dead_letters: Refreshed<Stored>,
    others_lag: Refreshed<OthersLag>,
    rates: ScanRates,
}

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observer").finish_non_exhaustive()
    }
}

impl Observer {
    /// Creates an observer for a process that starts now.
    pub fn new(health: HealthState, metrics: Metrics, about: About) -> Self {
        Self(Arc::new(Inner {
            health,
            metrics,
            about,
            started: SystemClock.now(),
            history: Mutex::default(),
            stored_dead_letters: Refreshed::new(LETTERS_INTERVAL, LETTERS_LIMIT),
            others_lag: Refreshed::new(OTHERS_INTERVAL, OTHERS_LIMIT),
            rates: ScanRates::default(),
        }))
    }

    /// Counts the dead letters in `archive` while the status is being viewed, until `stop`.
    pub async fn count_dead_letters(self, archive: Arc<dyn DeadLetterArchive>, stop: CancellationToken) {
        let letters = StoredDeadLetters::new(archive);
        self.0.stored_dead_letters.clone().run(|| letters.count(), stop).await;
    }

    /// Measures the partitions of these hubs that this replica does not own, while the status is being viewed, until `stop`.
    pub async fn refresh_other_partitions(self, hubs: Vec<SharedHub>, stop: CancellationToken) {
        if hubs.is_empty() {
            return; // this replica owns all partitions
        }
        let partitions = OtherPartitions::new(hubs);
        let ask = || {
            let view = self.0.health.view();
            let others = view.owners.into_keys().filter(|id| !view.facts.partitions.contains_key(id));
            let others = others.collect();
            async { Ok(partitions.measure(others).await) }
        };
        self.0.others_lag.clone().run(ask, stop).await;
    }

    /// Takes samples until `stop`. Rates and curves are computed from them.
    pub async fn run(self, stop: CancellationToken) {
        let mut timer = interval(history::INTERVAL);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = timer.tick() => {
                    self.0.rates.note(&self.0.about.hubs, self.0.health.scans());
                    let sample = self.sample(&self.0.health.view(), &Exposition::read(&self.exposition()));
                    self.0.history.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
                }
            }
        }
    }

    fn exposition(&self) -> String {
        self.0.metrics.render()
    }

    fn sample(&self, view: &View, metrics: &Exposition<'_>) -> Sample {
        let extents = view
            .watched
            .iter()
            .filter_map(|(id, watched)| watched.metrics().extent().map(|extent| (id.clone(), extent.last.0)));
        let lag = lag(view).map(|(events, _)| events as f64);
        Sample::of(metrics, Instant::now(), extents.collect::<Ends>(), lag)
    }

    /// The status at this moment.
    pub fn status(&self) -> Status {
        let text = self.exposition();
        let metrics = Exposition::read(&text);
        let view = self.0.health.view();
        let now = self.sample(&view, &metrics);
        let history = self.0.history.lock().unwrap_or_else(PoisonError::into_inner);
        let between = history.until(&now);
        let between = between.as_ref();
        let at = SystemClock.now();
        let partitions = self.partitions(&view, at);
        let ours = || partitions.iter().filter(|partition| partition.ours);
        let flow = flow(&view, &metrics, between);
        let loss = self.loss(&partitions);
        let freshness = schema::Freshness {
            oldest_incomplete_seconds: partitions
                .iter()
                .map(|partition| partition.oldest_incomplete_seconds)
                .fold(0.0, f64::max),
            p50_seconds: between.and_then(|between| between.freshness(0.5)),
            p99_seconds: between.and_then(|between| between.freshness(0.99)),
        };
        let headline = headline(
            view.facts.phase,
            &view.report,
            &headline::Flow {
                partitions: view.watched.len(),
                lag_events: flow.lag_events.unwrap_or_default(),
                measured_ago: lag(&view).map(|(_, ago)| ago),
                behind: seconds(ours().filter_map(|partition| partition.lag_seconds).fold(0.0, f64::max)),
                caught_up_in: flow.caught_up_in_seconds.map(seconds),
                unread: unread(&view, &partitions),
                freshness: freshness.p99_seconds.map(seconds),
                loss: loss.as_ref().map(|loss| {
                    let id = PartitionId { stream: loss.stream.clone(), partition: loss.partition.clone() };
                    (id, seconds(loss.seconds), seconds(loss.retention_seconds))
                }),
            },
            at,
        );
        Status {
            schema: SCHEMA,
            at,
            replica: self.replica(view.facts.phase),
            headline,
            live: view.report.live.is_yes(),
            ready: view.report.ready.is_yes(),
            reasons: view.report.ready.reasons.clone(),
            warnings: view.report.warnings.clone(),
            freshness,
            loss,
            partitions,
            dependencies: self.dependencies(&view, at),
            tokens: self.tokens(),
            flow,
            store: store(&metrics, between),
            decisions: whole(metrics.by(name::EVENTS, "decision")),
            twins: twins(&metrics),
            counts: schema::Counts::of(self.0.health.counts()).largest(),
            dead_letters: dead_letters(&metrics, self.0.stored_dead_letters.current(), at),
            hubs: self.hubs(&view, &metrics),
            log: self.logged(),
            history: history.curves(),
        }
    }

    fn hubs(&self, view: &View, metrics: &Exposition<'_>) -> Vec<schema::Hub> {
        let done_by = self.leader(view);
        let hub = |hub: &String| {
            let dependency = Dependency::Registry(hub.clone());
            let is_silent = matches!(view.facts.dependencies.get(&dependency), Some(Some(_)));
            let scans = self.0.health.scans().of(hub);
            self.0.rates.hub(hub, &scans, done_by.clone(), is_silent, metrics)
        };
        self.0.about.hubs.iter().map(hub).collect()
    }

    /// The replica that owns the first partition of the first stream.
    fn leader(&self, view: &View) -> Option<String> {
        let stream = self.0.about.streams.first()?;
        let ours = view.facts.partitions.keys().map(|id| (id, Some(&self.0.about.replica)));
        let known = view.owners.iter().map(|(id, owner)| (id, owner.as_ref()));
        let partitions = ours.chain(known).filter(|(id, _)| id.stream == *stream);
        // If a partition has two entries, the entry of this replica is first.
        partitions.min_by(|(one, _), (other, _)| one.cmp(other)).and_then(|(_, owner)| owner.cloned())
    }

    fn replica(&self, phase: Phase) -> schema::Replica {
        schema::Replica {
            name: self.0.about.replica.clone(),
            version: telemetry::VERSION.to_owned(),
            revision: telemetry::REVISION.to_owned(),
            started: self.0.started,
            phase: match phase {
                Phase::Starting => "starting",
                Phase::Running => "running",
                Phase::Stopping => "stopping",
            }
            .to_owned(),
        }
    }

    /// Partitions without an owner first, then those of this replica, then those of others. Within each, the largest lag first.
    fn partitions(&self, view: &View, now: Ticks) -> Vec<schema::Partition> {
        let watched: BTreeMap<_, _> = view.watched.iter().map(|(id, watched)| (id, watched)).collect();
        let owner = |id: &PartitionId| view.owners.get(id).cloned().flatten();
        let ours = view.facts.partitions.iter().map(|(id, status)| {
            let owner = owner(id).or_else(|| Some(self.0.about.replica.clone()));
            partition(id, owner, status, watched.get(id).map(|watched| watched.as_ref()), now)
        });
        let others = view.owners.iter().filter(|(id, _)| !view.facts.partitions.contains_key(id));
        let mut others = others.peekable();
        // Without such partitions there is no measurement.
        let known = others.peek().map(|_| self.0.others_lag.current());
        let others = others.map(|(id, owner)| of_another(id, owner.clone(), known.as_ref(), now));
        let mut partitions: Vec<_> = ours.chain(others).collect();
        partitions.sort_by(|one, other| {
            let rank = |partition: &schema::Partition| {
                // Small differences come and go. They must not change the order of rows.
                let behind = partition.lag_seconds.filter(|behind| *behind > 10.0);
                // Partitions without an owner matter most.
                let unread = !partition.ours && partition.owner.is_none();
                (unread, partition.ours, partition.reason.is_some(), behind.map(|behind| behind as u64))
            };
            let number =
                |partition: &schema::Partition| partition.partition.parse::<u64>().unwrap_or(u64::MAX);
            rank(other)
                .cmp(&rank(one))
                .then_with(|| one.stream.cmp(&other.stream))
                .then_with(|| number(one).cmp(&number(other)))
                .then_with(|| one.partition.cmp(&other.partition))
        });
        partitions
    }

    /// The partition that loses events first, among those with a known lag.
    fn loss(&self, partitions: &[schema::Partition]) -> Option<schema::Loss> {
        let retention = self.0.about.retention.as_secs_f64();
        // Each replica reports its own partitions, and every replica reports those without an owner.
        let ours = partitions.iter().filter(|partition| partition.ours || partition.owner.is_none());
        let worst = ours
            .filter_map(|partition| Some((partition, partition.lag_seconds?)))
            .max_by(|(_, one), (_, other)| one.total_cmp(other));
        worst.map(|(partition, behind)| schema::Loss {
            seconds: (retention - behind).max(0.0),
            stream: partition.stream.clone(),
            partition: partition.partition.clone(),
            retention_seconds: retention,
        })
    }

    fn dependencies(&self, view: &View, now: Ticks) -> Vec<schema::Dependency> {
        let mut dependencies = self.event_hubs(view, now);
        let (state, reason) = match &view.facts.store {
            StoreState::Unknown => ("unknown", None),
            StoreState::Reachable => ("up", None),
            StoreState::Unreachable { reason } => ("down", Some(reason.clone())),
        };
        dependencies.push(schema::Dependency {
            name: "Cosmos DB".to_owned(),
            state: state.to_owned(),
            down_since: reason.is_some().then(|| now.before(view.facts.store_lasts)),
            asked: view.store_asked.map(|ago| now.before(ago)),
            next_try: view.facts.store_next_try.filter(|_| reason.is_some()).map(|after| now.after(after)),
            reason,
            needed: true,
        });
        let others = view.facts.dependencies.iter().filter(|(dependency, _)| !is_event_hub(dependency));
        dependencies.extend(others.map(|(dependency, outage)| asked(dependency, outage.as_ref(), view, now)));
        dependencies
    }

    /// While partitions are consumed, their consumers and the measurement of the lag show the state. If connections hang, only the
    /// measurement does.
    fn event_hubs(&self, view: &View, now: Ticks) -> Vec<schema::Dependency> {
        let mut hubs = BTreeMap::new();
        for (dependency, outage) in &view.facts.dependencies {
            if let Dependency::EventHub(hub) = dependency {
                hubs.insert(hub.clone(), asked(dependency, outage.as_ref(), view, now));
            }
        }
        let streams: BTreeSet<_> = view.facts.partitions.keys().map(|id| id.stream.clone()).collect();
        for stream in streams {
            let found = met(&stream, view, now);
            if found.state == "down" || hubs.get(&stream).is_none_or(|asked| asked.state != "down") {
                hubs.insert(stream, found);
            }
        }
        hubs.into_values().collect()
    }

    fn tokens(&self) -> Vec<schema::Token> {
        let token = |(scope, given): (Scope, Given)| {
            let (failed, reason) = given.failed.unzip();
            let (obtained, expires) = (given.obtained, given.expires);
            schema::Token { scope: scope.label().to_owned(), obtained, expires, failed, reason }
        };
        self.0.health.tokens().all().into_iter().map(token).collect()
    }

    fn logged(&self) -> Vec<schema::Logged> {
        let entries = self.0.about.recent_warnings.entries().into_iter().map(|entry| schema::Logged {
            level: if entry.is_error { "error" } else { "warn" }.to_owned(),
            hint: entry.code.as_deref().and_then(codes::hint_of).map(str::to_owned),
            code: entry.code,
            message: entry.message,
            count: entry.count,
            first: entry.first,
            last: entry.last,
        });
        entries.collect()
    }
}

fn is_event_hub(dependency: &Dependency) -> bool {
    matches!(dependency, Dependency::EventHub(_))
}

/// The result of the last call to a dependency. A dependency that throttles is up, with a reason.
fn asked(dependency: &Dependency, outage: Option<&Outage>, view: &View, now: Ticks) -> schema::Dependency {
    let silent = outage.filter(|outage| outage.failure == Failure::Silent);
    schema::Dependency {
        name: capitalised(dependency),
        state: if silent.is_some() { "down" } else { "up" }.to_owned(),
        reason: outage.map(|Outage { reason, .. }| reason.clone()),
        down_since: silent.map(|Outage { lasts, .. }| now.before(*lasts)),
        asked: view.asked.get(dependency).map(|ago| now.before(*ago)),
        next_try: outage.and_then(|outage| outage.next_try).map(|after| now.after(after)),
        needed: !matches!(
            dependency,
            Dependency::Registry(_)
                | Dependency::Traces
                | Dependency::EntraKeys
                | Dependency::Lag
                | Dependency::ChangeFeed
        ),
    }
}

/// The state of an Event Hub, as the consumers of its partitions see it.
fn met(stream: &str, view: &View, now: Ticks) -> schema::Dependency {
    let ours = || view.facts.partitions.iter().filter(|(id, _)| id.stream == stream);
    let waiting = ours().filter_map(|(id, status)| match &status.state {
        PartitionState::Waiting { reason } => Some((id, reason)),
        PartitionState::Connecting | PartitionState::Receiving | PartitionState::Throttled { .. } => None,
    });
    let longest = waiting.max_by_key(|(id, _)| view.waiting_for.get(id).copied());
    let throttled = ours().find_map(|(id, status)| match &status.state {
        PartitionState::Throttled { reason } => Some(format!("{id}: {reason}")),
        PartitionState::Connecting | PartitionState::Receiving | PartitionState::Waiting { .. } => None,
    });
    let receiving = ours().any(|(_, status)| status.state == PartitionState::Receiving);
    let answers = throttled.is_some() || receiving;
    schema::Dependency {
        name: capitalised(&Dependency::EventHub(stream.to_owned())),
        state: match (longest, answers) {
            (Some(_), _) => "down",
            (None, true) => "up",
            (None, false) => "unknown",
        }
        .to_owned(),
        reason: longest.map(|(id, reason)| format!("{id}: {reason}")).or(throttled),
        down_since: longest.map(|(id, _)| now.before(view.waiting_for.get(id).copied().unwrap_or_default())),
        // An open connection shows the state at once. Otherwise, the last failure was the last contact.
        asked: match receiving && longest.is_none() {
            true => Some(now),
            false => ours().filter_map(|(id, _)| view.told.get(id)).min().map(|ago| now.before(*ago)),
        },
        next_try: ours().filter_map(|(_, status)| status.next_try).min().map(|after| now.after(after)),
        needed: true,
    }
}

fn partition(
    id: &PartitionId,
    owner: Option<String>,
    status: &PartitionStatus,
    watched: Option<&dyn Watched>,
    now: Ticks,
) -> schema::Partition {
    let (state, reason) = match &status.state {
        PartitionState::Connecting => ("connecting", None),
        PartitionState::Receiving => ("receiving", None),
        PartitionState::Waiting { reason } => ("waiting", Some(reason.clone())),
        PartitionState::Throttled { reason } => ("throttled", Some(reason.clone())),
    };
    let oldest = watched.and_then(Watched::oldest_incomplete);
    let oldest_for = oldest.map_or(0.0, |(_, age)| age.as_secs_f64());
    let metrics = watched.map(Watched::metrics);
    let lag = metrics.and_then(telemetry::PartitionMetrics::lag);
    let lag_seconds = watched.and_then(|watched| telemetry::behind(watched, now));
    let extent = metrics.and_then(telemetry::PartitionMetrics::extent);
    schema::Partition {
        stream: id.stream.clone(),
        partition: id.partition.clone(),
        ours: true,
        basis: Some(OWN.to_owned()),
        owner,
        state: state.to_owned(),
        reason,
        next_try: status.next_try.map(|after| now.after(after)),
        lag_events: lag.map(|(events, _)| events),
        lag_measured: lag.map(|(_, at)| ticks(at)),
        lag_seconds,
        retention_used: extent.zip(lag).map(|(extent, (events, _))| {
            let held = extent.last.0.saturating_sub(extent.first.0).saturating_add(1).max(1);
            (events as f64 / held as f64).clamp(0.0, 1.0)
        }),
        oldest_incomplete: oldest.map(|(number, _)| number.0),
        oldest_incomplete_seconds: oldest_for,
        checkpoint_age_seconds: metrics.map(|metrics| metrics.unwritten_for().as_secs_f64().max(oldest_for)),
    }
}

fn of_another(
    id: &PartitionId,
    owner: Option<String>,
    known: Option<&Known<OthersLag>>,
    now: Ticks,
) -> schema::Partition {
    let (found, reason, ago) = match known {
        Some(Known::Answer(found, ago)) => match found.get(id) {
            Some(Ok(behind)) => (Some(*behind), None, *ago),
            Some(Err(reason)) => (None, Some(reason.clone()), *ago),
            None => (None, None, *ago), // this replica owned it when the others were measured
        },
        Some(Known::Nothing(reason, ago)) => (None, Some(reason.clone()), *ago),
        Some(Known::Asking) | None => (None, None, Duration::ZERO),
    };
    let seconds = |duration: Option<Duration>| duration.map(|duration| duration.as_secs_f64());
    schema::Partition {
        stream: id.stream.clone(),
        partition: id.partition.clone(),
        ours: false,
        basis: Some(CHECKPOINT.to_owned()),
        state: if owner.is_some() { "elsewhere" } else { "unread" }.to_owned(),
        owner,
        reason,
        next_try: None,
        lag_events: found.map(|behind| behind.events),
        lag_measured: found.map(|_| now.before(ago)),
        lag_seconds: seconds(found.and_then(|behind| behind.at_least)),
        retention_used: found.map(|behind| behind.retention_used),
        oldest_incomplete: None,
        oldest_incomplete_seconds: 0.0,
        checkpoint_age_seconds: seconds(found.and_then(|behind| behind.checkpoint_age)),
    }
}

/// Partitions that have had no owner for too long.
fn unread(view: &View, partitions: &[schema::Partition]) -> Option<Unread> {
    let lasting = || view.unowned.iter().filter(|(_, lasts)| **lasts > view.facts.blocked_after);
    let (partition, lasts) = lasting().max_by_key(|(_, lasts)| **lasts)?;
    let events = |id: &PartitionId| {
        let found =
            partitions.iter().find(|found| found.stream == id.stream && found.partition == id.partition);
        found.and_then(|found| found.lag_events)
    };
    Some(Unread {
        partition: partition.clone(),
        lasts: *lasts,
        others: lasting().count() - 1,
        events: lasting().map(|(id, _)| events(id)).sum(),
    })
}

/// Number of events that are not completed in all partitions of this replica, and the age of the oldest measurement. `None` if a
/// measurement is missing.
fn lag(view: &View) -> Option<(u64, Duration)> {
    let now = SystemTime::now();
    let mut sum = (0, Duration::ZERO);
    for (_, watched) in &view.watched {
        let (events, at) = watched.metrics().lag()?;
        sum = (sum.0 + events, sum.1.max(now.duration_since(at).unwrap_or_default()));
    }
    Some(sum)
}

fn flow(view: &View, metrics: &Exposition<'_>, between: Option<&Between<'_>>) -> schema::Flow {
    let lag_events = lag(view).map(|(events, _)| events);
    let (completed, arrived) = (between.map(Between::completed), between.and_then(Between::arrived));
    let caught_up = lag_events.zip(completed).and_then(|(lag, completed)| {
        let shrinks = completed - arrived.unwrap_or_default();
        (lag > 0 && shrinks > 0.0).then(|| lag as f64 / shrinks)
    });
    schema::Flow {
        completed_per_second: completed,
        arrived_per_second: arrived,
        lag_events,
        caught_up_in_seconds: caught_up,
        in_flight_events: metrics.sum(name::IN_FLIGHT_EVENTS) as u64,
        in_flight_bytes: metrics.sum(name::IN_FLIGHT_BYTES) as u64,
    }
}

fn store(metrics: &Exposition<'_>, between: Option<&Between<'_>>) -> schema::Store {
    schema::Store {
        request_units_per_second: between
            .map(|between| between.request_units().into_iter().collect())
            .unwrap_or_default(),
        throttled_share: between.and_then(Between::throttled_share),
        writes_per_second: between.map(Between::written),
        concurrency_limit: metrics.sum(name::STORE_CONCURRENCY_LIMIT) as u64,
    }
}

fn twins(metrics: &Exposition<'_>) -> schema::Twins {
    let count = |metric| metrics.sum(metric) as u64;
    schema::Twins {
        in_trouble: count(name::TWINS_IN_TROUBLE),
        full: count(name::TWINS_FULL),
        repairs_waiting: count(name::REPAIRS_WAITING),
        rejected: count(name::TWINS_REJECTED),
        still_different: count(name::TWINS_STILL_DIFFERENT),
        events_lost: count(name::EVENTS_LOST),
    }
}

fn dead_letters(metrics: &Exposition<'_>, stored: Known<Stored>, now: Ticks) -> schema::DeadLetters {
    let mut by_reason = whole(metrics.by(name::DEAD_LETTERS, "reason"));
    by_reason.retain(|_, count| *count > 0);
    schema::DeadLetters {
        since_start: by_reason.values().sum(),
        by_reason,
        command: LETTERS.to_owned(),
        stored: stored_dead_letters(stored, now),
    }
}

fn stored_dead_letters(stored: Known<Stored>, now: Ticks) -> schema::StoredDeadLetters {
    match stored {
        Known::Asking => schema::StoredDeadLetters::default(),
        Known::Nothing(reason, ago) => schema::StoredDeadLetters {
            asked: Some(now.before(ago)),
            reason: Some(reason),
            ..Default::default()
        },
        Known::Answer(Stored { count, more, oldest, by_reason, read }, ago) => schema::StoredDeadLetters {
            count: Some(count),
            more,
            oldest,
            by_reason,
            read,
            asked: Some(now.before(ago)),
            reason: None,
        },
    }
}

fn ticks(at: SystemTime) -> Ticks {
    Ticks::new(0).after(at.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// The name without the article, with a capital letter.
fn capitalised(dependency: &Dependency) -> String {
    let text = dependency.to_string();
    let text = text.strip_prefix("the ").unwrap_or(&text);
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
