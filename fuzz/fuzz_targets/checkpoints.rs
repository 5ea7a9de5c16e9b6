//! Checkpoint metadata that other SDKs have written: it gives a position or none, and never a wrong one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use twinsync::adapters::checkpoints::fuzzing::position;

fuzz_target!(|data: (String, String)| {
    let (number, offset) = data;
    let (number, offset) = position(&number, &offset);
    if let Some(number) = number {
        assert!(number >= -1);
        assert!(number >= 0 || offset.is_none(), "only the place before the first event has no number of an event");
    }
    if let Some(offset) = offset {
        assert!(!offset.is_empty() && offset != "-1" && !offset.starts_with('@'));
    }
});
