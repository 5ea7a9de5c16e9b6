//! The workloads, and what each is compared with.

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, bail, ensure};
use clap::ValueEnum;
use devkit::fleet::Rounds;
use serde::{Deserialize, Serialize};

use crate::{
    azure::{self, Azure},
    bare::{Loop, Pace, Receive, Replace, Took},
    daemon::{self, Done, Mark, Place},
    registry,
    usual::{Handler, Task, Way},
};

/// The daemon's default of `cosmos.concurrency_max`.
const CONCURRENCY: usize = 64;
/// Initial size of the tags and desired properties of every twin, in bytes.
pub(crate) const TWIN_BYTES: usize = 1 << 10;
/// Delay of each request in [`Workload::Distant`], in milliseconds: a typical duration within an Azure region.
const DISTANCE: u64 = 5;
/// Partitions of each Event Hub.
pub(crate) const PARTITIONS: u16 = 4;

/// A kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Workload {
    /// A backlog of very many changes of few twins.
    Hot,
    /// A backlog of some changes of many twins.
    Warm,
    /// A backlog of one change of each of very many twins, with a cold cache.
    Wide,
    /// The same with a more distant Cosmos DB: each request takes 5 ms longer.
    Distant,
    /// A backlog that has already been applied.
    Duplicates,
    /// A steady rate of 500 events per second.
    Steady500,
    /// A steady rate of 2,000 events per second.
    Steady2000,
    /// From the start of the process to the first durable write.
    Start,
    /// A backlog of a million changes.
    Backlog,
    /// `twinsync backfill` over a fleet that already exists, into an empty container.
    Backfill,
    /// `twinsync audit --repair` over a fleet with all documents, of which one in a hundred differs.
    Audit,
}

/// The size of a workload.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Size {
    pub(crate) devices: usize,
    pub(crate) rounds: usize,
    /// Only for steady loads.
    pub(crate) seconds: f64,
}

/// One run of the daemon, and one of the bare loop in the same minute on the same work.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Pair {
    pub(crate) daemon: Done,
    pub(crate) bare: Option<Took>,
    /// The usual way, if it was measured.
    pub(crate) usual: Vec<(Way, Took)>,
    /// Seconds from the start of the process to its first durable write. Only for [`Workload::Start`].
    pub(crate) start_seconds: Option<f64>,
}

/// The measured programs.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) twinsync: PathBuf,
    pub(crate) devkit: PathBuf,
    /// Directory for further installations.
    pub(crate) directory: PathBuf,
}

impl Workload {
    /// Its name, as `--only` accepts it.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// What the workload is compared with.
    pub(crate) fn beside(self) -> &'static str {
        match self {
            Self::Hot | Self::Warm | Self::Duplicates | Self::Backlog => "receive + parse",
            Self::Wide | Self::Distant => "read + replace",
            Self::Steady500 | Self::Steady2000 => "replace at the same rate",
            Self::Start => "",
            Self::Backfill => "GET + create",
            Self::Audit => "query + read",
        }
    }

    /// Whether the usual way is measured with it.
    pub(crate) fn has_usual(self) -> bool {
        matches!(self, Self::Hot | Self::Warm | Self::Wide | Self::Distant)
    }

    /// Whether it is a command instead of the daemon.
    pub(crate) fn is_command(self) -> bool {
        matches!(self, Self::Backfill | Self::Audit)
    }

    /// Whether CPU time is compared instead of rates.
    pub(crate) fn compares_cpu(self) -> bool {
        matches!(self, Self::Steady500 | Self::Steady2000)
    }

    /// The size of the workload. A quick run has a tenth of it.
    pub(crate) fn size(self, quick: bool) -> Size {
        let size = |devices, rounds, seconds| Size { devices, rounds, seconds };
        match (self, quick) {
            (Self::Hot | Self::Duplicates, false) => size(100, 2_000, 0.0),
            (Self::Hot | Self::Duplicates, true) => size(100, 200, 0.0),
            (Self::Warm, false) => size(10_000, 20, 0.0),
            (Self::Warm, true) => size(1_000, 20, 0.0),
            (Self::Wide, false) => size(100_000, 1, 0.0),
            (Self::Wide, true) => size(10_000, 1, 0.0),
            (Self::Distant, false) => size(20_000, 1, 0.0),
            (Self::Distant, true) => size(4_000, 1, 0.0),
            (Self::Steady500 | Self::Steady2000, false) => size(1_000, 0, 30.0),
            (Self::Steady500 | Self::Steady2000, true) => size(1_000, 0, 5.0),
            (Self::Start, _) => size(100, 1, 0.0),
            (Self::Backlog, false) => size(10_000, 100, 0.0),
            (Self::Backlog, true) => size(10_000, 10, 0.0),
            (Self::Backfill | Self::Audit, false) => size(100_000, 0, 0.0),
            (Self::Backfill | Self::Audit, true) => size(10_000, 0, 0.0),
        }
    }

    /// The default number of pairs.
    pub(crate) fn pairs(self, quick: bool) -> usize {
        match (self, quick) {
            (Self::Backlog, _) => 1,
            // Each half of a pair takes more than a minute.
            (Self::Backfill | Self::Audit, false) => 2,
            (_, true) => 2,
            (_, false) => 5,
        }
    }

    /// Runs all pairs. `progress` receives progress messages.
    ///
    /// # Errors
    /// Any failure, and any difference between documents and twins.
    pub(crate) async fn run(
        self,
        programs: &Programs,
        size: Size,
        pairs: usize,
        handler: Option<&Handler>,
        progress: &dyn Fn(&str),
    ) -> Result<Vec<Pair>> {
        if self.is_command() {
            return Box::pin(registry::run(programs, self, size, pairs, progress)).await;
        }
        let azure = Azure::start(&programs.devkit, PARTITIONS).await?;
        let place = Place::new(&programs.twinsync)?;
        let bench = Bench { azure, place, workload: self, size };
        progress(&format!("{}: {} twins are registered", self.name(), size.devices));
        bench.register().await?;
        let usual = match handler.filter(|_| self.has_usual()) {
            Some(handler) => Some((handler, Box::pin(bench.beside(programs)).await?)),
            None => None,
        };
        let mut all = Vec::new();
        for number in 0..pairs {
            let mut pair = Box::pin(bench.pair(number)).await?;
            if let Some((handler, bench)) = &usual {
                for way in Way::ALL {
                    pair.usual.push((way, bench.usual(handler, number, way).await?));
                }
            }
            let report = bench.azure.verify().await?;
            progress(&format!("{}: pair {} of {pairs}: {report}", self.name(), number + 1));
            all.push(pair);
        }
        Ok(all)
    }
}

struct Bench {
    azure: Azure,
    place: Place,
    workload: Workload,
    size: Size,
}

impl Bench {
    fn rounds(&self, seed: u64) -> Rounds {
        Rounds {
            devices: self.size.devices,
            prefix: String::new(),
            register: false,
            rounds: self.size.rounds,
            bytes: 0,
            seed,
        }
    }

    /// Creates twins and documents before the measurement.
    async fn register(&self) -> Result<()> {
        let rounds = Rounds { register: true, rounds: 0, bytes: TWIN_BYTES, ..self.rounds(0) };
        let events = self.azure.load(&rounds).await?;
        daemon::work_off(&self.azure, &self.place.setup(&self.azure, "")?, events).await?;
        if self.workload == Workload::Distant {
            self.azure.delay_cosmos(DISTANCE).await?;
        }
        Ok(())
    }

    /// The order within a pair alternates, so that neither side always runs on the warmer machine.
    async fn pair(&self, number: usize) -> Result<Pair> {
        match self.workload {
            Workload::Hot | Workload::Warm | Workload::Wide | Workload::Distant | Workload::Backlog => {
                self.backlog(number).await
            }
            Workload::Duplicates => self.duplicates(number).await,
            Workload::Steady500 => self.steady(number, 500.0).await,
            Workload::Steady2000 => self.steady(number, 2_000.0).await,
            Workload::Start => self.start(number).await,
            Workload::Backfill | Workload::Audit => bail!("this workload is a command"),
        }
    }

    async fn backlog(&self, number: usize) -> Result<Pair> {
        let after = self.azure.ends().await?;
        let events = self.azure.load(&self.rounds(number as u64 + 1)).await?;
        let until = self.azure.ends().await?;
        ensure!(
            azure::events_between(&after, &until) == events,
            "the hub delivered another number of events than it reported"
        );
        let endpoints = self.azure.endpoints.clone();
        let bare = match self.workload {
            Workload::Wide | Workload::Distant => {
                Loop::Replace(Replace { endpoints, pace: Pace::Concurrent(CONCURRENCY), seed: number as u64 })
            }
            _ => Loop::Receive(Receive { endpoints, after, until }),
        };
        self.in_turn(number, &bare, events).await
    }

    /// The same events again: applied once without measuring, and then received again without checkpoints.
    async fn duplicates(&self, number: usize) -> Result<Pair> {
        if number == 0 {
            let events = self.azure.load(&self.rounds(1)).await?;
            daemon::work_off(&self.azure, &self.place.setup(&self.azure, "")?, events).await?;
        }
        self.place.forget()?;
        let until = self.azure.ends().await?;
        let after = azure::beginning(&until);
        let events = azure::events_between(&after, &until);
        let bare = Loop::Receive(Receive { endpoints: self.azure.endpoints.clone(), after, until });
        let pair = self.in_turn(number, &bare, events).await?;
        ensure!(pair.daemon.writes == 0, "{} duplicates were written", pair.daemon.writes);
        Ok(pair)
    }

    async fn in_turn(&self, number: usize, bare: &Loop, events: u64) -> Result<Pair> {
        let setup = self.place.setup(&self.azure, "")?;
        let (daemon, bare) = if number.is_multiple_of(2) {
            let bare = bare.run().await?;
            (daemon::work_off(&self.azure, &setup, events).await?, bare)
        } else {
            let daemon = daemon::work_off(&self.azure, &setup, events).await?;
            (daemon, bare.run().await?)
        };
        Ok(Pair { daemon, bare: Some(bare), usual: Vec::new(), start_seconds: None })
    }

    /// Measures the daemon under a steady load, and then a loop with the same number of writes per second.
    async fn steady(&self, number: usize, rate: f64) -> Result<Pair> {
        let rounds = ((rate * self.size.seconds) as usize).div_ceil(self.size.devices);
        let load = Rounds { rounds, ..self.rounds(number as u64 + 1) };
        let events = (rounds * self.size.devices) as u64;
        let mut daemon = self.place.setup(&self.azure, "")?.start().await?;
        let mark = Mark::now(&mut daemon, &self.azure).await?;
        self.azure.begin(&load, Some(rate)).await?;
        // Metrics are not read meanwhile, because that costs as much CPU time as several events.
        tokio::time::sleep(Duration::from_secs_f64(self.size.seconds)).await;
        let done = daemon::until(&mut daemon, &self.azure, mark, events).await?;
        daemon.stop().await?;
        let bare = Loop::Replace(Replace {
            endpoints: self.azure.endpoints.clone(),
            pace: Pace::Rate(rate, self.size.seconds),
            seed: number as u64,
        });
        Ok(Pair { daemon: done, bare: Some(bare.run().await?), usual: Vec::new(), start_seconds: None })
    }

    /// Measures the start with a waiting backlog, and with checkpoints.
    async fn start(&self, number: usize) -> Result<Pair> {
        let events = self.azure.load(&self.rounds(number as u64 + 1)).await?;
        let setup = self.place.setup(&self.azure, "")?;
        let writes = || async {
            let counters = self.azure.cosmos().await?;
            anyhow::Ok(counters.get("replace").map_or(0, |count| count.requests))
        };
        let before = writes().await?;
        let began = std::time::Instant::now();
        let mut daemon = setup.spawn()?;
        while writes().await? == before {
            ensure!(began.elapsed().as_secs() < 60, "the daemon writes nothing:\n{}", daemon.log());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let start_seconds = Some(began.elapsed().as_secs_f64());
        daemon.ready().await?;
        let mark = Mark::now(&mut daemon, &self.azure).await?;
        let done = daemon::until(&mut daemon, &self.azure, mark, events).await?;
        daemon.stop().await?;
        Ok(Pair { daemon: done, bare: None, usual: Vec::new(), start_seconds })
    }

    /// A second local Azure for the usual way, because the daemon would have to flag the documents that it leaves.
    async fn beside(&self, programs: &Programs) -> Result<Self> {
        let size = Size { devices: self.size.devices.min(Way::MOST_TWINS), ..self.size };
        let azure = Azure::start(&programs.devkit, PARTITIONS).await?;
        let bench = Self { azure, place: Place::new(&programs.twinsync)?, workload: self.workload, size };
        bench.register().await?;
        Ok(bench)
    }

    async fn usual(&self, handler: &Handler, number: usize, way: Way) -> Result<Took> {
        let after = self.azure.ends().await?;
        let events = way.events();
        let devices = self.size.devices.min(events);
        let seed = 1_000 + (Way::ALL.len() * number) as u64 + way as u64;
        let rounds = (events / devices).min(self.size.rounds);
        self.azure.load(&Rounds { devices, rounds, ..self.rounds(seed) }).await?;
        let until = self.azure.ends().await?;
        let task = Task { endpoints: &self.azure.endpoints, after: &after, until: &until, way };
        let took = handler.run(&task).await?;
        self.azure.verify().await?; // in this workload, its result is correct as well
        Ok(took)
    }
}
