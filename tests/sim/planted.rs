//! The simulation must find each planted defect. Prints the number of seeds that it needed.

use twinsync::planted::{Defect, plant};

use crate::{number, plan::Plan, run::run};

/// Maximum number of seeds for each defect.
const SEEDS: u64 = 3000;

#[test]
fn every_planted_defect_is_found() {
    let (first, seeds) = (number("TWINSYNC_SEED", 0), number("TWINSYNC_SEEDS", SEEDS));
    let mut unfound = Vec::new();
    println!("| defect | found by | seed | seeds until then |\n|---|---|---|---|");
    for defect in Defect::ALL {
        let found = (first..first + seeds).find_map(|seed| {
            plant(Some(defect));
            let violation = run(&Plan::of(seed), false).violation;
            plant(None);
            violation.map(|violation| (seed, violation.invariant))
        });
        match found {
            Some((seed, invariant)) => {
                println!("| {defect:?} | {invariant:?} | {seed} | {} |", seed - first + 1)
            }
            None => {
                println!("| {defect:?} | – | – | none of {seeds} |");
                unfound.push(defect);
            }
        }
    }
    assert!(unfound.is_empty(), "no seed finds {unfound:?}");
}
