//! The running total of an aggregate.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::{
    super::value::{Exact, total},
    Aggregate,
};

/// The total of an aggregate for the values so far.
#[derive(Debug, Clone)]
pub(super) enum Total {
    Count(u64),
    Sum(Sum),
    Average(Sum),
    /// The best value so far, and the ordering that a better value has relative to it.
    Best(Option<Value>, Ordering),
    /// There was a value whose type cannot be aggregated.
    Undefined,
}

/// A sum of numbers. Integers are summed separately from doubles: their sum is exact and does not depend on the order.
#[derive(Debug, Clone, Default)]
pub(super) struct Sum {
    count: u64,
    integers: i128,
    doubles: f64,
    /// The rounding error of `doubles` (Neumaier's sum).
    lost: f64,
    has_doubles: bool,
}

impl Total {
    pub(super) fn new(aggregate: Aggregate) -> Self {
        match aggregate {
            Aggregate::Count => Self::Count(0),
            Aggregate::Sum => Self::Sum(Sum::default()),
            Aggregate::Average => Self::Average(Sum::default()),
            Aggregate::Min => Self::Best(None, Ordering::Less),
            Aggregate::Max => Self::Best(None, Ordering::Greater),
        }
    }

    /// Adds a value. An undefined value does not count.
    pub(super) fn add(&mut self, value: Option<&Value>) {
        let Some(value) = value else { return };
        match (&mut *self, value) {
            (Self::Count(count), _) => *count = count.saturating_add(1),
            (Self::Sum(sum) | Self::Average(sum), Value::Number(number)) => sum.add(number),
            (Self::Sum(_) | Self::Average(_), _) | (Self::Best(..), Value::Array(_) | Value::Object(_)) => {
                *self = Self::Undefined;
            }
            (Self::Best(best, better), value) => {
                if best.as_ref().is_none_or(|best| total(Some(value), Some(best)) == *better) {
                    *best = Some(value.clone());
                }
            }
            (Self::Undefined, _) => {}
        }
    }

    /// The result, or `None` if it is undefined: no values (except that their sum is 0, as in Cosmos DB), a wrong type,
    /// or a result out of the range of a double.
    pub(super) fn result(self) -> Option<Value> {
        match self {
            Self::Count(count) => Some(Value::from(count)),
            Self::Sum(sum) => Some(Value::Number(sum.sum()?)),
            Self::Average(sum) => Some(Value::Number(sum.average()?)),
            Self::Best(best, _) => best,
            Self::Undefined => None,
        }
    }
}

impl Sum {
    fn add(&mut self, number: &Number) {
        self.count = self.count.saturating_add(1);
        match Exact::of(number) {
            // Larger integers come from doubles, and are not exact anyway.
            Exact::Integer(integer) if integer.unsigned_abs() <= u128::from(u64::MAX) => {
                match self.integers.checked_add(integer) {
                    Some(sum) => self.integers = sum,
                    None => self.add_double(integer as f64),
                }
            }
            Exact::Integer(integer) => self.add_double(integer as f64),
            Exact::Double(double) => self.add_double(double),
        }
    }

    fn add_double(&mut self, double: f64) {
        self.has_doubles = true;
        let sum = self.doubles + double;
        self.lost += if self.doubles.abs() >= double.abs() {
            (self.doubles - sum) + double
        } else {
            (double - sum) + self.doubles
        };
        self.doubles = sum;
    }

    fn double(&self) -> f64 {
        self.integers as f64 + self.doubles + self.lost
    }

    fn sum(&self) -> Option<Number> {
        match (self.count, self.has_doubles) {
            (_, false) => Exact::Integer(self.integers).number(),
            (_, true) => plain(self.double()),
        }
    }

    fn average(&self) -> Option<Number> {
        let count = i128::from(self.count);
        let (quotient, rest) = (self.integers.checked_div(count)?, self.integers.checked_rem(count)?);
        match (rest, self.has_doubles) {
            (0, false) => Exact::Integer(quotient).number(),
            (_, false) => plain(quotient as f64 + rest as f64 / count as f64),
            (_, true) => plain(self.double() / count as f64),
        }
    }
}

/// The number in its shortest JSON form: an integer without fraction. `None` if it is not finite.
fn plain(double: f64) -> Option<Number> {
    Exact::of(&Number::from_f64(double)?).number()
}
