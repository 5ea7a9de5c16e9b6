//! What an answer of the registry means for a document. It is newer than everything that the document can know.

use super::{Context, Decision, content::live};
use crate::domain::{
    document::{Cascade, Document, Flag, State},
    registry,
    ticks::Ticks,
    twin::{Sections, TwinVersion},
};

impl Context<'_> {
    pub(super) fn snapshot(
        &self,
        document: &mut Document,
        version: TwinVersion,
        body: &Sections,
    ) -> Decision {
        let suspect = document.flags.contains(&Flag::Suspect);
        let born = match document.state {
            // The event that could not be ordered may have been the beginning of another incarnation.
            State::Live { born, .. } if !suspect => born,
            State::Live { .. } | State::Partial { .. } | State::Deleted => None,
        };
        let state = live(born, version, body);
        if document.state.says_the_same(&state) && document.flags.is_empty() && document.refused.is_none() {
            return Decision::Duplicate; // an equal replica needs no write
        }
        self.confirm(document, state, body);
        if suspect && let Some(confirmed) = document.confirmed_until {
            // An incarnation may have ended without an event. Its modules ended with it.
            document.cascade = document.cascade.or(self.cascade(Cascade::Reborn(confirmed)));
        }
        Decision::Applied
    }

    /// The hub does not have this twin.
    pub(super) fn gone(&self, document: &mut Document) -> Decision {
        let ended = self.confirmed_by(Some(document));
        if matches!(document.state, State::Deleted) && document.flags.is_empty() && document.refused.is_none()
        {
            return Decision::Duplicate;
        }
        let already_deleted = matches!(document.state, State::Deleted);
        let cascade = if already_deleted { document.cascade } else { self.cascade(Cascade::Deleted(ended)) };
        let fresh = self.begin(State::Deleted);
        *document = Document { id: std::mem::take(&mut document.id), last: ended, cascade, ..fresh };
        Decision::Applied
    }

    /// The time until which the registry's answer is known to hold. It holds until shortly before the answer was given.
    /// It also holds for everything that the document knows, because the document was read before the registry was
    /// asked. A timestamp that is further in the future than clocks can differ says nothing about events until then.
    pub(super) fn confirmed_by(&self, document: Option<&Document>) -> Ticks {
        let answered = self.event.at.before(self.rules.clock_tolerance);
        document.map_or(answered, |document| {
            let known = document.refused.map_or(document.last, |refused| refused.max(document.last));
            answered.max(known.min(self.plausible()))
        })
    }

    /// The latest timestamp that an operation reflected in the registry's answer can have.
    pub(super) fn plausible(&self) -> Ticks {
        self.event.at.after(self.rules.clock_tolerance)
    }

    /// The time of the newest change that a snapshot contains. HTTP gives the time of an answer in whole seconds;
    /// metadata gives the time of a change to the tick. An import may have written any time there, so a time that is
    /// too new is ignored.
    pub(super) fn newest_in(&self, body: &Sections, at_least: Ticks) -> Ticks {
        registry::last_updated(body)
            .filter(|updated| *updated <= self.plausible())
            .map_or(at_least, |updated| updated.max(at_least))
    }
}
