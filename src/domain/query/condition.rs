//! Conditions: the part of a query after WHERE.

use std::fmt;

use serde_json::Value;

use super::path::Path;

/// A condition. For a twin, it is true, false or undefined.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    /// All of them must hold; at least two.
    And(Vec<Self>),
    /// At least one of them must hold; at least two.
    Or(Vec<Self>),
    /// The negation.
    Not(Box<Self>),
    /// The constant `true` or `false`.
    Constant(bool),
    /// A path alone: its value is `true`, the same as `path = true`.
    Holds(Path),
    /// A comparison of two values.
    Compare(Operand, Comparison, Operand),
    /// `IN`: whether a value is in a list.
    In(Operand, Vec<Value>),
    /// `NIN`: whether a value is not in a list.
    NotIn(Operand, Vec<Value>),
    /// A test of the type of the value at a path.
    Type(TypeTest, Path),
    /// A test of two texts.
    Text(TextTest, Operand, Operand),
    /// `ARRAY_CONTAINS`: whether an array contains the value.
    ArrayContains(Path, Value),
}

/// A value that is compared.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// The value at a path.
    Path(Path),
    /// A constant: null, a boolean, a number, a text, or an array of constants.
    Literal(Value),
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `!=` or `<>`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

impl Comparison {
    pub(super) const ALL: [(&'static str, Self); 7] = [
        ("=", Self::Equal),
        ("!=", Self::NotEqual),
        ("<>", Self::NotEqual),
        ("<=", Self::LessOrEqual),
        ("<", Self::Less),
        (">=", Self::GreaterOrEqual),
        (">", Self::Greater),
    ];

    /// Its sign, the same here and in Cosmos DB.
    pub const fn sign(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }

    /// The comparison that is true where this one is false.
    pub(super) const fn opposite(self) -> Self {
        match self {
            Self::Equal => Self::NotEqual,
            Self::NotEqual => Self::Equal,
            Self::Less => Self::GreaterOrEqual,
            Self::LessOrEqual => Self::Greater,
            Self::Greater => Self::LessOrEqual,
            Self::GreaterOrEqual => Self::Less,
        }
    }

    /// The same comparison with its sides exchanged.
    pub(super) const fn mirrored(self) -> Self {
        match self {
            Self::Equal | Self::NotEqual => self,
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
        }
    }
}

macro_rules! tests_by_name {
    ($(#[$outer:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident => $text:literal,)* }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name of its function, the same here and in Cosmos DB.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            pub(super) fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|test| test.name().eq_ignore_ascii_case(name))
            }
        }
    };
}

tests_by_name! {
    /// A function that tests a type. It is never undefined.
    ///
    /// Source: the hub's documentation has `IS_DEFINED` for twins, and the others only for routes (learn:
    /// iot-hub/iot-hub-devguide-query-language).
    TypeTest {
        /// Any value, including null.
        Defined => "IS_DEFINED",
        /// Null.
        Null => "IS_NULL",
        /// A boolean.
        Bool => "IS_BOOL",
        /// A number.
        Number => "IS_NUMBER",
        /// A text.
        String => "IS_STRING",
        /// An object.
        Object => "IS_OBJECT",
        /// An array.
        Array => "IS_ARRAY",
        /// Null, a boolean, a number or a text.
        Primitive => "IS_PRIMITIVE",
    }
}

tests_by_name! {
    /// A function of two texts. It is undefined unless both are texts, and it is case-sensitive.
    ///
    /// Source: the hub accepts `STARTSWITH`, but neither `STARTS_WITH` nor `CONTAINS`, although its documentation has
    /// them (MicrosoftDocs/azure-docs#110329, #105649).
    TextTest {
        /// The first text begins with the second.
        StartsWith => "STARTSWITH",
        /// The first text ends with the second.
        EndsWith => "ENDSWITH",
        /// The first text contains the second.
        Contains => "CONTAINS",
    }
}

impl Condition {
    /// Calls `each` with every path of the condition, in the order of the text.
    pub(super) fn for_each_path<'a>(&'a self, each: &mut impl FnMut(&'a Path)) {
        match self {
            Self::And(parts) | Self::Or(parts) => parts.iter().for_each(|part| part.for_each_path(each)),
            Self::Not(inner) => inner.for_each_path(each),
            Self::Constant(_) => {}
            Self::Holds(path) | Self::Type(_, path) | Self::ArrayContains(path, _) => each(path),
            Self::In(operand, _) | Self::NotIn(operand, _) => operand.path().into_iter().for_each(each),
            Self::Compare(left, _, right) | Self::Text(_, left, right) => {
                left.path().into_iter().chain(right.path()).for_each(each);
            }
        }
    }

    fn is_or(&self) -> bool {
        matches!(self, Self::Or(_))
    }

    fn is_joined(&self) -> bool {
        matches!(self, Self::Or(_) | Self::And(_))
    }
}

impl Operand {
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::Path(path) => Some(path),
            Self::Literal(_) => None,
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // AND inside AND keeps its parentheses, so that the printed text parses to the same tree.
            Self::And(parts) => join(f, parts, " AND ", Self::is_joined),
            Self::Or(parts) => join(f, parts, " OR ", Self::is_or),
            Self::Not(inner) => {
                f.write_str("NOT ")?;
                group(f, inner, inner.is_joined())
            }
            Self::Constant(value) => write!(f, "{value}"),
            Self::Holds(path) => write!(f, "{path}"),
            Self::Compare(left, comparison, right) => write!(f, "{left} {} {right}", comparison.sign()),
            Self::In(operand, list) => {
                write!(f, "{operand} IN ")?;
                write_list(f, list)
            }
            Self::NotIn(operand, list) => {
                write!(f, "{operand} NIN ")?;
                write_list(f, list)
            }
            Self::Type(test, path) => write!(f, "{}({path})", test.name()),
            Self::Text(test, left, right) => write!(f, "{}({left}, {right})", test.name()),
            Self::ArrayContains(path, value) => {
                write!(f, "ARRAY_CONTAINS({path}, ")?;
                write_literal(f, value)?;
                f.write_str(")")
            }
        }
    }
}

fn join(
    f: &mut fmt::Formatter<'_>,
    parts: &[Condition],
    word: &str,
    needs_parentheses: fn(&Condition) -> bool,
) -> fmt::Result {
    parts.iter().enumerate().try_for_each(|(index, part)| {
        f.write_str(if index == 0 { "" } else { word })?;
        group(f, part, needs_parentheses(part))
    })
}

fn group(f: &mut fmt::Formatter<'_>, condition: &Condition, in_parentheses: bool) -> fmt::Result {
    if in_parentheses { write!(f, "({condition})") } else { write!(f, "{condition}") }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{path}"),
            Self::Literal(value) => write_literal(f, value),
        }
    }
}

fn write_list(f: &mut fmt::Formatter<'_>, items: &[Value]) -> fmt::Result {
    f.write_str("[")?;
    items.iter().enumerate().try_for_each(|(index, item)| {
        // A space avoids `[[` for a list inside a list, because `[[` begins an escaped name at the hub.
        let before = match (index, item) {
            (0, Value::Array(_)) => " ",
            (0, _) => "",
            _ => ", ",
        };
        f.write_str(before)?;
        write_literal(f, item)
    })?;
    f.write_str("]")
}

fn write_literal(f: &mut fmt::Formatter<'_>, value: &Value) -> fmt::Result {
    match value {
        Value::String(text) => write_text(f, text),
        Value::Array(items) => write_list(f, items),
        // Objects cannot be written in this language; the parser never creates them.
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => write!(f, "{value}"),
    }
}

fn write_text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("'")?;
    text.chars().try_for_each(|c| match c {
        '\'' => f.write_str("\\'"),
        '\\' => f.write_str("\\\\"),
        c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c)),
        c => write!(f, "{c}"),
    })?;
    f.write_str("'")
}

#[cfg(test)]
mod tests;
