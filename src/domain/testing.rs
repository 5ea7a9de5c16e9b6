//! Test data shared by several tests.

use std::collections::BTreeSet;

use super::{
    document::{Document, Operation, State, Twin},
    id::TwinKey,
    ticks::Ticks,
    twin::TwinVersion,
};

/// The document of a live twin without content.
pub(crate) fn document(version: i64) -> Document {
    Document {
        id: "d".into(),
        key: TwinKey::device("h", "d"),
        state: State::Live {
            born: Some(Ticks::new(10)),
            twin: Twin { version: TwinVersion(version), ..Twin::default() },
        },
        last: Ticks::new(20),
        flags: BTreeSet::new(),
        refused: None,
        previous: None,
        confirmed_until: None,
        cascade: None,
        applied_at: Ticks::new(30),
        operation: Operation::Update,
        ttl_seconds: None,
    }
}
