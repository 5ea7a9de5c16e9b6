//! Pages that name files and functions of the source.

use std::{fs, path::Path};

use twinsync::domain::checks::Kind;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn source_below(directory: &Path, all: &mut String) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            source_below(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push_str(&fs::read_to_string(&path).expect("text"));
        }
    }
}

/// What stands between backquotes.
fn quoted(page: &str) -> impl Iterator<Item = &str> {
    page.split("```").step_by(2).flat_map(|text| text.split('`').skip(1).step_by(2))
}

fn is_path(name: &str) -> bool {
    let word = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    name.contains('/') && name.split('/').all(word)
}

#[test]
fn files_and_functions_that_pages_name_are_there() {
    let mut source = String::new();
    source_below(&root().join("src"), &mut source);
    let (mut files, mut functions) = (0, 0);
    for page in ["ARCHITECTURE.md", "CONTRIBUTING.md", "docs/glossary.md"] {
        let text = fs::read_to_string(root().join(page)).expect("a page");
        for name in quoted(&text) {
            if is_path(name) {
                files += 1;
                let places =
                    [format!("src/{name}.rs"), format!("src/{name}"), format!("{name}.rs"), name.to_owned()];
                assert!(places.iter().any(|place| root().join(place).exists()), "{page}: there is no {name}");
            } else if let Some((place, name)) = name.rsplit_once("::")
                && name.chars().all(|c| c.is_ascii_lowercase() || c == '_')
                && !name.is_empty()
                && !place.contains(' ')
                && !place.starts_with("it")
                && !place.starts_with("sim")
            {
                functions += 1;
                assert!(
                    source.contains(&format!("fn {name}")),
                    "{page}: there is no function {place}::{name}"
                );
                let owner = place.rsplit("::").next().unwrap_or(place);
                let kinds = ["struct", "enum", "trait", "mod"];
                let known = kinds.iter().any(|kind| source.contains(&format!("{kind} {owner}")));
                assert!(known, "{page}: there is no {place}");
            }
        }
    }
    assert!(files > 60 && functions > 25, "{files} files, {functions} functions");
}

#[test]
fn the_page_about_checks_has_a_row_for_each_in_their_order() {
    let page = fs::read_to_string(root().join("docs/check.md")).expect("a page");
    let names: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let rows: Vec<_> = rows.map(|(name, _)| name).filter(|name| names.contains(name)).collect();
    assert_eq!(rows, names);
}
