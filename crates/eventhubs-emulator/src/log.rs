//! The log of one partition, in memory and bounded by bytes.
//!
//! Sequence numbers have no gaps. If the oldest events are removed, the beginning moves, and the other events keep
//! their numbers. Offsets count bytes, so that a client that confuses them with sequence numbers fails. Readers
//! are woken by a notification. Each reader keeps its own cursor, a sequence number.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::sync::{Notify, futures::Notified};

use super::{
    position::{Bound, Position},
    wire::{self, Message, Payload, Stamp},
};

/// Bytes per event in addition to its payload: the record itself and its allocation.
const OVERHEAD_BYTES: usize = 64;

/// The state of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionState {
    /// Partition number. The partition id that clients use is this number in decimal.
    pub id: u16,
    /// Sequence number of the oldest retained event. If there is none, the sequence number of the next event.
    pub first_sequence_number: i64,
    /// Sequence number of the newest event ever appended. −1 if there was none.
    pub last_sequence_number: i64,
    /// Offset of the newest event ever appended. `-1` if there was none.
    pub last_offset: String,
    /// Enqueued time of the newest event ever appended, in milliseconds since the Unix epoch. 0 if there was none.
    pub last_enqueued_at: i64,
    /// Number of retained events.
    pub events: usize,
    /// Size of the retained events in bytes, with their bookkeeping.
    pub bytes: usize,
}

/// A start position after the end of the log. Usually it comes from an Event Hub that was deleted and created
/// again.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the supplied {what} '{supplied}' is invalid: the last {what} in the system is '{last}'")]
pub(super) struct BeyondEnd {
    what: &'static str,
    supplied: i64,
    last: i64,
}

/// One event that a reader gets.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) sequence_number: i64,
    pub(super) payload: Payload,
}

/// One partition.
#[derive(Debug)]
pub(super) struct Partition {
    id: u16,
    log: Mutex<Log>,
    changed: Notify,
    stalled: AtomicBool,
    limit_bytes: AtomicUsize,
}

#[derive(Debug)]
struct Log {
    records: VecDeque<Record>,
    first_sequence_number: i64,
    next_offset: i64,
    last_offset: i64,
    last_enqueued_at: i64,
    /// How many milliseconds earlier than now the enqueued time of new events is.
    stamped_earlier: i64,
    bytes: usize,
}

#[derive(Debug)]
struct Record {
    offset: i64,
    enqueued_at: i64,
    payload: Payload,
}

impl Partition {
    pub(super) fn new(id: u16, limit_bytes: usize) -> Self {
        Self {
            id,
            log: Mutex::new(Log::new()),
            changed: Notify::new(),
            stalled: AtomicBool::new(false),
            limit_bytes: AtomicUsize::new(limit_bytes),
        }
    }

    pub(super) fn id(&self) -> u16 {
        self.id
    }

    /// Adds sequence number, offset and time to the message, appends it, and wakes the readers.
    pub(super) fn append(&self, message: Message) -> Result<i64, serde_amqp::Error> {
        let sequence_number = self.lock().append(message, self.limit_bytes.load(Ordering::Relaxed))?;
        self.changed.notify_waiters();
        Ok(sequence_number)
    }

    /// Appends a delivery that no client can decode.
    pub(super) fn append_undecodable(&self) -> i64 {
        let sequence_number = {
            let mut log = self.lock();
            let stamp = log.next_stamp();
            log.push(stamp, Payload::Undecodable, self.limit_bytes.load(Ordering::Relaxed));
            stamp.sequence_number
        };
        self.changed.notify_waiters();
        sequence_number
    }

    /// Returns the sequence number at which a receiver with this position begins.
    pub(super) fn resolve(&self, position: Position) -> Result<i64, BeyondEnd> {
        self.lock().resolve(position)
    }

    /// Adds the events from `cursor` on to `entries`, at most `limit`. Adds none while deliveries are stalled.
    ///
    /// A cursor before the beginning continues at the beginning, as in Event Hubs for a slow reader.
    pub(super) fn read(&self, cursor: i64, limit: usize, entries: &mut Vec<Entry>) {
        if !self.is_stalled() {
            self.lock().read(cursor, limit, entries);
        }
    }

    /// Completes with the next change. To miss none, create and enable it *before* reading the log.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    pub(super) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Acquire)
    }

    pub(super) fn set_stalled(&self, stalled: bool) {
        self.stalled.store(stalled, Ordering::Release);
        self.changed.notify_waiters();
    }

    /// Limits the size of the log, now and at every later append.
    pub(super) fn limit(&self, bytes: usize) {
        self.limit_bytes.store(bytes, Ordering::Relaxed);
        self.lock().enforce(bytes);
    }

    /// Removes all events before a sequence number, as the end of their retention does.
    pub(super) fn expire_before(&self, sequence_number: i64) {
        let mut log = self.lock();
        while log.first_sequence_number < sequence_number && log.drop_oldest() {}
    }

    /// Sets how many milliseconds earlier than now the enqueued time of later events is.
    pub(super) fn stamp_earlier(&self, milliseconds: i64) {
        self.lock().stamped_earlier = milliseconds;
    }

    /// Starts over at sequence number 0 and offset 0, as an Event Hub that was deleted and created again.
    pub(super) fn reset(&self) {
        *self.lock() = Log::new();
        self.changed.notify_waiters();
    }

    pub(super) fn state(&self) -> PartitionState {
        let log = self.lock();
        PartitionState {
            id: self.id,
            first_sequence_number: log.first_sequence_number,
            last_sequence_number: log.next_sequence_number() - 1,
            last_offset: log.last_offset.to_string(),
            last_enqueued_at: log.last_enqueued_at,
            events: log.records.len(),
            bytes: log.bytes,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        // A poisoned lock is safe to use: every change of the log is complete before anything that could panic.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    fn new() -> Self {
        Self {
            records: VecDeque::new(),
            first_sequence_number: 0,
            next_offset: 0,
            last_offset: -1,
            last_enqueued_at: 0,
            stamped_earlier: 0,
            bytes: 0,
        }
    }

    fn next_sequence_number(&self) -> i64 {
        self.first_sequence_number + self.records.len() as i64
    }

    fn next_stamp(&self) -> Stamp {
        Stamp {
            sequence_number: self.next_sequence_number(),
            offset: self.next_offset,
            // The time never goes backwards, so that a search by time can be a binary search.
            enqueued_at: (now() - self.stamped_earlier).max(self.last_enqueued_at),
        }
    }

    fn append(&mut self, mut message: Message, limit_bytes: usize) -> Result<i64, serde_amqp::Error> {
        let stamp = self.next_stamp();
        wire::stamp(&mut message, stamp);
        let payload = Payload::Encoded(wire::encode(&message)?.into());
        self.push(stamp, payload, limit_bytes);
        Ok(stamp.sequence_number)
    }

    fn push(&mut self, stamp: Stamp, payload: Payload, limit_bytes: usize) {
        let bytes = payload.size() + OVERHEAD_BYTES;
        self.records.push_back(Record { offset: stamp.offset, enqueued_at: stamp.enqueued_at, payload });
        self.bytes += bytes;
        self.last_offset = stamp.offset;
        self.next_offset = stamp.offset + bytes as i64;
        self.last_enqueued_at = stamp.enqueued_at;
        self.enforce(limit_bytes);
    }

    /// Removes the oldest events until the log fits. The newest event always stays.
    fn enforce(&mut self, limit_bytes: usize) {
        while self.bytes > limit_bytes && self.records.len() > 1 {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) -> bool {
        let Some(oldest) = self.records.pop_front() else {
            return false;
        };
        self.bytes -= oldest.payload.size() + OVERHEAD_BYTES;
        self.first_sequence_number += 1;
        true
    }

    fn read(&self, cursor: i64, limit: usize, entries: &mut Vec<Entry>) {
        let skipped = usize::try_from(cursor - self.first_sequence_number).unwrap_or(0);
        let first = self.first_sequence_number + skipped as i64;
        let records = self.records.iter().skip(skipped).take(limit);
        entries.extend(
            (first..)
                .zip(records)
                .map(|(sequence_number, record)| Entry { sequence_number, payload: record.payload.clone() }),
        );
    }

    fn resolve(&self, position: Position) -> Result<i64, BeyondEnd> {
        let at = |index: usize| self.first_sequence_number + index as i64;
        let last_sequence_number = self.next_sequence_number() - 1;
        match position {
            Position::Earliest => Ok(self.first_sequence_number),
            Position::Latest => Ok(self.next_sequence_number()),
            Position::Offset(bound) if bound.value > self.last_offset => {
                Err(BeyondEnd { what: "offset", supplied: bound.value, last: self.last_offset })
            }
            Position::Offset(bound) => {
                Ok(at(self.records.partition_point(|record| before(record.offset, bound))))
            }
            Position::SequenceNumber(bound) if bound.value > last_sequence_number => {
                Err(BeyondEnd { what: "sequence number", supplied: bound.value, last: last_sequence_number })
            }
            Position::SequenceNumber(bound) => {
                let wanted = if bound.inclusive { bound.value } else { bound.value + 1 };
                Ok(wanted.max(self.first_sequence_number))
            }
            Position::EnqueuedTime(bound) => {
                Ok(at(self.records.partition_point(|record| before(record.enqueued_at, bound))))
            }
        }
    }
}

/// Whether an event with this value lies before the bound, and is skipped.
fn before(value: i64, bound: Bound) -> bool {
    if bound.inclusive { value < bound.value } else { value <= bound.value }
}

fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}
