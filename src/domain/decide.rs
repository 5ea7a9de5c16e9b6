//! The decision table: what one event means for one document.
//!
//! Events are ordered by (incarnation, version); the document stores both. V = stored version, born = time of the
//! incarnation's create event, last = time of the newest applied change, since = time of a partial document's first
//! change, D = time of the deletion.
//!
//! | | absent | live | partial | deleted at D |
//! |---|---|---|---|---|
//! | created(T, v) | live, born = T | T ≤ born: duplicate; T > last: new incarnation; else suspect | T ≤ since: becomes the base under what is stored; T > last: new incarnation; else suspect | T ≤ D: stale; else new incarnation |
//! | updated(T, v), replaced(T, v) | partial, since = T | T < born: stale; v ≤ V and T ≤ last: duplicate; v ≤ V and T > last: regression; v > V and T ≤ last: suspect; v = V+1: apply; v > V+1: gap, apply and flag | T < since: suspect; else as live | T ≤ D: stale; else partial of a new incarnation |
//! | deleted(T) | tombstone | T < born: stale; last > T: suspect; else tombstone | T < since: stale; last > T: suspect; else tombstone | D = the later T |
//! | snapshot | live | replaces the content, flags cleared; equal and unflagged: duplicate | same | live |
//! | gone | duplicate | tombstone, flags cleared | same | flags cleared; none: duplicate |
//! | created, updated, replaced at T, where a tombstone may have expired since | the same, and suspect | – | – | – |
//! | unapplied(T) | partial without content, since = T, suspect | T < born, T ≤ previous: stale; T ≤ confirmed until: duplicate; else suspect | same | T ≤ D: stale; else as absent |
//!
//! A snapshot is read from the hub after the document was read, and is written only over that document. So it reflects
//! everything that the document knows of, and everything that the hub did before it answered. The document stores that
//! time (`confirmed_until`). An event that is not newer than it is already contained (v ≤ V: duplicate) or over
//! (stale), and needs no flag. `confirmed_until` may be a timestamp that the document knew, from a clock that is ahead
//! of the clock of the answer. So a later version or a deletion shortly before `confirmed_until` is *suspect*.
//!
//! If the end of the previous incarnation is known (`previous`), it replaces an unknown *born*: events that are not
//! newer are stale. If the first change does not directly follow the base, that is a gap. A device's deletion that is
//! stale or cannot be ordered still ends every module that is older than the deletion. A change that follows directly
//! in version but not in the `$version` of a section is a gap as well: a change that no event reported was undone or
//! overwritten. A replacement is also a gap if it does not say what it replaced: if it has no `tags` although the
//! document may have tags, or if it has no desired properties.
//!
//! Several machines timestamp the operations of one hub. An event can miss a boundary by no more than their clocks may
//! differ, while other facts support the event: its version is later, or nothing distinguishes it from an event of the
//! incarnation that the boundary belongs to. Such an event is *suspect* instead of stale or of a new incarnation.
//!
//! *Suspect* and *regression* do not apply the event: they set the flag and store the newest refused time. A flag
//! outlives its incarnation: a refused event that is no older than the boundary may belong to the next incarnation.
//! Only a snapshot clears the flag.

mod answer;
mod content;

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;

use self::content::{live, under};
use super::{
    document::{Cascade, Document, Flag, Operation, State, Twin},
    event::{Change, TwinEvent},
    id::{DocumentIdScheme, TwinKey},
    merge,
    ticks::Ticks,
    twin::{Sections, TwinVersion},
};

/// The smallest difference between two points in time: one tick.
const TICK: Duration = Duration::from_nanos(100);

/// The decision for one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Decision {
    /// Applied: it directly followed the stored version.
    Applied,
    /// Applied and flagged: versions were skipped.
    Gap,
    /// Applied to a twin whose complete state was never received.
    Partial,
    /// Not applied: the document already contains it.
    Duplicate,
    /// Not applied: it belongs to an incarnation that is over.
    Stale,
    /// Not applied, flagged: it is later in time, but not in version.
    Regression,
    /// Flagged: the event could not be ordered and was not applied, or its twin may have been deleted since and the
    /// tombstone may have expired.
    Suspect,
}

impl Decision {
    /// All decisions, for metrics and tables.
    pub const ALL: [Self; 7] = [
        Self::Applied,
        Self::Gap,
        Self::Partial,
        Self::Duplicate,
        Self::Stale,
        Self::Regression,
        Self::Suspect,
    ];

    /// Its name in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Gap => "gap",
            Self::Partial => "partial",
            Self::Duplicate => "duplicate",
            Self::Stale => "stale",
            Self::Regression => "regression",
            Self::Suspect => "suspect",
        }
    }
}

/// The settings of the decision table.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// How document ids are made.
    pub id_scheme: DocumentIdScheme,
    /// Lifetime of a tombstone in seconds. Must be longer than the retention of the Event Hubs.
    pub tombstone_ttl_seconds: u32,
    /// How much the clocks may differ that timestamp operations and the registry's answers.
    pub clock_tolerance: Duration,
    /// How long deletions are remembered. `Some` if events may be older than that: events from dead letters. `None` for
    /// streams: their events are never that old.
    pub forgets_after: Option<Duration>,
}

/// Decides on `event` and applies it to `document`; `None` means that there is no document.
///
/// If anything changes, `applied_at` is set to `now`. If nothing changes, every field of the document stays as it was.
pub fn decide(document: &mut Option<Document>, event: &TwinEvent, now: Ticks, rules: &Rules) -> Decision {
    let context = Context { event, now, rules };
    match document {
        None => context.absent(document),
        Some(stored) => match stored.state {
            State::Live { .. } | State::Partial { .. } => context.present(stored),
            State::Deleted => context.deleted(stored),
        },
    }
}

struct Context<'a> {
    event: &'a TwinEvent,
    now: Ticks,
    rules: &'a Rules,
}

impl Context<'_> {
    fn absent(&self, document: &mut Option<Document>) -> Decision {
        let at = self.event.at;
        let (state, decision) = match &self.event.change {
            Change::Created { version, twin } => (live(Some(at), *version, twin), Decision::Applied),
            Change::Updated { .. } | Change::Replaced { .. } => (self.partial(), Decision::Partial),
            Change::Deleted if planted!(TombstoneSkipped) => return Decision::Duplicate,
            Change::Deleted => (State::Deleted, Decision::Applied),
            Change::Snapshot { version, twin } => {
                let mut begun = self.begin(live(None, *version, twin));
                let confirmed = self.confirmed_by(None);
                begun.confirmed_until = Some(confirmed);
                begun.last = self.newest_in(twin, confirmed);
                *document = Some(begun);
                return Decision::Applied;
            }
            Change::Gone => return Decision::Duplicate,
            Change::Unapplied => {
                *document = Some(self.unknown());
                return Decision::Suspect;
            }
            Change::ParentReborn => return Decision::Stale,
        };
        let mut begun = self.begin(state);
        if self.leaves_unsaid(None) {
            begun.flags.insert(Flag::Gap);
        }
        // If a tombstone may have expired, this event could bring a deleted twin back.
        let forgotten = !matches!(begun.state, State::Deleted) && self.is_older_than_tombstones(at);
        if forgotten {
            begun.flags.insert(Flag::Suspect);
        }
        *document = Some(begun);
        if forgotten { Decision::Suspect } else { decision }
    }

    fn is_older_than_tombstones(&self, at: Ticks) -> bool {
        let remembered = |forgets_after| self.now.before(forgets_after).after(self.rules.clock_tolerance);
        self.rules.forgets_after.is_some_and(|forgets_after| at < remembered(forgets_after))
    }

    /// A document for a twin of which we only know that some event happened to it. The event that could not be applied
    /// may still be applied after it has been repaired, so it counts as the first change, but not as an applied one.
    fn unknown(&self) -> Document {
        let (twin, base) = (Twin::default(), Box::default());
        let mut unknown = self.begin(State::Partial { since: self.event.at, twin, base });
        unknown.last = self.event.at.before(TICK);
        unknown.flags.insert(Flag::Suspect);
        unknown.refused = Some(self.event.at);
        unknown
    }

    fn deleted(&self, document: &mut Document) -> Decision {
        let at = self.event.at;
        let deleted_at = document.last;
        match &self.event.change {
            Change::Deleted => match at.cmp(&deleted_at) {
                std::cmp::Ordering::Less => Decision::Stale,
                std::cmp::Ordering::Equal => Decision::Duplicate,
                std::cmp::Ordering::Greater => {
                    self.start_over(document, State::Deleted, at);
                    // The module had ended before its device ended. So everything before that first end is over as
                    // well.
                    document.previous = Some(deleted_at);
                    Decision::Applied
                }
            },
            Change::Created { version, twin } if at > deleted_at => {
                let cascade = document.cascade;
                // The flag is compared with this event's own time: what was refused before it is over.
                self.start_over(document, live(Some(at), *version, twin), at);
                document.previous = Some(deleted_at);
                document.cascade = cascade; // not done yet: the modules must still be removed
                Decision::Applied
            }
            Change::Updated { .. } | Change::Replaced { .. } if at > deleted_at => {
                let cascade = document.cascade;
                self.start_over(document, self.partial(), deleted_at);
                document.previous = Some(deleted_at);
                document.cascade = cascade;
                if self.leaves_unsaid(None) {
                    document.flags.insert(Flag::Gap);
                }
                Decision::Partial
            }
            Change::Snapshot { version, twin } => {
                self.confirm(document, live(None, *version, twin), twin);
                document.previous = Some(deleted_at);
                Decision::Applied
            }
            Change::Gone => self.gone(document),
            Change::Unapplied if at > deleted_at => {
                let (id, cascade) = (std::mem::take(&mut document.id), document.cascade);
                let refused = document.refused.max(Some(at));
                *document = Document { id, previous: Some(deleted_at), cascade, refused, ..self.unknown() };
                Decision::Suspect
            }
            // The creation may start the incarnation after the deletion, with a timestamp that is too early. If the
            // start of the deleted incarnation is known, a creation that is not after it cannot be a new one.
            Change::Created { .. }
                if self.is_within_tolerance(at, deleted_at)
                    && document.previous.is_none_or(|begun| at > begun) =>
            {
                self.refuse(document, Decision::Suspect)
            }
            Change::Created { .. }
            | Change::Updated { .. }
            | Change::Replaced { .. }
            | Change::Unapplied
            | Change::ParentReborn => Decision::Stale,
        }
    }

    fn present(&self, document: &mut Document) -> Decision {
        match &self.event.change {
            Change::Created { version, twin } => self.created(document, *version, twin),
            Change::Updated { version, .. } | Change::Replaced { version, .. } => {
                self.changed(document, *version)
            }
            Change::Deleted => self.removed(document),
            Change::Snapshot { version, twin } => self.snapshot(document, *version, twin),
            Change::Gone => self.gone(document),
            Change::Unapplied => self.unapplied(document),
            Change::ParentReborn if document.last < self.event.at => self.refuse(document, Decision::Suspect),
            Change::ParentReborn => Decision::Stale,
        }
    }

    fn created(&self, document: &mut Document, version: TwinVersion, body: &Sections) -> Decision {
        let at = self.event.at;
        match &mut document.state {
            State::Live { born: Some(born), .. } if at <= *born => Decision::Duplicate,
            State::Live { .. } | State::Partial { .. }
                if document.previous.max(document.confirmed_until) >= Some(at) =>
            {
                Decision::Stale
            }
            State::Partial { since, twin, base } if at <= *since => {
                let gap = base.is_given_up() || base.first.is_none_or(|first| !first.follows(version));
                if twin.version == TwinVersion::default() {
                    document.last = at; // no change was applied yet: only a flag is stored, and the flag keeps its own time
                }
                if planted!(CreationWins) {
                    *twin = Twin { version: twin.version, ..Twin::default() };
                }
                let twin = under(base, std::mem::take(twin), version, body);
                document.state = State::Live { born: Some(at), twin };
                if gap {
                    document.flags.insert(Flag::Gap);
                }
                self.touch(document);
                if gap { Decision::Gap } else { Decision::Applied }
            }
            // Either the base of the stored changes with a timestamp that is too late, or another incarnation that
            // began immediately.
            State::Partial { base, .. }
                if self.is_within_tolerance(document.last, at)
                    && base.first.is_none_or(|first| first > version) =>
            {
                self.refuse(document, Decision::Suspect)
            }
            // Either the beginning of the incarnation that the registry described, or of one that came after its
            // answer.
            State::Live { born: None, .. }
                if document
                    .confirmed_until
                    .is_some_and(|confirmed| self.is_within_tolerance(confirmed, self.before(at))) =>
            {
                self.refuse(document, Decision::Suspect)
            }
            State::Live { .. } | State::Partial { .. } if at > document.last => {
                let previous = document.last;
                self.start_over(document, live(Some(at), version, body), at);
                document.previous = Some(previous);
                // No deletion was received in between, so the time at which its modules ended is unknown.
                document.cascade = self.cascade(Cascade::Reborn(at));
                Decision::Applied
            }
            State::Live { .. } | State::Partial { .. } | State::Deleted => {
                self.refuse(document, Decision::Suspect)
            }
        }
    }

    fn changed(&self, document: &mut Document, version: TwinVersion) -> Decision {
        let at = self.event.at;
        let stored = document.twin().map_or(TwinVersion(0), |twin| twin.version);
        match document.state {
            // Not contained, and newer than the previous incarnation. It may be of this incarnation, with a timestamp
            // that is too early.
            State::Live { born: Some(born), .. }
                if at < born
                    && version > stored
                    && document.previous < Some(at)
                    && self.is_within_tolerance(at, born) =>
            {
                return self.refuse(document, Decision::Suspect);
            }
            State::Live { born: Some(born), .. } if at < born => return Decision::Stale,
            State::Live { born: Some(_), .. } => {}
            State::Live { born: None, .. } | State::Partial { .. } | State::Deleted
                if document.previous >= Some(at) =>
            {
                return Decision::Stale;
            }
            // Older than every event received so far, so it cannot be contained.
            State::Partial { since, .. } if at < since => return self.refuse(document, Decision::Suspect),
            State::Live { born: None, .. } | State::Partial { .. } | State::Deleted => {}
        }
        if let Some(confirmed) = document.confirmed_until.filter(|confirmed| *confirmed >= at) {
            return if version <= stored {
                Decision::Duplicate
            } else if self.may_be_newer_than_the_answer(confirmed) {
                self.refuse(document, Decision::Suspect)
            } else {
                Decision::Stale
            };
        }
        match (version <= stored, at <= document.last) {
            (true, true) => return Decision::Duplicate,
            (true, false) => return self.refuse(document, Decision::Regression),
            // A newer version with an older time: events of another incarnation are mixed in.
            (false, true) => return self.refuse(document, Decision::Suspect),
            (false, false) => {}
        }
        let gap = !version.follows(stored)
            || !self.sections_follow(document)
            || self.leaves_unsaid(Some(&document.state));
        let gap = gap && !planted!(GapNotFlagged);
        if gap {
            document.flags.insert(Flag::Gap);
        }
        self.apply(&mut document.state);
        document.last = at;
        self.touch(document);
        if gap { Decision::Gap } else { Decision::Applied }
    }

    fn removed(&self, document: &mut Document) -> Decision {
        let at = self.event.at;
        let over = match document.state {
            State::Live { born: Some(born), .. } => at < born,
            State::Live { born: None, .. } => document.previous >= Some(at),
            State::Partial { since, .. } => at < since,
            State::Deleted => false,
        };
        let unheard = document.previous < Some(at);
        // The hub knows this twin, so it was created again, or a failover has undone the deletion. Only the registry
        // knows which of its modules exist.
        let confirmed = document.confirmed_until >= Some(at);
        if (over || confirmed || document.last > at) && unheard && !self.event.key.is_module() {
            // Whatever happened to the device since then, its modules of that time are gone.
            let cascade = if confirmed { Cascade::Reborn(at) } else { Cascade::Deleted(at) };
            document.previous = Some(at);
            document.applied_at = self.now;
            document.cascade = match document.cascade {
                // `Reborn` flags more modules than this deletion would end.
                Some(Cascade::Reborn(reborn)) if over || confirmed => Some(Cascade::Reborn(reborn.max(at))),
                // An older end says nothing about modules that were created after it and ended with this deletion.
                Some(Cascade::Deleted(deleted)) if confirmed && deleted >= at => document.cascade,
                Some(Cascade::Reborn(_) | Cascade::Deleted(_)) | None => Some(cascade),
            };
        }
        if over {
            // It may be a deletion of this incarnation with a timestamp that is too early. A deletion that was received
            // before is not.
            return match document.state {
                State::Live { born: Some(born), .. } if unheard && self.is_within_tolerance(at, born) => {
                    self.refuse(document, Decision::Suspect)
                }
                State::Partial { since, .. } if unheard && self.is_within_tolerance(at, since) => {
                    self.refuse(document, Decision::Suspect)
                }
                State::Live { .. } | State::Partial { .. } | State::Deleted => Decision::Stale,
            };
        }
        if confirmed {
            let newer = document
                .confirmed_until
                .is_some_and(|confirmed| self.may_be_newer_than_the_answer(confirmed));
            return if unheard && newer { self.refuse(document, Decision::Suspect) } else { Decision::Stale };
        }
        if document.last > at {
            return self.refuse(document, Decision::Suspect);
        }
        let begun = document.beginning();
        self.start_over(document, State::Deleted, at);
        document.previous = begun;
        Decision::Applied
    }

    fn unapplied(&self, document: &mut Document) -> Decision {
        let at = self.event.at;
        let is_over = match document.state {
            State::Live { born: Some(born), .. } => at < born,
            State::Live { born: None, .. } | State::Partial { .. } | State::Deleted => false,
        };
        if is_over || document.previous >= Some(at) {
            Decision::Stale
        } else if document.confirmed_until >= Some(at) {
            Decision::Duplicate // the hub's answer reflects it
        } else {
            self.refuse(document, Decision::Suspect)
        }
    }

    /// The earliest time at which an operation with timestamp `at` can have happened.
    fn before(&self, at: Ticks) -> Ticks {
        at.before(self.rules.clock_tolerance)
    }

    /// Whether the event may have happened after the registry's answer although it is not newer than `confirmed`. What
    /// the document knew may have a timestamp from a clock that is ahead of the clock of the answer, and this event
    /// from a clock that is behind.
    fn may_be_newer_than_the_answer(&self, confirmed: Ticks) -> bool {
        self.is_within_tolerance(self.event.at, self.before(confirmed))
    }

    /// Whether `earlier` may in fact be at or after `later`, because clocks differ.
    fn is_within_tolerance(&self, earlier: Ticks, later: Ticks) -> bool {
        earlier.after(self.rules.clock_tolerance) > later
    }

    /// Whether each section that the event writes directly follows the stored section, if both have a `$version`. Each
    /// accepted write increments the `$version` of the sections that it writes by one (seen in all captures).
    fn sections_follow(&self, document: &Document) -> bool {
        // A replacement contains whole sections, so their previous content does not matter.
        let Change::Updated { patch, .. } = &self.event.change else {
            return true;
        };
        let Some(twin) = document.twin() else { return true };
        let counted = |section: &merge::Section| section.get(merge::VERSION).and_then(Value::as_i64);
        let written = patch.counted();
        [(&twin.desired, written.desired), (&twin.reported, written.reported)].into_iter().all(
            |(stored, written)| match (counted(stored), written) {
                (Some(stored), Some(written)) => written == stored.saturating_add(1),
                (Some(_) | None, _) => true,
            },
        )
    }

    /// Whether the event is a replacement that omits a section which it replaces in `state`. According to the
    /// documentation it contains all tags and properties, and create events omit empty tags. No replacement was ever
    /// captured. So we do not know whether absent tags mean that the tags were emptied or that they were left
    /// unchanged.
    fn leaves_unsaid(&self, state: Option<&State>) -> bool {
        let Change::Replaced { twin: body, .. } = &self.event.change else {
            return false;
        };
        let may_hold_tags = match state {
            Some(State::Live { twin, .. }) => !twin.tags.is_empty(),
            Some(State::Partial { twin, base, .. }) => !twin.tags.is_empty() || !base.tags.whole,
            Some(State::Deleted) | None => true,
        };
        body.desired.is_none() || (body.tags.is_none() && may_hold_tags)
    }

    /// A new document for a twin that had none.
    fn begin(&self, state: State) -> Document {
        let cascade = matches!(state, State::Deleted).then_some(Cascade::Deleted(self.event.at));
        Document {
            id: self.rules.id_scheme.document_id(&self.event.key),
            key: self.event.key.clone(),
            ttl_seconds: self.ttl(&state),
            state,
            last: self.event.at,
            flags: BTreeSet::new(),
            refused: None,
            previous: None,
            confirmed_until: None,
            cascade: cascade.and_then(|cascade| self.cascade(cascade)),
            applied_at: self.now,
            operation: self.event.change.operation(),
        }
    }

    /// Replaces the stored state with a new incarnation or a tombstone. Flags that are no older than `boundary` stay.
    fn start_over(&self, document: &mut Document, state: State, boundary: Ticks) {
        let refused = document.refused.filter(|refused| *refused >= boundary);
        let fresh = self.begin(state);
        *document = Document { id: std::mem::take(&mut document.id), ..fresh };
        document.refused = refused;
        if refused.is_some() {
            document.flags.insert(Flag::Suspect);
        }
    }

    /// Takes over the registry's answer and clears all flags.
    fn confirm(&self, document: &mut Document, state: State, body: &Sections) {
        let confirmed = self.confirmed_by(Some(document));
        document.ttl_seconds = self.ttl(&state);
        document.state = state;
        document.last = self.newest_in(body, confirmed);
        document.confirmed_until = Some(confirmed);
        document.flags.clear();
        document.refused = None;
        self.touch(document);
    }

    /// Records that the event was not applied.
    fn refuse(&self, document: &mut Document, decision: Decision) -> Decision {
        let refused = document.refused.max(Some(self.event.at));
        if document.flags.insert(Flag::Suspect) || refused != document.refused {
            document.refused = refused;
            document.applied_at = self.now;
            document.operation = Operation::Flag;
        }
        decision
    }

    fn touch(&self, document: &mut Document) {
        document.applied_at = self.now;
        document.operation = self.event.change.operation();
    }

    fn ttl(&self, state: &State) -> Option<u32> {
        matches!(state, State::Deleted).then_some(self.rules.tombstone_ttl_seconds)
    }

    /// Only a device has modules that must follow it.
    fn cascade(&self, cascade: Cascade) -> Option<Cascade> {
        (!self.event.key.is_module()).then_some(cascade)
    }
}

/// The event that makes a module follow its device.
pub fn follow(module: TwinKey, cascade: Cascade) -> TwinEvent {
    let (at, change) = match cascade {
        Cascade::Deleted(at) => (at, Change::Deleted),
        Cascade::Reborn(at) => (at, Change::ParentReborn),
    };
    TwinEvent { key: module, at, change }
}

#[cfg(test)]
mod notes_tests;
#[cfg(test)]
mod tests;
