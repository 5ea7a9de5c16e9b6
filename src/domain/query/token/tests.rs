use super::{Token, Tokens};

fn tokens(text: &str) -> Vec<(usize, Token)> {
    let mut tokens = Tokens::new(text).expect("the first token");
    let mut all = Vec::new();
    while *tokens.current() != Token::End {
        all.push((tokens.position(), tokens.current().clone()));
        tokens.advance().expect("the next token");
    }
    all
}

fn word(text: &str) -> Token {
    Token::Word(text.into())
}

#[test]
fn words_texts_numbers_and_signs_are_told_apart() {
    for (text, expected) in [
        ("", vec![]),
        (" \t\n\u{a0}", vec![]),
        ("a.$b_1", vec![(0, word("a")), (1, Token::Sign(".")), (2, word("$b_1"))]),
        ("é'ü'x", vec![(0, word("é")), (1, Token::Text("ü".into())), (4, word("x"))]),
        (
            "a<=b<>c!=d",
            vec![
                (0, word("a")),
                (1, Token::Sign("<=")),
                (3, word("b")),
                (4, Token::Sign("<>")),
                (6, word("c")),
                (7, Token::Sign("!=")),
                (9, word("d")),
            ],
        ),
        (
            "1e-5-2",
            vec![(0, Token::Number("1e-5".into())), (4, Token::Sign("-")), (5, Token::Number("2".into()))],
        ),
        (
            "0xe-1",
            vec![(0, Token::Number("0xe".into())), (3, Token::Sign("-")), (4, Token::Number("1".into()))],
        ),
        ("12ab.5", vec![(0, Token::Number("12ab.5".into()))]),
        ("[[ [ [", vec![(0, Token::DoubleOpen), (3, Token::Sign("[")), (5, Token::Sign("["))]),
    ] {
        assert_eq!(tokens(text), expected, "{text}");
    }
}

#[test]
fn two_brackets_are_a_name_or_two_lists() {
    let mut name = Tokens::new("[[a]b]] c").expect("the first token");
    assert_eq!(name.escaped().expect("has an end"), "a]b");
    assert_eq!((name.position(), name.current()), (8, &word("c")));
    let mut lists = Tokens::new("[[1").expect("the first token");
    lists.split();
    assert_eq!((lists.position(), lists.current()), (0, &Token::Sign("[")));
    lists.advance().expect("goes on");
    assert_eq!((lists.position(), lists.current()), (1, &Token::Sign("[")));
}

#[test]
fn what_can_begin_nothing_is_refused_with_advice() {
    for (text, advice) in [
        (";", "leave"),
        ("@", "parameters"),
        ("!", "not equal"),
        ("&", "AND"),
        ("|", "OR"),
        ("`", "in quotes"),
        ("#", "[[ ]]"),
        ("{", "[[ ]]"),
        ("\u{0}", "u{0}"),
        ("\u{1f600}", "[[ ]]"),
    ] {
        let error = Tokens::new(text).expect_err(text);
        assert!(error.position == 0 && error.message.contains(advice), "{error}");
    }
}

#[test]
fn a_message_quotes_tokens_but_no_texts() {
    for (token, quoted) in [
        (word("a"), "`a`"),
        (Token::Number("1".into()), "`1`"),
        (Token::Text("secret".into()), "a text in quotes"),
        (Token::DoubleOpen, "`[[`"),
        (Token::Sign("<="), "`<=`"),
        (Token::End, "the end of the query"),
    ] {
        assert_eq!(token.quoted(), quoted);
    }
}

#[test]
fn very_long_names_are_not_quoted_whole() {
    let name = "ö".repeat(61);
    assert_eq!(word(&name).quoted(), format!("`{}…`", "ö".repeat(60)));
    assert_eq!(word(&name[2..]).quoted(), format!("`{}`", "ö".repeat(60)));
}
