//! Parses the selected items, and combines them with the clauses that they depend on.

use super::super::{
    Column, Groups, QueryError, Selection,
    aggregate::{Aggregate, Function},
    error::error,
    group::Shown,
    order::Sort,
    path::Path,
};
use super::{Cursor, Placed};

/// The name of a column, and its value.
type Item = (String, Shown);

/// Parses the selected items. `None` means `*`.
pub(super) fn items(cursor: &mut Cursor) -> Result<Option<Vec<Placed<Item>>>, QueryError> {
    if cursor.accept("*") {
        return Ok(None);
    }
    let mut items: Vec<Placed<Item>> = Vec::new();
    let mut unnamed = 0;
    loop {
        let at = cursor.place();
        let (name, shown) = item(cursor, &mut unnamed)?;
        if items.iter().any(|(_, (other, _))| *other == name) {
            return Err(error(at, format!("two items have the name {name:?}")));
        }
        items.push((at, (name, shown)));
        if !cursor.accept(",") {
            return Ok(Some(items));
        }
    }
}

/// Parses one item. Aggregates without a name are called `$1`, `$2` and so on. Paths have a name and are not
/// counted.
fn item(cursor: &mut Cursor, unnamed: &mut usize) -> Result<Item, QueryError> {
    let shown = match cursor.function() {
        Some(name) => Shown::Aggregate(aggregate(cursor, &name)?),
        None => Shown::Key(cursor.path()?),
    };
    let name = match &shown {
        _ if cursor.accept_word("AS") => cursor.name()?,
        Shown::Key(path) => path.name().to_owned(),
        Shown::Aggregate(_) => {
            *unnamed += 1;
            format!("${unnamed}")
        }
    };
    Ok((name, shown))
}

/// Parses a call of this aggregate, whose name is the next token.
fn aggregate(cursor: &mut Cursor, name: &str) -> Result<Aggregate, QueryError> {
    let function = match name {
        "COUNT" => None,
        "AVG" => Some(Function::Average),
        "SUM" => Some(Function::Sum),
        "MIN" => Some(Function::Minimum),
        "MAX" => Some(Function::Maximum),
        _ => return Err(cursor.problem("only COUNT, AVG, SUM, MIN and MAX can be selected")),
    };
    cursor.advance();
    cursor.expect("(")?;
    let aggregate = match function {
        None => Aggregate::Count,
        Some(function) => Aggregate::Of(function, cursor.path()?),
    };
    cursor.expect(")")?;
    Ok(aggregate)
}

pub(super) fn selection(
    items: Option<Vec<Placed<Item>>>,
    keys: Option<Placed<Vec<Path>>>,
    order: &[Placed<Sort>],
) -> Result<Selection, QueryError> {
    let Some(items) = items else {
        return match keys {
            None => Ok(Selection::Twins),
            Some((at, _)) => Err(error(at, "* selects complete twins, which cannot be grouped")),
        };
    };
    let has_aggregate = items.iter().any(|(_, (_, shown))| matches!(shown, Shown::Aggregate(_)));
    if keys.is_none() && !has_aggregate {
        return Ok(Selection::Columns(columns(items)));
    }
    let (_, keys) = keys.unwrap_or_default();
    check(&items, &keys, order)?;
    Ok(Selection::Groups(Groups { keys, shown: items.into_iter().map(|(_, item)| item).collect() }))
}

fn columns(items: Vec<Placed<Item>>) -> Vec<Column> {
    let column = |(_, (name, shown))| match shown {
        Shown::Key(path) => Some(Column { name, path }),
        Shown::Aggregate(_) => None,
    };
    items.into_iter().filter_map(column).collect()
}

/// The row of a group may only contain and be sorted by its keys. Aggregates are not checked.
fn check(items: &[Placed<Item>], keys: &[Path], order: &[Placed<Sort>]) -> Result<(), QueryError> {
    let shown = items.iter().filter_map(|(at, (_, shown))| match shown {
        Shown::Key(path) => Some((*at, path)),
        Shown::Aggregate(_) => None,
    });
    let sorted = order.iter().map(|(at, sort)| (*at, &sort.path));
    match shown.chain(sorted).find(|(_, path)| !keys.contains(path)) {
        None => Ok(()),
        Some((at, _)) => Err(error(at, "this path must be in GROUP BY: the rows are groups of twins")),
    }
}
