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

            /// The index in [`Self::ALL`].
            pub(super) const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

labels! {
    /// The decision on an event.
    Decision {
        /// It changed the document.
        Applied => "applied",
        /// The document contained it already.
        Duplicate => "duplicate",
        /// It belongs to an earlier incarnation of the twin.
        Stale => "stale",
        /// It was applied, but versions before it were not seen.
        Gap => "gap",
        /// Its version is lower than a twin that looks older: not applied, flagged.
        Regression => "regression",
        /// Its order is unknown: not applied, flagged.
        Suspect => "suspect",
        /// It was applied to a twin whose creation is unknown.
        Partial => "partial",
        /// It does not concern twinsync.
        Ignored => "ignored",
        /// It can never be applied.
        DeadLettered => "dead_lettered",
    }
}

labels! {
    /// The kind of a write.
    WriteKind {
        /// The document must not exist.
        Create => "create",
        /// The document must be unchanged.
        Replace => "replace",
        /// Nothing is written: the answer shows whether the store takes writes.
        Probe => "probe",
    }
}

labels! {
    /// The outcome of a write.
    WriteOutcome {
        /// The write is durable.
        Written => "written",
        /// The condition did not hold.
        Conflict => "conflict",
        /// The store throttled.
        Throttled => "throttled",
        /// The store could not be reached or did not answer.
        Unavailable => "unavailable",
        /// The store will never take the write.
        Rejected => "rejected",
    }
}

labels! {
    /// The outcome of a read.
    ReadOutcome {
        /// The document was found.
        Present => "present",
        /// There is no document.
        Absent => "absent",
        /// The stored item is not a document of twinsync.
        Damaged => "damaged",
        /// The stored document belongs to another twin.
        Foreign => "foreign",
        /// No document can have this id.
        Refused => "refused",
        /// A document that only a newer release understands.
        Newer => "newer",
        /// The store throttled.
        Throttled => "throttled",
        /// The store could not be reached or did not answer.
        Unavailable => "unavailable",
    }
}

labels! {
    /// The purpose of request units, and of calls to a hub.
    Purpose {
        /// Writes of the streams.
        Live => "live",
        /// Repair of flagged documents.
        Repair => "repair",
        /// Requests for single twins over HTTP.
        Request => "request",
        /// Backfill of twins that existed before the streams.
        Backfill => "backfill",
        /// Audit against the hubs.
        Audit => "audit",
        /// Declared counts.
        Counts => "counts",
    }
}

labels! {
    /// The outcome of a request for a twin over HTTP.
    TwinRead {
        /// The twin was found, and met the requirement.
        Found => "found",
        /// There is no such twin.
        Absent => "absent",
        /// The twin is deleted.
        Deleted => "deleted",
        /// The requirement was not met in time.
        TimedOut => "timed_out",
        /// The store gave no usable answer.
        Unavailable => "unavailable",
        /// The maximum number of requests already waited.
        Busy => "busy",
        /// The store was not connected yet.
        Starting => "starting",
        /// The process stopped.
        Stopping => "stopping",
        /// The request is invalid.
        Invalid => "invalid",
        /// The client disconnected before the answer.
        Gone => "gone",
    }
}

labels! {
    /// The operation of a request to IoT Hub's read API.
    ServedOperation {
        /// A twin, of a device or a module.
        Twin => "twin",
        /// The fields of a device that its twin contains.
        Device => "device",
        /// A page of a query.
        Query => "query",
        /// Anything else.
        Other => "other",
    }
}

labels! {
    /// The outcome of a request to IoT Hub's read API.
    ServedOutcome {
        /// The request was answered.
        Ok => "ok",
        /// The client already has the current version.
        NotModified => "not_modified",
        /// There is no such twin.
        NotFound => "not_found",
        /// The request is invalid, or can never be answered.
        Invalid => "invalid",
        /// A read-only copy does not support the request.
        Unsupported => "unsupported",
        /// The request exceeds the limits of one request.
        TooExpensive => "too_expensive",
        /// This caller, or all callers together, exceeded a limit.
        Throttled => "throttled",
        /// The requirement was not met in time.
        TimedOut => "timed_out",
        /// The store gave no answer, or the process starts or stops.
        Unavailable => "unavailable",
        /// The client disconnected before the answer.
        Gone => "gone",
    }
}

labels! {
    /// Why a request to read twins was refused as unauthorized.
    Unauthorized {
        /// The request has no token.
        NoToken => "no_token",
        /// The request has a wrong token: the client guesses, or has an old one.
        WrongToken => "wrong_token",
    }
}

labels! {
    /// The kind of a call to a hub's registry.
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
    /// The outcome of a call to a hub's registry.
    RegistryOutcome {
        /// The twin was found.
        Present => "present",
        /// There is no such twin.
        Absent => "absent",
        /// The call succeeded.
        Ok => "ok",
        /// The hub throttled.
        Throttled => "throttled",
        /// The hub could not be reached, did not answer, or gave an unusable answer.
        Unavailable => "unavailable",
        /// The hub will never answer this.
        Refused => "refused",
        /// The hub no longer knows the continuation.
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
                // The last two kinds are about a stored document. Reads show that, and writes do not.
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
