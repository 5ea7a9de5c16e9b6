//! Parses tokens into a query, by recursive descent. The depth is limited, because queries come from outside.

use super::{Collection, Dialect, Query, QueryError, error::error, order::Sort, path::Path, token::Token};

mod condition;
mod cursor;
mod selection;

use cursor::Cursor;

pub(super) fn parse(text: &str, dialect: Dialect) -> Result<Query, QueryError> {
    let mut cursor = Cursor::new(text, dialect)?;
    cursor.expect_word("SELECT")?;
    let top = top(&mut cursor)?;
    let items = selection::items(&mut cursor)?;
    cursor.expect_word("FROM")?;
    let collection = collection(&mut cursor)?;
    let condition = if cursor.accept_word("WHERE") { Some(condition::condition(&mut cursor)?) } else { None };
    let keys = group_by(&mut cursor)?;
    let order = order_by(&mut cursor)?;
    cursor.expect_end()?;
    let selection = selection::selection(items, keys, &order)?;
    let order = order.into_iter().map(|(_, sort)| sort).collect();
    Ok(Query { selection, collection, condition, order, top })
}

/// A value with its position in the text.
type Placed<T> = (usize, T);

fn top(cursor: &mut Cursor) -> Result<Option<usize>, QueryError> {
    if !cursor.accept_word("TOP") {
        return Ok(None);
    }
    let count = match cursor.peek() {
        Some(Token::Literal(value)) => value.as_u64(),
        Some(Token::Word(_) | Token::Name(_) | Token::Sign(_)) | None => None,
    };
    let count = count.ok_or_else(|| cursor.problem("TOP needs a number of rows"))?;
    cursor.advance();
    Ok(Some(usize::try_from(count).unwrap_or(usize::MAX)))
}

fn collection(cursor: &mut Cursor) -> Result<Collection, QueryError> {
    if !cursor.accept_word("devices") {
        return Err(cursor.problem("only devices and devices.modules can be queried"));
    }
    if !cursor.accept(".") {
        return Ok(Collection::Devices);
    }
    if !cursor.accept_word("modules") {
        return Err(cursor.problem("only devices and devices.modules can be queried"));
    }
    Ok(Collection::Modules)
}

/// Parses the clause, if there is one. Returns it with its position.
fn group_by(cursor: &mut Cursor) -> Result<Option<Placed<Vec<Path>>>, QueryError> {
    let at = cursor.place();
    if !cursor.accept_word("GROUP") {
        return Ok(None);
    }
    cursor.expect_word("BY")?;
    let mut paths = vec![cursor.path()?];
    while cursor.accept(",") {
        paths.push(cursor.path()?);
    }
    Ok(Some((at, paths)))
}

fn order_by(cursor: &mut Cursor) -> Result<Vec<Placed<Sort>>, QueryError> {
    let at = cursor.place();
    if !cursor.accept_word("ORDER") {
        return Ok(Vec::new());
    }
    if cursor.dialect() == Dialect::Hub {
        return Err(error(at, "IoT Hub has no ORDER BY"));
    }
    cursor.expect_word("BY")?;
    let mut order = vec![sort(cursor)?];
    while cursor.accept(",") {
        order.push(sort(cursor)?);
    }
    Ok(order)
}

fn sort(cursor: &mut Cursor) -> Result<Placed<Sort>, QueryError> {
    let at = cursor.place();
    let path = cursor.path()?;
    let is_descending = cursor.accept_word("DESC");
    if !is_descending {
        cursor.accept_word("ASC");
    }
    Ok((at, Sort { path, is_descending }))
}
