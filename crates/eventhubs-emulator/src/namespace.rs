//! The state that all connections share: hubs with their partitions, consumer groups and readers.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use super::{Error, HubOptions, Options, hash, log::Partition, readers::Readers, switches::Switches};

/// The consumer group that every hub has.
pub(super) const DEFAULT_GROUP: &str = "$Default";

/// The default size limit of a partition, in bytes.
const DEFAULT_PARTITION_BYTES: usize = 512 * 1024 * 1024;

/// Maximum number of partitions per hub in the Dedicated tier of Event Hubs.
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
    /// It only grows: partitions are never removed.
    lanes: RwLock<Vec<Arc<Lane>>>,
    groups: Mutex<Vec<String>>,
    next: AtomicUsize,
    limit_bytes: AtomicUsize,
}

/// A partition and its readers.
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

    /// Whether `$cbs` accepts this token.
    pub(super) fn accepts(&self, token: &str) -> bool {
        self.accepted_token.as_deref().is_none_or(|accepted| accepted == token)
    }
}

impl Lane {
    fn new(id: u16, limit_bytes: usize) -> Arc<Self> {
        Arc::new(Self { partition: Partition::new(id, limit_bytes), readers: Arc::new(Readers::default()) })
    }
}

impl Hub {
    fn new(options: HubOptions) -> Result<Self, Error> {
        if options.partitions == 0 || options.partitions > MAXIMUM_PARTITIONS {
            return Err(Error::PartitionCount { hub: options.name, maximum: MAXIMUM_PARTITIONS });
        }
        let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            name: options.name,
            created_at: i64::try_from(created.as_millis()).unwrap_or(i64::MAX),
            lanes: RwLock::new(
                (0..options.partitions).map(|id| Lane::new(id, DEFAULT_PARTITION_BYTES)).collect(),
            ),
            groups: Mutex::new(options.consumer_groups),
            next: AtomicUsize::new(0),
            limit_bytes: AtomicUsize::new(DEFAULT_PARTITION_BYTES),
        })
    }

    /// The present partitions, by number.
    pub(super) fn lanes(&self) -> Vec<Arc<Lane>> {
        self.lanes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds partitions after the existing ones. Returns the new number of partitions. Most partition keys move to
    /// other partitions.
    pub(super) fn add_partitions(&self, count: u16) -> Result<u16, Error> {
        // A poisoned lock is safe to use: `extend` is the only change, and it does not panic half way.
        let mut lanes = self.lanes.write().unwrap_or_else(PoisonError::into_inner);
        let present = u16::try_from(lanes.len()).unwrap_or(u16::MAX);
        let total = present.saturating_add(count);
        if count == 0 || total > MAXIMUM_PARTITIONS {
            return Err(Error::PartitionCount { hub: self.name.clone(), maximum: MAXIMUM_PARTITIONS });
        }
        let limit = self.limit_bytes.load(Ordering::Relaxed);
        lanes.extend((present..total).map(|id| Lane::new(id, limit)));
        Ok(total)
    }

    /// Limits the size of every partition, and of those that are added later.
    pub(super) fn limit_partitions(&self, bytes: usize) {
        let lanes = self.lanes.write().unwrap_or_else(PoisonError::into_inner);
        self.limit_bytes.store(bytes, Ordering::Relaxed);
        lanes.iter().for_each(|lane| lane.partition.limit(bytes));
    }

    pub(super) fn lane(&self, partition: u16) -> Result<Arc<Lane>, Error> {
        let lanes = self.lanes.read().unwrap_or_else(PoisonError::into_inner);
        lanes.get(usize::from(partition)).cloned().ok_or_else(|| Error::UnknownPartition {
            hub: self.name.clone(),
            partition: partition.to_string(),
        })
    }

    /// The partition with this id. Ids are decimal numbers without leading zeros.
    pub(super) fn lane_by_id(&self, id: &str) -> Result<Arc<Lane>, Error> {
        let mut lanes = self.lanes().into_iter();
        lanes
            .find(|lane| lane.partition.id().to_string() == id)
            .ok_or_else(|| Error::UnknownPartition { hub: self.name.clone(), partition: id.to_owned() })
    }

    /// The partition of a partition key. Without a key, the partitions take turns.
    pub(super) fn lane_for(&self, partition_key: Option<&str>) -> Arc<Lane> {
        let lanes = self.lanes.read().unwrap_or_else(PoisonError::into_inner);
        let count = lanes.len();
        let index = match partition_key {
            Some(key) => usize::from(hash::partition(key, u16::try_from(count).unwrap_or(u16::MAX))),
            None => self.next.fetch_add(1, Ordering::Relaxed) % count,
        };
        Arc::clone(&lanes[index])
    }

    /// Returns the name of a consumer group as it was configured. Names are not case-sensitive.
    pub(super) fn group(&self, name: &str) -> Result<String, Error> {
        if DEFAULT_GROUP.eq_ignore_ascii_case(name) {
            return Ok(DEFAULT_GROUP.to_owned());
        }
        let groups = self.groups();
        let group = groups.iter().find(|group| group.eq_ignore_ascii_case(name)).cloned();
        group.ok_or_else(|| Error::UnknownGroup { hub: self.name.clone(), group: name.to_owned() })
    }

    /// Adds or removes a consumer group.
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
