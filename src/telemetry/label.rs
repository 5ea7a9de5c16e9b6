//! The closed sets of label values.

use crate::{
    domain::{decide, quota},
    ports::{Read, StoreErrorKind, Write},
};

/// Defines an enum whose variants are label values, with the list of all of them.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident => $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The value of the label.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }

            /// The place in [`Self::ALL`].
            pub(super) const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

labels! {
    /// What was decided about an event.
    Decision {
        /// It changed the document.
        Applied => "applied",
        /// The document contained it already.
        Duplicate => "duplicate",
        /// It belongs to an earlier life of the twin.
        Stale => "stale",
        /// It was applied, and versions before it were not seen.
        Gap => "gap",
        /// Its version is lower than a twin that looks older: not applied, flagged.
        Regression => "regression",
        /// Its order could not be told: not applied, flagged.
        Suspect => "suspect",
        /// It was applied to a twin whose beginning is not known.
        Partial => "partial",
        /// It does not concern the replica.
        Ignored => "ignored",
        /// It can never be applied.
        DeadLettered => "dead_lettered",
    }
}

labels! {
    /// How a document was to be written.
    WriteKind {
        /// It must not have existed.
        Create => "create",
        /// It must have been unchanged.
        Replace => "replace",
        /// Not at all: the answer shows whether the store takes writes.
        Probe => "probe",
    }
}

labels! {
    /// What became of an attempt to write.
    WriteOutcome {
        /// Durable.
        Written => "written",
        /// The condition did not hold.
        Conflict => "conflict",
        /// The store asked for less.
        Throttled => "throttled",
        /// The store could not be reached or did not answer.
        Unavailable => "unavailable",
        /// The store will never take it.
        Rejected => "rejected",
    }
}

labels! {
    /// What became of an attempt to read.
    ReadOutcome {
        /// The document.
        Present => "present",
        /// There is none.
        Absent => "absent",
        /// Something that is no document of ours.
        Damaged => "damaged",
        /// The document of another twin.
        Foreign => "foreign",
        /// No document can have this id.
        Refused => "refused",
        /// A document that only a newer release understands.
        Newer => "newer",
        /// The store asked for less.
        Throttled => "throttled",
        /// The store could not be reached or did not answer.
        Unavailable => "unavailable",
    }
}

labels! {
    /// What request units were spent for, and calls to a hub made.
    Purpose {
        /// Following the streams.
        Live => "live",
        /// Flagged documents.
        Repair => "repair",
        /// Single twins that are asked for over HTTP.
        Request => "request",
        /// Twins that were there before the streams.
        Backfill => "backfill",
        /// The comparison with the hubs.
        Audit => "audit",
        /// Declared counts.
        Counts => "counts",
    }
}

labels! {
    /// What became of a request for a twin over HTTP.
    TwinRead {
        /// It was there, as it was waited for.
        Found => "found",
        /// There is none.
        Absent => "absent",
        /// It was deleted.
        Deleted => "deleted",
        /// What was waited for did not come in time.
        TimedOut => "timed_out",
        /// The store could not tell.
        Unavailable => "unavailable",
        /// As many waited as may.
        Busy => "busy",
        /// The store was not connected yet.
        Starting => "starting",
        /// The process stopped.
        Stopping => "stopping",
        /// It could not be understood.
        Invalid => "invalid",
        /// Its client went away before the answer.
        Gone => "gone",
    }
}

labels! {
    /// What a request to IoT Hub's read API asks for.
    ServedOperation {
        /// A twin, of a device or a module.
        Twin => "twin",
        /// What a twin knows of its device.
        Device => "device",
        /// A page of a query.
        Query => "query",
        /// Anything else.
        Other => "other",
    }
}

labels! {
    /// What became of a request to IoT Hub's read API.
    ServedOutcome {
        /// It was answered.
        Ok => "ok",
        /// The client has it already.
        NotModified => "not_modified",
        /// There is no such twin.
        NotFound => "not_found",
        /// It makes no sense, or cannot be answered at all.
        Invalid => "invalid",
        /// It asks for what a read-only copy does not do.
        Unsupported => "unsupported",
        /// It takes more than one request may.
        TooExpensive => "too_expensive",
        /// The caller, or all together, ask for more than may be spent.
        Throttled => "throttled",
        /// What was waited for did not come in time.
        TimedOut => "timed_out",
        /// The store gave no answer, or the process starts or stops.
        Unavailable => "unavailable",
        /// Its client went away before the answer.
        Gone => "gone",
    }
}

labels! {
    /// Why a request was refused that shows no right to read twins.
    Unauthorized {
        /// It shows no token.
        NoToken => "no_token",
        /// It shows another one than ours: somebody guesses, or has an old one.
        WrongToken => "wrong_token",
    }
}

labels! {
    /// What a hub's registry was asked for.
    RegistryCall {
        /// A twin.
        Get => "get",
        /// A page of a query.
        Query => "query",
        /// The number of devices.
        Count => "count",
    }
}

labels! {
    /// What a hub's registry answered.
    RegistryOutcome {
        /// The twin.
        Present => "present",
        /// There is none.
        Absent => "absent",
        /// What was asked for.
        Ok => "ok",
        /// The hub asked for less.
        Throttled => "throttled",
        /// The hub could not be reached, did not answer, or answered what cannot be used.
        Unavailable => "unavailable",
        /// The hub will never answer this.
        Refused => "refused",
        /// The hub does not know the continuation any more.
        Expired => "expired",
    }
}

impl From<decide::Decision> for Decision {
    fn from(decision: decide::Decision) -> Self {
        match decision {
            decide::Decision::Applied => Self::Applied,
            decide::Decision::Gap => Self::Gap,
            decide::Decision::Partial => Self::Partial,
            decide::Decision::Duplicate => Self::Duplicate,
            decide::Decision::Stale => Self::Stale,
            decide::Decision::Regression => Self::Regression,
            decide::Decision::Suspect => Self::Suspect,
        }
    }
}

impl From<quota::Purpose> for Purpose {
    fn from(purpose: quota::Purpose) -> Self {
        match purpose {
            quota::Purpose::Repair => Self::Repair,
            quota::Purpose::Request => Self::Request,
            quota::Purpose::Backfill => Self::Backfill,
            quota::Purpose::Audit => Self::Audit,
        }
    }
}

impl From<StoreErrorKind> for ReadOutcome {
    fn from(kind: StoreErrorKind) -> Self {
        match kind {
            StoreErrorKind::Throttled => Self::Throttled,
            StoreErrorKind::Unavailable | StoreErrorKind::Contradictory => Self::Unavailable,
            StoreErrorKind::Newer => Self::Newer,
        }
    }
}

impl From<&Read> for ReadOutcome {
    fn from(read: &Read) -> Self {
        match read {
            Read::Present(..) => Self::Present,
            Read::Absent => Self::Absent,
            Read::Damaged(..) => Self::Damaged,
            Read::Foreign(_) => Self::Foreign,
            Read::Refused(_) => Self::Refused,
            Read::Unknown(trouble) => trouble.kind.into(),
        }
    }
}

impl From<&Write> for WriteOutcome {
    fn from(write: &Write) -> Self {
        match write {
            Write::Written(_) => Self::Written,
            Write::Conflict => Self::Conflict,
            Write::Rejected(_) => Self::Rejected,
            Write::Unknown(trouble) => match trouble.kind {
                StoreErrorKind::Throttled => Self::Throttled,
                // What is there already shows when it is read, not when it is written.
                StoreErrorKind::Unavailable | StoreErrorKind::Newer | StoreErrorKind::Contradictory => {
                    Self::Unavailable
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_is_the_place_in_the_list() {
        for (place, decision) in Decision::ALL.iter().enumerate() {
            assert_eq!(decision.index(), place);
        }
    }
}
