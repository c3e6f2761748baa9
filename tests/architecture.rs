//! The shape of the code: which module may know which, which library lives where, how large a file
//! may grow. `ARCHITECTURE.md` says why.

use std::path::{Path, PathBuf};

/// Modules by layer, lowest first. A module may import only from lower layers.
const LAYERS: [&[&str]; 11] = [
    &["words"],
    &["execution", "experiment", "gemini", "guardrail", "price", "statistics", "template"],
    &["catalog", "results"],
    &["config", "rounds", "telemetry", "upstream"],
    &["export", "store"],
    &["backtest", "listen", "outbox", "refresh", "retention"],
    &["analyst", "erasure"],
    &["admin", "proxy", "simulator"],
    &["app"],
    &["cli"],
    &["main"],
];

/// Libraries with their owners.
const OWNERS: [(&str, &[&str]); 17] = [
    ("aho_corasick", &["guardrail"]),
    ("anyhow", &["app", "cli", "main"]),
    ("axum", &["admin", "simulator"]),
    ("clap", &["cli", "main"]),
    ("deadpool", &["store"]),
    ("deadpool_postgres", &["store"]),
    ("flate2", &["cli", "outbox", "proxy", "simulator"]),
    ("hyper", &["app", "listen", "proxy"]),
    ("md5", &["experiment"]),
    ("minijinja", &["template"]),
    ("regex_automata", &["guardrail"]),
    ("reqwest", &["export", "proxy", "upstream"]),
    ("rusqlite", &["outbox", "store"]),
    ("rustls", &["app", "listen", "store", "upstream"]),
    ("tokio_postgres", &["store"]),
    ("unicode_normalization", &["guardrail"]),
    ("utoipa", &["admin"]),
];

/// Pure engines see no socket, task, clock or SQL.
const ENGINES: [&str; 8] =
    ["experiment", "gemini", "guardrail", "price", "results", "statistics", "template", "words"];
const RIM: [&str; 7] =
    ["axum", "deadpool_postgres", "hyper", "reqwest", "rusqlite", "tokio", "tokio_postgres"];

const FILE_LINES_MAX: usize = 600;
const LOCKED_PACKAGES_MAX: usize = 300;
const JUNK_DRAWERS: [&str; 6] = ["util", "utils", "common", "helpers", "types", "models"];

struct Source {
    path: PathBuf,
    module: String,
    /// Without comments and the test module at the end.
    code: String,
    first_line: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(read(&root, path));
            }
        }
    }
    assert!(sources.len() > 60, "only {} files were found", sources.len());
    sources
}

fn read(root: &Path, path: PathBuf) -> Source {
    let text = std::fs::read_to_string(&path).unwrap();
    let relative = path.strip_prefix(root).unwrap();
    let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
    let module = first.trim_end_matches(".rs").to_owned();
    let first_line = text.lines().next().unwrap_or_default().to_owned();
    let prod = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let code = prod
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n");
    Source { path, module, code, first_line }
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// Whether `word::` stands in the code as a path's first segment.
fn mentions(code: &str, word: &str) -> bool {
    let path = format!("{word}::");
    code.match_indices(&path).any(|(at, _)| {
        let before = code[..at].chars().next_back().unwrap_or(' ');
        !before.is_alphanumeric() && before != '_' && before != ':'
    })
}

fn is_tests(source: &Source) -> bool {
    source.path.file_stem().is_some_and(|name| name == "tests")
        || source.path.parent().is_some_and(|folder| folder.ends_with("tests"))
}

#[test]
fn modules_import_downwards_only() {
    for source in sources().iter().filter(|source| source.module != "lib" && !is_tests(source)) {
        let own = layer(&source.module).unwrap_or_else(|| panic!("{} has no layer", source.module));
        for piece in source.code.split("crate::").skip(1) {
            let other: String = piece
                .chars()
                .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
                .collect();
            if other == source.module || other.is_empty() {
                continue;
            }
            let theirs = layer(&other).unwrap_or_else(|| {
                panic!("{}: crate::{other} has no layer", source.path.display())
            });
            assert!(
                theirs < own,
                "{} imports {other}, which is not below {}",
                source.path.display(),
                source.module
            );
        }
    }
}

#[test]
fn libraries_stay_with_their_owners() {
    for source in sources().iter().filter(|source| !is_tests(source)) {
        for (library, owners) in OWNERS {
            if mentions(&source.code, library) && source.module != library {
                assert!(
                    owners.contains(&source.module.as_str()),
                    "{} uses {library}",
                    source.path.display()
                );
            }
        }
        if ENGINES.contains(&source.module.as_str()) {
            for library in RIM {
                assert!(
                    !mentions(&source.code, library),
                    "{} is an engine and uses {library}",
                    source.path.display()
                );
            }
        }
    }
}

#[test]
fn tasks_and_environment_have_their_places() {
    for source in sources().iter().filter(|source| !is_tests(source)) {
        let name = source.path.display();
        for emits in [
            "counter!(",
            "gauge!(",
            "histogram!(",
            "tracing::info",
            "tracing::warn",
            "tracing::error",
        ] {
            assert!(
                !source.code.contains(emits) || source.module == "telemetry",
                "{name} uses {emits}"
            );
        }
        assert!(!source.code.contains("tokio::spawn"), "{name}: spawn on a named task set");
        let reads = source.code.contains("std::env::") || source.code.contains("env::var");
        assert!(!reads || source.module == "config", "{name} reads the environment");
        assert!(!source.code.contains(".unwrap()"), "{name} unwraps");
    }
}

#[test]
fn only_the_guardrail_step_can_clear_a_call() {
    for source in sources() {
        let name = source.path.file_name().unwrap().to_str().unwrap().to_owned();
        for evidence in ["Cleared(", "Screened {"] {
            let makes = source.code.contains(evidence);
            assert!(!makes || name == "inspect.rs", "{} makes {evidence}", source.path.display());
        }
    }
}

#[test]
fn files_are_small_named_well_and_say_what_they_are() {
    for source in sources() {
        let name = source.path.display();
        let lines = source.code.lines().count();
        assert!(lines <= FILE_LINES_MAX, "{name} has {lines} lines");
        assert!(source.first_line.starts_with("//!"), "{name} opens without a module comment");
        let stem = source.path.file_stem().unwrap().to_str().unwrap();
        assert!(stem != "mod" && !JUNK_DRAWERS.contains(&stem), "{name} is named for nothing");
    }
}

#[test]
fn dependencies_are_few_and_from_the_registry() {
    let lock =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).unwrap();
    let packages = lock.matches("[[package]]").count();
    assert!(packages < LOCKED_PACKAGES_MAX, "{packages} packages are locked");
    for line in lock.lines().filter(|line| line.starts_with("source = ")) {
        assert!(line.contains("registry+"), "{line}");
    }
}
