//! Ids for a fleet: mostly plain ones, and sometimes one that reveals wrong escaping.

/// The forms of unusual device ids. `{}` is the device's number. Some pairs collide if they are escaped wrongly
/// (`a#1` and `a%231`), or compared without case.
const ODD_DEVICES: [&str; 16] = [
    "odd#{}",
    "odd%23{}",
    "what?x={}",
    "100%25-{}",
    "o'brien-{}",
    "{}@example",
    "$system-{}",
    "urn:dev:{}",
    "Case-{}",
    "case-{}",
    "a+b=c;{}",
    "(x,y)*!_{}.",
    "..{}",
    "%2e%2E%2f{}",
    "x'_OR_'a'='a{}",
    "-{}-",
];

const MODULES: [&str; 6] = ["$edgeAgent", "$edgeHub", "filter", "mod#1", "mod%231", "Filter"];

/// One device in this many has an unusual id.
const ODD_EVERY: usize = 8;

/// The id of device `number`.
pub(super) fn device(prefix: &str, number: usize) -> String {
    let id = if number % ODD_EVERY == ODD_EVERY - 1 {
        // Consecutive forms have the same number, so that the colliding pairs occur.
        let shape = number / ODD_EVERY;
        let number = shape / ODD_DEVICES.len();
        ODD_DEVICES[shape % ODD_DEVICES.len()].replace("{}", &number.to_string())
    } else {
        format!("device-{number:06}")
    };
    format!("{prefix}{id}")
}

/// The id of module `number` of a device.
pub(super) fn module(number: usize) -> &'static str {
    MODULES[number % MODULES.len()]
}

/// Number of different ids that [`module`] returns.
pub(super) const MODULES_PER_DEVICE: usize = MODULES.len();

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::iothub::TwinId;

    #[test]
    fn ids_are_valid_and_different() {
        let ids: BTreeSet<String> = (0..10_000).map(|number| device("", number)).collect();
        assert_eq!(ids.len(), 10_000);
        for id in ids {
            TwinId::device(id).unwrap();
        }
        let modules: BTreeSet<&str> = (0..MODULES_PER_DEVICE).map(module).collect();
        assert_eq!(modules.len(), MODULES_PER_DEVICE);
        for id in modules {
            TwinId::module("d", id).unwrap();
        }
    }

    #[test]
    fn the_pairs_that_collide_when_escaped_carelessly_are_there() {
        let ids: BTreeSet<String> = (0..1_000).map(|number| device("", number)).collect();
        for id in ["odd#1", "odd%231", "Case-1", "case-1", "what?x=1", "x'_OR_'a'='a1"] {
            assert!(ids.contains(id), "{id}");
        }
    }
}
