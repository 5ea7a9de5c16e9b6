//! The first remedy for a code, taken from the page about it, so that the two cannot disagree.

/// The start of the paragraph of a page that says what to do.
const WHAT_TO_DO: &str = "**What to do.**";
/// A sentence shorter than this, in characters, says too little alone.
const SHORT: usize = 45;
/// The maximum length of a hint, in characters; the page has the rest.
const LONG: usize = 320;

/// The first sentence about what to do, or the first two if the first one is short, as plain text on one line. `None`
/// if the page does not say what to do.
pub fn hint(page: &str) -> Option<String> {
    let (_, rest) = page.split_once(WHAT_TO_DO)?;
    let paragraph: Vec<&str> =
        rest.trim_start_matches(' ').lines().take_while(|line| !line.trim().is_empty()).collect();
    let text = plain(&paragraph.join(" "));
    let mut hint = String::new();
    for sentence in sentences(&text) {
        if !hint.is_empty() {
            hint.push(' ');
        }
        hint.push_str(sentence);
        if hint.chars().count() >= SHORT {
            break;
        }
    }
    if let Some(begun) = hint.strip_suffix(':') {
        // A list or a command follows.
        hint = format!("{begun}; the page says how.");
    }
    if hint.chars().count() > LONG {
        hint = hint.chars().take(LONG).chain(['…']).collect();
    }
    (!hint.is_empty()).then_some(hint)
}

/// The sentences of a text, with their final punctuation.
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text.trim();
    std::iter::from_fn(move || {
        let end = rest.match_indices(['.', ':']).find_map(|(place, mark)| {
            let after = &rest[place + mark.len()..];
            let next = after.strip_prefix(' ').and_then(|after| after.chars().next());
            // A mark inside a name or a number does not end a sentence; nor does a mark before a word in lower case.
            (after.is_empty() || next.is_some_and(|next| !next.is_lowercase())).then_some(place + mark.len())
        });
        let (sentence, left) = rest.split_at(end.unwrap_or(rest.len()));
        rest = left.trim_start();
        (!sentence.is_empty()).then_some(sentence)
    })
}

/// The text without marks of emphasis and code; of a link, only its text.
fn plain(markdown: &str) -> String {
    let mut text = String::with_capacity(markdown.len());
    let mut rest = markdown;
    while let Some((before, link)) = rest.split_once('[') {
        text.push_str(before);
        match link.split_once("](").and_then(|(name, after)| Some((name, after.split_once(')')?.1))) {
            Some((name, after)) if !name.contains(']') => {
                text.push_str(name);
                rest = after;
            }
            _ => {
                text.push('[');
                rest = link;
            }
        }
    }
    text.push_str(rest);
    text.retain(|character| !matches!(character, '*' | '`'));
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(what_to_do: &str) -> Option<String> {
        hint(&format!("# A_CODE\n\n**What it means.** Nothing.\n\n**What to do.** {what_to_do}\n\nMore.\n"))
    }

    #[test]
    fn the_first_sentence_is_the_hint_and_two_where_it_is_short() {
        let cases = [
            (
                "Give the identity the role *Reader*\non the hub (`az role …`). Then wait.",
                "Give the identity the role Reader on the hub (az role …).",
            ),
            (
                "Check `eventhubs.namespace`, DNS and that port 5671 is open. Then wait.",
                "Check eventhubs.namespace, DNS and that port 5671 is open.",
            ),
            ("A single one is nothing. Many of them are.", "A single one is nothing. Many of them are."),
            (
                "Raise the default of the account, which is done in a moment:\n\n```\naz\n```",
                "Raise the default of the account, which is done in a moment; the page says how.",
            ),
            (
                "Look for [BLOB_REFUSED](BLOB_REFUSED.md) in the log of the daemon, or [iothub] e.g. here.",
                "Look for BLOB_REFUSED in the log of the daemon, or [iothub] e.g. here.",
            ),
        ];
        for (page, expected) in cases {
            assert_eq!(of(page).as_deref(), Some(expected));
        }
        assert_eq!(hint("# A_CODE\n\nNothing is said.\n"), None);
        assert_eq!(of(""), None);
        assert!(of(&"word ".repeat(200)).is_some_and(|hint| hint.chars().count() == LONG + 1));
        let as_long_as_possible = "w".repeat(LONG);
        assert_eq!(of(&as_long_as_possible), Some(as_long_as_possible));
    }

    #[test]
    fn a_bracket_that_begins_no_link_stays() {
        assert_eq!(plain("a [b] c](d) e [f](g)"), "a [b] c](d) e f");
    }
}
