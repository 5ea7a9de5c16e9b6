//! The stored twin document: one per twin.
//!
//! User data never lies next to `id`, `_etag` or `ttl`: tags and properties keep their own objects, and only
//! fields of the hub's own twin root (`etag`, `status`, …) stand beside them. A tombstone keeps the ids and
//! `sync`, and carries `ttl`.

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

/// The version of a stored document, as the store names it. Opaque.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ETag(pub String);

/// A twin's document.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Id within the container, made from `key`.
    pub id: String,
    /// The twin.
    pub key: TwinKey,
    /// What is known of it.
    pub state: State,
    /// Time of the newest applied change; of a tombstone: the time of the deletion.
    pub last: Ticks,
    /// Open flags.
    pub flags: BTreeSet<Flag>,
    /// Newest time of an event that was not applied because it could not be placed.
    pub refused: Option<Ticks>,
    /// When the previous incarnation is known to have ended, at the earliest: events and modules that are not
    /// newer than this belong to it. Of a tombstone: when the incarnation began that it ended.
    pub previous: Option<Ticks>,
    /// Up to when the registry's word is known to hold: whatever happened to the twin until then is reflected in the
    /// content, or is over.
    pub confirmed_until: Option<Ticks>,
    /// Modules of this device that still have to follow it. Set in the write that makes it necessary, so
    /// that a crash cannot forget it.
    pub cascade: Option<Cascade>,
    /// When the daemon decided on this content.
    pub applied_at: Ticks,
    /// The operation that led to it.
    pub operation: Operation,
    /// Seconds until Cosmos DB removes the document by itself; tombstones only.
    pub ttl_seconds: Option<u32>,
}

/// What is known of a twin.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// All of it.
    Live {
        /// Time of the incarnation's create event; unknown where a snapshot was the first sight of it.
        born: Option<Ticks>,
        /// Its content.
        twin: Twin,
    },
    /// Changes were seen, the twin they apply to was not.
    Partial {
        /// Time of the first change seen.
        since: Ticks,
        /// What the changes add up to.
        twin: Twin,
        /// What it takes to put a base under it.
        base: Box<BaseNotes>,
    },
    /// It was deleted at the document's `last`.
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
    /// Version of the first change seen; a base that it does not directly follow leaves a gap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<TwinVersion>,
    /// Of the tags.
    #[serde(skip_serializing_if = "Notes::is_empty")]
    pub tags: Notes,
    /// Of the desired properties.
    #[serde(skip_serializing_if = "Notes::is_empty")]
    pub desired: Notes,
    /// Of the reported properties.
    #[serde(skip_serializing_if = "Notes::is_empty")]
    pub reported: Notes,
}

impl BaseNotes {
    fn is_empty(&self) -> bool {
        let Self { first, tags, desired, reported } = self;
        first.is_none() && tags.is_empty() && desired.is_empty() && reported.is_empty()
    }

    /// Whether some of it was given up, so that a base put under the content may show through where it must not.
    pub fn is_given_up(&self) -> bool {
        self.tags.given_up || self.desired.given_up || self.reported.given_up
    }

    /// Gives all of it up: a base is not expected any more.
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
    /// An event was not applied because it could not be placed in time.
    Suspect,
}

/// How the modules of a device have to follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cascade {
    /// The device was deleted at this time, and its modules with it.
    Deleted(Ticks),
    /// The device was created at this time over an incarnation whose deletion was never seen.
    Reborn(Ticks),
}

/// What tells two states of one document from each other without its content. Every change of the content leaves one of these
/// different, but for one that brings nothing new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks {
    /// The state's kind and its time.
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
    /// Equality, but for how numbers are spelt.
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
    /// The twin's content, where there is one.
    pub fn twin(&self) -> Option<&Twin> {
        match &self.state {
            State::Live { twin, .. } | State::Partial { twin, .. } => Some(twin),
            State::Deleted => None,
        }
    }

    /// What changes with every change of it.
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

    /// Whether `other` is this very write as read back: equal to the last field, but for how numbers are spelt.
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

    /// Whether it may differ from the hub's twin, and says so.
    pub fn is_flagged(&self) -> bool {
        !self.flags.is_empty() || matches!(self.state, State::Partial { .. })
    }

    /// Whether it is of a twin about whose identity (`status`, `capabilities`, …) nothing is known: no event tells of it, and the hub
    /// was not asked since.
    pub fn lacks_identity(&self) -> bool {
        self.twin().is_some_and(|twin| !twin.root.contains_key("status"))
    }

    /// Whether the twin came into being a moment ago: `now` by our clock, its beginning by the hub's.
    pub fn is_new(&self, now: Ticks) -> bool {
        /// Where a backlog is worked off, most creations are older.
        const NEW: Duration = Duration::from_secs(600);
        self.beginning().is_some_and(|began| now < began.after(NEW))
    }

    /// When the incarnation began, as far as it is known: its creation, or the first change that was seen.
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

    /// Bytes this document holds in memory, roughly: what a cache counts.
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
            // A B-tree node has room for eleven entries of key and value.
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
    /// A patch.
    #[serde(rename = "updateTwin")]
    Update,
    /// A replacement.
    #[serde(rename = "replaceTwin")]
    Replace,
    /// A point read of the registry.
    #[serde(rename = "snapshot")]
    Snapshot,
    /// A flag that was noted without changing the twin.
    #[serde(rename = "flag", alias = "doubt")]
    Flag,
}
