//! Checks the Event Hubs: whether each can be read, and whether the checkpoints fit the partitions.
//!
//! A receiver is attached to each partition for a moment, without an owner level, so it displaces no other reader. It takes one of the five
//! reader places of the consumer group, a few partitions at a time, and releases it at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use azure_core::{credentials::TokenCredential, time::OffsetDateTime};
use azure_messaging_eventhubs::CheckpointStore;
use futures::{StreamExt, TryStreamExt, future::join_all, stream};

use super::{
    super::options::{eventhubs_options, start_options},
    Inspector, LIMIT, Shared, WHOLE_LIMIT,
    credential::{Scope, Tokens},
    stopped,
};
use crate::{
    adapters::{checkpoints, eventhubs::EventHub},
    config::{self, OnInvalid},
    domain::{
        checks::{
            self, Attached, Attempt, Checked, Finding, Found, Goes, Kind, Owner, Problem, hub, oldest,
            owners, retention,
        },
        message::Message,
        progress::Extent,
    },
    ports::{Clock as _, EventSource, SourceError, Start, SystemClock},
    runtime::{
        reconcile::requests::AuditRequests,
        start::{StartError, Stored, stored_positions},
    },
};

/// Maximum number of partitions that are attached at the same time. Each takes a connection and a reader place of the consumer group.
const AT_ONCE: usize = 8;

/// How long to wait for a refusal on a partition without events. A refusal comes as fast as an answer.
const QUIET: Duration = Duration::from_secs(3);

/// How long to wait for the first event of a partition that has events. Old events come from slower disks.
const FIRST_EVENT: Duration = Duration::from_secs(8);

/// Time limit of attaching to all partitions.
const ALL_LIMIT: Duration = Duration::from_secs(60);

/// An owner that has not renewed for this many lease durations is gone.
const LEASES: u32 = 2;

/// The facts that were found in all Event Hubs.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// Number of partitions of all Event Hubs. `None`: not all are known.
    pub(super) partitions: Option<u32>,
    /// Spellings of IoT hub names in events.
    pub(super) hub_names: BTreeSet<String>,
}

/// The lines and facts of one Event Hub.
struct OfHub {
    lines: Vec<Checked>,
    partitions: Option<usize>,
    hub_names: BTreeSet<String>,
}

/// The checkpoint store to read, or why it cannot be read.
type Store = Result<Option<Arc<dyn CheckpointStore>>, Finding>;

/// The finding for an error of a source.
fn problem(inspector: &Inspector<'_>, name: &str, source: SourceError) -> Problem {
    let namespace = inspector.settings.eventhubs.namespace.clone();
    let error = StartError::Source { hub: name.to_owned(), namespace, source };
    Problem::of_error(error.code(), &error.to_string())
}

fn late(what: String) -> impl FnOnce(String) -> Finding {
    move |late| {
        Finding::fail(
            "EVENTHUBS_UNAVAILABLE",
            format!("{what}: {late}"),
            "check eventhubs.namespace (and eventhubs.endpoint for an emulator), DNS, and that port 5671 is open",
        )
    }
}

impl Inspector<'_> {
    /// Runs the checks of this section.
    pub(super) async fn eventhubs(
        &self,
        credential: Option<&Arc<dyn TokenCredential>>,
        tokens: &Tokens,
        shared: &Shared,
    ) -> Vec<Checked> {
        let (eventhubs, tombstones) = (&self.settings.eventhubs, self.settings.document.tombstone_ttl);
        let mut lines =
            vec![Checked::new(Kind::EventHubsRetention, retention(eventhubs.retention, tombstones))];
        if !self.connect {
            shared.events.send_replace(Some(Seen::default()));
            return lines;
        }
        let missing = match credential {
            None => Some(Finding::needs(Kind::CredentialKind, "")),
            Some(_) => tokens.missing(Scope::EventHubs),
        };
        let names = eventhubs.hubs();
        let all = match (missing, credential) {
            (None, Some(credential)) => {
                let store = self.store(credential, shared).await;
                let work = names.iter().map(|name| Box::pin(self.of_hub(name, credential, &store)));
                join_all(work).await
            }
            (missing, _) => {
                let missing = missing.unwrap_or_else(stopped);
                names.iter().map(|name| nothing(name, missing.clone())).collect()
            }
        };
        let known: Option<usize> = all.iter().map(|hub| hub.partitions).sum();
        shared.events.send_replace(Some(Seen {
            partitions: known.and_then(|known| u32::try_from(known).ok()),
            hub_names: all.iter().flat_map(|hub| hub.hub_names.iter().cloned()).collect(),
        }));
        lines.extend(all.into_iter().flat_map(|hub| hub.lines));
        lines.sort_by_key(|line| line.kind); // stable: the hubs keep their order
        lines
    }

    /// Opens the checkpoint store for reading.
    async fn store(&self, credential: &Arc<dyn TokenCredential>, shared: &Shared) -> Store {
        if let config::CheckpointStore::Blob(_) = self.settings.checkpoint.store
            && !Shared::told(&shared.container).await
        {
            return Err(Finding::needs(Kind::BlobContainer, ""));
        }
        let open = checkpoints::open_read_only(&self.settings.checkpoint.store, credential);
        let late = |late: String| {
            Finding::fail(
                "BLOB_UNAVAILABLE",
                format!("reading the checkpoints: {late}"),
                "check blob.container_url",
            )
        };
        let opened = self.within(WHOLE_LIMIT, late, open).await?;
        opened.map_err(|error| Finding::of_error(error.code(), &error.to_string()))
    }

    async fn of_hub(&self, name: &str, credential: &Arc<dyn TokenCredential>, store: &Store) -> OfHub {
        let mut options = eventhubs_options(self.settings, name);
        options.open_timeout = options.open_timeout.min(LIMIT);
        // Only the first event is needed.
        options.prefetch = 1;
        let source = EventHub::new(options, Arc::clone(credential));
        let found = self.inspect(name, &source, store).await;
        source.close().await;
        found
    }

    async fn inspect(&self, name: &str, source: &EventHub, store: &Store) -> OfHub {
        let asked =
            self.within(WHOLE_LIMIT, late(format!("the Event Hub {name}")), source.partitions()).await;
        let partitions = match asked {
            Ok(Ok(partitions)) => partitions,
            Ok(Err(error)) => return nothing(name, Finding::Fail(problem(self, name, error))),
            Err(finding) => return nothing(name, finding),
        };
        // Read before the extents: otherwise a checkpoint that is written meanwhile would seem to lie beyond the partition's end.
        let stored = self.stored(name, store).await;
        let extents = async {
            let extents = partitions.iter().map(|partition| async {
                Ok::<_, SourceError>((partition.clone(), source.extent(partition).await?))
            });
            stream::iter(extents).buffered(AT_ONCE).try_collect::<Vec<_>>().await
        };
        let asked = self.within(WHOLE_LIMIT, late(format!("the partitions of {name}")), extents).await;
        let extents = match asked {
            Ok(Ok(extents)) => extents,
            Ok(Err(error)) => return nothing(name, Finding::Fail(problem(self, name, error))),
            Err(finding) => return nothing(name, finding),
        };
        let group = self.settings.eventhubs.consumer_group.as_str();
        let attach = extents.iter().map(|(partition, extent)| self.attach(name, source, partition, extent));
        let attach = stream::iter(attach).buffered(AT_ONCE).collect::<Vec<_>>();
        let (attached, firsts) = match self.within(ALL_LIMIT, late(format!("{name}/{group}")), attach).await {
            Ok(attached) => (Ok(()), attached),
            Err(finding) => (Err(finding), Vec::new()),
        };
        let (attempts, firsts): (Vec<_>, Vec<_>) = firsts.into_iter().unzip();
        let firsts: Vec<Message> = firsts.into_iter().flatten().collect();
        let read = match attached {
            Ok(()) => checks::group(group, &attempts),
            Err(finding) => finding,
        };
        let age = match read.is_usable() {
            true => self.oldest(&firsts),
            false => Finding::needs(Kind::EventHubsGroup, name),
        };
        let (checkpoints, owned) = match (stored, store) {
            (Err(finding), _) => (finding, None),
            (Ok(None), _) => (Finding::ok("kept in memory: each start begins as eventhubs.start says"), None),
            (Ok(Some(stored)), store) => {
                (self.checkpoints(stored, extents.clone()), Some(self.owned(name, store).await))
            }
        };
        let owned = owned.unwrap_or_else(|| match checkpoints.is_usable() {
            true => {
                Finding::Skipped("one process owns all partitions: checkpoints are not on blobs".to_owned())
            }
            false => Finding::needs(Kind::EventHubsCheckpoints, name),
        });
        OfHub {
            lines: vec![
                Checked::about(Kind::EventHubsHub, name, hub(partitions.len())),
                Checked::about(Kind::EventHubsGroup, name, read),
                Checked::about(Kind::EventHubsOldest, name, age),
                Checked::about(Kind::EventHubsCheckpoints, name, checkpoints),
                Checked::about(Kind::EventHubsOwners, name, owned),
            ],
            partitions: Some(partitions.len()),
            hub_names: firsts.iter().filter_map(hub_name).collect(),
        }
    }

    /// Attaches a receiver at the oldest event, waits for one event, and detaches.
    async fn attach(
        &self,
        name: &str,
        source: &EventHub,
        partition: &str,
        extent: &Extent,
    ) -> (Attached, Option<Message>) {
        let (attempt, first) = match source.open(partition, Start::Earliest).await {
            Err(error) => (Attempt::Failed(problem(self, name, error)), None),
            Ok(mut receiver) => {
                let limit = if extent.is_empty { QUIET } else { FIRST_EVENT };
                let received = tokio::time::timeout(limit, receiver.receive()).await;
                receiver.close().await;
                match received {
                    Ok(Ok(messages)) => (Attempt::Proved, messages.into_iter().next()),
                    // The content does not matter here: the event was delivered.
                    Ok(Err(SourceError::Undecodable(_))) => (Attempt::Proved, None),
                    Ok(Err(error)) => (Attempt::Failed(problem(self, name, error)), None),
                    Err(_) if extent.is_empty => (Attempt::Quiet, None),
                    Err(_) => {
                        let reason = format!(
                            "no event within {} s, although the partition has events",
                            limit.as_secs()
                        );
                        let error = SourceError::Lost { operation: "receiving", reason };
                        (Attempt::Failed(problem(self, name, error)), None)
                    }
                }
            }
        };
        (Attached { partition: partition.to_owned(), attempt }, first)
    }

    fn oldest(&self, firsts: &[Message]) -> Finding {
        let now = SystemClock.now();
        let ages = firsts.iter().filter_map(|message| Some(now.seconds_since(message.enqueued?).max(0.0)));
        let age = ages.max_by(f64::total_cmp).map(Duration::from_secs_f64);
        oldest(age, self.settings.eventhubs.retention, self.settings.document.tombstone_ttl)
    }

    /// The stored checkpoints, by partition. `None`: there is no store.
    async fn stored(&self, name: &str, store: &Store) -> Result<Option<BTreeMap<String, Stored>>, Finding> {
        let store = match store {
            Ok(Some(store)) => store,
            Ok(None) => return Ok(None),
            Err(finding) => return Err(finding.clone()),
        };
        let options = start_options(self.settings, &AuditRequests::nobodys());
        let work = stored_positions(&**store, &options, name);
        let late = |late: String| {
            Finding::fail(
                "BLOB_UNAVAILABLE",
                format!("reading the checkpoints: {late}"),
                "check blob.container_url",
            )
        };
        let stored = self.within(WHOLE_LIMIT, late, work).await?;
        stored.map(Some).map_err(|error| Finding::of_error(error.code(), &error.to_string()))
    }

    fn checkpoints(&self, mut stored: BTreeMap<String, Stored>, extents: Vec<(String, Extent)>) -> Finding {
        let goes = match self.settings.checkpoint.on_invalid {
            OnInvalid::Stop => Goes::Nowhere,
            OnInvalid::Earliest => Goes::On,
            OnInvalid::EarliestAndAudit => Goes::OnWithAudit,
        };
        let found = extents.into_iter().map(|(partition, extent)| {
            let found = match stored.remove(&partition) {
                None => Found::Nothing,
                Some(Stored::At(position)) => Found::At(position),
                Some(Stored::WithoutNumber) => Found::Unnumbered,
            };
            (partition, found, extent)
        });
        checks::checkpoints(&found.collect::<Vec<_>>(), goes)
    }

    async fn owned(&self, name: &str, store: &Store) -> Finding {
        let (config::CheckpointStore::Blob(_), Ok(Some(store))) = (&self.settings.checkpoint.store, store)
        else {
            return Finding::Skipped(
                "one process owns all partitions: checkpoints are not on blobs".to_owned(),
            );
        };
        let eventhubs = &self.settings.eventhubs;
        let late = |late: String| {
            Finding::fail(
                "BLOB_UNAVAILABLE",
                format!("reading the owners: {late}"),
                "check blob.container_url",
            )
        };
        let list = store.list_ownerships(&eventhubs.namespace, name, &eventhubs.consumer_group);
        let listed = match self.within(WHOLE_LIMIT, late, list).await {
            Ok(Ok(listed)) => listed,
            Ok(Err(error)) => {
                let trouble = super::super::options::classify_checkpoint_error(&error);
                return Finding::of_error(trouble.code, &trouble.reason);
            }
            Err(finding) => return finding,
        };
        let now = OffsetDateTime::now_utc();
        let owner = |ownership: azure_messaging_eventhubs::models::Ownership| {
            let age =
                ownership.last_modified_time.map(|time| (now - time).try_into().unwrap_or(Duration::ZERO));
            let name = ownership.owner_id.filter(|owner| !owner.is_empty())?;
            Some(Owner { partition: ownership.partition_id, name, age })
        };
        let found: Vec<_> = listed.into_iter().filter_map(owner).collect();
        owners(&found, self.settings.lease.duration * LEASES)
    }
}

/// The spelling of the IoT hub's name in an event.
fn hub_name(message: &Message) -> Option<String> {
    let name = message.application_properties.get("hubName")?.as_text()?;
    Some(name.into_owned()).filter(|name| !name.is_empty())
}

/// The lines for an Event Hub that does not answer: the finding, and a skipped line for every check that depends on it.
fn nothing(name: &str, finding: Finding) -> OfHub {
    let rest =
        [Kind::EventHubsGroup, Kind::EventHubsOldest, Kind::EventHubsCheckpoints, Kind::EventHubsOwners];
    let rest = rest.map(|kind| Checked::about(kind, name, Finding::needs(Kind::EventHubsHub, name)));
    OfHub {
        lines: std::iter::once(Checked::about(Kind::EventHubsHub, name, finding)).chain(rest).collect(),
        partitions: None,
        hub_names: BTreeSet::new(),
    }
}
