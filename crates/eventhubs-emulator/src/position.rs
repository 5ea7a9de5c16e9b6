//! Start positions: parsed from the filter of a receiver's source.

/// Where a receiver begins to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Position {
    /// At the oldest retained event.
    Earliest,
    /// After the newest event at the time of the attach.
    Latest,
    /// By offset.
    Offset(Bound),
    /// By sequence number.
    SequenceNumber(Bound),
    /// By enqueued time, in milliseconds since the Unix epoch.
    EnqueuedTime(Bound),
}

/// A value to begin after, or to begin at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bound {
    /// The value of the filter.
    pub(super) value: i64,
    /// Whether an event with exactly this value is delivered.
    pub(super) inclusive: bool,
}

/// Event Hubs does not know this filter expression.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the filter {expression:?} is not a valid start position")]
pub(super) struct InvalidFilter {
    expression: String,
}

impl Position {
    /// Parses an expression such as `amqp.annotation.x-opt-offset > '42'`.
    ///
    /// Spaces around the operator are optional: the Rust client omits them before numbers, other clients write
    /// them.
    pub(super) fn parse(expression: &str) -> Result<Self, InvalidFilter> {
        Self::parse_expression(expression).ok_or_else(|| InvalidFilter { expression: expression.to_owned() })
    }

    fn parse_expression(expression: &str) -> Option<Self> {
        let (name, comparison) = expression.split_at(expression.find('>')?);
        let comparison = comparison.strip_prefix('>')?;
        let (inclusive, value) = match comparison.strip_prefix('=') {
            Some(value) => (true, value),
            None => (false, comparison),
        };
        let value = value.trim().strip_prefix('\'')?.strip_suffix('\'')?;
        match (name.trim().strip_prefix("amqp.annotation.")?, value) {
            ("x-opt-offset", "-1") => Some(Self::Earliest),
            ("x-opt-offset", "@latest") => Some(Self::Latest),
            ("x-opt-offset", value) => Some(Self::Offset(Bound { value: value.parse().ok()?, inclusive })),
            ("x-opt-sequence-number", value) => {
                Some(Self::SequenceNumber(Bound { value: value.parse().ok()?, inclusive }))
            }
            ("x-opt-enqueued-time", value) => {
                Some(Self::EnqueuedTime(Bound { value: value.parse().ok()?, inclusive }))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Bound, Position};

    #[test]
    fn filters_of_all_clients_are_read() {
        let bound = |value, inclusive| Bound { value, inclusive };
        for (expression, position) in [
            ("amqp.annotation.x-opt-offset > '-1'", Position::Earliest),
            ("amqp.annotation.x-opt-offset > '@latest'", Position::Latest),
            ("amqp.annotation.x-opt-offset >'17'", Position::Offset(bound(17, false))),
            ("amqp.annotation.x-opt-offset >= '17'", Position::Offset(bound(17, true))),
            ("amqp.annotation.x-opt-sequence-number >'4'", Position::SequenceNumber(bound(4, false))),
            ("amqp.annotation.x-opt-sequence-number >='4'", Position::SequenceNumber(bound(4, true))),
            ("amqp.annotation.x-opt-sequence-number > '-1'", Position::SequenceNumber(bound(-1, false))),
            ("amqp.annotation.x-opt-enqueued-time > '1000'", Position::EnqueuedTime(bound(1000, false))),
            ("amqp.annotation.x-opt-enqueued-time>='1000'", Position::EnqueuedTime(bound(1000, true))),
        ] {
            assert_eq!(Position::parse(expression), Ok(position), "{expression}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for expression in [
            "",
            "amqp.annotation.x-opt-offset",
            "amqp.annotation.x-opt-offset > 17",
            "amqp.annotation.x-opt-offset < '17'",
            "amqp.annotation.x-opt-sequence-number > 'many'",
            "amqp.annotation.x-opt-colour > '1'",
            "x-opt-offset > '1'",
        ] {
            assert!(Position::parse(expression).is_err(), "{expression}");
        }
    }
}
