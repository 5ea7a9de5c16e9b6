//! Read-modify-write of one twin as a state machine: the runtime performs what [`Upsert::action`] asks for and
//! reports what came of it.
//!
//! ```text
//!            ┌──────────── conflict, unknown ───────────┐
//!            ▼                                          │
//! start ─► Read ─► decide ─► Create | Replace ─► written ─► Done
//!   └─ cached ───────┘  └─ nothing to change ───────────────►│
//! ```
//!
//! SUBTLE: a failed condition does not mean that somebody else won. The SDK re-sends writes after ambiguous
//! failures, so a 412 or 409 may be the answer to the second copy of our own, stored write; and after a
//! timeout it is open whether the write happened. So every such answer leads to a read, and the document that
//! is found is compared with the one we tried to write: equal to the last field (`applied_at` has 100 ns), but for how numbers are spelt, means
//! it was ours. Anything else is decided anew on what is stored; versions make that harmless. Rejected
//! alternatives: counting a conflict as lost (reports applied events as duplicates), a write id in the
//! document (one more field to carry and to explain, for the same answer).
//!
//! A batch that the store rejects for good (too large) is taken event by event, so that one event's content
//! cannot take its neighbours along.

use std::sync::Arc;

use super::{
    decide::{Decision, Rules, decide, follow},
    document::{Cascade, Document, ETag, Flag, Operation, State},
    event::{Change, TwinEvent},
    ticks::Ticks,
};

/// What the runtime has to do next.
#[derive(Debug, Clone)]
pub enum Action {
    /// Read the document; answer with [`Upsert::found`], [`Upsert::absent`], [`Upsert::damaged`],
    /// [`Upsert::foreign`] or [`Upsert::refused`].
    Read,
    /// Create this document; answer with [`Upsert::written`], [`Upsert::unsure`] or [`Upsert::rejected`].
    Create(Arc<Document>),
    /// Replace the document that has this ETag; answers as for `Create`.
    Replace(Arc<Document>, ETag),
    /// Nothing is left to do.
    Done,
}

/// What became of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventOutcome {
    /// Decided, and durable where anything changed.
    Decided(Decision),
    /// The store will never accept what this event leads to.
    Rejected(String),
    /// The twin's document belongs to another twin.
    Foreign(String),
}

/// What is known to be stored.
#[derive(Debug, Clone)]
enum Stored {
    /// Nothing; the document that was known may be in the attempt, changed already.
    Unknown,
    Absent,
    Present(Arc<Document>, ETag),
    /// Something is there that is no document of ours.
    Damaged(ETag),
}

/// A write that has no answer yet.
#[derive(Debug)]
struct Attempt {
    document: Arc<Document>,
    /// The version that it replaces; `None`: nothing is to be there.
    over: Option<ETag>,
    decisions: Vec<Decision>,
    /// Where an incarnation begins in it, as [`Upsert::began_incarnation`] tells.
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

/// One twin's events on their way into its document.
#[derive(Debug)]
pub struct Upsert {
    events: Vec<TwinEvent>,
    outcomes: Vec<EventOutcome>,
    /// How many events the next write takes along.
    take: usize,
    stored: Stored,
    attempt: Option<Attempt>,
    /// Whether the answer to `attempt` is open.
    unsure: bool,
    rules: Rules,
    incarnation: Option<Ticks>,
}

impl Upsert {
    /// Begins to bring `events`, in their order, into the document of their twin. `cached` is what the store
    /// held when it was last seen.
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

    /// What to do next; `now` becomes `applied_at` of what is decided.
    ///
    /// A write that was not applied, and of which that is known, is asked for again as it was.
    pub fn action(&mut self, now: Ticks) -> Action {
        while self.outcomes.len() < self.events.len() {
            match &self.attempt {
                Some(attempt) if !self.unsure => return attempt.action(),
                Some(_) | None => {}
            }
            // SUBTLE: the document is taken and changed in place, which is what makes a change cost what it changes and not what
            // the twin holds. Where somebody else has it too, it is copied. Until the write is answered, nothing is known to be
            // stored.
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

    /// Decides on the next `take` events; says whether that changes anything.
    fn fold(
        &self,
        mut document: Option<Document>,
        damaged: bool,
        now: Ticks,
    ) -> (Option<Document>, bool, Vec<Decision>) {
        let before = document.as_ref().map(Document::marks);
        let decide_on = |document: &mut Option<Document>, event: &TwinEvent| match &event.change {
            // It may be the very module that has to follow: it is replaced, and the hub is asked.
            Change::ParentReborn if damaged && document.is_none() => {
                let event = TwinEvent { key: event.key.clone(), at: event.at, change: Change::Unapplied };
                decide(document, &event, now, &self.rules)
            }
            _ => decide(document, event, now, &self.rules),
        };
        let decisions: Vec<_> = self.pending().iter().map(|event| decide_on(&mut document, event)).collect();
        if damaged && let Some(document) = &mut document {
            // What was there could not be read, so what is written may miss something.
            document.flags.insert(Flag::Suspect);
            document.refused = document.refused.max(Some(document.last));
        }
        // Whatever changes the content leaves a mark or is one of these; comparing the contents would cost more than the change.
        let applied =
            |decision: &Decision| matches!(decision, Decision::Applied | Decision::Gap | Decision::Partial);
        let changed = decisions.iter().any(applied) || document.as_ref().map(Document::marks) != before;
        (document, changed, decisions)
    }

    /// Where an incarnation began in this step, or in an earlier run that the event was taken through before: it
    /// may have ended, by a crash or a lost reply, between the write and the look at the device.
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

    /// The read found nothing.
    pub fn absent(&mut self) {
        self.attempt = None;
        self.unsure = false;
        self.stored = Stored::Absent;
    }

    /// The read found something that is no document of ours.
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

    /// No document can have the id of this twin: none of the events can ever be applied.
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
        // Looking after the device once too often is harmless, once too rarely is not.
        self.incarnation = attempt.incarnation.or(self.incarnation);
        self.stored = Stored::Present(attempt.document, etag);
        self.decided(attempt.decisions);
    }

    /// The condition failed, or it is open what became of the write: read again.
    pub fn unsure(&mut self) {
        self.unsure = true;
        self.stored = Stored::Unknown;
    }

    /// The store will never accept this write. What is left is decided on what is stored, which is read again.
    pub fn rejected(&mut self, reason: String) {
        self.attempt = None;
        self.unsure = false;
        if self.pending().len() > 1 {
            self.take = 1;
        } else {
            self.outcomes.push(EventOutcome::Rejected(reason));
        }
    }

    /// When an incarnation began in one of the events, also where it was stored in an earlier run.
    pub fn began_incarnation(&self) -> Option<Ticks> {
        self.incarnation
    }

    /// The device of the module whose incarnation began, as it is stored. Says whether it ended later than that: that
    /// is an event of the module, behind the others.
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

    /// Adds an event behind the others, decided on what is stored by then.
    pub fn add(&mut self, event: TwinEvent) {
        self.events.push(event);
        self.take = self.take.max(1);
    }

    /// There are no modules that have to follow; what is kept in memory says so, and the next write stores it.
    pub fn cascaded(&mut self) {
        if let Stored::Present(document, _) = &mut self.stored {
            Arc::make_mut(document).cascade = None;
        }
    }

    /// Modules that have to follow what is stored.
    ///
    /// The note of a finished cascade lies in the stored tombstone for good, which hardly ever gets another write. The deletion that
    /// left it is completed only with its modules, and else comes again: so changes that come too late ask for nothing.
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

    /// Whether these events are changes only. A flag may stand for a deletion that could not be applied.
    pub fn holds_changes_only(&self) -> bool {
        let is_change =
            |event: &TwinEvent| matches!(event.change, Change::Updated { .. } | Change::Replaced { .. });
        self.events.iter().all(is_change)
    }

    /// Ends without doing what is left: the events, in their order. Some of them may be stored.
    pub fn give_up(self) -> Vec<TwinEvent> {
        self.events
    }

    /// Ends with the outcome of each event, in order, and what is stored for the cache.
    pub fn finish(self) -> (Vec<EventOutcome>, Option<(Arc<Document>, ETag)>) {
        let stored = match self.stored {
            Stored::Present(document, etag) => Some((document, etag)),
            Stored::Unknown | Stored::Absent | Stored::Damaged(_) => None,
        };
        (self.outcomes, stored)
    }
}

/// Whether this is the tombstone that an event of the streams has left, and nothing since.
fn is_owed_by_its_deletion(document: &Document) -> bool {
    matches!(document.state, State::Deleted) && document.operation == Operation::Delete
}
