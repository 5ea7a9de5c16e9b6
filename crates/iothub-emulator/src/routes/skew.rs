//! Delays one stream: its events arrive after later events of the other stream.

use std::{collections::VecDeque, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{Notification, Source, Timestamp};

/// Which stream is late, and by how much. The order within the stream is kept. If both sources share an Event Hub,
/// there is only one stream, and nothing is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Skew {
    /// The stream that is held back.
    pub late: Source,
    /// An event is sent after this many further notifications of the hub. `None`: only `ms` applies.
    #[serde(default)]
    pub notifications: Option<u64>,
    /// The event is sent after this many milliseconds at the latest.
    pub ms: u64,
}

#[derive(Debug)]
struct Held {
    notification: Notification,
    due: Timestamp,
    due_count: Option<u64>,
}

/// The events that are held back, in the order in which they will be sent.
#[derive(Debug, Default)]
pub(super) struct LateStream {
    skew: Option<Skew>,
    queue: VecDeque<Held>,
}

impl LateStream {
    /// Sets which events are held back from now on. Events that wait already keep their time, unless their stream is
    /// no longer late.
    pub(super) fn set(&mut self, skew: Option<Skew>) {
        self.skew = skew;
    }

    /// Takes an event if its stream is late. Returns whether it did.
    pub(super) fn hold(&mut self, notification: &Notification, now: Timestamp, count: u64) -> bool {
        let Some(skew) = self.skew.filter(|skew| skew.late == notification.change.source()) else {
            return false;
        };
        self.queue.push_back(Held {
            notification: notification.clone(),
            due: now.after(Duration::from_millis(skew.ms)),
            due_count: skew.notifications.map(|notifications| count.saturating_add(notifications)),
        });
        true
    }

    /// The next event, if it is due. It stays in the queue until [`LateStream::sent`].
    pub(super) fn due(&self, now: Timestamp, count: u64) -> Option<&Notification> {
        let held = self.queue.front()?;
        let is_late = self.skew.is_some_and(|skew| skew.late == held.notification.change.source());
        let is_due = held.due <= now || held.due_count.is_some_and(|due| due <= count);
        (!is_late || is_due).then_some(&held.notification)
    }

    /// The next event, even if it is not due.
    pub(super) fn next(&self) -> Option<&Notification> {
        self.queue.front().map(|held| &held.notification)
    }

    /// Removes the next event, which was sent.
    pub(super) fn sent(&mut self) {
        self.queue.pop_front();
    }
}
