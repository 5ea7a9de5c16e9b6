//! How an applied event changes the content of a document.

use std::time::Duration;

use super::Context;
use crate::domain::{
    document::{BaseNotes, State, Twin},
    event::Change,
    merge,
    ticks::Ticks,
    twin::{Sections, TwinVersion, drop_etags},
};

impl Context<'_> {
    pub(super) fn partial(&self) -> State {
        let first = match self.event.change {
            Change::Updated { version, .. } | Change::Replaced { version, .. } => Some(version),
            Change::Created { .. }
            | Change::Deleted
            | Change::Snapshot { .. }
            | Change::Gone
            | Change::Unapplied
            | Change::ParentReborn => None,
        };
        let mut state = State::Partial {
            since: self.event.at,
            twin: Twin::default(),
            base: Box::new(BaseNotes { first, ..BaseNotes::default() }),
        };
        self.apply(&mut state);
        state
    }

    /// Applies a patch or a replacement to the content.
    pub(super) fn apply(&self, state: &mut State) {
        let (twin, base) = match state {
            State::Live { twin, .. } => (twin, None),
            State::Partial { since, twin, base } => {
                // Tombstones live longer than the retention of an Event Hub. So after that time the creation can no
                // longer be received.
                let retained = Duration::from_secs(self.rules.tombstone_ttl_seconds.into());
                if self.event.at > since.after(retained) {
                    base.give_up();
                }
                (twin, Some(base))
            }
            State::Deleted => return,
        };
        match &self.event.change {
            Change::Updated { version, patch } => {
                if let Some(base) = base {
                    note(base, twin, &patch.sections());
                }
                twin.version = *version;
                patch.apply(twin);
            }
            Change::Replaced { version, twin: body } => {
                twin.version = *version;
                renew_root(twin, body);
                // Create events omit empty tags, so absent tags are treated as empty; if that matters, the document is
                // flagged. Properties always hold at least `$version`, so absent properties were not sent.
                twin.tags = body.tags.as_ref().map(merge::whole).unwrap_or_default();
                for (section, body) in
                    [(&mut twin.desired, &body.desired), (&mut twin.reported, &body.reported)]
                {
                    if let Some(body) = body {
                        if planted!(ReplacementMerged) {
                            merge::patch(section, body);
                            continue;
                        }
                        *section = merge::whole(body);
                    }
                }
                if let Some(base) = base {
                    base.tags.replace_all();
                    for (notes, body) in
                        [(&mut base.desired, &body.desired), (&mut base.reported, &body.reported)]
                    {
                        if body.is_some() {
                            notes.replace_all();
                        }
                    }
                }
            }
            Change::Created { .. }
            | Change::Deleted
            | Change::Snapshot { .. }
            | Change::Gone
            | Change::Unapplied
            | Change::ParentReborn => {}
        }
    }
}

/// Keeps root fields unless an event contains them. An etag belongs to one write, so the etag of an earlier write is
/// dropped.
fn renew_root(twin: &mut Twin, body: &Sections) {
    drop_etags(&mut twin.root);
    twin.root.extend(body.root.clone());
}

pub(super) fn live(born: Option<Ticks>, version: TwinVersion, body: &Sections) -> State {
    let section = |part: &Option<merge::Section>| part.as_ref().map(merge::whole).unwrap_or_default();
    State::Live {
        born,
        twin: Twin {
            version,
            root: body.root.clone(),
            tags: section(&body.tags),
            desired: section(&body.desired),
            reported: section(&body.reported),
        },
    }
}

fn note(base: &mut BaseNotes, twin: &Twin, patch: &Sections) {
    for (notes, content, patch) in [
        (&mut base.tags, &twin.tags, &patch.tags),
        (&mut base.desired, &twin.desired, &patch.desired),
        (&mut base.reported, &twin.reported, &patch.reported),
    ] {
        if let Some(patch) = patch {
            notes.record(content, patch);
        }
    }
}

/// The twin of a create event with the changes of a partial document applied on top. If no change was applied yet, the
/// partial document has no version.
pub(super) fn under(base: &BaseNotes, twin: Twin, version: TwinVersion, body: &Sections) -> Twin {
    let nothing = merge::Section::new();
    let mut root = body.root.clone();
    root.extend(twin.root);
    Twin {
        version: twin.version.max(version),
        root,
        tags: base.tags.put_under(body.tags.as_ref().unwrap_or(&nothing), twin.tags),
        desired: base.desired.put_under(body.desired.as_ref().unwrap_or(&nothing), twin.desired),
        reported: base.reported.put_under(body.reported.as_ref().unwrap_or(&nothing), twin.reported),
    }
}
