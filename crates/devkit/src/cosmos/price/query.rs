//! Finds the paths that a query uses.

use super::policy::Policy;

/// The paths in a query's conditions, order and groups: in everything after its first `WHERE`, `ORDER` or `GROUP`.
///
/// The query is not parsed. Every name that begins with the container's alias is taken as a path.
pub(super) fn paths(query: &str) -> Vec<Vec<String>> {
    let words = words(query);
    let is = |word: &Word, name: &str| matches!(word, Word::Name(path) if path.len() == 1 && path[0].eq_ignore_ascii_case(name));
    let Some(from) = words.iter().position(|word| is(word, "from")) else {
        return Vec::new();
    };
    let mut names = words[from + 1..].iter().take(3).filter_map(|word| match word {
        Word::Name(path) => path.first(),
        Word::Other => None,
    });
    // `FROM c`, `FROM root c`, `FROM root AS c`.
    let root = names.next();
    let alias = names.find(|name| !name.eq_ignore_ascii_case("as"));
    let begins = words[from..]
        .iter()
        .position(|word| ["where", "order", "group"].iter().any(|name| is(word, name)))
        .map_or(words.len(), |at| from + at);
    words[begins.min(words.len())..]
        .iter()
        .filter_map(|word| match word {
            Word::Name(path) if path.len() > 1 && (path.first() == root || path.first() == alias) => {
                Some(path[1..].to_vec())
            }
            Word::Name(_) | Word::Other => None,
        })
        .collect()
}

/// Whether the index is sufficient to answer the query, so that only documents of the result are loaded.
pub(super) fn is_served(query: &str, policy: &Policy) -> bool {
    paths(query).iter().all(|path| policy.indexes(path))
}

enum Word {
    /// A name with the segments that follow it: `c.sync["state"]`.
    Name(Vec<String>),
    Other,
}

fn words(query: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut rest = query;
    while let Some(first) = rest.chars().next() {
        if first == '\'' || first == '"' {
            rest = after_text(rest, first);
            words.push(Word::Other);
        } else if first.is_alphabetic() || first == '_' {
            let (path, after) = name(rest);
            words.push(Word::Name(path));
            rest = after;
        } else {
            // A parameter is no name, and neither are letters in a number.
            let length = match first {
                '@' | '0'..='9' => {
                    1 + rest[1..].find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len() - 1)
                }
                _ => first.len_utf8(),
            };
            rest = &rest[length..];
            if !first.is_whitespace() {
                words.push(Word::Other);
            }
        }
    }
    words
}

/// The text after a string literal with which `rest` begins.
fn after_text(rest: &str, quote: char) -> &str {
    let mut escaped = false;
    for (at, character) in rest.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return &rest[at + character.len_utf8()..],
            _ => {}
        }
    }
    ""
}

fn name(rest: &str) -> (Vec<String>, &str) {
    let end =
        |text: &str| text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '$').unwrap_or(text.len());
    let (first, mut rest) = rest.split_at(end(rest));
    let mut path = vec![first.to_owned()];
    loop {
        if let Some(after) = rest.strip_prefix('.') {
            let (segment, after) = after.split_at(end(after));
            path.push(segment.to_owned());
            rest = after;
        } else if let Some((segment, after)) = in_brackets(rest) {
            path.push(segment.to_owned());
            rest = after;
        } else {
            return (path, rest);
        }
    }
}

/// Parses `["name"]` at the beginning of `rest`.
fn in_brackets(rest: &str) -> Option<(&str, &str)> {
    let inner = rest.strip_prefix('[')?;
    let quote = inner.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    let (segment, after) = inner[1..].split_once(quote)?;
    Some((segment, after.strip_prefix(']')?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_stands_behind_where_and_order_is_looked_at() {
        let found = |query: &str| paths(query).into_iter().map(|path| path.join("/")).collect::<Vec<_>>();
        assert_eq!(found("SELECT c.id, c.sync.appliedAt AS x FROM c"), [""; 0]);
        assert_eq!(
            found(
                "SELECT * FROM c WHERE IS_DEFINED(c.sync.flags) OR c.sync.state = 'c.partial' AND c[\"$x\"]['y'] > 1"
            ),
            ["sync/flags", "sync/state", "$x/y"]
        );
        assert_eq!(found("select * from root as r where r.a = @c.b order by r.d desc"), ["a", "d"]);
        assert_eq!(found("SELECT VALUE COUNT(1) FROM c GROUP BY c.tags.site"), ["tags/site"]);
        assert_eq!(found("SELECT * FROM c WHERE c.a = 'it''s \\' c.b' AND d.e = 1"), ["a"]);
        assert_eq!(found("é '"), [""; 0]);
    }

    #[test]
    fn the_index_serves_what_it_has() {
        let policy = json!({"includedPaths": [{"path": "/a/*"}], "excludedPaths": [{"path": "/*"}]});
        let policy = Policy::read(&policy).expect("a policy");
        assert!(is_served("SELECT * FROM c", &policy));
        assert!(is_served("SELECT * FROM c WHERE IS_DEFINED(c.a) AND c.a.b = 1", &policy));
        assert!(!is_served("SELECT * FROM c WHERE c.a.b = 1 AND c.d = 1", &policy));
    }
}
