//! Bounds in Cosmos SQL, and how they are joined and written.

use serde_json::Value;

use super::Pushdown;

/// The maximum nesting of AND in OR in AND … in the SQL. The SDK's parser accepts 32 nested parentheses, and those of
/// the caller and of single terms count as well. Deeper parts are replaced by true, which is a bound of every
/// condition.
const LEVELS_MAX: usize = 12;

/// A condition in SQL that holds wherever another condition holds.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    sql: Sql,
    /// Whether it holds only there.
    exact: bool,
}

#[derive(Debug, Clone)]
enum Sql {
    Always,
    Never,
    /// A term without AND or OR outside of parentheses.
    Term(Vec<Piece>),
    /// At least two, none of them `Always`, `Never` or `All`.
    All(Vec<Sql>),
    /// At least two, none of them `Always`, `Never` or `Any`.
    Any(Vec<Sql>),
}

/// A piece of SQL.
#[derive(Debug, Clone)]
pub(super) enum Piece {
    Text(String),
    /// A value, written as a parameter.
    Value(Value),
}

/// A bound that holds for every document.
pub(super) fn always(exact: bool) -> Bound {
    Bound { sql: Sql::Always, exact }
}

/// A bound that holds for no document; it is exact.
pub(super) fn never() -> Bound {
    Bound { sql: Sql::Never, exact: true }
}

/// An exact term.
pub(super) fn term(pieces: impl IntoIterator<Item = Piece>) -> Bound {
    Bound { sql: Sql::Term(pieces.into_iter().collect()), exact: true }
}

/// Joins all bounds with AND.
pub(super) fn all(bounds: impl IntoIterator<Item = Bound>) -> Bound {
    let mut parts = Vec::new();
    let mut exact = true;
    for bound in bounds.into_iter().map(Bound::shallow) {
        exact &= bound.exact;
        match bound.sql {
            Sql::Never => return never(),
            Sql::Always => {}
            Sql::All(inner) => parts.extend(inner),
            other => parts.push(other),
        }
    }
    Bound { sql: joined(parts, Sql::All, Sql::Always), exact }
}

/// Joins all bounds with OR.
pub(super) fn any(bounds: impl IntoIterator<Item = Bound>) -> Bound {
    let mut parts = Vec::new();
    let mut exact = true;
    // The parts that hold everywhere: whether one of them is exact.
    let mut everywhere = None;
    for bound in bounds.into_iter().map(Bound::shallow) {
        exact &= bound.exact;
        match bound.sql {
            Sql::Never => {}
            Sql::Always => everywhere = Some(everywhere.unwrap_or(false) || bound.exact),
            Sql::Any(inner) => parts.extend(inner),
            other => parts.push(other),
        }
    }
    match everywhere {
        Some(exact) => always(exact),
        None => Bound { sql: joined(parts, Sql::Any, Sql::Never), exact },
    }
}

fn joined(mut parts: Vec<Sql>, join: fn(Vec<Sql>) -> Sql, of_none: Sql) -> Sql {
    match parts.len() {
        0 => of_none,
        1 => parts.pop().unwrap_or(of_none),
        _ => join(parts),
    }
}

impl Bound {
    /// The same condition, as a bound of a condition that holds less often.
    pub(super) fn inexact(self) -> Self {
        match self.sql {
            Sql::Never => self,
            _ => Self { exact: false, ..self },
        }
    }

    /// Itself, or a bound that holds everywhere if it is too deep to be joined with others.
    fn shallow(self) -> Self {
        if self.sql.levels() < LEVELS_MAX { self } else { always(false) }
    }

    /// Writes the SQL.
    pub(super) fn render(self) -> Pushdown {
        let mut pushdown = Pushdown { condition: String::new(), parameters: Vec::new(), exact: self.exact };
        self.sql.write(&mut pushdown);
        pushdown
    }
}

impl Sql {
    fn levels(&self) -> usize {
        match self {
            Self::Always | Self::Never | Self::Term(_) => 0,
            Self::All(parts) | Self::Any(parts) => 1 + parts.iter().map(Self::levels).max().unwrap_or(0),
        }
    }

    fn write(self, to: &mut Pushdown) {
        match self {
            Self::Always => to.condition.push_str("true"),
            Self::Never => to.condition.push_str("false"),
            Self::Term(pieces) => pieces.into_iter().for_each(|piece| piece.write(to)),
            Self::All(parts) => write_joined(parts, " AND ", to),
            Self::Any(parts) => write_joined(parts, " OR ", to),
        }
    }
}

fn write_joined(parts: Vec<Sql>, word: &str, to: &mut Pushdown) {
    for (index, part) in parts.into_iter().enumerate() {
        if index > 0 {
            to.condition.push_str(word);
        }
        match part {
            Sql::All(_) | Sql::Any(_) => {
                to.condition.push('(');
                part.write(to);
                to.condition.push(')');
            }
            Sql::Always | Sql::Never | Sql::Term(_) => part.write(to),
        }
    }
}

impl Piece {
    fn write(self, to: &mut Pushdown) {
        match self {
            Self::Text(text) => to.condition.push_str(&text),
            Self::Value(value) => {
                let name = format!("@q{}", to.parameters.len());
                to.condition.push_str(&name);
                to.parameters.push((name, value));
            }
        }
    }
}
