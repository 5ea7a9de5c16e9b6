//! Which modules of the source import which: layers without cycles.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// A module as its path below the crate, e.g. `["runtime", "router", "item"]`.
type Module = Vec<String>;

/// The source of each module, without tests and comments.
fn modules(directory: &Path, root: &Path, found: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path: PathBuf = entry.expect("an entry").path();
        if path.is_dir() {
            modules(&path, root, found);
            continue;
        }
        let module = path.strip_prefix(root).expect("below the root").with_extension("");
        let module: Module = module.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        let is_source = path.extension().is_some_and(|extension| extension == "rs");
        if !is_source
            || module.iter().any(|part| part.contains("tests") || part == "testing" || part == "main")
        {
            continue;
        }
        let text = fs::read_to_string(&path).expect("text");
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        let module = if module == ["lib"] { Vec::new() } else { module };
        found.insert(module, code.collect::<Vec<_>>().join("\n"));
    }
}

/// The full paths of a `use` tree or an expression: `a::{b, c::d}` becomes `a::b` and `a::c::d`.
fn leaves(prefix: &str, tree: &str, found: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((head, inner)) = tree.split_once('{') else {
        found.push(format!("{prefix}{}", tree.split(" as ").next().unwrap_or(tree).trim()));
        return;
    };
    let inner = inner.trim_end().strip_suffix('}').unwrap_or(inner);
    let (mut depth, mut begin) = (0_usize, 0);
    let prefix = format!("{prefix}{}", head.trim());
    for (at, character) in inner.char_indices().chain([(inner.len(), ',')]) {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !inner[begin..at].trim().is_empty() {
                    leaves(&prefix, &inner[begin..at], found);
                }
                begin = at + 1;
            }
            _ => {}
        }
    }
}

/// The paths that a module imports or names with `crate::` or `super::`.
fn named(code: &str) -> Vec<String> {
    let (mut paths, mut rest) = (Vec::new(), String::new());
    for part in code.split_inclusive(';') {
        let begin = part.rfind("use ").filter(|at| part[..*at].ends_with(['\n', ' ']) || *at == 0);
        match begin {
            Some(at) if ["crate", "super", "self"].iter().any(|root| part[at + 4..].starts_with(root)) => {
                leaves("", part[at + 4..].trim_end_matches(';'), &mut paths);
            }
            _ => rest.push_str(part),
        }
    }
    for root in ["crate::", "super::"] {
        for (at, _) in rest.match_indices(root) {
            let path = rest[at..].split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).next();
            paths.extend(path.map(str::to_owned));
        }
    }
    paths
}

/// The module that `path` refers to inside the module `from`.
fn resolve(from: &Module, path: &str, known: &BTreeMap<Module, String>) -> Option<Module> {
    let mut parts = path.split("::").filter(|part| !part.is_empty()).peekable();
    let mut place = match parts.peek() {
        Some(&"crate") => Vec::new(),
        _ => from.clone(),
    };
    while let Some(part) = parts.next_if(|part| ["crate", "super", "self"].contains(part)) {
        if part == "super" {
            place.pop();
        }
    }
    place.extend(parts.map(str::to_owned));
    (1..=place.len()).rev().map(|length| place[..length].to_vec()).find(|place| known.contains_key(place))
}

fn imports() -> BTreeSet<(Module, Module)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut known = BTreeMap::new();
    modules(&root, &root, &mut known);
    assert!(known.len() > 200, "{}", known.len());
    let each = known.iter().flat_map(|(from, code)| {
        named(code).into_iter().filter_map(|path| Some((from.clone(), resolve(from, &path, &known)?)))
    });
    each.filter(|(from, to)| from != to).collect()
}

/// A layer without an entry may import every layer.
#[test]
fn layers_import_downwards_only() {
    let below: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("domain", &[][..]),
        ("ports", &["domain"]),
        ("config", &["domain"]),
        ("listener", &[]),
        ("adapters", &["config", "domain", "ports", "telemetry"]),
        ("telemetry", &["config", "domain", "ports"]),
        ("runtime", &["config", "domain", "ports", "telemetry"]),
    ]);
    let imports = imports();
    assert!(imports.len() > 500, "{}", imports.len());
    for (from, to) in imports {
        let (Some(layer), Some(other)) = (from.first(), to.first()) else { continue };
        if layer != other
            && let Some(allowed) = below.get(layer.as_str())
        {
            assert!(allowed.contains(&other.as_str()), "{} imports {}", from.join("::"), to.join("::"));
        }
    }
}

/// At depth two, e.g. `runtime::router` and `runtime::partition`. A module and its submodules count as one.
#[test]
fn no_two_modules_import_each_other_also_not_by_way_of_others() {
    let mut edges: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for (from, to) in imports() {
        let cut = |module: &Module| module.iter().take(2).cloned().collect::<Module>();
        let (from, to) = (cut(&from), cut(&to));
        // A layer's own file re-exports its modules, so it is left out.
        if from.len() == 2 && to.len() == 2 && from != to {
            edges.entry(from).or_default().insert(to);
        }
    }
    // A module that imports none of the remaining modules, or that none of them imports, is in no cycle.
    loop {
        let imported: BTreeSet<_> = edges.values().flatten().cloned().collect();
        let free: Vec<_> = edges
            .iter()
            .filter(|(from, to)| !imported.contains(*from) || !to.iter().any(|to| edges.contains_key(to)))
            .map(|(from, _)| from.clone())
            .collect();
        if free.is_empty() {
            break;
        }
        for module in free {
            edges.remove(&module);
        }
    }
    let circle = edges.iter().map(|(from, to)| {
        let to = to.iter().filter(|to| edges.contains_key(*to)).map(|to| to.join("::"));
        format!("{} imports {}", from.join("::"), to.collect::<Vec<_>>().join(", "))
    });
    let circle: Vec<_> = circle.collect();
    assert!(circle.is_empty(), "{circle:#?}");
}
