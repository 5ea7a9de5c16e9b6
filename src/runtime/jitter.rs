//! Random fractions that spread the retries of many processes in time.

use std::{cell::Cell, marker::PhantomData};

thread_local! {
    /// State of this thread's seeded generator, if it has one.
    static SEEDED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// A fraction, uniform in 0 ≤ x < 1. It comes from the operating system's randomness, unless this thread was given a seed.
pub fn jitter() -> f64 {
    let Some(state) = SEEDED.get() else {
        return rand::random();
    };
    // SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
    let state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    SEEDED.set(Some(state));
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Seeds this thread: until the result is dropped, all its fractions follow from `seed`. So a simulation on one thread can be repeated.
pub fn seeded(seed: u64) -> Seeded {
    SEEDED.set(Some(seed));
    Seeded(PhantomData)
}

/// While this exists, the fractions of this thread follow from a seed.
#[must_use]
pub struct Seeded(PhantomData<*const ()>);

impl Drop for Seeded {
    fn drop(&mut self) {
        SEEDED.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ten() -> Vec<u64> {
        (0..10).map(|_| jitter().to_bits()).collect()
    }

    #[test]
    fn fractions_follow_from_the_seed_until_it_is_taken_back() {
        let with = |seed| {
            let _seeded = seeded(seed);
            ten()
        };
        assert_eq!(with(7), with(7));
        assert_ne!(with(7), with(8));
        assert_ne!(ten(), ten(), "without the seed the fractions must differ");
    }

    #[test]
    fn fractions_are_spread_over_the_whole_unit() {
        let _seeded = seeded(1);
        let fractions: Vec<_> = (0..100_000).map(|_| jitter()).collect();
        assert!(fractions.iter().all(|fraction| (0.0..1.0).contains(fraction)));
        for tenth in 0..10 {
            let lower = f64::from(tenth) / 10.0;
            let count = fractions.iter().filter(|fraction| (lower..lower + 0.1).contains(*fraction)).count();
            assert!((9_700..10_300).contains(&count), "{count} of 100,000 are in the tenth from {lower}");
        }
    }
}
