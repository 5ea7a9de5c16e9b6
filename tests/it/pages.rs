//! Files and functions that the documentation names must exist.

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

/// The texts between backquotes.
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

/// The source of a test module, e.g. of `it::restart` or `domain::silence`, with the modules below it. Unit tests are beside their code.
fn tests_of(modules: &[&str]) -> String {
    let path = modules.join("/").replacen("it/", "tests/it/", 1);
    let places = match path.strip_prefix("tests/it/") {
        Some(_) => vec![path],
        None => vec![format!("tests/{path}"), format!("src/{path}")],
    };
    let mut source = String::new();
    for place in places {
        source.push_str(&fs::read_to_string(root().join(format!("{place}.rs"))).unwrap_or_default());
        if root().join(&place).is_dir() {
            source_below(&root().join(&place), &mut source);
        }
    }
    source
}

#[test]
fn tests_that_the_page_about_reliability_names_are_there() {
    let page = fs::read_to_string(root().join("docs/reliability.md")).expect("a page");
    let mut simulation = String::new();
    source_below(&root().join("tests/sim"), &mut simulation);
    simulation.push_str(&fs::read_to_string(root().join("src/planted.rs")).expect("text"));
    let (mut tests, mut names) = (0, 0);
    for name in quoted(&page) {
        let modules: Vec<_> = name.split("::").collect();
        if modules.len() > 1 && ["it", "domain", "runtime", "serve"].contains(&modules[0]) {
            tests += 1;
            let (last, before) = modules.split_last().expect("two at least");
            let is_module = !tests_of(&modules).is_empty();
            let is_test = || tests_of(before).contains(&format!("fn {last}("));
            assert!(is_module || is_test(), "there is no test or test module {name}");
        } else if name.starts_with(char::is_uppercase) && name.chars().all(char::is_alphanumeric) {
            // An invariant, or a planted defect.
            names += 1;
            assert!(simulation.contains(name), "the simulation has no {name}");
        }
    }
    assert!(tests > 35 && names > 30, "{tests} tests, {names} names");
}

#[test]
fn the_page_about_checks_has_a_row_for_each_in_their_order() {
    let page = fs::read_to_string(root().join("docs/check.md")).expect("a page");
    let names: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let rows: Vec<_> = rows.map(|(name, _)| name).filter(|name| names.contains(name)).collect();
    assert_eq!(rows, names);
}
