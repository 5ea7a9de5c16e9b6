//! The stored twin document: one per twin.
//!
//! User data never shares a level with `id`, `_etag` or `ttl`: tags and properties have their own objects, and only
//! fields of the hub's own twin root (`etag`, `status`, …) are on the same level. A tombstone keeps the ids and `sync`,
//! and has a `ttl`.

mod item;
mod stored;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};

pub use self::item::{Item, Misplaced};
use self::stored::StateName;
use super::{
    id::TwinKey,
    merge::{self, Notes, Section},
    ticks::Ticks,
    twin::TwinVersion,
};
use serde_json::{Map, Value};

/// The version of a stored document, as the store returns it. Opaque.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ETag(pub String);

/// The document of one twin.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Id within the container, made from `key`.
    pub id: String,
    /// The key of the twin.
    pub key: TwinKey,
    /// The known state of the twin.
    pub state: State,
    /// Time of the newest applied change. For a tombstone: time of the deletion.
    pub last: Ticks,
    /// Open flags.
    pub flags: BTreeSet<Flag>,
    /// Newest time of an event that was not applied because it could not be ordered.
    pub refused: Option<Ticks>,
    /// The earliest time at which the previous incarnation is known to have ended: events and modules that are not
    /// newer belong to it. For a tombstone: the time at which the deleted incarnation began.
    pub previous: Option<Ticks>,
    /// The time until which the registry's answer is known to hold: everything that happened to the twin until then is
    /// reflected in the content, or is over.
    pub confirmed_until: Option<Ticks>,
    /// Modules of this device that still have to follow it. Set in the same write that makes it necessary, so that a
    /// crash cannot lose it.
    pub cascade: Option<Cascade>,
    /// When the daemon decided on this content.
    pub applied_at: Ticks,
    /// The operation that led to this content.
    pub operation: Operation,
    /// Seconds until Cosmos DB removes the document automatically; tombstones only.
    pub ttl_seconds: Option<u32>,
}

/// What is known about a twin.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// Everything.
    Live {
        /// Time of the incarnation's create event; unknown if the twin was first received as a snapshot.
        born: Option<Ticks>,
        /// The content of the twin.
        twin: Twin,
    },
    /// Changes were received, but not the twin that they apply to.
    Partial {
        /// Time of the first change received.
        since: Ticks,
        /// The combined result of the changes.
        twin: Twin,
        /// The notes needed to put a base under it.
        base: Box<BaseNotes>,
    },
    /// The twin was deleted at the document's `last`.
    Deleted,
}

/// The content of a twin.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Twin {
    /// Version within the incarnation.
    pub version: TwinVersion,
    /// Fields of the twin's root: `etag`, `status`, …
    pub root: Map<String, Value>,
    /// Tags.
    pub tags: Section,
    /// Desired properties with `$version` and `$metadata`.
    pub desired: Section,
    /// Reported properties with `$version` and `$metadata`.
    pub reported: Section,
}

/// [`Notes`] of each section.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BaseNotes {
    /// Version of the first change received. If it does not directly follow the base, there is a gap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<TwinVersion>,
    /// Notes of the tags.
    #[serde(skip_serializing_if = "Notes::is_empty")]
    pub tags: Notes,
    /// Notes of the desired properties.
    #[serde(skip_serializing_if = "Notes::is_empty")]
    pub desired: Notes,
    /// Notes of the reported properties.
    #[serde(skip_serializing_if = "Notes::is_empty")]
    pub reported: Notes,
}

impl BaseNotes {
    fn is_empty(&self) -> bool {
        let Self { first, tags, desired, reported } = self;
        first.is_none() && tags.is_empty() && desired.is_empty() && reported.is_empty()
    }

    /// Whether some notes were given up. Then a base put under the content may restore values that were deleted or
    /// replaced.
    pub fn is_given_up(&self) -> bool {
        self.tags.given_up || self.desired.given_up || self.reported.given_up
    }

    /// Gives up all notes: a base is not expected any more.
    pub fn give_up(&mut self) {
        for notes in [&mut self.tags, &mut self.desired, &mut self.reported] {
            notes.give_up();
        }
    }

    fn weight(&self) -> usize {
        self.tags.weight() + self.desired.weight() + self.reported.weight()
    }
}

/// Why a document may differ from the hub's twin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flag {
    /// Versions were skipped: the hub coalesced changes, or an event was lost.
    Gap,
    /// An event was not applied because it could not be ordered in time.
    Suspect,
}

/// How the modules of a device have to follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cascade {
    /// The device was deleted at this time, and its modules with it.
    Deleted(Ticks),
    /// The device was created at this time over an incarnation whose deletion was never received.
    Reborn(Ticks),
}

/// Distinguishes two states of one document without comparing the content. Every change of the content changes one of
/// these fields, except a change that adds nothing new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks {
    /// The kind of state and its time.
    state: (StateName, Option<Ticks>),
    version: Option<TwinVersion>,
    last: Ticks,
    flags: BTreeSet<Flag>,
    refused: Option<Ticks>,
    previous: Option<Ticks>,
    confirmed_until: Option<Ticks>,
    cascade: Option<Cascade>,
    applied_at: Ticks,
    operation: Operation,
    ttl_seconds: Option<u32>,
}

impl State {
    /// Equality, ignoring how numbers are written.
    pub fn says_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Live { born, twin }, Self::Live { born: other_born, twin: other_twin }) => {
                born == other_born && twin.says_the_same(other_twin)
            }
            (
                Self::Partial { since, twin, base },
                Self::Partial { since: other_since, twin: other_twin, base: other_base },
            ) => since == other_since && base == other_base && twin.says_the_same(other_twin),
            (Self::Deleted, Self::Deleted) => true,
            (Self::Live { .. } | Self::Partial { .. } | Self::Deleted, _) => false,
        }
    }
}

impl Twin {
    fn says_the_same(&self, other: &Self) -> bool {
        self.version == other.version
            && merge::same(&self.root, &other.root)
            && merge::same(&self.tags, &other.tags)
            && merge::same(&self.desired, &other.desired)
            && merge::same(&self.reported, &other.reported)
    }
}

impl Document {
    /// The twin's content, if there is one.
    pub fn twin(&self) -> Option<&Twin> {
        match &self.state {
            State::Live { twin, .. } | State::Partial { twin, .. } => Some(twin),
            State::Deleted => None,
        }
    }

    /// The marks of this document: they change with every change of it.
    pub fn marks(&self) -> Marks {
        let state = match self.state {
            State::Live { born, .. } => (StateName::Live, born),
            State::Partial { since, .. } => (StateName::Partial, Some(since)),
            State::Deleted => (StateName::Deleted, None),
        };
        Marks {
            state,
            version: self.twin().map(|twin| twin.version),
            last: self.last,
            flags: self.flags.clone(),
            refused: self.refused,
            previous: self.previous,
            confirmed_until: self.confirmed_until,
            cascade: self.cascade,
            applied_at: self.applied_at,
            operation: self.operation,
            ttl_seconds: self.ttl_seconds,
        }
    }

    /// Whether `other` is this same write as read back: every field is equal, ignoring how numbers are written.
    pub fn is_same_write(&self, other: &Self) -> bool {
        let Self {
            id,
            key,
            state,
            last,
            flags,
            refused,
            previous,
            confirmed_until,
            cascade,
            applied_at,
            operation,
            ttl_seconds,
        } = self;
        (id, key, last, flags, refused) == (&other.id, &other.key, &other.last, &other.flags, &other.refused)
            && (previous, cascade, ttl_seconds) == (&other.previous, &other.cascade, &other.ttl_seconds)
            && *confirmed_until == other.confirmed_until
            && (applied_at, operation) == (&other.applied_at, &other.operation)
            && state.says_the_same(&other.state)
    }

    /// Whether the document says that it may differ from the hub's twin.
    pub fn is_flagged(&self) -> bool {
        !self.flags.is_empty() || matches!(self.state, State::Partial { .. })
    }

    /// Whether nothing is known about the twin's identity (`status`, `capabilities`, …): no event contained it, and the
    /// hub was not asked since.
    pub fn lacks_identity(&self) -> bool {
        self.twin().is_some_and(|twin| !twin.root.contains_key("status"))
    }

    /// Whether the twin was created recently. `now` is by our clock, its beginning by the hub's.
    pub fn is_new(&self, now: Ticks) -> bool {
        /// During a backlog, most creations are older.
        const NEW: Duration = Duration::from_secs(600);
        self.beginning().is_some_and(|began| now < began.after(NEW))
    }

    /// When the incarnation began, if known: its creation, or the first change received.
    pub fn beginning(&self) -> Option<Ticks> {
        match self.state {
            State::Live { born, .. } => born,
            State::Partial { since, .. } => Some(since),
            State::Deleted => None,
        }
    }

    /// Time before which every module of this device is known to be deleted.
    pub fn modules_dead_before(&self) -> Option<Ticks> {
        match self.state {
            State::Deleted => Some(self.last),
            State::Live { .. } | State::Partial { .. } => self.previous,
        }
    }

    /// Approximate size of this document in memory, in bytes, as a cache counts it.
    pub fn weight(&self) -> usize {
        fn of(value: &Value) -> usize {
            match value {
                Value::Null | Value::Bool(_) | Value::Number(_) => 32,
                Value::String(text) => 32 + text.len(),
                Value::Array(items) => 32 + items.iter().map(of).sum::<usize>(),
                Value::Object(map) => of_map(map),
            }
        }
        fn of_map(map: &Map<String, Value>) -> usize {
            // A B-tree node has space for eleven key–value entries.
            600 + map.iter().map(|(name, value)| name.len() + of(value)).sum::<usize>()
        }
        let notes = match &self.state {
            State::Partial { base, .. } => base.weight(),
            State::Live { .. } | State::Deleted => 0,
        };
        512 + notes
            + self.twin().map_or(0, |twin| {
                of_map(&twin.root) + of_map(&twin.tags) + of_map(&twin.desired) + of_map(&twin.reported)
            })
    }
}

/// The operation that last changed a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// A create event.
    #[serde(rename = "createIdentity")]
    Create,
    /// A delete event.
    #[serde(rename = "deleteIdentity")]
    Delete,
    /// A patch event.
    #[serde(rename = "updateTwin")]
    Update,
    /// A replacement event.
    #[serde(rename = "replaceTwin")]
    Replace,
    /// A point read of the registry.
    #[serde(rename = "snapshot")]
    Snapshot,
    /// A flag was set without changing the twin.
    #[serde(rename = "flag", alias = "doubt")]
    Flag,
}
