//! Parses the clauses of a query. Conditions have a separate file, below.
//!
//! Every word is checked at its position, so that a message can say what is expected there.

use super::{
    Collection, Condition, Direction, Item, Order, Query, Selected, Selection,
    aggregate::Aggregate,
    error::{QueryError, QueryErrorKind},
    path::{Path, Root},
    token::{Token, Tokens, shortened},
};

mod advice;
mod condition;

/// The longest query, in characters. Source: learn: iot-hub/query-twins, "twin query limitations".
pub const CHARACTERS_MAX: usize = 8_192;

/// The maximum nesting of parentheses, NOT and lists: the parser and the evaluation recurse for each level.
pub const NESTING_MAX: usize = 64;

pub(super) struct Parser {
    tokens: Tokens,
    /// The number of open levels.
    depth: usize,
}

pub(super) fn parse(text: &str) -> Result<Query, QueryError> {
    check_length(text)?;
    Parser { tokens: Tokens::new(text)?, depth: 0 }.query()
}

/// Parses a condition alone, as after WHERE.
pub(super) fn condition(text: &str) -> Result<Condition, QueryError> {
    alone(text, Parser::condition, "a condition ends here: join several with AND or OR")
}

/// Parses paths alone, as after GROUP BY.
pub(super) fn paths(text: &str) -> Result<Vec<Path>, QueryError> {
    alone(text, |parser| parser.list(Parser::path), "a path ends here: write a comma before the next one")
}

/// Parses a text that is only one part of a query.
fn alone<T>(
    text: &str,
    part: impl Fn(&mut Parser) -> Result<T, QueryError>,
    end: &str,
) -> Result<T, QueryError> {
    check_length(text)?;
    let mut parser = Parser { tokens: Tokens::new(text)?, depth: 0 };
    let found = part(&mut parser)?;
    match parser.tokens.current() {
        Token::End => Ok(found),
        _ => Err(parser.unexpected(end)),
    }
}

fn check_length(text: &str) -> Result<(), QueryError> {
    if text.chars().count() <= CHARACTERS_MAX {
        return Ok(());
    }
    let message = format!(
        "the query is longer than {CHARACTERS_MAX} characters: shorten it, or ask in several queries"
    );
    Err(QueryError::new(CHARACTERS_MAX, QueryErrorKind::TooLong, message))
}

impl Parser {
    fn query(mut self) -> Result<Query, QueryError> {
        self.expect_word("SELECT", "a query begins with SELECT")?;
        let top = if self.take_word("TOP")? { Some(self.top()?) } else { None };
        let selection = self.selection()?;
        self.expect_word("FROM", "after what is selected, write FROM devices or FROM devices.modules")?;
        let collection = self.collection()?;
        let condition = if self.take_word("WHERE")? { Some(self.condition()?) } else { None };
        let groups = if self.take_word("GROUP")? {
            self.expect_word("BY", "after GROUP, write BY")?;
            self.list(Self::path)?
        } else {
            Vec::new()
        };
        let order_position = self.tokens.position();
        let order = if self.take_word("ORDER")? {
            self.expect_word("BY", "after ORDER, write BY")?;
            self.list(Self::order)?
        } else {
            Vec::new()
        };
        if *self.tokens.current() != Token::End {
            return Err(advice::after_the_last_clause(&self.tokens));
        }
        let query = Query { top, selection, collection, condition, groups, order };
        check(&query, order_position)?;
        Ok(query)
    }

    fn top(&mut self) -> Result<u64, QueryError> {
        let position = self.tokens.position();
        let count = match self.tokens.current() {
            Token::Number(number) if number.bytes().all(|b| b.is_ascii_digit()) => number.parse().ok(),
            _ => None,
        };
        match count {
            Some(count) if count > 0 => {
                self.tokens.advance()?;
                Ok(count)
            }
            _ => Err(QueryError::syntax(position, "TOP takes a whole number of 1 or more after it")),
        }
    }

    fn selection(&mut self) -> Result<Selection, QueryError> {
        let position = self.tokens.position();
        if self.is_word("DISTINCT") {
            let message =
                "DISTINCT is not part of the language: select the paths and GROUP BY the same paths";
            return Err(QueryError::unsupported(position, message));
        }
        if self.is_word("VALUE") {
            let message = "SELECT VALUE is not part of the language: select the path, and take the value out of each row";
            return Err(QueryError::unsupported(position, message));
        }
        if self.take_sign("*")? {
            return match self.tokens.current() {
                Token::Sign(",") => Err(QueryError::syntax(
                    self.tokens.position(),
                    "`*` selects whole twins and stands alone: write either `*` or a list of paths",
                )),
                _ => Ok(Selection::Twin),
            };
        }
        let mut items = Vec::new();
        let mut positions = Vec::new();
        loop {
            positions.push(self.tokens.position());
            items.push(self.item()?);
            if !self.take_sign(",")? {
                break;
            }
        }
        let columns = super::project::columns(&items);
        for (index, (name, position)) in columns.iter().zip(positions).enumerate() {
            if columns.iter().take(index).any(|other| other == name) {
                let name = shortened(name);
                let message =
                    format!("two columns would be named `{name}`: give one of them another name with AS");
                return Err(QueryError::new(position, QueryErrorKind::Duplicate, message));
            }
        }
        Ok(Selection::Items(items))
    }

    fn item(&mut self) -> Result<Item, QueryError> {
        let selected = match self.tokens.current() {
            Token::Word(word) => match Aggregate::named(word) {
                Some(aggregate) => Selected::Aggregate(aggregate, self.aggregate(aggregate)?),
                None => Selected::Path(self.path()?),
            },
            Token::Sign("*") => {
                let message = "`*` selects whole twins and stands alone: write either `*` or a list of paths";
                return Err(QueryError::syntax(self.tokens.position(), message));
            }
            _ => Selected::Path(self.path()?),
        };
        let alias = if self.take_word("AS")? {
            Some(self.name("after AS, write the name of the column")?)
        } else {
            None
        };
        Ok(Item { selected, alias })
    }

    /// Parses the argument of an aggregate, starting at its name; COUNT has none.
    fn aggregate(&mut self, aggregate: Aggregate) -> Result<Option<Path>, QueryError> {
        let name = aggregate.name();
        self.tokens.advance()?;
        self.expect_sign("(", &format!("after {name}, write `(`"))?;
        let position = self.tokens.position();
        if aggregate == Aggregate::Count {
            if !self.take_sign(")")? {
                let message = "COUNT counts rows and takes nothing: write COUNT(), \
                    with IS_DEFINED(path) in WHERE to count values";
                return Err(QueryError::syntax(position, message));
            }
            return Ok(None);
        }
        if matches!(self.tokens.current(), Token::Sign(")")) {
            return Err(QueryError::syntax(
                position,
                format!("{name} needs a path, such as {name}(properties.reported.level)"),
            ));
        }
        let path = self.path()?;
        self.expect_sign(")", &format!("{name} takes one path: close it with `)`"))?;
        Ok(Some(path))
    }

    fn collection(&mut self) -> Result<Collection, QueryError> {
        const ADVICE: &str = "write FROM devices for devices, or FROM devices.modules for their modules";
        let position = self.tokens.position();
        if !self.take_word("devices")? {
            return Err(QueryError::syntax(position, format!("there is no such collection: {ADVICE}")));
        }
        if !self.take_sign(".")? {
            return Ok(Collection::Devices);
        }
        if self.take_word("modules")? {
            return Ok(Collection::Modules);
        }
        if self.is_word("jobs") {
            let message = "jobs cannot be served from a copy of twins: ask the hub itself for devices.jobs";
            return Err(QueryError::new(position, QueryErrorKind::Jobs, message));
        }
        Err(QueryError::syntax(self.tokens.position(), format!("there is no such collection: {ADVICE}")))
    }

    fn order(&mut self) -> Result<Order, QueryError> {
        let path = self.path()?;
        let direction = if self.take_word("DESC")? {
            Direction::Descending
        } else {
            self.take_word("ASC")?;
            Direction::Ascending
        };
        Ok(Order { path, direction })
    }

    /// One or more elements, separated by commas.
    fn list<T>(&mut self, one: impl Fn(&mut Self) -> Result<T, QueryError>) -> Result<Vec<T>, QueryError> {
        let mut all = vec![one(self)?];
        while self.take_sign(",")? {
            all.push(one(self)?);
        }
        Ok(all)
    }

    /// A path, with or without `devices.` in front.
    pub(super) fn path(&mut self) -> Result<Path, QueryError> {
        const EXPECTED: &str = "write a path here, such as deviceId, tags.site or properties.reported.level";
        const BELOW: &str = "after a dot, write a name; \
            write it in [[ ]] if it has other characters than letters, digits, _ and $";
        let position = self.tokens.position();
        if self.is_word("devices") {
            self.tokens.advance()?;
            self.expect_sign(".", "after `devices`, write `.` and a path")?;
        }
        let root_position = self.tokens.position();
        let name = self.name(EXPECTED)?;
        if matches!(self.tokens.current(), Token::Sign("(")) {
            return Err(advice::no_such_function(root_position, &name));
        }
        let root = Root::named(&name).ok_or_else(|| advice::unknown_field(root_position, &name))?;
        let mut below = Vec::new();
        while self.take_sign(".")? {
            below.push(self.name(BELOW)?);
        }
        self.refuse_after_path()?;
        Ok(Path { root, below, position })
    }

    /// Refuses common mistakes after a path, and says what to write instead.
    fn refuse_after_path(&self) -> Result<(), QueryError> {
        let message = match self.tokens.current() {
            Token::Sign("[") => "array indexes are not part of the language: \
                take the whole array, or ask ARRAY_CONTAINS(path, value)"
                .to_owned(),
            Token::DoubleOpen => "write a dot before [[".to_owned(),
            Token::Sign("-") => "a name with `-` is written in [[ ]], such as tags.[[my-name]]; \
                arithmetic is not served"
                .to_owned(),
            Token::Sign(sign @ ("+" | "*" | "/" | "%")) => {
                format!(
                    "arithmetic (`{sign}`) is not served: work the value out before you ask, and compare with it"
                )
            }
            _ => return Ok(()),
        };
        Err(QueryError::unsupported(self.tokens.position(), message))
    }

    /// A name, plain or escaped. If only a name is allowed, keywords count as names as well.
    pub(super) fn name(&mut self, expected: &str) -> Result<String, QueryError> {
        match self.tokens.current() {
            Token::Word(word) => {
                let word = word.clone();
                self.tokens.advance()?;
                Ok(word)
            }
            Token::DoubleOpen => self.tokens.escaped(),
            Token::Number(number) => {
                let number = shortened(number);
                let message = format!("a name that begins with a digit is written in [[ ]]: [[{number}]]");
                Err(QueryError::syntax(self.tokens.position(), message))
            }
            Token::End | Token::Text(_) | Token::Sign(_) => Err(self.unexpected(expected)),
        }
    }

    pub(super) fn is_word(&self, keyword: &str) -> bool {
        matches!(self.tokens.current(), Token::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    pub(super) fn take_word(&mut self, keyword: &str) -> Result<bool, QueryError> {
        let is_there = self.is_word(keyword);
        if is_there {
            self.tokens.advance()?;
        }
        Ok(is_there)
    }

    fn expect_word(&mut self, keyword: &str, expected: &str) -> Result<(), QueryError> {
        if self.take_word(keyword)? { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    pub(super) fn take_sign(&mut self, sign: &str) -> Result<bool, QueryError> {
        let is_there = matches!(self.tokens.current(), Token::Sign(found) if *found == sign);
        if is_there {
            self.tokens.advance()?;
        }
        Ok(is_there)
    }

    pub(super) fn expect_sign(&mut self, sign: &str, expected: &str) -> Result<(), QueryError> {
        if self.take_sign(sign)? { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    /// The error for a token that is not allowed at its position.
    pub(super) fn unexpected(&self, expected: &str) -> QueryError {
        let found = self.tokens.current().quoted();
        QueryError::syntax(self.tokens.position(), format!("{found} cannot stand here: {expected}"))
    }
}

/// Checks the rules between clauses.
fn check(query: &Query, order_position: usize) -> Result<(), QueryError> {
    let grouped = query.is_grouped();
    if grouped && !query.order.is_empty() {
        let message =
            "ORDER BY sorts twins, not groups: leave it out, groups come in the order of their keys";
        return Err(QueryError::unsupported(order_position, message));
    }
    match &query.selection {
        Selection::Twin => match query.groups.first() {
            Some(path) => {
                let message = "SELECT * does not go with GROUP BY: select the paths that are grouped by, and aggregates";
                Err(QueryError::new(path.position, QueryErrorKind::NotGrouped, message))
            }
            None => Ok(()),
        },
        Selection::Items(items) if grouped => {
            let paths = items.iter().filter_map(|item| match &item.selected {
                Selected::Path(path) => Some(path),
                Selected::Aggregate(..) => None,
            });
            match paths.into_iter().find(|path| !query.groups.contains(path)) {
                Some(path) => {
                    let message = format!(
                        "{path} is neither an aggregate nor grouped by: write it into GROUP BY, or leave it out"
                    );
                    Err(QueryError::new(path.position, QueryErrorKind::NotGrouped, message))
                }
                None => Ok(()),
            }
        }
        Selection::Items(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
