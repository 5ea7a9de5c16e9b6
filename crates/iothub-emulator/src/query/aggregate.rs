//! Aggregates over the twins of a group.
//!
//! They follow Cosmos DB. Undefined values are ignored. If there are no values, COUNT and SUM are 0, and the others
//! are undefined. AVG and SUM are undefined if a value is not a number. MIN and MAX are undefined if a value is an
//! array or an object. (learn.microsoft.com, cosmos-db/query/sum, avg, min, max; without values: the aggregators of
//! azure-cosmos-dotnet-v3.)

use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::{path::Path, value};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Aggregate {
    /// The number of twins.
    Count,
    Of(Function, Path),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Average,
    Sum,
    Minimum,
    Maximum,
}

impl Aggregate {
    /// Computes the aggregate. `None` means undefined.
    pub(super) fn over(&self, twins: &[&Value]) -> Option<Value> {
        let (function, path) = match self {
            Self::Count => return Some(Value::from(twins.len())),
            Self::Of(function, path) => (function, path),
        };
        let values: Vec<&Value> = twins.iter().filter_map(|twin| path.of(twin)).collect();
        match function {
            Function::Average => Sum::of(&values)?.average(),
            Function::Sum => Sum::of(&values)?.value(),
            Function::Minimum => first(&values, value::sorted),
            Function::Maximum => first(&values, |left, right| value::sorted(right, left)),
        }
    }
}

/// The value that sorts first. Of equal values, the first one found. `None` if any value is an array or an object.
fn first(values: &[&Value], order: impl Fn(&Value, &Value) -> Ordering) -> Option<Value> {
    let are_primitive = values.iter().all(|value| !value.is_array() && !value.is_object());
    let first = values.iter().min_by(|left, right| order(left, right)).filter(|_| are_primitive);
    first.map(|value| (*value).clone())
}

/// A sum. Integers are added exactly, separately from doubles.
#[derive(Default)]
struct Sum {
    count: usize,
    integers: i128,
    doubles: Option<f64>,
}

impl Sum {
    /// `None` if a value is not a number.
    fn of(values: &[&Value]) -> Option<Self> {
        let mut sum = Self::default();
        for value in values {
            sum.add(value.as_number()?);
        }
        Some(sum)
    }

    fn add(&mut self, number: &Number) {
        self.count += 1;
        match value::integer(number) {
            // Cannot overflow: memory cannot hold that many 64-bit numbers.
            Some(integer) => self.integers += integer,
            None => self.doubles = Some(self.doubles.unwrap_or_default() + value::float(number)),
        }
    }

    /// An integer, if only integers were added and the sum fits. Undefined if it is too large for a double.
    fn value(&self) -> Option<Value> {
        let exact = match self.doubles {
            None => Number::from_i128(self.integers),
            Some(_) => None,
        };
        exact.or_else(|| Number::from_f64(self.double())).map(Value::Number)
    }

    /// Always a double.
    fn average(&self) -> Option<Value> {
        if self.count == 0 {
            return None;
        }
        Number::from_f64(self.double() / self.count as f64).map(Value::Number)
    }

    fn double(&self) -> f64 {
        self.integers as f64 + self.doubles.unwrap_or_default()
    }
}
