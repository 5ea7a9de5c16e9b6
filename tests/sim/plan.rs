//! The plan of a simulation: derived from a seed, and shrinkable.

use std::{collections::BTreeSet, fmt, str::FromStr};

use crate::delivery::Random;

/// Faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// A request to the document store is not performed, and no answer arrives.
    StoreRefuses,
    /// It is performed, and its answer is lost.
    StoreLosesAnswers,
    /// It is performed after its time limit.
    StoreIsLate,
    /// The store throttles.
    StoreThrottles,
    /// A read returns an older version that the session allows.
    StoreIsBehind,
    /// A connection cannot be opened, or an Event Hub does not answer a management request.
    HubRefuses,
    /// A connection breaks, and the events in it are lost.
    LinkBreaks,
    /// A connection becomes silent.
    LinkHangs,
    /// A connection delivers events again.
    LinkGoesBack,
    /// The checkpoint store does not perform a request.
    CheckpointsRefuse,
    /// It performs a request, and the answer is lost.
    CheckpointsLoseAnswers,
    /// It performs a request long after its time limit.
    CheckpointsHang,
    /// A dead letter is not stored, or the answer of its store is lost.
    DeadLettersFail,
    /// Notes cannot be read or written.
    NotesFail,
    /// The IoT hub does not answer.
    RegistryFails,
    /// The IoT hub throttles.
    RegistryThrottles,
    /// A process crashes at a request, before or after the request is performed.
    Crash,
    /// A service is down for a while, for all processes or for one.
    Outage,
    /// A process is stopped cleanly and started again.
    Restart,
    /// The clocks of the processes differ.
    Skew,
    /// A route delivers events again.
    Duplicates,
    /// A route lags behind the other one.
    Delays,
    /// The hub coalesces changes into one event.
    Packs,
    /// A route loses events.
    Losses,
    /// The hub forgets its last operations.
    Failover,
    /// An event that can never be applied.
    Poison,
    /// Another program overwrites a document with other content or with unreadable content.
    Spoils,
    /// An Event Hub drops the oldest events of a partition, completed or not.
    Retention,
    /// An Event Hub is deleted and created again with the same name: its events are lost, and sequence numbers
    /// start again.
    Recreates,
    /// An Event Hub gets one more partition. From then on a device's events may go to another partition than
    /// before.
    AddsPartition,
    /// Nothing happens for longer than the lifetime of tombstones.
    TombstonesExpire,
}

impl Fault {
    pub(crate) const ALL: [Self; 31] = [
        Self::StoreRefuses,
        Self::StoreLosesAnswers,
        Self::StoreIsLate,
        Self::StoreThrottles,
        Self::StoreIsBehind,
        Self::HubRefuses,
        Self::LinkBreaks,
        Self::LinkHangs,
        Self::LinkGoesBack,
        Self::CheckpointsRefuse,
        Self::CheckpointsLoseAnswers,
        Self::CheckpointsHang,
        Self::DeadLettersFail,
        Self::NotesFail,
        Self::RegistryFails,
        Self::RegistryThrottles,
        Self::Crash,
        Self::Outage,
        Self::Restart,
        Self::Skew,
        Self::Duplicates,
        Self::Delays,
        Self::Packs,
        Self::Losses,
        Self::Failover,
        Self::Poison,
        Self::Spoils,
        Self::Retention,
        Self::Recreates,
        Self::AddsPartition,
        Self::TombstonesExpire,
    ];

    /// Its name in commands and tables.
    pub(crate) fn name(self) -> String {
        format!("{self:?}")
    }

    /// Whether its effects can only be corrected with the registry.
    const fn needs_registry(self) -> bool {
        self.spoils_partitions()
            || matches!(self, Self::Failover | Self::RegistryFails | Self::RegistryThrottles | Self::Spoils)
    }

    /// Whether only an audit finds its effects, if there is a registry.
    const fn needs_audits(self) -> bool {
        self.spoils_partitions() || matches!(self, Self::Losses | Self::Failover | Self::Spoils)
    }

    /// Whether checkpoints may no longer match their partitions.
    const fn spoils_partitions(self) -> bool {
        matches!(self, Self::Retention | Self::Recreates)
    }
}

/// One simulation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) replicas: u64,
    /// Number of Event Hubs: one for both routes, or one for each.
    pub(crate) hubs: u64,
    pub(crate) partitions: u64,
    pub(crate) devices: u64,
    pub(crate) modules: u64,
    pub(crate) operations: u64,
    /// Whether there is a registry.
    pub(crate) registry: bool,
    /// Operations before the streams, without events. A backfill finds their twins.
    pub(crate) past: u64,
    /// How many of a thousand requests meet each of their faults.
    pub(crate) per_thousand: u64,
    /// Whether documents are cached for the next write.
    pub(crate) cache: bool,
    /// Whether there are declared counts.
    pub(crate) counts: bool,
    pub(crate) faults: BTreeSet<Fault>,
}

impl Plan {
    /// The plan of a seed.
    pub(crate) fn of(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x0051_B000);
        let registry = random.chance(50);
        // An audit could hide a defect of another component by correcting its effect, so half of the plans have
        // none.
        let audits = random.chance(50);
        let mut faults = BTreeSet::new();
        // Some plans have one kind of fault, most have several, one in ten has none.
        let share = [0, 8, 20, 40, 40, 60, 60, 80, 80, 100][random.below(10) as usize];
        for fault in Fault::ALL {
            // Drawn for every kind, so that the draws for later kinds do not depend on earlier ones.
            let drawn = random.chance(share);
            let possible = if registry { audits || !fault.needs_audits() } else { !fault.needs_registry() };
            if drawn && possible {
                faults.insert(fault);
            }
        }
        Self {
            seed,
            replicas: [1, 1, 2, 2, 3][random.below(5) as usize],
            hubs: 1 + random.below(2),
            partitions: [1, 2, 2, 4][random.below(4) as usize],
            devices: 1 + random.below(4),
            modules: random.below(3),
            operations: [6, 12, 24, 40][random.below(4) as usize],
            registry,
            past: if registry && random.chance(50) { 1 + random.below(10) } else { 0 },
            per_thousand: [5, 20, 60, 150][random.below(4) as usize],
            cache: random.chance(60),
            counts: seed.is_multiple_of(4),
            faults,
        }
    }

    /// Whether a fault of the plan needs an audit.
    pub(crate) fn needs_audits(&self) -> bool {
        self.registry && self.faults.iter().any(|fault| fault.needs_audits())
    }

    /// Whether checkpoints may no longer match their partitions.
    pub(crate) fn loses_partitions(&self) -> bool {
        self.faults.iter().any(|fault| fault.spoils_partitions())
    }

    pub(crate) fn may(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    /// Smaller plans, the largest reduction first.
    pub(crate) fn smaller(&self) -> Vec<Self> {
        let mut smaller = Vec::new();
        let mut add = |change: &dyn Fn(&mut Self)| {
            let mut plan = self.clone();
            change(&mut plan);
            if plan != *self {
                smaller.push(plan);
            }
        };
        add(&|plan| plan.operations /= 2);
        add(&|plan| plan.devices = 1);
        add(&|plan| plan.modules = 0);
        add(&|plan| plan.replicas = 1);
        add(&|plan| plan.partitions = 1);
        add(&|plan| plan.past = 0);
        for fault in &self.faults {
            add(&|plan| {
                plan.faults.remove(fault);
            });
        }
        add(&|plan| plan.hubs = 1);
        add(&|plan| plan.counts = false);
        add(&|plan| plan.cache = true);
        add(&|plan| plan.operations = plan.operations.saturating_sub(1).max(1));
        smaller.retain(|plan| plan.operations > 0);
        smaller
    }
}

/// Writes every field, so that the text means the same after the derivation from seeds has changed.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed={}", self.seed)?;
        for (name, value) in [
            ("replicas", self.replicas),
            ("hubs", self.hubs),
            ("partitions", self.partitions),
            ("devices", self.devices),
            ("modules", self.modules),
            ("operations", self.operations),
            ("registry", u64::from(self.registry)),
            ("past", self.past),
            ("rate", self.per_thousand),
            ("cache", u64::from(self.cache)),
            ("counts", u64::from(self.counts)),
        ] {
            write!(f, ",{name}={value}")?;
        }
        let faults: Vec<_> = self.faults.iter().map(|fault| fault.name()).collect();
        write!(f, ",faults={}", faults.join("+"))
    }
}

/// Reads the format of `Display`. Missing fields have the seed's value.
impl FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut plan = None;
        for part in text.split(',') {
            let (name, value) = part.split_once('=').ok_or_else(|| format!("`{part}` is no name=value"))?;
            let number = || value.trim().parse::<u64>().map_err(|_| format!("`{value}` is no number"));
            match (name.trim(), &mut plan) {
                ("seed", plan) => *plan = Some(Self::of(number()?)),
                (_, None) => return Err("the seed comes first".to_owned()),
                ("replicas", Some(plan)) => plan.replicas = number()?,
                ("hubs", Some(plan)) => plan.hubs = number()?,
                ("partitions", Some(plan)) => plan.partitions = number()?,
                ("devices", Some(plan)) => plan.devices = number()?,
                ("modules", Some(plan)) => plan.modules = number()?,
                ("operations", Some(plan)) => plan.operations = number()?,
                ("registry", Some(plan)) => plan.registry = number()? > 0,
                ("past", Some(plan)) => plan.past = number()?,
                ("rate", Some(plan)) => plan.per_thousand = number()?,
                ("cache", Some(plan)) => plan.cache = number()? > 0,
                ("counts", Some(plan)) => plan.counts = number()? > 0,
                ("faults", Some(plan)) => {
                    let names = value.split('+').map(str::trim).filter(|name| !name.is_empty());
                    plan.faults = names.map(fault).collect::<Result<_, _>>()?;
                }
                ("without", Some(plan)) => {
                    plan.faults.remove(&fault(value)?);
                }
                (name, _) => return Err(format!("there is no `{name}`")),
            }
        }
        plan.ok_or_else(|| "the seed comes first".to_owned())
    }
}

fn fault(name: &str) -> Result<Fault, String> {
    let fault = Fault::ALL.into_iter().find(|fault| fault.name() == name);
    fault.ok_or_else(|| format!("there is no fault `{name}`"))
}

#[test]
fn a_plan_is_read_as_it_is_written() {
    for seed in 0..200 {
        let plan = Plan::of(seed);
        assert_eq!(format!("seed={seed}").parse(), Ok(plan.clone()));
        assert_eq!(plan.to_string().parse(), Ok(plan.clone()));
        for smaller in plan.smaller() {
            assert_eq!(smaller.to_string().parse(), Ok(smaller.clone()), "{smaller}");
        }
    }
    assert!("seed=1,devices=x".parse::<Plan>().is_err());
    assert!("devices=1".parse::<Plan>().is_err());
}
