//! What is counted or computed over the twins of a group.
//!
//! As Cosmos DB does: undefined values are left out. Over nothing, COUNT and SUM are 0, the others undefined.
//! AVG and SUM are undefined if a value is no number, MIN and MAX if one is an array or an object.
//! (learn.microsoft.com, cosmos-db/query/sum, avg, min, max; for nothing, the aggregators of azure-cosmos-dotnet-v3.)

use std::cmp::Ordering;

use serde_json::{Number, Value};

use super::{path::Path, value};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Aggregate {
    /// How many twins there are.
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
    /// Nothing means undefined.
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

/// The one that is sorted first; of equals, the one that was found first.
fn first(values: &[&Value], order: impl Fn(&Value, &Value) -> Ordering) -> Option<Value> {
    let are_primitive = values.iter().all(|value| !value.is_array() && !value.is_object());
    let first = values.iter().min_by(|left, right| order(left, right)).filter(|_| are_primitive);
    first.map(|value| (*value).clone())
}

/// Integers are added exactly, and apart from what is a double.
#[derive(Default)]
struct Sum {
    count: usize,
    integers: i128,
    doubles: Option<f64>,
}

impl Sum {
    /// Nothing if a value is no number.
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
            // Room for more numbers of 64 bits than any memory has.
            Some(integer) => self.integers += integer,
            None => self.doubles = Some(self.doubles.unwrap_or_default() + value::float(number)),
        }
    }

    /// An integer, if only integers were added and it fits. What is too large for a double is undefined.
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
