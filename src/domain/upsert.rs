//! Read-modify-write of one twin as a state machine: the runtime performs the action that [`Upsert::action`] returns
//! and reports the result.
//!
//! ```text
//!            ┌──────────── conflict, unknown ───────────┐
//!            ▼                                          │
//! start ─► Read ─► decide ─► Create | Replace ─► written ─► Done
//!   └─ cached ───────┘  └─ nothing to change ───────────────►│
//! ```
//!
//! SUBTLE: a failed condition does not mean that another writer won. The SDK re-sends writes after ambiguous failures,
//! so a 412 or 409 may be the answer to the second copy of our own, stored write. After a timeout, it is unknown
//! whether the write happened. So every such answer leads to a read, and the document that was read is compared with
//! the one we tried to write. If all fields are equal (`applied_at` has a resolution of 100 ns), ignoring how numbers
//! are written, it is our write. Otherwise the events are decided again on the stored document; versions make that
//! harmless. Rejected alternatives: counting a conflict as lost (reports applied events as duplicates); a write id in
//! the document (one more field to store and to explain, for the same result).
//!
//! A batch that the store permanently rejects (too large) is written event by event, so that the content of one event
//! cannot cause the rejection of the others.

use std::sync::Arc;

use super::{
    decide::{Decision, Rules, decide, follow},
    document::{Cascade, Document, ETag, Flag, Operation, State},
    event::{Change, TwinEvent},
    ticks::Ticks,
};

/// The next action for the runtime.
#[derive(Debug, Clone)]
pub enum Action {
    /// Read the document; answer with [`Upsert::found`], [`Upsert::absent`], [`Upsert::damaged`],
    /// [`Upsert::foreign`] or [`Upsert::refused`].
    Read,
    /// Create this document; answer with [`Upsert::written`], [`Upsert::unsure`] or [`Upsert::rejected`].
    Create(Arc<Document>),
    /// Replace the document that has this ETag; the answers are the same as for `Create`.
    Replace(Arc<Document>, ETag),
    /// Nothing left to do.
    Done,
}

/// The outcome of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventOutcome {
    /// Decided, and durable if anything changed.
    Decided(Decision),
    /// The store will never accept the result of this event; the text says why.
    Rejected(String),
    /// The twin's document belongs to another twin; the text names it.
    Foreign(String),
}

/// What is known about the stored item.
#[derive(Debug, Clone)]
enum Stored {
    /// Unknown. The document that was known may be in the attempt, already changed.
    Unknown,
    Absent,
    Present(Arc<Document>, ETag),
    /// The stored item is not one of our documents.
    Damaged(ETag),
}

/// A write without an answer yet.
#[derive(Debug)]
struct Attempt {
    document: Arc<Document>,
    /// The version that it replaces; `None` if there must be no document.
    over: Option<ETag>,
    decisions: Vec<Decision>,
    /// The beginning of an incarnation in it, see [`Upsert::began_incarnation`].
    incarnation: Option<Ticks>,
}

impl Attempt {
    fn action(&self) -> Action {
        let document = Arc::clone(&self.document);
        match &self.over {
            None => Action::Create(document),
            Some(etag) => Action::Replace(document, etag.clone()),
        }
    }
}

/// The events of one twin on their way into its document.
#[derive(Debug)]
pub struct Upsert {
    events: Vec<TwinEvent>,
    outcomes: Vec<EventOutcome>,
    /// How many events the next write contains.
    take: usize,
    stored: Stored,
    attempt: Option<Attempt>,
    /// Whether the outcome of `attempt` is unknown.
    unsure: bool,
    rules: Rules,
    incarnation: Option<Ticks>,
}

impl Upsert {
    /// Starts to write `events`, in their order, into the document of their twin. `cached` is the document as it was
    /// last read or written.
    pub fn new(events: Vec<TwinEvent>, cached: Option<(Arc<Document>, ETag)>, rules: Rules) -> Self {
        let stored = cached.map_or(Stored::Unknown, |(document, etag)| Stored::Present(document, etag));
        Self {
            take: events.len(),
            outcomes: Vec::with_capacity(events.len()),
            events,
            stored,
            attempt: None,
            unsure: false,
            rules,
            incarnation: None,
        }
    }

    /// Returns the next action. `now` becomes `applied_at` of what is decided.
    ///
    /// A write that is known not to have been applied is returned again unchanged.
    pub fn action(&mut self, now: Ticks) -> Action {
        while self.outcomes.len() < self.events.len() {
            match &self.attempt {
                Some(attempt) if !self.unsure => return attempt.action(),
                Some(_) | None => {}
            }
            // SUBTLE: the document is taken and changed in place. So the cost of a change depends on the size of the
            // change, not on the size of the twin. If the document is shared, it is copied. Until the write is
            // answered, the stored state is unknown.
            let (current, over) = match std::mem::replace(&mut self.stored, Stored::Unknown) {
                Stored::Unknown => return Action::Read,
                Stored::Absent => (None, None),
                Stored::Present(document, etag) => (Some(document), Some(etag)),
                Stored::Damaged(etag) => (None, Some(etag)),
            };
            let damaged = current.is_none() && over.is_some();
            let began = current.as_deref().and_then(Document::beginning);
            let (document, changed, decisions) = self.fold(current.map(Arc::unwrap_or_clone), damaged, now);
            let incarnation = self.begun(began, document.as_ref());
            match (document, over) {
                (Some(document), over) if changed => {
                    let document = Arc::new(document);
                    self.attempt = Some(Attempt { document, over, decisions, incarnation });
                }
                (document, over) => {
                    self.stored = match (document, over) {
                        (Some(document), Some(etag)) => Stored::Present(Arc::new(document), etag),
                        (None, Some(etag)) => Stored::Damaged(etag),
                        (_, None) => Stored::Absent,
                    };
                    self.incarnation = incarnation.or(self.incarnation);
                    self.decided(decisions); // no write
                }
            }
        }
        Action::Done
    }

    /// Decides on the next `take` events; also returns whether anything changed.
    fn fold(
        &self,
        mut document: Option<Document>,
        damaged: bool,
        now: Ticks,
    ) -> (Option<Document>, bool, Vec<Decision>) {
        let before = document.as_ref().map(Document::marks);
        let decide_on = |document: &mut Option<Document>, event: &TwinEvent| match &event.change {
            // It may be the module that has to follow: it is replaced, and the hub is asked.
            Change::ParentReborn if damaged && document.is_none() => {
                let event = TwinEvent { key: event.key.clone(), at: event.at, change: Change::Unapplied };
                decide(document, &event, now, &self.rules)
            }
            _ => decide(document, event, now, &self.rules),
        };
        let decisions: Vec<_> = self.pending().iter().map(|event| decide_on(&mut document, event)).collect();
        if damaged && let Some(document) = &mut document {
            // The stored item could not be read, so the new document may lack something.
            document.flags.insert(Flag::Suspect);
            document.refused = document.refused.max(Some(document.last));
        }
        // Every change of the content changes a mark or has one of these decisions; comparing the contents would cost
        // more than the change.
        let applied =
            |decision: &Decision| matches!(decision, Decision::Applied | Decision::Gap | Decision::Partial);
        let changed = decisions.iter().any(applied) || document.as_ref().map(Document::marks) != before;
        (document, changed, decisions)
    }

    /// The beginning of an incarnation, in this step or in an earlier run with the same event. The earlier run may have
    /// ended, because of a crash or a lost reply, between the write and the check of the device.
    fn begun(&self, before: Option<Ticks>, after: Option<&Document>) -> Option<Ticks> {
        let began = after.and_then(Document::beginning)?;
        let again = || self.pending().iter().any(|event| event.at == began);
        (before != Some(began) || again()).then_some(began)
    }

    fn pending(&self) -> &[TwinEvent] {
        let start = self.outcomes.len();
        &self.events[start..(start + self.take).min(self.events.len())]
    }

    fn decided(&mut self, decisions: Vec<Decision>) {
        self.outcomes.extend(decisions.into_iter().map(EventOutcome::Decided));
        self.attempt = None;
        self.unsure = false;
    }

    /// The read found this document.
    pub fn found(&mut self, document: Arc<Document>, etag: ETag) {
        let ours = self.attempt.as_ref().is_some_and(|attempt| attempt.document.is_same_write(&document));
        if self.unsure && ours {
            self.written(etag);
            return;
        }
        self.attempt = None;
        self.unsure = false;
        self.stored = Stored::Present(document, etag);
    }

    /// The read found no document.
    pub fn absent(&mut self) {
        self.attempt = None;
        self.unsure = false;
        self.stored = Stored::Absent;
    }

    /// The read found an item that is not one of our documents.
    pub fn damaged(&mut self, etag: ETag) {
        self.attempt = None;
        self.unsure = false;
        self.stored = Stored::Damaged(etag);
    }

    /// The read found the document of another twin: none of the events can be applied, and nothing is written over it.
    pub fn foreign(&mut self, reason: &str) {
        self.attempt = None;
        self.unsure = false;
        let left = self.events.len() - self.outcomes.len();
        self.outcomes.extend(std::iter::repeat_with(|| EventOutcome::Foreign(reason.to_owned())).take(left));
    }

    /// No document can have the id of this twin, so none of the events can ever be applied.
    pub fn refused(&mut self, reason: &str) {
        self.attempt = None;
        self.unsure = false;
        let left = self.events.len() - self.outcomes.len();
        self.outcomes.extend(std::iter::repeat_with(|| EventOutcome::Rejected(reason.to_owned())).take(left));
    }

    /// The write is durable.
    pub fn written(&mut self, etag: ETag) {
        let Some(attempt) = self.attempt.take() else {
            return;
        };
        // One check of the device too many is harmless, one too few is not.
        self.incarnation = attempt.incarnation.or(self.incarnation);
        self.stored = Stored::Present(attempt.document, etag);
        self.decided(attempt.decisions);
    }

    /// The condition failed, or the outcome of the write is unknown: read again.
    pub fn unsure(&mut self) {
        self.unsure = true;
        self.stored = Stored::Unknown;
    }

    /// The store will never accept this write. The remaining events are decided on the stored document, which is read
    /// again.
    pub fn rejected(&mut self, reason: String) {
        self.attempt = None;
        self.unsure = false;
        if self.pending().len() > 1 {
            self.take = 1;
        } else {
            self.outcomes.push(EventOutcome::Rejected(reason));
        }
    }

    /// When an incarnation began in one of the events, even if it was stored in an earlier run.
    pub fn began_incarnation(&self) -> Option<Ticks> {
        self.incarnation
    }

    /// Reports the stored document of the device whose module's incarnation began. Returns whether the device ended
    /// later than that. If so, that end is added as an event of the module, after the others.
    pub fn checked_device(&mut self, device: Option<&Document>) -> bool {
        let (Some(began), Some(ended)) =
            (self.incarnation.take(), device.and_then(Document::modules_dead_before))
        else {
            return false;
        };
        let Some(module) = self.events.first().map(|event| event.key.clone()) else {
            return false;
        };
        let over = began < ended;
        if over {
            self.add(follow(module, Cascade::Deleted(ended)));
        }
        over
    }

    /// Adds an event after the others. It is decided on the document as stored at that time.
    pub fn add(&mut self, event: TwinEvent) {
        self.events.push(event);
        self.take = self.take.max(1);
    }

    /// No modules have to follow any more. Only the copy in memory is changed; the next write stores it.
    pub fn cascaded(&mut self) {
        if let Stored::Present(document, _) = &mut self.stored {
            Arc::make_mut(document).cascade = None;
        }
    }

    /// The modules that have to follow the stored document.
    ///
    /// The note of a finished cascade stays in the stored tombstone, which rarely gets another write. The deletion that
    /// set it is completed only together with its modules; otherwise it is received again. So late changes do not start
    /// a cascade.
    pub fn cascade(&self) -> Option<Cascade> {
        match &self.stored {
            Stored::Present(document, _)
                if is_owed_by_its_deletion(document) && self.holds_changes_only() =>
            {
                None
            }
            Stored::Present(document, _) => document.cascade,
            Stored::Unknown | Stored::Absent | Stored::Damaged(_) => None,
        }
    }

    /// Whether all these events are changes. A flag may have been set by a deletion that could not be applied.
    pub fn holds_changes_only(&self) -> bool {
        let is_change =
            |event: &TwinEvent| matches!(event.change, Change::Updated { .. } | Change::Replaced { .. });
        self.events.iter().all(is_change)
    }

    /// Ends without handling the remaining events. Returns all events, in their order; some of them may be stored.
    pub fn give_up(self) -> Vec<TwinEvent> {
        self.events
    }

    /// Ends, and returns the outcome of each event, in order, and the stored document for the cache.
    pub fn finish(self) -> (Vec<EventOutcome>, Option<(Arc<Document>, ETag)>) {
        let stored = match self.stored {
            Stored::Present(document, etag) => Some((document, etag)),
            Stored::Unknown | Stored::Absent | Stored::Damaged(_) => None,
        };
        (self.outcomes, stored)
    }
}

/// Whether this is the tombstone of a deletion from the streams, without any later change.
fn is_owed_by_its_deletion(document: &Document) -> bool {
    matches!(document.state, State::Deleted) && document.operation == Operation::Delete
}
