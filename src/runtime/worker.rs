//! Performs the read-modify-write of one twin against the store, and what has to follow it.
//!
//! A worker never waits. If the store gives no answer, the work comes back as [`WorkResult::Unanswered`] in its current state. The router
//! decides when it goes on. So a failing twin holds no slot.

use std::sync::Arc;

use tokio::time::Instant;

use crate::{
    domain::{
        decide::follow,
        document::{Cascade, Document, ETag},
        event::TwinEvent,
        id::TwinKey,
        invariant::Invariant,
        retry::Backoff,
        upsert::{Action, Upsert},
    },
    ports::{Charged, Clock, Read, StoreError, StoreErrorKind, TWIN_UNANSWERED, TwinStore, Write},
    telemetry::{
        Metrics, Purpose, ReadOutcome, WriteKind, WriteOutcome,
        event::{InvariantBroken, ModulesQueried, ReadFinished, WriteFinished},
        trace::WriteTrace,
    },
};

/// After so many failed conditions in a row, the work comes back and waits. One failure is another writer's write. Two or three occur when
/// two replicas process one partition. More are reads that do not see earlier writes, and only time repairs that.
const CONFLICTS_IN_A_ROW: u32 = 5;

/// An ETag that no version of any document has.
const NOBODYS_ETAG: &str = "0";

/// Dependencies that workers share.
pub struct Tools {
    /// The store of the documents.
    pub store: Arc<dyn TwinStore>,
    /// The clock for the timestamps of writes.
    pub clock: Arc<dyn Clock>,
    /// Counts reads, writes and their outcomes.
    pub metrics: Metrics,
}

/// One batch of events of one twin that is being written.
pub struct Work<T> {
    /// The twin.
    pub key: TwinKey,
    /// State of the read-modify-write.
    pub upsert: Upsert,
    /// The item of each event, in the order of the events.
    pub items: Vec<T>,
    /// Delays between attempts.
    pub backoff: Backoff,
    /// Request units spent since the work last came back to the router.
    pub request_units: f64,
    /// Whether the store was asked since the work last came back to the router. A result from memory says nothing about the store.
    pub asked: bool,
    /// The deletion of a device that its modules are already following.
    pub followed: Option<Cascade>,
    /// The trace of this write, if one of its events is sampled.
    pub trace: Option<Box<WriteTrace>>,
}

impl<T> Work<T> {
    /// The time at which a request begins, if a trace is recorded.
    fn begins(&self) -> Option<Instant> {
        self.trace.is_some().then(Instant::now)
    }

    /// Records the end of a request that began at `began`.
    fn ended(
        &mut self,
        operation: &'static str,
        began: Option<Instant>,
        outcome: (&'static str, bool),
        request_units: f64,
    ) {
        if let (Some(trace), Some(began)) = (&mut self.trace, began) {
            trace.attempted(operation, began, outcome.0, outcome.1, request_units);
        }
    }
}

/// Result of a worker.
pub enum WorkResult<T> {
    /// Everything is durable. `follow` has to be durable too before the events count as completed.
    Finished {
        /// The work.
        work: Box<Work<T>>,
        /// Events of modules that have to follow their device.
        follow: Vec<TwinEvent>,
    },
    /// The store gave no answer.
    Unanswered {
        /// The work, to be resumed.
        work: Box<Work<T>>,
        /// The error.
        trouble: StoreError,
    },
}

/// Runs `work` until it is finished or the store gives no answer.
pub async fn run<T: Send>(tools: Arc<Tools>, mut work: Box<Work<T>>) -> WorkResult<T> {
    match perform(&tools, &mut work).await {
        Ok(follow) => WorkResult::Finished { work, follow },
        Err(trouble) => WorkResult::Unanswered { work, trouble },
    }
}

async fn perform<T: Send>(tools: &Tools, work: &mut Work<T>) -> Result<Vec<TwinEvent>, StoreError> {
    loop {
        bring_in(tools, work).await?;
        if !work.key.is_module() {
            return cascade(tools, work).await;
        }
        // SUBTLE: a module's events may arrive after its device was deleted. The device writes its tombstone and then reads its modules.
        // The module writes and then reads its device. Whatever the interleaving, at least one of the two sees the other: each read asks
        // for Session consistency, so it covers the reader's own write, and with it everything that was written before in their common
        // partition.
        if work.upsert.began_incarnation().is_none() || planted!(DeviceNotChecked) {
            return Ok(Vec::new());
        }
        let device = read(tools, work, &work.key.parent()).await?;
        if !work.upsert.checked_device(device.as_ref().map(|(device, _)| device.as_ref())) {
            return Ok(Vec::new());
        }
    }
}

/// Checks whether the store takes writes. It sends a write that cannot be applied: of a document that does not exist, on a condition that
/// never holds. A read is not enough: a store may answer reads and take no writes.
pub async fn probe(tools: Arc<Tools>, document: Document) -> Charged<Result<(), StoreError>> {
    let key = &document.key;
    let Charged { outcome, request_units } =
        tools.store.replace(key, &document, &ETag(NOBODYS_ETAG.to_owned())).await;
    let message = match &outcome {
        Write::Written(_) | Write::Conflict => None,
        Write::Rejected(reason) => Some(reason.as_str()),
        Write::Unknown(trouble) => Some(trouble.message.as_str()),
    };
    WriteFinished {
        purpose: Purpose::Live,
        twin: key,
        kind: WriteKind::Probe,
        outcome: WriteOutcome::from(&outcome),
        events: 0,
        request_units,
        message,
    }
    .emit(&tools.metrics);
    let outcome = match outcome {
        Write::Unknown(trouble) => Err(trouble),
        Write::Written(_) | Write::Conflict | Write::Rejected(_) => Ok(()),
    };
    Charged { outcome, request_units }
}

/// Applies the events to the document, and writes it.
async fn bring_in<T: Send>(tools: &Tools, work: &mut Work<T>) -> Result<(), StoreError> {
    let mut conflicts = 0;
    loop {
        let began;
        let (kind, charged) = match work.upsert.action(tools.clock.now()) {
            Action::Done => return Ok(()),
            Action::Read => {
                let key = work.key.clone();
                match read_raw(tools, work, &key).await {
                    Read::Present(document, etag) => work.upsert.found(document, etag),
                    Read::Absent => work.upsert.absent(),
                    Read::Damaged(etag, _) => work.upsert.damaged(etag),
                    Read::Foreign(reason) => work.upsert.foreign(&reason),
                    Read::Refused(reason) => work.upsert.refused(&reason),
                    Read::Unknown(trouble) => return Err(trouble),
                }
                continue;
            }
            Action::Create(document) | Action::Replace(document, _) if document.key != work.key => {
                let detail =
                    format!("a document of {} was to be written as that of {}", document.key, work.key);
                InvariantBroken { invariant: Invariant::DocumentIsOfItsTwin, detail: &detail }
                    .emit(&tools.metrics);
                work.upsert.rejected(detail);
                continue;
            }
            Action::Create(document) => {
                began = work.begins();
                (WriteKind::Create, tools.store.create(&work.key, &document).await)
            }
            Action::Replace(document, etag) => {
                began = work.begins();
                (WriteKind::Replace, tools.store.replace(&work.key, &document, &etag).await)
            }
        };
        let Charged { outcome, request_units } = charged;
        work.request_units += request_units;
        work.asked = true;
        let message = match &outcome {
            Write::Written(_) | Write::Conflict => None,
            Write::Rejected(reason) => Some(reason.as_str()),
            Write::Unknown(trouble) => Some(trouble.message.as_str()),
        };
        WriteFinished {
            purpose: Purpose::Live,
            twin: &work.key,
            kind,
            outcome: WriteOutcome::from(&outcome),
            events: work.items.len(),
            request_units,
            message,
        }
        .emit(&tools.metrics);
        let operation = if kind == WriteKind::Create { "create_item" } else { "replace_item" };
        let label = WriteOutcome::from(&outcome);
        work.ended(operation, began, (label.label(), label != WriteOutcome::Written), request_units);
        match outcome {
            Write::Written(etag) => {
                work.backoff.reset();
                conflicts = 0;
                work.upsert.written(etag);
            }
            Write::Conflict if planted!(ConflictIsWritten) => work.upsert.written(ETag(NOBODYS_ETAG.into())),
            Write::Conflict => {
                if !planted!(ConflictKeepsCache) {
                    work.upsert.unsure();
                }
                conflicts += 1;
                if conflicts >= CONFLICTS_IN_A_ROW {
                    return Err(quarrel(kind, conflicts));
                }
            }
            Write::Rejected(reason) => work.upsert.rejected(reason),
            Write::Unknown(trouble)
                if trouble.kind == StoreErrorKind::Unavailable && planted!(SilenceIsWritten) =>
            {
                work.upsert.written(ETag(NOBODYS_ETAG.into()));
            }
            Write::Unknown(trouble) => {
                // A throttled write was not applied. Reading it back would only add load.
                if trouble.kind == StoreErrorKind::Unavailable {
                    work.upsert.unsure();
                }
                return Err(trouble);
            }
        }
    }
}

fn quarrel(kind: WriteKind, conflicts: u32) -> StoreError {
    StoreError {
        kind: StoreErrorKind::Contradictory,
        code: TWIN_UNANSWERED,
        retry_after: None,
        message: format!(
            "{}: the condition failed {conflicts} times in a row: another writer changes the document, reads return an old version, or a unique key policy of the container forbids the write",
            kind.label()
        ),
    }
}

/// Finds the modules that have to follow a deleted or re-created device.
async fn cascade<T: Send>(tools: &Tools, work: &mut Work<T>) -> Result<Vec<TwinEvent>, StoreError> {
    // If the cascade is already in progress, a change need not wait for it. A deletion or a creation has to wait: it may be here for the
    // second time, because of a checkpoint that does not cover the first time.
    let waits = |cascade: &Cascade| work.followed != Some(*cascade) || !work.upsert.holds_changes_only();
    let owed = work.upsert.cascade().filter(waits);
    let Some(cascade) = owed.filter(|_| !planted!(CascadeOmitted)) else {
        return Ok(Vec::new());
    };
    let began = work.begins();
    let Charged { outcome, request_units } = tools.store.modules(&work.key).await;
    let label =
        outcome.as_ref().map_or_else(|trouble| ReadOutcome::from(trouble.kind), |_| ReadOutcome::Present);
    work.ended("query_items", began, (label.label(), outcome.is_err()), request_units);
    work.request_units += request_units;
    work.asked = true;
    let modules = outcome.as_ref().map(Vec::len);
    ModulesQueried { purpose: Purpose::Live, twin: &work.key, modules, request_units }.emit(&tools.metrics);
    let modules = outcome?;
    if modules.is_empty() {
        work.upsert.cascaded();
    }
    // SUBTLE: otherwise the note stays until the modules have followed, also in memory. If it were removed now, the next write of the
    // device would store that the cascade is complete, and a crash before the modules are durable would lose it. The deletion would then
    // come again and be taken for complete.
    Ok(modules.into_iter().map(|module| follow(module, cascade)).collect())
}

async fn read<T: Send>(
    tools: &Tools,
    work: &mut Work<T>,
    key: &TwinKey,
) -> Result<Option<(Arc<Document>, ETag)>, StoreError> {
    match read_raw(tools, work, key).await {
        Read::Present(document, etag) => Ok(Some((document, etag))),
        Read::Absent | Read::Damaged(..) | Read::Foreign(_) | Read::Refused(_) => Ok(None),
        Read::Unknown(trouble) => Err(trouble),
    }
}

async fn read_raw<T: Send>(tools: &Tools, work: &mut Work<T>, key: &TwinKey) -> Read {
    let began = work.begins();
    let Charged { outcome, request_units } = tools.store.read(key).await;
    let label = ReadOutcome::from(&outcome);
    let failed = !matches!(outcome, Read::Present(..) | Read::Absent);
    work.ended("read_item", began, (label.label(), failed), request_units);
    work.request_units += request_units;
    work.asked = true;
    let message = match &outcome {
        Read::Present(..) | Read::Absent => None,
        Read::Damaged(_, reason) | Read::Foreign(reason) | Read::Refused(reason) => Some(reason.as_str()),
        Read::Unknown(trouble) => Some(trouble.message.as_str()),
    };
    ReadFinished {
        purpose: Purpose::Live,
        twin: key,
        outcome: ReadOutcome::from(&outcome),
        request_units,
        message,
    }
    .emit(&tools.metrics);
    outcome
}

#[cfg(test)]
mod tests;
