//! Medians and spreads of few values.

use serde::{Deserialize, Serialize};

/// Median and spread of several runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// `None` if there are no values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<_> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        let median = match values.len() % 2 {
            0 => f64::midpoint(*values.get(middle - 1)?, upper),
            _ => upper,
        };
        Some(Self { median, least, most })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_stands_in_the_middle_and_what_is_no_number_is_left_out() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([f64::NAN]), None);
        let spread = |values: &[f64]| Spread::of(values.iter().copied()).expect("has values");
        assert_eq!(spread(&[3.0]), Spread { median: 3.0, least: 3.0, most: 3.0 });
        assert_eq!(spread(&[9.0, 1.0, 2.0]), Spread { median: 2.0, least: 1.0, most: 9.0 });
        assert_eq!(
            spread(&[4.0, 1.0, 2.0, f64::INFINITY, 9.0]),
            Spread { median: 3.0, least: 1.0, most: 9.0 }
        );
    }
}
