//! The pages about codes, and the first thing to do for each.

use std::{collections::HashMap, sync::LazyLock};

use include_dir::{Dir, File, include_dir};

use crate::domain::hint::hint;

/// The pages: the meaning of each code and what to do about it, one page per code.
static PAGES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/docs/errors");

/// Computed once: pages do not change.
static HINTS: LazyLock<HashMap<&'static str, String>> = LazyLock::new(|| {
    let hint = |code| Some((code, hint(page(code)?)?));
    codes().filter_map(hint).collect()
});

/// The page about a code.
pub(crate) fn page(code: &str) -> Option<&'static str> {
    PAGES.get_file(format!("{code}.md")).and_then(File::contents_utf8)
}

/// All codes that have a page.
pub(crate) fn codes() -> impl Iterator<Item = &'static str> {
    PAGES.files().filter_map(|file| file.path().file_stem()?.to_str())
}

/// The first thing to do, in one or two sentences.
pub(crate) fn hint_of(code: &str) -> Option<&'static str> {
    HINTS.get(code).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_has_a_hint_that_helps() {
        assert!(codes().count() > 50);
        for code in codes() {
            let hint =
                hint_of(code).unwrap_or_else(|| panic!("docs/errors/{code}.md does not say what to do"));
            let length = hint.chars().count();
            assert!((20..=300).contains(&length), "{code}: {length} characters: {hint}");
            assert!(hint.ends_with('.') || hint.ends_with(".)"), "{code}: not a whole sentence: {hint}");
            assert!(!hint.contains(['*', '`', '\n']), "{code}: not plain text: {hint}");
        }
    }
}
