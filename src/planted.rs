//! Defects on purpose, for tests that have to notice them: the simulation is only worth what it would find.
//!
//! One at a time, on one thread, and only with the feature `planted-defects`. Without it `planted!` is `false`, and nothing of this is
//! in the binary.

#[cfg(feature = "planted-defects")]
use std::cell::Cell;

/// Whether this defect is planted.
#[cfg(feature = "planted-defects")]
macro_rules! planted {
    ($defect:ident) => {
        crate::planted::is_planted(crate::planted::Defect::$defect)
    };
}

/// Whether this defect is planted: never.
#[cfg(not(feature = "planted-defects"))]
macro_rules! planted {
    ($defect:ident) => {
        false
    };
}

/// What may be planted.
#[cfg(feature = "planted-defects")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// The checkpoint is that of the newest event received.
    CheckpointTooEarly,
    /// The event of a dead letter is completed before the dead letter is stored.
    DeadLetterNotAwaited,
    /// A dead letter leaves no flag in its twin.
    DeadLetterWithoutFlag,
    /// A lease that is not renewed is used for ever.
    LeaseWithoutFence,
    /// What an event holds of the limits is never given back.
    PermitLeaks,
    /// A connection is opened behind the event after the newest one.
    ReopenedTooFar,
    /// After a conflict, the same version is written over again.
    ConflictKeepsCache,
    /// A conflict counts as written.
    ConflictIsWritten,
    /// A write without an answer counts as written.
    SilenceIsWritten,
    /// A hub without an answer has no such twin.
    SilenceIsAbsence,
    /// The modules of a deleted device are not looked for.
    CascadeOmitted,
    /// A module does not look at its device.
    DeviceNotChecked,
    /// A deletion is completed before those of its modules.
    ModulesNotAwaited,
    /// A null in a patch changes nothing.
    NullIgnored,
    /// The deletion of an unknown twin leaves no tombstone.
    TombstoneSkipped,
    /// A missing version raises no flag.
    GapNotFlagged,
    /// A creation that comes late drops the changes that came before it.
    CreationWins,
    /// A replacement is merged.
    ReplacementMerged,
    /// An audit that finds a difference leaves it.
    AuditOnlyLooks,
    /// A page of a query that fails is the last one.
    BackfillEndsEarly,
    /// A twin that changes stays in the groups in which it was counted before.
    CountNotTakenBack,
}

#[cfg(feature = "planted-defects")]
impl Defect {
    /// All of them.
    pub const ALL: [Self; 21] = [
        Self::CheckpointTooEarly,
        Self::DeadLetterNotAwaited,
        Self::DeadLetterWithoutFlag,
        Self::LeaseWithoutFence,
        Self::PermitLeaks,
        Self::ReopenedTooFar,
        Self::ConflictKeepsCache,
        Self::ConflictIsWritten,
        Self::SilenceIsWritten,
        Self::SilenceIsAbsence,
        Self::CascadeOmitted,
        Self::DeviceNotChecked,
        Self::ModulesNotAwaited,
        Self::NullIgnored,
        Self::TombstoneSkipped,
        Self::GapNotFlagged,
        Self::CreationWins,
        Self::ReplacementMerged,
        Self::AuditOnlyLooks,
        Self::BackfillEndsEarly,
        Self::CountNotTakenBack,
    ];
}

#[cfg(feature = "planted-defects")]
thread_local! {
    static PLANTED: Cell<Option<Defect>> = const { Cell::new(None) };
}

/// Plants a defect in what runs on this thread, or none.
#[cfg(feature = "planted-defects")]
pub fn plant(defect: Option<Defect>) {
    PLANTED.set(defect);
}

/// Whether this one is planted on this thread.
#[cfg(feature = "planted-defects")]
pub(crate) fn is_planted(defect: Defect) -> bool {
    PLANTED.get() == Some(defect)
}
