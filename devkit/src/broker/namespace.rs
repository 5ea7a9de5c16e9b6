//! What the broker serves: hubs with their partitions, consumer groups and readers, shared by all connections.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use super::{Error, HubOptions, Options, faults::Switches, hash, log::Partition, readers::Readers};

/// The consumer group that every hub has.
pub(super) const DEFAULT_GROUP: &str = "$Default";

/// Bytes that a partition retains unless told otherwise.
const DEFAULT_PARTITION_BYTES: usize = 512 * 1024 * 1024;

/// Partitions per hub that the dedicated tier of Event Hubs allows.
const MAXIMUM_PARTITIONS: u16 = 1024;

/// Everything that connections share.
#[derive(Debug)]
pub(super) struct Namespace {
    hubs: BTreeMap<String, Arc<Hub>>,
    accepted_token: Option<String>,
    pub(super) switches: Switches,
}

/// One hub.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) name: String,
    /// Milliseconds since the Unix epoch.
    pub(super) created_at: i64,
    lanes: Vec<Lane>,
    groups: Mutex<Vec<String>>,
    next: AtomicUsize,
}

/// A partition and those who read it.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) partition: Partition,
    pub(super) readers: Arc<Readers>,
}

impl Namespace {
    pub(super) fn new(options: Options) -> Result<Self, Error> {
        let mut hubs = BTreeMap::new();
        for hub in options.hubs {
            let hub = Hub::new(hub)?;
            if hubs.contains_key(&key(&hub.name)) {
                return Err(Error::DuplicateHub { hub: hub.name });
            }
            hubs.insert(key(&hub.name), Arc::new(hub));
        }
        Ok(Self { hubs, accepted_token: options.accepted_token, switches: Switches::default() })
    }

    pub(super) fn hubs(&self) -> impl Iterator<Item = &Arc<Hub>> {
        self.hubs.values()
    }

    pub(super) fn hub(&self, name: &str) -> Result<&Arc<Hub>, Error> {
        self.hubs.get(&key(name)).ok_or_else(|| Error::UnknownHub { hub: name.to_owned() })
    }

    /// Whether this is the token that the broker wants to see.
    pub(super) fn accepts(&self, token: &str) -> bool {
        self.accepted_token.as_deref().is_none_or(|accepted| accepted == token)
    }
}

impl Hub {
    fn new(options: HubOptions) -> Result<Self, Error> {
        if options.partitions == 0 || options.partitions > MAXIMUM_PARTITIONS {
            return Err(Error::PartitionCount { hub: options.name, maximum: MAXIMUM_PARTITIONS });
        }
        let lane = |id| Lane {
            partition: Partition::new(id, DEFAULT_PARTITION_BYTES),
            readers: Arc::new(Readers::default()),
        };
        let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            name: options.name,
            created_at: i64::try_from(created.as_millis()).unwrap_or(i64::MAX),
            lanes: (0..options.partitions).map(lane).collect(),
            groups: Mutex::new(options.consumer_groups),
            next: AtomicUsize::new(0),
        })
    }

    pub(super) fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    pub(super) fn lane(&self, partition: u16) -> Result<&Lane, Error> {
        self.lanes.get(usize::from(partition)).ok_or_else(|| Error::UnknownPartition {
            hub: self.name.clone(),
            partition: partition.to_string(),
        })
    }

    /// The partition with this id; ids are decimal numbers without leading zeros.
    pub(super) fn lane_by_id(&self, id: &str) -> Result<&Lane, Error> {
        self.lanes
            .iter()
            .find(|lane| lane.partition.id().to_string() == id)
            .ok_or_else(|| Error::UnknownPartition { hub: self.name.clone(), partition: id.to_owned() })
    }

    /// The partition that a key belongs to; without a key the partitions take turns.
    pub(super) fn lane_for(&self, partition_key: Option<&str>) -> &Lane {
        let count = self.lanes.len();
        let index = match partition_key {
            Some(key) => usize::from(hash::partition(key, u16::try_from(count).unwrap_or(u16::MAX))),
            None => self.next.fetch_add(1, Ordering::Relaxed) % count,
        };
        &self.lanes[index]
    }

    /// The consumer group's one spelling; names are case-insensitive.
    pub(super) fn group(&self, name: &str) -> Result<String, Error> {
        if DEFAULT_GROUP.eq_ignore_ascii_case(name) {
            return Ok(DEFAULT_GROUP.to_owned());
        }
        let groups = self.groups();
        let group = groups.iter().find(|group| group.eq_ignore_ascii_case(name)).cloned();
        group.ok_or_else(|| Error::UnknownGroup { hub: self.name.clone(), group: name.to_owned() })
    }

    /// Adds a consumer group, or takes one away.
    pub(super) fn set_group(&self, name: &str, exists: bool) {
        let mut groups = self.groups();
        groups.retain(|group| !group.eq_ignore_ascii_case(name));
        if exists {
            groups.push(name.to_owned());
        }
    }

    fn groups(&self) -> MutexGuard<'_, Vec<String>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(name: &str) -> String {
    name.to_ascii_lowercase()
}
