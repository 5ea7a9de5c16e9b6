//! One consumer task per Event Hub: which partitions this replica owns, where they resume, and their progress.
//!
//! ```text
//! alone:   this replica owns every partition from the start
//! shared:  gained ─► where does it resume? ─► consuming ─► surplus: finish, commit, release
//!                                                     └─► lost: stop at once, commit nothing
//! ```
//!
//! No checkpoint of a partition is sent after its lease has ended: the new owner's checkpoint is the true one. A checkpoint that is already
//! being sent then may set it back, which costs repeated events. Writes that are already being sent to Cosmos DB may arrive. Versions and
//! conditions make both harmless.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use azure_messaging_eventhubs::CheckpointStore;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, interval_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    committer::Committer,
    in_flight::InFlight,
    intake::Intake,
    lag::{self, Lag},
    lease::{self, Leases},
    owned_count::OwnedCount,
    partition::Partition,
    partitions::Partitions,
    progress::Progress,
    receive_threads::ReceiveThreads,
    replicas::Replicas,
    router::Panicked,
    start::{self, Fresh, StartError, begin, stored_positions},
    watch,
};
use crate::{
    domain::{
        grace_period::{GracePeriod, Verdict},
        health::{Dependency, PartitionState},
        id::{PartitionId, SequenceNumber},
        retry::Backoff,
    },
    ports::{EventSource, SourceError, Start},
    runtime::jitter::jitter,
    telemetry::{
        HealthState, Metrics,
        event::{DependencyChanged, Fault, PartitionDelayed},
        trace::Tracer,
    },
};

/// First and longest wait before a failed resume is tried again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// How often partitions that are being finished are checked.
const FINISH_POLL: Duration = Duration::from_millis(20);
/// Time limit for finishing a surplus partition. Its new owner replays what is still open then.
const FINISH_LIMIT: Duration = Duration::from_secs(10);

/// Who owns the partitions.
#[derive(Debug, Clone)]
pub enum Sharing {
    /// There is one replica. It owns all partitions.
    Alone,
    /// The partitions are shared with other replicas.
    Leases(lease::Options),
}

/// Options of a stream.
#[derive(Clone)]
pub struct Options {
    /// Where partitions resume.
    pub start: start::Options,
    /// Who owns the partitions.
    pub sharing: Sharing,
    /// Makes traces.
    pub tracer: Option<Tracer>,
    /// Maximum size of a body that is decoded, in bytes.
    pub max_body_bytes: usize,
    /// How often checkpoints are written.
    pub commit_interval: Duration,
    /// How often lag is measured.
    pub lag_interval: Duration,
    /// How often the Event Hub is asked whether it has more partitions.
    pub partition_discovery_interval: Duration,
    /// How long no waiting event may arrive before the client is rebuilt.
    pub stall_limit: Duration,
    /// Receives whether this replica owns the first partition. The owner of the first partition does the work that only one replica has to
    /// do.
    pub leads: Option<watch::Sender<bool>>,
    /// Receives which other replicas are alive.
    pub replicas: Arc<Replicas>,
}

/// Why a stream ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A person has to decide or repair something.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A task panicked.
    #[error(transparent)]
    Panicked(#[from] Panicked),
}

/// State that the partitions of a stream share.
#[derive(Clone)]
struct Shared {
    source: Arc<dyn EventSource>,
    checkpoints: Arc<dyn CheckpointStore>,
    options: Options,
    health: HealthState,
    metrics: Metrics,
    /// Changes when the Event Hub answers again.
    answers: Arc<watch::Sender<u64>>,
    owned: OwnedCount,
}

/// One Event Hub, ready to be consumed.
pub struct Stream {
    shared: Shared,
    partitions: Vec<String>,
    prepared: Vec<Prepared>,
}

/// A partition, and where it resumes.
struct Prepared {
    progress: Arc<Progress>,
    start: Start,
    /// The oldest event that the partition holds.
    first: SequenceNumber,
}

/// A partition that this replica owns.
struct Owned {
    progress: Arc<OnceLock<Arc<Progress>>>,
    stop: CancellationToken,
    /// Time since which it is being finished.
    finishing: Option<Instant>,
    consuming: bool,
    /// Cancelled when its lease has run out. Nothing of it is committed from then on. `None` if there is only one replica.
    lease: Option<CancellationToken>,
    /// Distinguishes this ownership from an earlier one of the same partition, whose task may still be ending.
    term: u64,
}

impl Owned {
    /// Whether its lease is still valid. Without leases, always true.
    fn is_ours(&self) -> bool {
        self.lease.as_ref().is_none_or(|lease| !lease.is_cancelled())
    }
}

impl Stream {
    /// Finds the partitions. If this replica owns all of them, also finds where each one resumes.
    ///
    /// # Errors
    /// A person has to decide or repair something.
    pub async fn prepare(
        source: Arc<dyn EventSource>,
        checkpoints: Arc<dyn CheckpointStore>,
        options: Options,
        health: HealthState,
        metrics: Metrics,
    ) -> Result<Self, StartError> {
        let answers = Arc::new(watch::Sender::new(0));
        let owned = OwnedCount::new(source.name(), metrics.clone());
        let mut shared = Shared { source, checkpoints, options, health, metrics, answers, owned };
        let hub = shared.source.name();
        // Read in any case: an unreadable store is better reported now.
        let stored = stored_positions(shared.checkpoints.as_ref(), &shared.options.start, hub).await?;
        if !stored.is_empty() {
            // This is not the first start. A partition without checkpoint was added since, or no event had arrived in it.
            shared.options.start.fresh = Fresh::Earliest;
        }
        let partitions = shared.source.partitions().await.map_err(|source| shared.failed(source))?;
        let mut prepared = Vec::new();
        if matches!(shared.options.sharing, Sharing::Alone) {
            for partition in &partitions {
                prepared.push(shared.resume(partition, shared.options.start.fresh).await?);
            }
        }
        Ok(Self { shared, partitions, prepared })
    }

    /// Consumes until `stop`, keeps leases and checkpoints until `drained`, then commits and releases.
    ///
    /// # Errors
    /// A partition cannot be consumed until a person decides or repairs something, or a task panicked.
    pub async fn run(
        self,
        limits: Arc<InFlight>,
        intake: mpsc::Sender<Vec<Intake>>,
        threads: Option<Arc<ReceiveThreads>>,
        stop: CancellationToken,
        drained: CancellationToken,
    ) -> Result<(), Error> {
        let Self { shared, partitions, prepared } = self;
        // Added partitions get the next numbers. So all replicas agree on the first one, whenever they started.
        let first = partitions.iter().min().cloned();
        let known = Partitions::new(shared.source.name(), &partitions, shared.metrics.clone());
        let leases = match &shared.options.sharing {
            Sharing::Alone => None,
            Sharing::Leases(options) => Some(Leases::new(
                Arc::clone(&shared.checkpoints),
                options.clone(),
                &shared.options.start.namespace,
                shared.source.name(),
                &shared.options.start.consumer_group,
                partitions,
            )),
        };
        let mut running = Running {
            committer: Committer::new(
                Arc::clone(&shared.checkpoints),
                &shared.options.start.namespace,
                &shared.options.start.consumer_group,
                shared.metrics.clone(),
                shared.health.clone(),
                shared.options.start.classify,
            ),
            lag: Lag::new(shared.options.stall_limit),
            silent: false,
            partitions: known,
            shared,
            leases,
            limits,
            intake: Some(intake),
            threads,
            owned: BTreeMap::new(),
            tasks: JoinSet::new(),
            terms: 0,
            first,
        };
        for prepared in prepared {
            running.consume_prepared(prepared);
        }
        running.run(stop, drained).await
    }
}

impl Shared {
    fn failed(&self, source: SourceError) -> StartError {
        self.options.start.failed(self.source.name(), source)
    }

    /// Finds where a partition resumes. Without checkpoint, `fresh` decides.
    async fn resume(&self, partition: &str, fresh: Fresh) -> Result<Prepared, StartError> {
        let hub = self.source.name();
        let mut stored = stored_positions(self.checkpoints.as_ref(), &self.options.start, hub).await?;
        let extent = self.source.extent(partition).await.map_err(|source| self.failed(source))?;
        let id = PartitionId { stream: hub.to_owned(), partition: partition.to_owned() };
        let options = start::Options { fresh, ..self.options.start.clone() };
        let (checkpoint, start) = begin(&id, stored.remove(partition), &extent, &options)?;
        let progress = Progress::new(id, checkpoint, &self.metrics);
        let durable = progress.durable().map(|position| position.sequence_number);
        progress.metrics.measured(extent, durable);
        Ok(Prepared { progress, start, first: extent.first })
    }

    /// Does the same for a partition that was gained while others are consumed. Failures are retried as at the start.
    async fn resume_with_retries(&self, partition: &str, fresh: Fresh) -> Result<Prepared, StartError> {
        let id = PartitionId { stream: self.source.name().to_owned(), partition: partition.to_owned() };
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        let (mut grace, began) = (GracePeriod::new(self.options.start.refused_grace), Instant::now());
        let mut answers = self.answers.subscribe();
        loop {
            drop(answers.borrow_and_update());
            let error = match self.resume(partition, fresh).await {
                Ok(prepared) => return Ok(prepared),
                Err(error) => error,
            };
            let gives_up_in = match grace.failed(began.elapsed(), error.nature()) {
                Verdict::Wait(left) => left,
                Verdict::GiveUp => return Err(error),
            };
            let (retry_in, reason) = (backoff.next(jitter(), None), error.to_string());
            PartitionDelayed { partition: &id, code: error.code(), error: &reason, retry_in, gives_up_in }
                .emit();
            self.health.set_partition(&id, PartitionState::Waiting { reason });
            self.health.tries_partition_again(&id, retry_in);
            tokio::select! {
                biased;
                Ok(()) = answers.changed() => {}
                () = tokio::time::sleep(retry_in) => {}
            }
        }
    }
}

/// The partition, the term of its ownership, and its result.
type Ended = (String, u64, Result<(), StartError>);

struct Running {
    shared: Shared,
    leases: Option<Leases>,
    committer: Committer,
    lag: Lag,
    /// Whether the Event Hub gave no answer when the lag was last measured.
    silent: bool,
    partitions: Partitions,
    limits: Arc<InFlight>,
    intake: Option<mpsc::Sender<Vec<Intake>>>,
    threads: Option<Arc<ReceiveThreads>>,
    owned: BTreeMap<String, Owned>,
    tasks: JoinSet<Ended>,
    terms: u64,
    /// The first partition. Its owner leads.
    first: Option<String>,
}

impl Running {
    async fn run(mut self, stop: CancellationToken, drained: CancellationToken) -> Result<(), Error> {
        let every = |period: Duration| {
            let mut timer = interval(period);
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
            timer
        };
        let poll = match &self.shared.options.sharing {
            Sharing::Leases(options) => options.poll_interval(),
            Sharing::Alone => Duration::from_secs(3600), // there are no leases to poll
        };
        let (mut poll, mut finish) = (every(poll), every(FINISH_POLL));
        let (mut commit, mut measure) =
            (every(self.shared.options.commit_interval), every(self.shared.options.lag_interval));
        // The partitions were listed a moment ago.
        let period = self.shared.options.partition_discovery_interval;
        let mut list = interval_at(Instant::now() + period, period);
        list.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut outcome = Ok(());
        loop {
            let stopping = self.intake.is_none();
            let finishing = self.owned.values().any(|owned| owned.finishing.is_some());
            tokio::select! {
                biased;
                () = drained.cancelled() => break,
                () = stop.cancelled(), if !stopping => self.stop_intake(),
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    if let Err(error) = self.ended(ended) {
                        outcome = Err(error);
                        break;
                    }
                }
                // SUBTLE: if the store is slow, each of these takes longer than its period. So a whole period passes after its end before
                // it runs again. Otherwise the branches below it would never get their turn.
                _ = poll.tick(), if self.leases.is_some() => {
                    self.poll_leases(!stopping).await;
                    poll.reset();
                }
                _ = finish.tick(), if finishing && !stopping => {
                    self.finish().await;
                    finish.reset();
                }
                _ = commit.tick() => {
                    self.commit().await;
                    commit.reset();
                }
                Some(answer) = self.lag.next(), if self.lag.is_measuring() => self.note_lag(answer),
                Some(answer) = self.partitions.next(), if self.partitions.is_asking() => {
                    let added = self.partitions.note(answer);
                    if !stopping {
                        self.add(added);
                    }
                }
                _ = list.tick(), if !stopping => self.partitions.ask(&self.shared.source),
                _ = measure.tick() => self.lag.measure(&self.shared.source, self.owned_progress()),
            }
        }
        self.close(outcome).await
    }

    /// Shuts down: commits everything that is durable, and releases every lease.
    async fn close(mut self, outcome: Result<(), Error>) -> Result<(), Error> {
        self.stop_intake();
        while self.tasks.join_next().await.is_some() {}
        let failed = self.commit().await;
        if let Some(leases) = &mut self.leases {
            for partition in leases.held() {
                leases.release(&partition).await;
            }
        }
        self.shared.source.close().await;
        let stream = self.shared.source.name();
        match failed {
            0 => tracing::info!(%stream, "stopped: checkpoints are written"),
            failed => tracing::warn!(
                %stream, failed, code = "CHECKPOINTS_NOT_WRITTEN",
                "stopped: some checkpoints could not be written: after the next start, more events are received again"
            ),
        }
        outcome
    }

    /// Stops receiving. Leases and checkpoints are kept until everything is drained.
    fn stop_intake(&mut self) {
        self.intake = None;
        for owned in self.owned.values() {
            owned.stop.cancel();
        }
    }

    fn ended(&mut self, ended: Result<Ended, tokio::task::JoinError>) -> Result<(), Error> {
        let (partition, term, result) = ended.map_err(|_| Panicked)?;
        if let Some(owned) = self.owned.get_mut(&partition).filter(|owned| owned.term == term) {
            owned.consuming = false;
        }
        result.map_err(Error::Start)
    }

    fn owned_progress(&self) -> Vec<Arc<Progress>> {
        let ours = self.owned.values().filter(|owned| owned.is_ours());
        ours.filter_map(|owned| owned.progress.get().cloned()).collect()
    }

    fn note_lag(&mut self, answer: Result<lag::Answer, tokio::task::JoinError>) {
        if let Some(answered) = self.lag.note(answer, &self.limits) {
            let failed = answered.as_ref().err();
            let was_silent = std::mem::replace(&mut self.silent, failed.is_some());
            if was_silent && !self.silent {
                // Each partition waits for up to 30 s by now.
                self.shared.answers.send_if_modified(|times| {
                    *times += 1;
                    true
                });
            }
            let failed = failed.map(|error| (error.failure(), error.code(), error.to_string()));
            let failed =
                failed.as_ref().map(|(failure, code, reason)| Fault { failure: *failure, code, reason });
            let hub = Dependency::EventHub(self.shared.source.name().to_owned());
            DependencyChanged::post(&self.shared.health, &hub, failed);
            if failed.is_some() {
                self.shared.health.tries_again(&hub, self.shared.options.lag_interval);
            }
        }
    }

    async fn commit(&mut self) -> usize {
        let failed = self.committer.commit(&self.owned_progress()).await;
        if failed > 0 {
            let shared = &self.shared;
            shared.health.tries_again(&Dependency::Checkpoints, shared.options.commit_interval);
        }
        failed
    }

    /// Adds new partitions. Replicas that share partitions claim them in the next round.
    fn add(&mut self, partitions: Vec<String>) {
        match &mut self.leases {
            Some(leases) => leases.add(&partitions),
            None => partitions.into_iter().for_each(|partition| self.consume_gained(partition)),
        }
    }

    /// Polls the leases and applies the changes.
    async fn poll_leases(&mut self, claim: bool) {
        let Some(leases) = &mut self.leases else { return };
        let leaving: Vec<_> = self
            .owned
            .iter()
            .filter(|(_, owned)| owned.finishing.is_some())
            .map(|(partition, _)| partition.clone())
            .collect();
        let round = leases.round(&leaving, claim).await;
        let failed = round.failed.as_ref().map(lease::Failed::fault);
        DependencyChanged::post(&self.shared.health, &Dependency::Leases, failed);
        if let (Some(_), Sharing::Leases(options)) = (failed, &self.shared.options.sharing) {
            self.shared.health.tries_again(&Dependency::Leases, options.poll_interval());
        }
        if let Some(owners) = round.owners {
            self.shared.health.set_owners(self.shared.source.name(), owners);
        }
        if let Some(others) = round.others {
            self.shared.options.replicas.seen(self.shared.source.name(), others);
        }
        for partition in round.lost {
            self.forget(&partition);
        }
        for partition in round.surplus {
            if let Some(owned) = self.owned.get_mut(&partition) {
                owned.stop.cancel();
                owned.finishing = Some(Instant::now());
            }
        }
        for partition in round.gained {
            tracing::info!(stream = %self.shared.source.name(), %partition, "took over a partition");
            self.consume_gained(partition);
        }
        self.partitions.hear_of(&round.unknown, &self.shared.source);
        self.show_owned();
    }

    fn show_owned(&self) {
        self.shared.owned.set(self.owned.values().map(|owned| owned.lease.clone()).collect());
    }

    /// Commits and releases partitions that have finished.
    async fn finish(&mut self) {
        let done = |owned: &Owned| {
            owned.finishing.is_some_and(|since| {
                let open = owned.progress.get().map_or(0, |progress| progress.open());
                owned.is_ours() && !owned.consuming && (open == 0 || since.elapsed() >= FINISH_LIMIT)
            })
        };
        let done: Vec<_> = self
            .owned
            .iter()
            .filter(|(_, owned)| done(owned))
            .map(|(partition, _)| partition.clone())
            .collect();
        for partition in done {
            if let Some(progress) = self.owned.get(&partition).and_then(|owned| owned.progress.get().cloned())
            {
                self.committer.commit(&[progress]).await;
            }
            self.forget(&partition);
            if let Some(leases) = &mut self.leases {
                leases.release(&partition).await;
            }
            tracing::info!(stream = %self.shared.source.name(), %partition, "released a partition to another replica");
        }
    }

    /// Removes a partition. Nothing of it is committed any more.
    fn forget(&mut self, partition: &str) {
        if let Some(owned) = self.owned.remove(partition) {
            owned.stop.cancel();
            if let Some(progress) = owned.progress.get() {
                self.committer.forget(progress.id());
            }
        }
        self.shared.health.remove_partition(&self.id(partition));
        self.tell_who_leads();
        self.show_owned();
    }

    fn id(&self, partition: &str) -> PartitionId {
        PartitionId { stream: self.shared.source.name().to_owned(), partition: partition.to_owned() }
    }

    fn tell_who_leads(&self) {
        if let Some(leads) = &self.shared.options.leads {
            let ours = self.first.as_ref().is_some_and(|first| self.owned.contains_key(first));
            leads.send_if_modified(|leads| std::mem::replace(leads, ours) != ours);
        }
    }

    fn consume_prepared(&mut self, prepared: Prepared) {
        let partition = prepared.progress.id().partition.clone();
        self.consume_from(partition, |_, _| async { Ok(prepared) });
    }

    fn consume_gained(&mut self, partition: String) {
        // The events in a partition that was added later were not there at the first start.
        let fresh = match self.partitions.came_later(&partition) {
            true => Fresh::Earliest,
            false => self.shared.options.start.fresh,
        };
        self.consume_from(partition, move |shared, partition| async move {
            shared.resume_with_retries(&partition, fresh).await
        });
    }

    /// Consumes a partition of this replica, from the position that `resume` finds.
    fn consume_from<F>(
        &mut self,
        partition: String,
        resume: impl FnOnce(Shared, String) -> F + Send + 'static,
    ) where
        F: Future<Output = Result<Prepared, StartError>> + Send + 'static,
    {
        let (owned, shared, limits) = self.own(&partition);
        let (known, stop, term) = (Arc::clone(&owned.progress), owned.stop.clone(), owned.term);
        let Some(intake) = self.intake.clone() else { return };
        self.owned.insert(partition.clone(), owned);
        self.show_owned();
        self.tell_who_leads();
        self.spawn(async move {
            let owned = shared.owned.clone();
            let prepared = tokio::select! {
                biased;
                () = stop.cancelled() => None,
                prepared = resume(shared.clone(), partition.clone()) => Some(prepared),
            };
            let result = match prepared {
                None => Ok(()),
                Some(Ok(prepared)) => consume(shared, prepared, known, limits, intake, stop).await,
                Some(Err(error)) => Err(error),
            };
            owned.count();
            (partition, term, result)
        });
    }

    /// Runs the partition on one of the receive threads, if there are any, together with its connection.
    fn spawn(&mut self, consuming: impl Future<Output = Ended> + Send + 'static) {
        match self.threads.as_ref().and_then(|threads| threads.least_used()) {
            Some(thread) => self.tasks.spawn_on(consuming, thread),
            None => self.tasks.spawn(consuming),
        };
    }

    fn own(&mut self, partition: &str) -> (Owned, Shared, Arc<InFlight>) {
        self.shared.health.set_partition(&self.id(partition), PartitionState::Connecting);
        self.terms += 1;
        let lease = self.leases.as_ref().and_then(|leases| leases.term(partition));
        let owned = Owned {
            progress: Arc::default(),
            // The end of the lease stops the partition directly. No poll is needed.
            stop: lease.as_ref().map_or_else(CancellationToken::new, CancellationToken::child_token),
            lease,
            finishing: None,
            consuming: true,
            term: self.terms,
        };
        (owned, self.shared.clone(), Arc::clone(&self.limits))
    }
}

async fn consume(
    shared: Shared,
    prepared: Prepared,
    known: Arc<OnceLock<Arc<Progress>>>,
    limits: Arc<InFlight>,
    intake: mpsc::Sender<Vec<Intake>>,
    stop: CancellationToken,
) -> Result<(), StartError> {
    // Set once: each ownership term has its own `Owned`.
    let progress = Arc::clone(known.get_or_init(|| prepared.progress));
    progress.show(&shared.health);
    let sampler = shared.options.tracer.as_ref().map(|tracer| tracer.sampler(progress.id()));
    let partition = Partition {
        source: shared.source,
        progress,
        start: prepared.start,
        first: prepared.first,
        options: shared.options.start.clone(),
        max_body_bytes: shared.options.max_body_bytes,
        limits,
        intake,
        health: shared.health,
        metrics: shared.metrics,
        sampler,
        answers: shared.answers.subscribe(),
    };
    partition.run(stop).await
}
